"""What waits to be written on one connection.

Its one rule: control goes before data, data of one route stays in order, and a route that the
other end has paused holds up no other. Bounds are kept by those who queue: an `Output` for each
neighbor, `CONTROL_LIMIT` here for control records.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

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
    """

    route: Route
    kind: Kind
    pieces: Sequence[Piece]
    size: int
    output: Output | None
    frames: int

    def own(self) -> None:
        """Copy whatever points into the read buffer, which the next read overwrites."""
        if type(self.pieces) is not tuple:
            self.pieces = tuple(own(piece) for piece in self.pieces)


@define(eq=False, repr=False)
class Outgoing:
    """The queues of one connection."""

    _control: deque[Chunk] = field(factory=deque, init=False)
    _control_size: int = field(default=0, init=False)
    _data: deque[Chunk] = field(factory=deque, init=False)
    _paused: dict[Route, deque[Chunk]] = field(factory=dict, init=False)

    @property
    def empty(self) -> bool:
        """Whether nothing waits."""
        return not (self._control or self._data or any(self._paused.values()))

    def ready(self, data: bool) -> bool:
        """Whether something can be written now, with or without data."""
        return bool(self._control or (data and self._data))

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
        if self._paused and chunk.route in self._paused:
            chunk.own()
        self._add(chunk)

    def pause(self, route: Route) -> None:
        """Write no data of this route for now."""
        if route in self._paused:
            return
        self.own_pieces()
        data, self._data = self._data, deque()
        self._paused[route] = deque()
        for chunk in data:
            self._add(chunk)

    def resume(self, route: Route) -> None:
        """Write data of this route again."""
        self.own_pieces()
        self._data.extend(self._paused.pop(route, ()))

    def is_paused(self, route: Route) -> bool:
        """Whether data of this route waits for the other end."""
        return route in self._paused

    def discard(self, route: Route) -> list[Chunk]:
        """The data of a paused route, no longer queued here; the route stays paused."""
        chunks = list(self._paused.get(route, ()))
        if chunks:
            self._paused[route].clear()
        return chunks

    def take(self, data: bool) -> list[Chunk]:
        """The next chunks, which share one record; empty when none may be written.

        Args:
            data: whether overlay messages may be written.
        """
        if self._control:
            chunk = self._control.popleft()
            self._control_size -= chunk.size
            return [chunk]
        queue = self._data
        if not (data and queue):
            return []
        chunks = [queue.popleft()]
        size, route = chunks[0].size, chunks[0].route
        while queue and size < RECORD_SIZE and queue[0].route == route:
            size += queue[0].size
            chunks.append(queue.popleft())
        return chunks

    def take_all(self) -> list[Chunk]:
        """Everything that waits, paused or not, no longer queued here."""
        chunks = [*self._control, *self._data]
        for paused in self._paused.values():
            chunks += paused
            paused.clear()
        self._control.clear()
        self._data.clear()
        self._control_size = 0
        return chunks

    def adopt(self, chunks: Sequence[Chunk]) -> None:
        """Queue chunks of another connection to the same endpoint."""
        self.own_pieces()
        for chunk in chunks:
            chunk.own()
            self._add(chunk)

    def own_pieces(self) -> None:
        """Copy whatever points into the read buffer. Of the queued chunks the newest may."""
        for chunk in reversed(self._data):
            if type(chunk.pieces) is tuple:
                break
            chunk.own()

    def _add(self, chunk: Chunk) -> None:
        if chunk.kind is Kind.OVERLAY:
            self._paused.get(chunk.route, self._data).append(chunk)
        else:
            self._control.append(chunk)
            self._control_size += chunk.size


def own(piece: Piece) -> Piece:
    """The same bytes, which the next read does not overwrite."""
    return bytes(piece) if type(piece) is memoryview else piece
