"""The upkeep of one member's star: what is said among neighbors, and among those who may be.

Its one rule: a neighbor is who said Hello itself and passes the neighbor test. Everything else is
hearsay, and leads to a question, never to an entry.

What is to be sent gathers in its `speech`; the node that owns the upkeep hands it on.
"""

from __future__ import annotations

from opus_delaunay.candidates import Candidates, Tombstones
from opus_delaunay.handover import Handovers, Passed, Received
from opus_delaunay.messages import Goodbye, Hello, NewNode, NewNodeAck, Reject
from opus_delaunay.settings import LAS, DelaunaySettings
from opus_delaunay.speech import Speech
from opus_delaunay.star import Neighbor, Star
from opus_delaunay.statistics import Counters
from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.neighborhood import Patience

SUSPECT_AFTER = 2.25
"""Heartbeats: two missed Hellos, and the jitter and delay of the second."""

PROBES = 5
LEAST_PROBE_INTERVAL = 0.1
"""Seconds; a round trip should fit in."""

CROSSING = 0.25
"""Heartbeats within which two first Hellos may have crossed on their way."""

MOST_NEIGHBORS = 4096
"""A member in the middle of so many is not met by more."""

_EVERYBODY = LogicalAddress.everybody(LAS)


def place_of(contact: Contact) -> LogicalAddress | None:
    """The contact's coordinates; None if it has none that a member may have."""
    address = contact.address
    return None if address is None or len(address) != LAS + 1 or address == _EVERYBODY else address


