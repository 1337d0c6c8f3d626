"""The forwarding engine: its fast path against a slow twin, and every promise of delivery."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from attrs import define, evolve, field
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_twin import Answer, SlowEngine
from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.dispatch import Dispatch
from opus_socket.core.engine import EngineSettings, ForwardingEngine
from opus_socket.core.events import MessageLost
from opus_socket.core.message import OverlayMessage
from opus_socket.core.node import Mode
from still_overlay import StillNode

OWN_INCARNATION = 77
MAXIMUM = 600
SERVICE = 0x01020304


def address(index: int, las: int) -> LogicalAddress:
    return LogicalAddress((index + 1, *(10 * word + index for word in range(las))))


def scattered_hops(las: int) -> StillNode:
    """A node between three neighbors, 1 to 3, whose tables send every key somewhere else."""
    neighbors = [address(index, las) for index in (1, 2, 3)]

    def hops(
        mode: Mode, key: LogicalAddress, arrived_from: LogicalAddress | None
    ) -> list[LogicalAddress]:
        choice = (3 * key[0] + mode + 1) % 5
        if mode in (Mode.UNICAST, Mode.ANYCAST):
            return [[], neighbors[:1], neighbors[1:2], neighbors[2:], [address(9, las)]][choice]
        return [[], neighbors[:1], neighbors[:2], neighbors[1:], neighbors][choice]

    return StillNode(address(0, las), neighbors, hops, lambda key: key[0] % 2 == 0)


def chain_bytes(chain: list[tuple[int, int, bytes]]) -> tuple[int, bytes]:
    data = b""
    for index, (_, flags, body) in enumerate(chain):
        following = chain[index + 1][0] if index + 1 < len(chain) else 0
        data += bytes((following, flags)) + len(body).to_bytes(2) + body
    return (chain[0][0] if chain else 0), data


@define
class Burst:
    """Messages of one source that follow one another, until a twist."""

    las: int
    mode: int
    source: int
    destination: int
    incarnation: int
    first: int
    lengths: list[int]
    hop_limit: int
    traffic_class: int
    before: list[tuple[int, int, bytes]]
    last: tuple[int, int, bytes] | None
    twist_at: int = 1000
    twist: dict[str, Any] = field(factory=dict)
    following: int = 0
    index: int = 0
    count: int = 0

    def frames(self) -> list[bytes]:
        frames = []
        for index, length in enumerate(self.lengths):
            frame = self if index < self.twist_at else evolve(self, **self.twist)
            frames.append(frame.frame(self.first + index, length))
        return frames

    def frame(self, sequence: int, length: int) -> bytes:
        destination = address(self.destination, self.las)
        if self.mode in (0, 1):
            destination = LogicalAddress.everybody(self.las)
        identity = self.incarnation.to_bytes(8) + sequence.to_bytes(8)
        chain = [*self.before, (0x10, 0, identity)]
        if self.count or self.index:
            index = (self.index + sequence - self.first) % 65_536
            chain.append((0x14, 0, index.to_bytes(2) + self.count.to_bytes(2)))
        if self.last is not None:
            code, flags, body = self.last
            chain.append((code, flags, body + bytes(length)))
        first, data = chain_bytes(chain)
        if self.following:
            at = len(data) - len(chain[-1][2]) - 4
            data = data[:at] + bytes((self.following,)) + data[at + 1 :]
        head = bytes((self.las << 2 | self.mode, self.traffic_class, 0, first))
        head += len(data).to_bytes(2) + self.hop_limit.to_bytes(2)
        return head + address(self.source, self.las).wire + destination.wire + data


LENGTHS = [0, 0, 1, 30, 30, 30, 30, 300, 540, 552, 560]
LASTS: list[tuple[int, int, bytes] | None] = [
    (5, 0, b""),
    (5, 0, b"text"),
    (5, 2, b"flagged"),
    (6, 0, SERVICE.to_bytes(4)),
    (6, 0, b"\0\0\0\x09other"),
    (6, 0, b"abc"),
    (0x15, 0, b"unknown"),
    (0x16, 1, b"mandatory"),
    (0x13, 3, b"mandatory, hop by hop"),
    (0x12, 0, b"\x02" + OWN_INCARNATION.to_bytes(8) + bytes(32)),
    (0x12, 0, b"\x07" + OWN_INCARNATION.to_bytes(8) + bytes(8) + b"\xff" * 24),
    (0x12, 0, b"\x02" + bytes(40)),
    (0x12, 0, b"\x01" + bytes(40)),
    None,
]
# What may change in the middle of a run: each alone must end it.
TWISTS: list[dict[str, Any]] = [
    {"mode": 0},
    {"mode": 2},
    {"source": 4},
    {"destination": 4},
    {"incarnation": 4},
    {"hop_limit": 3},
    {"hop_limit": 2},
    {"traffic_class": 1},
    {"las": 2},
    {"following": 5},
    {"last": (5, 4, b"")},
    {"last": (5, 0, b"longer")},
    {"last": (6, 0, b"")},
    {"last": (6, 0, b"abc")},
    {"last": (6, 0, SERVICE.to_bytes(4))},
    {"last": None},
    {"before": [(0x44, 0, b"")]},
    {"index": 1, "count": 5},
    {"index": 3, "count": 6},
    {"count": 0},
    {"count": 1},
    {"count": 7},
]
BEFORES = [[], [], [], [(0x11, 0, b"\0")], [(0x44, 1, b"")], [(0x44, 3, b"")], [(0x10, 0, b"")]]


@st.composite
def bursts(draw: st.DrawFn, las: int) -> Burst:
    usual = draw(st.integers(0, 3)) > 0
    lengths = draw(st.lists(st.sampled_from(LENGTHS), min_size=1, max_size=12))
    return Burst(
        las if draw(st.integers(0, 19)) else (las + 1) % 4,
        draw(st.integers(0, 3)),
        draw(st.integers(0, 5)),
        draw(st.integers(0, 5)),
        draw(st.sampled_from([5, 6, OWN_INCARNATION])),
        draw(st.sampled_from([0, 1, 3, 10, 5000, 2**48 - 2, 2**64 - 20])),
        lengths,
        draw(st.sampled_from([0, 1, 2, 256, 1024, 65_535])),
        draw(st.sampled_from([0, 0, 9])),
        [] if usual else draw(st.sampled_from(BEFORES)),
        LASTS[draw(st.integers(0, 3))] if usual else draw(st.sampled_from(LASTS)),
        draw(st.integers(1, 2 * len(lengths))),
        draw(st.sampled_from(TWISTS)),
    )


@st.composite
def long_messages(draw: st.DrawFn, las: int) -> Burst:
    """Fragments of a message, most often all of them, and alike."""
    count = draw(st.integers(2, 8))
    size = draw(st.sampled_from([1, 30, 500]))
    lengths = [size] * (count - 1) + [draw(st.sampled_from([1, size, 0, 501]))]
    index = draw(st.sampled_from([0, 0, 0, 0, 1, count - 1, count]))
    burst = draw(bursts(las))
    return evolve(
        burst,
        lengths=lengths[index:] or [size],
        last=LASTS[draw(st.sampled_from([0, 0, 1, 3, 4]))],
        index=index,
        count=draw(st.sampled_from([count] * 8 + [0, 1, 65_535])),
        twist_at=draw(st.sampled_from([1000, 1000, 1, 2])),
    )


@st.composite
def batches(draw: st.DrawFn, las: int) -> list[bytes]:
    """What comes from a neighbor, read by read: some of it again, some of it spoiled."""
    batches = []
    for _ in range(draw(st.integers(1, 4))):
        frames = [
            frame
            for burst in draw(st.lists(bursts(las) | long_messages(las), min_size=1, max_size=5))
            for frame in burst.frames()
        ]
        if draw(st.booleans()):
            frames = [*frames, *frames[: draw(st.integers(0, len(frames)))]]
        data = bytearray(b"".join(frames))
        if draw(st.booleans()):
            for _ in range(draw(st.integers(0, 3))):
                data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
        if draw(st.booleans()):
            del data[draw(st.integers(0, len(data))) :]
        batches.append(bytes(data))
    return batches


def whole(message: OverlayMessage) -> bytes:
    """All of a message: the payload of one that came in fragments is not in its frame."""
    is_one_frame = message.frame.endswith(message.payload) and message.size == len(message.frame)
    return message.frame if is_one_frame else message.frame + message.payload


def plain(dispatch: Dispatch) -> Answer:
    """A dispatch in the twin's terms, with whole outputs instead of frames."""
    sent = {}
    for output in dispatch.outputs:
        data = b"".join(output.pieces)
        assert len(data) == output.size
        assert output.contact.address is not None
        sent[output.contact.address, output.traffic_class] = [data]
    assert len(sent) == len(dispatch.outputs)
    return Answer(
        dispatch.consumed,
        sent,
        [whole(message) for message in dispatch.delivered],
        [(each.service or 0, whole(each.message)) for each in dispatch.for_services],
        [event for event in dispatch.events if isinstance(event, MessageLost)],
        Counter(dispatch.dropped),
        dispatch.duplicates,
        dispatch.broken,
    )


