"""The bare program: what a batched Trio program can do that has connections and nothing else.

Its one rule: as little as can be done while an application gets one object a message. Frames have
a length of four bytes in front; a read takes up to 256 KiB into a reused buffer; what came is
passed on by one write a child, unchanged and unread, and then becomes messages.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

import trio

READ_SIZE = 1 << 18
READS_PER_WAKE = 4
KERNEL_BUFFER = 1 << 17
MAXIMUM_FRAME = 1 << 17
_LENGTH = struct.Struct(">I")


class Message:
    """What the application gets."""

    __slots__ = ("payload",)

    def __init__(self, payload: bytes) -> None:
        self.payload = payload


class Receiver:
    """Reads messages from a connection and passes on what it reads."""

    def __init__(self, source: socket.socket, children: Sequence[socket.socket]) -> None:
        self._source = source
        self._children = children
        self._buffer = bytearray(READ_SIZE + MAXIMUM_FRAME)
        self._held = 0

    async def receive(self, count: int) -> None:
        """Receive so many messages."""
        reads = 0
        while count > 0:
            messages = await self._receive_batch()
            reads += 1
            if messages is None:
                await trio.lowlevel.wait_readable(self._source)
            else:
                count -= len(messages)
                if reads % READS_PER_WAKE == 0:
                    await trio.lowlevel.checkpoint()

    async def _receive_batch(self) -> list[Message] | None:
        """The messages that one read completes; None when there is nothing to read."""
        buffer, held = self._buffer, self._held
        view = memoryview(buffer)
        try:
            total = held + self._source.recv_into(view[held : held + READ_SIZE])
        except BlockingIOError:
            return None
        if total == held:
            raise EOFError("the connection was closed")
        for child in self._children:
            await send(child, view[held:total])
        messages: list[Message] = []
        unpack, offset = _LENGTH.unpack_from, 0
        while offset + 4 <= total:
            end = offset + 4 + unpack(buffer, offset)[0]
            if end > total:
                break
            messages.append(Message(bytes(view[offset + 4 : end])))
            offset = end
        self._held = total - offset
        view[: self._held] = bytes(view[offset:total])
        return messages


class Bare:
    """A tree of bare nodes in one process; node 0 sends.

    Args:
        parents: the parent of each node but the first.
    """

    def __init__(self, parents: Sequence[int]) -> None:
        pairs = [connected_pair() for _ in parents]
        self._sockets = [sock for pair in pairs for sock in pair]
        children: list[list[socket.socket]] = [[] for _ in range(len(parents) + 1)]
        for (upper, _), parent in zip(pairs, parents, strict=True):
            children[parent].append(upper)
        self._children = children[0]
        self._receivers = [
            Receiver(lower, below) for (_, lower), below in zip(pairs, children[1:], strict=True)
        ]

    async def measure(self, batches: Sequence[Sequence[bytes]]) -> float:
        """Seconds until every node but the first has got all messages."""
        count = sum(map(len, batches))
        started = trio.current_time()
        async with trio.open_nursery() as nursery:
            for receiver in self._receivers:
                nursery.start_soon(receiver.receive, count)
            for batch in batches:
                await send_batch(self._children, batch)
        return trio.current_time() - started

    def close(self) -> None:
        """Close every connection."""
        for sock in self._sockets:
            sock.close()


async def send_batch(children: Sequence[socket.socket], payloads: Sequence[bytes]) -> None:
    """Send messages to every child."""
    pack = _LENGTH.pack
    data = b"".join([part for payload in payloads for part in (pack(len(payload)), payload)])
    for child in children:
        await send(child, data)


async def send(sock: socket.socket, data: bytes | memoryview) -> None:
    """Write all of it, waiting only when the kernel takes no more."""
    view = memoryview(data)
    while view:
        try:
            view = view[sock.send(view) :]
        except BlockingIOError:
            await trio.lowlevel.wait_writable(sock)


def connected_pair() -> tuple[socket.socket, socket.socket]:
    """Two ends of a TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        upper = socket.create_connection(listener.getsockname())
        lower, _ = listener.accept()
    return tune(upper), tune(lower)


def tune(sock: socket.socket) -> socket.socket:
    """As the connections of an overlay socket are."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)
    return sock
