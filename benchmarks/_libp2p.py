"""py-libp2p's gossipsub as a peer: a program for a virtual environment of its own.

Its one rule: it imports nothing of the benchmarks, and is told what to do as `_programs.py` says.
Its settings are the fastest that lose nothing: plain text and no signatures, as with the other
systems here; no limit of messages a second; and, because a queue that is full throws away without
a word, no more messages under way than its queues hold.
"""

from __future__ import annotations

import json
import logging
import os
import random
import socket
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack

import trio
from libp2p import new_host
from libp2p.abc import ISubscriptionAPI
from libp2p.crypto.secp256k1 import create_new_key_pair
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.gossipsub import PROTOCOL_ID_V11, GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.security.insecure.transport import PLAINTEXT_PROTOCOL_ID, InsecureTransport
from libp2p.tools.anyio_service import background_trio_service
from multiaddr import Multiaddr

TOPIC = "opus/benchmark"
WINDOW = 24
STAR = 8
DEGREE = 6
CONNECTIONS = 4
PROBE_EVERY = 0.2
STARTUP = 120.0


class Window:
    """How many messages may be under way: those that not every receiver has got yet."""

    def __init__(self) -> None:
        self._room = trio.Semaphore(WINDOW)

    async def take(self) -> None:
        """A message goes out."""
        await self._room.acquire()

    def give(self, count: int) -> None:
        """So many arrived everywhere."""
        for _ in range(count):
            self._room.release()


class Receivers:
    """Counts what each of some hosts receives.

    Args:
        count: how many hosts.
        arrived: called with how many more messages have come to all.
    """

    def __init__(self, count: int, arrived: Callable[[int], None]) -> None:
        self._count = count
        self._arrived = arrived
        self._missing: dict[bytes, int] = {}
        self._heard: set[int] = set()
        self._done = self._goal = 0
        self._reached = trio.Event()
        self.all_heard = trio.Event()

    async def listen(self, number: int, subscription: ISubscriptionAPI) -> None:
        """Receive for ever."""
        while True:
            message = await subscription.get()
            if not message.data:
                self._heard.add(number)
                if len(self._heard) == self._count:
                    self.all_heard.set()
                continue
            left = self._missing.get(message.seqno, self._count) - 1
            self._missing[message.seqno] = left
            if not left:
                del self._missing[message.seqno]
                self._done += 1
                self._arrived(1)
                if self._done == self._goal:
                    self._reached.set()

    def expect(self, count: int) -> None:
        """So many more messages are to come to each."""
        self._goal += count
        self._reached = trio.Event()
        if self._done >= self._goal:
            self._reached.set()

    async def wait(self) -> float:
        """The clock's reading when all had come."""
        await self._reached.wait()
        return time.monotonic()


class Node:
    """A host with gossipsub, that listens."""

    def __init__(self, degree: int) -> None:
        keys = create_new_key_pair()
        self.host = new_host(
            key_pair=keys, sec_opt={PLAINTEXT_PROTOCOL_ID: InsecureTransport(keys)}
        )
        router = GossipSub(
            [PROTOCOL_ID_V11],
            degree,
            max(1, degree - 2),
            2 * degree,
            heartbeat_interval=1,
            spam_protection_enabled=False,
            eclipse_protection_enabled=False,
        )
        self.pubsub = Pubsub(self.host, router, strict_signing=False)
        self._router = router

    async def open(self, stack: AsyncExitStack) -> None:
        """Run until the stack ends."""
        await stack.enter_async_context(self.host.run([Multiaddr("/ip4/127.0.0.1/tcp/0")]))
        await stack.enter_async_context(background_trio_service(self.pubsub))
        await stack.enter_async_context(background_trio_service(self._router))
        await self.pubsub.wait_until_ready()

    @property
    def place(self) -> str:
        """Where others connect to."""
        return str(self.host.get_addrs()[0])

    async def connect(self, place: str) -> None:
        """Connect to another host."""
        await self.host.connect(info_from_p2p_addr(Multiaddr(place)))


