"""What is to be said of lanes: the last word counts, and what is not written costs nothing."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from board import TAG
from opus_socket.adapters.base import Lane, Route
from opus_socket.adapters.signals import Signals
from opus_socket.core.effects import Kind

LANES = [Lane(Route(TAG, number, 9), number) for number in range(3)]


@given(st.lists(st.sampled_from([*LANES, None]), max_size=60))
def test_the_other_end_is_told_what_holds(steps: list[Lane | None]) -> None:
    """Lanes are paused and resumed in turn, and something is written now and then (None): what the
    other end believes in the end is so, and no lane is mentioned twice in between.
    """
    signals, paused, believed = Signals(), set[Lane](), set[Lane]()

    def write() -> None:
        lane, kind = signals.take()
        assert (kind is Kind.PAUSE) is (lane not in believed)
        believed.symmetric_difference_update([lane])

    for lane in steps:
        if lane is not None:
            paused.symmetric_difference_update([lane])
            signals.regulate(lane, lane in paused)
        elif signals:
            write()
        assert len(signals) == len(paused ^ believed)
    while signals:
        write()
    assert believed == paused
    signals.regulate(LANES[0], LANES[0] not in paused)
    assert signals
    signals.clear()
    assert not signals
