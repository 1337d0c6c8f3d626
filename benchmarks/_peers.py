"""The peers that workloads are measured beside: other systems that carry messages.

Its one rule: a peer is measured as its makers mean it to be used, without loss; what it does less
than an overlay socket does, or more, its note says. A peer that is not installed, or that fails, is
skipped with the reason: that is no failure of ours. `pip install 'opus-socket[peers]'` and `make
peers` install what PyPI has, `apt install nats-server iperf3` the rest.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, AsyncExitStack, asynccontextmanager
from enum import StrEnum

import trio
from _common import MeasurementError, Side, ungrouped
from _peer import Group, Module, Receiver, Sender, load
from _programs import open_apart, open_together
from _remote import Elsewhere, open_program
from _tools import MissingError, open_iperf
from attrs import frozen

STARTUP = 120.0
PROBE_EVERY = 0.05
INSTALL = "pip install 'opus-socket[peers]'"


class Shape(StrEnum):
    """How a peer's sender and receivers are laid out.

    Attributes:
        NEAR: in one process.
        FAR: the sender in one process, the receivers in another.
        CHAIN: in one process, each passing on to the next; the last receives.
        CHAIN_EVERYWHERE: the same, and each receives.
        CHAIN_APART, CHAIN_APART_EVERYWHERE: half of them in a second process.
    """

    NEAR = "near"
    FAR = "far"
    CHAIN = "chain"
    CHAIN_EVERYWHERE = "chain everywhere"
    CHAIN_APART = "chain apart"
    CHAIN_APART_EVERYWHERE = "chain apart everywhere"


@frozen
class Peer:
    """One peer.

    Attributes:
        name: the system's.
        module: of these benchmarks; empty where it is a program of its own.
        shapes: in which it can be measured.
        note: what the reader must know to compare fairly.
        most: receivers that it is asked to have.
    """

    name: str
    module: str
    shapes: Sequence[Shape]
    note: str
    most: int = 1000


@frozen
class Opened:
    """A peer that can be measured now."""

    name: str
    note: str
    side: Side


_BOTH = (Shape.NEAR, Shape.FAR)
_ALL = tuple(Shape)
_THREADS = "its threads work beside Python's"
PEERS = (
    Peer(
        "ZeroMQ",
        "_zeromq",
        _ALL,
        "PUSH/PULL, to many XPUB/SUB that waits instead of dropping; a star without relays (a chain"
        f" has a thread a relay); {_THREADS}",
    ),
    Peer(
        "Zenoh",
        "_zenoh",
        _ALL,
        "TCP, without shared memory; reliable, waits when congested; a star without relays (a chain"
        f" has routers); {_THREADS}",
    ),
    Peer(
        "Zenoh shared memory",
        "_zenoh_shared",
        (Shape.FAR,),
        f"messages of 3 KiB and more do not pass through the network; no relays; {_THREADS}",
        most=1,
    ),
    Peer("NATS", "", _BOTH, "through a broker, which is a process of its own; no acknowledgement"),
    Peer(
        "py-libp2p",
        "",
        _BOTH,
        "gossipsub in plain text without signatures; a message reaches a member several times;"
        " 24 messages under way, or its queues would drop",
        most=32,
    ),
)
_REASONS = (ImportError, MissingError, MeasurementError, TimeoutError)
IPERF = "one connection and writes of a message's size; nobody gets messages"


@frozen
class Near:
    """A peer whose receivers are in this process: a thread of it does the work."""

    group: Group

    async def measure(self, batches: Sequence[Sequence[bytes]]) -> float:
        """Seconds until every receiver has got all messages."""
        started = time.monotonic()
        await _in_thread(self.group.exchange, batches)
        return time.monotonic() - started


@frozen
class Far:
    """A peer whose receivers are in another process.

    Attributes:
        sender: is here.
        receivers: the other process.
    """

    sender: Sender
    receivers: Elsewhere

    async def measure(self, batches: Sequence[Sequence[bytes]]) -> float:
        """Seconds until every receiver has got all messages."""
        await self.receivers.writer.write([sum(map(len, batches)), len(batches[0][0])])
        started = time.monotonic()
        await _in_thread(self.sender.send_all, batches)
        finished = await self.receivers.answer()
        assert isinstance(finished, float)
        return finished - started


@frozen
class Chain:
    """A chain in one process: its ends have a thread each.

    Attributes:
        sender: is its first node.
        receiver: the nodes behind it.
    """

    sender: Sender
    receiver: Receiver

    async def measure(self, batches: Sequence[Sequence[bytes]]) -> float:
        """Seconds until every receiver has got all messages."""
        started = time.monotonic()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_in_thread, self.sender.send_all, batches)
            await _in_thread(lambda _: self.receiver.receive(sum(map(len, batches))), batches)
        return time.monotonic() - started


async def _in_thread(
    work: Callable[[Sequence[Sequence[bytes]]], None], batches: Sequence[Sequence[bytes]]
) -> None:
    try:
        await trio.to_thread.run_sync(work, batches)
    except TimeoutError as error:
        raise MeasurementError(str(error)) from error


@asynccontextmanager
async def open_peers(
    shape: Shape, receivers: int, skip: Callable[[str, str], None]
) -> AsyncIterator[list[Opened]]:
    """Every peer that can be laid out so and is installed, and iperf3 beside a pair of processes.

    Args:
        shape: how they are laid out.
        receivers: how many there are; nodes of a chain but the sender.
        skip: told the name of a peer that cannot be measured, and why.
    """
    async with AsyncExitStack() as stack:
        opened: list[Opened] = []
        for peer in PEERS:
            if shape not in peer.shapes or (peer.most == 1 and receivers > 1):
                continue
            if receivers > peer.most:
                skip(f"{peer.name} with {receivers} receivers", f"it is asked for {peer.most}")
                continue
            side = await try_open(stack, peer, shape, receivers, skip)
            if side is not None:
                opened.append(Opened(peer.name, peer.note, side))
        if shape is Shape.FAR and receivers == 1:
            try:
                iperf = await stack.enter_async_context(open_iperf())
            except MissingError as error:
                skip("iperf3", str(error))
            else:
                opened.append(Opened("iperf3", IPERF, iperf))
        yield opened


async def try_open(
    stack: AsyncExitStack,
    peer: Peer,
    shape: Shape,
    receivers: int,
    skip: Callable[[str, str], None],
) -> Side | None:
    """Open a peer in a stack; None when it is skipped."""
    try:
        with ungrouped(*_REASONS):
            return await stack.enter_async_context(_open(peer, shape, receivers))
    except ImportError as error:
        skip(peer.name, f"{error}: {INSTALL}")
    except MissingError as error:
        skip(peer.name, str(error))
    except _REASONS as error:
        skip(f"{peer.name} with {receivers} receivers", str(error))
    return None


@asynccontextmanager
async def _open(peer: Peer, shape: Shape, receivers: int) -> AsyncIterator[Side]:
    match peer.module, shape:
        case "", Shape.FAR:
            async with open_apart(peer.name, receivers) as apart:
                yield apart
        case "", _:
            async with open_together(peer.name, receivers) as together:
                yield together
        case module, Shape.FAR:
            sender = load(module).open_sender(receivers)
            async with _open_far(module, sender, {"receivers": receivers}) as far:
                yield far
        case module, Shape.NEAR:
            async with _in_threads(load(module).open_group(receivers)) as group:
                yield Near(group)
        case module, Shape.CHAIN | Shape.CHAIN_EVERYWHERE:
            everywhere = shape is Shape.CHAIN_EVERYWHERE
            async with _open_chain(load(module), receivers, everywhere) as chain:
                yield chain
        case module, _:
            everywhere = shape is Shape.CHAIN_APART_EVERYWHERE
            here = (receivers + 2) // 2
            sender = load(module).open_head(here, everywhere)
            rest = {"nodes": receivers + 1 - here, "everywhere": everywhere}
            async with _open_far(module, sender, rest) as far:
                yield far


@asynccontextmanager
async def _open_chain(module: Module, links: int, everywhere: bool) -> AsyncIterator[Chain]:
    """A chain of which only the ends are known here."""
    with module.open_head(1, everywhere) as sender:
        tail = module.open_tail(sender.endpoint, links, everywhere)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_probe, sender)
            receiver = await trio.to_thread.run_sync(tail.__enter__)
            nursery.cancel_scope.cancel()
        try:
            await trio.to_thread.run_sync(sender.wait_ready)
            yield Chain(sender, receiver)
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(tail.__exit__, None, None, None)


@asynccontextmanager
async def _in_threads(manager: AbstractContextManager[Group]) -> AsyncIterator[Group]:
    """A block whose ends may take a while."""
    group = await trio.to_thread.run_sync(manager.__enter__)
    try:
        yield group
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(manager.__exit__, None, None, None)


@asynccontextmanager
async def _open_far(
    module: str, opened: AbstractContextManager[Sender], rest: Mapping[str, object]
) -> AsyncIterator[Far]:
    """A sender here, its receivers in another process, which is told the rest."""
    with opened as sender:
        task = {"peer": module, "endpoint": sender.endpoint, **rest}
        async with open_program("_receiver.py", task) as streams:
            below = Elsewhere(*streams)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(_probe, sender)
                with trio.move_on_after(STARTUP) as patience:
                    await below.answer()
                nursery.cancel_scope.cancel()
            if patience.cancelled_caught:
                raise MeasurementError(f"they were not ready after {STARTUP:g} s")
            await trio.to_thread.run_sync(sender.wait_ready)
            yield Far(sender, below)


async def _probe(sender: Sender) -> None:
    while True:
        await trio.to_thread.run_sync(sender.probe)
        await trio.sleep(PROBE_EVERY)
