"""How often a call that need not wait gives way to other tasks.

Its one rule: a full checkpoint a call would cap Trio at some 0.3 million calls a second, and none
at all would starve the rest. So the first call after a millisecond without a checkpoint lets others
run, and one after 50 microseconds looks whether it was cancelled.
"""

from __future__ import annotations

from time import perf_counter

import trio
from attrs import define

SECONDS_BETWEEN_CHECKPOINTS = 0.001
SECONDS_BETWEEN_LOOKS = 0.000_05


@define(eq=False)
class Pace:
    """The checkpoints of one object's calls. Real time counts, whatever clock Trio runs on: what
    others are kept from is a processor.

    Attributes:
        due: when the next call has to take a checkpoint, by `perf_counter`.
    """

    due: float = 0.0
    _until: float = 0.0

    async def checkpoint(self) -> None:
        """Give way, or only look whether the call was cancelled."""
        now = perf_counter()
        if now >= self._until:
            await trio.lowlevel.checkpoint()
            self.rested()
        else:
            await trio.lowlevel.checkpoint_if_cancelled()
            self.due = now + SECONDS_BETWEEN_LOOKS

    def rested(self) -> None:
        """Others have just had their turn."""
        now = perf_counter()
        self.due = now + SECONDS_BETWEEN_LOOKS
        self._until = now + SECONDS_BETWEEN_CHECKPOINTS

    def hurry(self) -> None:
        """Others are to have their turn at the next call."""
        self.due = self._until = 0.0
