"""What the other end of a connection is to be told of lanes: to pause them, and to resume them.

Its one rule: of each lane only the last word waits. What has not been written can be taken back, so
an end that does not read makes nothing grow: a lane that was paused and resumed meanwhile is not
mentioned at all.
"""

from __future__ import annotations

from attrs import define, field

from opus_socket.adapters.base import Lane
from opus_socket.core.effects import Kind


@define(eq=False, repr=False)
class Signals:
    """What waits to be said on one connection, in the order in which it came up."""

    _waiting: dict[Lane, Kind] = field(factory=dict, init=False)

    def __bool__(self) -> bool:
        """Whether something waits."""
        return bool(self._waiting)

    def __len__(self) -> int:
        return len(self._waiting)

    def regulate(self, lane: Lane, paused: bool) -> None:
        """A lane is to be paused, or to be resumed: say so, or take back what was not said yet."""
        kind = Kind.PAUSE if paused else Kind.RESUME
        if self._waiting.pop(lane, kind) is kind:
            self._waiting[lane] = kind

    def take(self) -> tuple[Lane, Kind]:
        """What is to be said first; there must be something."""
        lane = next(iter(self._waiting))
        return lane, self._waiting.pop(lane)

    def clear(self) -> None:
        """Nothing is to be said any more."""
        self._waiting.clear()
