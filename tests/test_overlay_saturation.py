"""Overlays under more load than they can carry: nobody waits for ever, and memory is bounded."""

from __future__ import annotations

import gc
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from random import Random

import pytest
import trio
from trio.testing import MockClock

from opus_socket import OverlayHost, OverlaySocket
from opus_socket.adapters.base import READ_SIZE, Route
from opus_socket.adapters.records import open_record, record, select_record
from opus_socket.core import datagram
from opus_socket.core.addresses import Endpoint
from opus_socket.core.effects import Kind
from support import LINE, PATIENCE, TRANSPORTS, TRIANGLE, overlay, until

BOUNDS = {
    "socket.send_buffer": 20_000,
    "socket.receive_buffer": 20_000,
    "socket.stall_timeout": 0.3,
}
PAYLOAD = b"x" * 1000
GRID = ("0,0", "1000,10", "2000,0", "10,1000", "1010,1010", "2000,1010")
FLOOD = 100_000
IDLE = 0.02
"""Seconds without news from any socket after which the virtual clock jumps: real sockets need a
moment, and nobody sleeps."""


@pytest.mark.parametrize("transport", ["hand-over", "tcp", "shared tcp"])
@pytest.mark.parametrize("places", [LINE, TRIANGLE, GRID], ids=["line", "triangle", "grid"])
async def test_members_that_relay_for_each_other_never_wait_in_a_circle(
    places: tuple[str, ...], transport: str
) -> None:
    """Everybody sends to all through everybody, and one of them does not read: all senders go on,
    those who read get messages of each, and every output holds its bound.
    """
    async with overlay(places, TRANSPORTS[transport], BOUNDS) as (host, sockets):
        stopped, *reading = sockets[::-1]
        heard = {sock.address: set[object]() for sock in reading}
        sent = dict.fromkeys([sock.address for sock in sockets], 0)
        most = 0

        async def send(sock: OverlaySocket) -> None:
            for _ in range(300):
                await sock.send_to_all(PAYLOAD)
                sent[sock.address] += 1

        async def receive(sock: OverlaySocket) -> None:
            nonlocal most
            while True:
                for message in await sock.receive_batch():
                    heard[sock.address].add(message.source)
                flows = [flow for each in sockets for flow in each.statistics().flows]
                most = max(most, *[flow.queued for flow in flows])

        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as readers:
                for sock in reading:
                    readers.start_soon(receive, sock)
                async with trio.open_nursery() as senders:
                    for sock in sockets:
                        senders.start_soon(send, sock)
                readers.cancel_scope.cancel()
        assert set(sent.values()) == {300}
        for sock in reading:
            assert heard[sock.address] == {each.address for each in sockets if each is not sock}
        # The bound, and one read of each input: of each neighbor, and of the application itself.
        assert most < 20_000 + len(sockets) * READ_SIZE
        assert stopped.statistics().flows[0].dropped > 0
        await until(host, lambda: all(sock.stable for sock in sockets))


async def test_a_tree_over_shared_connections_never_waits_for_itself() -> None:
    """Its links share one connection, and the slowest member sets the pace of all: nothing is
    dropped, though every output is full all the time.
    """
    places = [f"{1000 * x},{7 * x}" for x in range(6)]
    bounds = {**BOUNDS, "socket.stall_timeout": 60.0}
    total = 1500
    async with overlay(places, TRANSPORTS["shared tcp"], bounds) as (_, (source, *others)):
        with trio.fail_after(PATIENCE):
            async with trio.open_nursery() as readers:
                for sock in others:
                    readers.start_soon(_read_in_order, sock, total)
                for number in range(total):
                    await source.send_to_all(number.to_bytes(4) + PAYLOAD)
        for sock in (source, *others):
            assert not any(flow.dropped for flow in sock.statistics().flows)


@pytest.mark.parametrize("transport", ["hand-over", "tcp"])
def test_a_reader_that_is_slow_and_steady_gets_everything(transport: str) -> None:
    """Also through a relay, and though it takes longer than `stall_timeout` for what one read
    brought: all who feed it wait, and the sender with them.
    """
    bounds = {"socket.send_buffer": 20_000, "socket.receive_buffer": 20_000}
    total = 2000

    async def run() -> None:
        async with overlay(LINE, TRANSPORTS[transport], bounds) as (_, (source, relay, reader)):
            async with trio.open_nursery() as nursery:

                async def send() -> None:
                    for first in range(0, total, 100):
                        numbers = range(first, first + 100)
                        payloads = [number.to_bytes(4) + PAYLOAD for number in numbers]
                        await source.send_batch(payloads, to=reader.address)

                nursery.start_soon(send)
                for number in range(20):
                    assert (await reader.receive()).payload[:4] == number.to_bytes(4)
                    await trio.sleep(0.5)
                assert source.statistics().flows[1].queued > 0
                with trio.fail_after(PATIENCE):
                    for number in range(20, total):
                        assert (await reader.receive()).payload[:4] == number.to_bytes(4)
            for sock in (source, relay, reader):
                assert not any(flow.dropped for flow in sock.statistics().flows)

    trio.run(run, clock=MockClock(autojump_threshold=IDLE))


