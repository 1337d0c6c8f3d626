"""A small world for Delaunay nodes: a virtual clock, a lossy network, and a rendezvous.

Messages go through the real codec, and equal Hellos come as the very same object, as the
interface of `ProtocolMessage` promises. One seed decides everything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from functools import partial
from heapq import heappop, heappush
from itertools import count
from math import inf
from random import Random

from attrs import define, field, frozen

from opus_delaunay import SPEC, DelaunayNode, DelaunaySettings
from opus_delaunay.messages import Hello
from opus_socket.core.addresses import Contact, Endpoint
from opus_socket.core.effects import Abort, Announce, Effects, FindContacts, Role, Send
from opus_socket.core.node import NodeContext
from opus_socket.core.wire import Codec, ProtocolMessage

Point = tuple[int, ...]
CODEC = Codec(SPEC.messages)


@frozen
class Sent:
    """A message that was sent, and whether it came of a heartbeat."""

    at: float
    sender: Member
    to: Contact
    message: ProtocolMessage
    by_timer: bool


@define(eq=False)
class Member:
    """One member: its node, and what befalls it."""

    number: int
    node: DelaunayNode
    contact: Contact
    alive: bool = True
    leaving: bool = False
    paused: bool = False
    side: int = 0
    confirmed: bool = False
    errors: list[Exception] = field(factory=list)
    wake_at: float = inf
    hellos: dict[int, ProtocolMessage] = field(factory=dict)

    @property
    def at(self) -> Point:
        """Its coordinates."""
        return self.node.address

    @property
    def ring(self) -> frozenset[Point]:
        """The coordinates of its neighbors."""
        return frozenset([c.address for c in self.node.neighbors if c.address is not None])

    @property
    def hears(self) -> bool:
        """Whether packets and deadlines reach it now."""
        return (self.alive or self.leaving) and not self.paused


@define(eq=False)
class Rendezvous:
    """Hands out confirmed members, and lets few join at a time: performance.md, Delaunay 10."""

    rng: Random
    confirmed: dict[int, None] = field(factory=dict)
    admitted: dict[int, None] = field(factory=dict)
    queue: dict[int, None] = field(factory=dict)
    _pool: list[int] = field(factory=list)

    def ask(self, number: int, role: Role) -> None:
        """Somebody looks for members; `admit` says when to answer."""
        founder = not self.confirmed and not self.admitted
        if role is Role.LEADER or founder or number in self.confirmed:
            self.admitted[number] = None
        if number not in self.admitted:
            self.queue[number] = None

    def confirm(self, number: int) -> None:
        """Somebody has joined."""
        self.confirmed[number] = None
        self.admitted.pop(number, None)
        self.queue.pop(number, None)

    def forget(self, number: int) -> None:
        """Somebody is gone."""
        for known in (self.confirmed, self.admitted, self.queue):
            known.pop(number, None)

    def merge(self, other: Rendezvous) -> None:
        """Know everybody whom another one knows."""
        self.confirmed |= other.confirmed
        self.queue |= other.admitted | other.queue

    def admit(self) -> list[int]:
        """Who may join now and has to be told."""
        told = []
        while self.queue and self.confirmed and len(self.admitted) < self._window:
            number = next(iter(self.queue))
            del self.queue[number]
            self.admitted[number] = None
            told.append(number)
        return told

    @property
    def _window(self) -> int:
        return max(8, len(self.confirmed) // 4)

    def sample(self) -> list[int]:
        """Up to 16 confirmed members."""
        if len(self._pool) != len(self.confirmed) or len(self._pool) < 64:
            self._pool = list(self.confirmed)
        return self.rng.sample(self._pool, min(16, len(self._pool)))


@define(eq=False)
class World:
    """Members, packets on their way, and a rendezvous.

    Attributes:
        seed: of everything random.
        loss: the share of packets that is lost.
        delay: the least and the most delay of a packet one way, in seconds.
        heartbeat: of the members that are added, in seconds.
        rendezvous_up: whether the rendezvous answers.
        cut: pairs of numbers (from, to) that no packet passes.
        sent: messages by class; `beats` counts periodic Hellos between neighbors instead.
        log: everything sent, if it is a list.
    """

    seed: int = 0
    loss: float = 0.0
    delay: tuple[float, float] = (0.01, 0.1)
    heartbeat: float = 1.0
    now: float = 0.0
    rendezvous_up: bool = True
    members: list[Member] = field(factory=list)
    cut: set[tuple[int, int]] = field(factory=set)
    sent: Counter[str] = field(factory=Counter)
    log: list[Sent] | None = None
    _rng: Random = field(init=False)
    _rendezvous: dict[int, Rendezvous] = field(init=False)
    _heap: list[tuple[float, int, Callable[[], None]]] = field(init=False, factory=list)
    _sequence: count[int] = field(init=False, factory=count)
    _at_endpoint: dict[Endpoint, Member] = field(init=False, factory=dict)

    def __attrs_post_init__(self) -> None:
        self._rng = Random(self.seed)
        self._rendezvous = {0: Rendezvous(Random(self.seed))}

    @property
    def alive(self) -> list[Member]:
        """The members that neither left nor crashed."""
        return [member for member in self.members if member.alive]

    @property
    def joined(self) -> int:
        """How many of the living have been stable once."""
        return sum(member.confirmed for member in self.alive)

    def tables(self) -> dict[Point, frozenset[Point]]:
        """The neighbors that each living member reports."""
        return {member.at: member.ring for member in self.alive}

    def add(
        self,
        place: Point | None = None,
        at: float | None = None,
        restart_of: Member | None = None,
        rng: Random | None = None,
        name: str | None = None,
    ) -> Member:
        """A member that starts at a time, at the endpoint of a former one if it is its restart."""
        number = len(self.members)
        coordinates = "random" if name is None else f"name:{name}"
        if place is not None:
            coordinates = f"{place[0]},{place[1]}"
        endpoint = Endpoint(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}", 4000)
        if restart_of is not None:
            endpoint = restart_of.contact.endpoints[0]
        contact = Contact(None, (1_000_000 + number) << 20, 0, (endpoint,))
        node = DelaunayNode(
            NodeContext(contact, rng or Random(self._rng.random())),
            DelaunaySettings(coordinates=coordinates, heartbeat=self.heartbeat),
        )
        member = Member(number, node, contact)
        self.members.append(member)
        self._at_endpoint[endpoint] = member
        self._later(self.now if at is None else at, partial(self._start, member))
        return member

    def perform(self, member: Member, effects: Effects, by_timer: bool = False) -> None:
        """Do what a member wants done, and see to it that it is woken."""
        for effect in effects:
            match effect:
                case Send():
                    self._send(Sent(self.now, member, effect.to, effect.message, by_timer))
                case FindContacts():
                    self._later(self.now + 0.05, partial(self._ask, member, effect.role))
                case Abort():
                    member.errors.append(effect.error)
                case _:
                    assert isinstance(effect, Announce), "a node asks for nothing else"
        if member.node.stable and not member.confirmed:
            member.confirmed = True
            self._rendezvous[member.side].confirm(member.number)
            self._admit(member.side)
        deadline = member.node.next_deadline
        if deadline < member.wake_at:
            member.wake_at = deadline
            self._later(deadline, partial(self._wake, member))

    def crash(self, members: Iterable[Member]) -> None:
        """Members die without a word."""
        for member in members:
            member.alive = False
            self._rendezvous[member.side].forget(member.number)

    def leave(self, members: Iterable[Member]) -> None:
        """Members say goodbye."""
        for member in members:
            self.perform(member, member.node.leave(self.now))
            member.alive, member.leaving = False, True
            self._rendezvous[member.side].forget(member.number)

    def part(self, members: Iterable[Member]) -> None:
        """Cut these off from all the others, with a rendezvous of their own."""
        self._rendezvous[1] = Rendezvous(self._rng)
        for member in members:
            member.side = 1
            self._rendezvous[0].forget(member.number)
            if member.confirmed:
                self._rendezvous[1].confirm(member.number)

    def heal(self) -> None:
        """Undo the cut."""
        for member in self.members:
            member.side = 0
        self._rendezvous[0].merge(self._rendezvous.pop(1))

    def pause(self, member: Member, seconds: float) -> None:
        """A member stands still, and hears nothing meanwhile."""
        member.paused = True
        self._later(self.now + seconds, partial(self._resume, member))

    def run(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self._heap and self._heap[0][0] <= end:
            self.now, _, action = heappop(self._heap)
            action()
        self.now = end

    def run_until(self, holds: Callable[[], bool], limit: float, step: float = 0.25) -> float:
        """Let time pass until something holds; returns how long that took, inf if it never did."""
        start = self.now
        while not holds():
            if self.now - start >= limit:
                return inf
            self.run(step)
        return self.now - start

    def _later(self, at: float, action: Callable[[], None]) -> None:
        heappush(self._heap, (at, next(self._sequence), action))

    def _start(self, member: Member) -> None:
        if member.alive:
            self.perform(member, member.node.start(self.now))

    def _wake(self, member: Member) -> None:
        if not member.hears or member.wake_at > self.now:
            return
        member.wake_at = inf
        due = member.node.next_deadline <= self.now
        self.perform(member, member.node.wake(self.now) if due else (), by_timer=True)

    def _resume(self, member: Member) -> None:
        member.paused = False
        self._wake(member)

    def _send(self, sent: Sent) -> None:
        if self.log is not None:
            self.log.append(sent)
        data = CODEC.encode(sent.message)
        receiver = self._at_endpoint.get(sent.to.endpoints[0])
        beats = receiver is not None and sent.by_timer and _greets_neighbor(sent, receiver)
        self.sent["beats" if beats else type(sent.message).__name__] += 1
        lost = self._rng.random() < self.loss
        at = self.now + self._rng.uniform(*self.delay)
        if receiver is not None and not lost:
            self._later(at, partial(self._deliver, sent.sender, receiver, data))

    def _deliver(self, sender: Member, receiver: Member, data: bytes) -> None:
        if not receiver.hears or sender.side != receiver.side:
            return
        if self.cut and (sender.number, receiver.number) in self.cut:
            return
        message = receiver.hellos.get(sender.number)
        if message is None or message.encoded != data:
            message = CODEC.decode(data, Counter())
            if message.repeats:
                receiver.hellos[sender.number] = message
        self.perform(receiver, receiver.node.receive(message, sender.contact, self.now))

    def _ask(self, member: Member, role: Role) -> None:
        if self.rendezvous_up and member.alive:
            rendezvous = self._rendezvous[member.side]
            rendezvous.ask(member.number, role)
            if member.number in rendezvous.admitted:
                self._tell(member)
            self._admit(member.side)

    def _admit(self, side: int) -> None:
        for number in self._rendezvous[side].admit():
            self._tell(self.members[number])

    def _tell(self, member: Member) -> None:
        rendezvous = self._rendezvous[member.side]
        if member.confirmed:
            rendezvous.admitted.pop(member.number, None)
        others = [self.members[number] for number in rendezvous.sample()]
        found = [other.node.contact for other in others if other is not member]
        self._later(self.now + 0.05, partial(self._told, member, found))

    def _told(self, member: Member, found: list[Contact]) -> None:
        if member.hears:
            self.perform(member, member.node.contacts(found, self.now))


def _greets_neighbor(sent: Sent, receiver: Member) -> bool:
    return (
        isinstance(sent.message, Hello)
        and sent.message.heard
        and any(contact.address == sent.sender.at for contact in receiver.node.neighbors)
    )
