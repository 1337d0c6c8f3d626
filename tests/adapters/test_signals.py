"""What is to be said of lanes: the last word counts, and what is not written costs nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from board import TAG
from opus_socket.adapters.base import Lane, Route
from opus_socket.adapters.records import lane_bytes, progress_bytes
from opus_socket.adapters.signals import Signals
from opus_socket.core.effects import Kind

LANES = [Lane(Route(TAG, number, 9), number) for number in range(3)]


@given(st.lists(st.tuples(st.sampled_from([*LANES, None]), st.booleans()), max_size=60))
def test_the_other_end_is_told_what_holds(steps: list[tuple[Lane | None, bool]]) -> None:
    """Lanes are paused and resumed in turn, what they wait for makes progress, and something is
    written now and then (None): what the other end believes in the end is so, of no lane does more
    than one word wait, and there is progress only of lanes that the other end believes to be
    paused.
    """
    signals, paused, believed = Signals(), set[Lane](), set[Lane]()

    moved: dict[Lane, int] = {}

    def write() -> None:
        lane, kind, body = signals.take()
        if kind is Kind.PROGRESS:
            assert lane in believed
            assert body == progress_bytes(lane, moved.pop(lane))
        else:
            assert body == lane_bytes(lane)
            assert (kind is Kind.PAUSE) is (lane not in believed)
            believed.symmetric_difference_update([lane])
            moved.pop(lane, None)

    for age, (lane, moves) in enumerate(steps):
        if lane is None:
            if signals:
                write()
        elif not moves:
            paused.symmetric_difference_update([lane])
            signals.regulate(lane, lane in paused)
            moved.pop(lane, None)
        elif lane in paused:
            signals.progress(lane, age)
            if lane in believed:
                moved[lane] = age
        assert len(signals) == len(paused ^ believed | set(moved))
    while signals:
        write()
    assert believed == paused
    signals.regulate(LANES[0], LANES[0] not in paused)
    assert signals
    signals.clear()
    assert not signals
