"""What the other end of a connection is to be told of lanes: to pause them, that what they wait for
goes on, and to resume them.

Its one rule: of each lane only the last word waits. What has not been written can be taken back, so
an end that does not read makes nothing grow: a lane that was paused and resumed meanwhile is not
mentioned at all.
"""

from __future__ import annotations

from attrs import define, field

from opus_socket.adapters.base import Lane
from opus_socket.adapters.records import lane_bytes, progress_bytes
from opus_socket.core.effects import Kind


@define(eq=False, repr=False)
class Signals:
    """What waits to be said on one connection, in the order in which it came up."""

    _waiting: dict[Lane, tuple[Kind, float]] = field(factory=dict, init=False)

    def __bool__(self) -> bool:
        """Whether something waits."""
        return bool(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def regulate(self, lane: Lane, paused: bool) -> None:
        """A lane is to be paused, or to be resumed: say so, or take back what was not said yet."""
        kind = Kind.PAUSE if paused else Kind.RESUME
        taken_back, _ = self._waiting.pop(lane, (kind, 0.0))
        if taken_back in (kind, Kind.PROGRESS):
            self._waiting[lane] = kind, 0.0

    def progress(self, lane: Lane, age: float) -> None:
        """Something was taken, so many seconds ago, of what a paused lane waits for."""
        kind, _ = self._waiting.get(lane, (Kind.PROGRESS, 0.0))
        if kind is Kind.PROGRESS:
            self._waiting[lane] = kind, age

    def take(self) -> tuple[Lane, Kind, bytes]:
        """What is to be said first, as the body of a record; there must be something."""
        lane = next(iter(self._waiting))
        kind, age = self._waiting.pop(lane)
        return lane, kind, progress_bytes(lane, age) if kind is Kind.PROGRESS else lane_bytes(lane)

    def clear(self) -> None:
        """Nothing is to be said any more."""
        self._waiting.clear()
