"""Finders and servers joined by a fake wire with a virtual clock: whole conversations, no socket.

The one rule: it delivers what machines say, and judges nothing. A `Joiner` stands for the node
of a member: it is stable some time after it found somebody, or at once when it founds.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from functools import cache
from math import inf
from random import Random
from typing import Protocol

from attrs import define, field

from opus_socket.core.addresses import ANY_INDEX, Contact, Endpoint, LogicalAddress, OverlayID, Use
from opus_socket.core.contacts import ContactFinder, FinderEffect, FinderSettings, Found, Heard
from opus_socket.core.effects import Abort, Emit, Role, Transmit, TransmitGroup
from opus_socket.core.events import ContactFailed, Event
from opus_socket.core.key_attributes import KeyAttributes
from opus_socket.rendezvous.server import RendezvousServer, ServerEffects, ServerSettings

LAB = OverlayID("lab")
ATTRIBUTES = KeyAttributes([("node", "delaunay"), ("socket", "plain")])
OTHERS = KeyAttributes([("node", "hypercube"), ("socket", "plain")])


def place(number: int) -> Endpoint:
    """An endpoint for each number."""
    return Endpoint(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 7000)


def likely(number: int) -> Contact:
    """What a configuration says of the server or buddy there."""
    return Contact(None, 0, ANY_INDEX, (place(number),))


@cache
def seen(endpoint: Endpoint, index: int = 0) -> Contact:
    """What a receiver sees of a sender."""
    return Contact(None, 0, index, (Endpoint(endpoint.host, endpoint.port, Use.UDP),))


SERVER = FinderSettings(servers=(likely(1),))
GROUP = FinderSettings(multicast=True)


def buddies(*numbers: int) -> FinderSettings:
    """Settings of a member that knows these as likely members."""
    return FinderSettings(buddies=tuple(map(likely, numbers)))


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
        delay: seconds on the way, on average.
        lost: says of each packet (from, to, now) whether it gets lost.
        sent: the times at which packets left, by (from, to).
    """

    rng: Random
    delay: float = 0.01
    now: float = 0.0
    lost: Rule = field(default=lambda _from, _to, _now: False)
    parties: dict[Endpoint, Party] = field(factory=dict)
    group: list[Party] = field(factory=list)
    sent: dict[tuple[Endpoint, Endpoint], list[float]] = field(factory=dict)
    _agenda: list[tuple[float, int, int, Callable[[], None]]] = field(factory=list)
    _order: int = 0

    def at(self, when: float, act: Callable[[], None], *, after_packets: bool = False) -> None:
        self._order += 1
        heapq.heappush(self._agenda, (when, after_packets, self._order, act))

    def send(self, source: Endpoint, to: Endpoint, body: bytes) -> None:
        self.sent.setdefault((source, to), []).append(self.now)
        if not self.lost(source, to, self.now):
            delay = self.delay * self.rng.uniform(0.5, 1.5)
            self.at(self.now + delay, lambda: self._deliver(source, to, body))

    def watch(self, party: Party) -> None:
        """Wake the party when it wants it."""
        when = party.next_deadline
        if when < inf:
            self.at(max(when, self.now), lambda: self._wake(party), after_packets=True)

    def run(self, until: float) -> None:
        """Let time pass, and everything happen that is due by then."""
        while self._agenda and self._agenda[0][0] <= until:
            self.now, _, _, act = heapq.heappop(self._agenda)
            act()
        self.now = until

    def _wake(self, party: Party) -> None:
        if self.parties.get(party.endpoint) is party and party.next_deadline <= self.now:
            party.wake(self.now)
            self.watch(party)

    def _deliver(self, source: Endpoint, to: Endpoint, body: bytes) -> None:
        party = self.parties.get(to)
        if party is not None:
            before = party.next_deadline
            party.receive(body, seen(source), self.now)
            if party.next_deadline != before:
                self.watch(party)


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
        self.wire.parties[self.endpoint] = self

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
        self.wire.watch(self)


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
    founding_time: float = 0.0
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
        self.wire.parties[self.endpoint] = self
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
        self.wire.watch(self)

    def _begin(self) -> None:
        self.perform(self.finder.begin(self.contact, self.wire.now))
        self.perform(self.finder.find(Role.NEW, self.wire.now))

    def _on_found(self, contacts: tuple[Contact, ...]) -> None:
        self.found.append((self.wire.now, contacts))
        if self.stable_at is None:
            takes = self.join_time if contacts else self.founding_time
            self.wire.at(self.wire.now + takes, self._become_stable)

    def _become_stable(self) -> None:
        self.stable_at = self.wire.now
        self.perform(self.finder.update(self.contact, self.neighbors, True, self.wire.now))
        self._lead()

    def _lead(self) -> None:
        if self.leads:
            self.perform(self.finder.find(Role.LEADER, self.wire.now))
            self.wire.at(self.wire.now + 2.0, self._lead)


def founders(joiners: list[Joiner]) -> int:
    """How many of them were told that nobody is there."""
    return sum(joiner.is_founder for joiner in joiners)


def failures(joiner: Joiner) -> list[ContactFailed]:
    """Which contacts it reported as failed."""
    return [event for _, event in joiner.events if isinstance(event, ContactFailed)]
