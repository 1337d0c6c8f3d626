"""What a server remembers of one overlay: a sample of its confirmed members, and its leaders.

Its one rule: memory and pings for an overlay are bounded however large it is. The confirmed
members are a uniform sample (reservoir sampling: Vitter, 1985, algorithm R), the leaders a table
of their own bound beside it; each member is asked now and then whether it is still there.
"""

from __future__ import annotations

from heapq import nsmallest
from math import inf
from random import Random

from attrs import define, field

from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.key_attributes import Pairs
from opus_socket.core.rendezvous_messages import MAX_MEMBERS
from opus_socket.rendezvous.admission import Admission


@define(eq=False)
class Member:
    """A confirmed member.

    Attributes:
        sender: where it answers: the endpoint that showed a cookie.
        contact: its own contact, as others are to use it.
        heard: seconds, when it was last heard.
        leads_until: seconds, until when it counts as a leader.
        sampled: whether it is one of the sample; otherwise it is remembered as a leader only.
        nonce: of the last ping.
        pings: how many pings in a row it did not answer.
    """

    sender: Contact
    contact: Contact
    heard: float
    leads_until: float
    sampled: bool = False
    nonce: int = 0
    pings: int = 0


@define(eq=False)
class Cache:
    """One overlay, as the members with one digest of key attributes see it.

    Args:
        tag: the overlay's tag.
        admission: who is joining.
        sample_size, leaders_size: how many members are remembered at most.
        rng: chooses whom to remember and whom to tell.

    Attributes:
        attributes: its key attributes; None until a member stated them.
        members: by the sender's contact.
        confirmed: an estimate of how many confirmed members there are: exact as long as all are
            remembered; each one of a sample stands for several that come and go alike.
        recent: when joiners and leaders last asked, the newest last.
        announced: seconds, the time up to which the right to announce is used up.
        asked: seconds, when somebody last asked to join it or told of itself.
    """

    tag: int
    admission: Admission
    _sample_size: int
    _leaders_size: int
    _rng: Random
    attributes: Pairs | None = None
    members: dict[Contact, Member] = field(factory=dict, init=False)
    confirmed: float = field(default=0.0, init=False)
    recent: dict[Contact, float] = field(factory=dict, init=False)
    announced: float = field(default=-inf, init=False)
    asked: float = field(default=-inf, init=False)
    _sampled: int = field(default=0, init=False)

    @property
    def size(self) -> int:
        """How many confirmed members there are, about; none when none is remembered."""
        return max(round(self.confirmed), len(self.members)) if self.members else 0

    @property
    def is_empty(self) -> bool:
        """Whether nobody is known to be in the overlay or on the way."""
        return not self.members and not len(self.admission)

    def note(
        self, sender: Contact, contact: Contact, leads_until: float, now: float, *, joined: bool
    ) -> Member | None:
        """A confirmed member told of itself.

        Args:
            sender: where it answers.
            contact: its own contact.
            leads_until: seconds, until when it is a leader; 0.0 for one that is none.
            now: seconds.
            joined: whether it had been admitted, so that it is surely a new one.

        Returns:
            the member, when it is remembered from now on.
        """
        known = self.members.get(sender)
        if known is not None:
            known.contact, known.heard, known.pings = contact, now, 0
            known.leads_until = max(known.leads_until, leads_until)
            return None
        if joined or self._sampled < self._sample_size:
            self.confirmed += 1
        member = Member(sender, contact, now, leads_until)
        member.sampled = self._enters_sample(now)
        if not member.sampled and not self._has_room_beside(member, now):
            return None
        self._sampled += member.sampled
        self.members[sender] = member
        return member

    def left(self, sender: Contact) -> None:
        """A member says that it leaves."""
        if self.members.get(sender) is not None or self.confirmed > self._sampled:
            self._forget(sender, 1.0)

    def failed(self, member: Member) -> None:
        """A member does not answer, and with it probably as many of those who are not asked."""
        self._forget(member.sender, self.confirmed / self._sampled if member.sampled else 0.0)

    def retire(self, member: Member) -> None:
        """One that is remembered as a leader only leads no more."""
        del self.members[member.sender]

    def _forget(self, sender: Contact, stands_for: float) -> None:
        member = self.members.pop(sender, None)
        self.confirmed = max(0.0, self.confirmed - stands_for) if self.members else 0.0
        if member is not None and member.sampled:
            self._sampled -= 1

    def tell_leader(self, asker: Contact, now: float) -> list[Member]:
        """At most 16 random members other than the asker, of whom up to half are leaders: a leader
        looks for those of other fragments.
        """
        leaders = [member for member in self.members.values() if member.leads_until > now]
        return self._with_random(self._some(leaders, asker, MAX_MEMBERS // 2), asker)

    def tell_joiner(self, asker: Contact, place: LogicalAddress | None) -> list[Member]:
        """At most 16 members other than the asker: half of them nearest to the place where it
        wants to be, if it knows one, the others random ones, whatever "near" may mean to its
        protocol. No leaders first: joiners would make a leader the hot spot.
        """
        nearest = self._nearest(place, MAX_MEMBERS // 2) if place else []
        near = [member for member in nearest if member.sender != asker]
        return self._with_random(near, asker)

    def _nearest(self, place: LogicalAddress, most: int) -> list[Member]:
        """Those with the least squared distance, of logical addresses as points."""
        ranked = [
            (sum((a - b) ** 2 for a, b in zip(place, address, strict=True)), number, member)
            for number, member in enumerate(self.members.values())
            if (address := member.contact.address) is not None and len(address) == len(place)
        ]
        return [member for _, _, member in nsmallest(most, ranked)]

    def _with_random(self, chosen: list[Member], asker: Contact) -> list[Member]:
        taken = {member.sender for member in chosen}
        members = [member for sender, member in self.members.items() if sender not in taken]
        return chosen + self._some(members, asker, MAX_MEMBERS - len(chosen))

    def _some(self, members: list[Member], asker: Contact, most: int) -> list[Member]:
        """Random ones, but not the asker."""
        # One more than is wanted, because the asker may be among them.
        some = self._rng.sample(members, min(len(members), most + 1))
        return [member for member in some if member.sender != asker][:most]

    def listeners(self, announcer: Contact, since: float, most: int) -> list[Contact]:
        """Random ones of those who joined or led since then, other than the announcer."""
        recent = [who for who, when in self.recent.items() if when >= since and who != announcer]
        return self._rng.sample(recent, min(len(recent), most))

    def register(self, sender: Contact, most: int, now: float) -> None:
        """A joiner or leader asked: announcements are for it."""
        self.recent.pop(sender, None)
        self.recent[sender] = now
        if len(self.recent) > most:
            del self.recent[next(iter(self.recent))]

    def expire(self, since: float, now: float) -> None:
        """Forget who asked longer ago, and who was admitted and did not confirm."""
        self.recent = {who: when for who, when in self.recent.items() if when >= since}
        self.admission.expire(now)

    def _enters_sample(self, now: float) -> bool:
        if self._sampled < self._sample_size:
            return True
        if self._rng.random() * self.confirmed >= self._sample_size:
            return False
        out = self._rng.choice([member for member in self.members.values() if member.sampled])
        if not self._has_room_beside(out, now):
            del self.members[out.sender]
        out.sampled = False
        self._sampled -= 1
        return True

    def _has_room_beside(self, member: Member, now: float) -> bool:
        """Whether a member is to be remembered as a leader only."""
        return member.leads_until > now and len(self.members) - self._sampled < self._leaders_size
