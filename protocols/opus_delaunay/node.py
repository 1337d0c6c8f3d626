"""One member's place in a Delaunay triangulation that nobody oversees.

Its one rule: stars only ever improve by members that are alive, until all agree; and stars that
agree are the Delaunay triangulation.

Theory of operation. Each member keeps its *ring*: its star in the Delaunay triangulation of
itself and the members it heard. Two members that are neighbors tell each other who is next to
the other on either side (clockwise and counter-clockwise around themselves). Whoever is so named
and passes the neighbor test is asked by a Hello, and enters the ring when it answers by one. A
Hello from somebody that fails the test is answered by a Reject, which names the two that stand
between.

*Joining*: a NewNode walks from any contact to ever nearer members, to the first whose star has
room for the newcomer. That one says Hello and names the two next to the newcomer; these name the
next two; the walk around the newcomer ends where it began. Nobody waits for a heartbeat: a Hello
that does not say "I hear you" is answered at once.

*No reference is lost*: when an insertion drops a member from the ring, it is handed on to a
neighbor nearer to it, unless such a neighbor already names it. "Nearer" makes the chain of
reliance end, so the members stay connected by what they know, whatever order things happen in.

*Soft state*: Hellos repeat each heartbeat, unchanged bytes while nothing changes. Silence makes a
suspect, and silence under quick probes ends it. When a neighbor goes, the two at the edge of the
gap are told of each other.

*Sheets and partitions*: leaders meet through the rendezvous; see `states.py`.

*One address, two members*: a newcomer whose address a neighbor holds is sent on to the holder, as
any NewNode is to somebody nearer. A living holder answers that the address is taken; one that
acknowledges nothing is given up. Of two that both were members before they met, the one with the
higher incarnation gives way.

Here are the stay of one member in the overlay, its timers and its state; what is done about
neighbors is in `upkeep.py`, what is said to them in `speech.py`.

Source: Liebeherr, Nahas and Si, "Application-layer multicasting with Delaunay triangulation
overlays" (JSAC 2002), made exact and proof against loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from math import inf

from attrs import asdict

from opus_delaunay import compass
from opus_delaunay.messages import Announce, Goodbye, Hello, NewNode, NewNodeAck, Reject, Taken
from opus_delaunay.search import Search
from opus_delaunay.settings import DelaunaySettings, choose_address, is_drawn
from opus_delaunay.states import TRANSITIONS, Change, State, SubState
from opus_delaunay.statistics import DelaunayStatistics
from opus_delaunay.upkeep import Upkeep, place_of
from opus_socket.core import effects
from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.effects import Abort, Effects, FindContacts, Role
from opus_socket.core.node import Mode, Node, NodeContext
from opus_socket.core.timers import Timers
from opus_socket.core.wire import ProtocolMessage
from opus_socket.errors import AddressInUseError

JITTER = 0.1
"""Of every period, so that members that began together do not stay in step."""


class Timer(StrEnum):
    """The names of a node's deadlines."""

    BEAT = "beat"
    INSPECT = "inspect"
    CANDIDATES = "candidates"
    HANDOVERS = "handovers"
    RENDEZVOUS = "rendezvous"
    SILENCE = "silence"


