"""Hand-over between members of one process: no socket, no system call, the same rules.

Its one rule: a neighbor in the same process is fed like any other, through bounded outputs, with
the same back-pressure and the same turns of traffic classes; only the wire is left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from attrs import define, field

from opus_socket.adapters.base import Feeder, Route, Switchboard
from opus_socket.adapters.flow import Intake, Output
from opus_socket.adapters.turns import CLASS_TURN, ROUTE_TURN, Turns
from opus_socket.core.addresses import Contact
from opus_socket.core.dispatch import Piece
from opus_socket.core.effects import Kind
from opus_socket.core.parcel import Parcel
from opus_socket.core.runs import LONGEST_PIECE, split_pieces
from opus_socket.core.wire import ProtocolMessage

LONGEST_BATCH = 1 << 22
"""Bytes that are handed over at once."""

LITTLE = 1 << 12
"""Bytes of frames that are handed over together with others, if they have to wait."""

MAX_MESSAGES = 1 << 17
"""How many messages may wait to be handed over."""

MESSAGES_PER_TURN = 64


class Household(Switchboard, Protocol):
    """What is seen of the host here."""

    def hear(self, route: Route, message: ProtocolMessage, sender: Contact) -> None:
        """A protocol message came from one of its members, as it was sent."""

    def run_soon(self, feeder: Feeder) -> None:
        """As `run_later`, but before all that wait except the next."""


@define(eq=False, repr=False)
class LocalMessages:
    """Protocol, rendezvous and measurement messages between members of one host. However many
    feed others with overlay messages, these have their turn after each of them.

    Args:
        host: where they live.
    """

    host: Household
    _queue: deque[tuple[Route, Kind, bytes | ProtocolMessage, Contact]] = field(
        factory=deque, init=False
    )
    _listed: bool = field(default=False, init=False)

    def push(
        self, route: Route, kind: Kind, body: bytes | ProtocolMessage, sender: Contact
    ) -> bool:
        """Queue a message, a protocol's as it is; False when there is no room."""
        if len(self._queue) >= MAX_MESSAGES:
            return False
        self._queue.append((route, kind, body, sender))
        if not self._listed:
            self._listed = True
            self.host.run_soon(self)
        return True

    def run(self) -> None:
        """Hand over some of them; the rest comes after whoever has to hand over next."""
        self._listed = False
        queue = self._queue
        host = self.host
        for _ in range(min(MESSAGES_PER_TURN, len(queue))):
            route, kind, body, sender = queue.popleft()
            if isinstance(body, ProtocolMessage):
                host.hear(route, body, sender)
            else:
                host.message(route, kind, body, sender)
        if queue and not self._listed:
            self._listed = True
            self.host.run_soon(self)


@define(eq=False, repr=False)
class LocalLink:
    """Overlay messages from one member to a neighbor in the same host, in one traffic class.

    Args:
        way: what it shares with the other classes.
        output: its bounds.
    """

    way: LocalWay
    output: Output
    _queue: deque[tuple[Parcel, int]] = field(factory=deque, init=False)
    _closed: list[Output] = field(factory=list, init=False)
    _intake: Intake = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._intake = Intake(self._join, lambda when: (self.output,))

    @property
    def weight(self) -> int:
        """Its share of what the neighbor takes."""
        return self.output.weight

    @property
    def waits(self) -> bool:
        """Whether it can hand something over now."""
        return bool(self._queue) and not self._must_wait

    @property
    def held_back(self) -> bool:
        """Whether it has something, and has to wait."""
        return bool(self._queue) and self._must_wait

    def push(self, pieces: Sequence[Piece], size: int, frames: int) -> None:
        """Queue whole frames, or drop and count them."""
        if self.output.admit(size, frames, self.way.host.now()):
            self.hand_on(pieces, size, frames)

    def hand_on(self, pieces: Sequence[Piece], size: int, frames: int) -> None:
        """Queue whole frames that the output has admitted."""
        if size > LONGEST_BATCH:
            # A long message is not copied once more, and gives others a turn.
            for part, length, count in split_pieces(pieces, LONGEST_PIECE):
                self._queue.append((_parcel_of(part, length), count))
        else:
            self._queue.append((_parcel_of(pieces, size), frames))
        self.way.join(self)

    def hand_over(self) -> int:
        """Hand over what was queued first; its bytes."""
        way = self.way
        parcel = self._take()
        closed: list[Output] = []
        way.host.frames(way.route, parcel, way.sender, closed)
        self._closed = closed
        self.output.release(parcel.size, way.host.now())
        return parcel.size

    def evict(self) -> None:
        """Give up what is queued: the neighbor has taken nothing for too long."""
        queue, self._queue = self._queue, deque()
        now = self.way.host.now()
        for parcel, frames in queue:
            self.output.release(parcel.size, now)
            self.output.lose(frames, parcel.size, "evicted")

    def close(self) -> None:
        """What is queued still arrives."""

    def stand_by(self) -> None:
        """Wait until the outputs are open which were closed when it fed them last."""
        if not self._intake.blocked:
            self._intake.wait_for(self._closed)

    def _take(self) -> Parcel:
        """What was queued first. Where much little waits it is taken together: to be joined and
        scanned again costs less than to be handed over one by one.
        """
        queue = self._queue
        first, _ = queue.popleft()
        size = first.size
        if size > LITTLE or not queue or queue[0][0].size > LITTLE:
            return first
        pieces = [*first]
        while queue and queue[0][0].size <= LITTLE and size < CLASS_TURN:
            parcel, _ = queue.popleft()
            pieces += parcel
            size += parcel.size
        return Parcel(size, pieces)

    @property
    def _must_wait(self) -> bool:
        return self._intake.blocked or any(output.closed for output in self._closed)

    def _join(self) -> None:
        if self._queue:
            self.way.join(self)


@define(eq=False, repr=False)
class LocalWay:
    """What the links from one member to one neighbor in the same host share: their turns.

    Args:
        host: where both live.
        route: between which virtual nodes.
        sender: where the feeding member is.
    """

    host: Switchboard
    route: Route
    sender: Contact
    _turns: Turns[LocalLink] = field(factory=lambda: Turns(CLASS_TURN), init=False)
    _credit: int = field(default=ROUTE_TURN, init=False)
    _listed: bool = field(default=False, init=False)

    def join(self, link: LocalLink) -> None:
        """A link has something to hand over."""
        self._turns.join(link)
        self._list()

    def run(self) -> None:
        """Hand over what is queued, as long as the receiving member can take it and until others
        have their turn.
        """
        self._listed = False
        if self._credit <= 0:
            self._credit += ROUTE_TURN
            self._list()
            return
        while any(link.waits for link in self._turns):
            if self._credit <= 0:
                self._list()
                return
            link, _ = self._turns.next()
            size = link.hand_over()
            self._credit -= size
            self._turns.pay(link, size)
        for link in self._turns:
            link.stand_by()

    def _list(self) -> None:
        if not self._listed:
            self._listed = True
            self.host.run_later(self)


def _parcel_of(pieces: Sequence[Piece], size: int) -> Parcel:
    """A parcel of these pieces: itself, or a copy of what may point into the read buffer."""
    return pieces if type(pieces) is Parcel else Parcel(size, (b"".join(pieces),))
