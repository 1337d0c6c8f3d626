"""Duplicate windows against a memory that forgets nothing."""

from __future__ import annotations

import tracemalloc

from hypothesis import example, given
from hypothesis import strategies as st

from opus_socket.core.duplicates import (
    CROWD,
    FEW_GAPS,
    LANE_SHIFT,
    MAX_GAPS,
    REFUSED,
    DuplicateWindows,
)


def new_in(accepted: object) -> list[int]:
    """The indices that pairs of (index, count) stand for."""
    assert isinstance(accepted, (tuple, list))
    return [index + more for index, count in accepted for more in range(count)]


FAR = 10_000
Runs = list[tuple[int, int, int]]
firsts = st.one_of(
    st.integers(0, 60),
    st.integers(0, 300),
    st.integers(FAR, FAR + 60),
    st.integers((1 << LANE_SHIFT) - 20, (1 << LANE_SHIFT) + 20),
    st.integers(2**64 - 2 * FAR, 2**64 - 40),
)
runs = st.tuples(st.sampled_from([1, 2]), firsts, st.integers(1, 40))


@given(st.lists(runs, max_size=60))
@example([(1, 0, 40), (1, FAR, 1), (1, 0, 40)])
@example([(1, 5, 1), (1, 7, 1), (1, 0, 12)])
@example([(1, 5, 1), (1, 7, 1), (1, 6, 1), (1, 6, 1)])
@example([(1, 10, 5), (1, 20, 5), (1, 15, 5), (1, 9, 20)])
@example([(1, 10, 5), (1, 20, 5), (1, 15, 2), (1, 18, 2), (1, 0, 30)])
@example([(1, 2**64 - 1, 1), (1, 0, 1)])
@example([(1, 0, 40), (1, FAR, 1), (1, 40, 40)])
def test_windows_equal_perfect_memory(runs: Runs) -> None:
    """New is what was not seen, however far it was overtaken."""
    windows = DuplicateWindows()
    memory: set[tuple[int, int]] = set()
    for incarnation, first, count in runs:
        expected = []
        for index in range(count):
            if (incarnation, first + index) not in memory:
                expected.append(index)
                memory.add((incarnation, first + index))
        accepted = windows.accept(incarnation, first, count, 0.0)
        assert new_in(accepted) == expected
        assert all(more > 0 for _, more in accepted)


def test_a_backlog_of_any_length_is_new_when_it_comes() -> None:
    """A hundred thousand messages may wait on one link while others overtake them."""
    windows = DuplicateWindows()
    assert new_in(windows.accept(1, 0, 10, 0.0)) == list(range(10))
    assert new_in(windows.accept(1, 100_000, 10, 0.0)) == list(range(10))
    for first in range(10, 100_000, 30):
        count = min(30, 100_000 - first)
        assert windows.accept(1, first, count, 0.0) == [(0, count)]
    assert new_in(windows.accept(1, 0, 100_010, 0.0)) == []


def test_of_too_many_gaps_the_oldest_count_as_seen() -> None:
    windows = DuplicateWindows()
    for number in range(MAX_GAPS + 2):
        windows.accept(1, 2 * number, 1, 0.0)
    assert [new_in(windows.accept(1, first, 1, 0.0)) for first in (1, 3, 5)] == [[], [0], [0]]
    # To take the middle out of a gap makes two of it.
    windows = DuplicateWindows()
    for number in range(MAX_GAPS + 1):
        windows.accept(1, 10 * number, 1, 0.0)
    assert new_in(windows.accept(1, 15, 1, 0.0)) == [0]
    assert new_in(windows.accept(1, 2, 1, 0.0)) == []
    assert new_in(windows.accept(1, 12, 1, 0.0)) == [0]


@given(st.lists(runs, max_size=30))
def test_nothing_is_accepted_twice(runs: Runs) -> None:
    """However runs overlap and come again, each message is new at most once."""
    windows = DuplicateWindows()
    accepted: list[tuple[int, int]] = []
    for incarnation, first, count in [*runs, *runs]:
        new = new_in(windows.accept(incarnation, first, count, 0.0))
        accepted += [(incarnation, first + index) for index in new]
    assert len(accepted) == len(set(accepted))


@given(
    st.lists(
        st.tuples(st.integers(1, 8), st.integers(0, 6), st.floats(0.0, 30.0)),
        max_size=60,
    )
)
def test_however_many_lanes_there_are_nothing_is_new_twice_within_a_lifetime(
    steps: list[tuple[int, int, float]],
) -> None:
    """What is not known any more when there is no room is refused, and only that."""
    windows = DuplicateWindows(capacity=3, lifetime=60.0)
    seen: set[tuple[int, int]] = set()
    used: dict[int, float] = {}
    now = 0.0
    for incarnation, first, pause in steps:
        now += pause
        if incarnation not in used:
            gone = [each for each, when in used.items() if now - when >= 60.0]
            for each in gone:
                del used[each]
            seen = {each for each in seen if each[0] in used}
        accepted = windows.accept(incarnation, first, 1, now)
        if incarnation not in used and len(used) == 3:
            assert accepted is REFUSED
            continue
        assert accepted is not REFUSED
        assert bool(new_in(accepted)) is ((incarnation, first) not in seen)
        used[incarnation] = now
        seen.add((incarnation, first))
        assert len(windows) == len(used) <= 3


def test_very_many_lanes_cost_little_each() -> None:
    """Whoever makes all there may be, each with as many gaps as it may have."""
    windows = DuplicateWindows()
    tracemalloc.start()
    for incarnation in range(CROWD, windows.capacity + CROWD):
        for number in range(FEW_GAPS + 2):
            windows.accept(incarnation, 3 * number, 1, 0.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(windows) == windows.capacity
    assert windows.accept(1, 0, 1, 0.0) is REFUSED
    assert peak < 2500 * windows.capacity


def test_lanes_unused_for_their_lifetime_go_when_another_comes() -> None:
    windows = DuplicateWindows(lifetime=60.0)
    for incarnation, now in ((1, 0.0), (2, 10.0), (1, 30.0), (3, 71.0)):
        windows.accept(incarnation, 0, 1, now)
    assert len(windows) == 2
    windows.accept(4, 0, 1, 500.0)
    assert len(windows) == 1


def test_hostile_sequences_cost_no_more_than_their_gaps() -> None:
    windows = DuplicateWindows()
    windows.accept(1, 0, 1, 0.0)
    tracemalloc.start()
    for number in range(20 * MAX_GAPS):
        windows.accept(1, (1 << LANE_SHIFT - 1) + 3 * number, 1, 0.0)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 120 * MAX_GAPS
    assert new_in(windows.accept(1, (1 << LANE_SHIFT - 1) + 1, 1, 0.0)) == []
