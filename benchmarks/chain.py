"""A chain of relays: messages of 5 KiB along a line of 2 to 32 members, over real TCP.

Its one rule: what a relay costs is what is measured, so every member has an endpoint of its own and
each link is a TCP connection, but in the rows that say otherwise.

    python benchmarks/chain.py [--nodes 2 3 8 32] [--workload unicast ...] [--peers] [--json]

- `unicast`: to the last member, all in one process. Beside it, bare Trio programs that pass on what
  they read, of which only the last makes messages. Goal for 32: 2 GB/s, and 0.6 of the bare chain;
- `multicast`: each member receives, too. Beside it, bare programs that all make messages. Goal for
  32: 1 GB/s;
- `unicast_apart`, `multicast_apart`: half of the line here, the other half in a second process;
- `unicast_handover`, `multicast_handover`: in one process whose members hand messages over.

Values are GB/s over all links together. `*_cpu` is the processor time of this process in
microseconds a link and message, which must not grow with the nodes. With `--peers`, ZeroMQ with
forwarders and Zenoh with routers are measured in turn with them, but where nothing is to be sent.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from contextlib import AsyncExitStack

from _common import Measurement, Printer, Side, run
from _layout import Layout, Way, line
from _overlay import open_server
from _peers import Shape, open_peers
from _rates import Metered, compare
from _remote import open_sides

from opus_socket.config import LoggingConfig
from opus_socket.logs import configure_logging

BARE = "bare Trio"
WORKLOADS = (
    "unicast",
    "multicast",
    "unicast_apart",
    "multicast_apart",
    "unicast_handover",
    "multicast_handover",
)
SHAPES = {
    (Way.LAST, False): Shape.CHAIN,
    (Way.BATCH, False): Shape.CHAIN_EVERYWHERE,
    (Way.LAST, True): Shape.CHAIN_APART,
    (Way.BATCH, True): Shape.CHAIN_APART_EVERYWHERE,
}
"""How peers do the same: by the way, and whether there are two processes."""


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--workload", nargs="+", choices=WORKLOADS, default=WORKLOADS)
    parser.add_argument("--nodes", nargs="+", type=int, default=[2, 3, 8, 32], help="(2 3 8 32)")
    parser.add_argument("--size", nargs="+", type=int, default=[5120], help="bytes (5120)")
    parser.add_argument("--runs", type=int, default=5, help="of each, in turn (5)")
    parser.add_argument("--seconds", type=float, default=0.5, help="of a run, about (0.5)")
    parser.add_argument("--peers", action="store_true", help="other systems beside it, too")
    parser.add_argument("--json", action="store_true", help="one object a measurement")
    given = parser.parse_args()
    if min(given.nodes) < 2:
        parser.error(f"--nodes {min(given.nodes)}: a chain has 2 or more")
    configure_logging(LoggingConfig(level="warning"))
    printer = Printer(given.json)
    chosen = [(name, nodes) for name in given.workload for nodes in given.nodes]
    several = (given.size, given.runs, given.seconds)
    run(functools.partial(measure_all, printer, chosen, *several, peers=given.peers))
    printer.finish()


async def measure_all(
    printer: Printer,
    chosen: Sequence[tuple[str, int]],
    sizes: Sequence[int],
    runs: int,
    seconds: float,
    *,
    peers: bool,
) -> None:
    """Measure some workloads, each with its number of nodes, with or without the peers."""
    async with open_server() as server:
        for name, nodes in chosen:
            await measure(printer, server, name, nodes, sizes, runs, seconds, peers=peers)


def layout_of(name: str, nodes: int) -> Layout:
    """The members of a workload."""
    way, _, where = name.partition("_")
    return Layout(
        line(nodes),
        here=(nodes + 1) // 2 if where == "apart" else nodes,
        way=Way.LAST if way == "unicast" else Way.BATCH,
        handover=where == "handover",
    )


async def measure(
    printer: Printer,
    server: str,
    name: str,
    nodes: int,
    sizes: Sequence[int],
    runs: int,
    seconds: float,
    *,
    peers: bool,
) -> None:
    """Measure one workload with one number of nodes, with or without the peers."""
    layout, links = layout_of(name, nodes), nodes - 1
    async with AsyncExitStack() as stack:
        overlay, bare = await stack.enter_async_context(open_sides(layout, server))
        meters = {name: Metered(overlay), BARE: Metered(bare)}
        ours, theirs, notes = dict(meters), dict[str, Side](), {BARE: ""}
        if peers and not layout.handover:
            opened = open_peers(SHAPES[layout.way, layout.split], links, printer.skip)
            for peer in await stack.enter_async_context(opened):
                theirs[peer.name] = meters[peer.name] = Metered(peer.side)
                notes[peer.name] = peer.note
        for size in sizes:
            found = await compare(ours, theirs, bytes(size), runs, seconds, printer.skip)
            volumes = {
                side: [rate * size * links / 1e9 for rate in each] for side, each in found.items()
            }
            cpu = {side: [each / links for each in meters[side].cpu[-runs:]] for side in found}
            for what, unit, values in (("", "GB/s", volumes), ("_cpu", "us a link", cpu)):
                if what and layout.split:
                    continue
                for beside in [side for side in values if side != name]:
                    printer.add(
                        Measurement(
                            name + what,
                            size,
                            nodes,
                            unit,
                            values[name],
                            beside,
                            values[beside],
                            notes[beside],
                        )
                    )


if __name__ == "__main__":
    main()
