"""Finders and servers joined by a fake wire with a virtual clock: whole conversations, no socket.

The one rule: it delivers what machines say, and judges nothing. A `Joiner` stands for the node
of a member: it is stable some time after it found somebody, or at once when it founds.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Iterable
from random import Random
from typing import Protocol

from attrs import define, field

from opus_socket.core.addresses import ANY_INDEX, Contact, Endpoint, LogicalAddress, OverlayID, Use
from opus_socket.core.contacts import ContactFinder, FinderEffect, FinderSettings, Found, Heard
from opus_socket.core.effects import Abort, Emit, Role, Transmit, TransmitGroup
from opus_socket.core.events import Event
from opus_socket.core.key_attributes import KeyAttributes
from opus_socket.rendezvous.server import RendezvousServer, ServerEffects, ServerSettings

LAB = OverlayID("lab")
ATTRIBUTES = KeyAttributes([("node", "delaunay"), ("socket", "plain")])


def place(number: int) -> Endpoint:
    """An endpoint for each number."""
    return Endpoint(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 7000)


def likely(number: int) -> Contact:
    """What a configuration says of the server or buddy there."""
    return Contact(None, 0, ANY_INDEX, (place(number),))


def seen(endpoint: Endpoint, index: int = 0) -> Contact:
    """What a receiver sees of a sender."""
    return Contact(None, 0, index, (Endpoint(endpoint.host, endpoint.port, Use.UDP),))


class Party(Protocol):
    """Somebody on the wire."""

    endpoint: Endpoint

    @property
    def next_deadline(self) -> float: ...
    def receive(self, body: bytes, sender: Contact, now: float) -> None: ...
    def wake(self, now: float) -> None: ...


Rule = Callable[[Endpoint, Endpoint, float], bool]


@define(eq=False)
class Wire:
    """Carries bodies between endpoints, and the time.

    Attributes:
        lost: says of each packet (from, to, now) whether it gets lost.
        sent: packets by (from, to).
        quiet_after: seconds; nothing is delivered or woken later than `run` was told.
    """

    rng: Random
    delay: float = 0.01
    now: float = 0.0
    lost: Rule = field(default=lambda _from, _to, _now: False)
    parties: dict[Endpoint, Party] = field(factory=dict)
    group: list[Party] = field(factory=list)
    sent: Counter[tuple[Endpoint, Endpoint]] = field(factory=Counter)
    _agenda: list[tuple[float, int, Callable[[], None]]] = field(factory=list)
    _order: int = 0

    def add(self, party: Party) -> None:
        self.parties[party.endpoint] = party

    def at(self, when: float, act: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._agenda, (when, self._order, act))

    def send(self, source: Endpoint, to: Endpoint, body: bytes) -> None:
        self.sent[source, to] += 1
        if not self.lost(source, to, self.now):
            self.at(self.now + self._delay(), lambda: self._deliver(source, to, body))

    def run(self, until: float) -> None:
        """Let time pass, and everything happen that is due by then."""
        while True:
            woken = min((p for p in self.parties.values()), key=lambda p: p.next_deadline)
            agenda = self._agenda[0][0] if self._agenda else float("inf")
            when = min(agenda, max(woken.next_deadline, self.now))
            if when > until:
                break
            self.now = when
            # Packets in hand are delivered before anybody is woken, as drivers do.
            if agenda <= when:
                heapq.heappop(self._agenda)[2]()
            else:
                woken.wake(self.now)
        self.now = until

    def _delay(self) -> float:
        return self.delay * self.rng.uniform(0.5, 1.5)

    def _deliver(self, source: Endpoint, to: Endpoint, body: bytes) -> None:
        party = self.parties.get(to)
        if party is not None:
            party.receive(body, seen(source), self.now)


@define(eq=False)
class Host:
    """A server on the wire."""

    wire: Wire
    endpoint: Endpoint
    settings: ServerSettings = field(factory=ServerSettings)
    machine: RendezvousServer = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        rng = Random(self.wire.rng.random())
        self.machine = RendezvousServer(rng, rng.randbytes(32), self.settings)
        self.wire.add(self)

    def stop(self) -> None:
        del self.wire.parties[self.endpoint]

    @property
    def next_deadline(self) -> float:
        return self.machine.next_deadline

    def receive(self, body: bytes, sender: Contact, now: float) -> None:
        self._perform(self.machine.receive(body, sender, now))

    def wake(self, now: float) -> None:
        self._perform(self.machine.wake(now))

    def _perform(self, effects: ServerEffects) -> None:
        for effect in effects:
            to = effect.to.endpoints[0]
            self.wire.send(self.endpoint, Endpoint(to.host, to.port), effect.body)


@define(eq=False)
class Joiner:
    """A finder on the wire, and the little of a node that it needs.

    Attributes:
        join_time: seconds from finding somebody to being stable.
        leads: whether it looks as a leader every two seconds once it is stable.
        found: what it found, with the time.
    """

    wire: Wire
    number: int
    settings: FinderSettings
    attributes: KeyAttributes = ATTRIBUTES
    join_time: float = 0.05
    leads: bool = False
    stable_at: float | None = None
    found: list[tuple[float, tuple[Contact, ...]]] = field(factory=list)
    heard: list[tuple[bytes, Contact]] = field(factory=list)
    events: list[tuple[float, Event]] = field(factory=list)
    errors: list[str] = field(factory=list)
    neighbors: tuple[Contact, ...] = ()
    incarnation: int = 1
    endpoint: Endpoint = field(init=False)
    contact: Contact = field(init=False)
    finder: ContactFinder = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.endpoint = place(self.number)
        address = LogicalAddress((self.number, 7))
        self.contact = Contact(address, self.incarnation, 0, (self.endpoint,))
        rng = Random(self.wire.rng.random())
        self.finder = ContactFinder(LAB, self.attributes, self.settings, rng)
        self.wire.add(self)
        if self.settings.multicast:
            self.wire.group.append(self)

    def join(self, at: float = 0.0) -> Joiner:
        self.wire.at(at, self._begin)
        return self

    def stop(self) -> None:
        """As if killed."""
        del self.wire.parties[self.endpoint]
        self.leads = False

    @property
    def is_founder(self) -> bool:
        return bool(self.found) and not self.found[0][1]

    @property
    def next_deadline(self) -> float:
        return self.finder.next_deadline

    def receive(self, body: bytes, sender: Contact, now: float) -> None:
        self.perform(self.finder.receive(body, sender, now))

    def wake(self, now: float) -> None:
        self.perform(self.finder.wake(now))

    def perform(self, effects: Iterable[FinderEffect]) -> None:
        for effect in effects:
            match effect:
                case Transmit(to=to, body=body):
                    end = to.endpoints[0]
                    self.wire.send(self.endpoint, Endpoint(end.host, end.port), body)
                case TransmitGroup(body=body):
                    for party in self.wire.group:
                        self.wire.send(self.endpoint, party.endpoint, body)
                case Found(contacts=contacts):
                    self._on_found(contacts)
                case Heard(body=body, sender=sender):
                    self.heard.append((body, sender))
                case Emit(event=event):
                    self.events.append((self.wire.now, event))
                case Abort(error=error):
                    self.errors.append(str(error))

    def _begin(self) -> None:
        self.perform(self.finder.begin(self.contact, self.wire.now))
        self.perform(self.finder.find(Role.NEW, self.wire.now))

    def _on_found(self, contacts: tuple[Contact, ...]) -> None:
        self.found.append((self.wire.now, contacts))
        if self.stable_at is None:
            self.wire.at(self.wire.now + (self.join_time if contacts else 0.0), self._become_stable)

    def _become_stable(self) -> None:
        self.stable_at = self.wire.now
        self.perform(self.finder.update(self.contact, self.neighbors, True, self.wire.now))
        self._lead()

    def _lead(self) -> None:
        if self.leads:
            self.perform(self.finder.find(Role.LEADER, self.wire.now))
            self.wire.at(self.wire.now + 2.0, self._lead)
