"""Messages that are longer than a frame, over every transport."""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
import trio

from opus_socket import LogicalAddress, MessageLost, Mode, OverlaySocket
from support import LINE, TRANSPORTS, at, configure, overlay, until

LONGEST = 16 << 20
CHAIN = (*LINE, "3000,0")


async def _receive_one(sock: OverlaySocket, out: dict[LogicalAddress, bytes]) -> None:
    message = await sock.receive()
    out[sock.address] = message.payload


async def _all_receive(
    sender: OverlaySocket, payload: bytes, others: Sequence[OverlaySocket]
) -> None:
    """What is sent to all comes to all, while all of them read."""
    got: dict[LogicalAddress, bytes] = {}
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            for sock in others:
                nursery.start_soon(_receive_one, sock, got)
            await sender.send_to_all(payload)
    assert all(got[sock.address] == payload for sock in others)


@pytest.mark.parametrize("transport", ["hand-over", "tcp", "shared tcp"])
async def test_the_longest_message_between_two(transport: str) -> None:
    """Queues of usual size hold it: an output has room for its limit and one message."""
    async with overlay(LINE[:2], TRANSPORTS[transport]) as (_, (left, right)):
        payload = os.urandom(LONGEST)
        with trio.fail_after(20):
            await left.send(right.address, payload)
            message = await right.receive()
        assert message.payload == payload
        assert (message.source, message.destination) == (left.address, right.address)
        assert message.mode is Mode.UNICAST
        for sock in (left, right):
            assert all(flow.dropped == flow.queued == 0 for flow in sock.statistics().flows)


@pytest.mark.parametrize("transport", ["hand-over", "tcp"])
async def test_the_longest_message_along_a_chain(transport: str) -> None:
    """Three relays with small queues pass it on, all of it, while they read it themselves."""
    bounds = {"socket.send_buffer": 100_000, "socket.receive_buffer": 1}
    async with overlay(CHAIN, TRANSPORTS[transport], bounds) as (_, sockets):
        await _all_receive(sockets[0], os.urandom(LONGEST), sockets[1:])
        for sock in sockets:
            assert all(flow.dropped == flow.queued == 0 for flow in sock.statistics().flows)


@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_long_and_short_ones_arrive_in_order(transport: str) -> None:
    """Frames are half as long over UDP; each transport keeps the order of one source."""
    async with overlay(LINE, TRANSPORTS[transport]) as (_, (left, _, right)):
        sizes = [5, 50_000, 0, 8_000, 16_384, 100_000, 3]
        batch = [number.to_bytes(4) + os.urandom(size) for number, size in enumerate(sizes)]
        with trio.fail_after(10):
            await left.send_batch(batch)
            await left.send_batch(batch[:2], to=right.address)
            got = [await right.receive() for _ in range(len(batch) + 2)]
        assert [message.payload for message in got] == [*batch, *batch[:2]]


async def test_a_long_message_to_oneself() -> None:
    async with overlay(LINE[:1]) as (_, (alone,)):
        payload = os.urandom(100_000)
        await alone.send(alone.address, payload)
        assert (await alone.receive()).payload == payload


async def test_a_message_above_the_limit_of_its_receiver_is_told_there() -> None:
    """Limits may differ between members, and the receiver's holds for what it gathers."""
    async with overlay(LINE[:1]) as (host, (left,)):
        config = configure({"socket.max_message": 50_000}, at(LINE[1]), buddy=left)
        right = await host.open_socket(config)
        await right.join()
        await until(host, lambda: left.neighbors == (right.address,))
        events = right.events()
        await left.send_batch([bytes(50_001), bytes(50_000)])
        with trio.fail_after(5):
            assert (await right.receive()).payload == bytes(50_000)
            identity = (left.contact.incarnation, 0)
            lost = MessageLost(identity, None, "too_long", right.address)
            while await anext(events) != lost:
                pass
