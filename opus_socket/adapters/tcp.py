"""TCP: connections between endpoints, and what is queued on them.

Its one rule: one write a neighbor for all that one read brought. A relayed run of frames is
written unchanged behind a record header of four bytes (see `records`). Control records go before
data, and what several lanes have to write goes in turns (see `outgoing`). Whatever else is sealed
sits below the records. What cannot be handed on stops its lane, not the connection (see `backlog`).

A connection is used in both directions by everybody at its two endpoints. Which one stays when
two cross is decided by the pool.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from typing import Protocol

from attrs import define, field

from opus_socket.adapters.backlog import Backlogs
from opus_socket.adapters.base import LONGEST_FRAME, READ_SIZE, Lane, Route, Switchboard
from opus_socket.adapters.flow import FlowSettings, Intake, Output, attended_by_nobody, spread
from opus_socket.adapters.outgoing import Chunk, Outgoing
from opus_socket.adapters.poller import READ, WRITE
from opus_socket.adapters.record_reader import RecordReader
from opus_socket.adapters.record_writer import RecordWriter
from opus_socket.core.addresses import Endpoint
from opus_socket.core.dispatch import Piece
from opus_socket.core.effects import Kind
from opus_socket.core.runs import split_pieces
from opus_socket.errors import RemoteProtocolError

READS_PER_WAKE = 4
LONGEST_CHUNK = 1 << 22
LONGEST_READ = READ_SIZE + LONGEST_FRAME
"""Bytes that one read brings at most, with what the one before it left; they go on uncut."""

LONG_FRAME = 4096
KEPT = FlowSettings(limit=1 << 23)
KERNEL_BUFFER = 1 << 18
HEARSAY = 1 / 32
"""Seconds by which progress grows older with each connection that it is told over: what goes round
in a circle is soon too old."""

NOTSENT_LOWAT = 1 << 15
_TCP_NOTSENT_LOWAT = 25


class ConnectionOwner(Protocol):
    """What a connection tells the pool."""

    def established(self, connection: Connection) -> None:
        """It can be written from now on."""

    def opened(self, connection: Connection) -> None:
        """The other end has said which endpoint it is, or which overlays it has members of."""

    def heir(self, connection: Connection, reason: str) -> Connection | None:
        """It has failed; returns who sends what it had not begun to write."""

    def closed(self, connection: Connection, reason: str) -> None:
        """It ended; nothing more comes or goes."""


@define(eq=False, repr=False)
class Connection:
    """One TCP connection, established or about to be.

    Attributes:
        sock: non-blocking; owned.
        local: the endpoint that it stands for here.
        dialed: whether it was opened from here.
        since: when it was made.
        place: the address and port at the other end, once it is sure that they are.
        open: whether it has not been closed.
        established: whether it can be written.
        held: no data is written yet, because an older connection still brings what goes before.
        retiring: it ends when its queue is written.
        used_at: when it last carried a message, in either direction; None if it never did.
        reader: takes what comes apart.
        kept: accounts for what lanes that are paused take.
    """

    host: Switchboard
    owner: ConnectionOwner
    sock: socket.socket
    local: Endpoint
    dialed: bool
    since: float
    endpoint_kept: Output
    kept: Output = field(init=False)
    reader: RecordReader = field(init=False)
    open: bool = field(default=True, init=False)
    established: bool = field(init=False)
    place: tuple[str, int] | None = field(default=None, init=False)
    held: bool = field(default=False, init=False)
    retiring: bool = field(default=False, init=False)
    received: int = field(default=0, init=False)
    used_at: float | None = field(default=None, init=False)
    _remote: Endpoint | None = field(default=None)
    _intake: Intake = field(init=False)
    _backlogs: Backlogs = field(init=False)
    _outgoing: Outgoing = field(factory=Outgoing, init=False)
    _writer: RecordWriter = field(init=False)
    _tail: bytes = field(default=b"", init=False)
    _watched: int = field(default=0, init=False)
    _shut: bool = field(default=False, init=False)
    _ended: bool = field(default=False, init=False)
    _touched: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.established = not self.dialed
        self.place = None if self._remote is None else self._remote[:2]
        self.kept = Output(None, KEPT, attended_by_nobody)
        self._backlogs = Backlogs(
            self.host,
            (self.kept, self.endpoint_kept),
            self._regulate,
            self._report,
            self._drained,
            self._break,
        )
        self.reader = RecordReader(
            self.host,
            self._backlogs,
            self._remote,
            lambda: self.owner.opened(self),
            self._regulated,
            self._reported,
        )
        self._writer = RecordWriter(self.host, self.local, self._outgoing)
        self._intake = Intake(self._watch)
        self._watch()

    @property
    def remote(self) -> Endpoint | None:
        """The endpoint at the other end; None until it has said so."""
        return self.reader.remote

    @property
    def spare(self) -> bool:
        """Whether it was opened from elsewhere, and nothing waits on it in either direction."""
        return not (self.dialed or self.held or self.retiring or self._backlogs) and self.idle

    # Writing

    @property
    def sent(self) -> int:
        """Bytes that the system has taken."""
        return self._writer.sent

    @property
    def idle(self) -> bool:
        """Whether everything queued has been handed to the system."""
        return not self._writer.pending and self._outgoing.empty

    def send_control(self, route: Route, kind: Kind, body: bytes) -> bool:
        """Queue a protocol, rendezvous or measurement message; False when there is no room."""
        taken = self._outgoing.add_control(route, kind, body)
        if taken:
            self._touch()
        return taken

    def send_frames(
        self, lane: Lane, pieces: Sequence[Piece], size: int, output: Output, frames: int
    ) -> None:
        """Queue overlay messages; the output has admitted them."""
        # Others wait for a record. One of many short frames costs more to cut than it keeps them.
        longest = LONGEST_CHUNK if size < LONG_FRAME * frames else LONGEST_READ
        if size <= longest:
            self._outgoing.add_data(Chunk(lane, Kind.OVERLAY, pieces, size, output, frames))
        else:
            for part, length, count in split_pieces(pieces, longest):
                chunk = Chunk(lane, Kind.OVERLAY, part, length, output, count)
                self._outgoing.add_data(chunk)
        self._touch()

    def flush(self) -> None:
        """Write what can be written, then copy what still points into the read buffer."""
        self._touched = False
        if self.open and self.established and not self._writer.yielding:
            self._write()
        if self.open:
            if self._writer.pending or self._outgoing.views:
                self._writer.own_pieces()
            self._watch()

    def evict(self, lane: Lane) -> None:
        """Give up on what the other end takes no byte of: the lane if it has paused that, so that
        others go on, or else the connection.
        """
        now = self.host.now()
        if not self._outgoing.is_paused(lane):
            self.fail("evicted: it took no byte for too long", "evicted")
        for chunk in self._outgoing.discard(lane):
            if chunk.output is not None:
                chunk.output.release(chunk.size, now)
                chunk.output.lose(chunk.frames, chunk.size, "evicted")

    def retire(self) -> None:
        """Write what is queued, then say that nothing more will come."""
        self.retiring = True
        self._touch()

    def hold(self) -> None:
        """Write no data for now."""
        self.held = True

    def let_write(self) -> None:
        """The older connection has ended: write on."""
        self.held = False
        self._touch()

    def take_back(self) -> list[Chunk]:
        """The chunks of which nothing was written yet, no longer queued here."""
        return self._outgoing.take_all()

    def adopt(self, chunks: Sequence[Chunk]) -> None:
        """Queue chunks of another connection to the same endpoint."""
        self._outgoing.adopt(chunks)
        self._touch()

    def _touch(self) -> None:
        if not self._touched:
            self._touched = True
            self.host.flush_later(self)

    def _write(self) -> None:
        try:
            written = self._writer.write(self.sock, data=not self.held)
        except OSError as error:
            self.fail(str(error))
            return
        if written:
            self.used_at = self._writer.wrote_at
        if self.retiring and self.idle and not self._shut:
            self._shut = True
            try:
                self.sock.shutdown(socket.SHUT_WR)
            except OSError as error:
                self.fail(str(error))

    def _regulated(self, lane: Lane, paused: bool) -> None:
        """The other end wants no data of a lane for now, or wants it again."""
        if not self._writer.has_written(lane) and not self._outgoing.is_paused(lane):
            self.host.refuse("pause_of_nothing", lane.route.tag)
        elif paused:
            self._outgoing.pause(lane)
        else:
            self._outgoing.resume(lane)
            self._touch()

    def _reported(self, lane: Lane, age: float) -> None:
        """What a lane waits for at the other end has taken something so many seconds ago."""
        output, now = self._outgoing.held_up(lane), self.host.now()
        if output is not None and output.hear(now - age):
            spread(output, now)

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
                self.fail(os.strerror(error))
                return
            self.established = True
            self.owner.established(self)
        self._writer.yielding = False
        self.flush()

    def _read(self) -> None:
        buffer = memoryview(self.host.buffer)
        for _ in range(READS_PER_WAKE):
            if self._intake.blocked or not self.open:
                return
            start = len(self._tail)
            if start:
                buffer[:start] = self._tail
            try:
                count = self.sock.recv_into(buffer[start:], READ_SIZE)
            except BlockingIOError:
                return
            except OSError as error:
                self.fail(str(error))
                return
            if count == 0:
                self._ended = True
                self._drained()
                return
            self.received += count
            if not self._take(buffer[: start + count]) or count < READ_SIZE:
                return

    def _take(self, data: memoryview) -> bool:
        """Hand on what was read; whether more may be read."""
        blockers: list[Output] = []
        try:
            used = self.reader.take(data, blockers)
        except RemoteProtocolError as error:
            # What came before is on its way, and points into the buffer.
            self.host.flush()
            self._break(error)
            return False
        self._tail = bytes(data[used:]) if used < len(data) else b""
        if self.reader.carried:
            self.reader.carried = False
            self.used_at = self.host.now()
        self.host.flush()
        if self._backlogs.unsettled:
            self._backlogs.settle(blockers)
        if blockers:
            self._intake.wait_for(blockers)
            self._watch()
        return True

    def _regulate(self, lane: Lane, paused: bool) -> None:
        """Tell the other end whether to pause a lane."""
        if self.open:
            self._outgoing.signals.regulate(lane, paused)
            self._touch()

    def _report(self, lane: Lane, when: float) -> None:
        """Tell the other end that what a paused lane waits for has taken something then."""
        if self.open:
            self._outgoing.signals.progress(lane, self.host.now() - when + HEARSAY)
            self._touch()

    def _drained(self) -> None:
        """All that came is handed on: end, if no more will come."""
        if self._ended and not self._backlogs:
            self.fail("closed by the other end" if not self.retiring else "retired")
        else:
            self._watch()

    def _break(self, error: RemoteProtocolError) -> None:
        self.host.refuse(error.kind)
        self.fail(f"broken: {error}")

    # Ending

    def give_way(self) -> None:
        """Close a spare one, which is no failure of anybody."""
        self.retiring = True
        self.fail("made room")

    def fail(self, reason: str, lost: str = "connection") -> None:
        """Close; what was queued is sent by another connection, or lost and counted.

        Args:
            reason: why, in words.
            lost: why its messages were lost, as one short identifier.
        """
        if not self.open:
            return
        self.abort()
        heir = self.owner.heir(self, reason)
        if heir is not None:
            heir.adopt(self.take_back())
        now = self.host.now()
        for output, size, frames in self._writer.take_back():
            if output is not None:
                output.release(size, now)
                output.lose(frames, size, lost)
        self.owner.closed(self, reason)

    def abort(self) -> None:
        """Close, and tell nobody."""
        self.open = False
        self.host.poller.remove(self.sock)
        self.sock.close()

    def _watch(self) -> None:
        """Tell the poller what this connection waits for now."""
        if not self.open:
            return
        wanted = 0
        if not self.established or self._writer.pending or self._outgoing.ready(data=not self.held):
            wanted |= WRITE
        if self.established and not (self._intake.blocked or self._ended):
            wanted |= READ
        if wanted != self._watched:
            self._watched = wanted
            self.host.poller.change(self.sock, wanted, self.ready)


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
