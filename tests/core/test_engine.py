"""The forwarding engine: its fast path against a slow twin, and every promise of delivery."""

from __future__ import annotations

from typing import Any

import pytest
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st

from engine_frames import (
    LASTS,
    MAXIMUM,
    OWN_INCARNATION,
    SERVICE,
    TWISTS,
    Burst,
    address,
    batches,
    scattered_hops,
)
from engine_twin import SlowEngine, plain
from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.engine import EngineSettings, ForwardingEngine
from opus_socket.core.node import Mode
from opus_socket.core.parcel import Parcel


def compare(
    batches: list[bytes], arrived_from: LogicalAddress | None, las: int, in_parcel: bool
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
        parcel = Parcel(len(batch), [batch])
        frames_in = parcel if in_parcel else memoryview(bytearray(batch))
        dispatch = fast.switch(frames_in, arrived_from, float(now))
        assert plain(dispatch) == expected
        for output in dispatch.outputs:
            assert output.contact.address is not None
            assert output.frames == frames[output.contact.address, output.traffic_class]
        assert list(parcel) == [batch]


@settings(max_examples=max(300, settings().max_examples))
@given(st.data(), st.sampled_from([0, 1, 1, 1, 3]), st.booleans())
def test_engine_equals_its_slow_twin(data: st.DataObject, las: int, in_parcel: bool) -> None:
    """Whatever comes, in whatever pieces, the engine answers as if it took frame by frame."""
    arrived_from = data.draw(st.sampled_from([None, address(1, las), address(2, las)]))
    compare(data.draw(batches(las)), arrived_from, las, in_parcel)


@pytest.mark.parametrize("in_parcel", [False, True])
@pytest.mark.parametrize("twist", [{}, *TWISTS], ids=str)
def test_every_twist_ends_a_run(twist: dict[str, Any], in_parcel: bool) -> None:
    """Frames in which one thing changes while their sequence goes on, in every mode and way."""
    for mode in range(4):
        for peer in range(6):
            for last in LASTS[:4]:
                burst = Burst(1, mode, peer, peer, 5, 10, [30] * 6, 9, 0, [], last, 3, twist)
                first, other = burst.frames(), evolve(burst, first=99, incarnation=6).frames()
                late = [first[1], *other[:2], first[2], first[5], *first, *other]
                for frames in (first, late, [*first, *other, *first]):
                    compare([b"".join(frames)], None, 1, in_parcel)


@pytest.mark.parametrize("mutable", [True, False])
@pytest.mark.parametrize("hop_limit", [1, 2, 256, 257, 65_535])
@pytest.mark.parametrize("lengths", [[30] * 40, [30] * 20 + [31] * 20, [0] * 19 + [500]])
def test_long_runs(lengths: list[int], hop_limit: int, mutable: bool) -> None:
    """Many frames of one length and of others are relayed with every hop limit counted down."""
    for last in LASTS[:4]:
        burst = Burst(1, Mode.UNICAST, 4, 2, 5, 10, lengths, hop_limit, 0, [], last)
        data = b"".join(burst.frames())
        for cut in (len(data), len(data) - 1, len(data) - 60):
            compare([data[:cut]], None, 1, mutable)


@pytest.mark.parametrize("size", [MAXIMUM, MAXIMUM + 1])
@pytest.mark.parametrize("last", [(5, 0, b""), (5, 1, b"")])
@pytest.mark.parametrize("ahead", [0, 1])
def test_the_longest_frame(size: int, last: tuple[int, int, bytes], ahead: int) -> None:
    """A frame of the largest size is handled, one byte more breaks the stream, in a run or not."""
    lengths = [0] * ahead + [size - 48]
    burst = Burst(1, Mode.MULTICAST, 4, 4, 5, 0, lengths, 9, 0, [], last)
    batch = b"".join(burst.frames())
    compare([batch], None, 1, False)
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
        compare([batch], None, 1, False)
        compare([batch], None, 1, True)
