"""Limits of what an overlay socket sends and keeps: refused calls change nothing, slow readers
cost no memory, and whatever is dropped is told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from opus_socket import (
    EventsLost,
    LocalProtocolError,
    LogicalAddress,
    MessageLost,
    MessagesDropped,
    NotJoinedError,
    OverlaySocket,
    Unstable,
    open_overlay_socket,
)
from opus_socket.core.engine import EngineStatistics
from opus_socket.subscription import MAX_EVENTS, EventSubscription
from support import LINE, PATIENCE, TRANSPORTS, at, configure, overlay, until

LONGEST = 20_000
PAYLOAD = b"x" * 1000

Call = Callable[[OverlaySocket], Awaitable[object]]


def _nowait(payload: bytes) -> Call:
    async def run(sock: OverlaySocket) -> None:
        sock.send_to_all_nowait(payload)

    return run


THERE = LogicalAddress((1000, 0))
REFUSED: dict[str, Call] = {
    "too long to all": lambda sock: sock.send_to_all(bytes(LONGEST + 1)),
    "too long to one": lambda sock: sock.send(THERE, bytes(LONGEST + 1)),
    "too long by flood": lambda sock: sock.send_flood(bytes(LONGEST + 1)),
    "too long to any": lambda sock: sock.send_anycast(THERE, bytes(LONGEST + 1)),
    "too long to neighbors": lambda sock: sock.send_to_neighbors(bytes(LONGEST + 1)),
    "too long at once": _nowait(bytes(LONGEST + 1)),
    "one too long of many": lambda sock: sock.send_batch([b"a", bytes(LONGEST + 1), b"b"]),
    "one of a wrong type": lambda sock: sock.send_batch([b"a", "b"]),  # type: ignore[list-item]
    "a batch that is one": lambda sock: sock.send_batch(b"ab"),  # type: ignore[arg-type]
    "text": lambda sock: sock.send_to_all("x"),  # type: ignore[arg-type]
    "nothing": lambda sock: sock.send_to_all(None),  # type: ignore[arg-type]
    "an address too short": lambda sock: sock.send(LogicalAddress((1,)), b"x"),
    "an address too long": lambda sock: sock.send(LogicalAddress((1, 2, 3)), b"x"),
    "everybody's address": lambda sock: sock.send(LogicalAddress.everybody(1), b"x"),
    "no address": lambda sock: sock.send((1, 2), b"x"),  # type: ignore[arg-type]
    "no key": lambda sock: sock.send_anycast(None, b"x"),  # type: ignore[arg-type]
    "no root": lambda sock: sock.send_to_children("0,0", b"x"),  # type: ignore[arg-type]
    "another root": lambda sock: sock.send_to_parent(LogicalAddress((1,)), b"x"),
    "fewer than one": lambda sock: sock.receive_batch(0),
    "one and a half": lambda sock: sock.receive_batch(1.5),  # type: ignore[arg-type]
    "no number": lambda sock: sock.receive_batch("a"),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("call", REFUSED.values(), ids=list(REFUSED))
async def test_a_refused_call_changes_nothing(call: Call) -> None:
    """It says what is allowed; nothing was sent, and no sequence number was used."""
    bounds = {"socket.max_message": LONGEST}
    async with overlay(LINE[:2], bounds) as (_, (sock, other)):
        await sock.send_to_all(b"before")
        before = _engine(sock)
        with pytest.raises(LocalProtocolError, match=r"allowed"):
            await call(sock)
        assert _engine(sock) == before
        await sock.send_to_all(b"after")
        with trio.fail_after(5):
            messages = [await other.receive() for _ in range(2)]
        assert [message.payload for message in messages] == [b"before", b"after"]
        first, second = [message.id for message in messages]
        assert first is not None
        assert second == (first[0], first[1] + 1)


def _engine(sock: OverlaySocket) -> EngineStatistics:
    core = sock.statistics().core
    assert core is not None
    return core.engine


async def test_an_empty_batch_is_nothing() -> None:
    async with overlay(LINE[:2]) as (_, (sock, other)):
        await sock.send_batch([])
        await sock.send_to_all(b"x")
        message = await other.receive()
        assert message.id == (sock.contact.incarnation, 0)


@pytest.mark.parametrize("transport", ["hand-over", "tcp", "shared tcp", "tcp only"])
async def test_a_full_queue_blocks_and_nothing_is_lost(transport: str) -> None:
    """The receiver does not read, so the sender waits; once it reads, all of it arrives in order,
    and neither end held more than its bounds.
    """
    bounds = {"socket.send_buffer": 20_000, "socket.receive_buffer": 20_000}
    async with overlay(LINE, TRANSPORTS[transport], bounds) as (_, (left, middle, right)):
        sent = 0
        with trio.move_on_after(5):
            while True:
                try:
                    left.send_to_all_nowait(sent.to_bytes(4) + PAYLOAD)
                except trio.WouldBlock:
                    break
                sent += 1
                if sent % 16 == 0:
                    await trio.lowlevel.checkpoint()
        blocked = sent
        with pytest.raises(trio.WouldBlock, match="queue for traffic class 0 is full"):
            left.send_to_all_nowait(PAYLOAD)
        for sock in (left, middle, right):
            assert all(flow.queued < 20_000 + (1 << 17) for flow in sock.statistics().flows)
        async with trio.open_nursery() as nursery:

            async def send_more() -> None:
                nonlocal sent
                for _ in range(blocked // 2):
                    await left.send_to_all(sent.to_bytes(4) + PAYLOAD)
                    sent += 1

            nursery.start_soon(send_more)
            for sock in (middle, right):
                nursery.start_soon(_expect, sock, blocked + blocked // 2)
        for sock in (left, middle, right):
            assert all(flow.dropped == 0 for flow in sock.statistics().flows)


async def _expect(sock: OverlaySocket, count: int) -> None:
    received = 0
    with trio.fail_after(10):
        while received < count:
            for message in await sock.receive_batch(10):
                assert message.payload[:4] == received.to_bytes(4)
                received += 1


@pytest.mark.parametrize("transport", ["hand-over", "tcp"])
async def test_a_stopped_receiver_drops_after_the_stall_and_others_go_on(transport: str) -> None:
    """With block: it holds its bound, drops what is newest, and says how many."""
    bounds = {
        "socket.send_buffer": 20_000,
        "socket.receive_buffer": 20_000,
        "socket.stall_timeout": 0.3,
    }
    async with overlay(LINE, TRANSPORTS[transport], bounds) as (host, (left, middle, right)):
        events = middle.events()
        total = 3000
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for number in range(total):
                    await left.send_to_all(number.to_bytes(4) + PAYLOAD)

            nursery.start_soon(send)
            received = 0
            with trio.fail_after(20):
                # What may be lost on the way to others is what the stall costs, once.
                while received < total // 2:
                    received += len(await right.receive_batch())
            nursery.cancel_scope.cancel()
        flow = middle.statistics().flows[0]
        assert flow.queued < 20_000 + (1 << 17)
        assert flow.dropped > 0
        reported = 0
        with trio.fail_after(5):
            while reported < middle.statistics().flows[0].dropped:
                event = await anext(events)
                if isinstance(event, MessagesDropped):
                    assert event.neighbor is None
                    assert event.reason in ("stalled", "overflow")
                    reported += event.count
        assert len(await _drain(middle)) > 0
        await until(host, lambda: middle.stable)


async def _drain(sock: OverlaySocket) -> list[bytes]:
    """The payloads that are there now."""
    payloads = []
    while len(sock._inbox):
        payloads += [message.payload for message in await sock.receive_batch()]
    return payloads


@pytest.mark.parametrize(
    ("policy", "transport"),
    [*((p, t) for p in ("drop", "evict") for t in ("hand-over", "tcp", "udp")), ("block", "udp")],
)
async def test_a_receiver_that_drops_never_makes_anybody_wait(policy: str, transport: str) -> None:
    """Nor do datagrams, whatever the policy: nobody could make their sender wait."""
    bounds = {"socket.receive_buffer": 20_000, "socket.overflow": policy}
    async with overlay(LINE[:2], TRANSPORTS[transport], bounds) as (_, (left, right)):
        events = right.events()
        while right.statistics().flows[0].dropped == 0:
            with trio.fail_after(5):
                await left.send_to_all(PAYLOAD)
        assert right.statistics().flows[0].queued < 20_000 + (1 << 17)
        with trio.fail_after(5):
            event = await anext(events)
        assert isinstance(event, MessagesDropped)
        assert (event.reason, event.neighbor) == ("overflow", None)
        assert len(await _drain(right)) > 0
        await left.send_to_all(b"now there is room")
        with trio.fail_after(5):
            assert (await right.receive()).payload == b"now there is room"


async def test_a_neighbor_that_takes_nothing_is_evicted() -> None:
    """Its connection is closed, what was queued is told as evicted, and later messages arrive."""
    left_policy = {
        "socket.overflow": "evict",
        "socket.evict_timeout": 0.3,
        "socket.send_buffer": 20_000,
    }
    right_policy = {"socket.receive_buffer": 20_000, "socket.stall_timeout": 60.0}
    async with overlay(LINE[:1], TRANSPORTS["tcp"], left_policy) as (host, (left,)):
        config = configure(TRANSPORTS["tcp"], right_policy, buddy=left)
        right = await host.open_socket(config)
        await right.join()
        await until(host, lambda: left.neighbors == (right.address,))
        events = left.events()
        reasons: dict[str, int] = {}
        with trio.fail_after(10):
            while "evicted" not in reasons:
                await left.send_to_all(PAYLOAD)
                for event in _at_hand(events):
                    if isinstance(event, MessagesDropped):
                        assert event.neighbor == right.address
                        reasons[event.reason] = reasons.get(event.reason, 0) + event.count
        assert set(reasons) == {"overflow", "evicted"}
        await _drain(right)
        await until(host, lambda: len(left.neighbors) == 1)
        with trio.fail_after(5):
            while True:
                await left.send_to_all(b"again")
                if b"again" in await _drain(right):
                    break


def _at_hand(events: EventSubscription) -> list[object]:
    return [events._waiting.popleft() for _ in range(len(events._waiting))]


async def test_a_receive_buffer_of_zero_discards_everything() -> None:
    async with overlay(LINE[:2], {"socket.receive_buffer": 0}) as (host, (left, right)):
        for _ in range(100):
            await left.send_to_all(PAYLOAD)
        await until(host, lambda: right.statistics().flows[0].discarded == 100)
        flow = right.statistics().flows[0]
        assert (flow.queued, flow.dropped, flow.taken) == (0, 0, 0)
        with trio.move_on_after(0) as scope:
            await right.receive()
        assert scope.cancelled_caught


async def test_a_read_timeout_ends_a_receive() -> None:
    async with overlay(LINE[:2], {"socket.read_timeout": 0.05}) as (_, (left, right)):
        with pytest.raises(trio.TooSlowError):
            await right.receive()
        with pytest.raises(trio.TooSlowError):
            await right.receive_batch()
        await left.send_to_all(b"x")
        assert (await right.receive()).payload == b"x"


async def test_subscriptions_are_bounded_and_say_what_they_lost() -> None:
    async with overlay(LINE[:1]) as (_, (sock,)):
        nowhere = LogicalAddress((5, 5))
        events, other = sock.events(), sock.events()
        sock._publish(Unstable(nowhere))
        lost = MessageLost((1, 2), None, "unroutable", nowhere)
        for _ in range(MAX_EVENTS + 9):
            sock._publish(lost)
        assert sock.statistics().events_lost == 20
        assert await anext(events) == Unstable(nowhere)
        sock._publish(lost)
        got = [await anext(events) for _ in range(MAX_EVENTS)]
        assert got == [*[lost] * (MAX_EVENTS - 1), EventsLost(10)]
        assert await anext(events) == EventsLost(1)
        assert await anext(other) == Unstable(nowhere)
        sock.close()
        assert [event async for event in other][-1] == EventsLost(11)
        assert [event async for event in events] == []
        assert [event async for event in sock.events()] == []


async def test_a_subscription_that_nobody_holds_is_forgotten() -> None:
    async with overlay(LINE[:1]) as (_, (sock,)):
        for _ in range(100):
            sock.events()
        assert len(sock._subscriptions) == 0


async def test_leaving_writes_out_what_is_queued() -> None:
    """Whoever leaves at once after sending has sent: the neighbors get all of it."""
    for transport in ("hand-over", "tcp", "tcp only"):
        bounds = {"socket.receive_buffer": 1 << 24, "socket.send_buffer": 1 << 24}
        async with overlay(LINE, TRANSPORTS[transport], bounds) as (_, (left, _, right)):
            await left.send_batch([number.to_bytes(4) + PAYLOAD for number in range(5000)])
            await left.leave()
            await _expect(right, 5000)


async def test_leaving_the_block_writes_out_what_is_queued() -> None:
    async with overlay(LINE[:1], TRANSPORTS["tcp"], {"socket.receive_buffer": 1 << 24}) as (
        host,
        (other,),
    ):
        async with open_overlay_socket(configure(buddy=other)) as sock:
            await sock.join()
            await until(host, lambda: other.neighbors == (sock.address,))
            await sock.send_batch([number.to_bytes(4) + PAYLOAD for number in range(5000)])
        with pytest.raises(trio.ClosedResourceError):
            await sock.send_to_all(b"x")
        await _expect(other, 5000)
        await until(host, lambda: other.neighbors == ())


@pytest.mark.parametrize("end", ["leave", "close"])
async def test_a_socket_that_leaves_unread_messages_does_not_stop_its_endpoint(end: str) -> None:
    """Others at the same endpoint share its connections. They never wait for its full buffer, and
    what is kept for it goes when it leaves.
    """
    shared = {"socket.local_handover": False, "socket.stall_timeout": 60.0}
    full = {**shared, "socket.receive_buffer": 2000}
    async with overlay(LINE[:1], TRANSPORTS["tcp"], shared) as (host, (sender,)):
        reader = await host.open_socket(configure(full, at("0,1000"), buddy=sender))
        other = await host.open_socket(configure(full, at("1000,0"), buddy=sender))
        assert reader._port is other._port
        await reader.join()
        await other.join()
        await until(host, lambda: len(sender.neighbors) == 2 and sender.stable)
        sending = [reader.address, other.address]
        while not reader._inbox.output.closed:
            await sender.send(sending[0], PAYLOAD)
        await sender.send(sending[1], b"behind it")
        with trio.fail_after(5):
            assert (await other.receive()).payload == b"behind it"
        if end == "leave":
            await reader.leave()
        else:
            reader.close()
        await sender.send(sending[1], b"after it")
        with trio.fail_after(5):
            assert (await other.receive()).payload == b"after it"
        await until(host, lambda: not _kept(other))


def _kept(sock: OverlaySocket) -> int:
    statistics = sock.statistics().tcp
    assert statistics is not None
    return statistics.kept


async def test_a_sender_that_waits_is_told_when_its_socket_leaves() -> None:
    bounds = {"socket.send_buffer": 1000, "socket.receive_buffer": 1000}
    async with overlay(LINE[:2], bounds) as (_, (left, _)), trio.open_nursery() as nursery:

        async def send() -> None:
            while True:
                await left.send_to_all(PAYLOAD)

        async def send_until_told() -> None:
            with pytest.raises(NotJoinedError):
                await send()

        for _ in range(3):
            nursery.start_soon(send_until_told)
        with trio.fail_after(5):
            while left._may_send(0):
                await trio.lowlevel.checkpoint()
        await wait_all_tasks_blocked()
        with trio.CancelScope() as scope:
            scope.cancel()
            await left.leave()


@pytest.mark.parametrize("end", ["socket", "host"])
async def test_whoever_waits_for_a_socket_that_is_closed_is_told_so(end: str) -> None:
    """And not to join again: whether the socket is closed or the host with all of its sockets."""
    bounds = {
        "socket.send_buffer": 1000,
        "socket.receive_buffer": 1000,
        "socket.stall_timeout": 0.1,
    }
    ended: list[str] = []
    async with overlay(LINE[:2], bounds) as (host, (left, _)), trio.open_nursery() as nursery:

        async def send() -> None:
            while True:
                await left.send_to_all(PAYLOAD)

        async def until_closed(call: Callable[[], Awaitable[object]], name: str) -> None:
            with pytest.raises(trio.ClosedResourceError):
                await call()
            ended.append(name)

        nursery.start_soon(until_closed, send, "send")
        nursery.start_soon(until_closed, lambda: left.measure(LogicalAddress((7, 7))), "measure")
        await until(host, lambda: not left._may_send(0))
        with trio.fail_after(PATIENCE):
            await (left.aclose() if end == "socket" else host.aclose())
    assert sorted(ended) == ["measure", "send"]


async def test_a_member_that_comes_back_does_not_wait_for_its_former_self() -> None:
    """What nobody took before it left holds back no message of its next stay."""
    bounds = {"socket.send_buffer": 1000, "socket.receive_buffer": 1000}
    async with overlay(LINE[:2], bounds) as (_, (_, sock)):
        with trio.fail_after(5):
            while sock._may_send(0):
                sock.send_to_all_nowait(PAYLOAD)
                await trio.lowlevel.checkpoint()
        with trio.CancelScope() as scope:
            scope.cancel()
            await sock.leave()
        await sock.join()
        sock.send_to_all_nowait(PAYLOAD)


async def test_payloads_that_are_none_are_refused_and_nothing_is_sent() -> None:
    released = memoryview(b"gone")
    released.release()
    async with overlay(("0,0", "9,9")) as (_, (left, right)):
        for wrong in (None, 5, "text", [b"sent", 5], [b"sent", released]):
            with pytest.raises(LocalProtocolError, match=r"payload|released"):
                await left.send_batch(wrong)  # type: ignore[arg-type]
        for one in (None, released):
            with pytest.raises(LocalProtocolError, match=r"payload|released"):
                await left.send_to_all(one)  # type: ignore[arg-type]
        await left.send_batch([b"first", bytearray(b"second")])
        assert [each.payload for each in await right.receive_batch()] == [b"first", b"second"]
