"""What waits to be written on one connection.

Its one rule: control goes before data, data of one lane stays in order, and no lane holds up
another. Routes take turns, alike, because each is another member's; in the turn of a route its
traffic classes take theirs, by the weights that the member gives them. A lane that the other end
has paused is left out until it is resumed. All of it costs the same however much is queued. Bounds
are kept by those who queue: an `Output` for each neighbor and class, `CONTROL_LIMIT` here for
control records.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from attrs import define, field

from opus_socket.adapters.base import Lane, Route, split_frames
from opus_socket.adapters.flow import Output
from opus_socket.adapters.signals import Signals
from opus_socket.adapters.turns import CLASS_TURN, ROUTE_TURN, Turns
from opus_socket.core.dispatch import Piece
from opus_socket.core.effects import Kind

CONTROL_LIMIT = 1 << 20
"""Bytes of control records that may wait on one connection."""

RECORD_SIZE = 1 << 18
"""Bytes of overlay messages in one record, above which no more are added to it."""

CONTESTED_SIZE = 1 << 16
"""The same while more than one lane has something to write, and of all that is written at once:
nobody waits for more of what others have, control records least of all.
"""

_LONGEST_CONTESTED = 1 << 15
_PART = 1 << 14
_LANES = 1024
"""Lanes that are remembered while nothing waits in them; more if more are paused."""


@define(eq=False, repr=False)
class Chunk:
    """The body of one record, or a part of it, and where it goes.

    Attributes:
        lane, kind: whom it is for, in which class, and what it is.
        pieces: the bytes; in a list while they may point into the read buffer, in a parcel or a
            tuple when they are owned.
        size: of all pieces together.
        output: which has admitted it; None for control.
        frames: how many overlay messages it holds.
        queued: whether it waits.
    """

    lane: Lane
    kind: Kind
    pieces: Sequence[Piece]
    size: int
    output: Output | None
    frames: int
    queued: bool = True

    def own(self) -> None:
        """Copy whatever points into the read buffer, which the next read overwrites."""
        if type(self.pieces) is list:
            self.pieces = tuple(own(piece) for piece in self.pieces)


@define(eq=False, repr=False)
class _Row:
    """The lanes of one route, which takes turns with others."""

    turns: Turns[_Queue] = field(factory=lambda: Turns(CLASS_TURN))
    waiting: int = 0

    @property
    def weight(self) -> int:
        return 1

    @property
    def waits(self) -> bool:
        return self.waiting > 0

    @property
    def held_back(self) -> bool:
        return False


@define(eq=False, repr=False)
class _Queue:
    """What waits in one lane."""

    row: _Row
    chunks: deque[Chunk] = field(factory=deque)
    output: Output | None = None
    paused: bool = False

    @property
    def weight(self) -> int:
        return 1 if self.output is None else self.output.weight

    @property
    def waits(self) -> bool:
        return bool(self.chunks) and not self.paused

    @property
    def held_back(self) -> bool:
        return bool(self.chunks) and self.paused


@define(eq=False, repr=False)
class Outgoing:
    """The queues of one connection. A lone chunk is in none of them: it goes when it is asked for,
    unless something else comes to wait with it.

    Attributes:
        contested: whether what was taken last had to leave something to others.
        views: chunks that point into the read buffer, or did.
        signals: what is to be said of lanes, before anything else.
    """

    contested: bool = field(default=False, init=False)
    signals: Signals = field(factory=Signals, init=False)
    _lone: Chunk | None = field(default=None, init=False)
    _control: deque[Chunk] = field(factory=deque, init=False)
    _control_size: int = field(default=0, init=False)
    _queues: dict[Lane, _Queue] = field(factory=dict, init=False)
    _rows: dict[Route, _Row] = field(factory=dict, init=False)
    _turns: Turns[_Row] = field(factory=lambda: Turns(ROUTE_TURN), init=False)
    _waiting: int = field(default=0, init=False)
    _paused: int = field(default=0, init=False)
    _lanes: int = field(default=_LANES, init=False)
    views: list[Chunk] = field(factory=list, init=False)

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not self.ready(data=True) and not any(
            queue.chunks for queue in self._queues.values()
        )

    def ready(self, data: bool) -> bool:
        """Whether something can be written now, with or without data."""
        return bool(self._control or self.signals or (data and (self._lone or self._waiting)))

    def goes_on(self, data: bool) -> bool:
        """Whether something can be written behind what just was; when nothing waits any more, what
        routes owe is forgotten.
        """
        if self.ready(data):
            return True
        if self._rows and not (self._lone or self._waiting):
            self._tidy()
        return False

    def add_control(self, route: Route, kind: Kind, body: bytes) -> bool:
        """Queue a control record; False when there is no room for it.

        Args:
            route: between which virtual nodes.
            kind: what it is.
            body: of the record.
        """
        if self._control_size + len(body) > CONTROL_LIMIT:
            return False
        self._add(Chunk(Lane(route, 0), kind, (body,), len(body), None, 0))
        return True

    def add_data(self, chunk: Chunk) -> None:
        """Queue overlay messages."""
        if type(chunk.pieces) is list:
            self.views.append(chunk)
        if self._lone is None and not (self._waiting or self._paused):
            self._lone = chunk
        else:
            self._line_up()
            self._add(chunk)

    def pause(self, lane: Lane) -> None:
        """Write no data of this lane for now."""
        self._line_up()
        queue = self._queue(lane)
        if not queue.paused:
            queue.paused = True
            self._paused += 1
            if queue.chunks:
                self._count(queue.row, -1)

    def resume(self, lane: Lane) -> None:
        """Write data of this lane again."""
        queue = self._queue(lane)
        if queue.paused:
            queue.paused = False
            self._paused -= 1
            if queue.chunks:
                self._enlist(queue)

    def is_paused(self, lane: Lane) -> bool:
        """Whether data of this lane waits for the other end."""
        queue = self._queues.get(lane)
        return queue is not None and queue.paused

    def held_up(self, lane: Lane) -> Output | None:
        """The output whose data waits in this lane, if it is paused."""
        queue = self._queues.get(lane)
        return queue.output if queue is not None and queue.held_back else None

    def discard(self, lane: Lane) -> list[Chunk]:
        """The data of a paused lane, no longer queued here; the lane stays paused."""
        queue = self._queues.get(lane)
        if queue is None or not queue.paused:
            return []
        chunks, queue.chunks = queue.chunks, deque()
        queue.row.turns.leave(queue)
        return _taken(chunks)

    def take(self, data: bool) -> list[Chunk]:
        """The next chunks, which share one record; empty when none may be written.

        Args:
            data: whether overlay messages may be written.
        """
        if self.signals:
            lane, kind, body = self.signals.take()
            return [Chunk(lane, kind, (body,), len(body), None, 0)]
        if self._control:
            chunk = self._control.popleft()
            self._control_size -= chunk.size
            return [chunk]
        if not data:
            return []
        lone = self._lone
        if lone is not None:
            self._lone, lone.queued, self.contested = None, False, False
            return [lone]
        if not self._waiting:
            return []
        row, left_of_route = self._turns.next()
        queue, left = row.turns.next()
        self.contested = bool(left_of_route or left)
        if not self.contested:
            return self._take_from(queue, RECORD_SIZE)
        limits = [limit for limit in (left_of_route, left) if limit]
        if queue.chunks[0].size > _LONGEST_CONTESTED:
            _split_first(queue.chunks)
        return self._take_from(queue, min(CONTESTED_SIZE, *limits))

    def take_all(self) -> list[Chunk]:
        """Everything that waits, paused or not, no longer queued here."""
        self._line_up()
        chunks = [*self._control]
        for queue in self._queues.values():
            chunks += queue.chunks
            queue.chunks.clear()
            queue.row.turns.clear()
            queue.row.waiting = 0
        self.signals.clear()
        self._control.clear()
        self._turns.clear()
        self._waiting = 0
        self._control_size = 0
        return _taken(chunks)

    def adopt(self, chunks: Sequence[Chunk]) -> None:
        """Queue chunks of another connection to the same endpoint."""
        self._line_up()
        for chunk in chunks:
            chunk.own()
            chunk.queued = True
            self._add(chunk)

    def own_pieces(self) -> None:
        """Copy whatever still points into the read buffer."""
        for chunk in self.views:
            if chunk.queued:
                chunk.own()
        self.views.clear()

    def _line_up(self) -> None:
        """Something else waits, too, or a lane is paused: what was alone is queued like others."""
        chunk, self._lone = self._lone, None
        if chunk is not None:
            self._add(chunk)

    def _add(self, chunk: Chunk) -> None:
        if chunk.kind is not Kind.OVERLAY:
            self._control.append(chunk)
            self._control_size += chunk.size
            return
        queue = self._queues.get(chunk.lane) or self._queue(chunk.lane)
        queue.output = chunk.output
        chunks = queue.chunks
        chunks.append(chunk)
        if len(chunks) == 1:
            self._enlist(queue)

    def _queue(self, lane: Lane) -> _Queue:
        """The queue of a lane, made if need be."""
        queue = self._queues.get(lane)
        if queue is None:
            row = self._rows.setdefault(lane.route, _Row())
            queue = self._queues[lane] = _Queue(row)
        return queue

    def _enlist(self, queue: _Queue) -> None:
        """It has something: it takes turns from now on, or saves them."""
        row = queue.row
        row.turns.join(queue)
        if not queue.paused:
            self._turns.join(row)
            self._count(row, 1)

    def _count(self, row: _Row, change: int) -> None:
        row.waiting += change
        self._waiting += change

    def _take_from(self, queue: _Queue, limit: int) -> list[Chunk]:
        """Chunks up to a limit, or one that is longer by itself."""
        taken, size = [], 0
        chunks, row = queue.chunks, queue.row
        while chunks and size < limit:
            chunk = chunks.popleft()
            chunk.queued = False
            size += chunk.size
            taken.append(chunk)
        row.turns.pay(queue, size)
        self._turns.pay(row, size)
        if not chunks:
            self._count(row, -1)
        return taken

    def _tidy(self) -> None:
        """Nothing waits: forget what routes owe, and lanes if there are many."""
        self._turns.clear()
        if len(self._queues) > self._lanes:
            self._queues = {lane: queue for lane, queue in self._queues.items() if queue.paused}
            self._rows = {lane.route: queue.row for lane, queue in self._queues.items()}
            self._lanes = max(_LANES, 2 * len(self._queues))


def own(piece: Piece) -> Piece:
    """The same bytes, which the next read does not overwrite."""
    return bytes(piece) if type(piece) is memoryview else piece


def _split_first(chunks: deque[Chunk]) -> None:
    """Put parts of a turn's size in the place of a long chunk; a long message stays whole."""
    chunk = chunks[0]
    if chunk.frames > 1:
        chunks.popleft()
        chunk.queued = False
        whole = memoryview(b"".join(chunk.pieces))
        parts = [
            Chunk(chunk.lane, chunk.kind, (bytes(part),), len(part), chunk.output, frames)
            for part, frames in split_frames(whole, _PART)
        ]
        chunks.extendleft(reversed(parts))


def _taken(chunks: Iterable[Chunk]) -> list[Chunk]:
    taken = list(chunks)
    for chunk in taken:
        chunk.queued = False
    return taken
