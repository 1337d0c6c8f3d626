"""Throughput over real TCP, beside a bare Trio program that hands messages to an application.

Its one rule: what is measured is what an application gets: payloads go in by `send_batch`, and
count when `receive_batch` has returned them. Every overlay socket has an endpoint of its own and
nothing is handed over inside the process (`socket_per_node = true`, `local_handover = false`), so
each link is a TCP connection over loopback. Every member gets every message.

    python benchmarks/throughput.py [--json] [--size 1024 ...] [--workload chain ...] [--peers]

- `point_to_point`: one sender, one receiver, in one process;
- `two_processes`: the same, the receiver in a process of its own;
- `fan_out`: one sender that has eight neighbors;
- `chain`: 32 members on a line, each of which passes on what its neighbor sends;
- `single`: `two_processes`, sent by `await send_to_all` and received by `async for`, one by one,
  beside the batches of `two_processes`;
- `handover`: `point_to_point` between members that share an endpoint and hand messages over,
  beside members that do not.

The bare program, measured in turn with it, has the same connections and does as little as can be
done: length-prefixed frames, one read of up to 256 KiB into a reused buffer, everything passed on
by one write, and one object a message. Values are thousand messages a second at each receiver; at
1 KiB we want at least half of the bare program's. With `--peers`, other systems are measured in
turn with them, where they can do the same; a note says what each of them does and does not do.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from _common import Measurement, Printer, Side, run
from _layout import Layout, Way, circle, line
from _overlay import open_server, refusal
from _peers import Opened, Shape, open_peers
from _rates import compare
from _remote import open_overlay, open_sides
from attrs import evolve, frozen

from opus_socket.config import LoggingConfig
from opus_socket.logs import configure_logging

SIZES = (64, 1024, 16_384, 65_536)
FAN_OUT = 8
CHAIN = 32
BARE = "bare Trio"
BATCHES = "batches"
CONNECTIONS = "connections"


@frozen
class Workload:
    """What is measured.

    Attributes:
        layout: of the members.
        beside: what is always measured with it: the bare program, or the same overlay otherwise.
        shape: of the peers that can do the same; None where there are none.
    """

    layout: Layout
    beside: str
    shape: Shape | None


PAIR = Layout(line(2), here=2)
APART = Layout(line(2), here=1)
WORKLOADS = {
    "point_to_point": Workload(PAIR, BARE, Shape.NEAR),
    "two_processes": Workload(APART, BARE, Shape.FAR),
    "fan_out": Workload(Layout(circle(FAN_OUT), here=FAN_OUT + 1), BARE, Shape.NEAR),
    "chain": Workload(Layout(line(CHAIN), here=CHAIN), BARE, None),
    "single": Workload(evolve(APART, way=Way.SINGLE), BATCHES, None),
    "handover": Workload(evolve(PAIR, handover=True), CONNECTIONS, None),
}


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
    several = (given.size, given.runs, given.seconds)
    run(functools.partial(measure_all, printer, given.workload, *several, peers=given.peers))
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
    refused = {size: await refusal(size) for size in sizes}
    for size, reason in refused.items():
        if reason:
            printer.skip(f"overlay sockets at {size} bytes", reason)
    taken = [size for size in sizes if not refused[size]]
    async with open_server() as server:
        for name in workloads:
            await measure(printer, server, name, taken, runs, seconds, peers=peers)


async def measure(
    printer: Printer,
    server: str,
    name: str,
    sizes: Sequence[int],
    runs: int,
    seconds: float,
    *,
    peers: bool,
) -> None:
    """Measure a workload with each size, with or without the peers."""
    workload = WORKLOADS[name]
    async with AsyncExitStack() as stack:
        ours = await stack.enter_async_context(open_ours(workload, name, server))
        others: list[Opened] = []
        if peers and workload.shape is not None:
            receivers = len(workload.layout.points) - 1
            others = await stack.enter_async_context(
                open_peers(workload.shape, receivers, printer.skip)
            )
        sides = {other.name: other.side for other in others}
        notes = {other.name: other.note for other in others}
        for size in sizes:
            found = await compare(ours, sides, bytes(size), runs, seconds, printer.skip)
            rates = {side: [rate / 1000 for rate in each] for side, each in found.items()}
            for beside in [side for side in rates if side != name]:
                printer.add(
                    Measurement(
                        name,
                        size,
                        len(workload.layout.points),
                        "k messages/s",
                        rates[name],
                        beside,
                        rates[beside],
                        notes.get(beside, ""),
                    )
                )


@asynccontextmanager
async def open_ours(
    workload: Workload, name: str, server: str
) -> AsyncIterator[Mapping[str, Side]]:
    """The workload's overlay, and what stands beside it."""
    async with AsyncExitStack() as stack:
        if workload.beside == BARE:
            overlay, beside = await stack.enter_async_context(open_sides(workload.layout, server))
        else:
            other = evolve(workload.layout, way=Way.BATCH, handover=False)
            overlay, _ = await stack.enter_async_context(open_overlay(workload.layout, server))
            # An overlay of the same name would be the same overlay.
            second = await stack.enter_async_context(open_server())
            beside, _ = await stack.enter_async_context(open_overlay(other, second))
        yield {name: overlay, workload.beside: beside}


if __name__ == "__main__":
    main()
