"""Handing a member on to somebody nearer to it, so that no reference is ever lost.

Its one rule: whoever holds the only reference to a member keeps it until somebody nearer has
acknowledged that it took it. A lost reference could make a second sheet of the overlay that no
Hello ever sees; so a NewNode is acknowledged hop by hop, repeated after 0.5, 1 and 2 seconds, and
then given to whoever is nearest by then: one that is silent for so long is a suspect, and comes
last.
"""

from __future__ import annotations

from math import inf

from attrs import define, field

from opus_delaunay.messages import NewNode
from opus_socket.core.addresses import Contact

WAITS = (0.5, 1.0, 2.0, 0.5)
"""Seconds after each of the four times that a NewNode is sent to the same member."""

MOST_HOPS = 0xFFFF
"""A NewNode that was passed on so often goes no further."""

FAR = 64
"""Hops above which a NewNode may be going in a circle."""

PASSES = 16
"""How often a member is passed on within a second when its NewNodes have come from far."""

MOST_HANDOVERS = 256
MOST_RECEIVED = 256
MOST_PASSED = 256
REMEMBERED = 2 * sum(WAITS)
"""Seconds for which a received NewNode is known again."""


@define(eq=False)
class Handover:
    """A NewNode that was sent and not acknowledged yet.

    Attributes:
        message: the NewNode.
        to: whom it was sent to.
        sent: how often it was sent to this one.
        due_at: when to send again, in seconds.
    """

    message: NewNode
    to: Contact
    sent: int
    due_at: float


@define(eq=False)
class Handovers:
    """The handovers under way, by nonce.

    Attributes:
        lost: how many were given up because there were too many.
        next_at: before then `due` has nothing to do, in seconds; inf for never.

    Args:
        nonce: where its numbers begin.
    """

    _nonce: int
    lost: int = field(init=False, default=0)
    next_at: float = field(init=False, default=inf)
    _pending: dict[int, Handover] = field(init=False, factory=dict)

    def __len__(self) -> int:
        return len(self._pending)

    def begin(self, joiner: Contact, hops: int, to: Contact, now: float) -> NewNode:
        """The NewNode to send now."""
        if len(self._pending) >= MOST_HANDOVERS:
            del self._pending[next(iter(self._pending))]
            self.lost += 1
        self._nonce = self._nonce % 0xFFFF_FFFF + 1
        message = NewNode(joiner, hops, self._nonce)
        due_at = now + WAITS[0]
        self._pending[self._nonce] = Handover(message, to, 1, due_at)
        self.next_at = min(self.next_at, due_at)
        return message

    def holds(self, joiner: Contact) -> bool:
        """Whether this member is being handed over."""
        return any(handover.message.joiner == joiner for handover in self._pending.values())

    def acknowledged(self, nonce: int) -> None:
        """Somebody else holds the reference now."""
        self._pending.pop(nonce, None)

    def due(self, now: float) -> tuple[list[Handover], list[Handover]]:
        """Take the handovers that were not acknowledged in time.

        Returns:
            Those that are to be sent again, and those that this member never acknowledged.
        """
        again: list[Handover] = []
        failed: list[Handover] = []
        for nonce, handover in list(self._pending.items()):
            if handover.due_at > now:
                continue
            if handover.sent == len(WAITS):
                del self._pending[nonce]
                failed.append(handover)
            else:
                handover.due_at = now + WAITS[handover.sent]
                handover.sent += 1
                again.append(handover)
        self.next_at = min((handover.due_at for handover in self._pending.values()), default=inf)
        return again, failed

    def shift(self, lateness: float) -> None:
        """Forgive a time in which this member did not listen, in seconds."""
        for handover in self._pending.values():
            handover.due_at += lateness
        self.next_at += lateness


@define(eq=False)
class Received:
    """The NewNodes that were taken lately, so that a repeated one is known again."""

    _until: dict[tuple[Contact, int], float] = field(init=False, factory=dict)

    def __len__(self) -> int:
        return len(self._until)

    def knows(self, sender: Contact, nonce: int, now: float) -> bool:
        """Whether the NewNode with this nonce from this sender was taken."""
        return self._until.get((sender, nonce), -inf) > now

    def note(self, sender: Contact, nonce: int, now: float) -> None:
        """A NewNode was taken."""
        self._until.pop((sender, nonce), None)
        while self._until:
            oldest, until = next(iter(self._until.items()))
            if until > now and len(self._until) < MOST_RECEIVED:
                break
            del self._until[oldest]
        self._until[sender, nonce] = now + REMEMBERED


@define(eq=False)
class Passed:
    """The members that were passed on lately, after many hops, and how often.

    Every hop is nearer than the one before, so nobody comes by twice - unless somebody is not
    where it says that it is. Then a NewNode would go in a circle as fast as the members can.
    """

    _counts: dict[Contact, tuple[float, int]] = field(init=False, factory=dict)

    def __len__(self) -> int:
        return len(self._counts)

    def once_more(self, joiner: Contact, hops: int, now: float) -> bool:
        """Whether a member may be passed on, in a NewNode that came over so many hops."""
        if hops < FAR:
            return True
        since, count = self._counts.pop(joiner, (now, 0))
        if now - since >= 1.0:
            since, count = now, 0
        if len(self._counts) >= MOST_PASSED:
            del self._counts[next(iter(self._counts))]
        self._counts[joiner] = since, count + 1
        return count < PASSES and hops < MOST_HOPS
