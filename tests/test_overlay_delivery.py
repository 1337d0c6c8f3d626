"""What applications send and receive, over every transport alike (docs/architecture.md, "What is
promised").
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import pytest
import trio

from opus_socket import (
    LocalProtocolError,
    LogicalAddress,
    MessageLost,
    Mode,
    OverlaySocket,
)
from support import LINE, TRANSPORTS, TRIANGLE, Settings, configure, overlay, until

SQUARE = ("0,0", "1000,10", "0,1000", "1010,1000")


@pytest.fixture(params=TRANSPORTS.values(), ids=list(TRANSPORTS))
def transport(request: pytest.FixtureRequest) -> Settings:
    chosen: Settings = request.param
    return chosen


async def nothing_else(sockets: Sequence[OverlaySocket]) -> None:
    """A unicast to each from each other has come, and nothing before it was left."""
    for sender in sockets:
        for receiver in sockets:
            if sender is not receiver:
                await sender.send(receiver.address, b"end")
    for receiver in sockets:
        with trio.fail_after(5):
            for _ in range(len(sockets) - 1):
                assert (await receiver.receive()).payload == b"end"


async def test_every_mode_delivers_to_whom_it_promises(transport: Settings) -> None:
    async with overlay(SQUARE, transport) as (_, sockets):
        for sender in sockets:
            others = [sock for sock in sockets if sock is not sender]
            for send, mode in (
                (sender.send_to_all, Mode.MULTICAST),
                (sender.sendToAll, Mode.MULTICAST),
                (sender.send_flood, Mode.FLOOD),
            ):
                await send(b"to all")
                for receiver in others:
                    message = await receiver.receive()
                    assert (message.source, message.payload) == (sender.address, b"to all")
                    assert message.mode is mode
            for receiver in others:
                await sender.send(receiver.address, b"to one")
                message = await receiver.receive()
                assert (message.mode, message.payload) == (Mode.UNICAST, b"to one")
                assert message.destination == receiver.address
                x, y = receiver.address
                await sender.send_anycast(LogicalAddress((x + 3, y + 3)), b"to the nearest")
                message = await receiver.receive()
                assert (message.mode, message.payload) == (Mode.ANYCAST, b"to the nearest")
        await nothing_else(sockets)


async def test_a_batch_for_one_member_comes_to_nobody_else(transport: Settings) -> None:
    async with overlay(LINE, transport) as (_, sockets):
        first, *_, last = sockets
        payloads = [bytes((number,)) for number in range(50)]
        await first.send_batch(payloads, to=last.address)
        taken: list[bytes] = []
        while len(taken) < len(payloads):
            messages = await last.receive_batch()
            assert {message.mode for message in messages} == {Mode.UNICAST}
            taken += [message.payload for message in messages]
        assert taken == payloads
        await nothing_else(sockets)


async def test_a_message_carries_its_traffic_class_all_the_way(transport: Settings) -> None:
    async with overlay(LINE, transport) as (_, sockets):
        first, second, *_, last = sockets
        await first.send_to_all(b"", traffic_class=1)
        await first.send_batch([b""], traffic_class=2)
        await first.send(last.address, b"", traffic_class=3)
        await first.send_flood(b"", traffic_class=255)
        await first.send_anycast(last.address, b"", traffic_class=4)
        classes = {(await last.receive()).traffic_class for _ in range(5)}
        assert classes == {1, 2, 3, 4, 255}
        await second.send_to_children(second.address, b"", traffic_class=7)
        assert (await last.receive()).traffic_class == 7


@pytest.mark.parametrize("wrong", [-1, 256, "1", None, 1.0])
async def test_no_traffic_class_but_a_byte_is_taken(wrong: object) -> None:
    async with overlay(LINE) as (_, [first, *_, last]):
        with pytest.raises(LocalProtocolError, match=r"traffic_class.*0 to 255"):
            await first.send_to_all(b"", traffic_class=wrong)  # type: ignore[arg-type]
        await first.send_to_all(b"right")
        assert (await last.receive()).payload == b"right"


async def test_messages_of_one_hop_go_no_further(transport: Settings) -> None:
    async with overlay(LINE, transport) as (_, (left, middle, right)):
        sockets = [left, middle, right]
        assert left.neighbors == right.neighbors == (middle.address,)
        await left.send_to_neighbors(b"1")
        await middle.send_to_neighbors(b"2")
        await right.send_to_parent(left.address, b"3")
        await left.send_to_parent(left.address, b"nobody")
        await middle.send_to_children(left.address, b"4")
        await right.send_to_children(left.address, b"nobody")
        expected = {left: [b"2"], middle: [b"1", b"3"], right: [b"2", b"4"]}
        for sock, payloads in expected.items():
            got = [(await sock.receive()).payload for _ in payloads]
            assert sorted(got) == payloads
        assert right.parent(left.address) == middle.address
        assert left.parent(left.address) is None
        assert middle.children(left.address) == (right.address,)
        await nothing_else(sockets)


async def test_messages_of_one_source_stay_in_order(transport: Settings) -> None:
    """FIFO for each source, through a relay, whatever the mix of sizes and calls."""
    sizes = [0, 1, 700, 8000, 30] * 40
    async with overlay(LINE, transport) as (_, (left, _, right)):
        payloads = [number.to_bytes(4) + os.urandom(size) for number, size in enumerate(sizes)]
        received: list[bytes] = []

        async def receive() -> None:
            while len(received) < len(payloads):
                received.extend(message.payload for message in await right.receive_batch())

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(receive)
                for start in range(0, len(payloads), 4):
                    await left.send_batch(payloads[start : start + 2])
                    for payload in payloads[start + 2 : start + 4]:
                        await left.send_to_all(payload)
        assert received == payloads


async def test_payloads_may_be_any_bytes(transport: Settings) -> None:
    """And what was handed over may be changed afterwards."""
    async with overlay(LINE[:2], transport) as (_, (a, b)):
        changing = bytearray(b"before")
        await a.send_batch([b"bytes", changing, memoryview(b"abcdef")[::2], b""])
        changing[:] = b"after!"
        with trio.fail_after(5):
            got = [(await b.receive()).payload for _ in range(4)]
        assert got == [b"bytes", b"before", b"ace", b""]


async def test_the_longest_message_arrives(transport: Settings) -> None:
    async with overlay(LINE, transport) as (_, (left, _, right)):
        longest = _longest(left)
        payload = os.urandom(longest)
        with trio.fail_after(5):
            await left.send_to_all(payload)
            assert (await right.receive()).payload == payload


def _longest(sock: OverlaySocket) -> int:
    """The header of Delaunay's addresses, the message id and the payload's own head."""
    return sock.config.socket_adapter.maximum_packet_length - (8 + 16) - (4 + 16) - 4


async def test_its_own_messages_come_to_nobody_but_itself() -> None:
    """Nothing is delivered to its own sender, except what it sends to its own address."""
    async with overlay(TRIANGLE) as (_, sockets):
        me = sockets[0]
        await me.send_to_all(b"others")
        await me.send_flood(b"others")
        await me.send_anycast(me.address, b"nobody")
        await me.send(me.address, b"myself")
        message = await me.receive()
        assert (message.payload, message.source, message.mode) == (
            b"myself",
            me.address,
            Mode.UNICAST,
        )
        for other in sockets[1:]:
            assert [(await other.receive()).payload for _ in range(2)] == [b"others"] * 2
        await nothing_else(sockets)


async def test_sending_alone_returns_at_once() -> None:
    async with overlay(LINE[:1]) as (_, (alone,)):
        for number in range(1000):
            await alone.send_to_all(bytes(1000))
            await alone.send_batch([bytes(1000)] * 10)
            await alone.send_flood(bytes(1000))
            await alone.send_to_neighbors(b"")
            alone.send_to_all_nowait(number.to_bytes(2))
        statistics = alone.statistics()
        assert [flow.queued for flow in statistics.flows] == [0]
        assert statistics.core is not None
        assert statistics.core.engine.transmitted_frames == 0


async def test_who_fills_an_output_goes_on_while_the_system_takes_it() -> None:
    """No turn of the loop stands between."""
    buffer = {"socket.send_buffer": 1 << 17, **TRANSPORTS["tcp"]}
    async with overlay(LINE[:2], buffer) as (_, (a, b)):
        await a.send_to_all(b"first")
        await b.receive()
        for _ in range(3):
            await a.send_batch([b"short"])
        await a.send_batch([bytes(1 << 14)] * 9)
        a.send_to_all_nowait(b"last")
        received = [(await b.receive()).payload for _ in range(13)]
        assert received[-1] == b"last"


async def test_several_receivers_share_the_messages() -> None:
    """Each message goes to one of them, and none is lost between them."""
    async with overlay(LINE[:2]) as (_, (a, b)):
        received: list[int] = []
        count = 200

        async def receive(scope: trio.CancelScope) -> None:
            async for message in b:
                received.append(int.from_bytes(message.payload))
                if len(received) == count:
                    scope.cancel()

        with trio.fail_after(5):
            async with trio.open_nursery() as nursery:
                for _ in range(7):
                    nursery.start_soon(receive, nursery.cancel_scope)
                for number in range(count):
                    await a.send_to_all(number.to_bytes(2))
        assert sorted(received) == list(range(count))


async def test_a_destination_that_nobody_holds_is_told_to_the_source(transport: Settings) -> None:
    """The message is dropped where no member is nearer, and the event names it and who dropped."""
    async with overlay(LINE, transport) as (_, (left, _, right)):
        events = left.events()
        nowhere = LogicalAddress((2500, 7))
        await left.send(nowhere, b"lost")
        with trio.fail_after(5):
            event = await anext(events)
        assert isinstance(event, MessageLost)
        assert (event.destination, event.reason) == (nowhere, "unroutable")
        assert event.at == right.address
        core = right.statistics().core
        assert core is not None
        assert core.engine.dropped["unroutable"] == 1


async def test_the_hop_limit_ends_a_message_and_is_told() -> None:
    async with overlay(LINE, {"socket.hop_limit": 1}) as (_, (left, middle, right)):
        events = left.events()
        await left.send_to_all(b"one hop")
        assert (await middle.receive()).payload == b"one hop"
        await left.send(right.address, b"too far")
        with trio.fail_after(5):
            lost = [await anext(events) for _ in range(2)]
        assert [(event.reason, event.at) for event in lost if isinstance(event, MessageLost)] == [
            ("hop_limit", middle.address)
        ] * 2


@pytest.mark.parametrize("transport", ["hand-over", "shared tcp"])
async def test_two_overlays_in_one_process_do_not_hear_each_other(transport: str) -> None:
    """They share a UDP socket and a listener; the overlay's tag keeps them apart."""
    settings = TRANSPORTS[transport]
    async with overlay(LINE[:2], settings) as (host, (a, b)):
        others = []
        for buddy in (None, a):
            config = configure(settings, {"overlay_id": "other"}, buddy=buddy)
            others.append(await host.open_socket(config))
            await others[-1].join()
        await until(host, lambda: all(len(other.neighbors) == 1 for other in others))
        assert [len(sock.neighbors) for sock in (a, b)] == [1, 1]
        await a.send_to_all(b"ours")
        await others[0].send_to_all(b"theirs")
        assert (await b.receive()).payload == b"ours"
        assert (await others[1].receive()).payload == b"theirs"
        await nothing_else([a, b])
        await nothing_else(others)
