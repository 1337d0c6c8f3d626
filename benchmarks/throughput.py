"""Throughput over real TCP, beside a bare Trio program that hands messages to an application.

Its one rule: what is measured is what an application gets: payloads go in by `send_batch`, and
count when `receive_batch` has returned them. Every overlay socket has an endpoint of its own and
nothing is handed over inside the process (`socket_per_node = true`, `local_handover = false`), so
each link is a TCP connection over loopback. Every member gets every message.

    python benchmarks/throughput.py [--json] [--size 1024 ...] [--workload chain ...] [--peers]

- `point_to_point`: one sender, one receiver, in one process;
- `two_processes`: the same, the receiver in a process of its own;
- `fan_out`: one sender that has eight neighbors;
- `chain`: 32 members on a line, each of which passes on what its neighbor sends.

The bare program, measured in turn with it, has the same connections and does as little as can be
done: length-prefixed frames, one read of up to 256 KiB into a reused buffer, everything passed on
by one write, and one object a message. Values are thousand messages a second at each receiver; at
1 KiB we want at least 0.4 of the bare program's. With `--peers`, other systems are measured in turn
with them, where they can do the same; a note says what each of them does and does not do.
"""

from __future__ import annotations

import argparse
import functools
import math
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import trio
from _bare import Bare
from _common import Measurement, MeasurementError, Printer, Side, run
from _overlay import Overlay, form, open_server, tcp_config
from _peers import open_peers
from _remote import open_bare, open_overlay

from opus_socket import open_host
from opus_socket.config import LoggingConfig
from opus_socket.logs import configure_logging
from opus_socket.simulator.checkers.delaunay import Point

SIZES = (64, 1024, 16_384)
BATCH_BYTES = 1 << 17
MOST_IN_BATCH = 1024
FAN_OUT = 8
CHAIN = 32
MIDDLE = 1000
FIRST_BATCHES = 8
SHORTEST_RUN = 0.05
RUN_TIMEOUT = 60.0


Sides = AbstractAsyncContextManager[tuple[Side, Side]]


@asynccontextmanager
async def one_process(
    points: Sequence[Point], parents: Sequence[int], server: object
) -> AsyncIterator[tuple[Side, Side]]:
    """An overlay of members at these places, and the bare program.

    Args:
        points: the places; the first member sends.
        parents: the parent of each other member in the tree that these places make.
        server: the rendezvous server.
    """
    bare = Bare(parents)
    try:
        async with open_host() as host:
            members = [await host.open_socket(tcp_config(point, server)) for point in points]
            await form(members, points)
            yield Overlay(members), bare
    finally:
        bare.close()


@asynccontextmanager
async def two_processes(server: object) -> AsyncIterator[tuple[Side, Side]]:
    """An overlay of two members and the bare program, the receivers in processes of their own."""
    async with open_overlay(server) as overlay, open_bare() as bare:
        yield overlay, bare


def circle(count: int) -> list[Point]:
    """A point and so many others around it."""
    angles = [2 * math.pi * number / count for number in range(count)]
    around = [(MIDDLE * (1 + math.cos(angle)), MIDDLE * (1 + math.sin(angle))) for angle in angles]
    return [(MIDDLE, MIDDLE), *((round(x), round(y)) for x, y in around)]


def line(count: int) -> list[Point]:
    """So many points on a line."""
    return [(x, 0) for x in range(count)]


WORKLOADS: dict[str, tuple[int, Callable[[object], Sides]]] = {
    "point_to_point": (2, functools.partial(one_process, line(2), [0])),
    "two_processes": (2, two_processes),
    "fan_out": (FAN_OUT + 1, functools.partial(one_process, circle(FAN_OUT), [0] * FAN_OUT)),
    "chain": (CHAIN, functools.partial(one_process, line(CHAIN), range(CHAIN - 1))),
}
"""How many members each has, and how it is opened."""


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workload", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--size", nargs="+", type=int, default=SIZES, help="bytes of a payload")
    parser.add_argument("--runs", type=int, default=5, help="of each, in turn (5)")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a run, about (0.5)")
    parser.add_argument("--peers", action="store_true", help="other systems beside it, too")
    parser.add_argument("--json", action="store_true", help="one object a measurement")
    given = parser.parse_args()
    configure_logging(LoggingConfig(level="warning"))
    printer = Printer(given.json)
    run(
        functools.partial(
            measure_all,
            printer,
            given.workload,
            given.size,
            given.runs,
            given.seconds,
            peers=given.peers,
        )
    )
    printer.finish()


async def measure_all(
    printer: Printer,
    workloads: Sequence[str],
    sizes: Sequence[int],
    runs: int,
    seconds: float,
    *,
    peers: bool,
) -> None:
    """Measure each workload with each size, with or without the peers."""
    async with open_server() as server:
        for name in workloads:
            members, opened = WORKLOADS[name]
            async with AsyncExitStack() as stack:
                sides = list(await stack.enter_async_context(opened(server)))
                notes = {"bare Trio": ""}
                if peers:
                    for peer in await stack.enter_async_context(
                        open_peers(name, members - 1, printer.skip)
                    ):
                        sides.append(peer.side)
                        notes[peer.name] = peer.note
                for size in sizes:
                    ours, *others = await compare(sides, bytes(size), runs, seconds)
                    for (beside, note), rates in zip(notes.items(), others, strict=True):
                        printer.add(
                            Measurement(
                                name, size, members, "k messages/s", ours, beside, rates, note
                            )
                        )


async def compare(
    sides: Sequence[Side], payload: bytes, runs: int, seconds: float
) -> list[list[float]]:
    """The rates of both sides, run by run in turn, in thousand messages a second."""
    batch = [payload] * max(1, min(MOST_IN_BATCH, BATCH_BYTES // (len(payload) + 64)))
    counts = [await suitable_count(side, batch, seconds) for side in sides]
    rates: list[list[float]] = [[] for _ in sides]
    for _ in range(runs):
        for side, count, found in zip(sides, counts, rates, strict=True):
            found.append(count * len(batch) / await timed(side, batch, count) / 1000)
    return rates


async def suitable_count(side: Side, batch: Sequence[bytes], seconds: float) -> int:
    """How many batches take so many seconds; measuring that warms everything up."""
    count = FIRST_BATCHES
    while (taken := await timed(side, batch, count)) < min(SHORTEST_RUN, seconds):
        count *= 2
    return max(1, round(count * seconds / taken))


async def timed(side: Side, batch: Sequence[bytes], count: int) -> float:
    """Seconds for so many batches.

    Raises:
        MeasurementError: messages were lost on their way.
    """
    with trio.move_on_after(RUN_TIMEOUT):
        return await side.measure([batch] * count)
    raise MeasurementError(
        f"not all of {count * len(batch)} messages arrived within {RUN_TIMEOUT:g} s"
    )


if __name__ == "__main__":
    main()
