"""The life of an overlay socket, and every error that an application may meet in it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from opus_socket import (
    AddressInUseError,
    EventSubscription,
    JoinError,
    LocalProtocolError,
    LogicalAddress,
    NeighborAdded,
    NotJoinedError,
    OverlaySocket,
    Stable,
    open_host,
    open_overlay_socket,
)
from support import LINE, PATIENCE, TRANSPORTS, at, configure, overlay, until

SOMEWHERE = LogicalAddress((1, 2))
ALONE = configure()

Call = Callable[[OverlaySocket], Awaitable[object]]


def _at_once(call: Callable[[OverlaySocket], object]) -> Call:
    async def run(sock: OverlaySocket) -> object:
        return call(sock)

    return run


NEEDS_MEMBERSHIP: dict[str, Call] = {
    "send_to_all": lambda sock: sock.send_to_all(b"x"),
    "sendToAll": lambda sock: sock.sendToAll(b"x"),
    "send_batch": lambda sock: sock.send_batch([b"x"]),
    "send_to_all_nowait": _at_once(lambda sock: sock.send_to_all_nowait(b"x")),
    "send": lambda sock: sock.send(SOMEWHERE, b"x"),
    "send_flood": lambda sock: sock.send_flood(b"x"),
    "send_anycast": lambda sock: sock.send_anycast(SOMEWHERE, b"x"),
    "send_to_neighbors": lambda sock: sock.send_to_neighbors(b"x"),
    "send_to_parent": lambda sock: sock.send_to_parent(SOMEWHERE, b"x"),
    "send_to_children": lambda sock: sock.send_to_children(SOMEWHERE, b"x"),
    "wait_stable": lambda sock: sock.wait_stable(),
    "address": _at_once(lambda sock: sock.address),
    "contact": _at_once(lambda sock: sock.contact),
    "neighbors": _at_once(lambda sock: sock.neighbors),
    "parent": _at_once(lambda sock: sock.parent(SOMEWHERE)),
    "children": _at_once(lambda sock: sock.children(SOMEWHERE)),
    "set": _at_once(lambda sock: sock.set("alpha", 1.0)),
}
RECEIVES: dict[str, Call] = {
    "receive": lambda sock: sock.receive(),
    "receive_batch": lambda sock: sock.receive_batch(10),
}
NEEDS_AN_OPEN_SOCKET: dict[str, Call] = {
    **NEEDS_MEMBERSHIP,
    **RECEIVES,
    "join": lambda sock: sock.join(),
    "anext": lambda sock: anext(sock),
}


@pytest.mark.parametrize("call", NEEDS_MEMBERSHIP.values(), ids=list(NEEDS_MEMBERSHIP))
async def test_what_needs_membership_says_so(call: Call) -> None:
    """Before joining, while joining, and after leaving."""
    async with open_host() as host:
        sock = await host.open_socket(ALONE)
        with pytest.raises(NotJoinedError):
            await call(sock)
        joining = await host.open_socket(configure({"rendezvous.buddies": ["127.0.0.1:9"]}))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(joining.join)
            await wait_all_tasks_blocked()
            with pytest.raises(NotJoinedError):
                await call(joining)
            nursery.cancel_scope.cancel()
        await sock.join()
        await sock.leave()
        with pytest.raises(NotJoinedError):
            await call(sock)


@pytest.mark.parametrize("call", RECEIVES.values(), ids=list(RECEIVES))
async def test_receiving_before_joining_is_an_error(call: Call) -> None:
    async with open_overlay_socket(ALONE) as sock:
        with pytest.raises(NotJoinedError):
            await call(sock)


@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("call", NEEDS_AN_OPEN_SOCKET.values(), ids=list(NEEDS_AN_OPEN_SOCKET))
async def test_a_closed_socket_says_so(call: Call, joined: bool) -> None:
    async with open_overlay_socket(ALONE) as sock:
        if joined:
            await sock.join()
        await sock.aclose()
        with pytest.raises(trio.ClosedResourceError):
            await call(sock)
        await sock.aclose()
        sock.close()
        await sock.leave()


async def test_closing_ends_every_call_that_waits() -> None:
    async with overlay(LINE[:2]) as (_, (sock, _)):
        ended: list[str] = []

        async def wait(name: str, call: Call) -> None:
            with pytest.raises(trio.ClosedResourceError), trio.fail_after(PATIENCE):
                await call(sock)
            ended.append(name)

        async with trio.open_nursery() as nursery:
            for name, call in RECEIVES.items():
                nursery.start_soon(wait, name, call)
            nursery.start_soon(_read_to_the_end, sock.events(), ended)
            await wait_all_tasks_blocked()
            sock.close()
        assert sorted(ended) == ["events", "receive", "receive_batch"]


async def _read_to_the_end(events: EventSubscription, ended: list[str]) -> None:
    async for _ in events:
        pass
    ended.append("events")


async def test_join_returns_once_stable_and_a_lone_founder_is_at_once() -> None:
    async with open_overlay_socket(ALONE) as sock:
        events = sock.events()
        assert not sock.stable
        await sock.join()
        assert sock.stable
        assert sock.neighbors == ()
        assert await anext(events) == Stable(sock.address)
        await sock.wait_stable()


async def test_joining_twice_is_an_error_and_changes_nothing() -> None:
    async with open_host() as host:
        sock = await host.open_socket(ALONE)
        await sock.join()
        address = sock.address
        with pytest.raises(LocalProtocolError, match="join\\(\\) was called twice"):
            await sock.join()
        assert sock.address == address
        waiting = await host.open_socket(configure({"rendezvous.buddies": ["127.0.0.1:9"]}))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(waiting.join)
            await wait_all_tasks_blocked()
            with pytest.raises(LocalProtocolError):
                await waiting.join()
            nursery.cancel_scope.cancel()


async def test_a_cancelled_join_leaves_a_stopped_node_that_may_join_again() -> None:
    async with overlay(LINE[:1]) as (host, (founder,)):
        sock = await host.open_socket(configure(at(LINE[1]), buddy=founder))
        for _ in range(3):
            with trio.CancelScope() as scope:
                scope.cancel()
                await sock.join()
            assert scope.cancelled_caught
            with trio.CancelScope() as scope:
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(sock.join)
                    await trio.lowlevel.checkpoint()
                    nursery.cancel_scope.cancel()
            with pytest.raises(NotJoinedError):
                await sock.send_to_all(b"x")
        await sock.join()
        await until(host, lambda: founder.neighbors == (sock.address,))
        await founder.send_to_all(b"welcome")
        assert (await sock.receive()).payload == b"welcome"


@pytest.mark.parametrize("end", ["leave", "close"])
async def test_a_join_that_another_task_ends_does_not_wait_for_ever(end: str) -> None:
    async with open_host() as host:
        sock = await host.open_socket(configure({"rendezvous.buddies": ["127.0.0.1:9"]}))
        expected = NotJoinedError if end == "leave" else trio.ClosedResourceError
        async with trio.open_nursery() as nursery:

            async def join() -> None:
                with pytest.raises(expected), trio.fail_after(PATIENCE):
                    await sock.join()

            nursery.start_soon(join)
            await wait_all_tasks_blocked()
            if end == "leave":
                await sock.leave()
            else:
                sock.close()


async def test_leaving_ends_a_wait_for_stability() -> None:
    async with overlay(LINE[:1]) as (host, (sock,)):
        sock._check_joined().core.stable = False
        async with trio.open_nursery() as nursery:

            async def wait() -> None:
                with pytest.raises(NotJoinedError), trio.fail_after(PATIENCE):
                    await sock.wait_stable()

            nursery.start_soon(wait)
            await wait_all_tasks_blocked()
            await sock.leave()
    assert host.statistics().members == 0


async def test_other_key_attributes_are_named_with_both_values() -> None:
    async with overlay(LINE[:1], TRANSPORTS["tcp"]) as (host, (founder,)):
        other = {"node.delaunay.heartbeat": 0.5, "socket_adapter.maximum_packet_length": 1000}
        sock = await host.open_socket(configure(TRANSPORTS["tcp"], other, buddy=founder))
        with pytest.raises(JoinError) as caught:
            await sock.join()
        text = str(caught.value)
        assert "node.delaunay.heartbeat is '0.5' here and '0.25' there" in text
        assert "socket_adapter.maximum_packet_length is '1000' here and '16384' there" in text
        assert str(founder.contact.endpoints[0]) in text
        with pytest.raises(NotJoinedError) as raised:
            await sock.send_to_all(b"x")
        assert raised.value.__cause__ is caught.value
        assert founder.neighbors == ()


async def test_an_address_that_is_held_is_refused() -> None:
    async with overlay(LINE[:2]) as (host, (founder, holder)):
        sock = await host.open_socket(configure(at(LINE[1]), buddy=founder))
        with pytest.raises(AddressInUseError, match="1000,0"), trio.fail_after(PATIENCE):
            await sock.join()
        assert founder.neighbors == (holder.address,)


async def test_a_member_that_is_refused_later_has_left() -> None:
    """Two overlays that merge may hold one address twice: one of the two has to give way."""
    async with overlay(LINE[:2]) as (host, (sock, other)):
        await other.send_to_all(b"earlier")
        await until(host, lambda: sock.statistics().flows[0].taken == 1)
        member = sock._check_joined()
        error = AddressInUseError("held by another member")
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                assert [message.payload async for message in sock] == [b"earlier"]

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            member.aborted(error)
        with pytest.raises(NotJoinedError) as caught:
            await sock.send_to_all(b"x")
        assert caught.value.__cause__ is error
        await sock.join()
        assert sock.stable


async def test_after_leaving_queued_messages_remain_readable() -> None:
    async with overlay(LINE[:2]) as (host, (sock, other)):
        for number in range(5):
            await other.send_to_all(bytes((number,)))
        await until(host, lambda: sock.statistics().flows[0].taken == 5)
        await sock.leave()
        await until(host, lambda: other.neighbors == ())
        await other.send_to_all(b"too late")
        assert (await sock.receive()).payload == b"\0"
        assert len(await sock.receive_batch(2)) == 2
        assert [message.payload async for message in sock] == [b"\3", b"\4"]
        with pytest.raises(trio.EndOfChannel):
            await sock.receive()
        with pytest.raises(trio.EndOfChannel):
            await sock.receive_batch()


async def test_a_member_that_comes_back_has_a_higher_incarnation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Also when the clock is set back. To the others it is a new neighbor, at the same address."""
    clock = iter(range(2_000_000_000_000_000_000, 0, -10_000_000_000))
    monkeypatch.setattr("opus_socket.membership.time.time_ns", lambda: next(clock))
    async with overlay(LINE[:2]) as (host, (other, sock)):
        before = sock.contact
        await sock.leave()
        events = other.events()
        await sock.join()
        await until(host, lambda: other.neighbors == (sock.address,))
        after = sock.contact
        assert after.address == before.address
        assert after.incarnation > before.incarnation
        assert after.index != before.index
        event = await anext(events)
        while not isinstance(event, NeighborAdded):
            event = await anext(events)
        assert event.contact == after
        await sock.send_to_all(b"again")
        assert (await other.receive()).payload == b"again"
        await other.send_to_all(b"back")
        assert (await sock.receive()).payload == b"back"
