"""Round trips over real TCP between two processes, beside a raw Trio echo and other systems.

Its one rule: one message is under way at a time, from the call that sends it until the answer is
in the application's hands. Nothing is handed over inside a process (`local_handover = false`).

    python benchmarks/latency.py [--json] [--size 64] [--runs 5] [--trips 2000] [--peers]

`round_trip` is the median of a run's trips, `round_trip_p99` the 99th percentile, in microseconds;
a ratio under 1 means that an overlay socket is faster, and 1.5 of raw Trio is the goal. Measured in
turn with it: a Trio program that has a connection and nothing else, and with `--peers` ZeroMQ,
Zenoh and NATS, none of which has Trio.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from statistics import median, quantiles
from typing import Protocol

import trio
from _common import Measurement, MeasurementError, Printer, run
from _layout import ANSWERER, ASKER
from _overlay import open_server, tcp_config, wait_exact
from _programs import open_asking
from _remote import Elsewhere, open_program
from _tools import MissingError
from attrs import frozen

from opus_socket import open_overlay_socket
from opus_socket.config import LoggingConfig
from opus_socket.core.addresses import LogicalAddress
from opus_socket.logs import configure_logging

RUN_TIMEOUT = 60.0
WARM_UP = 200
NOTES = {
    "raw Trio": "",
    "ZeroMQ": "REQ/REP; calls that block, no event loop; an I/O thread in each process",
    "Zenoh": "TCP; calls that block, no event loop; answered in a thread of Zenoh's",
    "NATS": "request and answer under asyncio, both through a broker",
}
INSTALL = "pip install 'opus-socket[peers]'"


@frozen
class Echo:
    """A program here, and the one that sends back.

    Attributes:
        trips: makes so many round trips; the seconds of each.
        other: the other process; None where `trips` takes care of it.
        size: bytes of a message.
    """

    trips: Callable[[int], Awaitable[list[float]]]
    other: Elsewhere | None
    size: int

    async def measure(self, count: int) -> list[float]:
        """The microseconds of so many round trips.

        Raises:
            MeasurementError: an answer did not come.
        """
        with trio.move_on_after(RUN_TIMEOUT):
            if self.other is not None:
                await self.other.writer.write([count, self.size])
            taken = await self.trips(count)
            if self.other is not None:
                await self.other.answer()
            return [seconds * 1e6 for seconds in taken]
        raise MeasurementError(f"{count} round trips took more than {RUN_TIMEOUT:g} s")


async def timed(count: int, trip: Callable[[], Awaitable[None]]) -> list[float]:
    """The seconds of each of so many trips."""
    taken: list[float] = []
    for _ in range(count):
        started = time.perf_counter()
        await trip()
        taken.append(time.perf_counter() - started)
    return taken


@asynccontextmanager
async def open_overlay(server: str, payload: bytes) -> AsyncIterator[Echo]:
    """Two members of an overlay."""
    async with (
        open_overlay_socket(tcp_config(ASKER, server)) as member,
        open_answerer({"overlay": server}) as other,
    ):
        await member.join()
        await other.answer()
        await wait_exact([member], {ASKER: [ANSWERER]})
        address = LogicalAddress(ANSWERER)

        async def trip() -> None:
            await member.send(address, payload)
            await member.receive()

        yield Echo(functools.partial(timed, trip=trip), other, len(payload))


@asynccontextmanager
async def open_raw(payload: bytes) -> AsyncIterator[Echo]:
    """Two ends of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with open_answerer({"raw": listener.getsockname()[1]}) as other:
            await other.answer()
            stream = trio.SocketStream(trio.socket.from_stdlib_socket(listener.accept()[0]))

            async def trip() -> None:
                await stream.send_all(payload)
                missing = len(payload)
                while missing:
                    missing -= len(await stream.receive_some(missing))

            async with stream:
                yield Echo(functools.partial(timed, trip=trip), other, len(payload))


class Asking(Protocol):
    """A peer here that asks, by calls that block."""

    @property
    def endpoint(self) -> str:
        """Where the answerer connects to."""

    def wait_ready(self) -> None:
        """Wait until somebody answers."""

    def ask(self, payload: bytes) -> None:
        """Send a question, and wait for its answer."""


