"""What sockets see of members that die or do not read while messages pass through them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import MockClock

from opus_socket import (
    ContactFailed,
    Event,
    EventSubscription,
    OverlayHost,
    OverlaySocket,
    SourceBroken,
    SourceRestored,
    pace,
)
from opus_socket.core.sessions import GRACE
from support import LINE, PATIENCE, SEPARATE, overlay, until
from test_overlay_cancellation import completes

FOUR = (*LINE, "3000,0")
GRID = ("0,0", "1000,10", "2000,0", "10,1000", "1010,1010", "2000,1010")
RESET = struct.pack("ii", 1, 0)


def die(host: OverlayHost, sock: OverlaySocket) -> None:
    """Let a member be gone without a word, as when its process is killed: connections are reset,
    and nobody listens any more.
    """
    member = sock._member
    assert member is not None
    assert member.port.tcp is not None
    for connection in member.port.tcp._connections.values():
        connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    host._host.dismiss(member)
    member.port.tcp.close()


async def next_of(events: EventSubscription, kind: type[Event]) -> Event:
    with trio.fail_after(PATIENCE):
        async for event in events:
            if isinstance(event, kind):
                return event
    raise AssertionError("the socket was closed")


async def test_those_beyond_a_member_that_is_reset_are_told_of_it_and_of_the_mending() -> None:
    async with overlay(FOUR, SEPARATE) as (host, (west, middle, east, far)):
        seen = {sock: sock.events() for sock in (west, east, far)}
        for sock in (west, far):
            await sock.send_to_all(b"before")
        for receiver in (west, east, far):
            await receiver.receive()
        source, via, between = west.address, middle.address, east.address
        die(host, middle)
        for receiver, upstream in ((east, via), (far, between)):
            event = await next_of(seen[receiver], SourceBroken)
            assert event == SourceBroken(source, upstream)
        assert await next_of(seen[west], SourceBroken) == SourceBroken(far.address, via)

        async def speak() -> None:
            while True:
                await west.send_to_all(b"again")
                await host._host.wait_turn()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(speak)
            for receiver in (east, far):
                event = await next_of(seen[receiver], SourceRestored)
                assert isinstance(event, SourceRestored)
                assert event.source == source
            nursery.cancel_scope.cancel()
        links = {link.neighbor: link for link in east.statistics().core.links}  # type: ignore[union-attr]
        assert via not in links
        assert links[source].received > 0


async def test_what_was_lost_stays_known_when_the_neighbor_is_gone() -> None:
    bounds = {"socket.overflow": "drop", "socket.send_buffer": 20_000}
    async with overlay(LINE[:2], SEPARATE, bounds) as (host, (left, right)):
        while not left.statistics().dropped:
            left.send_to_all_nowait(bytes(1000))
        before = left.statistics()
        assert before.dropped["overflow"].messages == sum(flow.dropped for flow in before.flows)
        assert before.dropped["overflow"].size > 1000
        failed = left.events()
        gone = right.address
        die(host, right)
        event = await next_of(failed, ContactFailed)
        assert isinstance(event, ContactFailed)
        assert event.neighbor == gone
        await until(host, lambda: not left.neighbors)
        after = left.statistics()
        assert [flow.neighbor for flow in after.flows] == [None]
        assert after.dropped["overflow"] == before.dropped["overflow"]
        await left.leave()
        assert left.statistics().dropped.keys() >= before.dropped.keys()


async def test_who_leaves_breaks_nothing_where_there_is_another_way() -> None:
    """Its goodbye and the end of its connections come in any order."""
    async with overlay(GRID, SEPARATE) as (host, sockets):
        for sock in sockets:
            await sock.send_to_all(b"before")
        await until(host, lambda: all(len(sock._inbox) == len(GRID) - 1 for sock in sockets))
        leaver = sockets.pop(4)
        seen = [sock.events() for sock in sockets]
        await leaver.aclose()
        before = trio.current_time()
        await until(host, lambda: trio.current_time() > before + 2 * GRACE)
        assert not any(isinstance(event, SourceBroken) for each in seen for event in each._waiting)


def test_a_neighbor_that_does_not_read_is_no_failure() -> None:
    """Its queue is full for longer than it takes to doubt it; it answers the ping. The clock of
    this overlay runs twenty times as fast.
    """

    async def run() -> None:
        bounds = {
            "socket.send_buffer": 20_000,
            "socket.receive_buffer": 20_000,
            "socket.stall_timeout": 60.0,
            "node.delaunay.heartbeat": 5.0,
        }
        async with overlay(LINE[:2], SEPARATE, bounds) as (_, (left, right)):
            events = left.events()
            with trio.move_on_after(15.0):
                while True:
                    await left.send_to_all(bytes(1000))
            core = left.statistics().core
            assert core is not None
            [link] = core.links
            assert link.sent_bytes_per_second == 0.0
            assert link.rtt is not None
            assert core.sent["measurement"] >= 2
            assert left.neighbors == (right.address,)
            news = (ContactFailed, SourceBroken)
            assert not any(isinstance(event, news) for event in events._waiting)

    trio.run(run, clock=MockClock(rate=20.0))


@pytest.mark.parametrize("first", range(3))
async def test_calls_that_are_cancelled_while_everything_breaks_end_gracefully(
    first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At every third checkpoint from three on: of a send, a receive, and a wait for events, before
    and after the member between them is reset. What is left can be used, and ends.
    """
    monkeypatch.setattr(pace, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    for steps in range(first, 60, 3):
        async with overlay(LINE, SEPARATE) as (host, (west, middle, east)):
            events = east.events()
            traffic = _traffic(host, west, middle, east, events)
            done = await completes(steps, traffic)
            assert west._askers == {}
            await west.send_to_all(b"usable")
            await east.send_to_all(b"usable")
            with trio.fail_after(PATIENCE):
                await east.leave()
        if done:
            return
    raise AssertionError("the traffic never completes")


def _traffic(
    host: OverlayHost,
    west: OverlaySocket,
    middle: OverlaySocket,
    east: OverlaySocket,
    events: EventSubscription,
) -> Callable[[], Awaitable[object]]:
    async def traffic() -> None:
        for _ in range(2):
            await west.send_to_all(b"before")
            await east.receive()
        die(host, middle)
        await west.send_to_all(b"lost")
        await west.measure(east.contact)
        await next_of(events, SourceBroken)

    return traffic
