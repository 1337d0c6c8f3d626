"""Emulated bandwidth over real TCP: what a member achieves beside what it was told to.

Its one rule: the sender never rests, and limits change at run time, from one measurement to the
next, on the same two sockets of one process, which hand nothing over to each other.

    python benchmarks/emulation.py [--json] [--quick] [--runs 3] [--seconds 2] [--rate 100000 ...]

- `emulated_out`, `emulated_in`, `emulated_total`, `emulated_link`: kB/s of whole frames that the
  applications received, beside the limit: of what the sender sends, of what the receiver takes, of
  both directions of one member together, of one link; the goal is a ratio of 0.98 to 1.02;
- `emulated_control`: milliseconds of a round trip of a control message while messages wait for the
  bandwidth of both directions, beside the goal of 50.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Sequence

import trio
from _common import Measurement, MeasurementError, Printer, run
from _overlay import form, open_server, tcp_config
from attrs import define, frozen

from opus_socket import OverlaySocket, open_host
from opus_socket.config import LoggingConfig
from opus_socket.logs import configure_logging

# Far apart from one to the next, because that is when a limit that lags would show.
RATES = (100_000, 50_000_000, 1_000_000, 20_000_000, 5_000_000)
PLACES = ((100, 100), (200, 200))
BATCH = 16
WARM_UP = 0.5
CONTROL_RATE = 100_000
CONTROL_GOAL = 50.0
ROUND_TRIPS = 20


@define
class Meter:
    """Reads everything that a member receives.

    Attributes:
        count: bytes of the frames that came.
        at: when the last one came, in seconds.
    """

    sock: OverlaySocket
    count: int = 0
    at: float = 0.0

    async def read(self) -> None:
        """Go on until cancelled."""
        while True:
            messages = await self.sock.receive_batch()
            self.count += sum([len(message.frame) for message in messages])
            self.at = time.perf_counter()

    def mark(self) -> tuple[int, float]:
        """The bytes so far, and when the last of them came."""
        return self.count, self.at


@frozen
class Kind:
    """A way to limit a pair of members.

    Attributes:
        name: of the measurement.
        limit: puts a limit into force, or takes it away.
        both: whether both members send.
    """

    name: str
    limit: Callable[[float | None], None]
    both: bool = False


def kinds(first: OverlaySocket, second: OverlaySocket) -> Sequence[Kind]:
    """Every kind of limit, for messages of the first member to the second."""
    return (
        Kind("emulated_out", functools.partial(first.set_bandwidth, "out")),
        Kind("emulated_in", functools.partial(second.set_bandwidth, "in")),
        Kind("emulated_total", functools.partial(first.set_bandwidth, "total"), both=True),
        Kind("emulated_link", functools.partial(first.set_bandwidth, "out", link=second.address)),
    )


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rate", nargs="+", type=int, default=RATES, help="bytes/s, in turn")
    parser.add_argument("--size", type=int, default=1000, help="bytes of a payload (1000)")
    parser.add_argument("--runs", type=int, default=3, help="of each, in turn (3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="of a run (2)")
    parser.add_argument("--quick", action="store_true", help="one run of half a second each")
    parser.add_argument("--json", action="store_true", help="one object a measurement")
    given = parser.parse_args()
    runs, seconds = (1, 0.5) if given.quick else (given.runs, given.seconds)
    configure_logging(LoggingConfig(level="warning"))
    printer = Printer(given.json)
    run(functools.partial(measure, printer, given.rate, given.size, runs, seconds))
    printer.finish()


async def measure(
    printer: Printer, rates: Sequence[int], size: int, runs: int, seconds: float
) -> None:
    """Measure payloads of one size."""
    async with open_server() as server, open_host() as host:
        first, second = [await host.open_socket(tcp_config(place, server)) for place in PLACES]
        await form([first, second], PLACES)
        for kind in kinds(first, second):
            achieved: dict[int, list[float]] = {rate: [] for rate in rates}
            async with trio.open_nursery() as nursery:
                meters = saturate(nursery, first, second, size, both=kind.both)
                for _ in range(runs):
                    for rate in rates:
                        kind.limit(rate)
                        achieved[rate].append(await rate_of(meters, seconds))
                kind.limit(None)
                nursery.cancel_scope.cancel()
            for rate, values in achieved.items():
                wanted = [rate / 1000]
                kilobytes = [value / 1000 for value in values]
                printer.add(Measurement(kind.name, size, 2, "kB/s", kilobytes, "limit", wanted))
        printer.add(await control(first, second, size))


def saturate(
    nursery: trio.Nursery, first: OverlaySocket, second: OverlaySocket, size: int, *, both: bool
) -> list[Meter]:
    """Let the first member send to the second without a rest, and perhaps back, too."""
    batch = [bytes(size)] * BATCH
    meters = [Meter(first), Meter(second)]
    nursery.start_soon(send, first, second, batch)
    if both:
        nursery.start_soon(send, second, first, batch)
    for meter in meters:
        nursery.start_soon(meter.read)
    return meters


async def send(sender: OverlaySocket, receiver: OverlaySocket, batch: Sequence[bytes]) -> None:
    """Send to a member until cancelled."""
    while True:
        await sender.send_batch(batch, to=receiver.address)


async def rate_of(meters: Sequence[Meter], seconds: float) -> float:
    """Bytes a second that come at all meters together."""
    await trio.sleep(WARM_UP)
    before = [meter.mark() for meter in meters]
    await trio.sleep(seconds)
    total = 0.0
    for meter, (count, at) in zip(meters, before, strict=True):
        if meter.at > at:
            total += (meter.count - count) / (meter.at - at)
    if not total:
        raise MeasurementError(f"nothing came in {seconds:g} s")
    return total


async def control(first: OverlaySocket, second: OverlaySocket, size: int) -> Measurement:
    """Round trips of a control message through a saturated member."""
    first.set_bandwidth("total", CONTROL_RATE)
    trips: list[float] = []
    async with trio.open_nursery() as nursery:
        saturate(nursery, first, second, size, both=True)
        await trio.sleep(WARM_UP)
        for _ in range(ROUND_TRIPS):
            started = time.perf_counter()
            await first.measure(second.address)
            trips.append((time.perf_counter() - started) * 1000)
        nursery.cancel_scope.cancel()
    first.set_bandwidth("total", None)
    return Measurement("emulated_control", size, 2, "ms", trips, "goal", [CONTROL_GOAL])


if __name__ == "__main__":
    main()
