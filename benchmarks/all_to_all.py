"""All to all: every member sends to all others as fast as it can, for a minute.

Its one rule: nobody waits for ever. Sixteen members with connections between all that are neighbors
and the policy *block*: trees with different roots share links, so members that wait for one another
could wait in a circle; the stall bound (`stall_timeout`) breaks it, and what it drops is counted. A
member that hears nothing for 20 seconds fails the benchmark.

    python benchmarks/all_to_all.py [--members 16] [--seconds 60] [--size 1024] [--json]

- `all_to_all`: thousand deliveries a second at all members together, beside those of one sender in
  the same overlay;
- `all_to_all_delivered`: the percentage of what was sent that reached its receivers in the end,
  beside the goal of 100;
- `all_to_all_silence`: the longest time in which some member heard nothing, in seconds, beside the
  stall bound;
- `all_to_all_memory`: by how many MiB the process grew, beside what all its buffers may hold.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Sequence

import trio
from _common import Measurement, MeasurementError, Printer, run
from _layout import scattered
from _overlay import form, open_server, receive, tcp_config
from _stalled import resident
from attrs import define, field

from opus_socket import OverlaySocket, open_host
from opus_socket.config import LoggingConfig
from opus_socket.logs import configure_logging

BATCH = 16
SEED = 7
LOOK_EVERY = 0.05
PATIENCE = 20.0
QUIET = 3.0
ALONE_SECONDS = 1.0
STALL_TIMEOUT = 2.0
RECEIVE_BUFFER = 4 << 20
LINK_BUFFER = 1 << 18


@define
class Crowd:
    """Members that all send and receive.

    Attributes:
        members: each of them.
        got: how many messages each has received.
        sent: how many each has sent.
        silence: the longest time in which some member heard nothing, in seconds.
        peak: the most memory seen, in bytes.
    """

    members: Sequence[OverlaySocket]
    got: list[int]
    sent: list[int]
    silence: float = 0.0
    peak: int = 0
    _before: list[int] = field(factory=list)
    _heard: list[float] = field(factory=list)

    async def take(self, number: int) -> None:
        """Receive for ever."""
        while True:
            self.got[number] += len(await self.members[number].receive_batch())

    async def give(self, number: int, payload: bytes) -> None:
        """Send for ever."""
        while True:
            await self.members[number].send_batch([payload] * BATCH)
            self.sent[number] += BATCH

    async def watch(self, seconds: float) -> None:
        """Look after progress for so many seconds.

        Raises:
            MeasurementError: a member hears nothing any more.
        """
        end = time.monotonic() + seconds
        self._before, self._heard = list(self.got), [time.monotonic()] * len(self.got)
        while (now := time.monotonic()) < end:
            for number, count in enumerate(self.got):
                if count != self._before[number]:
                    self._before[number], self._heard[number] = count, now
            self.silence = max(self.silence, now - min(self._heard))
            self.peak = max(self.peak, resident())
            if self.silence > PATIENCE:
                raise MeasurementError(f"a member has heard nothing for {PATIENCE:g} s")
            await trio.sleep(LOOK_EVERY)

    async def wait_quiet(self) -> None:
        """Wait until all has come, or nothing comes any more."""
        last, since = sum(self.got), time.monotonic()
        while self.delivered < 100 and time.monotonic() - since < QUIET:
            await trio.sleep(LOOK_EVERY)
            if sum(self.got) != last:
                last, since = sum(self.got), time.monotonic()

    @property
    def delivered(self) -> float:
        """The percentage of what was sent that reached its receivers."""
        return 100 * sum(self.got) / (sum(self.sent) * (len(self.members) - 1))


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--members", type=int, default=16, help="(16)")
    parser.add_argument("--size", type=int, default=1024, help="bytes of a payload (1024)")
    parser.add_argument("--seconds", type=float, default=60.0, help="of a run (60)")
    parser.add_argument("--runs", type=int, default=1, help="how often (1)")
    parser.add_argument("--json", action="store_true", help="one object a measurement")
    given = parser.parse_args()
    configure_logging(LoggingConfig(level="error"))
    printer = Printer(given.json)
    found = [
        run(functools.partial(measure, given.members, bytes(given.size), given.seconds))
        for _ in range(given.runs)
    ]
    rates, alone, delivered, silences, memories, bounds = zip(*found, strict=True)
    for what, unit, values, beside, beside_values in (
        ("", "k deliveries/s", rates, "one sender", alone),
        ("_delivered", "%", delivered, "goal", [100.0]),
        ("_silence", "s", silences, "stall_timeout", [STALL_TIMEOUT]),
        ("_memory", "MiB", memories, "all buffers", bounds),
    ):
        printer.add(
            Measurement(
                f"all_to_all{what}", given.size, given.members, unit, values, beside, beside_values
            )
        )
    printer.finish()


async def measure(
    count: int, payload: bytes, seconds: float
) -> tuple[float, float, float, float, float, float]:
    """Thousand deliveries a second of all and of one sender, the percentage delivered, the longest
    silence in seconds, and the MiB that were taken and that all buffers may hold.
    """
    points = scattered(count, SEED)
    async with open_server() as server, open_host() as host:
        members = [
            await host.open_socket(tcp_config(point, server, overflow="block")) for point in points
        ]
        await form(members, points)
        alone = await measure_alone(members, payload, min(ALONE_SECONDS, seconds))
        crowd = Crowd(members, [0] * count, [0] * count)
        before = resident()
        async with trio.open_nursery() as receiving:
            for number in range(count):
                receiving.start_soon(crowd.take, number)
            started = time.monotonic()
            async with trio.open_nursery() as sending:
                for number in range(count):
                    sending.start_soon(crowd.give, number, payload)
                await crowd.watch(seconds)
                sending.cancel_scope.cancel()
            rate = sum(crowd.got) / (time.monotonic() - started) / 1000
            await crowd.wait_quiet()
            receiving.cancel_scope.cancel()
        links = sum(len(member.neighbors) for member in members)
        bound = (count * RECEIVE_BUFFER + links * LINK_BUFFER) / (1 << 20)
        memory = max(0, crowd.peak - before) / (1 << 20)
        return rate, alone, crowd.delivered, crowd.silence, memory, bound


async def measure_alone(members: Sequence[OverlaySocket], payload: bytes, seconds: float) -> float:
    """Thousand deliveries a second when one member sends."""
    sent, started = 0, time.monotonic()
    while time.monotonic() - started < seconds:
        async with trio.open_nursery() as nursery:
            for member in members[1:]:
                nursery.start_soon(receive, member, BATCH * BATCH)
            for _ in range(BATCH):
                await members[0].send_batch([payload] * BATCH)
        sent += BATCH * BATCH
    return sent * (len(members) - 1) / (time.monotonic() - started) / 1000


if __name__ == "__main__":
    main()
