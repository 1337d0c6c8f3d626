"""Members that are not neighbors: those that may become neighbors, and those that are gone.

Its one rule: hearsay is bounded. Whoever was only heard of is asked once a heartbeat, however
often it is named, and for no longer than a neighbor may be silent; after that, or when it is
known to have left, a tombstone keeps its name from coming back by hearsay alone.
"""

from __future__ import annotations

from math import inf

from attrs import define, field

from opus_delaunay.messages import Hello
from opus_socket.core.addresses import Contact, LogicalAddress

MOST_CANDIDATES = 256
MOST_TOMBSTONES = 1024


@define(eq=False)
class Candidate:
    """A member that passed the neighbor test and was sent a Hello.

    Attributes:
        address: its logical address.
        contact: how it is reached.
        entrusted: whether it came by a NewNode: then nobody else may hold on to it.
        since: when it was first asked, in seconds.
        asked_at: when it was last asked.
        rejected: whether it answered that it is no neighbor.
        told: the last Hello that it was sent.
    """

    address: LogicalAddress
    contact: Contact
    entrusted: bool
    since: float
    asked_at: float
    rejected: bool = False
    told: Hello | None = None


@define(eq=False)
class Candidates:
    """The candidates, by logical address.

    Attributes:
        hold_down: seconds between two Hellos to one candidate.
        patience: seconds for which a candidate may be silent.
        next_at: before then `due` has nothing to do, in seconds; inf for never.
    """

    hold_down: float
    patience: float
    next_at: float = field(init=False, default=inf)
    _waiting: dict[LogicalAddress, Candidate] = field(init=False, factory=dict)
    _rejected: dict[LogicalAddress, None] = field(init=False, factory=dict)

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def full(self) -> bool:
        """Whether nobody else can be taken in now. Whoever answered that it is no neighbor gives
        way: it names who may be one, and there must be room to ask that one at once.
        """
        return len(self._waiting) >= MOST_CANDIDATES and not self._rejected

    @property
    def unanswered(self) -> int:
        """How many have not answered yet."""
        return len(self._waiting) - len(self._rejected)

    def get(self, address: LogicalAddress) -> Candidate | None:
        """The candidate of this logical address, if there is one."""
        return self._waiting.get(address)

    def add(self, address: LogicalAddress, contact: Contact, entrusted: bool, now: float) -> bool:
        """Take in a candidate; whether it is to be asked now.

        It is not while its hold-down lasts, nor when the table is full.
        """
        known = self._waiting.get(address)
        if known is not None and contact.incarnation <= known.contact.incarnation:
            known.entrusted |= entrusted
            return False
        if known is not None:
            self._rejected.pop(address, None)
        elif self.full:
            return False
        elif len(self._waiting) >= MOST_CANDIDATES:
            self.discard(next(iter(self._rejected)))
        self._waiting[address] = Candidate(address, contact, entrusted, now, now)
        self.next_at = min(self.next_at, now + self.hold_down)
        return True

    def discard(self, address: LogicalAddress) -> None:
        """Forget a candidate: it became a neighbor, or is hidden by others."""
        self._waiting.pop(address, None)
        self._rejected.pop(address, None)

    def reject(self, address: LogicalAddress) -> None:
        """A candidate is no neighbor; it is not asked again while its hold-down lasts."""
        candidate = self._waiting.get(address)
        if candidate is not None:
            candidate.rejected = True
            self._rejected[address] = None

    def due(self, now: float) -> tuple[list[Candidate], list[Candidate]]:
        """Take the candidates whose hold-down is over.

        Returns:
            Those that are to be asked again, and those that were silent for too long. Whoever
            rejected this member is forgotten without a word, and may be asked when named again.
        """
        again: list[Candidate] = []
        silent: list[Candidate] = []
        for address, candidate in list(self._waiting.items()):
            if candidate.asked_at + self.hold_down > now:
                continue
            if candidate.rejected:
                self.discard(address)
            elif candidate.since + self.patience <= now:
                del self._waiting[address]
                silent.append(candidate)
            else:
                candidate.asked_at = now
                again.append(candidate)
        self._find_next()
        return again, silent

    def shift(self, lateness: float, now: float) -> None:
        """Forgive the silence of a time in which this member did not listen, in seconds."""
        for candidate in self._waiting.values():
            candidate.since = min(now, candidate.since + lateness)
            candidate.asked_at = min(now, candidate.asked_at + lateness)
        self._find_next()

    def _find_next(self) -> None:
        asked = min((candidate.asked_at for candidate in self._waiting.values()), default=inf)
        self.next_at = asked + self.hold_down


@define(eq=False)
class Tombstone:
    """A member that is gone.

    Attributes:
        contact: how it was reached, in the last incarnation that is gone.
        until: when it is forgotten, in seconds.
        left: whether it said goodbye; otherwise it fell silent, and may be heard again.
    """

    contact: Contact
    until: float
    left: bool


@define(eq=False)
class Tombstones:
    """The tombstones, by logical address; the oldest give way when there are too many.

    Attributes:
        lifetime: seconds.
    """

    lifetime: float
    _stones: dict[LogicalAddress, Tombstone] = field(init=False, factory=dict)

    def __len__(self) -> int:
        return len(self._stones)

    def bury(self, address: LogicalAddress, contact: Contact, left: bool, now: float) -> None:
        """A member is gone, in this incarnation and every former one."""
        self._stones.pop(address, None)
        if len(self._stones) >= MOST_TOMBSTONES:
            del self._stones[next(iter(self._stones))]
        self._stones[address] = Tombstone(contact, now + self.lifetime, left)

    def find(self, address: LogicalAddress, contact: Contact, now: float) -> Tombstone | None:
        """The tombstone of this member in this incarnation or a later one, if there is one."""
        stone = self._stones.get(address)
        if stone is None or stone.until <= now or not stone.contact.same_member(contact):
            return None
        return stone if contact.incarnation <= stone.contact.incarnation else None

    def expire(self, now: float) -> bool:
        """Forget the tombstones whose time is over; whether there was one."""
        before = len(self._stones)
        while self._stones:
            address, stone = next(iter(self._stones.items()))
            if stone.until > now:
                break
            del self._stones[address]
        return len(self._stones) < before

    def lift(self, address: LogicalAddress) -> None:
        """The member is back."""
        self._stones.pop(address, None)
