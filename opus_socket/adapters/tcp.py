"""TCP: connections between endpoints, and the records that travel on them.

Its one rule: one write a neighbor for all that one read brought. A record is `u8 kind | u24
length | body`; `open` introduces the endpoint at the other end, `select` says between which
virtual nodes the records that follow go, and a relayed run of frames is written unchanged behind
a record header of four bytes. Control records go before data. Whatever else is sealed sits below
the records.

A connection is used in both directions by everybody at its two endpoints. Which one stays when
two cross is decided by the pool.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Protocol

from attrs import define, field

from opus_socket.adapters.base import READ_SIZE, Route, Switchboard
from opus_socket.adapters.flow import Intake, Output
from opus_socket.adapters.poller import READ, WRITE
from opus_socket.core.addresses import Contact, Endpoint
from opus_socket.core.dispatch import Piece
from opus_socket.core.effects import Kind
from opus_socket.core.wire import MAX_BODY, decode_plain, encode_plain
from opus_socket.errors import RemoteProtocolError

VERSION = 1
READS_PER_WAKE = 4
PIECES_PER_WRITE = 64
BYTES_PER_WRITE = 1 << 18
JOIN_BELOW = 1024
CONTROL_LIMIT = 1 << 20
MAX_OVERLAYS = 1024
KERNEL_BUFFER = 1 << 17
NOTSENT_LOWAT = 1 << 15
_TCP_NOTSENT_LOWAT = 25


class ConnectionOwner(Protocol):
    """What a connection tells the pool."""

    def opened(self, connection: Connection) -> None:
        """The other end has said which endpoint it is."""

    def closed(self, connection: Connection, reason: str) -> None:
        """It ended; nothing more comes or goes."""


@define(eq=False)
class Chunk:
    """Something queued for one connection: the body of one record and where it goes."""

    route: Route
    kind: Kind
    pieces: Sequence[Piece]
    size: int
    output: Output | None
    frames: int


@define(eq=False)
class Connection:
    """One TCP connection, established or about to be.

    Attributes:
        sock: non-blocking; owned.
        local: the endpoint that it stands for here.
        remote: the endpoint at the other end; None until it has said so.
        dialed: whether it was opened from here.
        established: whether it can be written.
        held: not read for now, because an older connection to the same endpoint still brings data.
    """

    host: Switchboard
    owner: ConnectionOwner
    sock: socket.socket
    local: Endpoint
    remote: Endpoint | None
    dialed: bool
    established: bool
    digests: dict[int, bytes] = field(factory=dict, init=False)
    held: bool = field(default=False, init=False)
    retiring: bool = field(default=False, init=False)
    introduced: bool = field(default=False, init=False)
    received: int = field(default=0, init=False)
    sent: int = field(default=0, init=False)
    _intake: Intake = field(init=False)
    _control: deque[Chunk] = field(factory=deque, init=False)
    _control_size: int = field(default=0, init=False)
    _data: deque[Chunk] = field(factory=deque, init=False)
    _wire: deque[Piece] = field(factory=deque, init=False)
    _spans: deque[tuple[Output | None, int, int]] = field(factory=deque, init=False)
    _written_of_span: int = field(default=0, init=False)
    _announced: set[int] = field(factory=set, init=False)
    _selected_out: Route | None = field(default=None, init=False)
    _selected_in: Route | None = field(default=None, init=False)
    _sender: Contact | None = field(default=None, init=False)
    _tail: bytes = field(default=b"", init=False)
    _left: int = field(default=0, init=False)
    _skipping: bool = field(default=False, init=False)
    _watched: int = field(default=0, init=False)
    _shut: bool = field(default=False, init=False)
    _touched: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._intake = Intake(self._watch)
        tune(self.sock)
        self._watch()

    # Writing

    @property
    def open(self) -> bool:
        """Whether it has not been closed."""
        return self.sock.fileno() >= 0

    @property
    def idle(self) -> bool:
        """Whether everything queued has been handed to the system."""
        return not (self._wire or self._control or self._data)

    def send_control(self, route: Route, kind: Kind, body: bytes) -> bool:
        """Queue a protocol, rendezvous or measurement message; False when there is no room."""
        if self._control_size + len(body) > CONTROL_LIMIT:
            return False
        self._control.append(Chunk(route, kind, (body,), len(body), None, 0))
        self._control_size += len(body)
        self._touch()
        return True

    def send_frames(
        self, route: Route, pieces: Sequence[Piece], size: int, output: Output, frames: int
    ) -> None:
        """Queue overlay messages; the output has admitted them."""
        self._data.append(Chunk(route, Kind.OVERLAY, pieces, size, output, frames))
        self._touch()

    def flush(self) -> None:
        """Write what can be written, then copy what still points into the read buffer."""
        self._touched = False
        if self.established and self.open:
            self._write()
        if self.open:
            self._own_pieces()
            self._watch()

    def retire(self) -> None:
        """Write what is queued, then say that nothing more will come."""
        self.retiring = True
        self._touch()

    def take_back(self) -> list[Chunk]:
        """The chunks of which nothing was written yet, no longer queued here."""
        chunks = [*self._control, *self._data]
        self._control.clear()
        self._data.clear()
        self._control_size = 0
        return chunks

    def adopt(self, chunks: Sequence[Chunk]) -> None:
        """Queue chunks of another connection to the same endpoint."""
        for chunk in chunks:
            if chunk.kind is Kind.OVERLAY:
                self._data.append(chunk)
            else:
                self._control.append(chunk)
                self._control_size += chunk.size
        self._touch()

    def _touch(self) -> None:
        if not self._touched:
            self._touched = True
            self.host.flush_later(self)

    def _write(self) -> None:
        while True:
            self._gather()
            if not self._wire:
                break
            batch = list(islice(self._wire, PIECES_PER_WRITE))
            try:
                sent = self.sock.sendmsg(batch)
            except BlockingIOError:
                break
            except OSError as error:
                self.fail(str(error))
                return
            self.sent += sent
            self._account(sent)
            if not self._drop_written(sent):
                break
        if self.retiring and self.idle and not self._shut:
            self._shut = True
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError as error:
                self.fail(str(error))

    def _gather(self) -> None:
        """Move chunks to the wire while it is short of a full write."""
        size = 0
        while len(self._wire) < PIECES_PER_WRITE and size < BYTES_PER_WRITE:
            if self._control:
                chunk = self._control.popleft()
                self._control_size -= chunk.size
                size += self._put([chunk], chunk.size)
            elif self._data:
                size += self._put(*self._take_alike())
            else:
                return

    def _take_alike(self) -> tuple[list[Chunk], int]:
        """The oldest chunks of overlay messages that go one way: they share a record."""
        chunks = [self._data.popleft()]
        size = chunks[0].size
        while self._data and self._data[0].route == chunks[0].route and size < BYTES_PER_WRITE:
            size += self._data[0].size
            chunks.append(self._data.popleft())
        return chunks, size

    def _put(self, chunks: list[Chunk], size: int) -> int:
        """Put one record on the wire; its length."""
        head = self._head(chunks[0].route, chunks[0].kind, size)
        pieces = [head, *(piece for chunk in chunks for piece in chunk.pieces)]
        if size < JOIN_BELOW * len(pieces):
            pieces = [b"".join(pieces)]
        self._wire.extend(pieces)
        self._spans.append((None, len(head), 0))
        self._spans.extend((chunk.output, chunk.size, chunk.frames) for chunk in chunks)
        return len(head) + size

    def _head(self, route: Route, kind: Kind, size: int) -> bytes:
        """What must stand before a body: introductions, selection, record header."""
        head = b""
        if route.tag not in self._announced:
            self._announced.add(route.tag)
            digest = self.host.digest(route.tag) or b""
            head += record(Kind.OPEN, encode_plain([VERSION, self.local.wire, route.tag, digest]))
        if route != self._selected_out:
            self._selected_out = route
            body = b"".join(
                part.to_bytes(4) for part in (route.tag, route.to_index, route.from_index)
            )
            head += record(Kind.SELECT, body)
        return head + record_head(kind, size)

    def _account(self, sent: int) -> None:
        now = self.host.now()
        self._written_of_span += sent
        while self._spans and self._written_of_span >= self._spans[0][1]:
            output, size, _ = self._spans.popleft()
            self._written_of_span -= size
            if output is not None:
                output.release(size, now)

    def _drop_written(self, sent: int) -> bool:
        """Forget what was written; whether everything of the batch was."""
        wire = self._wire
        while sent:
            piece = wire[0]
            if sent < len(piece):
                wire[0] = bytes(piece[sent:])
                return False
            sent -= len(piece)
            wire.popleft()
        return True

    def _own_pieces(self) -> None:
        """Copy whatever points into the read buffer, which the next read overwrites."""
        for position, piece in enumerate(self._wire):
            if type(piece) is memoryview:
                self._wire[position] = bytes(piece)
        for chunk in reversed(self._data):
            if type(chunk.pieces) is tuple:
                break
            chunk.pieces = tuple(
                bytes(piece) if type(piece) is memoryview else piece for piece in chunk.pieces
            )

    # Reading

    def ready(self, mask: int) -> None:
        """The socket is ready."""
        if mask & WRITE and self.open:
            self._can_write()
        if mask & READ and self.open:
            self._read()

    def _can_write(self) -> None:
        if not self.established:
            error = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if error:
                self.fail(f"cannot connect: error {error}")
                return
            self.established = True
        self.flush()

    def _read(self) -> None:
        buffer = memoryview(self.host.buffer)
        for _ in range(READS_PER_WAKE):
            if self._intake.blocked or self.held or not self.open:
                return
            start = len(self._tail)
            buffer[:start] = self._tail
            try:
                count = self.sock.recv_into(buffer[start : start + READ_SIZE])
            except BlockingIOError:
                return
            except OSError as error:
                self.fail(str(error))
                return
            if count == 0:
                self.fail("closed by the other end" if not self.retiring else "retired")
                return
            self.received += count
            total = start + count
            blockers: list[Output] = []
            try:
                used = self._take_records(buffer[:total], blockers)
            except RemoteProtocolError as error:
                self.host.refuse(error.kind)
                self.fail(f"broken: {error}")
                return
            self._tail = bytes(buffer[used:total])
            self.host.flush()
            if blockers:
                self._intake.wait_for(blockers)
                self._watch()
            if count < READ_SIZE:
                return

    def _take_records(self, data: memoryview, blockers: list[Output]) -> int:
        """Handle whole records and whole frames; the bytes that are done with."""
        offset, total = 0, len(data)
        while True:
            if self._left:
                available = min(self._left, total - offset)
                if not available:
                    return offset
                used = self._take_part(data[offset : offset + available], blockers)
                offset += used
                self._left -= used
                if used < available:
                    return offset
                continue
            if total - offset < 4:
                return offset
            head = int.from_bytes(data[offset : offset + 4])
            kind, length = head >> 24, head & 0xFFFFFF
            if kind not in _KNOWN_KINDS:
                self.host.refuse("unknown_kind")
            if kind == Kind.OVERLAY or kind not in _KNOWN_KINDS:
                self._left = length
                self._skipping = kind != Kind.OVERLAY
                offset += 4
                continue
            if length > MAX_BODY:
                raise RemoteProtocolError("oversize", f"a record of {length} bytes")
            if total - offset - 4 < length:
                return offset
            body = bytes(data[offset + 4 : offset + 4 + length])
            offset += 4 + length
            self._take_record(Kind(kind), body)

    def _take_part(self, data: memoryview, blockers: list[Output]) -> int:
        """A part of a record of overlay messages (or of one that is skipped)."""
        route, sender = self._selected_in, self._sender
        if self._skipping or route is None or sender is None:
            if not self._skipping:
                self.host.refuse("unselected")
            return len(data)
        if self.digests.get(route.tag) != self.host.digest(route.tag):
            self.host.refuse("key_attributes", route.tag)
            return len(data)
        used, broken = self.host.frames(route, data, sender, blockers)
        if broken is None and used < len(data) == self._left:
            broken = "partial_frame"
        if broken is not None:
            raise RemoteProtocolError(broken, "in a record of overlay messages")
        return used

    def _take_record(self, kind: Kind, body: bytes) -> None:
        if kind is Kind.OPEN:
            self._take_open(body)
        elif kind is Kind.SELECT:
            if len(body) != 12 or self.remote is None:
                raise RemoteProtocolError("bad_select", f"{len(body)} bytes, or not opened")
            tag, to_index, from_index = (int.from_bytes(body[i : i + 4]) for i in (0, 4, 8))
            self._selected_in = Route(tag, to_index, from_index)
            self._sender = Contact(None, 0, from_index, (self.remote,))
        elif self._selected_in is None or self._sender is None:
            self.host.refuse("unselected")
        else:
            self.host.message(self._selected_in, kind, body, self._sender)

    def _take_open(self, body: bytes) -> None:
        fields = decode_plain(body)
        match fields:
            case [int(version), bytes(wire), int(tag), bytes(digest), *_]:
                if version != VERSION:
                    raise RemoteProtocolError("bad_version", f"{version}, not {VERSION}")
            case _:
                raise RemoteProtocolError("bad_open", "not [version, endpoint, tag, digest]")
        remote = Endpoint.from_wire(wire)
        if self.remote is None:
            self.remote = remote
        if len(self.digests) >= MAX_OVERLAYS:
            raise RemoteProtocolError("bad_open", f"more than {MAX_OVERLAYS} overlays")
        self.digests[tag] = digest
        if not self.introduced:
            self.introduced = True
            self.owner.opened(self)

    # Ending

    def fail(self, reason: str) -> None:
        """Close; what was queued is lost and counted."""
        if not self.open:
            return
        self.host.poller.remove(self.sock)
        self.sock.close()
        lost: dict[int, tuple[Output, int]] = {}
        queued = [(output, frames) for output, _, frames in self._spans]
        queued += [(chunk.output, chunk.frames) for chunk in self._data]
        for output, frames in queued:
            if output is not None:
                lost[id(output)] = (output, lost.get(id(output), (output, 0))[1] + frames)
        self._spans.clear()
        self._data.clear()
        self._control.clear()
        self._wire.clear()
        for output, frames in lost.values():
            output.abandon(frames, "connection")
        self.owner.closed(self, reason)

    def let_read(self) -> None:
        """The older connection is done: read on."""
        self.held = False
        self._watch()

    def _watch(self) -> None:
        """Tell the poller what this connection waits for now."""
        if not self.open:
            return
        wanted = 0
        if not self.established or self._wire or self._control or self._data:
            wanted |= WRITE
        if self.established and not self._intake.blocked and not self.held:
            wanted |= READ
        if wanted != self._watched:
            self._watched = wanted
            self.host.poller.change(self.sock, wanted, self.ready)


_KNOWN_KINDS = frozenset(int(kind) for kind in Kind)


def record_head(kind: Kind, length: int) -> bytes:
    """The four bytes before a record's body."""
    return (kind << 24 | length).to_bytes(4)


def record(kind: Kind, body: bytes) -> bytes:
    """A whole record."""
    return record_head(kind, len(body)) + body


def tune(sock: socket.socket) -> None:
    """Small kernel buffers and no delay, so that the queues that count are ours."""
    sock.setblocking(False)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)
    sock.setsockopt(
        socket.IPPROTO_TCP,
        getattr(socket, "TCP_NOTSENT_LOWAT", _TCP_NOTSENT_LOWAT),
        NOTSENT_LOWAT,
    )