class Upkeep:
    """The star of one member, and everything that keeps it true.

    Args:
        contact: the member's own contact.
        address: its coordinates.
        settings: the table `[node.delaunay]`.
        nonce: where the numbers of its NewNodes begin.

    Attributes:
        star: its neighbors.
        candidates: members that were asked to become neighbors.
        handovers: members that are being handed on to somebody nearer.
        counters: what it counts.
        speech: what it says.
        changed: whether the star, or what is known about it, changed since this was last reset.
        left: whether the neighbor that went last said goodbye.
    """

    def __init__(
        self, contact: Contact, address: LogicalAddress, settings: DelaunaySettings, nonce: int
    ) -> None:
        beat = settings.heartbeat
        silence = settings.neighbor_timeout * beat
        patience = Patience(
            suspect_after=SUSPECT_AFTER * beat,
            fail_after=silence,
            probe_interval=max(LEAST_PROBE_INTERVAL, (silence - SUSPECT_AFTER * beat) / PROBES),
            probes=PROBES,
        )
        self.contact = contact
        self.address = address
        self.star = Star.around(address, patience)
        self.candidates = Candidates(beat, silence)
        self.handovers = Handovers(nonce)
        self.counters = Counters()
        self.speech = Speech(contact, self.star, self.counters)
        self.changed = True
        self.left = False
        self._rows = self.star.table.rows
        self._crossing = CROSSING * beat
        self._tombstones = Tombstones(silence)
        self._received = Received()
        self._passed = Passed()
        self._gap: dict[LogicalAddress, None] = {}

    def settled(self, now: float) -> bool:
        """Whether everybody who is named by a neighbor and passes the neighbor test is a neighbor,
        and nobody rejects this member.

        Who is named and fails the test is hidden by members that whoever named it has yet to meet.
        To wait for that one's next word would let a join last until its beat.
        """
        rows, hides = self._rows, self.star.hides
        for row in rows.values():
            if row.rejected:
                return False
            for address, contact in row.names:
                if (
                    address not in rows
                    and not hides(address)
                    and self._tombstones.find(address, contact, now) is None
                ):
                    return False
        return True

    def shift(self, lateness: float, now: float) -> None:
        """Forgive the silence of a time in which this member itself did not listen, in seconds."""
        self.star.table.shift(lateness, now)
        self.candidates.shift(lateness, now)
        self.handovers.shift(lateness)

    def beat(self) -> None:
        """Say hello to every neighbor that is not being probed anyway."""
        for row in self._rows.values():
            if row.suspected_at is None:
                before = row.sent
                self.speech.greet(row)
                self.counters.repeated += row.sent is before

    def inspect(self, now: float) -> float:
        """Probe the suspects and give up the failed; returns when to look again, in seconds."""
        if self._tombstones.expire(now):
            self._reconsider(now)
        inspection = self.star.inspect(now)
        for row in inspection.probe:
            self.speech.greet(row, heard=False)
            self.changed = True
        for row in inspection.failed:
            self.counters.failed += 1
            self._remove(row, False, now)
        return inspection.next_at

    def flush_gap(self) -> None:
        """Tell the neighbors at the edges of a gap who is next to them now."""
        if self._gap:
            edges, self._gap = self._gap, {}
            for address in edges:
                row = self._rows.get(address)
                if row is not None and row.suspected_at is None:
                    self.speech.greet(row, only_news=True)

    def ask_again(self, now: float) -> None:
        """Repeat what candidates did not answer, and give up the silent ones."""
        again, silent = self.candidates.due(now)
        self.changed = True
        for candidate in again:
            if not self.star.hides(candidate.address):
                self._ask(candidate.address, candidate.contact)
                continue
            self.candidates.discard(candidate.address)
            if candidate.entrusted:
                self._let_go(candidate.address, candidate.contact, now)
        for candidate in silent:
            self.counters.silent += 1
            self._tombstones.bury(candidate.address, candidate.contact, False, now)

    def hand_over_again(self, now: float) -> None:
        """Repeat NewNodes that nobody acknowledged; after a while, begin anew."""
        again, failed = self.handovers.due(now)
        for handover in again:
            self.speech.send(handover.to, handover.message)
        for handover in failed:
            joiner = handover.message.joiner
            address = place_of(joiner)
            if address is None:
                continue
            row = self._rows.get(address)
            if row is not None and row.contact == handover.to:
                # The holder of the joiner's address does not answer: its place is free.
                self.counters.failed += 1
                self._remove(row, False, now)
            self.find_place(address, joiner, handover.message.hops, now)

    def on_hello(self, hello: Hello, now: float) -> None:
        """Somebody says hello: a neighbor, a candidate, or somebody new."""
        source, own, speech = hello.source, self.contact, self.speech
        address = place_of(source)
        if address is None:
            self.counters.malformed += 1
            return
        if hello.to != self.address:
            # It greets somebody who is gone from here: this member at its former address, or
            # whoever had this endpoint before.
            gone = Contact(hello.to, hello.incarnation, own.index, own.endpoints)
            speech.send(source, Goodbye(gone))
            return
        if address == self.address:
            self.speech.contest(source)
            return
        if source.same_member(own):
            self.counters.malformed += 1
            return
        hears = hello.heard and hello.incarnation == own.incarnation
        row = self._rows.get(address)
        if row is not None and row.contact is not source and not self._renew(row, source, now):
            return
        asked = self.candidates.get(address)
        overtaken = False
        dropped: list[Neighbor] = []
        if row is None:
            if self._bars(address, source, hears, now):
                return
            if self.star.hides(address):
                self._reject(address, hello, now)
                return
            if not self._makes_way(source, now):
                return
            overtaken = asked is not None and speech.is_outdated(asked.told, address)
            row, dropped = self.star.insert(address, source, now)
            self.candidates.discard(address)
        elif hears:
            self.star.confirm(row, now)
        row.received_at = now
        row.hello, row.mutual, row.rejected = hello, hears, False
        row.names = self._others(hello.clockwise, hello.counterclockwise)
        self.changed = True
        outdated = [name for name in row.names if not self._consider(*name, now)]
        for gone_row in dropped:
            self._let_go(gone_row.address, gone_row.contact, now)
        if not hears:
            # Unless it answers this member's question without knowing: two such Hellos crossed.
            if asked is None or overtaken or asked.asked_at + self._crossing < now:
                self.speech.greet(row)
        elif outdated or overtaken:
            self.speech.greet(row, only_news=True)

    def on_reject(self, reject: Reject, now: float) -> None:
        """Somebody says who stands between: there is somebody to get to know."""
        address = place_of(reject.source)
        if address is None:
            self.counters.malformed += 1
            return
        if reject.to != self.address or reject.incarnation != self.contact.incarnation:
            return
        self.candidates.reject(address)
        row = self._rows.get(address)
        if row is not None:
            row.received_at = now
            row.rejected = True
        self.changed = True
        for name in self._others(reject.clockwise, reject.counterclockwise):
            self._consider(*name, now)

    def on_new_node(self, message: NewNode, sender: Contact, now: float) -> None:
        """Somebody is looking for its place, or is handed on."""
        joiner, nonce = message.joiner, message.nonce
        address = place_of(joiner)
        if address is None:
            self.counters.malformed += 1
        elif not nonce:
            self.find_place(address, joiner, message.hops, now, surely=False)
        elif self._received.knows(sender, nonce, now):
            self.speech.send(sender, NewNodeAck(nonce))
        elif self.find_place(address, joiner, message.hops, now):
            self._received.note(sender, nonce, now)
            self.speech.send(sender, NewNodeAck(nonce))

    def on_goodbye(self, contact: Contact, now: float) -> None:
        """A member is gone."""
        address = place_of(contact)
        if address is None:
            self.counters.malformed += 1
            return
        row = self._rows.get(address)
        if row is None:
            self.candidates.reject(address)
            self._tombstones.bury(address, contact, True, now)
            self.changed = True
        elif row.contact.same_member(contact) and row.contact.incarnation <= contact.incarnation:
            self._remove(row, True, now)

    def introduce(self, to: Contact, now: float, surely: bool = True) -> None:
        """Ask somebody who was found to find this member's place; see `find_place`."""
        if surely:
            self.speech.send(to, self.handovers.begin(self.contact, 0, to, now))
        else:
            self.speech.send(to, NewNode(self.contact, 0, 0))

    def find_place(
        self,
        address: LogicalAddress,
        joiner: Contact,
        hops: int,
        now: float,
        surely: bool = True,
    ) -> bool:
        """Ask a member to become a neighbor if it passes; else hand it on to somebody nearer.

        Args:
            address: where it is to be.
            joiner: the member.
            hops: how often it was passed on before.
            now: seconds.
            surely: whether to see to it that the next one takes it.

        Returns:
            Whether it is in good hands; not if there is no room for one more candidate.
        """
        if joiner.same_member(self.contact):
            return True
        if address == self.address:
            self.speech.contest(joiner)
            return True
        row = self._rows.get(address)
        if row is not None and row.contact.same_member(joiner):
            if joiner.incarnation <= row.contact.incarnation:
                return True
            # It was restarted: its former self is no more.
            self._remove(row, False, now)
            row = None
        if row is None and not self.star.hides(address):
            if self.candidates.get(address) is None and self.candidates.full:
                self.counters.overflows += 1
                return False
            if self.candidates.add(address, joiner, True, now):
                self._ask(address, joiner)
            return True
        # The nearest to the address of a joiner is whoever holds that address already.
        nearer = self.star.nearer(address)
        if nearer is None or not self._passed.once_more(joiner, hops, now):
            self.counters.dead_ends += 1
            return False
        self.counters.forwarded += 1
        hops += 1
        if surely or nearer.address == address:
            message = self.handovers.begin(joiner, hops, nearer.contact, now)
        else:
            message = NewNode(joiner, hops, 0)
        self.speech.send(nearer.contact, message)
        return True

    def _renew(self, row: Neighbor, source: Contact, now: float) -> bool:
        """A Hello came from a neighbor's address with another contact.

        Returns:
            Whether it is the same member, restarted or reached otherwise. Another one is sent on
            to the neighbor, to settle whose address it is.
        """
        if not row.contact.same_member(source):
            if not self.handovers.holds(source):
                self.find_place(row.address, source, 0, now)
            return False
        if source.incarnation < row.contact.incarnation:
            return False
        if source != row.contact:
            if source.incarnation > row.contact.incarnation:
                self.star.confirm(row, now)
            self.star.replace(row, source)
        return True

    def _makes_way(self, source: Contact, now: float) -> bool:
        """Whether there is room for a new neighbor. A member is at one place only: as a neighbor
        at another one it is no more.
        """
        if len(self._rows) >= MOST_NEIGHBORS:
            self.counters.overflows += 1
            return False
        index = source.index
        former = None
        for row in self._rows.values():
            if row.contact.index == index and row.contact.same_member(source):
                former = row
        if former is not None:
            if source.incarnation < former.contact.incarnation:
                return False
            self._remove(former, False, now)
        return True

    def _bars(self, address: LogicalAddress, source: Contact, hears: bool, now: float) -> bool:
        """Whether a member that is no neighbor is barred from becoming one by its Hello.

        One that said goodbye is. One that fell silent is until it hears this member, or a link
        that works one way only would bring it back again and again.
        """
        stone = self._tombstones.find(address, source, now)
        if stone is None:
            return False
        if stone.left:
            return True
        if hears:
            self._tombstones.lift(address)
            return False
        self._tombstones.bury(address, source, False, now)
        self.speech.ask(address, source, True)
        return True

    def _remove(self, row: Neighbor, left: bool, now: float) -> None:
        """A neighbor is gone: close the gap, also with those whom it named."""
        self.left = left
        self.star.remove(row)
        self._tombstones.bury(row.address, row.contact, left, now)
        for edge in self.star.ring.wedge(row.address):
            if edge is not None:
                self._gap[edge] = None
        for name in row.names:
            self._consider(*name, now)
        self._reconsider(now)

    def _reconsider(self, now: float) -> None:
        """Somebody who was barred or hidden may be a neighbor now."""
        self.changed = True
        for row in self._rows.values():
            for name in row.names:
                self._consider(*name, now)

    def _let_go(self, address: LogicalAddress, contact: Contact, now: float) -> None:
        """Others stand between this member and that one: somebody nearer must know it."""
        if self.star.is_known_nearer(address):
            self.counters.relied_on += 1
        else:
            self.counters.handed_over += 1
            self.find_place(address, contact, 0, now)

    def _others(self, *named: Contact | None) -> tuple[tuple[LogicalAddress, Contact], ...]:
        """Those of the named who have coordinates, other than this member."""
        own = self.contact
        return tuple(
            [
                (address, contact)
                for contact in named
                if contact is not None
                and (address := place_of(contact)) is not None
                and address != self.address
                and not contact.same_member(own)
            ]
        )

    def _consider(self, address: LogicalAddress, contact: Contact, now: float) -> bool:
        """Ask a member that was named, if it may be a neighbor.

        Returns:
            False if it fails the neighbor test: whoever named it knows less than this member.
        """
        if address in self._rows or self._tombstones.find(address, contact, now) is not None:
            return True
        if self.star.hides(address):
            return False
        if self.candidates.add(address, contact, False, now):
            self._ask(address, contact)
        return True

    def _ask(self, address: LogicalAddress, contact: Contact) -> None:
        hello = self.speech.ask(address, contact)
        candidate = self.candidates.get(address)
        if candidate is not None:
            candidate.told = hello

    def _reject(self, address: LogicalAddress, hello: Hello, now: float) -> None:
        """Answer somebody that fails the neighbor test, and learn whom it names."""
        self.candidates.reject(address)
        self.changed = True
        self.speech.reject(address, hello.source)
        for name in self._others(hello.clockwise, hello.counterclockwise):
            self._consider(*name, now)
