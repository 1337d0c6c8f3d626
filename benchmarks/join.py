"""Joining: so many overlay sockets in one process, all at once, until the overlay is exact.

Its one rule: nothing is taken on trust. Every member has a UDP socket of its own (unless
`--shared`), speaks through it with every other, and finds the overlay through a real rendezvous
server; and the overlay counts as formed when every neighbor table equals the reference
triangulation, which shares no code with the protocol.

    python benchmarks/join.py --members 1000 [--json]
    python benchmarks/join.py --members 10000 --heartbeat 5

Measured are the seconds until the last `join()` returned and until the overlay was exact, until
every member had heard a first multicast message, too, the processor time, and the messages a join.
Beside the times stands how long bare sockets take for as many datagrams: a loop over one selector,
without any protocol. Beside the messages stands the published goal (design: 45). With `--shared`
all are virtual nodes on one UDP socket, with `--handover` they hand overlay messages over besides.
With `--peers` stands beside a first message heard what other systems take until one sender and as
many receivers, in two processes, are connected and have heard one: a star, and no overlay.

Python's collector of cyclic garbage is told to look seldom (`spare_the_collector`): with ten
thousand members it would take a fifth of the time. A heartbeat of 5 seconds is right for a process
of ten thousand members: they say hello 60,000 times a heartbeat, and joining does not wait for a
beat.
"""

from __future__ import annotations

import argparse
import functools
import gc
import selectors
import socket
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from random import Random

import trio
from _common import Measurement, MeasurementError, Printer, allow_descriptors, run
from _overlay import Triangulation, complaint, join_all, open_server, wait_exact
from _peers import PEERS, Shape, try_open
from _rates import timed
from attrs import frozen

from opus_delaunay.statistics import DelaunayStatistics
from opus_socket import OverlayConfig, OverlayHost, OverlaySocket, open_host
from opus_socket.config import LoggingConfig
from opus_socket.core.addresses import WORD_MAX
from opus_socket.logs import configure_logging
from opus_socket.simulator.checkers.delaunay import Point, reference_triangulation

MESSAGES_GOAL = 45.0
SLOW_FROM = 2000
BURST = 256
SELDOM = 500_000
SEND_AGAIN = 2.0


@frozen
class Result:
    """What came of one run.

    Attributes:
        join_s: until the last `join()` had returned.
        exact_s: until every neighbor table was exact.
        cpu_s: processor time of this process until then.
        heard_s: until every other member had heard the first one.
        messages: protocol and rendezvous messages that members sent until then.
        hellos: those of them that only repeated a Hello to a neighbor.
        ports: the members' UDP sockets.
        datagrams, size: that were sent through them, and their mean bytes.
    """

    join_s: float
    exact_s: float
    cpu_s: float
    heard_s: float
    messages: int
    hellos: int
    ports: int
    datagrams: int
    size: int


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--members", type=int, default=1000, help="overlay sockets (1000)")
    parser.add_argument("--heartbeat", type=float, help="seconds (1; 5 from 2,000 members on)")
    parser.add_argument("--shared", action="store_true", help="all on one UDP socket")
    parser.add_argument("--handover", action="store_true", help="and hand messages over, too")
    parser.add_argument("--peers", action="store_true", help="other systems beside it, too")
    parser.add_argument("--runs", type=int, default=1, help="how often (1)")
    parser.add_argument("--seed", type=int, default=7, help="of the coordinates (7)")
    parser.add_argument("--timeout", type=float, default=120.0, help="seconds for a run (120)")
    parser.add_argument("--json", action="store_true", help="one object a measurement")
    given = parser.parse_args()
    # Of ten thousand that join at once some have to wait for the server, and say so.
    configure_logging(LoggingConfig(level="error"))
    shared = given.shared or given.handover
    if not shared:
        allow_descriptors(given.members)
    heartbeat = given.heartbeat or (1.0 if given.members < SLOW_FROM else 5.0)
    results: list[Result] = []
    bare: list[float] = []
    for number in range(given.runs):
        rng = Random(given.seed + number)
        results.append(
            run(
                functools.partial(
                    measure,
                    given.members,
                    heartbeat,
                    rng,
                    given.timeout,
                    shared=shared,
                    handover=given.handover,
                )
            )
        )
        bare.append(exchange(results[-1].ports, results[-1].datagrams, results[-1].size))
    name = "join_handover" if given.handover else "join_shared" if shared else "join"
    printer = Printer(given.json)
    report(printer, name, given.members, results, bare)
    if given.peers:
        heard = [each.heard_s for each in results]
        run(functools.partial(measure_peers, printer, f"{name}_heard", given.members, heard))
    printer.finish()


def report(
    printer: Printer, name: str, members: int, runs: Sequence[Result], bare: Sequence[float]
) -> None:
    """Print the measurements of some runs, and the seconds of bare sockets."""
    for what, values in (
        ("", [each.join_s for each in runs]),
        ("_exact", [each.exact_s for each in runs]),
        ("_cpu", [each.cpu_s for each in runs]),
        ("_heard", [each.heard_s for each in runs]),
    ):
        printer.add(Measurement(name + what, 0, members, "s", values, "bare datagrams", bare))
    for what, counts in (
        ("_messages", [each.messages - each.hellos for each in runs]),
        ("_messages_all", [each.messages for each in runs]),
    ):
        each_join = [count / members for count in counts]
        printer.add(
            Measurement(
                name + what, 0, members, "messages a join", each_join, "goal", [MESSAGES_GOAL]
            )
        )


