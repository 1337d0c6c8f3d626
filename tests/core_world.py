"""Real cores joined by a fake wire, with a small protocol and a small service.

The one rule: the wire carries what cores transmit, in order and at once, and judges nothing. The
protocol knows no topology: whoever says hi is a neighbor. The service answers in capitals.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from math import inf
from random import Random
from typing import ClassVar

from attrs import define, field, frozen

from opus_socket.core import effects
from opus_socket.core.addresses import ANY_INDEX, Contact, Endpoint, LogicalAddress, OverlayID
from opus_socket.core.contacts import FinderSettings
from opus_socket.core.dispatch import Dispatch, ForService
from opus_socket.core.effects import (
    Abort,
    Effects,
    Emit,
    FindContacts,
    Kind,
    Role,
    Send,
    Transmit,
    TransmitGroup,
)
from opus_socket.core.engine import EngineSettings
from opus_socket.core.events import (
    ContactFailed,
    Event,
)
from opus_socket.core.inquiries import Answered
from opus_socket.core.key_attributes import KeyAttributes
from opus_socket.core.link_watch import AskLinks, LinkFigures
from opus_socket.core.message import OverlayMessage
from opus_socket.core.node import Measurement, Mode, Node, NodeContext, ProtocolSpec
from opus_socket.core.overlay import CoreEffects, CoreSettings, OverlayCore
from opus_socket.core.parcel import Parcel
from opus_socket.core.service import Originate, Release, Service, ServiceEffects, ServiceSpec
from opus_socket.core.serving import Forward
from opus_socket.core.wire import ProtocolMessage
from opus_socket.errors import JoinError


@define(eq=False)
class Hi(ProtocolMessage):
    """I am your neighbor."""

    code: ClassVar[int] = 1
    repeats: ClassVar[bool] = True
    source: Contact


@define(eq=False)
class Bye(ProtocolMessage):
    """I am your neighbor no more."""

    code: ClassVar[int] = 2
    source: Contact


@frozen
class GreeterSettings:
    """Where the node stands."""

    number: int = 0


class Greeter(Node):
    """Everybody who says hi is a neighbor; messages go round by the larger number."""

    next_deadline = inf

    def __init__(self, context: NodeContext, settings: GreeterSettings) -> None:
        self.contact = context.contact.at(LogicalAddress((settings.number,)))
        self.stable = False
        self.version = 0
        self.table: dict[LogicalAddress, Contact] = {}
        self.greeted: list[Hi] = []
        self.measurements: list[tuple[Contact, Measurement]] = []
        self.failed: list[LogicalAddress] = []
        self.woken: list[float] = []
        self.asks: list[object] = []

    @property
    def neighbors(self) -> tuple[Contact, ...]:
        return tuple(self.table[address] for address in sorted(self.table))

    def parent(self, root: LogicalAddress) -> LogicalAddress | None:
        return root if root in self.table else min(self.table, default=None)

    def children(self, root: LogicalAddress) -> tuple[LogicalAddress, ...]:
        return tuple(sorted(self.table)) if root == self.address else ()

    def start(self, now: float) -> Effects:
        announcement = effects.Announce(Hi(self.contact))
        return [FindContacts(Role.NEW), announcement, *self.asks]  # type: ignore[list-item]

    def receive(self, message: ProtocolMessage, sender: Contact, now: float) -> Effects:
        if isinstance(message, Bye):
            self.table.pop(message.source.address or self.address, None)
            self.version += 1
            return ()
        assert isinstance(message, Hi)
        self.greeted.append(message)
        address = message.source.address
        if address is None or self.table.get(address) == message.source:
            return ()
        self.table[address] = message.source
        self.stable = True
        self.version += 1
        return [Send(message.source, Hi(self.contact))]

    def contacts(self, found: Sequence[Contact], now: float) -> Effects:
        if not found:
            self.stable = True
            self.version += 1
        return [Send(contact, Hi(self.contact)) for contact in found[:1]]

    def wake(self, now: float) -> Effects:
        self.woken.append(now)
        self.next_deadline = inf
        return ()

    def leave(self, now: float) -> Effects:
        byes = [Send(contact, Bye(self.contact)) for contact in self.neighbors]
        self.table.clear()
        self.stable = False
        self.version += 1
        return byes

    def measured(self, contact: Contact, measurement: Measurement, now: float) -> Effects:
        self.measurements.append((contact, measurement))
        return ()

    def link_failed(self, neighbor: LogicalAddress, now: float) -> Effects:
        self.failed.append(neighbor)
        return [Send(self.table[neighbor], Hi(self.contact))]

    def set(self, name: str, value: object, now: float) -> Effects:
        if name != "number" or not isinstance(value, int):
            return super().set(name, value, now)
        self.contact = self.contact.at(LogicalAddress((value,)))
        self.version += 1
        return ()


@frozen
class EchoSettings:
    """Nothing can be set."""


class Echo(Service):
    """Answers every body by the same in capitals; holds what passes until it is woken."""

    next_deadline = inf

    def __init__(self) -> None:
        self.heard: list[bytes] = []
        self.held: list[ForService] = []
        self.ended = False
        self.next_deadline = 5.0

    def start(self, now: float) -> ServiceEffects:
        return [Emit(ContactFailed(Endpoint("127.0.0.1", 1), "of a service"))]

    def receive(self, message: ForService, now: float) -> ServiceEffects:
        body = message.message.payload
        if message.held:
            self.held.append(message)
            return ()
        self.heard.append(body)
        if body.isupper():
            return ()
        return [Originate([body.upper()], Mode.UNICAST, message.message.source)]

    def wake(self, now: float) -> ServiceEffects:
        self.next_deadline = inf
        held, self.held = self.held, []
        return [
            *[Release(message) for message in held],
            Originate([b"woken"], Mode.MULTICAST, hop_limit=1, traffic_class=3),
        ]

    def leave(self, now: float) -> ServiceEffects:
        self.ended = True
        return [Originate([b"LEAVING"], Mode.MULTICAST)]


GREETER = ProtocolSpec("greeter", "Greets.", 0, GreeterSettings, (Hi, Bye), Greeter)
ECHO = ServiceSpec(
    "echo", "Answers.", EchoSettings, lambda context, settings: Echo(), intercepts=True
)


def endpoint(number: int) -> Endpoint:
    return Endpoint("10.0.0.1", 1000 + number)


def whereabouts(number: int) -> Contact:
    return Contact(None, 0, ANY_INDEX, (endpoint(number),))


@define(eq=False)
class Member:
    """A core, and what came out of it."""

    core: OverlayCore
    events: list[Event] = field(factory=list)
    delivered: list[OverlayMessage] = field(factory=list)
    aborted: list[JoinError] = field(factory=list)
    answers: list[Answered] = field(factory=list)
    carried: dict[Contact, tuple[int, int]] = field(factory=dict)

    def figures(self) -> list[LinkFigures]:
        """What a driver would know of its links."""
        return [LinkFigures(each, *self.carried[each], 0, 0, 0) for each in self.carried]

    @property
    def node(self) -> Greeter:
        assert isinstance(self.core.node, Greeter)
        return self.core.node

    @property
    def echo(self) -> Echo:
        service = self.core.service(ECHO.name)
        assert isinstance(service, Echo)
        return service


@define(eq=False)
class World:
    """A wire between cores: it carries what they transmit at once, and forward in order."""

    now: float = 0.0
    members: dict[int, Member] = field(factory=dict)
    _wire: deque[tuple[int, int, Kind, bytes]] = field(factory=deque)

    def add(
        self,
        number: int,
        *buddies: int,
        overlay: str = "lab",
        attribute: str = "greeter",
        multicast: bool = False,
        incarnation: int = 1,
        services: Sequence[ServiceSpec] = (),
    ) -> Member:
        """A member that has not joined yet."""
        core_settings = CoreSettings(
            OverlayID(overlay),
            GREETER,
            GreeterSettings(number),
            KeyAttributes([("node", attribute)]),
            FinderSettings(buddies=tuple(map(whereabouts, buddies)), multicast=multicast),
            EngineSettings(),
            tuple((spec, spec.settings()) for spec in services),
        )
        contact = Contact(None, number << 8 | incarnation, number, (endpoint(number),))
        core = OverlayCore(core_settings, contact, Random(number))
        self.members[number] = Member(core)
        return self.members[number]

    def join(
        self,
        number: int,
        *buddies: int,
        multicast: bool = False,
        incarnation: int = 1,
        services: Sequence[ServiceSpec] = (),
    ) -> Member:
        """A member that has joined, as far as that needs no time."""
        member = self.add(
            number,
            *buddies,
            multicast=multicast,
            incarnation=incarnation,
            services=services,
        )
        self.perform(number, member.core.join(self.now))
        self.run()
        return member

    def perform(self, number: int, asked: CoreEffects) -> None:
        member = self.members[number]
        for effect in asked:
            match effect:
                case Send(to=to, message=message):
                    body = member.core.encode(message)
                    self._wire.append((number, to.endpoints[0].port - 1000, Kind.PROTOCOL, body))
                case Transmit(to=to, kind=kind, body=body):
                    self._wire.append((number, to.endpoints[0].port - 1000, kind, body))
                case TransmitGroup(kind=kind, body=body):
                    for other in self.members:
                        if other != number:
                            self._wire.append((number, other, kind, body))
                case Forward(dispatch=dispatch):
                    self.forward(number, dispatch)
                case Emit(event=event):
                    member.events.append(event)
                case Answered():
                    member.answers.append(effect)
                case AskLinks():
                    self.perform(number, member.core.links(member.figures(), self.now))
                case Abort(error=error):
                    member.aborted.append(error)

    def forward(self, number: int, dispatch: Dispatch) -> None:
        member = self.members[number]
        member.delivered += dispatch.delivered
        for output in dispatch.outputs:
            frames, size = member.carried.get(output.contact, (0, 0))
            member.carried[output.contact] = frames + output.frames, size + output.size
            self._wire.append((number, output.contact.index, Kind.OVERLAY, b"".join(output.pieces)))
        if dispatch.for_services:
            self.perform(number, member.core.serve(dispatch.for_services, self.now))

    def send(
        self, number: int, payload: bytes, mode: Mode = Mode.MULTICAST, to: int | None = None
    ) -> None:
        key = None if to is None else LogicalAddress((to,))
        core = self.members[number].core
        self.forward(number, core.originate([payload], mode, key, self.now))
        self.run()

    def run(self) -> None:
        """Carry everything, wake whoever is due."""
        while self._wire:
            origin, target, kind, body = self._wire.popleft()
            if target not in self.members:
                continue
            core = self.members[target].core
            sender = Contact(None, 0, origin, (endpoint(origin),))
            if kind is Kind.OVERLAY:
                arrived_from = core.neighbor_at(sender)
                dispatch = core.switch(Parcel(len(body), [body]), arrived_from, self.now)
                self.forward(target, dispatch)
            else:
                self.perform(target, core.receive(kind, body, sender, self.now))

    def advance(self, until: float) -> None:
        """Let time pass, waking every core when it asked for it."""
        while True:
            due, number = min((m.core.next_deadline, n) for n, m in self.members.items())
            if due > until:
                break
            self.now = max(self.now, due)
            self.perform(number, self.members[number].core.wake(self.now))
            self.run()
        self.now = until
