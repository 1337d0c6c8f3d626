"""Parcels: what members of a process hand to each other is what a wire would have brought them."""

from __future__ import annotations

import tracemalloc
from weakref import ref

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_frames import MAXIMUM, OWN_INCARNATION, SERVICE, address, batches, scattered_hops
from engine_twin import SlowEngine, plain
from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.dispatch import Dispatch
from opus_socket.core.engine import EngineSettings, ForwardingEngine
from opus_socket.core.node import Mode
from opus_socket.core.parcel import Parcel
from still_overlay import frames_of, lone, member, relay


@define(eq=False)
class Taker:
    """An engine that takes parcels, and its slow twin, which takes their bytes afterwards."""

    las: int
    incarnation: int = OWN_INCARNATION
    maximum: int = MAXIMUM
    fast: ForwardingEngine = field(init=False)
    slow: SlowEngine = field(init=False)
    taken: list[tuple[Parcel, LogicalAddress | None, Dispatch]] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        node = scattered_hops(self.las)
        limits = EngineSettings(maximum_frame=self.maximum, max_message=1 << 30)
        self.fast = ForwardingEngine(node, limits, self.incarnation)
        self.fast.register_service(SERVICE)
        self.slow = SlowEngine(node, self.incarnation, self.maximum, [SERVICE])

    def take(self, parcel: Parcel, arrived_from: LogicalAddress | None) -> list[Parcel]:
        """Take a parcel; those that go on."""
        dispatch = self.fast.switch(parcel, arrived_from, float(len(self.taken)))
        self.taken.append((parcel, arrived_from, dispatch))
        pieces = [output.pieces for output in dispatch.outputs]
        return [each for each in pieces if isinstance(each, Parcel)]

    def check(self) -> None:
        for now, (parcel, arrived_from, dispatch) in enumerate(self.taken):
            expected = self.slow.switch(b"".join(parcel), arrived_from, float(now))
            expected.sent = {key: [b"".join(each)] for key, each in expected.sent.items()}
            assert plain(dispatch) == expected


@settings(max_examples=max(200, settings().max_examples))
@given(st.data(), st.sampled_from([0, 1, 1, 1, 3]))
def test_whoever_takes_a_parcel_takes_its_bytes(data: st.DataObject, las: int) -> None:
    """Also after others, who have other neighbors, limits and memories, and after some hops,
    whether anybody has looked at the bytes meanwhile or not.
    """
    nearest = [Taker(las), Taker(las, 5), Taker(las, maximum=MAXIMUM - 60), Taker((las + 1) % 4)]
    rows = [nearest, [Taker(las, 78), Taker(las, 6)], [Taker(las, 79), Taker(las, 80)]]
    sent = [Parcel(len(batch), [batch]) for batch in data.draw(batches(las))]
    parcels, arrived_from = sent, None
    for row in rows:
        onward: list[Parcel] = []
        for parcel in parcels:
            if data.draw(st.booleans()):
                assert sum(map(len, parcel)) == parcel.size
            for taker in data.draw(st.permutations(row)):
                onward += taker.take(parcel, arrived_from)
        parcels, arrived_from = onward[:20], address(1, las)
    for taker in [taker for row in rows for taker in row]:
        taker.check()


PAYLOADS = [b"one", b"", b"3" * 700]


def engine(index: int, *near: int) -> ForwardingEngine:
    """The engine of a member that sends everything on to all of these but the first."""
    return ForwardingEngine(lone(index, *near), EngineSettings(), 1000 + index)


def going(dispatch: Dispatch) -> Parcel:
    """The one parcel that goes to everybody."""
    first, *others = [output.pieces for output in dispatch.outputs]
    assert isinstance(first, Parcel)
    assert all(pieces is first for pieces in others)
    return first


def test_members_at_one_distance_share_everything() -> None:
    """What goes on, and the messages that their applications get."""
    sent = going(engine(1, 0, 2, 3).originate(PAYLOADS, Mode.MULTICAST, None, 0.0))
    siblings = [engine(index, 1, 4, 5).switch(sent, member(1), 0.0) for index in (2, 3)]
    parcels = [going(dispatch) for dispatch in siblings]
    assert parcels[0] is parcels[1]
    here, there = (dispatch.delivered for dispatch in siblings)
    assert here is not there
    assert [message.payload for message in here] == PAYLOADS
    assert all(one is other for one, other in zip(here, there, strict=True))
    below = engine(6, 2).switch(parcels[0], member(2), 0.0).delivered
    assert [message.payload for message in below] == PAYLOADS
    assert [message.hop_limit for message in (*here, *below)] == [1024] * 3 + [1023] * 3


def test_a_message_cannot_be_changed() -> None:
    """Others may have the same one."""
    [message] = relay(engine(2, 1), frames_of(1, Mode.MULTICAST, None, b"x")).delivered
    with pytest.raises(AttributeError):
        message.frame = b""  # type: ignore[misc]


def test_a_parcel_keeps_none_alive_that_went_on() -> None:
    """Or what waits for one neighbor would hold what all others have long passed on."""
    data = frames_of(9, Mode.UNICAST, 4, *PAYLOADS)
    parcel = Parcel(len(data), [data])
    gone = ref(going(engine(2, 1, 4).switch(parcel, member(1), 0.0)))
    assert gone() is None
    later = going(engine(3, 1, 4).switch(parcel, member(1), 0.0))
    [by_wire] = relay(engine(5, 1, 4), data).outputs
    assert b"".join(later) == b"".join(by_wire.pieces)


def test_a_part_of_a_parcel_does_not_keep_the_rest() -> None:
    """A member that has seen the long message sends on the short one alone."""
    long = frames_of(9, Mode.MULTICAST, None, bytes(1 << 14))
    short = frames_of(8, Mode.MULTICAST, None, b"short")
    here = engine(3, 1, 4)
    relay(here, long)
    tracemalloc.start()
    try:
        data = long + short
        part = going(here.switch(Parcel(len(data), [data]), member(1), 0.0))
        del data
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert part.size == len(short)
    assert kept < len(long) / 2


def test_what_is_left_of_a_parcel_goes_on() -> None:
    """Of three sources a member has seen the first; their frames are equally long."""
    bursts = [frames_of(source, Mode.MULTICAST, None, bytes((source,))) for source in (7, 8, 9)]
    here = engine(3, 1, 4)
    relay(here, bursts[0])
    data = b"".join(bursts)
    part = going(here.switch(Parcel(len(data), [data]), member(1), 0.0))
    for below in (engine(4, 3), engine(5, 3)):
        delivered = below.switch(part, member(3), 0.0).delivered
        assert [message.payload for message in delivered] == [b"\x08", b"\x09"]


def test_relays_write_nothing() -> None:
    """However many hand a parcel on; the one that it is for sees what a wire would have brought."""
    payload = bytes(1 << 20)
    parcel = going(engine(1, 0, 2).originate([payload], Mode.UNICAST, member(99), 0.0))
    assert parcel.size > len(payload)
    assert len(parcel.view) == parcel.size
    expected = bytearray(parcel.view)
    tracemalloc.start()
    try:
        for index in range(2, 30):
            parcel = going(
                engine(index, index - 1, index + 1).switch(parcel, member(index - 1), 0.0)
            )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < len(payload)
    at = 0
    while at < len(expected):
        expected[at + 6 : at + 8] = (1024 - 28).to_bytes(2)
        at += 24 + int.from_bytes(expected[at + 4 : at + 6])
    assert b"".join(parcel) == expected
