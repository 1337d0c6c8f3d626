"""The upkeep of one member's star: what is said among neighbors, and among those who may be.

Its one rule: a neighbor is who said Hello itself and passes the neighbor test. Everything else is
hearsay, and leads to a question, never to an entry.

What is to be sent gathers in `out`, in order; the node that owns the upkeep hands it on.
"""

from __future__ import annotations

from opus_delaunay.candidates import Candidates, Tombstones
from opus_delaunay.handover import Handovers, Received
from opus_delaunay.messages import Goodbye, Hello, NewNode, NewNodeAck, Reject, Taken
from opus_delaunay.settings import LAS, DelaunaySettings
from opus_delaunay.star import Neighbor, Star
from opus_delaunay.statistics import Counters
from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.effects import NodeEffect, Send
from opus_socket.core.neighborhood import Patience
from opus_socket.core.wire import ProtocolMessage

SUSPECT_AFTER = 2.25
"""Heartbeats: two missed Hellos, and the jitter and delay of the second."""

PROBES = 5
LEAST_PROBE_INTERVAL = 0.1
"""Seconds; a round trip should fit in."""

CROSSING = 0.25
"""Heartbeats within which two first Hellos may have crossed on their way."""

_EVERYBODY = LogicalAddress.everybody(LAS)


def place_of(contact: Contact) -> LogicalAddress | None:
    """The contact's coordinates; None if it has none that a member may have."""
    address = contact.address
    return None if address is None or len(address) != LAS + 1 or address == _EVERYBODY else address


