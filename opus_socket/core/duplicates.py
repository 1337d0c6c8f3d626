"""Which messages have been here already.

Its one rule: the identity of a message alone (incarnation, sequence) decides, whatever its
mode, source address or path, so that every loop ends at the first member that it meets again.

A sequence number is a lane (16 bits) and a count (48 bits). A sender gives each pair of delivery
mode and traffic class its own lane, because these overtake each other: they take different trees
and different queues.

Messages come in runs of consecutive sequences, so a lane is known by the highest sequence seen and
the gaps below it. However long a link holds messages back that others have overtaken, they are one
gap, and new when they come. Of more than 256 gaps the oldest count as seen.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Sequence

from attrs import define, field

MAX_GAPS = 256
"""How many gaps of a lane are remembered."""

LANE_SHIFT = 48


@define(eq=False)
class _Window:
    """What of one lane was seen.

    Attributes:
        highest: the highest sequence seen.
        gaps: where gaps below it start and stop, in turn, ascending: a sequence was not seen if
            an odd number of these are not above it.
        used: when it was last asked, in seconds.
    """

    highest: int
    gaps: list[int]
    used: float


@define(eq=False)
class DuplicateWindows:
    """The windows of the lanes that were heard lately, the least recent forgotten first.

    Args:
        capacity: how many are kept.
        lifetime: seconds after which an unused one may be forgotten.
    """

    capacity: int = 1024
    lifetime: float = 60.0
    _windows: OrderedDict[int, _Window] = field(factory=OrderedDict, init=False)

    def __len__(self) -> int:
        return len(self._windows)

    def accept(
        self, incarnation: int, first: int, count: int, now: float
    ) -> Sequence[tuple[int, int]]:
        """Take a run of consecutive sequence numbers and say which of them are new.

        Args:
            incarnation: the sender's.
            first: the first sequence number, a u64.
            count: how many, at least 1.
            now: seconds.

        Returns:
            Pairs (index into the run, how many from there are new), in order.
        """
        lane = first >> LANE_SHIFT
        if first + count > lane + 1 << LANE_SHIFT:
            return self._accept_across(incarnation, first, count, now)
        key = incarnation << 16 | lane
        window = self._windows.get(key)
        if window is None:
            self._forget(now)
            begin = lane << LANE_SHIFT
            gaps = [begin, first] if first > begin else []
            window = self._windows[key] = _Window(first - 1, gaps, now)
        else:
            self._windows.move_to_end(key)
            window.used = now
        if first > window.highest:
            _advance(window, first, count)
            return ((0, count),)
        return _accept_overlapping(window, first, count)

    def _accept_across(
        self, incarnation: int, first: int, count: int, now: float
    ) -> Sequence[tuple[int, int]]:
        """A run that leaves its lane: no member sends one, and nothing forbids it either."""
        here = ((first >> LANE_SHIFT) + 1 << LANE_SHIFT) - first
        beyond = self.accept(incarnation, first + here, count - here, now)
        return [
            *self.accept(incarnation, first, here, now),
            *((here + index, new) for index, new in beyond),
        ]

    def _forget(self, now: float) -> None:
        while self._windows:
            key = next(iter(self._windows))
            if len(self._windows) < self.capacity and now - self._windows[key].used < self.lifetime:
                break
            del self._windows[key]


def _advance(window: _Window, first: int, count: int) -> None:
    """Take a run that is above everything seen."""
    if first > window.highest + 1:
        window.gaps += (window.highest + 1, first)
        _limit(window.gaps)
    window.highest = first + count - 1


def _accept_overlapping(window: _Window, first: int, count: int) -> Sequence[tuple[int, int]]:
    """Take a run that begins at or below the highest sequence seen."""
    above = window.highest + 1
    filled = _fill(window.gaps, first, min(first + count, above))
    accepted = [(start - first, stop - start) for start, stop in filled]
    if first + count > above:
        beyond = first + count - above
        window.highest += beyond
        accepted.append((above - first, beyond))
    return accepted


def _fill(gaps: list[int], first: int, stop: int) -> list[tuple[int, int]]:
    """Take what lies between two sequences out of the gaps; returns what that was, in order."""
    low, high = bisect_right(gaps, first), bisect_left(gaps, stop)
    cuts_first, cuts_last = low % 2 == 1, high % 2 == 1
    edges = gaps[low:high]
    if cuts_first:
        edges.insert(0, first)
    if cuts_last:
        edges.append(stop)
    if not edges:
        return []
    # What is left of the gaps at both ends; of a gap that is filled to its edge nothing is.
    rest = []
    if cuts_first:
        if gaps[low - 1] < first:
            rest.append(first)
        else:
            low -= 1
    if cuts_last:
        if stop < gaps[high]:
            rest.append(stop)
        else:
            high += 1
    gaps[low:high] = rest
    _limit(gaps)
    return list(zip(edges[::2], edges[1::2], strict=True))


def _limit(gaps: list[int]) -> None:
    del gaps[: max(0, len(gaps) - 2 * MAX_GAPS)]
