"""Which messages have been here already.

Its one rule: the identity of a message alone (incarnation, sequence) decides, whatever its
mode, source address or path, so that every loop ends at the first member that it meets again.

A sequence number is a lane (16 bits) and a count (48 bits). A sender gives each pair of delivery
mode and traffic class its own lane, because these overtake each other: they take different trees
and different queues.

Messages come in runs of consecutive sequences, so a lane is known by the highest sequence seen and
the gaps below it. However long a link holds messages back that others have overtaken, they are one
gap, and new when they come. Of more than 256 gaps (16 where there are very many lanes) the oldest
count as seen.

A lane is remembered for a minute after it was last heard, whatever else comes: a copy that is later
than that is taken for new. So there may be only so many lanes, and what comes in further ones is
refused until there is room: it is better lost, and counted, than sent round and round.

What was seen anyway says more about a lane than what is new: who brings it, how much of it came,
and what is missing. It is written down here, once for each run, for those who look at lanes from
time to time (see `sessions`); nothing that is accepted depends on it.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from attrs import define, field

from opus_socket.core.addresses import LogicalAddress

MAX_GAPS = 256
"""How many gaps of a lane are remembered."""

CROWD = 1024
"""More lanes than this are very many."""

FEW_GAPS = 16
"""How many gaps of a lane are remembered where there are very many lanes."""

LANE_SHIFT = 48


NOBODY = LogicalAddress.everybody(0)
"""In a window: the neighbor that brought the lane is lost, and no other brings it yet. All ones is
no member's address.
"""

Accepted = Sequence[tuple[int, int]]
"""Pairs of an index into a run and how many from there are new, in order."""

REFUSED: Accepted = []
"""There is no room for another lane."""


@define(eq=False)
class Window:
    """What of one lane was seen.

    Attributes:
        highest: the highest sequence seen.
        gaps: where gaps below it start and stop, in turn, ascending: a sequence was not seen if
            an odd number of these are not above it.
        used: when it was last asked, in seconds.
        source: the sender's address on the wire, as its first message said.
        begin: the first sequence seen.
        count, size: messages that were new, and bytes of their frames.
        via: the neighbor that brought what was new last; None when it was not known, `NOBODY` when
            that neighbor is lost.
        other, other_at: another neighbor that brought this lane, too, and when it last did.
    """

    highest: int
    gaps: list[int]
    used: float
    source: bytes
    begin: int
    via: LogicalAddress | None
    count: int = 0
    size: int = 0
    other: LogicalAddress | None = None
    other_at: float = 0.0

    @property
    def missing(self) -> int:
        """How many messages since the first one were not seen (yet)."""
        gaps, begin = self.gaps, self.begin
        return sum(
            stop - start
            for start, stop in zip(gaps[::2], gaps[1::2], strict=True)
            if start >= begin
        )


@define(eq=False)
class DuplicateWindows:
    """The windows of the lanes that were heard lately.

    Args:
        capacity: how many are kept; there is no room for more until one is forgotten.
        lifetime: seconds after which an unused one is forgotten when another lane comes.

    Attributes:
        regained: windows of lanes that somebody brings again after `NOBODY` did, each once, by
            `id`; whoever looks at them clears it.
    """

    capacity: int = 16_384
    lifetime: float = 60.0
    regained: dict[int, Window] = field(factory=dict, init=False)
    _windows: OrderedDict[int, Window] = field(factory=OrderedDict, init=False)

    def __len__(self) -> int:
        return len(self._windows)

    def find(self, incarnation: int, lane: int) -> Window | None:
        """The window of a lane, if it was heard lately."""
        return self._windows.get(incarnation << 16 | lane)

    def since(self, when: float) -> Iterator[tuple[int, int, Window]]:
        """Incarnation, lane and window of all used at or after `when`, the latest first."""
        for key, window in reversed(self._windows.items()):
            if window.used < when:
                return
            yield key >> 16, key & 0xFFFF, window

    def accept(
        self,
        incarnation: int,
        first: int,
        count: int,
        now: float,
        via: LogicalAddress | None = None,
        source: bytes = b"",
        size: int = 0,
    ) -> Accepted:
        """Take a run of consecutive sequence numbers and say which of them are new.

        Args:
            incarnation: the sender's.
            first: the first sequence number, a u64.
            count: how many, at least 1.
            now: seconds.
            via: the neighbor that brings it, if it is known.
            source: the sender's address on the wire.
            size: bytes of the run's frames.

        Returns:
            which are new, or `REFUSED`, itself and nothing that is equal, when it is of a lane for
            which there is no room.
        """
        lane = first >> LANE_SHIFT
        if first + count > lane + 1 << LANE_SHIFT:
            return self._accept_across(incarnation, first, count, now, via, source, size)
        key = incarnation << 16 | lane
        window = self._windows.get(key)
        if window is None:
            if not self._has_room(now):
                return REFUSED
            begin = lane << LANE_SHIFT
            gaps = [begin, first] if first > begin else []
            window = self._windows[key] = Window(first - 1, gaps, now, source, first, via)
        else:
            self._windows.move_to_end(key)
            window.used = now
        if first > window.highest:
            if via is not window.via:
                self._move(window, via, now)
            window.count += count
            window.size += size
            if first > window.highest + 1:
                window.gaps += (window.highest + 1, first)
                _limit(window.gaps, self._most_gaps)
            window.highest = first + count - 1
            return ((0, count),)
        if via != window.via:
            window.other, window.other_at = via, now
        accepted = _accept_overlapping(window, first, count, self._most_gaps)
        fresh = sum([new for _, new in accepted])
        window.count += fresh
        window.size += size * fresh // count
        return accepted

    def _accept_across(
        self,
        incarnation: int,
        first: int,
        count: int,
        now: float,
        via: LogicalAddress | None,
        source: bytes,
        size: int,
    ) -> Accepted:
        """A run that leaves its lane: no member sends one, and nothing forbids it either."""
        here = ((first >> LANE_SHIFT) + 1 << LANE_SHIFT) - first
        part = size * here // count
        beyond = self.accept(incarnation, first + here, count - here, now, via, source, size - part)
        return [
            *self.accept(incarnation, first, here, now, via, source, part),
            *((here + index, new) for index, new in beyond),
        ]

    def _move(self, window: Window, via: LogicalAddress | None, now: float) -> None:
        """Another neighbor brings this lane."""
        before, window.via = window.via, via
        if before is NOBODY:
            self.regained[id(window)] = window
        elif before != via:
            window.other, window.other_at = before, now

    def _has_room(self, now: float) -> bool:
        """Whether there is room for another lane when those are forgotten that are unused."""
        while self._windows:
            key = next(iter(self._windows))
            if now - self._windows[key].used < self.lifetime:
                break
            del self._windows[key]
        return len(self._windows) < self.capacity

    @property
    def _most_gaps(self) -> int:
        return MAX_GAPS if len(self._windows) <= CROWD else FEW_GAPS


def _accept_overlapping(window: Window, first: int, count: int, most_gaps: int) -> Accepted:
    """Take a run that begins at or below the highest sequence seen."""
    above = window.highest + 1
    filled = _fill(window.gaps, first, min(first + count, above), most_gaps)
    accepted = [(start - first, stop - start) for start, stop in filled]
    if first + count > above:
        beyond = first + count - above
        window.highest += beyond
        accepted.append((above - first, beyond))
    return accepted


def _fill(gaps: list[int], first: int, stop: int, most: int) -> list[tuple[int, int]]:
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
    _limit(gaps, most)
    return list(zip(edges[::2], edges[1::2], strict=True))


def _limit(gaps: list[int], most: int) -> None:
    del gaps[: max(0, len(gaps) - 2 * most)]
