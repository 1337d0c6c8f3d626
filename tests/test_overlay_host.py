"""The blocks in which overlay sockets live: what leaves them, and what they leave behind."""

from __future__ import annotations

import gc
import os

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from opus_socket import (
    ConfigurationError,
    NotJoinedError,
    OverlayError,
    OverlayHost,
    OverlaySocket,
    open_host,
    open_overlay_socket,
)
from opus_socket.driver import Host
from support import LINE, TRANSPORTS, Resolver, at, configure, overlay, until


class OurError(Exception):
    """What an application raises."""


def descriptors() -> int:
    return len(os.listdir("/dev/fd"))


@pytest.mark.parametrize("joined", [False, True])
async def test_the_bodys_exception_leaves_the_block_as_it_is(joined: bool) -> None:
    error = OurError("ours")
    sockets = []

    async def live() -> None:
        async with open_overlay_socket(configure()) as sock:
            sockets.append(sock)
            if joined:
                await sock.join()
            raise error

    with pytest.raises(OurError) as caught:
        await live()
    assert caught.value is error
    (sock,) = sockets
    with pytest.raises(trio.ClosedResourceError):
        await sock.receive()


async def test_a_group_of_the_bodys_nursery_is_not_wrapped_again() -> None:
    async def fail() -> None:
        raise OurError

    async def live() -> None:
        async with open_host(), trio.open_nursery() as nursery:
            nursery.start_soon(fail)

    with pytest.raises(ExceptionGroup) as caught:
        await live()
    assert [type(error) for error in caught.value.exceptions] == [OurError]


async def test_an_error_while_opening_leaves_the_block_as_it_is() -> None:
    before = descriptors()
    with pytest.raises(ConfigurationError):
        async with open_overlay_socket(configure({"node_adapter.listen": "192.0.2.77:0"})):
            raise AssertionError("never entered")
    assert descriptors() == before


async def test_a_cancellation_from_outside_is_no_error() -> None:
    """The block says goodbye and ends; what was cancelled is what the outer scope cancelled."""
    async with overlay(LINE[:1]) as (host, (other,)):
        with trio.CancelScope() as scope:
            async with open_overlay_socket(configure(buddy=other)) as sock:
                await sock.join()
                await until(host, lambda: len(other.neighbors) == 1)
                scope.cancel()
                await sock.receive()
        assert scope.cancelled_caught
        await until(host, lambda: other.neighbors == ())


async def test_an_exception_under_a_cancelled_scope_is_not_lost() -> None:
    async def live(scope: trio.CancelScope) -> None:
        async with open_overlay_socket(configure()) as sock:
            await sock.join()
            scope.cancel()
            raise OurError

    with trio.CancelScope() as scope, pytest.raises(OurError):
        await live(scope)
    assert not scope.cancelled_caught


async def test_a_timeout_around_the_block_ends_it() -> None:
    with trio.move_on_after(0.05) as scope:
        async with open_overlay_socket(configure()) as sock:
            await sock.join()
            async for _ in sock:
                pass
    assert scope.cancelled_caught


async def test_a_crash_of_the_background_is_raised_from_its_cause() -> None:
    """It ends the body, and the socket is closed."""
    cause = ZeroDivisionError("a bug")

    def crash() -> None:
        raise cause

    sockets = []

    async def live() -> None:
        async with open_host() as host:
            sock = await host.open_socket(configure())
            sockets.append(sock)
            await sock.join()
            host._host.call_at(trio.current_time(), crash)
            with trio.fail_after(5):
                await sock.receive()

    with pytest.raises(OverlayError, match="ZeroDivisionError") as caught:
        await live()
    assert caught.value.__cause__ is cause
    (sock,) = sockets
    with pytest.raises(trio.ClosedResourceError):
        await sock.send_to_all(b"x")


async def test_a_crash_that_happens_again_while_closing_is_still_told() -> None:
    async def open_and_crash() -> None:
        async with open_host() as host:
            sock = await host.open_socket(configure())
            await sock.join()
            core = sock._check_joined().core

            def crash(now: float = 0.0) -> None:
                raise ZeroDivisionError("a bug")

            core.node.leave = crash  # type: ignore[assignment,method-assign]
            host._host.call_at(trio.current_time(), crash)
            await sock.receive()

    with pytest.raises(OverlayError, match="a bug") as caught:
        await open_and_crash()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


@pytest.mark.parametrize("transport", list(TRANSPORTS))
async def test_nothing_is_left_open(transport: str) -> None:
    """No descriptor stays, whether sockets left, were closed, or never joined."""
    gc.collect()
    before = descriptors()
    async with overlay(LINE, TRANSPORTS[transport]) as (host, sockets):
        for sock in sockets:
            await sock.send_to_all(b"x" * 5_000)
        await host.open_socket(configure(TRANSPORTS[transport]))
        await sockets[0].leave()
        await sockets[1].aclose()
    assert descriptors() == before


async def test_a_host_may_be_closed_early_and_twice() -> None:
    async with open_host() as host:
        sock = await host.open_socket(configure())
        await sock.join()
        await host.aclose()
        await host.aclose()
        host.close()
        with pytest.raises(trio.ClosedResourceError):
            await host.open_socket(configure())
        with pytest.raises(trio.ClosedResourceError):
            await sock.receive()


async def test_a_host_that_is_closed_by_one_task_ends_what_others_wait_for() -> None:
    async with open_host() as host:
        sock = await host.open_socket(configure())
        await sock.join()
        async with trio.open_nursery() as nursery:

            async def receive() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await sock.receive()

            nursery.start_soon(receive)
            await wait_all_tasks_blocked()
            host.close()


