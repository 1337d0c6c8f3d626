"""How often a call that need not wait gives way to other tasks.

Its one rule: a full checkpoint a call would cap Trio at some 0.3 million calls a second, and none
at all would starve the rest. So every call can be cancelled, and every 64th call, or the first
after a millisecond without one, lets others run.
"""

from __future__ import annotations

import trio
from attrs import define

CALLS_BETWEEN_CHECKPOINTS = 64
SECONDS_BETWEEN_CHECKPOINTS = 0.001


@define(eq=False)
class Pace:
    """The checkpoints of one object's calls."""

    _calls: int = 0
    _last: float = 0.0

    async def checkpoint(self, now: float) -> None:
        """Give way, or only look whether the call was cancelled."""
        self._calls += 1
        if (
            self._calls >= CALLS_BETWEEN_CHECKPOINTS
            or now - self._last >= SECONDS_BETWEEN_CHECKPOINTS
        ):
            self._calls, self._last = 0, now
            await trio.lowlevel.checkpoint()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
