"""Overlay sockets that are held to a bandwidth, on every transport.

Time is real here, so the tests assert what no slow machine can break: nothing is faster than its
limit, nothing is lost, and nothing that need not wait waits for what does.
"""

from __future__ import annotations

from collections import Counter

import pytest
import trio

from opus_socket import (
    LocalProtocolError,
    LogicalAddress,
    OverlayHost,
    OverlaySocket,
    open_overlay_socket,
)
from opus_socket.core.buckets import Direction, Limit
from support import PATIENCE, TRANSPORTS, TRIANGLE, at, configure, overlay, until

PAIR = ("0,0", "1000,0")
PAYLOAD = bytes(1_000)
COUNT = 120
RATE = 500_000


async def carry(
    host: OverlayHost, sender: OverlaySocket, receiver: OverlaySocket
) -> tuple[int, float]:
    """Send messages to a member until it has them all; their bytes, and the seconds it took."""
    begun = host._host.now()
    taken = 0
    with trio.fail_after(PATIENCE):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, sender, receiver.address)
            for number in range(COUNT):
                message = await receiver.receive()
                assert message.payload == number.to_bytes(4) + PAYLOAD
                taken += len(message.frame)
    return taken, host._host.now() - begun


async def send(sock: OverlaySocket, address: LogicalAddress) -> None:
    for number in range(COUNT):
        await sock.send(address, number.to_bytes(4) + PAYLOAD)


def queued(sock: OverlaySocket) -> int:
    """Bytes that wait in it."""
    return sum(flow.queued for flow in sock.statistics().flows)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("direction", list(Direction))
async def test_nothing_is_faster_than_its_limit(direction: Direction, transport: str) -> None:
    """Whatever the direction and the transport, messages take as long as their bytes, less one
    burst, take at the rate; all of them come, in order. Without the limit they are free again.
    """
    async with overlay(PAIR, TRANSPORTS[transport]) as (host, (first, second)):
        limited = second if direction is Direction.IN else first
        limited.set_bandwidth(direction, RATE)
        assert limited.bandwidth == (Limit(direction, RATE),)
        taken, seconds = await carry(host, first, second)
        assert seconds >= (taken - RATE * 0.1) / RATE
        limited.set_bandwidth(direction.value, None)
        assert not limited.bandwidth
        await carry(host, first, second)
        assert limited._member is not None
        assert limited._member.emulation is None


async def test_the_configuration_limits_from_the_beginning() -> None:
    """What `[emulation]` says of a node and of its links is in force once it has joined."""
    limits = {"emulation.node_out": RATE, "emulation.links": ["1000,0 in 700000"]}
    async with overlay(PAIR, limits) as (host, (first, second)):
        assert first.bandwidth == (
            Limit(Direction.OUT, RATE),
            Limit(Direction.IN, 700_000, second.address),
        )
        taken, seconds = await carry(host, first, second)
        assert seconds >= (taken - RATE * 0.1) / RATE
        taken, seconds = await carry(host, second, first)
        assert seconds >= (taken - RATE * 0.1) / 700_000


async def test_one_link_is_limited_and_the_others_are_not() -> None:
    """A message to a third member passes what waits for the second."""
    async with overlay(TRIANGLE, TRANSPORTS["tcp"]) as (_, (first, second, third)):
        first.set_bandwidth("out", 1_000, second.address)
        with trio.fail_after(PATIENCE):
            for _ in range(20):
                await first.send(second.address, PAYLOAD)
            await first.send(third.address, b"past")
            assert (await third.receive()).payload == b"past"
        assert queued(first) > 10_000


@pytest.mark.parametrize("transport", ["hand-over", "tcp", "udp", "tcp only"])
async def test_control_passes_a_saturated_member(transport: str) -> None:
    """While messages wait whose bandwidth takes minutes, a round trip is answered, and the members
    stay each other's neighbors.
    """
    async with overlay(PAIR, TRANSPORTS[transport]) as (host, (first, second)):
        first.set_bandwidth("total", 1_000)
        with trio.fail_after(PATIENCE):
            for _ in range(100):
                await first.send(second.address, PAYLOAD)
            assert (await first.measure(second.address)).value is not None
        assert queued(first) > 90_000
        first.set_bandwidth("total", None)
        await until(host, lambda: not queued(first))
        assert first.neighbors == (second.address,)


async def test_a_slow_sender_blocks_when_its_buffer_is_full() -> None:
    bounds = {"socket.send_buffer": 20_000, "socket.stall_timeout": 60.0}
    async with overlay(PAIR, TRANSPORTS["tcp"], bounds) as (_, (first, _)):
        first.set_bandwidth("out", 1_000)
        while queued(first) < 20_000:
            first.send_to_all_nowait(PAYLOAD)
        with pytest.raises(trio.WouldBlock):
            first.send_to_all_nowait(PAYLOAD)


async def test_a_slow_receiver_blocks_the_sender() -> None:
    """The pressure of its gate reaches the sender's own queue, and nothing is dropped."""
    bounds = {"socket.send_buffer": 20_000, "socket.stall_timeout": 60.0}
    async with overlay(PAIR, TRANSPORTS["tcp"], bounds) as (host, (first, second)):
        second.set_bandwidth("in", 10_000)
        with trio.move_on_after(PATIENCE) as patience:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(flood, first)
                # The gate is full, and so is what feeds it.
                await until(host, lambda: queued(second) >= 20_000 and queued(first) >= 20_000)
                nursery.cancel_scope.cancel()
        assert not patience.cancelled_caught
        flows = (*first.statistics().flows, *second.statistics().flows)
        assert not any(flow.dropped for flow in flows)


