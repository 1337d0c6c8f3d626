"""Cancellation at every checkpoint of every public call: it has happened, or it has not.

A call is run again and again. The n-th time it is cancelled as soon as it has given way n times,
until it completes first. Each time the test says what must hold, whichever way it ended.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from itertools import count

import pytest
import trio
from attrs import define, field

from opus_socket import (
    NotJoinedError,
    OverlayHost,
    OverlayMessage,
    OverlaySocket,
    open_host,
    open_overlay_socket,
    pace,
)
from opus_socket.core.events import Unstable
from support import LINE, PATIENCE, TRANSPORTS, Resolver, at, configure, overlay, until

PAYLOAD = b"x" * 1000
MOST_STEPS = 60


@define(eq=False)
class CancelAfter(trio.abc.Instrument):
    """Cancels a scope when a task has given way so many times."""

    task: trio.lowlevel.Task
    scope: trio.CancelScope
    steps: int
    taken: int = field(default=0, init=False)

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            self.taken += 1
            if self.taken == self.steps:
                self.scope.cancel()


async def completes(steps: int, call: Callable[[], Awaitable[object]]) -> bool:
    """Run a call that is cancelled after so many steps; whether it completed before."""
    with trio.CancelScope() as scope:
        watch = CancelAfter(trio.lowlevel.current_task(), scope, steps)
        if steps == 0:
            scope.cancel()
        trio.lowlevel.add_instrument(watch)
        try:
            await call()
        finally:
            trio.lowlevel.remove_instrument(watch)
    return not scope.cancelled_caught


async def sweep(
    call: Callable[[], Awaitable[object]],
    after: Callable[[bool], Awaitable[object]] | None = None,
) -> int:
    """Run a call with a cancellation at each of its steps, until it completes.

    Args:
        call: the call.
        after: what is done each time when it has ended, told whether it completed.

    Returns:
        At how many steps it was cancelled.
    """
    for steps in count():
        assert steps < MOST_STEPS, "the call never completes"
        with trio.fail_after(PATIENCE):
            done = await completes(steps, call)
            if after is not None:
                await after(done)
        if done:
            return steps
    raise AssertionError("unreachable")


@pytest.fixture(autouse=True)
def _always_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every call takes the checkpoint that it may take."""
    monkeypatch.setattr(pace, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)


def test_the_harness_cancels_at_each_step() -> None:
    seen: list[int] = []

    async def call() -> None:
        seen.append(0)
        for _ in range(3):
            await trio.lowlevel.checkpoint()
            seen[-1] += 1

    assert trio.run(sweep, call) == 4
    assert seen == [0, 0, 1, 2, 3]


SENDS: dict[str, Callable[[OverlaySocket, OverlaySocket, bytes], Awaitable[object]]] = {
    "send_to_all": lambda a, b, payload: a.send_to_all(payload),
    "send_batch": lambda a, b, payload: a.send_batch([payload, payload]),
    "send": lambda a, b, payload: a.send(b.address, payload),
    "send_flood": lambda a, b, payload: a.send_flood(payload),
    "send_anycast": lambda a, b, payload: a.send_anycast(b.address, payload),
    "send_to_neighbors": lambda a, b, payload: a.send_to_neighbors(payload),
    "send_to_parent": lambda a, b, payload: a.send_to_parent(b.address, payload),
    "send_to_children": lambda a, b, payload: a.send_to_children(a.address, payload),
}


@pytest.mark.parametrize("transport", ["hand-over", "tcp"])
@pytest.mark.parametrize("call", SENDS.values(), ids=list(SENDS))
async def test_a_cancelled_send_was_not_taken(
    call: Callable[[OverlaySocket, OverlaySocket, bytes], Awaitable[object]], transport: str
) -> None:
    """What arrives is what was sent by calls that completed, once each."""
    async with overlay(LINE[:2], TRANSPORTS[transport]) as (_, (a, b)):
        completed: list[bytes] = []
        number = 0

        async def send() -> None:
            nonlocal number
            number += 1
            await call(a, b, number.to_bytes(2))

            completed.append(number.to_bytes(2))

        assert await sweep(send) == 2
        await a.send_to_all(b"end")
        assert await _read_to(b, b"end") == completed * (2 if call is SENDS["send_batch"] else 1)


async def _read_to(sock: OverlaySocket, end: bytes) -> list[bytes]:
    payloads = []
    with trio.fail_after(5):
        async for message in sock:
            if message.payload == end:
                break
            payloads.append(message.payload)
    return payloads


