"""Fan-out: one sender, many receivers, over real TCP and in two processes.

Its one rule: every receiver gets every message, or the benchmark fails. The members stand by chance
in the plane; those of the left half are in this process, with the sender, the others in a second
one. Each has an endpoint of its own, nothing is handed over inside a process, and messages travel
along the tree that the overlay makes: every member relays.

    python benchmarks/fan_out.py [--receivers 8 64 256 1000] [--size 1024 16384] [--peers] [--json]

- `fan_out`: thousand deliveries a second, at all receivers together; beside it bare Trio programs
  with the same tree, and with `--peers` other systems whose receivers are in a second process and
  each have a connection of their own;
- `fan_out_each`: Mbit/s at each receiver, beside the goal of 15;
- `fan_out_handover`: thousand deliveries a second in one process, whose members hand messages over
  without a connection, beside the goal of 2,000.
"""

from __future__ import annotations

import argparse
import functools
import gc
from collections.abc import Sequence
from contextlib import AsyncExitStack

from _common import Measurement, Printer, allow_descriptors, run
from _layout import Layout, scattered
from _overlay import open_server
from _peers import Shape, open_peers
from _rates import compare
from _remote import open_overlay, open_sides
from attrs import evolve

from opus_socket.config import LoggingConfig
from opus_socket.logs import configure_logging

NAME = "fan_out"
BARE = "bare Trio"
GOAL_EACH = 15.0
GOAL_HANDOVER = 2000.0
SEED = 7
DESCRIPTORS_EACH = 16


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument(
        "--receivers", nargs="+", type=int, default=[8, 64, 256, 1000], help="(8 64 256 1000)"
    )
    parser.add_argument(
        "--size", nargs="+", type=int, default=[1024, 16_384], help="bytes (1024 16384)"
    )
    parser.add_argument("--runs", type=int, default=5, help="of each, in turn (5)")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a run, about (1)")
    parser.add_argument("--peers", action="store_true", help="other systems beside it, too")
    parser.add_argument("--json", action="store_true", help="one object a measurement")
    given = parser.parse_args()
    # Of a thousand that join at once some have to wait for the server, and say so.
    configure_logging(LoggingConfig(level="error"))
    printer = Printer(given.json)
    for receivers in given.receivers:
        allow_descriptors(DESCRIPTORS_EACH * receivers)
        points = scattered(receivers + 1, SEED)
        layout = Layout(points, here=(receivers + 1) // 2)
        several = (given.size, given.runs, given.seconds)
        run(functools.partial(measure, printer, layout, *several, peers=given.peers))
        together = evolve(layout, here=receivers + 1, handover=True)
        run(functools.partial(measure_handover, printer, together, *several))
    printer.finish()


async def measure(
    printer: Printer,
    layout: Layout,
    sizes: Sequence[int],
    runs: int,
    seconds: float,
    *,
    peers: bool,
) -> None:
    """Measure one number of receivers over connections, with or without the peers."""
    receivers = len(layout.points) - 1
    async with open_server() as server, AsyncExitStack() as stack:
        overlay, bare = await stack.enter_async_context(open_sides(layout, server))
        # A full collection of what a thousand members hold would take longer than a run.
        gc.freeze()
        notes, sides = {BARE: ""}, {}
        if peers:
            opened = open_peers(Shape.FAR, receivers, printer.skip)
            for peer in await stack.enter_async_context(opened):
                sides[peer.name], notes[peer.name] = peer.side, peer.note
        for size in sizes:
            ours = {NAME: overlay, BARE: bare}
            found = await compare(ours, sides, bytes(size), runs, seconds, printer.skip)
            rates = {
                name: [rate * receivers / 1000 for rate in each] for name, each in found.items()
            }
            for beside in [side for side in rates if side != NAME]:
                printer.add(
                    Measurement(
                        NAME,
                        size,
                        receivers + 1,
                        "k deliveries/s",
                        rates[NAME],
                        beside,
                        rates[beside],
                        notes[beside],
                    )
                )
            each_receiver = [rate * size * 8 / 1e6 for rate in found[NAME]]
            printer.add(
                Measurement(
                    f"{NAME}_each",
                    size,
                    receivers + 1,
                    "Mbit/s",
                    each_receiver,
                    "goal",
                    [GOAL_EACH],
                )
            )


async def measure_handover(
    printer: Printer, layout: Layout, sizes: Sequence[int], runs: int, seconds: float
) -> None:
    """Measure one number of receivers that hand messages over."""
    receivers = len(layout.points) - 1
    async with open_server() as server, open_overlay(layout, server) as (overlay, _):
        gc.freeze()
        for size in sizes:
            found = await compare({NAME: overlay}, {}, bytes(size), runs, seconds, printer.skip)
            rates = [rate * receivers / 1000 for rate in found[NAME]]
            printer.add(
                Measurement(
                    f"{NAME}_handover",
                    size,
                    receivers + 1,
                    "k deliveries/s",
                    rates,
                    "goal",
                    [GOAL_HANDOVER],
                )
            )


if __name__ == "__main__":
    main()