async def flood(sock: OverlaySocket) -> None:
    while True:
        await sock.send_to_all(PAYLOAD)


@pytest.mark.parametrize("way_in", [None, 8_000_000])
@pytest.mark.parametrize("transport", ["hand-over", "tcp"])
async def test_classes_share_the_bandwidth_of_a_relay_by_weight(
    transport: str, way_in: float | None
) -> None:
    """By the relay's weights alone, whoever sends, and also when what comes in has to wait."""
    line = ("0,0", "1000,0", "2000,0", "3000,0")
    weights = {1: 1, 2: 3}
    async with (
        overlay(line, TRANSPORTS[transport]) as (_, (first, second, relay, last)),
        trio.open_nursery() as nursery,
    ):
        relay.set_bandwidth("out", 4_000_000)
        relay.set_bandwidth("in", way_in)
        for traffic_class, weight in weights.items():
            relay.set_class_weight(traffic_class, weight)

        async def send(sock: OverlaySocket, traffic_class: int) -> None:
            while True:
                await sock.send(last.address, PAYLOAD, traffic_class=traffic_class)

        nursery.start_soon(send, first, 1)
        nursery.start_soon(send, second, 2)
        with trio.fail_after(PATIENCE):
            await _count_classes(last, 1_000)
            got = await _count_classes(last, 2_000)
        assert abs(got[2] / got.total() - 0.75) <= 0.05 * 0.75
        nursery.cancel_scope.cancel()


async def _count_classes(sock: OverlaySocket, count: int) -> Counter[int]:
    got: Counter[int] = Counter()
    while got.total() < count:
        got.update([message.traffic_class for message in await sock.receive_batch()])
    return got


async def test_who_leaves_first_sends_what_waits_for_bandwidth() -> None:
    """Also when a message takes longer than `stall_timeout`, and nothing is left of its host."""
    bounds = {"socket.stall_timeout": 0.05}
    async with overlay(("0,0",), TRANSPORTS["tcp"]) as (_, (stays,)):
        config = configure(TRANSPORTS["tcp"], bounds, at("1000,0"), buddy=stays)
        with trio.fail_after(PATIENCE):
            async with open_overlay_socket(config) as leaves:
                await leaves.join()
                leaves.set_bandwidth("out", 10_000)
                for _ in range(5):
                    await leaves.send(stays.address, PAYLOAD)
            for _ in range(5):
                assert (await stays.receive()).payload == PAYLOAD


async def test_nobody_waits_for_the_bandwidth_of_a_member_that_has_left() -> None:
    async with overlay(PAIR, TRANSPORTS["tcp"]) as (host, (first, second)):
        second.set_bandwidth("in", 1_000)
        for _ in range(50):
            await first.send(second.address, PAYLOAD)
        await until(host, lambda: queued(second) > 40_000)
        assert second._member is not None
        assert second._member.emulation is not None
        gates = second._member.emulation.outputs()
        await second.leave()
        await until(host, lambda: not any(gate.queued for gate in gates))


@pytest.mark.parametrize("transport", ["hand-over", "tcp", "tcp only"])
async def test_control_messages_are_paid_for(transport: str) -> None:
    """A round trip takes from what is left for messages, in both directions."""
    async with overlay(PAIR, TRANSPORTS[transport]) as (host, (first, second)):
        for direction in ("in", "out"):
            first.set_bandwidth(Direction(direction), 1_000)
        with trio.fail_after(PATIENCE):
            await first.measure(second.address)
        now = host._host.now()
        assert all(bucket.holds(now) < bucket.depth for bucket in first._buckets.each.values())


async def test_an_emulation_that_has_ended_ends_no_other() -> None:
    async with overlay(PAIR) as (host, (first, _)):
        first.set_bandwidth("out", RATE)
        member = first._member
        assert member is not None
        old = member.emulation
        assert old is not None
        first.set_bandwidth("out", None)
        await until(host, lambda: member.emulation is None)
        first.set_bandwidth("out", RATE)
        new = member.emulation
        old.freed(old)
        assert new is not None
        assert member.emulation is new


async def test_what_cannot_be_is_refused() -> None:
    async with overlay(("0,0",)) as (_, (sock,)):
        with pytest.raises(LocalProtocolError, match="at least 1"):
            sock.set_bandwidth("out", 0.5)
        with pytest.raises(LocalProtocolError, match="a huge number"):
            sock.set_bandwidth("out", 10**400)
        with pytest.raises(LocalProtocolError, match="direction 'up'"):
            sock.set_bandwidth("up", 1_000)  # type: ignore[arg-type]
        with pytest.raises(LocalProtocolError, match="of a link in direction 'total'"):
            sock.set_bandwidth("total", None, LogicalAddress((1, 1)))
        with pytest.raises(LocalProtocolError, match="no address of delaunay"):
            sock.set_bandwidth("out", 1_000, LogicalAddress((1,)))
        assert sock.bandwidth == ()
        sock.close()
        with pytest.raises(trio.ClosedResourceError):
            sock.set_bandwidth("out", 1_000)