@pytest.mark.parametrize("transport", ["hand-over", "tcp"])
async def test_a_cancelled_send_that_waits_was_not_taken(transport: str) -> None:
    """Also where it waits for a neighbor that takes nothing, and goes on when it does."""
    bounds = {"socket.send_buffer": 4000, "socket.receive_buffer": 4000}
    async with overlay(LINE[:2], TRANSPORTS[transport], bounds) as (_, (a, b)):
        completed: list[bytes] = []
        received: list[OverlayMessage] = []
        number = waited = 0

        async def fill() -> None:
            nonlocal number
            while a._may_send(0):
                number += 1
                a.send_to_all_nowait(number.to_bytes(4) + PAYLOAD)
                completed.append(number.to_bytes(4))
                await trio.lowlevel.checkpoint()

        async def send_while_the_other_reads() -> None:
            nonlocal number
            number += 1
            async with trio.open_nursery() as nursery:

                async def read() -> None:
                    for _ in range(3):
                        await trio.lowlevel.checkpoint()
                    while not a._may_send(0):
                        received.extend(await b.receive_batch())

                nursery.start_soon(read)
                await a.send_batch([number.to_bytes(4) + PAYLOAD] * 3)
                completed.extend([number.to_bytes(4)] * 3)

        async def fill_again(done: bool) -> None:
            nonlocal waited
            waited += not a._may_send(0)
            await fill()

        await fill()
        await sweep(send_while_the_other_reads, fill_again)
        assert waited > 2
        payloads = [message.payload[:4] for message in received]
        with trio.fail_after(5):
            while len(payloads) < len(completed):
                payloads += [message.payload[:4] for message in await b.receive_batch()]
        assert payloads == completed


@pytest.mark.parametrize("maximum", [None, 1, 100])
@pytest.mark.parametrize("early", [False, True])
async def test_a_cancelled_receive_takes_nothing(maximum: int | None, early: bool) -> None:
    """Whether the message is there before or comes while it waits."""
    async with overlay(LINE[:2]) as (host, (a, b)):
        sent: list[bytes] = []
        received: list[bytes] = []

        async def receive() -> None:
            sent.append(len(sent).to_bytes(2))
            a.send_to_all_nowait(sent[-1])
            if early:
                taken = len(b._inbox)
                await until(host, lambda: len(b._inbox) > taken)
            if maximum is None:
                received.append((await b.receive()).payload)
            else:
                received.extend(message.payload for message in await b.receive_batch(maximum))

        await sweep(receive)
        while len(received) < len(sent):
            received.append((await b.receive()).payload)
        assert received == sent


async def test_a_cancelled_iteration_of_events_takes_none() -> None:
    async with overlay(LINE[:1]) as (_, (sock,)):
        events = sock.events()
        sent: list[Unstable] = []
        received: list[object] = []

        async def read() -> None:
            async with trio.open_nursery() as nursery:

                async def publish() -> None:
                    await trio.lowlevel.checkpoint()
                    sent.append(Unstable(sock.address))
                    sock._publish(sent[-1])

                nursery.start_soon(publish)
                received.append(await anext(events))

        await sweep(read)
        sock.close()
        received += [event async for event in events]
        assert received == sent


@pytest.mark.parametrize("transport", ["hand-over", "tcp"])
async def test_a_cancelled_join_leaves_a_stopped_node(transport: str) -> None:
    async with overlay(LINE[:1], TRANSPORTS[transport]) as (host, (founder,)):
        sock = await host.open_socket(configure(TRANSPORTS[transport], at(LINE[1]), buddy=founder))

        async def is_stopped(done: bool) -> None:
            if not done:
                with pytest.raises(NotJoinedError):
                    await sock.send_to_all(b"x")

        await sweep(sock.join, is_stopped)
        await until(host, lambda: founder.neighbors == (sock.address,))
        await sock.send_to_all(b"joined")
        assert (await founder.receive()).payload == b"joined"
        await until(host, lambda: host.statistics().members == 2)


