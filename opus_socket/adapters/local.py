"""Hand-over between members of one process: no socket, no system call, the same rules.

Its one rule: a neighbor in the same process is fed like any other, through a bounded output and
with the same back-pressure; only the wire is left out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from attrs import define, field

from opus_socket.adapters.base import Route, Switchboard
from opus_socket.adapters.flow import Intake, Output
from opus_socket.core.addresses import Contact
from opus_socket.core.dispatch import Piece
from opus_socket.core.effects import Kind
from opus_socket.core.runs import LONGEST_PIECE, split_pieces

LONGEST_BATCH = 1 << 22
"""Bytes that are handed over at once."""

MAX_MESSAGES = 1 << 17
"""How many messages may wait to be handed over."""

MESSAGES_PER_TURN = 64


@define(eq=False, repr=False)
class LocalMessages:
    """Protocol, rendezvous and measurement messages between members of one host.

    Args:
        host: where they live.
    """

    host: Switchboard
    _queue: deque[tuple[Route, Kind, bytes, Contact]] = field(factory=deque, init=False)
    _listed: bool = field(default=False, init=False)

    def push(self, route: Route, kind: Kind, body: bytes, sender: Contact) -> bool:
        """Queue a message; False when there is no room."""
        if len(self._queue) >= MAX_MESSAGES:
            return False
        self._queue.append((route, kind, body, sender))
        if not self._listed:
            self._listed = True
            self.host.run_later(self)
        return True

    def run(self) -> None:
        """Hand over some of them; the rest comes after what others have to hand over."""
        self._listed = False
        queue = self._queue
        for _ in range(min(MESSAGES_PER_TURN, len(queue))):
            self.host.message(*queue.popleft())
        if queue and not self._listed:
            self._listed = True
            self.host.run_later(self)


@define(eq=False, repr=False)
class LocalLink:
    """Overlay messages from one member to a neighbor in the same host.

    Args:
        host: where both live.
        route: between which virtual nodes.
        sender: where the feeding member is.
        output: its bounds.
    """

    host: Switchboard
    route: Route
    sender: Contact
    output: Output
    _queue: deque[tuple[bytes, int]] = field(factory=deque, init=False)
    _intake: Intake = field(init=False)
    _listed: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._intake = Intake(self._list)

    def push(self, pieces: Sequence[Piece], size: int, frames: int) -> None:
        """Queue whole frames, or drop and count them."""
        if self.output.admit(size, frames, self.host.now()):
            self.hand_on(pieces, size, frames)

    def hand_on(self, pieces: Sequence[Piece], size: int, frames: int) -> None:
        """Queue whole frames that the output has admitted."""
        if size <= LONGEST_BATCH:
            self._queue.append((b"".join(pieces), frames))
        else:
            # A long message is not copied once more, and gives others a turn.
            for part, _, count in split_pieces(pieces, LONGEST_PIECE):
                self._queue.append((b"".join(part), count))
        self._list()

    def run(self) -> None:
        """Hand over what is queued, as long as the receiving member can take it."""
        self._listed = False
        while self._queue and not self._intake.blocked:
            data, _ = self._queue.popleft()
            blockers: list[Output] = []
            self.host.frames(self.route, memoryview(data), self.sender, blockers)
            self.output.release(len(data), self.host.now())
            if blockers:
                self._intake.wait_for(blockers)

    def evict(self) -> None:
        """Give up what is queued: the neighbor has taken nothing for too long."""
        queue, self._queue = self._queue, deque()
        for data, frames in queue:
            self.output.release(len(data), self.host.now())
            self.output.lose(frames, len(data), "evicted")

    def close(self) -> None:
        """What is queued still arrives."""

    def _list(self) -> None:
        if not self._listed and self._queue and not self._intake.blocked:
            self._listed = True
            self.host.run_later(self)