async def measure_peers(printer: Printer, name: str, members: int, heard: Sequence[float]) -> None:
    """Measure how long peers take, each once: to start, to connect, and until all have heard."""
    for peer in PEERS:
        receivers = members - 1
        if Shape.FAR not in peer.shapes or peer.most == 1:
            continue
        if receivers > peer.most:
            printer.skip(f"{peer.name} with {receivers} receivers", f"it is asked for {peer.most}")
            continue
        allow_descriptors(4 * members)
        started = time.perf_counter()
        async with AsyncExitStack() as stack:
            side = await try_open(stack, peer, Shape.FAR, receivers, printer.skip)
            if side is None:
                continue
            await timed(side, b"first", 1)
            taken = [time.perf_counter() - started]
        printer.add(Measurement(name, 0, members, "s", heard, peer.name, taken, peer.note))


def spare_the_collector() -> None:
    """Let Python look for cyclic garbage seldom, as a process of ten thousand members should: each
    full look takes as long as the members are many, and finds nothing.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(SELDOM, 20, 100)


async def measure(
    members: int, heartbeat: float, rng: Random, limit: float, *, shared: bool, handover: bool
) -> Result:
    """Form one overlay, and take it down again."""
    points = draw_points(members, rng)
    expected = reference_triangulation(points)
    async with open_server() as server, open_host() as host:
        sockets = [
            await host.open_socket(
                OverlayConfig(
                    overlay_id="benchmark",
                    socket={"local_handover": handover},
                    node={"delaunay": {"coordinates": f"{x},{y}", "heartbeat": heartbeat}},
                    node_adapter={"listen": "127.0.0.1:0", "socket_per_node": not shared},
                    socket_adapter={"kind": "udp"},
                    rendezvous={"server": server},
                ),
                rng=Random(rng.getrandbits(64)),
            )
            for x, y in points
        ]
        spare_the_collector()
        with trio.move_on_after(limit):
            return await form(host, sockets, expected)
        raise MeasurementError(f"after {limit:g} s {complaint(sockets)}")


def draw_points(count: int, rng: Random) -> list[Point]:
    """Distinct points of the plane."""
    points: dict[Point, None] = {}
    while len(points) < count:
        points[rng.randrange(WORD_MAX), rng.randrange(WORD_MAX)] = None
    return list(points)


async def form(
    host: OverlayHost, sockets: Sequence[OverlaySocket], expected: Triangulation
) -> Result:
    """Let all join at once; what it took until the overlay was exact."""
    started, cpu = time.perf_counter(), time.process_time()
    await join_all(sockets)
    join_s = time.perf_counter() - started
    await wait_exact(sockets, expected)
    exact_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    await hear(sockets)
    heard_s = time.perf_counter() - started
    messages = hellos = 0
    for sock in sockets:
        core = sock.statistics().core
        assert core is not None
        messages += core.sent.get("protocol", 0) + core.sent.get("rendezvous", 0)
        assert isinstance(core.node, DelaunayStatistics)
        hellos += core.node.repeated
    ports = host.statistics().udp
    datagrams = sum(port.sent for port in ports)
    size = sum(port.sent_bytes for port in ports) // datagrams
    return Result(join_s, exact_s, cpu_s, heard_s, messages, hellos, len(ports), datagrams, size)


async def hear(sockets: Sequence[OverlaySocket]) -> None:
    """Let the first member send to all others, until each has heard: datagrams may be lost."""
    async with trio.open_nursery() as nursery:
        waiting = len(sockets) - 1
        heard = trio.Event()

        async def listen(sock: OverlaySocket) -> None:
            nonlocal waiting
            await sock.receive()
            waiting -= 1
            if not waiting:
                heard.set()

        for sock in sockets[1:]:
            nursery.start_soon(listen, sock)
        while waiting:
            await sockets[0].send_to_all(b"first")
            with trio.move_on_after(SEND_AGAIN):
                await heard.wait()


def exchange(ports: int, datagrams: int, size: int) -> float:
    """Seconds that bare sockets need for so many datagrams of so many bytes, in bursts that the
    kernel's buffers hold.
    """
    selector, payload = selectors.DefaultSelector(), bytes(size)
    sockets = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(max(2, ports))]
    try:
        for sock in sockets:
            sock.setblocking(False)
            sock.bind(("127.0.0.1", 0))
            selector.register(sock, selectors.EVENT_READ)
        places = [sock.getsockname() for sock in sockets]
        started = time.perf_counter()
        sent = received = 0
        while received < datagrams:
            for number in range(sent, min(sent + BURST, datagrams)):
                sockets[number % len(sockets)].sendto(payload, places[number * 7 % len(places)])
                sent += 1
            for key, _ in selector.select(0):
                ready = key.fileobj
                assert isinstance(ready, socket.socket)
                received += _drain(ready, size)
        return time.perf_counter() - started
    finally:
        selector.close()
        for sock in sockets:
            sock.close()


def _drain(sock: socket.socket, size: int) -> int:
    count = 0
    while True:
        try:
            sock.recvfrom(size)
        except BlockingIOError:
            return count
        count += 1


if __name__ == "__main__":
    main()