@pytest.mark.parametrize("transport", ["hand-over", "tcp"])
@pytest.mark.parametrize("end", ["leave", "aclose"])
async def test_a_cancelled_leave_has_left(end: str, transport: str) -> None:
    """With or without something queued: it leaves at once, and the others see it go."""
    bounds = {
        "socket.receive_buffer": 4000,
        "socket.send_buffer": 4000,
        "socket.stall_timeout": 0.1,
    }
    async with overlay(LINE[:1], TRANSPORTS[transport], bounds) as (host, (other,)):
        config = configure(TRANSPORTS[transport], bounds, at(LINE[1]), buddy=other)
        sock = await host.open_socket(config)

        async def join_and_fill() -> None:
            """Be a member whose last messages nobody has taken."""
            await sock.join()
            await until(host, lambda: other.neighbors == (sock.address,))
            while sock._may_send(0):
                while other._inbox.output.stalled:
                    await other.receive_batch()
                sock.send_to_all_nowait(PAYLOAD)
                await trio.lowlevel.checkpoint()

        async def has_left(done: bool) -> None:
            nonlocal sock
            with pytest.raises(NotJoinedError if end == "leave" else trio.ClosedResourceError):
                await sock.send_to_all(b"x")
            while other.neighbors:
                await host._host.wait_turn()
                while len(other._inbox):
                    await other.receive_batch()
            if end == "aclose":
                sock = await host.open_socket(config)
            await join_and_fill()

        await join_and_fill()
        assert await sweep(lambda: sock.leave() if end == "leave" else sock.aclose(), has_left) > 1


async def test_a_cancelled_wait_for_stability_changes_nothing() -> None:
    async with overlay(LINE[:2]) as (_, (sock, _)):
        core = sock._check_joined().core

        async def wait() -> None:
            core.stable = False
            async with trio.open_nursery() as nursery:

                async def settle() -> None:
                    await trio.lowlevel.checkpoint()
                    core.stable = True
                    sock._publish(Unstable(sock.address))
                    sock._news.unpark_all()

                nursery.start_soon(settle)
                await sock.wait_stable()

        await sweep(wait)
        await sock.wait_stable()


@pytest.mark.parametrize("transport", ["hand-over", "tcp"])
async def test_a_cancelled_end_of_a_host_has_ended_it(transport: str) -> None:
    """Wherever it is cancelled, every socket is closed and nothing stays open."""
    before = len(os.listdir("/dev/fd"))
    for steps in count():
        assert steps < MOST_STEPS
        with trio.fail_after(PATIENCE):
            async with overlay(LINE[:2], TRANSPORTS[transport]) as (host, (a, b)):
                await a.send_batch([PAYLOAD] * 50)
                done = await completes(steps, host.aclose)
                for sock in (a, b):
                    with pytest.raises(trio.ClosedResourceError):
                        await sock.receive()
        assert len(os.listdir("/dev/fd")) == before
        if done:
            break
    assert steps > 0


@pytest.mark.parametrize("transport", list(TRANSPORTS))
async def test_a_cancelled_opening_leaves_nothing_open(transport: str) -> None:
    """Neither of a socket nor of its host."""
    trio.socket.set_custom_hostname_resolver(Resolver())
    advertise = {"node_adapter.advertise": ["here.example:4000", "127.0.0.1:4001"]}
    settings = {**TRANSPORTS[transport], **(advertise if transport == "tcp" else {})}
    before = len(os.listdir("/dev/fd"))
    sockets: list[OverlaySocket] = []

    async def open_one(host: OverlayHost) -> None:
        sockets.append(await host.open_socket(configure(settings)))

    async with open_host() as host:
        opened = len(os.listdir("/dev/fd"))

        async def nothing_is_open(done: bool) -> None:
            assert done or len(os.listdir("/dev/fd")) == opened

        await sweep(lambda: open_one(host), nothing_is_open)
        await sockets[0].join()
    assert len(os.listdir("/dev/fd")) == before


@pytest.mark.parametrize("transport", ["hand-over", "tcp"])
async def test_a_cancelled_block_leaves_nothing_open_and_nobody_behind(transport: str) -> None:
    """From entering it to having left it, wherever the cancellation comes."""
    async with overlay(LINE[:1], TRANSPORTS[transport]) as (host, (other,)):
        config = configure(TRANSPORTS[transport], at(LINE[1]), buddy=other)
        before = len(os.listdir("/dev/fd"))
        sent = 0

        async def live() -> None:
            nonlocal sent
            async with open_overlay_socket(config) as sock:
                await sock.join()
                await sock.send_to_all(b"x")
                sent += 1

        async def nobody_is_left(done: bool) -> None:
            await until(host, lambda: other.neighbors == ())

        assert await sweep(live, nobody_is_left) > 5
        assert sent >= 1
        await other.aclose()
        # The other end of a connection may still be known here.
        await until(host, lambda: len(os.listdir("/dev/fd")) <= before)
