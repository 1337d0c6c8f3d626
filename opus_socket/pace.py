"""How often a call that need not wait gives way to other tasks.

Its one rule: a full checkpoint a call would cap Trio at some 0.3 million calls a second, and none
at all would starve the rest. So every call can be cancelled, and the first one after a millisecond
without a checkpoint lets others run.
"""

from __future__ import annotations

from time import perf_counter

import trio
from attrs import define

SECONDS_BETWEEN_CHECKPOINTS = 0.001


@define(eq=False)
class Pace:
    """The checkpoints of one object's calls. Real time counts, whatever clock Trio runs on: what
    others are kept from is a processor.
    """

    _until: float = 0.0

    async def checkpoint(self) -> None:
        """Give way, or only look whether the call was cancelled."""
        if perf_counter() < self._until:
            await trio.lowlevel.checkpoint_if_cancelled()
            return
        await trio.lowlevel.checkpoint()
        self.rested()

    def rested(self) -> None:
        """Others have just had their turn."""
        self._until = perf_counter() + SECONDS_BETWEEN_CHECKPOINTS
