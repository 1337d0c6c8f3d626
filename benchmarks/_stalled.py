"""One sender and sixteen receivers, one of which takes nothing: the process that is measured.

Its one rule: each measurement has a process of its own, because memory that was once taken is
seldom given back. It is told on standard input which system, with which policy, whether one
receiver stalls, and for how long; it answers what came of it.

The sender keeps a window: no more messages under way than the receivers that do take them can hold,
so those lose nothing, whatever the policy, and what is measured is whether the stalled one costs
them anything.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import trio
from _common import MeasurementError, ungrouped
from _layout import scattered
from _overlay import form, tcp_config
from attrs import define, field

from opus_socket import OverlaySocket, open_host
from opus_socket.cli.pipes import JsonReader, JsonWriter
from opus_socket.config import LoggingConfig
from opus_socket.core.addresses import LogicalAddress
from opus_socket.logs import configure_logging

RECEIVERS = 16
BATCH = 16
WINDOW = 64
SIZE = 1024
SEED = 7
LOOK_EVERY = 0.02
PATIENCE = 10.0
_STATM = Path("/proc/self/statm")
_PAGE = resource.getpagesize()
Result = tuple[float, float, float]
"""Messages a second at each receiver, the longest pause in seconds, MiB of growth."""


@define
class Progress:
    """How far the receivers are that take messages.

    Attributes:
        got: how many messages each of them has.
        sent: how many were sent.
        pause: the longest time without any news, in seconds.
        peak: the most memory, in bytes, seen while it went on.
    """

    got: list[int]
    sent: int = 0
    pause: float = 0.0
    peak: int = 0
    _last: float = field(factory=time.monotonic)
    _least: int = 0

    def look(self) -> int:
        """How many messages all have; called as often as possible."""
        now, least = time.monotonic(), min(self.got)
        if least > self._least:
            self._least = least
            self.pause, self._last = max(self.pause, now - self._last), now
        elif now - self._last > PATIENCE:
            raise TimeoutError(f"after {least} of {self.sent} messages receivers got no more")
        return least

    def result(self, started: float, before: int) -> Result:
        """What came of a run that began at that time with so much memory."""
        self.pause = max(self.pause, time.monotonic() - self._last)
        rate = self.look() / (time.monotonic() - started)
        return rate, self.pause, max(0, self.peak - before) / (1 << 20)


class Slow(Protocol):
    """A peer with such receivers: its calls do not block for long."""

    def send(self, payload: bytes) -> None:
        """Send to all."""

    def receive(self, got: list[int]) -> None:
        """Take what has come, and count it."""


def resident() -> int:
    """Bytes of memory that this process has now; 0 where the system does not say."""
    return int(_STATM.read_text().split()[1]) * _PAGE if _STATM.exists() else 0


async def main() -> None:
    """Measure once."""
    reader = JsonReader(trio.lowlevel.FdStream(sys.stdin.fileno()))
    writer = JsonWriter(trio.lowlevel.FdStream(sys.stdout.fileno()))
    match await anext(reader):
        case {
            "system": str(system),
            "server": str(server),
            "policy": str(policy),
            "stalls": bool(stalls),
            "seconds": float(seconds),
        }:
            pass
        case other:
            raise SystemExit(f"not understood: {other}")
    try:
        with ungrouped(MeasurementError, TimeoutError):
            if system == "overlay":
                result = await measure_overlay(server, policy, stalls, seconds)
            else:
                result = await trio.to_thread.run_sync(measure_peer, system, stalls, seconds)
    except (ImportError, MeasurementError, TimeoutError) as error:
        await writer.write({"failed": str(error)})
    else:
        await writer.write(result)


async def measure_overlay(server: str, policy: str, stalls: bool, seconds: float) -> Result:
    """Measure overlay sockets; the one that stalls is the one that relays to most others."""
    points = scattered(RECEIVERS + 1, SEED)
    async with open_host() as host, trio.open_nursery() as nursery:
        members = [
            await host.open_socket(tcp_config(point, server, overflow=policy)) for point in points
        ]
        await form(members, points)
        root = LogicalAddress(points[0])
        below = sorted(members[1:], key=lambda member: len(member.children(root)))
        healthy = below[:-1] if stalls else below
        progress = Progress([0] * len(healthy))
        news = trio.lowlevel.ParkingLot()

        async def take(number: int, member: OverlaySocket) -> None:
            while True:
                progress.got[number] += len(await member.receive_batch())
                news.unpark_all()

        for number, member in enumerate(healthy):
            nursery.start_soon(take, number, member)
        before, started = resident(), time.monotonic()
        nursery.start_soon(watch, progress)
        batch = [bytes(SIZE)] * BATCH
        while time.monotonic() - started < seconds:
            with trio.move_on_after(PATIENCE) as patience:
                await members[0].send_batch(batch)
            if patience.cancelled_caught:
                raise TimeoutError(f"a sender waits for more than {PATIENCE:g} s")
            progress.sent += BATCH
            while progress.sent - progress.look() > WINDOW:
                with trio.move_on_after(LOOK_EVERY):
                    await news.park()
        result = progress.result(started, before)
        nursery.cancel_scope.cancel()
    return result


async def watch(progress: Progress) -> None:
    """See how much memory there is."""
    while True:
        progress.peak = max(progress.peak, resident())
        await trio.sleep(LOOK_EVERY)


def measure_peer(system: str, stalls: bool, seconds: float) -> Result:
    """Measure a peer."""
    healthy = RECEIVERS - 1 if stalls else RECEIVERS
    with open_slow(system)(RECEIVERS, healthy) as peer:
        progress = Progress([0] * healthy)
        before, started = resident(), time.monotonic()
        payload, looked = bytes(SIZE), 0.0
        while (now := time.monotonic()) - started < seconds:
            for _ in range(BATCH):
                peer.send(payload)
            progress.sent += BATCH
            while progress.sent - progress.look() > WINDOW:
                peer.receive(progress.got)
            if now - looked > LOOK_EVERY:
                looked, progress.peak = now, max(progress.peak, resident())
        return progress.result(started, before)


def open_slow(system: str) -> Callable[[int, int], AbstractContextManager[Slow]]:
    """How a peer is opened with so many receivers, of which so many take messages.

    Raises:
        ImportError: it is not installed.
    """
    if system == "ZeroMQ":
        from _slow_zeromq import open_dropping as open_zeromq

        return open_zeromq
    from _slow_zenoh import open_dropping as open_zenoh

    return open_zenoh


if __name__ == "__main__":
    configure_logging(LoggingConfig(level="error"))
    trio.run(main)