@asynccontextmanager
async def open_blocking(name: str, payload: bytes) -> AsyncIterator[Echo]:
    """ZeroMQ or Zenoh.

    Raises:
        ImportError: it is not installed.
    """
    module = importlib.import_module({"zeromq": "_zeromq", "zenoh": "_zenoh_echo"}[name])
    asking: Asking
    with module.open_asking() as asking:

        def block(count: int) -> list[float]:
            taken: list[float] = []
            for _ in range(count):
                started = time.perf_counter()
                asking.ask(payload)
                taken.append(time.perf_counter() - started)
            return taken

        async def trips(count: int) -> list[float]:
            return await trio.to_thread.run_sync(block, count)

        async with open_answerer({name: asking.endpoint}) as other:
            await other.answer()
            await trio.to_thread.run_sync(asking.wait_ready)
            yield Echo(trips, other, len(payload))


@asynccontextmanager
async def open_nats(payload: bytes) -> AsyncIterator[Echo]:
    """NATS, in two programs of its own.

    Raises:
        MissingError: it is not installed.
    """
    async with open_asking("NATS") as asking:
        yield Echo(functools.partial(asking.trips, size=len(payload)), None, len(payload))


@asynccontextmanager
async def open_answerer(task: object) -> AsyncIterator[Elsewhere]:
    """The second process."""
    async with open_program("_echo.py", task) as streams:
        yield Elsewhere(*streams)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", nargs="+", type=int, default=[64], help="bytes of a payload (64)")
    parser.add_argument("--runs", type=int, default=5, help="of each, in turn (5)")
    parser.add_argument("--trips", type=int, default=2000, help="of a run, 2 or more (2000)")
    parser.add_argument("--peers", action="store_true", help="other systems beside it, too")
    parser.add_argument("--json", action="store_true", help="one object a measurement")
    given = parser.parse_args()
    if given.trips < 2:
        parser.error(f"--trips {given.trips}: a percentile needs 2 or more")
    configure_logging(LoggingConfig(level="warning"))
    printer = Printer(given.json)
    for size in given.size:
        several = (size, given.runs, given.trips)
        run(functools.partial(measure, printer, *several, peers=given.peers))
    printer.finish()


async def measure(printer: Printer, size: int, runs: int, trips: int, *, peers: bool) -> None:
    """Measure payloads of one size, with or without the peers."""
    payload = bytes(size)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(open_server())
        ours = await stack.enter_async_context(open_overlay(server, payload))
        others = {"raw Trio": await stack.enter_async_context(open_raw(payload))}
        if peers:
            others |= await open_others(stack, payload, printer.skip)
        found = await take_turns([ours, *others.values()], runs, trips)
    for what, of in (("round_trip", median), ("round_trip_p99", percentile_99)):
        first, *rest = ([of(taken) for taken in each] for each in found)
        for beside, values in zip(others, rest, strict=True):
            printer.add(Measurement(what, size, 2, "us", first, beside, values, NOTES[beside]))


async def open_others(
    stack: AsyncExitStack, payload: bytes, skip: Callable[[str, str], None]
) -> dict[str, Echo]:
    """The peers that are installed."""
    found: dict[str, Echo] = {}
    for name, opened in (
        ("ZeroMQ", open_blocking("zeromq", payload)),
        ("Zenoh", open_blocking("zenoh", payload)),
        ("NATS", open_nats(payload)),
    ):
        try:
            found[name] = await stack.enter_async_context(opened)
        except ImportError as error:
            skip(name, f"{error}: {INSTALL}")
        except MissingError as error:
            skip(name, str(error))
    return found


async def take_turns(sides: Sequence[Echo], runs: int, trips: int) -> list[list[list[float]]]:
    """The microseconds of each trip of each run of each side, run by run in turn."""
    for side in sides:
        await side.measure(WARM_UP)
    found: list[list[list[float]]] = [[] for _ in sides]
    for _ in range(runs):
        for side, taken in zip(sides, found, strict=True):
            taken.append(await side.measure(trips))
    return found


def percentile_99(values: Sequence[float]) -> float:
    """What 99 of 100 values are no greater than."""
    return quantiles(values, n=100, method="inclusive")[-1]


if __name__ == "__main__":
    main()
