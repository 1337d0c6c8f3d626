"""`OverlaySocket.measure` on real sockets."""

from __future__ import annotations

import pytest
import trio

from opus_socket import (
    Contact,
    Endpoint,
    LocalProtocolError,
    LogicalAddress,
    Measurement,
    Mode,
    NotJoinedError,
    Quantity,
    open_overlay_socket,
)
from opus_socket.core.link_watch import LinkStatistics
from support import LINE, TRANSPORTS, configure, overlay, until

FOUR = (*LINE, "3000,0")
NOBODY = LogicalAddress((7, 7))


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_any_member_is_measured_however_members_talk(transport: str) -> None:
    """The last one of a line is no neighbor of the first: it is found along the overlay."""
    async with overlay(FOUR, TRANSPORTS[transport]) as (_, (first, *_, last)):
        assert last.address not in first.neighbors
        began = trio.current_time()
        for target in (last.address, last.contact, last.contact.endpoints[0], first.address):
            measurement = await first.measure(target)
            assert measurement.quantity is Quantity.RTT
            assert measurement.value is not None
            assert 0 < measurement.value < trio.current_time() - began
        assert (await first.measure(last.address, "rtt")).quantity is Quantity.RTT
        measurement = await first.measure(last.address, "bandwidth")
        assert measurement.quantity is Quantity.BANDWIDTH
        assert measurement.value is not None
        # Loopback, seen by a process that has other things to do.
        assert measurement.value > 10_000


async def test_all_who_ask_at_once_are_answered() -> None:
    values: list[float | None] = []

    async with overlay(FOUR) as (_, (first, *_, last)):

        async def ask(target: LogicalAddress | Contact) -> None:
            values.append((await first.measure(target)).value)

        async with trio.open_nursery() as nursery:
            for target in (last.address, last.address, last.contact, last.address):
                nursery.start_soon(ask, target)
    assert len(values) == 4
    assert None not in values


async def test_a_cancelled_measurement_leaves_nothing_behind() -> None:
    async with overlay(LINE) as (host, (first, *_)):
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(first.measure, NOBODY)
                nursery.start_soon(first.measure, NOBODY)
                await until(host, lambda: sum(map(len, first._askers.values())) == 2)
                scope.cancel()
        assert scope.cancelled_caught
        assert first._askers == {}
        with trio.CancelScope() as scope:
            scope.cancel()
            await first.measure(NOBODY)
        assert scope.cancelled_caught
        assert first._askers == {}


@pytest.mark.parametrize("how", ["leave", "close"])
async def test_who_leaves_meanwhile_is_told(how: str) -> None:
    expected = {"leave": NotJoinedError, "close": trio.ClosedResourceError}[how]
    async with overlay(LINE) as (host, (first, *_)):

        async def ask() -> None:
            with pytest.raises(expected):
                await first.measure(NOBODY)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            await until(host, lambda: first._askers != {})
            if how == "leave":
                await first.leave()
            else:
                first.close()
        with pytest.raises(expected):
            await first.measure(NOBODY)


async def test_nobody_answers_from_nowhere(autojump_clock: object) -> None:
    """Without an answer there is no value, after six seconds at the latest."""
    async with open_overlay_socket(configure()) as sock:
        await sock.join()
        before = trio.current_time()
        for quantity in (Quantity.RTT, Quantity.BANDWIDTH):
            assert await sock.measure(NOBODY, quantity) == Measurement(quantity, None)
        silent = Contact(NOBODY, 1, 0, (Endpoint("127.0.0.1", 9),))
        assert (await sock.measure(silent)).value is None
        assert trio.current_time() - before < 18.5


async def test_what_cannot_be_measured_is_refused() -> None:
    async with open_overlay_socket(configure()) as sock:
        with pytest.raises(NotJoinedError):
            await sock.measure(NOBODY)
        await sock.join()
        for target in (LogicalAddress((1,)), "127.0.0.1:1", (7, 7)):
            with pytest.raises(LocalProtocolError, match="Contact or an Endpoint"):
                await sock.measure(target)  # type: ignore[arg-type]
        with pytest.raises(LocalProtocolError, match="bandwidth"):
            await sock.measure(NOBODY, "loss")  # type: ignore[arg-type]
        for nowhere in (Endpoint("name", 7), Endpoint("::1", 70_000), Endpoint("::1", "7")):  # type: ignore[arg-type]
            with pytest.raises(LocalProtocolError, match=r"no name. and a port"):
                await sock.measure(nowhere)
        with pytest.raises(LocalProtocolError, match="everybody's address"):
            await sock.measure(LogicalAddress.everybody(1))
        with pytest.raises(LocalProtocolError, match="bandwidth"):
            await sock.measure(NOBODY, [])  # type: ignore[arg-type]
        assert sock._askers == {}


@pytest.mark.parametrize("transport", ["hand-over", "tcp", "udp"])
async def test_statistics_show_links_and_flows(transport: str) -> None:
    """What one member sends through another is seen at each, per link and per flow."""
    async with overlay(LINE, TRANSPORTS[transport]) as (host, (left, middle, right)):
        flow = []
        link: LinkStatistics | None = None

        def is_seen() -> bool:
            nonlocal flow, link
            core, relay = right.statistics().core, middle.statistics().core
            assert core is not None
            assert relay is not None
            flow = [s for s in core.sessions if s.source == left.address and s.messages >= 100]
            links = {each.neighbor: each for each in relay.links}
            link = links.get(right.address)
            there = link is not None and link.rtt is not None and link.sent_per_second > 0
            return bool(flow) and flow[0].messages_per_second > 0 and there

        async def send() -> None:
            while True:
                await left.send_to_all(bytes(200))
                await host._host.wait_turn()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(send)
            await until(host, is_seen)
            nursery.cancel_scope.cancel()
        assert link is not None
        assert link.sent_size > 200 * 100
        assert link.rtt is not None
        assert 0 < link.rtt < 1
        [session] = flow
        assert session.upstream == middle.address
        assert (session.mode, session.traffic_class) == (Mode.MULTICAST, 0)
        assert session.bytes_per_second > 200 * session.messages_per_second
