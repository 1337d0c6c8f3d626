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
from _layout import Layout, Way

from opus_socket import (
    LocalProtocolError,
    NotJoinedError,
    OverlayConfig,
    OverlayHost,
    OverlaySocket,
    open_overlay_socket,
)
from opus_socket.cli.pipes import JsonReader
from opus_socket.core.addresses import LogicalAddress
from opus_socket.simulator.checkers.delaunay import Point, discrepancies, reference_triangulation

LOOK_EVERY = 0.05
FORM_TIMEOUT = 120.0
MAXIMUM_PACKET = 32_768
SLOW_FROM = 500
SLOW_HEARTBEAT = 5.0
_COMMAND = (sys.executable, "-m", "opus_socket.cli")
_SERVER = ("rendezvous", "--listen", "127.0.0.1:0", "--json")
Triangulation = Mapping[Point, Sequence[Point]]


def tcp_config(
    point: Point,
    server: object,
    *,
    handover: bool = False,
    heartbeat: float = 1.0,
    **socket: object,
) -> OverlayConfig:
    """A member with an endpoint of its own, whose every link is a TCP connection.

    Args:
        point: its coordinates.
        server: the rendezvous server.
        handover: it shares an endpoint with others of this process instead, and hands over to
            them.
        heartbeat: seconds.
        socket: further settings of that table.
    """
    return OverlayConfig(
        overlay_id="benchmark",
        socket={"local_handover": handover, **socket},
        node={"delaunay": {"coordinates": f"{point[0]},{point[1]}", "heartbeat": heartbeat}},
        node_adapter={"listen": "127.0.0.1:0", "socket_per_node": not handover},
        socket_adapter={"kind": "tcp", "maximum_packet_length": MAXIMUM_PACKET},
        rendezvous={"server": str(server)},
    )


async def open_members(
    host: OverlayHost, layout: Layout, own: range, server: object
) -> list[OverlaySocket]:
    """The overlay sockets of some members of a layout, not yet joined."""
    # Ten thousand hellos a second would be measured, too.
    heartbeat = SLOW_HEARTBEAT if len(layout.points) >= SLOW_FROM else 1.0
    return [
        await host.open_socket(
            tcp_config(layout.points[number], server, handover=layout.handover, heartbeat=heartbeat)
        )
        for number in own
    ]


async def refusal(size: int) -> str:
    """Why members do not send payloads of so many bytes; empty when they do."""
    async with open_overlay_socket(tcp_config((0, 0), "")) as alone:
        await alone.join()
        try:
            await alone.send_to_all(bytes(size))
        except LocalProtocolError as error:
            return str(error)
    return ""


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
    """Let the members of an overlay that are here join, and wait until their tables are exact.

    Args:
        sockets: the members that are here.
        points: the places of all members.

    Raises:
        MeasurementError: they are not after two minutes.
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
        # Members in another process are missing here, and then count as wrong.
        tables = {point_of(sock): [(x, y) for x, y in sock.neighbors] for sock in joined}
        wrong = discrepancies(tables)
        text += f", and {len(wrong)} neighbor tables are wrong: {wrong[:3]}"
    return text


def _has_joined(sock: OverlaySocket) -> bool:
    try:
        return bool(sock.address)
    except NotJoinedError:
        return False


async def receive_all(
    layout: Layout, own: range, members: Sequence[OverlaySocket], count: int
) -> None:
    """Receive so many messages at each member here that gets them.

    Args:
        layout: of all members.
        own: the numbers of the members that are here.
        members: those members.
        count: how many messages.
    """
    take = receive_each if layout.way is Way.SINGLE else receive
    async with trio.open_nursery() as nursery:
        for number, member in zip(own, members, strict=True):
            if layout.receives(number):
                nursery.start_soon(take, member, count)


async def receive(member: OverlaySocket, count: int) -> None:
    """Receive so many messages, in batches."""
    while count > 0:
        count -= len(await member.receive_batch(count))


async def receive_each(member: OverlaySocket, count: int) -> None:
    """Receive so many messages, one by one."""
    async for _ in member:
        count -= 1
        if count == 0:
            return


async def send(layout: Layout, sender: OverlaySocket, batches: Sequence[Sequence[bytes]]) -> None:
    """Send as the layout says."""
    match layout.way:
        case Way.BATCH:
            for batch in batches:
                await sender.send_batch(batch)
        case Way.LAST:
            last = LogicalAddress(layout.points[-1])
            for batch in batches:
                await sender.send_batch(batch, to=last)
        case Way.SINGLE:
            for batch in batches:
                for payload in batch:
                    await sender.send_to_all(payload)
