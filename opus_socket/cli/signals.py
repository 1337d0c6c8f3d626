"""How a verb that runs until it is told to end is told.

Its one rule: the first SIGINT or SIGTERM cancels the verb, which leaves its overlays in order; a
second one ends the process at once.
"""

from __future__ import annotations

import signal
from collections.abc import Awaitable, Callable

import trio


def run_until_signal(main: Callable[[], Awaitable[int]], *, serves: bool = False) -> int:
    """Run a verb's asynchronous part in Trio.

    Args:
        main: returns the exit status.
        serves: whether to be ended by SIGTERM is what a verb is asked for, as of a server.

    Returns:
        the exit status: that of `main`; after SIGINT 130; after SIGTERM 143, or 0 when it serves.
    """
    return trio.run(_run, main, 0 if serves else 128 + signal.SIGTERM)


async def _run(main: Callable[[], Awaitable[int]], terminated: int) -> int:
    interrupted = {signal.SIGINT: 128 + signal.SIGINT, signal.SIGTERM: terminated}
    status = 0

    async def watch(task_status: trio.TaskStatus[None]) -> None:
        nonlocal status
        with trio.open_signal_receiver(*interrupted) as signals:
            task_status.started()
            async for number in signals:
                status = interrupted[signal.Signals(number)]
                break
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        await nursery.start(watch)
        status = await main()
        nursery.cancel_scope.cancel()
    return status
