"""How rates are compared: every side in turn, run by run.

Its one rule: ours and the bare program must deliver everything, or the benchmark fails; a peer that
does not is skipped from there on, with the reason.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, MutableMapping, Sequence

import trio
from _common import MeasurementError, Side, ungrouped
from attrs import define, field

BATCH_BYTES = 1 << 17
MOST_IN_BATCH = 1024
MOST_STEP = 16
FIRST_MESSAGES = 2
RUN_TIMEOUT = 60.0

Skip = Callable[[str, str], None]


@define
class Metered:
    """A side, and the processor time that this process takes for each of its runs.

    Attributes:
        side: what is measured.
        cpu: microseconds a message, one a run.
    """

    side: Side
    cpu: list[float] = field(factory=list)

    async def measure(self, batches: Sequence[Sequence[bytes]]) -> float:
        """Seconds until every receiver has got all messages."""
        before = time.process_time()
        taken = await self.side.measure(batches)
        used = time.process_time() - before
        self.cpu.append(used * 1e6 / sum(map(len, batches)))
        return taken


async def compare(
    ours: Mapping[str, Side],
    peers: MutableMapping[str, Side],
    payload: bytes,
    runs: int,
    seconds: float,
    skip: Skip,
) -> dict[str, list[float]]:
    """The rates of all sides that deliver everything, run by run in turn, in messages a second.

    Args:
        ours: what must not fail.
        peers: what may; one that fails is taken out, for what it still has under way would be
            counted next time.
        payload: of each message.
        runs: how many.
        seconds: how long a run of each is to take, about.
        skip: told the name of a peer that fails, and why.
    """
    sides = {**ours, **peers}
    counts: dict[str, int] = {}
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(runs + 1):
        for name, side in list(sides.items()):
            try:
                if number == 0:
                    counts[name] = await suitable_count(side, payload, seconds)
                else:
                    taken = await timed(side, payload, counts[name])
                    rates[name].append(counts[name] / taken)
            except MeasurementError as error:
                if name in ours:
                    raise
                skip(f"{name} at {len(payload)} bytes", str(error))
                del sides[name], rates[name], peers[name]
    return rates


async def suitable_count(side: Side, payload: bytes, seconds: float) -> int:
    """How many messages take so many seconds. The first ones open connections and do not count, and
    a guess is checked once: one that is too low would measure how long a message is under way.
    """
    for _ in range(FIRST_MESSAGES):
        await timed(side, payload, 1)
    count = 1
    while (taken := await timed(side, payload, count)) < seconds / 2:
        count = min(MOST_STEP * count, math.ceil(count * seconds / taken))
    count = max(1, round(count * seconds / taken))
    return max(1, round(count * seconds / await timed(side, payload, count)))


def batches_of(payload: bytes, count: int) -> list[list[bytes]]:
    """So many copies of a payload, in batches of 1,024 or of 128 KiB."""
    most = max(1, min(MOST_IN_BATCH, BATCH_BYTES // (len(payload) + 64)))
    whole, rest = divmod(count, most)
    return [[payload] * most] * whole + ([[payload] * rest] if rest else [])


async def timed(side: Side, payload: bytes, count: int) -> float:
    """Seconds for so many messages.

    Raises:
        MeasurementError: messages were lost on their way.
    """
    with trio.move_on_after(RUN_TIMEOUT):
        with ungrouped(MeasurementError):
            return await side.measure(batches_of(payload, count))
    raise MeasurementError(f"not all of {count} messages arrived within {RUN_TIMEOUT:g} s")
