"""Named deadlines of one machine, and the earliest of them.

Its one rule: a machine has few deadlines and reads the earliest far more often than it changes
one, so that one is kept at hand.
"""

from __future__ import annotations

from collections.abc import Hashable
from math import inf

from attrs import define, field


@define(eq=False)
class Timers:
    """Deadlines by name, in seconds of the driver's monotonic clock.

    Attributes:
        earliest: the next deadline; inf when there is none.
    """

    earliest: float = inf
    _deadlines: dict[Hashable, float] = field(factory=dict)

    def set(self, name: Hashable, when: float) -> None:
        """Set or move the deadline `name`."""
        before = self._deadlines.get(name, inf)
        self._deadlines[name] = when
        if when <= self.earliest:
            self.earliest = when
        elif before == self.earliest:
            self._find_earliest()

    def set_no_later(self, name: Hashable, when: float) -> None:
        """Set the deadline `name` unless it is set to come sooner."""
        if when < self._deadlines.get(name, inf):
            self.set(name, when)

    def cancel(self, name: Hashable) -> None:
        """Forget the deadline `name`, if it is set."""
        if self._deadlines.pop(name, None) == self.earliest:
            self._find_earliest()

    def clear(self) -> None:
        """Forget every deadline."""
        self._deadlines.clear()
        self.earliest = inf

    def when(self, name: Hashable) -> float:
        """The deadline `name`; inf when it is not set."""
        return self._deadlines.get(name, inf)

    def due(self, now: float) -> list[Hashable]:
        """Take the names whose deadline has come, the earliest first."""
        if now < self.earliest:
            return []
        due = [name for name, when in self._deadlines.items() if when <= now]
        due.sort(key=self._deadlines.__getitem__)
        for name in due:
            del self._deadlines[name]
        self._find_earliest()
        return due

    def _find_earliest(self) -> None:
        self.earliest = min(self._deadlines.values(), default=inf)
