"""Idle: what members cost while nobody sends.

Its one rule: what is measured is the steady state: the overlay is exact, and has been left alone
for two heartbeats (`--settle`). All members are in this process, and say hello to their neighbors.

    python benchmarks/idle.py [--members 1000] [--seconds 10] [--peers] [--json]

- `idle_virtual`: the percentage of a core that virtual members on one UDP socket take together,
  beside the goal for a thousand, 12; and `idle_virtual_5s`, with a heartbeat of 5 seconds instead
  of 1, beside the goal of 5;
- `idle_handover`: the same where they hand over to each other inside the process;
- `idle_own`: the same where each has a UDP socket and a listener of its own;
- `..._traffic`: kbit/s that a member sends, beside six datagrams of 64 bytes a heartbeat: one for
  each neighbor, about.

With `--peers`, the share of a core that as many receivers of other systems take, which are
connected to one sender in another process and get nothing, stands beside `idle_virtual`. They look
after a connection, and no overlay; a broker's own time is not counted.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack

import trio
from _common import Measurement, Printer, allow_descriptors, run
from _layout import scattered
from _overlay import form, open_server
from _peers import PEERS, Far, Shape, try_open
from _programs import Apart
from attrs import frozen

from opus_socket import OverlayConfig, OverlayHost, open_host
from opus_socket.config import LoggingConfig
from opus_socket.logs import configure_logging

SEED = 7
NEIGHBORS = 6
DATAGRAM = 64
LEAST = 0.001


@frozen
class Case:
    """A way in which members are hosted.

    Attributes:
        name: of the workload.
        goal: percent of a core for a thousand.
        heartbeat: seconds.
        own: whether each has a socket of its own.
        handover: whether they hand over to each other inside the process.
    """

    name: str
    goal: float
    heartbeat: float = 1.0
    own: bool = False
    handover: bool = False


CASES = (
    Case("idle_virtual", 12.0),
    Case("idle_virtual_5s", 5.0, heartbeat=5.0),
    Case("idle_handover", 12.0, handover=True),
    Case("idle_own", 12.0, own=True),
)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--members", type=int, default=1000, help="(1000)")
    parser.add_argument("--seconds", type=float, default=10.0, help="of a run (10)")
    parser.add_argument("--settle", type=float, default=2.0, help="heartbeats of rest before (2)")
    parser.add_argument("--runs", type=int, default=5, help="of each (5)")
    parser.add_argument("--peers", action="store_true", help="other systems beside it, too")
    parser.add_argument("--json", action="store_true", help="one object a measurement")
    given = parser.parse_args()
    configure_logging(LoggingConfig(level="error"))
    allow_descriptors(4 * given.members)
    printer, count = Printer(given.json), given.members
    shares: dict[str, list[float]] = {}
    for case in CASES:
        several = (count, given.runs, given.seconds, given.settle)
        found = run(functools.partial(measure, case, *several))
        shares[case.name] = share = [each for each, _ in found]
        goal = [case.goal * count / 1000]
        printer.add(Measurement(case.name, 0, count, "% of a core", share, "goal", goal))
        hellos = [NEIGHBORS * DATAGRAM * 8 / 1000 / case.heartbeat]
        traffic = [each for _, each in found]
        name = f"{case.name}_traffic"
        printer.add(Measurement(name, 0, count, "kbit/s", traffic, "six datagrams", hellos))
    if given.peers:
        ours, runs = shares[CASES[0].name], given.runs
        run(functools.partial(measure_peers, printer, ours, count, runs, given.seconds))
    printer.finish()


async def measure(
    case: Case, count: int, runs: int, seconds: float, settle: float
) -> Sequence[tuple[float, float]]:
    """The percentage of a core, and the kbit/s that a member sends, of some runs."""
    points = scattered(count, SEED)
    async with open_server() as server, open_host() as host:
        members = [
            await host.open_socket(
                OverlayConfig(
                    overlay_id="benchmark",
                    socket={"local_handover": case.handover},
                    node={
                        "delaunay": {
                            "coordinates": f"{x},{y}",
                            "heartbeat": case.heartbeat,
                        }
                    },
                    node_adapter={"listen": "127.0.0.1:0", "socket_per_node": case.own},
                    rendezvous={"server": server},
                )
            )
            for x, y in points
        ]
        await form(members, points)
        await trio.sleep(settle * case.heartbeat)
        found: list[tuple[float, float]] = []
        for _ in range(runs):
            before, cpu, started = sent_bytes(host), time.process_time(), time.monotonic()
            await trio.sleep(seconds)
            taken = time.monotonic() - started
            share = 100 * (time.process_time() - cpu) / taken
            found.append((share, (sent_bytes(host) - before) * 8 / 1000 / count / taken))
        return found


def sent_bytes(host: OverlayHost) -> int:
    """What the members have sent, in bytes."""
    return sum(port.sent_bytes for port in host.statistics().udp)


async def measure_peers(
    printer: Printer, ours: Sequence[float], count: int, runs: int, seconds: float
) -> None:
    """Measure the receivers of peers."""
    for peer in PEERS:
        if Shape.FAR not in peer.shapes or peer.most == 1:
            continue
        if count > peer.most:
            printer.skip(f"{peer.name} with {count} receivers", f"it is asked for {peer.most}")
            continue
        async with AsyncExitStack() as stack:
            side = await try_open(stack, peer, Shape.FAR, count, printer.skip)
            if not isinstance(side, Far | Apart):
                continue
            shares: list[float] = []
            for _ in range(runs):
                await side.receivers.writer.write({"idle": seconds})
                used = await side.receivers.answer()
                assert isinstance(used, float)
                shares.append(max(LEAST, 100 * used / seconds))
        printer.add(
            Measurement("idle_virtual", 0, count, "% of a core", ours, peer.name, shares, peer.note)
        )


if __name__ == "__main__":
    main()