@pytest.mark.parametrize("transport", ["hand-over", "tcp"])
def test_who_leaves_waits_for_a_reader_that_is_slow_and_steady(transport: str) -> None:
    """Longer than `stall_timeout`; and no longer than that for one that takes nothing any more."""
    bounds = {"socket.send_buffer": 20_000, "socket.receive_buffer": 20_000}

    async def run() -> None:
        async with overlay(LINE[:2], TRANSPORTS[transport], bounds) as (_, (source, reader)):
            batch = [PAYLOAD] * 100
            with trio.move_on_after(1.0):
                while True:
                    await source.send_batch(batch, to=reader.address)
            gone = trio.Event()

            async def leave() -> None:
                await source.leave()
                gone.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(leave)
                for _ in range(10):
                    await reader.receive()
                    await trio.sleep(0.5)
                assert not gone.is_set()
                with trio.fail_after(2 * 2.0):
                    await gone.wait()

    trio.run(run, clock=MockClock(autojump_threshold=IDLE))


async def _read_in_order(sock: OverlaySocket, total: int) -> None:
    for number in range(total):
        message = await sock.receive()
        assert message.payload[:4] == number.to_bytes(4)


@asynccontextmanager
async def _flooded() -> AsyncIterator[tuple[OverlayHost, OverlaySocket, OverlaySocket]]:
    """Two members, checked to be as they were: stable, talking, and no larger than before."""
    async with overlay(LINE[:2], TRANSPORTS["tcp"]) as (host, (a, b)):
        await a.send_to_all(b"before")
        assert (await b.receive()).payload == b"before"
        gc.collect()
        before = len(gc.get_objects())
        yield host, a, b
        gc.collect()
        assert len(gc.get_objects()) - before < 3000
        assert [a.neighbors, b.neighbors] == [(b.address,), (a.address,)]
        await a.send_to_all(b"after")
        with trio.fail_after(5):
            assert (await b.receive()).payload == b"after"


def _garbage(rng: Random, route: Route) -> Callable[[], bytes]:
    bodies = [rng.randbytes(rng.randrange(200)) for _ in range(1000)]
    heads = [datagram.HEADER.pack(1, kind, 0, *route) for kind in range(9)]
    heads += [datagram.HEADER.pack(2, 2, 0, *route), datagram.HEADER.pack(1, 2, 9, *route), b""]
    return lambda: rng.choice(heads) + rng.choice(bodies)


async def test_a_flood_of_garbage_datagrams_leaves_nothing_behind() -> None:
    async with _flooded() as (host, a, b):
        tag = a._settings.overlay_id.tag
        garbage = _garbage(Random(1), Route(tag, b.contact.index, a.contact.index))
        target = b.contact.endpoints[0][:2]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.bind(("127.0.0.1", 0))
            received = b.statistics().udp
            assert received is not None
            already = received.received
            for _ in range(FLOOD // 100):
                for _ in range(100):
                    sock.sendto(garbage(), target)
                await host._host.wait_turn()
        # Hardly any is lost by the system, because the host is given its turns.
        await until(host, lambda: _received(b) - already > 0.9 * FLOOD)
        core = b.statistics().core
        assert core is not None
        assert sum(core.refused.values()) + sum(host.statistics().refused.values()) > 0.8 * FLOOD
        assert len(core.refused) < 50
        assert len(host.statistics().refused) < 20


def _received(sock: OverlaySocket) -> int:
    udp = sock.statistics().udp
    assert udp is not None
    return udp.received


async def test_a_flood_of_garbage_records_leaves_nothing_behind() -> None:
    """Connections that break the protocol are closed, others stay; nothing grows."""
    rng = Random(2)
    async with _flooded() as (host, a, b):
        tag = a._settings.overlay_id.tag
        digest = host._host.digest(tag)
        assert digest is not None
        target = b.contact.endpoints[0][:2]
        records = 0
        while records < FLOOD:
            stream = trio.SocketStream(trio.socket.socket())
            await stream.socket.connect(target)
            local = Endpoint("127.0.0.1", stream.socket.getsockname()[1])
            route = Route(tag, b.contact.index, rng.randrange(3))
            head = open_record(local, tag, digest) + select_record(route)
            body = b"".join(
                bytes((rng.choice((2, 2, 4, 5, 9, 200)),)) + len(each).to_bytes(3) + each
                for each in (rng.randbytes(rng.randrange(40)) for _ in range(2000))
            )
            records += 2000
            end = rng.choice((record(Kind.OVERLAY, os.urandom(500)), b"\0\0\0", b""))
            with suppress(trio.BrokenResourceError):
                await stream.send_all(head + body + end)
            await stream.aclose()
        await until(host, lambda: _connections(b) == 1)
        refused = host.statistics().refused
        assert refused["unknown_kind"] > 0.2 * FLOOD
        core = b.statistics().core
        assert core is not None
        assert sum(core.refused.values()) > 0.5 * FLOOD


def _connections(sock: OverlaySocket) -> int:
    tcp = sock.statistics().tcp
    assert tcp is not None
    return tcp.connections
