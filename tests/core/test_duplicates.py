"""Duplicate windows against a memory that forgets nothing."""

from __future__ import annotations

import tracemalloc

from hypothesis import example, given
from hypothesis import strategies as st

from opus_socket.core.duplicates import LANE_SHIFT, WIDTH, DuplicateWindows


def new_in(accepted: object) -> list[int]:
    """The indices that pairs of (index, count) stand for."""
    assert isinstance(accepted, (tuple, list))
    return [index + more for index, count in accepted for more in range(count)]


Runs = list[tuple[int, int, int]]
firsts = st.one_of(
    st.integers(0, 60),
    st.integers(0, 3 * WIDTH),
    st.integers(WIDTH - 40, WIDTH + 40),
    st.integers(2 * WIDTH - 40, 2 * WIDTH + 40),
    st.integers((1 << LANE_SHIFT) - 20, (1 << LANE_SHIFT) + 20),
    st.integers(2**64 - 2 * WIDTH, 2**64 - 40),
)
runs = st.tuples(st.sampled_from([1, 2]), firsts, st.integers(1, 40))


@given(st.lists(runs, max_size=60))
@example([(1, 0, 40), (1, WIDTH + 10, 1), (1, 0, 40)])
@example([(1, 5, 1), (1, 7, 1), (1, 0, 12)])
@example([(1, 2**64 - 1, 1), (1, 0, 1)])
@example([(1, 0, 40), (1, 2 * WIDTH, 1), (1, 2 * WIDTH - 40, 40)])
def test_windows_equal_perfect_memory(runs: Runs) -> None:
    """New is what was not seen, unless it is further behind its lane than the window is wide."""
    windows = DuplicateWindows()
    memory: dict[tuple[int, int], set[int]] = {}
    for incarnation, first, count in runs:
        expected = []
        for index in range(count):
            sequence = first + index
            lane = memory.setdefault((incarnation, sequence >> LANE_SHIFT), set())
            if sequence not in lane and (not lane or max(lane) - sequence < WIDTH):
                expected.append(index)
                lane.add(sequence)
        accepted = windows.accept(incarnation, first, count, 0.0)
        assert new_in(accepted) == expected
        assert all(more > 0 for _, more in accepted)


@given(st.lists(runs, max_size=30))
def test_nothing_is_accepted_twice(runs: Runs) -> None:
    """However runs overlap and come again, each message is new at most once."""
    windows = DuplicateWindows()
    accepted: list[tuple[int, int]] = []
    for incarnation, first, count in [*runs, *runs]:
        new = new_in(windows.accept(incarnation, first, count, 0.0))
        accepted += [(incarnation, first + index) for index in new]
    assert len(accepted) == len(set(accepted))


def test_a_run_wider_than_the_window_is_new_once() -> None:
    windows = DuplicateWindows()
    assert new_in(windows.accept(1, 0, 3 * WIDTH, 0.0)) == list(range(3 * WIDTH))
    assert new_in(windows.accept(1, 0, 3 * WIDTH, 0.0)) == []
    assert new_in(windows.accept(1, WIDTH, 3 * WIDTH, 0.0)) == list(range(2 * WIDTH, 3 * WIDTH))


def test_the_lane_used_longest_ago_is_forgotten_first() -> None:
    windows = DuplicateWindows(capacity=3)
    for incarnation in (1, 2, 3, 1, 4):
        windows.accept(incarnation, 0, 1, 0.0)
    assert len(windows) == 3
    assert [new_in(windows.accept(known, 0, 1, 0.0)) for known in (1, 3, 4)] == [[], [], []]
    assert new_in(windows.accept(2, 0, 1, 0.0)) == [0]


def test_lanes_unused_for_their_lifetime_go_when_another_comes() -> None:
    windows = DuplicateWindows(lifetime=60.0)
    for incarnation, now in ((1, 0.0), (2, 10.0), (1, 30.0), (3, 71.0)):
        windows.accept(incarnation, 0, 1, now)
    assert len(windows) == 2
    windows.accept(4, 0, 1, 500.0)
    assert len(windows) == 1


def test_a_hostile_sequence_costs_no_memory() -> None:
    windows = DuplicateWindows()
    windows.accept(1, 0, 1, 0.0)
    tracemalloc.start()
    for bit in range(LANE_SHIFT):
        windows.accept(1, (1 << bit) + 1, 1, 0.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * WIDTH
    assert new_in(windows.accept(1, 1 << LANE_SHIFT - 1, 1, 0.0)) == [0]