class Upkeep:
    """The star of one member, and everything that keeps it true.

    Args:
        contact: the member's own contact, with its coordinates.
        settings: the table `[node.delaunay]`.
        nonce: where the numbers of its NewNodes begin.

    Attributes:
        star: its neighbors.
        candidates: members that were asked to become neighbors.
        handovers: members that are being handed on to somebody nearer.
        counters: what it counts.
        out: effects that were not handed on yet.
        changed: whether the star, or what is known about it, changed since this was last reset.
    """

    def __init__(self, contact: Contact, settings: DelaunaySettings, nonce: int) -> None:
        address = place_of(contact)
        assert address is not None
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
        self.out: list[NodeEffect] = []
        self.changed = True
        self._rows = self.star.table.rows
        self._patience = patience
        self._crossing = CROSSING * beat
        self._tombstones = Tombstones(silence)
        self._received = Received()
        self._gap: dict[LogicalAddress, None] = {}

    @property
    def settled(self) -> bool:
        """Whether everybody whom the neighbors name is a neighbor, and nobody rejects this one."""
        rows = self._rows
        for row in rows.values():
            if row.rejected:
                return False
            for contact in row.names:
                if contact.address not in rows and not self._tombstones.holds(contact):
                    return False
        return True

    def shift(self, lateness: float) -> None:
        """Forgive the silence of a time in which this member itself did not listen, in seconds."""
        self.star.table.shift(lateness)
        self.candidates.shift(lateness)
        self.handovers.shift(lateness)

    def beat(self, now: float) -> None:
        """Say hello to every neighbor that is not being probed anyway."""
        for row in self._rows.values():
            if row.suspected_at is None:
                self._greet(row, heard=row.received_at + self._patience.suspect_after > now)

    def inspect(self, now: float) -> float:
        """Probe the suspects and give up the failed; returns when to look again, in seconds."""
        if self._tombstones.expire(now):
            self._reconsider(now)
        inspection = self.star.table.inspect(now)
        for row in inspection.probe:
            self._greet(row, heard=False)
            self.changed = True
        for row in inspection.failed:
            self.counters.failed += 1
            self._remove(row, False, now)
        return inspection.next_at

    def doubt(self, address: LogicalAddress, now: float) -> None:
        """Something hints that a neighbor failed: look soon."""
        row = self._rows.get(address)
        if row is not None:
            self.star.table.doubt(row, now)

    def ask_again(self, now: float) -> None:
        """Repeat what candidates did not answer, and give up the silent ones."""
        again, silent = self.candidates.due(now)
        self.changed = True
        for candidate in again:
            address = place_of(candidate.contact)
            assert address is not None
            if self.star.ring.passes(address):
                self._ask(candidate.contact, address)
                continue
            self.candidates.discard(address)
            if candidate.entrusted:
                self._let_go(candidate.contact, now)
        for candidate in silent:
            self.counters.silent += 1
            self._tombstones.bury(candidate.contact, False, now)

    def hand_over_again(self, now: float) -> None:
        """Repeat NewNodes that nobody acknowledged; after a while, to somebody else."""
        again, failed = self.handovers.due(now)
        for handover in again:
            self.send(handover.to, handover.message)
        for handover in failed:
            joiner = handover.message.joiner
            row = None if joiner.address is None else self._rows.get(joiner.address)
            if row is not None and row.contact == handover.to:
                # The holder of the joiner's address does not answer: its place is free.
                self.counters.failed += 1
                self._remove(row, False, now)
            self.find_place(joiner, handover.message.hops, now)

    def on_hello(self, hello: Hello, now: float) -> None:
        """Somebody says hello: a neighbor, a candidate, or somebody new."""
        source, own = hello.source, self.contact
        address = place_of(source)
        if address is None:
            self.counters.malformed += 1
            return
        if hello.to != self.address:
            # It greets somebody who is gone from here: this member at its former address, or
            # whoever had this endpoint before.
            gone = Contact(hello.to, hello.incarnation, own.index, own.endpoints)
            self.send(source, Goodbye(gone))
            return
        if address == self.address:
            self._contest(source)
            return
        hears = hello.heard and hello.incarnation == own.incarnation
        row = self._rows.get(address)
        if row is not None and row.contact is not source and not self._renew(row, source, now):
            return
        asked = self.candidates.get(address)
        dropped: list[Contact] = []
        if row is None:
            if self._bars(hello, address, hears, now):
                return
            if not self.star.ring.passes(address):
                self._reject(hello, address, now)
                return
            row, dropped = self._insert(source, address, now)
        elif hears:
            row.confirm(now)
        row.received_at = now
        row.hello, row.mutual, row.rejected = hello, hears, False
        row.names = self._others(hello.clockwise, hello.counterclockwise)
        self.changed = True
        outdated = [contact for contact in row.names if not self._consider(contact, now)]
        for contact in dropped:
            self._let_go(contact, now)
        if hears:
            if outdated:
                self._greet(row, only_news=True)
        elif asked is None or asked.asked_at + self._crossing < now:
            self._greet(row)

    def on_reject(self, reject: Reject, now: float) -> None:
        """Somebody says who stands between: there is somebody to get to know."""
        address = place_of(reject.source)
        if address is None:
            self.counters.malformed += 1
            return
        if reject.to != self.address or reject.incarnation != self.contact.incarnation:
            return
        candidate = self.candidates.get(address)
        if candidate is not None:
            candidate.rejected = True
        row = self._rows.get(address)
        if row is not None:
            row.received_at = now
            row.rejected = True
        self.changed = True
        for contact in self._others(reject.clockwise, reject.counterclockwise):
            self._consider(contact, now)

    def on_new_node(self, message: NewNode, sender: Contact, now: float) -> None:
        """Somebody is looking for its place, or is handed on."""
        if place_of(message.joiner) is None:
            self.counters.malformed += 1
            return
        if message.nonce:
            self.send(sender, NewNodeAck(message.nonce))
            if not self._received.is_new(sender, message.nonce, now):
                return
        self.find_place(message.joiner, message.hops, now, message.nonce > 0)

    def on_goodbye(self, contact: Contact, now: float) -> None:
        """A member is gone."""
        address = place_of(contact)
        if address is None:
            self.counters.malformed += 1
            return
        row = self._rows.get(address)
        if row is None:
            self.candidates.discard(address)
            self._tombstones.bury(contact, True, now)
            self.changed = True
        elif row.contact.same_member(contact) and row.contact.incarnation <= contact.incarnation:
            self._remove(row, True, now)

    def say_goodbye(self) -> None:
        """Tell every neighbor that this member is gone."""
        for row in self._rows.values():
            self.send(row.contact, Goodbye(self.contact))

    def introduce(self, to: Contact, surely_at: float | None = None) -> None:
        """Ask somebody to find this member's place.

        Args:
            to: whoever was found.
            surely_at: now, in seconds, if the message is to be acknowledged hop by hop; None if
                whoever asks will ask again anyway.
        """
        if surely_at is None:
            self.send(to, NewNode(self.contact, 0, 0))
        else:
            self.send(to, self.handovers.begin(self.contact, 0, to, surely_at))

    def find_place(self, joiner: Contact, hops: int, now: float, surely: bool = True) -> None:
        """Ask a member to become a neighbor if it passes; else hand it on to somebody nearer.

        Args:
            joiner: the member.
            hops: how often it was passed on before.
            now: seconds.
            surely: whether to see to it that somebody takes it.
        """
        address = place_of(joiner)
        assert address is not None
        if address == self.address:
            self._contest(joiner)
            return
        row = self._rows.get(address)
        if row is not None and row.contact.same_member(joiner):
            if joiner.incarnation <= row.contact.incarnation:
                return
            self._remove(row, False, now)
            row = None
        if row is None and self.star.ring.passes(address):
            if self.candidates.add(address, joiner, True, now):
                self._ask(joiner, address)
            return
        # The nearest to the address of a joiner is whoever holds that address already.
        nearer = self.star.nearer(address)
        if nearer is None:
            self.counters.dead_ends += 1
            return
        self.counters.forwarded += 1
        if surely or nearer.contact.address == address:
            message = self.handovers.begin(joiner, hops + 1, nearer.contact, now)
        else:
            message = NewNode(joiner, hops + 1, 0)
        self.send(nearer.contact, message)

    def flush_gap(self) -> None:
        """Tell the neighbors at the edges of a gap who is next to them now."""
        if self._gap:
            edges, self._gap = self._gap, {}
            for address in edges:
                row = self._rows.get(address)
                if row is not None and row.suspected_at is None:
                    self._greet(row, only_news=True)

    def send(self, to: Contact, message: ProtocolMessage) -> None:
        """Send a message, best effort."""
        self.out.append(Send(to, message))

    def _contest(self, other: Contact) -> None:
        """Somebody else claims this member's address; tell it that it is taken."""
        if not other.same_member(self.contact):
            self.send(other, Taken(self.contact))

    def _renew(self, row: Neighbor, source: Contact, now: float) -> bool:
        """A Hello came from a neighbor's address with another contact; whether it is the same
        member, restarted or reached otherwise.
        """
        if not row.contact.same_member(source):
            if not self.handovers.holds(source):
                self.find_place(source, 0, now)
            return False
        if source.incarnation < row.contact.incarnation:
            return False
        if source != row.contact:
            if source.incarnation > row.contact.incarnation:
                row.confirm(now)
            self.star.replace(row, source)
            self.changed = True
        return True

    def _bars(self, hello: Hello, address: LogicalAddress, hears: bool, now: float) -> bool:
        """Whether a member that is no neighbor is barred from becoming one by this Hello.

        One that said goodbye is. One that fell silent is until it hears this member, or a link
        that works one way only would bring it back again and again.
        """
        stone = self._tombstones.find(hello.source, now)
        if stone is None:
            return False
        if stone.left:
            return True
        if hears:
            self._tombstones.lift(address)
            return False
        self._tombstones.bury(hello.source, False, now)
        self.send(hello.source, self._hello(hello.source, address, True))
        return True

    def _insert(
        self, contact: Contact, address: LogicalAddress, now: float
    ) -> tuple[Neighbor, list[Contact]]:
        row, dropped = self.star.insert(contact, now)
        self.candidates.discard(address)
        return row, dropped

    def _remove(self, row: Neighbor, left: bool, now: float) -> None:
        """A neighbor is gone: close the gap, with whomever the others name, too."""
        address = place_of(row.contact)
        assert address is not None
        self.star.remove(address)
        self._tombstones.bury(row.contact, left, now)
        self.changed = True
        for edge in self.star.ring.wedge(address):
            if edge is not None:
                self._gap[edge] = None
        for contact in row.names:
            self._consider(contact, now)
        self._reconsider(now)

    def _reconsider(self, now: float) -> None:
        """Somebody who was barred or hidden may be a neighbor now."""
        self.changed = True
        for row in self._rows.values():
            for contact in row.names:
                self._consider(contact, now)

    def _let_go(self, contact: Contact, now: float) -> None:
        """A member left the ring because others stand between: somebody nearer must know it."""
        address = place_of(contact)
        assert address is not None
        if self.star.is_known_nearer(address):
            self.counters.relied_on += 1
        else:
            self.counters.handed_over += 1
            self.find_place(contact, 0, now)

    def _others(self, *named: Contact | None) -> tuple[Contact, ...]:
        """Those of the named who have coordinates, other than this member's."""
        return tuple(
            [
                contact
                for contact in named
                if contact is not None
                and (address := place_of(contact)) is not None
                and address != self.address
            ]
        )

    def _consider(self, contact: Contact, now: float) -> bool:
        """Ask a member that was named, if it may be a neighbor.

        Returns:
            False if it fails the neighbor test: whoever named it knows less than this member.
        """
        address = contact.address
        if address is None or address in self._rows or self._tombstones.find(contact, now):
            return True
        if not self.star.ring.passes(address):
            return False
        if self.candidates.add(address, contact, False, now):
            self._ask(contact, address)
        return True

    def _ask(self, contact: Contact, address: LogicalAddress) -> None:
        self.send(contact, self._hello(contact, address, False))

    def _reject(self, hello: Hello, address: LogicalAddress, now: float) -> None:
        """Answer somebody that fails the neighbor test, and learn whom it names."""
        candidate = self.candidates.get(address)
        if candidate is not None:
            candidate.rejected = True
            self.changed = True
        self.counters.rejections += 1
        wedge = self.star.wedge_for_reject(address)
        self.send(hello.source, Reject(self.contact, address, hello.source.incarnation, *wedge))
        for contact in self._others(hello.clockwise, hello.counterclockwise):
            self._consider(contact, now)

    def _greet(self, row: Neighbor, heard: bool = True, only_news: bool = False) -> None:
        """Say hello to a neighbor; the very same message as before if nothing changed."""
        star = self.star
        sent = row.sent
        if sent is None or row.sent_of != star.number or sent.heard is not heard:
            address = place_of(row.contact)
            assert address is not None
            hello = self._hello(row.contact, address, heard)
            row.sent_of = star.number
            if sent is None or not _same(hello, sent):
                row.sent = sent = hello
                only_news = False
        if not only_news:
            self.counters.greetings += 1
            self.out.append(Send(row.contact, sent))

    def _hello(self, to: Contact, address: LogicalAddress, heard: bool) -> Hello:
        clockwise, counterclockwise = self.star.wedge(address)
        return Hello(self.contact, address, to.incarnation, clockwise, counterclockwise, heard)


def _same(one: Hello, other: Hello) -> bool:
    return (
        one.clockwise is other.clockwise
        and one.counterclockwise is other.counterclockwise
        and one.incarnation == other.incarnation
        and one.heard is other.heard
    )
