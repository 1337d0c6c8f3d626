"""What the loop is made of, by itself."""

from __future__ import annotations

import trio
import trio.testing

from opus_socket.loop import Bed


async def test_whoever_rests_goes_on_when_roused() -> None:
    bed, woke = Bed(), []

    async def sleeper() -> None:
        for number in range(3):
            await bed.rest()
            woke.append(number)

    bed.rouse()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(sleeper)
        for number in range(3):
            await trio.testing.wait_all_tasks_blocked()
            assert len(woke) == number
            bed.rouse()
            bed.rouse()


async def test_whoever_was_cancelled_rests_no_more() -> None:
    bed = Bed()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bed.rest)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    bed.rouse()
    await trio.testing.wait_all_tasks_blocked()
    with trio.move_on_after(0) as scope:
        await bed.rest()
    assert scope.cancelled_caught
