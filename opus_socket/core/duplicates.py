"""Which messages have been here already.

Its one rule: the identity of a message alone (incarnation, sequence) decides, whatever its
mode, source address or path, so that every loop ends at the first member that it meets again.

A sequence number is a lane (16 bits) and a count (48 bits). A sender gives each pair of delivery
mode and traffic class its own lane, because these overtake each other: they take different trees
and different queues. Counted together, a burst of one would push another's delayed messages out
of the window, and they would be dropped as if they were duplicates.

Each lane has a window: the highest sequence seen, and which of the 4,096 up to it. Messages
come in runs of consecutive sequences, so windows take whole runs.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from attrs import define, field

WIDTH = 4096
"""How far a message may be overtaken by later ones of its lane."""

LANE_SHIFT = 48
_SEEN = (1 << WIDTH) - 1


@define(eq=False)
class _Window:
    highest: int
    bits: int
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
            Pairs (index into the run, how many from there are new), in order. A message further
            behind than the window is wide counts as seen.
        """
        lane = first >> LANE_SHIFT
        if first + count > lane + 1 << LANE_SHIFT:
            return self._accept_across(incarnation, first, count, now)
        key = incarnation << 16 | lane
        window = self._windows.get(key)
        if window is None:
            self._forget(now)
            window = self._windows[key] = _Window(first - 1, 0, now)
        else:
            self._windows.move_to_end(key)
            window.used = now
        if first > window.highest:
            _advance(window, first + count - 1, count)
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


def _advance(window: _Window, last: int, count: int) -> None:
    """Move the window up to `last`, the newest `count` of it being seen."""
    ahead = last - window.highest
    # A hostile sequence may be 2**64 ahead: shift only by what the window can hold.
    kept = window.bits << ahead if ahead < WIDTH else 0
    window.bits = (kept | (1 << count) - 1) & _SEEN
    window.highest = last


def _accept_overlapping(window: _Window, first: int, count: int) -> Sequence[tuple[int, int]]:
    overlap = min(count, window.highest - first + 1)
    floor = max(first, window.highest - WIDTH + 1)
    known = first + overlap - floor
    accepted: list[tuple[int, int]] = []
    if known > 0:
        shift = window.highest - (floor + known - 1)
        mask = (1 << known) - 1
        unseen = ~(window.bits >> shift) & mask
        window.bits |= mask << shift
        # The oldest sequence is the highest bit.
        start = floor - first
        if unseen == mask:
            accepted.append((start, known))
        elif unseen:
            accepted.extend(
                (start + index, 1) for index in range(known) if unseen >> (known - 1 - index) & 1
            )
    if count > overlap:
        _advance(window, first + count - 1, count - overlap)
        accepted.append((overlap, count - overlap))
    return accepted
