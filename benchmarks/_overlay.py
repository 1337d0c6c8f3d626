"""Overlays for the benchmarks: members at given places, until they have all found each other.

Its one rule: an overlay is measured only when it is exact, which the reference triangulation says;
it shares no code with the protocol.
"""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager

import trio
from _common import MeasurementError
from attrs import frozen

from opus_socket import NotJoinedError, OverlayConfig, OverlaySocket
from opus_socket.cli.pipes import JsonReader
from opus_socket.simulator.checkers.delaunay import Point, discrepancies, reference_triangulation

LOOK_EVERY = 0.05
FORM_TIMEOUT = 60.0
MAXIMUM_PACKET = 32_768
_COMMAND = (sys.executable, "-m", "opus_socket.cli")
_SERVER = ("rendezvous", "--listen", "127.0.0.1:0", "--json")
Triangulation = Mapping[Point, Sequence[Point]]


def tcp_config(point: Point, server: object) -> OverlayConfig:
    """A member with an endpoint of its own, whose every link is a TCP connection."""
    return OverlayConfig(
        overlay_id="benchmark",
        socket={"local_handover": False},
        node={"delaunay": {"coordinates": f"{point[0]},{point[1]}"}},
        node_adapter={"listen": "127.0.0.1:0", "socket_per_node": True},
        socket_adapter={"kind": "tcp", "maximum_packet_length": MAXIMUM_PACKET},
        rendezvous={"server": str(server)},
    )


@asynccontextmanager
async def open_server() -> AsyncIterator[str]:
    """A rendezvous server in a process of its own; its endpoint."""
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            functools.partial(
                trio.run_process,
                [*_COMMAND, *_SERVER],
                stdout=subprocess.PIPE,
                # What it logs is no part of what a benchmark says.
                stderr=subprocess.DEVNULL,
                check=False,
            )
        )
        assert process.stdout is not None
        match await anext(JsonReader(process.stdout), None):
            case {"listen": str(endpoint)}:
                yield endpoint
            case other:
                raise MeasurementError(f"the rendezvous server did not start: it said {other!r}")
        process.terminate()


async def form(sockets: Sequence[OverlaySocket], points: Sequence[Point]) -> None:
    """Let all members of an overlay join, and wait until it is exact.

    Raises:
        MeasurementError: it is not after a minute.
    """
    expected = reference_triangulation(points)
    with trio.move_on_after(FORM_TIMEOUT):
        await join_all(sockets)
        await wait_exact(sockets, expected)
        return
    raise MeasurementError(f"after {FORM_TIMEOUT:g} s {complaint(sockets)}")


async def join_all(sockets: Sequence[OverlaySocket]) -> None:
    """Let all join at once."""
    async with trio.open_nursery() as nursery:
        for sock in sockets:
            nursery.start_soon(sock.join)


async def wait_exact(sockets: Sequence[OverlaySocket], expected: Triangulation) -> None:
    """Wait until every member has exactly the neighbors that it should have."""
    # No event says that the tables of all are right.
    while not all(list(sock.neighbors) == list(expected[point_of(sock)]) for sock in sockets):  # noqa: ASYNC110
        await trio.sleep(LOOK_EVERY)


def point_of(sock: OverlaySocket) -> Point:
    """A member's coordinates."""
    x, y = sock.address
    return x, y


def complaint(sockets: Sequence[OverlaySocket]) -> str:
    """What is wrong with an overlay that did not form."""
    joined = [sock for sock in sockets if _has_joined(sock)]
    text = f"{len(joined)} of {len(sockets)} members have joined"
    if len(joined) == len(sockets):
        tables = {point_of(sock): [(x, y) for x, y in sock.neighbors] for sock in joined}
        wrong = discrepancies(tables)
        text += f", and {len(wrong)} neighbor tables are wrong: {wrong[:3]}"
    return text


def _has_joined(sock: OverlaySocket) -> bool:
    try:
        return bool(sock.address)
    except NotJoinedError:
        return False


@frozen
class Overlay:
    """Members of an exact overlay in one process; the first sends.

    Attributes:
        members: the sender, then those that receive.
    """

    members: Sequence[OverlaySocket]

    async def measure(self, batches: Sequence[Sequence[bytes]]) -> float:
        """Seconds until every other member has got all messages."""
        count = sum(map(len, batches))
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for member in self.members[1:]:
                nursery.start_soon(receive, member, count)
            for batch in batches:
                await self.members[0].send_batch(batch)
        return trio.current_time() - started


async def receive(member: OverlaySocket, count: int) -> None:
    """Receive so many messages."""
    while count > 0:
        count -= len(await member.receive_batch(count))
