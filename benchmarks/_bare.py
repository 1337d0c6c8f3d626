"""The bare program: what a batched Trio program can do that has connections and nothing else.

Its one rule: as little as can be done while an application gets one object a message. Frames have
a length of four bytes in front; a read takes up to 256 KiB into a reused buffer; what came is
passed on by one write a child, unchanged and unread, and then becomes messages.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping, Sequence

import trio

READ_SIZE = 1 << 18
READS_PER_WAKE = 4
KERNEL_BUFFER = 1 << 18
MAXIMUM_FRAME = 1 << 17
CONNECT_TIMEOUT = 30.0
_LENGTH = struct.Struct(">I")


class Message:
    """What the application gets."""

    __slots__ = ("payload",)

    def __init__(self, payload: bytes) -> None:
        self.payload = payload


class Node:
    """Reads from a connection, and passes on what it reads.

    Args:
        source: where it reads.
        children: where it passes everything on to.
    """

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

    async def relay(self, size: int) -> None:
        """Pass so many bytes on, and make nothing of them."""
        reads, view = 0, memoryview(self._buffer)
        while size > 0:
            try:
                taken = self._source.recv_into(view[:READ_SIZE])
            except BlockingIOError:
                await trio.lowlevel.wait_readable(self._source)
                continue
            if not taken:
                raise EOFError("the connection was closed")
            size -= taken
            reads += 1
            for child in self._children:
                await send(child, view[:taken])
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


class Tree:
    """The part of a tree of bare nodes that is in this process; node 0 sends.

    Args:
        parents: the parent of each node of the tree but the first.
        own: the nodes that are here.
        crossing: for each connection between the processes the end that is here, by its child.
        last_only: only the last node makes messages of what it reads, the others pass it on.
    """

    def __init__(
        self,
        parents: Sequence[int],
        own: range,
        crossing: Mapping[int, socket.socket],
        *,
        last_only: bool,
    ) -> None:
        self._sockets = list(crossing.values())
        children: dict[int, list[socket.socket]] = {number: [] for number in own}
        sources: dict[int, socket.socket] = {}
        for child, parent in enumerate(parents, 1):
            if child in own and parent in own:
                upper, sources[child] = connected_pair()
                children[parent].append(upper)
                self._sockets += [upper, sources[child]]
            elif child in own:
                sources[child] = crossing[child]
            elif parent in own:
                children[parent].append(crossing[child])
        self._first = children.get(0, [])
        nodes = {number: Node(source, children[number]) for number, source in sources.items()}
        receivers = [len(parents)] if last_only else list(nodes)
        self._receivers = [node for number, node in nodes.items() if number in receivers]
        self._relays = [node for number, node in nodes.items() if number not in receivers]

    async def receive(self, count: int, size: int) -> None:
        """Let the nodes here receive so many messages of so many bytes."""
        async with trio.open_nursery() as nursery:
            for node in self._receivers:
                nursery.start_soon(node.receive, count)
            for node in self._relays:
                nursery.start_soon(node.relay, count * (size + _LENGTH.size))

    async def send(self, batches: Sequence[Sequence[bytes]]) -> None:
        """Send from node 0."""
        for batch in batches:
            await send_batch(self._first, batch)

    def close(self) -> None:
        """Close every connection."""
        for sock in self._sockets:
            sock.close()


def crossing(parents: Sequence[int], own: range) -> list[int]:
    """The children of connections between the nodes here and the others, sorted."""
    return [
        child for child, parent in enumerate(parents, 1) if (child in own) is not (parent in own)
    ]


def accept(listener: socket.socket, children: Sequence[int]) -> dict[int, socket.socket]:
    """The connections that another process opens to this one, by the child that each says."""
    listener.settimeout(CONNECT_TIMEOUT)
    found: dict[int, socket.socket] = {}
    while len(found) < len(children):
        sock, _ = listener.accept()
        sock.settimeout(CONNECT_TIMEOUT)
        (child,) = _LENGTH.unpack(sock.recv(_LENGTH.size, socket.MSG_WAITALL))
        found[child] = tune(sock)
    return found


def connect(port: int, children: Sequence[int]) -> dict[int, socket.socket]:
    """Connections to another process, one for each of these children."""
    found: dict[int, socket.socket] = {}
    for child in children:
        sock = socket.create_connection(("127.0.0.1", port), CONNECT_TIMEOUT)
        sock.sendall(_LENGTH.pack(child))
        found[child] = tune(sock)
    return found


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