@pytest.mark.parametrize(
    "waits_for",
    [
        {"rendezvous.buddies": ["slow.example:9"]},
        {"node_adapter.listen": "slow.example:0"},
        {"node_adapter.advertise": ["slow.example:9"]},
        {"node_adapter.listen": "slow.example:0", "rendezvous.multicast": "239.1.2.3:2424"},
    ],
    ids=["buddies", "listen", "advertise", "group"],
)
async def test_a_host_that_is_closed_while_a_socket_opens_opens_nothing(
    waits_for: dict[str, object],
) -> None:
    """Whatever the opening waits for, also when the block has ended by then."""
    names = Resolver()
    trio.socket.set_custom_hostname_resolver(names)
    before = descriptors()
    async with trio.open_nursery() as nursery:
        async with open_host() as host:

            async def open_too_late() -> None:
                with pytest.raises(trio.ClosedResourceError):
                    await host.open_socket(configure(waits_for))

            nursery.start_soon(open_too_late)
            await names.asked.wait()
        names.answer.set()
    assert descriptors() == before


async def test_sockets_that_meet_alike_share_their_ports() -> None:
    async with open_host() as host:
        first, second = [await host.open_socket(configure()) for _ in range(2)]
        apart = await host.open_socket(configure({"node_adapter.socket_per_node": True}))
        for sock in (first, second, apart):
            await sock.join()
        assert first.contact.endpoints == second.contact.endpoints
        assert first.contact.index != second.contact.index
        assert apart.contact.endpoints != first.contact.endpoints
        assert len(host.statistics().udp) == 2
        await apart.aclose()
        assert len(host.statistics().udp) == 1


async def _join_and_close(host: OverlayHost) -> None:
    sock = await host.open_socket(configure())
    await sock.join()
    await sock.aclose()


async def test_sockets_that_are_closed_are_forgotten() -> None:
    """A host that lives long does not remember every socket that it ever had."""
    async with open_host() as host:
        for _ in range(50):
            await _join_and_close(host)
        await until(host, lambda: host.statistics().members == 0)
        gc.collect()
        assert len(host._sockets) == 0


async def test_two_hundred_members_share_one_udp_socket_and_one_listener() -> None:
    async with open_host() as host:
        sockets: list[OverlaySocket] = []

        async def join(sock: OverlaySocket) -> None:
            await sock.join()
            sockets.append(sock)

        settings = {"socket.local_handover": False, "node.delaunay.heartbeat": 1.0}
        first = await host.open_socket(configure(settings))
        with trio.fail_after(60):
            await join(first)
            for _ in range(10):
                async with trio.open_nursery() as nursery:
                    for _ in range(20):
                        sock = await host.open_socket(configure(settings, buddy=first))
                        nursery.start_soon(join, sock)
            for sock in sockets:
                await sock.wait_stable()
            statistics = host.statistics()
            assert (len(statistics.udp), len(statistics.tcp)) == (2, 2)
            assert statistics.members == 201
            await sockets[7].send_to_all(b"everybody")
            for sock in sockets[:7] + sockets[8:]:
                assert (await sock.receive()).payload == b"everybody"
            for index in (3, 80, 150):
                await sockets[index].send(sockets[-1].address, b"one")
                assert (await sockets[-1].receive()).payload == b"one"


async def test_a_late_host_does_not_tear_neighbors_apart() -> None:
    """A loop that stood still for several heartbeats forgives the silence that it did not hear."""
    async with overlay([f"{x},{x * x}" for x in range(0, 120, 10)]) as (host, sockets):
        before = [sock.neighbors for sock in sockets]
        statistics = [sock.statistics().core for sock in sockets]
        stop = trio.current_time() + 1.2
        while trio.current_time() < stop:
            pass
        last = host.statistics().turns + 40
        await until(host, lambda: host.statistics().turns > last)
        assert [sock.neighbors for sock in sockets] == before
        assert all(sock.stable for sock in sockets)
        for sock, old in zip(sockets, statistics, strict=True):
            new = sock.statistics().core
            assert new is not None
            assert old is not None
            assert new.node.failed == old.node.failed == 0  # type: ignore[attr-defined]


async def test_members_of_two_hosts_see_each_other_come_and_go() -> None:
    async with overlay(LINE[:1]) as (host, (here,)):
        async with open_overlay_socket(configure(at(LINE[1]), buddy=here)) as there:
            await there.join()
            await until(host, lambda: here.neighbors == (there.address,))
            await here.send_to_all(b"hello")
            assert (await there.receive()).payload == b"hello"
            with pytest.raises(NotJoinedError):
                await (await host.open_socket(configure())).send_to_all(b"x")
        await until(host, lambda: here.neighbors == ())


async def test_a_host_without_anything_to_do_sleeps() -> None:
    """Turns are taken for packets and deadlines, not for their own sake."""
    async with overlay(LINE) as (host, _):
        before = host.statistics().turns
        with trio.move_on_after(0.3):
            await trio.sleep_forever()
        assert host.statistics().turns - before < 50
    assert isinstance(host, OverlayHost)
    assert isinstance(host._host, Host)


@pytest.mark.parametrize("config", ["lab", None, {"overlay_id": "lab"}])
async def test_only_a_configuration_opens_a_socket(config: object) -> None:
    async with open_host() as host:
        with pytest.raises(ConfigurationError, match="is no OverlayConfig; make one by"):
            await host.open_socket(config)  # type: ignore[arg-type]
