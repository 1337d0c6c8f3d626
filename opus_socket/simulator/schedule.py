"""The virtual clock: everything that is still to come, in one heap.

Its one rule: what happens at one instant happens in the order in which it was asked for, except
that timers come last. So packets that are in hand are delivered before a machine is woken, and
nothing depends on the order of a set or on the addresses of objects. An event is looked at
before it is taken: one that lies behind the horizon stays where it is (taking and forgetting a
single one would silence somebody's timer for ever).
"""

from __future__ import annotations

from collections.abc import Callable
from heapq import heappop, heappush
from math import inf
from typing import Any

from attrs import define, field

_TIMERS = 1 << 62
"""Added to the rank of a timer. Ranks are unique, so the heap never compares what is behind."""


@define(eq=False)
class Schedule:
    """A clock that stands still until there is nothing left to do at its instant.

    Attributes:
        now: virtual seconds since the start.
        events: how many were handled.
        horizon: how far `run` goes, in virtual seconds. Whoever waits for something may move it
            while events are handled.
    """

    now: float = 0.0
    events: int = 0
    horizon: float = 0.0
    _heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = field(
        factory=list, init=False
    )
    _rank: int = field(default=0, init=False)

    @property
    def next_at(self) -> float:
        """When the next event is due; inf when there is none."""
        return self._heap[0][0] if self._heap else inf

    def at(
        self, when: float, call: Callable[..., None], arguments: tuple[object, ...] = ()
    ) -> None:
        """Call something at an instant, or now if that is past."""
        self._rank += 1
        if when < self.now:
            when = self.now
        heappush(self._heap, (when, self._rank, call, arguments))

    def timer(
        self, when: float, call: Callable[..., None], arguments: tuple[object, ...] = ()
    ) -> None:
        """Call something at an instant, after everything else of that instant."""
        self._rank += 1
        if when < self.now:
            when = self.now
        heappush(self._heap, (when, self._rank + _TIMERS, call, arguments))

    def run(self) -> None:
        """Handle every event up to the horizon, that included, and let the clock stand there."""
        heap = self._heap
        while heap and heap[0][0] <= self.horizon:
            self.now, _, call, arguments = heappop(heap)
            self.events += 1
            call(*arguments)
        self.now = max(self.now, self.horizon)
