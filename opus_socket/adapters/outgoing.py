"""What waits to be written on one connection.

Its one rule: control goes before data, data of one route stays in order, and no route holds up
another: they take turns, a record each, and one that the other end has paused is left out until it
is resumed. Both cost the same however much is queued. Bounds are kept by those who queue: an
`Output` for each neighbor, `CONTROL_LIMIT` here for control records.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence

from attrs import define, field

from opus_socket.adapters.base import Route
from opus_socket.adapters.flow import Output
from opus_socket.core.dispatch import Piece
from opus_socket.core.effects import Kind

CONTROL_LIMIT = 1 << 20
"""Bytes of control records that may wait on one connection."""

RECORD_SIZE = 1 << 18
"""Bytes of overlay messages in one record, above which no more are added to it."""


@define(eq=False, repr=False)
class Chunk:
    """The body of one record, or a part of it, and where it goes.

    Attributes:
        route, kind: what it is and whom it is for.
        pieces: the bytes; in a tuple when they are owned, in a list while they may point into the
            read buffer.
        size: of all pieces together.
        output: which has admitted it; None for control.
        frames: how many overlay messages it holds.
        queued: whether it waits.
    """

    route: Route
    kind: Kind
    pieces: Sequence[Piece]
    size: int
    output: Output | None
    frames: int
    queued: bool = True

    def own(self) -> None:
        """Copy whatever points into the read buffer, which the next read overwrites."""
        if type(self.pieces) is not tuple:
            self.pieces = tuple(own(piece) for piece in self.pieces)


@define(eq=False, repr=False)
class Outgoing:
    """The queues of one connection."""

    _control: deque[Chunk] = field(factory=deque, init=False)
    _control_size: int = field(default=0, init=False)
    _ready: OrderedDict[Route, deque[Chunk]] = field(factory=OrderedDict, init=False)
    _paused: dict[Route, deque[Chunk]] = field(factory=dict, init=False)
    _views: list[Chunk] = field(factory=list, init=False)

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not (self._control or self._ready or any(self._paused.values()))

    def ready(self, data: bool) -> bool:
        """Whether something can be written now, with or without data."""
        return bool(self._control or (data and self._ready))

    def add_control(self, route: Route, kind: Kind, body: bytes, *, always: bool = False) -> bool:
        """Queue a control record; False when there is no room for it.

        Args:
            route: between which virtual nodes.
            kind: what it is.
            body: of the record.
            always: make room; for records whose number is bounded elsewhere.
        """
        if self._control_size + len(body) > CONTROL_LIMIT and not always:
            return False
        self._add(Chunk(route, kind, (body,), len(body), None, 0))
        return True

    def add_data(self, chunk: Chunk) -> None:
        """Queue overlay messages."""
        if type(chunk.pieces) is not tuple:
            self._views.append(chunk)
        self._add(chunk)

    def pause(self, route: Route) -> None:
        """Write no data of this route for now."""
        if route not in self._paused:
            self._paused[route] = self._ready.pop(route, deque())

    def resume(self, route: Route) -> None:
        """Write data of this route again."""
        queue = self._paused.pop(route, None)
        if queue:
            self._ready[route] = queue

    def is_paused(self, route: Route) -> bool:
        """Whether data of this route waits for the other end."""
        return route in self._paused

    def discard(self, route: Route) -> list[Chunk]:
        """The data of a paused route, no longer queued here; the route stays paused."""
        if route not in self._paused:
            return []
        chunks, self._paused[route] = self._paused[route], deque()
        return _taken(chunks)

    def take(self, data: bool) -> list[Chunk]:
        """The next chunks, which share one record; empty when none may be written.

        Args:
            data: whether overlay messages may be written.
        """
        if self._control:
            chunk = self._control.popleft()
            self._control_size -= chunk.size
            return [chunk]
        if not (data and self._ready):
            return []
        route, queue = next(iter(self._ready.items()))
        chunks, size = [], 0
        while queue and size < RECORD_SIZE:
            chunk = queue.popleft()
            size += chunk.size
            chunks.append(chunk)
        if queue:
            self._ready.move_to_end(route)
        else:
            del self._ready[route]
        return _taken(chunks)

    def take_all(self) -> list[Chunk]:
        """Everything that waits, paused or not, no longer queued here."""
        chunks = [*self._control]
        for queue in (*self._ready.values(), *self._paused.values()):
            chunks += queue
        self._control.clear()
        self._ready.clear()
        self._paused = {route: deque() for route in self._paused}
        self._control_size = 0
        return _taken(chunks)

    def adopt(self, chunks: Sequence[Chunk]) -> None:
        """Queue chunks of another connection to the same endpoint."""
        for chunk in chunks:
            chunk.own()
            chunk.queued = True
            self._add(chunk)

    def own_pieces(self) -> None:
        """Copy whatever still points into the read buffer."""
        for chunk in self._views:
            if chunk.queued:
                chunk.own()
        self._views.clear()

    def _add(self, chunk: Chunk) -> None:
        if chunk.kind is not Kind.OVERLAY:
            self._control.append(chunk)
            self._control_size += chunk.size
            return
        queue = self._paused.get(chunk.route) if self._paused else None
        if queue is None:
            queue = self._ready.get(chunk.route)
        if queue is None:
            queue = self._ready[chunk.route] = deque()
        queue.append(chunk)


def own(piece: Piece) -> Piece:
    """The same bytes, which the next read does not overwrite."""
    return bytes(piece) if type(piece) is memoryview else piece


def _taken(chunks: Iterable[Chunk]) -> list[Chunk]:
    taken = list(chunks)
    for chunk in taken:
        chunk.queued = False
    return taken