def compare(
    batches: list[bytes], arrived_from: LogicalAddress | None, las: int, mutable: bool
) -> None:
    """Hand the same to the engine and to its twin, and expect the same answers."""
    node = scattered_hops(las)
    limits = EngineSettings(maximum_frame=MAXIMUM, max_message=1 << 30)
    fast = ForwardingEngine(node, limits, OWN_INCARNATION)
    fast.register_service(SERVICE)
    slow = SlowEngine(node, OWN_INCARNATION, MAXIMUM, [SERVICE])
    for now, batch in enumerate(batches):
        expected = slow.switch(batch, arrived_from, float(now))
        frames = {key: len(each) for key, each in expected.sent.items()}
        expected.sent = {key: [b"".join(each)] for key, each in expected.sent.items()}
        buffer = memoryview(bytearray(batch) if mutable else batch)
        dispatch = fast.switch(buffer, arrived_from, float(now), mutable=mutable)
        assert plain(dispatch) == expected
        for output in dispatch.outputs:
            assert output.contact.address is not None
            assert output.frames == frames[output.contact.address, output.traffic_class]
        if not mutable:
            assert buffer == batch


@settings(max_examples=max(300, settings().max_examples))
@given(st.data(), st.sampled_from([0, 1, 1, 1, 3]), st.booleans())
def test_engine_equals_its_slow_twin(data: st.DataObject, las: int, mutable: bool) -> None:
    """Whatever comes, in whatever pieces, the engine answers as if it took frame by frame."""
    arrived_from = data.draw(st.sampled_from([None, address(1, las), address(2, las)]))
    compare(data.draw(batches(las)), arrived_from, las, mutable)


