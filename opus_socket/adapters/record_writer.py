"""The records of a connection: what waits to be written, put together.

Its one rule: as many records go in one write as it may have pieces, control first, and only a turn
or so while several lanes want to be written, so that nobody waits behind much; what is written is
accounted for to the byte: each output gets its room back as soon as the system has taken its bytes.
The counterpart of `record_reader`.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Iterator
from itertools import islice

from attrs import define, field

from opus_socket.adapters.base import Lane, Route, Switchboard
from opus_socket.adapters.flow import Output
from opus_socket.adapters.outgoing import RECORD_SIZE, Chunk, Outgoing, own
from opus_socket.adapters.records import open_record, record_head, select_record
from opus_socket.core.addresses import Endpoint
from opus_socket.core.dispatch import Piece
from opus_socket.core.effects import Kind

PIECES_PER_WRITE = 64
JOIN_BELOW = 1024
MAX_LANES = 1 << 16
_OF_LANES = (Kind.PAUSE, Kind.RESUME, Kind.PROGRESS)

Span = tuple[Output | None, int, int]
"""Of which output the next bytes are, how many, and in how many messages."""


@define(eq=False, repr=False)
class RecordWriter:
    """Writes what waits on one connection.

    Args:
        host: knows the overlays that have members here.
        local: the endpoint that introduces itself.
        outgoing: what waits.

    Attributes:
        sent: bytes that the system has taken.
        wrote_at: when it took the last of them, in seconds.
        yielding: whether the last write left something, so that others have their turn.
        pending: what a write was begun with and has not finished.
    """

    host: Switchboard
    local: Endpoint
    outgoing: Outgoing
    sent: int = field(default=0, init=False)
    wrote_at: float = field(default=0.0, init=False)
    yielding: bool = field(default=False, init=False)
    pending: deque[Piece] = field(factory=deque, init=False)
    _pending_size: int = field(default=0, init=False)
    _spans: deque[Span] = field(factory=deque, init=False)
    _announced: dict[int, bytes] = field(factory=dict, init=False)
    _selected: Route | None = field(default=None, init=False)
    _last: Lane | None = field(default=None, init=False)
    _lanes: set[Lane] = field(factory=set, init=False)

    def has_written(self, lane: Lane) -> bool:
        """Whether data of a lane has been written lately."""
        return lane in self._lanes

    def write(self, sock: socket.socket, data: bool) -> bool:
        """Write what the system takes, or a part of it when several lanes have something to write:
        then others have their turn, such as those who wait to queue more. Whether it took anything.

        Args:
            sock: non-blocking and connected.
            data: whether overlay messages may be written.

        Raises:
            OSError: the connection has failed.
        """
        before, wire = self.sent, self.pending
        self.yielding = False
        while True:
            if not wire:
                if self.yielding:
                    break
                self._gather(data)
                if not wire:
                    break
            try:
                # Most often it is one piece, and that costs less by itself.
                sent = (
                    sock.send(wire[0])
                    if len(wire) == 1
                    else sock.sendmsg(list(islice(wire, PIECES_PER_WRITE)))
                )
            except BlockingIOError:
                break
            if not self._account(sent) or not (wire or self.outgoing.goes_on(data)):
                break
        return self.sent > before

    def own_pieces(self) -> None:
        """Copy whatever points into the read buffer, which the next read overwrites."""
        # Most often all is written.
        for position, piece in enumerate(self.pending):
            if type(piece) is memoryview:
                self.pending[position] = own(piece)
        self.outgoing.own_pieces()

    def take_back(self) -> Iterator[Span]:
        """Everything that was not written, no longer queued."""
        left = [*self._spans, *((c.output, c.size, c.frames) for c in self.outgoing.take_all())]
        self._spans.clear()
        self.pending.clear()
        self._pending_size = 0
        return iter(left)

    def _gather(self, data: bool) -> None:
        """Move as many chunks to the wire as go in one write, control first."""
        size = 0
        outgoing = self.outgoing
        while chunks := outgoing.take(data):
            size += self._put(chunks)
            if outgoing.contested and chunks[0].output is not None:
                self.yielding = True
                return
            if size >= RECORD_SIZE or len(self.pending) >= PIECES_PER_WRITE:
                return

    def _put(self, chunks: list[Chunk]) -> int:
        """Put one record on the wire; its length."""
        first = chunks[0]
        size = first.size if len(chunks) == 1 else sum([chunk.size for chunk in chunks])
        head, spans = self._head(first.lane, first.kind, size), self._spans
        pieces: list[Piece] = [head]
        spans.append((None, len(head), 0))
        for chunk in chunks:
            pieces += chunk.pieces
            spans.append((chunk.output, chunk.size, chunk.frames))
        if size < JOIN_BELOW * len(pieces):
            self.pending.append(b"".join(pieces))
        else:
            self.pending.extend(pieces)
        size += len(head)
        self._pending_size += size
        return size

    def _head(self, lane: Lane, kind: Kind, size: int) -> bytes:
        """What must stand before a body: introductions, selection, record header."""
        if kind in _OF_LANES:
            return record_head(kind, size)
        head, route = record_head(kind, size), lane.route
        if lane != self._last:
            self._last = lane
            if len(self._lanes) >= MAX_LANES:
                self._lanes.clear()
            self._lanes.add(lane)
        if route != self._selected:
            self._selected = route
            head = select_record(route) + head
        # The members here may have left, and others may have come.
        digest = self.host.digest(route.tag) or b""
        if self._announced.get(route.tag) != digest:
            self._announced[route.tag] = digest
            head = open_record(self.local, route.tag, digest) + head
        return head

    def _account(self, sent: int) -> bool:
        """Give room back for what was written, and forget it; whether all that was tried was."""
        now = self.wrote_at = self.host.now()
        spans = self._spans
        self.sent += sent
        self._pending_size -= sent
        if not self._pending_size:
            written = [*spans]
            spans.clear()
            self.pending.clear()
            for output, size, _ in written:
                if output is not None:
                    output.release(size, now)
            return True
        whole = self._drop_written(sent)
        while sent:
            output, size, frames = spans[0]
            if sent < size:
                spans[0] = (output, size - sent, frames)
                size = sent
            else:
                spans.popleft()
            sent -= size
            if output is not None:
                output.release(size, now)
        return whole

    def _drop_written(self, sent: int) -> bool:
        """Forget what was written; whether no piece was written in part."""
        wire = self.pending
        while sent:
            piece = wire[0]
            if sent < len(piece):
                wire[0] = bytes(piece[sent:])
                return False
            sent -= len(piece)
            wire.popleft()
        return True