class DelaunayNode(Node):
    """The Delaunay protocol machine of one member.

    Args:
        context: the member's contact and its source of chance.
        settings: the table `[node.delaunay]`.

    Attributes:
        state: what the node is to the overlay.
    """

    def __init__(self, context: NodeContext, settings: DelaunaySettings) -> None:
        self.contact = context.contact.at(choose_address(settings.coordinates, context.rng))
        self.stable = False
        self.version = 0
        self.state = State.STOPPED
        self._settings = settings
        self._rng = context.rng
        self._timers = Timers()
        self._stays = 0
        self._reset()

    def _reset(self) -> None:
        """Be as before a stay in the overlay."""
        nonce = self._rng.getrandbits(32)
        self._upkeep = Upkeep(self.contact, self.address, self._settings, nonce)
        self._star = self._upkeep.star
        self._rows = self._star.table.rows
        self._timers.clear()
        self._seen = -1
        self._joined = False
        self._nobody = False
        self._bereft_at = -inf
        self._search = Search(self.address, self._settings)
        self._answered_at = -inf
        self._announced_at = -inf
        self.stable = False
        self.version += 1

    @property
    def next_deadline(self) -> float:
        """When the node wants to be woken, in seconds; inf for never."""
        return self._timers.earliest

    @property
    def neighbors(self) -> tuple[Contact, ...]:
        """The ring, sorted by logical address."""
        return self._star.table.contacts

    @property
    def sub_state(self) -> SubState:
        """How settled the node is."""
        if not self.stable:
            return SubState.NOT_STABLE
        if self._upkeep.candidates.unanswered:
            return SubState.STABLE_WITH_CANDIDATE
        return SubState.STABLE

    def parent(self, root: LogicalAddress) -> LogicalAddress | None:
        """The neighbor in the direction closest to the root's; a suspect only if all are."""
        return self._star.parent(root)

    def children(self, root: LogicalAddress) -> tuple[LogicalAddress, ...]:
        """The neighbors whose parent for the root this node is, sorted."""
        return compass.children(self.address, self._star.ring, root)

    def next_hops(
        self, mode: Mode, key: LogicalAddress, arrived_from: LogicalAddress | None
    ) -> tuple[LogicalAddress, ...]:
        """Where a message goes next: see `Star.next_hops`."""
        return self._star.next_hops(mode, key, arrived_from, self.stable)

    def accepts(self, key: LogicalAddress) -> bool:
        """Whether nobody in the ring is nearer to an anycast's key than this member."""
        return self._star.nearer(key) is None

    def statistics(self) -> DelaunayStatistics:
        """Counters and gauges as of now."""
        upkeep = self._upkeep
        return DelaunayStatistics(
            state=self.state,
            sub_state=self.sub_state,
            neighbors=len(self._rows),
            suspects=len(self._star.suspects),
            candidates=len(upkeep.candidates),
            handovers=len(upkeep.handovers),
            **asdict(upkeep.counters),
        )

    def start(self, now: float) -> Effects:
        """Begin to join; after a former stay, in a higher incarnation."""
        if Change.START not in TRANSITIONS[self.state]:
            return ()
        if self._stays:
            old = self.contact
            self.contact = Contact(old.address, old.incarnation + 1, old.index, old.endpoints)
        self._stays += 1
        self._begin(Change.START, now)
        return self._finish(now)

    def _begin(self, change: Change, now: float) -> None:
        self._reset()
        self._move(change)
        self._timers.set(Timer.BEAT, now + self._settings.heartbeat * self._rng.random())
        self._look_around(now)

    def leave(self, now: float) -> Effects:
        """Say goodbye to every neighbor, and for one heartbeat to whoever still says hello."""
        if Change.LEAVE not in TRANSITIONS[self.state]:
            return ()
        goodbyes = self._end()
        self._move(Change.LEAVE)
        self._timers.set(Timer.SILENCE, now + self._settings.heartbeat)
        return goodbyes

    def _end(self) -> Effects:
        """End the stay; returns the goodbyes."""
        self._upkeep.speech.say_goodbye()
        goodbyes = self._upkeep.speech.out
        self._reset()
        return goodbyes

    def receive(self, message: ProtocolMessage, sender: Contact, now: float) -> Effects:
        """A protocol message came; one of a neighbor's Hellos, unchanged, more often than not."""
        if self.stable and type(message) is Hello and message.source.address is not None:
            row = self._rows.get(message.source.address)
            if row is not None and row.hello is message and row.steady:
                row.received_at = row.confirmed_at = now
                return ()
        if self.state is State.STOPPED:
            return ()
        upkeep = self._upkeep
        if self.state is State.LEAVING:
            if isinstance(message, Hello):
                upkeep.speech.send(message.source, Goodbye(self.contact))
            return self._flush()
        match message:
            case Hello():
                upkeep.on_hello(message, now)
            case Reject():
                upkeep.on_reject(message, now)
            case NewNode():
                upkeep.on_new_node(message, sender, now)
            case NewNodeAck():
                upkeep.handovers.acknowledged(message.nonce)
            case Goodbye():
                upkeep.on_goodbye(message.source, now)
            case Taken():
                return self._on_taken(message.holder, now)
            case Announce():
                self._on_announce(message.leader, now)
            case _:
                upkeep.counters.malformed += 1
        return self._finish(now)

    def wake(self, now: float) -> Effects:
        """The earliest deadline has come."""
        late = now - self._timers.earliest
        if late > self._settings.heartbeat:
            self._upkeep.shift(late, now)
        for name in self._timers.due(now):
            match name:
                case Timer.BEAT:
                    self._upkeep.beat()
                    self._inspect(now)
                    self._timers.set(Timer.BEAT, now + self._jitter(self._settings.heartbeat))
                case Timer.INSPECT:
                    self._inspect(now)
                case Timer.CANDIDATES:
                    self._upkeep.ask_again(now)
                case Timer.HANDOVERS:
                    self._upkeep.hand_over_again(now)
                case Timer.RENDEZVOUS:
                    self._look_around(now)
                case _:
                    self._move(Change.SILENCE)
        return self._finish(now)

    def link_failed(self, neighbor: LogicalAddress, now: float) -> Effects:
        """A connection to a neighbor broke: probe it at once."""
        row = self._rows.get(neighbor)
        if row is not None:
            self._star.table.doubt(row, now)
            self._timers.set_no_later(Timer.INSPECT, now)
        return ()

    def contacts(self, found: Sequence[Contact], now: float) -> Effects:
        """Members were found: a joiner asks the nearest, a leader one that is larger or any.

        The route from the nearest is short. One that is larger than a leader is of another sheet,
        and one at random may be; there the leader's NewNode ends at those who should be its
        neighbors.
        """
        if self.state in (State.STOPPED, State.LEAVING, State.NOT_LEADER):
            return ()
        others = [
            contact
            for contact in found
            if not contact.same_member(self.contact) and contact.address not in self._rows
        ]
        if self._rows:
            if others:
                to = self._rng.choice(self._larger(others) or others)
                self._upkeep.introduce(to, now)
        elif others:
            self._join_by(others, now)
        elif not found and now >= self._bereft_at + (1 - JITTER) * self._settings.rendezvous_period:
            # Whoever has lost its last neighbor is looked for by others, too, once in a period.
            self._nobody = True
            self._upkeep.changed = True
        return self._finish(now)

    def _join_by(self, members: Sequence[Contact], now: float) -> None:
        """Members were found: ask one of them now, and look around again after a while."""
        self._search.found(members)
        if self._ask(now) and not self._joined:
            self._timers.set(Timer.RENDEZVOUS, now + self._jitter(self._search.wait()))

    def _ask(self, now: float) -> bool:
        picked = self._search.pick(now)
        if picked is None:
            return False
        to, surely = picked
        self._upkeep.introduce(to, now, surely)
        return True

    def _larger(self, others: Sequence[Contact]) -> list[Contact]:
        rank = _rank(self.address)
        return [c for c in others if (place := place_of(c)) is not None and _rank(place) > rank]

    def _look_around(self, now: float) -> None:
        """Look for members: to join, or for other fragments as a leader."""
        if self.state is State.NOT_LEADER:
            return
        if self._joined:
            role, period = Role.LEADER, self._settings.rendezvous_period
            self._announce(now)
        else:
            role, period = Role.NEW, self._search.wait()
        self._upkeep.speech.out.append(FindContacts(role))
        self._timers.set(Timer.RENDEZVOUS, now + self._jitter(period))
        if not self._rows:
            self._ask(now)

    def _on_announce(self, leader: Contact, now: float) -> None:
        """A leader let itself be known: joiners go to it, and of two leaders the smaller one."""
        address = place_of(leader)
        if address is None or self.state is State.NOT_LEADER or address in self._rows:
            return
        if leader.same_member(self.contact):
            return
        if self._joined and _rank(address) < _rank(self.address):
            if now >= self._announced_at + self._settings.rendezvous_period / 2:
                self._announce(now)
        elif not self._rows:
            self._join_by([leader], now)
        elif now >= self._answered_at + self._settings.rendezvous_period / 2:
            self._answered_at = now
            self._upkeep.introduce(leader, now)

    def _announce(self, now: float) -> None:
        self._announced_at = now
        self._upkeep.speech.out.append(effects.Announce(Announce(self.contact)))

    def _on_taken(self, holder: Contact, now: float) -> Effects:
        """Somebody alive holds this member's address: who came later gives way."""
        own = self.contact
        if holder.address != own.address or holder.same_member(own):
            return ()
        if self._joined and (own.incarnation, own.wire) < (holder.incarnation, holder.wire):
            self._upkeep.speech.send(holder, Taken(own))
            return self._finish(now)
        goodbyes = self._end()
        if not is_drawn(self._settings.coordinates):
            self._move(Change.REFUSAL)
            where = f"{holder.endpoints[0]}, index {holder.index}"
            error = AddressInUseError(
                f"the coordinates {own.address} ({self._settings.coordinates}) are held by the "
                f"member at {where}; choose others, or 'random'"
            )
            return [*goodbyes, Abort(error)]
        self.contact = own.at(choose_address(self._settings.coordinates, self._rng))
        self._begin(Change.MOVE, now)
        return [*goodbyes, *self._finish(now)]

    def _inspect(self, now: float) -> None:
        next_at = self._upkeep.inspect(now)
        if next_at < inf:
            self._timers.set(Timer.INSPECT, next_at)

    def _jitter(self, period: float) -> float:
        return period * self._rng.uniform(1 - JITTER, 1 + JITTER)

    def _finish(self, now: float) -> Effects:
        """After each input: judge what changed, and hand on what is to be done."""
        upkeep = self._upkeep
        if self.state is State.STOPPED:
            return self._flush()
        if upkeep.changed:
            upkeep.changed = False
            upkeep.flush_gap()
            self._judge(now)
        if len(upkeep.candidates):
            self._timers.set_no_later(Timer.CANDIDATES, upkeep.candidates.next_at)
        if len(upkeep.handovers):
            self._timers.set_no_later(Timer.HANDOVERS, upkeep.handovers.next_at)
        return self._flush()

    def _flush(self) -> Effects:
        speech = self._upkeep.speech
        out = speech.out
        if not out:
            return ()
        speech.out = []
        return out

    def _judge(self, now: float) -> None:
        """What the node is now, to itself and to the overlay."""
        star, upkeep = self._star, self._upkeep
        if star.number != self._seen:
            self._seen = star.number
            self.version += 1
            before = self.state
            self._move(self._standing())
            if self._rows:
                self._nobody = False
            elif before is not State.LEADER_ALONE:
                self._search = Search(self.address, self._settings)
                self._bereft_at = -inf if upkeep.left else now
            if before is State.NOT_LEADER and self.state is not before:
                # Whoever was larger is gone: this may be the edge of a torn overlay.
                wait = 0.0 if self._joined else self._jitter(self._settings.rendezvous_period)
                self._timers.set(Timer.RENDEZVOUS, now + wait)
        stable = (
            (bool(self._rows) or self._nobody)
            and ((self._joined and bool(self._rows)) or not upkeep.candidates.unanswered)
            and upkeep.settled(now)
        )
        self._joined = self._joined or stable
        if stable is not self.stable:
            self.stable = stable
            self.version += 1

    def _standing(self) -> Change:
        if not self._rows:
            return Change.ALONE
        return Change.LEADS if self._star.leads else Change.FOLLOWS

    def _move(self, change: Change) -> None:
        self.state = TRANSITIONS[self.state][change]


def _rank(address: LogicalAddress) -> tuple[int, int]:
    return address[1], address[0]