class Program:
    """What this process has of a sender and its receivers."""

    def __init__(self, stack: AsyncExitStack, nursery: trio.Nursery, count: int) -> None:
        self._stack = stack
        self._nursery = nursery
        self._count = count
        self._window = Window()
        self._credits: list[trio.SocketStream] = []
        self._probing = trio.CancelScope()
        self._sender: Node | None = None
        self.receivers: Receivers | None = None

    async def open_sender(self) -> str:
        """The first host; where receivers connect to, and where they say what has arrived."""
        self._sender = await self._open_node()
        listeners = await trio.open_tcp_listeners(0, host="127.0.0.1")
        self._nursery.start_soon(trio.serve_listeners, self._take_credits, listeners)
        self._nursery.start_soon(self._probe)
        return f"{self._sender.place} {listeners[0].socket.getsockname()[1]}"

    async def open_receivers(self, endpoint: str) -> None:
        """The other hosts: a star when they are few, and otherwise each with some of the others."""
        place, port = endpoint.split()
        stream = await trio.open_tcp_stream("127.0.0.1", int(port))
        stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        send, receive = trio.open_memory_channel[int](1 << 20)
        self._nursery.start_soon(self._give_credits, stream, receive)
        self.receivers = Receivers(self._count, send.send_nowait)
        nodes = [await self._open_node() for _ in range(self._count)]
        rng, places = random.Random(7), [place, *(node.place for node in nodes)]
        async with trio.open_nursery() as nursery:
            for number, node in enumerate(nodes):
                few = min(CONNECTIONS, number + 1)
                star = self._count <= STAR
                for each in [place] if star else rng.sample(places[: number + 1], few):
                    nursery.start_soon(node.connect, each)
        for number, node in enumerate(nodes):
            subscription = await node.pubsub.subscribe(TOPIC)
            self._nursery.start_soon(self.receivers.listen, number, subscription)
        with trio.fail_after(STARTUP):
            await self.receivers.all_heard.wait()

    async def send(self, count: int, size: int) -> None:
        """Publish so many messages."""
        assert self._sender is not None
        payload = bytes(size)
        for _ in range(count):
            await self._window.take()
            await self._sender.pubsub.publish(TOPIC, payload)

    def stop_probing(self) -> None:
        """Every receiver has heard."""
        self._probing.cancel()

    async def _open_node(self) -> Node:
        node = Node(self._count if self._count <= STAR else DEGREE)
        await node.open(self._stack)
        return node

    async def _probe(self) -> None:
        assert self._sender is not None
        await self._sender.pubsub.subscribe(TOPIC)
        with self._probing:
            while True:
                await self._sender.pubsub.publish(TOPIC, b"")
                await trio.sleep(PROBE_EVERY)

    async def _take_credits(self, stream: trio.SocketStream) -> None:
        async for data in stream:
            self._window.give(len(data))

    async def _give_credits(
        self, stream: trio.SocketStream, arrived: trio.MemoryReceiveChannel[int]
    ) -> None:
        async for count in arrived:
            await stream.send_all(bytes(count))


async def main() -> None:
    """Do what standard input says, until it ends."""
    match await _read():
        case {"role": str(role), "endpoint": str(endpoint), "receivers": int(receivers)}:
            async with trio.open_nursery() as nursery, AsyncExitStack() as stack:
                await work(Program(stack, nursery, receivers), role, endpoint)
                # To close its hosts takes seconds, and nobody would notice.
                os._exit(0)
        case other:
            raise SystemExit(f"not understood: {other}")


async def work(program: Program, role: str, endpoint: str) -> None:
    """Do runs in a role until standard input ends."""
    if role in ("group", "sender"):
        endpoint = await program.open_sender()
    if role in ("group", "receiver"):
        await program.open_receivers(endpoint)
    _write(endpoint)
    while task := await _read():
        if isinstance(task, dict):
            before = time.process_time()
            await trio.sleep(task["idle"])
            _write(time.process_time() - before)
            continue
        assert isinstance(task, list)
        count, size = task
        receivers = program.receivers
        if receivers is not None:
            receivers.expect(count)
        started = time.monotonic()
        if role in ("group", "sender"):
            program.stop_probing()
            await program.send(count, size)
        if receivers is None:
            _write(started)
        else:
            finished = await receivers.wait()
            _write(finished - started if role == "group" else finished)


async def _read() -> object:
    line = await trio.to_thread.run_sync(sys.stdin.readline)
    value: object = json.loads(line) if line else None
    return value


def _write(value: object) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    logging.disable()
    trio.run(main)
