"""`OverlayCore`: one membership in one overlay, whole, behind one set of inputs.

Its one rule: it holds a node, a contact finder, a meter, a forwarding engine and services, passes
each input to the one that it is for, and turns what they ask for into the eight effects that a
driver knows: `Send`, `Transmit`, `TransmitGroup`, `Forward`, `Emit`, `Answered`, `AskLinks` and
`Abort`. A core lives from `join` to the end of its `leave`; who joins again gets a new one.

A driver is this loop, and both the Trio host and the simulator are:

    core = OverlayCore(settings, contact, rng)
    perform(core.join(now))
    while True:
        wait for a packet, an application's call, or core.next_deadline
        perform(core.receive(kind, body, sender, now))       # protocol, rendezvous, measurement
        perform(core.hear(message, sender, now))             # a protocol message handed over
        forward(core.switch(frames, arrived_from, now))      # overlay messages of one read
        forward(core.originate(payloads, mode, key, now))    # the application's messages
        perform(core.wake(now))

`forward` writes a Dispatch's outputs to neighbors, hands what it delivers to the application, and
performs `core.serve(dispatch.for_services, now)` when there is anything for services. A dispatch
that is `gathering` may have moved `core.next_deadline`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from math import inf
from random import Random

from attrs import define, field

from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.attendant import ATTENDED, Attendant, Attended, Speak
from opus_socket.core.contacts import ContactFinder, Found, Heard
from opus_socket.core.core_values import CoreSettings, CoreStatistics
from opus_socket.core.dispatch import Dispatch, ForService
from opus_socket.core.effects import (
    Abort,
    Announce,
    DriverEffect,
    Emit,
    FindContacts,
    Kind,
    Measure,
    Quantity,
    Send,
    Transmit,
    TransmitGroup,
)
from opus_socket.core.engine import ForwardingEngine
from opus_socket.core.events import (
    AddressChanged,
    ContactFailed,
    NeighborAdded,
    NeighborRemoved,
    SourceBroken,
    Stable,
    Unstable,
)
from opus_socket.core.inquiries import Answered, Target
from opus_socket.core.link_watch import AskLinks, LinkFigures, LinkWatch, Silent
from opus_socket.core.measurement import Measured, Meter
from opus_socket.core.message import SHAPES
from opus_socket.core.node import Mode, Node, NodeContext
from opus_socket.core.parcel import Frames
from opus_socket.core.runs import SERVICE_SIZE
from opus_socket.core.service import (
    Scope,
    Service,
    ServiceContext,
    services_by_id,
)
from opus_socket.core.serving import Forward, Serving
from opus_socket.core.wire import Decoder, ProtocolMessage
from opus_socket.errors import RemoteProtocolError

__all__ = ["CoreEffect", "CoreEffects", "CoreSettings", "CoreStatistics", "Forward", "OverlayCore"]

CoreEffect = DriverEffect | Send | Forward | Answered | AskLinks
CoreEffects = Sequence[CoreEffect]


@define(eq=False, repr=False)
class OverlayCore:
    """One membership in one overlay.

    Args:
        settings: see `CoreSettings`; cores of one overlay may share it.
        contact: where this member is reached, without a logical address.
        rng: its only source of chance.

    Attributes:
        watch: looks after the links. Its `due` is the one deadline that `switch` and `originate`
            change.
    """

    settings: CoreSettings
    contact: Contact
    rng: Random
    node: Node = field(init=False)
    engine: ForwardingEngine = field(init=False)
    stable: bool = field(default=False, init=False)
    watch: LinkWatch = field(init=False)
    _finder: ContactFinder = field(init=False)
    _meter: Meter = field(init=False)
    _attendant: Attendant = field(init=False)
    _serving: Serving = field(init=False)
    _version: int = field(default=-1, init=False)
    _neighbors: dict[LogicalAddress, Contact] = field(factory=dict, init=False)
    _listed: tuple[Contact, ...] = field(default=(), init=False)
    _by_place: dict[tuple[str, int, int], LogicalAddress] | None = field(default=None, init=False)
    _seldom: float | None = field(default=None, init=False)
    _decoder: Decoder = field(init=False)
    _sent: list[int] = field(factory=lambda: [0] * len(Kind), init=False)
    _received: list[int] = field(factory=lambda: [0] * len(Kind), init=False)
    _refused: Counter[str] = field(factory=Counter, init=False)

    def __attrs_post_init__(self) -> None:
        settings = self.settings
        context = NodeContext(self.contact, Random(self.rng.getrandbits(64)))
        self.node = settings.spec.create(context, settings.node)
        self._finder = ContactFinder(
            settings.overlay_id,
            settings.attributes,
            settings.finder,
            Random(self.rng.getrandbits(64)),
        )
        self._decoder = Decoder(settings.codec, self._refused)
        self._meter = Meter(Random(self.rng.getrandbits(64)))
        self.engine = ForwardingEngine(self.node, settings.engine, self.contact.incarnation)
        self.contact = self.node.contact
        self._serving = Serving(self.engine, self._refused)
        services_by_id(spec for spec, _ in settings.services)
        for spec, service_settings in settings.services:
            rng = Random(self.rng.getrandbits(64))
            head = SHAPES[settings.spec.las].size + SERVICE_SIZE
            longest = settings.engine.maximum_frame - head
            given = ServiceContext(self.contact, rng, self.node, longest)
            self._serving.add(spec, spec.create(given, service_settings))
        self._attendant = Attendant(self.engine, self.node, Random(self.rng.getrandbits(64)))
        self.watch = self._attendant.watch

    # Life

    def join(self, now: float) -> CoreEffects:
        """Begin to look for the overlay; `Emit(Stable)` says when the place is found."""
        self._seldom = None
        out: list[CoreEffect] = []
        self._perform(self._finder.begin(self.node.contact, now), now, out)
        self._perform(self.node.start(now), now, out)
        out += self._serving.start(now)
        self._notice_changes(now, out)
        return out

    def leave(self, now: float) -> CoreEffects:
        """Say goodbye. The core is to be woken until `next_deadline` is inf."""
        self._seldom = None
        self._attendant.end()
        out: list[CoreEffect] = [*self._serving.leave(now)]
        self._perform(self.node.leave(now), now, out)
        self._perform(self._finder.leave(now), now, out)
        self.engine.leave()
        self._notice_changes(now, out)
        return out

    # Inputs

    def receive(self, kind: Kind, body: bytes, sender: Contact, now: float) -> CoreEffects:
        """A message of another kind than overlay messages came.

        Args:
            kind: `PROTOCOL`, `RENDEZVOUS` or `MEASUREMENT`.
            body: its bytes; whatever is wrong with them is counted, never raised.
            sender: where they came from.
            now: seconds.
        """
        out: list[CoreEffect] = []
        self._received[kind] += 1
        try:
            if kind is Kind.PROTOCOL:
                self._hear(self._decoder.decode(body), sender, now, out)
            elif kind is Kind.RENDEZVOUS:
                self._perform(self._finder.receive(body, sender, now), now, out)
            elif kind is Kind.MEASUREMENT:
                self._seldom = None
                self._perform(self._meter.receive(body, sender, now), now, out)
        except RemoteProtocolError as error:
            self._refused[error.kind] += 1
        if self.node.version != self._version:
            self._notice_changes(now, out)
        return out

    def hear(self, message: ProtocolMessage, sender: Contact, now: float) -> CoreEffects:
        """A protocol message came from a member of the same process, as it was sent.

        Args:
            message: of any protocol; the node counts what is not of its own.
            sender: where it came from.
            now: seconds.
        """
        out: list[CoreEffect] = []
        self._received[Kind.PROTOCOL] += 1
        self._hear(message, sender, now, out)
        if self.node.version != self._version:
            self._notice_changes(now, out)
        return out

    def encode(self, message: ProtocolMessage) -> bytes:
        """The bytes of a message that this core asked to send."""
        return self.settings.codec.encode(message)

    def wake(self, now: float) -> CoreEffects:
        """The deadline has come."""
        out: list[CoreEffect] = []
        if self.node.next_deadline <= now:
            self._perform(self.node.wake(now), now, out)
        if self._finder.next_deadline <= now:
            self._perform(self._finder.wake(now), now, out)
        if self._seldom is None or self._seldom <= now:
            self._wake_others(now, out)
        self._notice_changes(now, out)
        return out

    def _wake_others(self, now: float, out: list[CoreEffect]) -> None:
        self._seldom = None
        if self._meter.next_deadline <= now:
            self._perform(self._meter.wake(now), now, out)
        if self._attendant.next_deadline <= now:
            self._attend(self._attendant.wake(now), now, out)
        if self._serving.next_deadline <= now:
            out += self.serve(self._serving.take_own(), now)
            out += self._serving.wake(now)
        if self.engine.next_deadline <= now:
            out += map(Emit, self.engine.wake(now))

    @property
    def next_deadline(self) -> float:
        """When `wake` is due; inf for never."""
        # Asked for after every input, of which nearly all concern the node alone.
        seldom = self._seldom
        if seldom is None:
            seldom = self._seldom = min(
                self._meter.next_deadline,
                self._attendant.next_deadline,
                self._serving.next_deadline,
                self.engine.next_deadline,
            )
        return min(self.node.next_deadline, self._finder.next_deadline, seldom)

    def switch(self, frames: Frames, arrived_from: LogicalAddress | None, now: float) -> Dispatch:
        """Overlay messages came: see `ForwardingEngine.switch`."""
        self._seldom = None
        dispatch = self.engine.switch(frames, arrived_from, now)
        if arrived_from is not None:
            heard = self.watch.heard.get(arrived_from)
            if heard is None and arrived_from in self._neighbors:
                heard = self.watch.hear(self._neighbors[arrived_from], now)
            if heard is not None:
                heard.messages += dispatch.received
                heard.size += dispatch.consumed
        if dispatch.broken is not None:
            self._refused[dispatch.broken] += 1
        return dispatch

    def originate(
        self,
        payloads: Sequence[bytes],
        mode: Mode,
        key: LogicalAddress | None,
        now: float,
        *,
        hop_limit: int | None = None,
        traffic_class: int = 0,
    ) -> Dispatch:
        """The application sends: see `ForwardingEngine.originate`."""
        self._seldom = None
        if self.watch.due == inf:
            self.watch.begin(now)
        return self.engine.originate(
            payloads, mode, key, now, hop_limit=hop_limit, traffic_class=traffic_class
        )

    def serve(self, messages: Sequence[ForService], now: float) -> CoreEffects:
        """Hand a dispatch's `for_services` to the services that they are for."""
        self._seldom = None
        out: list[CoreEffect] = []
        for message in messages:
            try:
                if message.service in ATTENDED:
                    self._attend(self._attendant.receive(message, self.contact, now), now, out)
                else:
                    out += self._serving.receive(message, now)
            except RemoteProtocolError as error:
                self._refused[error.kind] += 1
        return out

    def set_handler(self, handler: Service | None, scope: Scope, now: float) -> CoreEffects:
        """Let a handler of the application see its messages: see `Serving.set_handler`."""
        self._seldom = None
        return self._serving.set_handler(handler, scope, now)

    def ask(self, service: str, request: object, now: float) -> CoreEffects:
        """The application asks something of a service: see `Serving.ask`."""
        self._seldom = None
        return self._serving.ask(service, request, now)

    def service(self, name: str) -> Service:
        """The service of that name: see `Serving.named`."""
        return self._serving.named(name)

    def link_failed(self, contact: Contact, now: float) -> CoreEffects:
        """An adapter lost its connection to a contact."""
        self._seldom = None
        out: list[CoreEffect] = []
        if contact.address in self._neighbors:
            self._lose(contact.address, now, out)
            self._notice_changes(now, out)
        return out

    def links(self, figures: Sequence[LinkFigures], now: float) -> CoreEffects:
        """What the driver knows of this member's links, as `AskLinks` asks for."""
        self._seldom = None
        out: list[CoreEffect] = []
        self._attend(self._attendant.links(figures, self._neighbors, now), now, out)
        self._notice_changes(now, out)
        return out

    def set(self, name: str, value: object, now: float) -> CoreEffects:
        """Turn a knob of the protocol: see `Node.set`."""
        self._seldom = None
        out: list[CoreEffect] = []
        self._perform(self.node.set(name, value, now), now, out)
        self._notice_changes(now, out)
        return out

    def measure(self, target: Target, quantity: Quantity, now: float) -> CoreEffects:
        """Measure the way to any member, on somebody's request; `Answered` says the result.

        Raises:
            LocalProtocolError: it is nobody's address, or no quantity that is measured on request.
        """
        self._seldom = None
        out: list[CoreEffect] = []
        known = None if isinstance(target, Contact) else self._neighbors.get(target)
        self._attend(self._attendant.ask(target, known, quantity, now), now, out)
        return out

    def refuse(self, kind: str) -> None:
        """Count a packet that an adapter had to drop because its bytes break the protocol."""
        self._refused[kind] += 1

    # Queries

    @property
    def neighbors(self) -> Mapping[LogicalAddress, Contact]:
        """The neighbors by logical address, sorted."""
        return self._neighbors

    def neighbor_at(self, sender: Contact) -> LogicalAddress | None:
        """The neighbor that sends from there, if it is one."""
        if self._by_place is None:
            # Not kept while a node gathers its neighbors: nobody asks before they send.
            self._by_place = {
                (endpoint.host, endpoint.port, contact.index): address
                for address, contact in self._neighbors.items()
                for endpoint in contact.endpoints
            }
        host, port, _ = sender.endpoints[0]
        return self._by_place.get((host, port, sender.index))

    def statistics(self) -> CoreStatistics:
        """Figures so far."""
        return CoreStatistics(
            node=self.node.statistics(),
            engine=self.engine.statistics(),
            sent={kind.name.lower(): self._sent[kind] for kind in Kind if self._sent[kind]},
            received={
                kind.name.lower(): self._received[kind] for kind in Kind if self._received[kind]
            },
            refused=dict(self._refused),
            services=self._serving.statistics(),
            links=self.watch.statistics(),
            sessions=self._attendant.sessions.statistics(),
        )

    # What machines ask for

    def _hear(
        self, message: ProtocolMessage, sender: Contact, now: float, out: list[CoreEffect]
    ) -> None:
        effects = self.node.receive(message, sender, now)
        if effects:
            self._perform(effects, now, out)

    def _lose(self, neighbor: LogicalAddress, now: float, out: list[CoreEffect]) -> None:
        """The way to a neighbor has failed. The node is told first: it may know another one."""
        self._perform(self.node.link_failed(neighbor, now), now, out)
        out += self._serving.link_failed(neighbor, now)
        self._attendant.link_failed(neighbor, now)

    def _attend(self, effects: Iterable[Attended], now: float, out: list[CoreEffect]) -> None:
        """Carry out what the attendant asks for."""
        for effect in effects:
            match effect:
                case Speak(service=service, messages=messages):
                    out += self._serving.send(service, messages, now)
                case Silent(contact=contact):
                    reason = "it sends nothing any more and does not answer"
                    out.append(Emit(ContactFailed(contact.endpoints[0], reason, contact.address)))
                    if contact.address in self._neighbors:
                        self._lose(contact.address, now, out)
                case AskLinks():
                    out.append(effect)
                case Emit(event=SourceBroken(source=source, via=via)):
                    out.append(effect)
                    out += self._serving.source_broken(source, via, now)
                case _:
                    self._perform((effect,), now, out)

    def _perform(self, effects: Iterable[object], now: float, out: list[CoreEffect]) -> None:
        """Carry out effects in order; those that they lead to come after them."""
        led_to: list[object] = []
        for effect in effects:
            if type(effect) is Send:
                self._sent[Kind.PROTOCOL] += 1
                out.append(effect)
                continue
            match effect:
                case Transmit(kind=kind) | TransmitGroup(kind=kind):
                    self._sent[kind] += 1
                    out.append(effect)
                case Emit() | Abort() | Answered():
                    out.append(effect)
                case FindContacts(role=role):
                    led_to.extend(self._finder.find(role, now))
                case Announce(message=message):
                    body = self.settings.codec.encode(message)
                    led_to.extend(self._finder.announce(body, now))
                case Measure(to=to, quantity=quantity):
                    self._seldom = None
                    led_to.extend(self._meter.measure(to, quantity, now))
                case Found(contacts=contacts):
                    led_to.extend(self.node.contacts(contacts, now))
                case Heard(body=body, sender=sender):
                    self._hear(self._decoder.decode(body), sender, now, out)
                case Measured(contact=contact, measurement=measurement):
                    led_to.extend(self.node.measured(contact, measurement, now))
                    self._attend(self._attendant.measured(contact, measurement), now, out)
                case _:
                    raise TypeError(f"not an effect: {effect!r}")
        if led_to:
            self._perform(led_to, now, out)

    def _notice_changes(self, now: float, out: list[CoreEffect]) -> None:
        """Report what is different since the last look, and tell the contact finder."""
        while self.node.version != self._version:
            self._version = self.node.version
            self._notice_change(self.node, now, out)

    def _notice_change(self, node: Node, now: float, out: list[CoreEffect]) -> None:
        if node.contact is not self.contact:
            old, self.contact = self.contact.address, node.contact
            if old is not None and old != node.address:
                out.append(Emit(AddressChanged(old, node.address)))
        neighbors = node.neighbors
        if neighbors is not self._listed:
            self._listed = neighbors
            self._notice_neighbors(neighbors, now, out)
        if node.stable != self.stable:
            self.stable = node.stable
            out.append(Emit((Stable if node.stable else Unstable)(node.address)))
        told = self._finder.update(node.contact, neighbors, node.stable, now)
        if told:
            self._perform(told, now, out)

    def _notice_neighbors(
        self, neighbors: tuple[Contact, ...], now: float, out: list[CoreEffect]
    ) -> None:
        before = self._neighbors
        self._by_place = None
        self._neighbors = there = {
            contact.address: contact for contact in neighbors if contact.address is not None
        }
        # A restarted member is another one, at the same address.
        # Hardly ever are equal contacts not one object, and to compare them takes longer.
        for address, contact in before.items():
            now_there = there.get(address)
            if now_there is not contact and now_there != contact:
                self._seldom = None
                out.append(Emit(NeighborRemoved(contact)))
                out += self._serving.link_failed(address, now)
                self._attendant.gone(address, now)
        for address, contact in there.items():
            known = before.get(address)
            if known is not contact and known != contact:
                out.append(Emit(NeighborAdded(contact)))