@pytest.mark.parametrize("mutable", [True, False])
@pytest.mark.parametrize("twist", [{}, *TWISTS], ids=str)
def test_every_twist_ends_a_run(twist: dict[str, Any], mutable: bool) -> None:
    """Frames in which one thing changes while their sequence goes on, in every mode and way."""
    for mode in range(4):
        for peer in range(6):
            for last in LASTS[:4]:
                burst = Burst(1, mode, peer, peer, 5, 10, [30] * 6, 9, 0, [], last, 3, twist)
                first, other = burst.frames(), evolve(burst, first=99, incarnation=6).frames()
                late = [first[1], *other[:2], first[2], first[5], *first, *other]
                for frames in (first, late, [*first, *other, *first]):
                    compare([b"".join(frames)], None, 1, mutable)


@pytest.mark.parametrize("size", [MAXIMUM, MAXIMUM + 1])
@pytest.mark.parametrize("last", [(5, 0, b""), (5, 1, b"")])
@pytest.mark.parametrize("ahead", [0, 1])
def test_the_longest_frame(size: int, last: tuple[int, int, bytes], ahead: int) -> None:
    """A frame of the largest size is handled, one byte more breaks the stream, in a run or not."""
    lengths = [0] * ahead + [size - 48]
    burst = Burst(1, Mode.MULTICAST, 4, 4, 5, 0, lengths, 9, 0, [], last)
    batch = b"".join(burst.frames())
    compare([batch], None, 1, True)
    engine = ForwardingEngine(scattered_hops(1), EngineSettings(maximum_frame=MAXIMUM), 1)
    dispatch = engine.switch(memoryview(bytearray(batch)), None, 0.0)
    assert dispatch.broken == (None if size == MAXIMUM else "oversize")


def test_what_lies_between_two_runs_is_not_sent_with_them() -> None:
    """Two runs take the same way; between them lie one that stays here and one seen before."""
    relayed = Burst(1, Mode.UNICAST, 4, 2, 5, 10, [30] * 4, 9, 0, [], LASTS[0])
    mine = evolve(relayed, destination=0, first=50)
    frames, own = relayed.frames(), mine.frames()
    for between in (own, frames[:1], [*own, *frames[:2]]):
        batch = b"".join([*frames[:2], *between, *frames[2:]])
        compare([batch], None, 1, True)
        compare([batch], None, 1, False)
