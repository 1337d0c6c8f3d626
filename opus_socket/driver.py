"""The Trio driver: a `Host`, which holds the machines of any number of overlay sockets.

Its one rule: it turns packets, deadlines and calls into inputs of machines, and performs their
effects; it decides nothing. The loop that does so is its base, see `loop`. The host knows members
(`member.py`) by (overlay tag, index).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain, count, tee

from attrs import define, field, frozen

from opus_socket.adapters.address_cache import AddressCache
from opus_socket.adapters.base import EVERY_INDEX, LONGEST_FRAME, READ_SIZE, Route
from opus_socket.adapters.flow import Output
from opus_socket.adapters.local import LocalMessages
from opus_socket.adapters.memory import keep_freed_memory
from opus_socket.adapters.pool import Place, TcpStatistics
from opus_socket.adapters.udp import UdpPort, UdpStatistics
from opus_socket.core.addresses import ANY_INDEX, Contact, Endpoint
from opus_socket.core.buckets import Direction
from opus_socket.core.dispatch import Dispatch
from opus_socket.core.effects import Abort, Emit, Kind, Send, Transmit, TransmitGroup
from opus_socket.core.events import ContactFailed, Event, NeighborRemoved
from opus_socket.core.inquiries import Answered
from opus_socket.core.link_watch import AskLinks
from opus_socket.core.overlay import CoreEffects
from opus_socket.core.parcel import Frames
from opus_socket.core.serving import Forward
from opus_socket.core.wire import ProtocolMessage
from opus_socket.links import Links
from opus_socket.loop import Loop
from opus_socket.member import Member, Port


@frozen
class HostStatistics:
    """Figures of a host.

    Attributes:
        members: overlay sockets that are members now.
        turns: turns of the loop.
        refused: bytes that could be given to no member, by what was wrong with them.
        udp, tcp: its sockets.
    """

    members: int
    turns: int
    refused: Mapping[str, int]
    udp: tuple[UdpStatistics, ...]
    tcp: tuple[TcpStatistics, ...]


@define(eq=False, repr=False)
class Host(Loop):
    """The one I/O loop, connection pool and timer heap of a process.

    An adapter sees it as its `Switchboard`.

    Attributes:
        closing: whether its sockets leave because it is being closed.
    """

    buffer: bytearray = field(factory=lambda: bytearray(READ_SIZE + LONGEST_FRAME))
    address_cache: AddressCache = field(factory=AddressCache, init=False)
    members: dict[tuple[int, int], Member] = field(factory=dict, init=False)
    links: Links = field(init=False)
    closing: bool = field(default=False, init=False)
    _by_tag: dict[int, dict[int, Member]] = field(factory=dict, init=False)
    _digests: dict[int, bytes] = field(factory=dict, init=False)
    _ports: dict[Place, Port] = field(factory=dict, init=False)
    _groups: list[UdpPort] = field(factory=list, init=False)
    _next_index: Iterator[int] = field(factory=count, init=False)
    _refused: Counter[str] = field(factory=Counter, init=False)
    _local: LocalMessages = field(init=False)

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        keep_freed_memory()
        self.links = Links(self)
        self._local = LocalMessages(self)

    # What adapters see

    def message(self, route: Route, kind: Kind, body: bytes, sender: Contact) -> None:
        """A protocol, rendezvous or measurement message came."""
        found = self.members.get((route.tag, route.to_index))
        for member in (found,) if found is not None else self._anyone(route, sender):
            core = member.core
            if member.emulation is not None:
                member.emulation.charge(Direction.IN, core.neighbor_at(sender), len(body))
            effects = core.receive(kind, body, sender, self.now())
            if effects or core.next_deadline < member.scheduled:
                self.perform(member, effects)

    def hear(self, route: Route, message: ProtocolMessage, sender: Contact) -> None:
        """A protocol message came from a member of this host, as it was sent."""
        found = self.members.get((route.tag, route.to_index))
        for member in (found,) if found is not None else self._anyone(route, sender):
            core = member.core
            if member.emulation is not None:
                size = len(core.encode(message))
                member.emulation.charge(Direction.IN, core.neighbor_at(sender), size)
            effects = core.hear(message, sender, self.now())
            if effects or core.next_deadline < member.scheduled:
                self.perform(member, effects)

    def frames(
        self, route: Route, frames: Frames, sender: Contact, blockers: list[Output] | None
    ) -> tuple[int, str | None]:
        """Overlay messages came: switch them, as soon as the member has bandwidth for them."""
        member = self.members.get((route.tag, route.to_index))
        if member is None:
            self.refuse("nobody")
            return len(frames) if isinstance(frames, memoryview) else frames.size, None
        if member.emulation is not None:
            neighbor = member.core.neighbor_at(sender)
            return member.emulation.take(frames, sender, neighbor, blockers)
        return self.switch(member, frames, sender, blockers)

    def switch(
        self,
        member: Member,
        frames: Frames,
        sender: Contact,
        blockers: list[Output] | None,
    ) -> tuple[int, str | None]:
        """Have a member handle overlay messages now; arguments and result as `frames`."""
        core = member.core
        dispatch = core.switch(frames, core.neighbor_at(sender), self.now())
        self.forward(member, dispatch, blockers)
        return dispatch.consumed, dispatch.broken

    def is_here(self, contact: Contact) -> bool:
        """Whether a contact is a member of this process."""
        return contact.endpoints[0][:2] in self._ports

    def digest(self, tag: int) -> bytes | None:
        """The digest of the key attributes of an overlay that has members here."""
        return self._digests.get(tag)

    def refuse(self, kind: str, tag: int | None = None) -> None:
        """Count bytes that break the protocol."""
        self._refused[kind] += 1

    # What overlay sockets ask for

    def next_index(self) -> int:
        """An index that no member of this host has had."""
        return next(self._next_index)

    def add_port(self, port: Port) -> None:
        """Take a port over; it is closed with the host."""
        self._ports[port.endpoint[:2]] = port

    def close_port(self, port: Port) -> None:
        """Close a port and forget it."""
        self._ports.pop(port.endpoint[:2], None)
        port.close()

    def add_group(self, group: UdpPort) -> None:
        """Take over a socket that hears the multicast group."""
        self._groups.append(group)

    def admit(self, member: Member) -> None:
        """Let a member take part."""
        self.members[member.tag, member.index] = member
        self._by_tag.setdefault(member.tag, {})[member.index] = member
        self._note_digest(member.tag)

    def dismiss(self, member: Member) -> None:
        """Forget a member."""
        self.members.pop((member.tag, member.index), None)
        overlay = self._by_tag.get(member.tag, {})
        overlay.pop(member.index, None)
        if not overlay:
            self._by_tag.pop(member.tag, None)
        self._note_digest(member.tag)
        for contact, _ in list(member.links):
            self.links.drop(member, contact)
        if member.emulation is not None:
            member.emulation.close()

    def perform(
        self, member: Member, effects: CoreEffects, blockers: list[Output] | None = None
    ) -> None:
        """Do what a core asks for, then note its next deadline.

        Args:
            member: whose core asks.
            effects: in order.
            blockers: as for `forward`, of what services send.
        """
        for effect in effects:
            if type(effect) is Send:
                self._transmit(member, effect.to, Kind.PROTOCOL, effect.message)
                continue
            match effect:
                case Transmit(to=to, kind=kind, body=body):
                    self._transmit(member, to, kind, body)
                case TransmitGroup(kind=kind, body=body):
                    if member.group is not None and member.port.udp is not None:
                        if member.emulation is not None:
                            member.emulation.charge(Direction.OUT, None, len(body))
                        route = Route(member.tag, ANY_INDEX, member.index)
                        member.port.udp.send_to(member.group, route, kind, body)
                case Forward(dispatch=dispatch):
                    self.forward(member, dispatch, blockers)
                case Emit(event=event):
                    self._tell(member, event)
                case AskLinks():
                    self.perform(member, member.core.links(member.link_figures(), self.now()))
                case Answered():
                    member.answered(effect)
                case Abort(error=error):
                    member.aborted(error)
                case _:
                    raise TypeError(f"not an effect of a core: {effect!r}")
        when = member.core.next_deadline
        if when < member.scheduled:
            member.scheduled = when
            self.call_at(when, lambda: self._wake_member(member, when))

    def forward(self, member: Member, dispatch: Dispatch, blockers: list[Output] | None) -> None:
        """Write a dispatch's outputs to neighbors and hand what it delivers to the application.

        Args:
            member: whose core dispatched.
            dispatch: what came of a batch.
            blockers: outputs that are closed or stalled now are added to it. None when whoever
                feeds them cannot wait: then a closed output takes nothing.
        """
        for sent in dispatch.outputs:
            key = (sent.contact, sent.traffic_class)
            link = member.links.get(key) or self.links.make(member, *key)
            if blockers is None and link.output.closed:
                link.output.lose(sent.frames, sent.size, "overflow")
                continue
            link.push(sent.pieces, sent.size, sent.frames)
            if blockers is not None and (link.output.closed or link.output.stalled):
                blockers.append(link.output)
        if dispatch.delivered:
            output = member.inbox.output
            if blockers is None and output.closed:
                output.lose(len(dispatch.delivered), dispatch.delivered_size, "overflow")
            else:
                member.inbox.push(dispatch.delivered, dispatch.delivered_size)
                if blockers is not None and output.closed:
                    blockers.append(output)
        for event in dispatch.events:
            self._tell(member, event)
        if dispatch.for_services:
            effects = member.core.serve(dispatch.for_services, self.now())
            self.perform(member, effects, blockers)
        if dispatch.gathering or member.core.watch.due < member.scheduled:
            self.perform(member, ())

    @property
    def quiet(self) -> bool:
        """Whether no connection is left."""
        return all(port.tcp is None or port.tcp.quiet for port in self._ports.values())

    def finish(self) -> None:
        """End every connection when its queue is written."""
        for port in self._ports.values():
            if port.tcp is not None:
                port.tcp.finish()

    def close(self) -> None:
        """Close every socket at once, and end the loop."""
        super().close()
        for member in list(self.members.values()):
            self.dismiss(member)
        for port in list(self._ports.values()):
            self.close_port(port)
        groups, self._groups = self._groups, []
        for group in groups:
            group.close()

    def lost(self, local: Endpoint, place: Place, reason: str) -> None:
        """A connection has failed: tell the members that used it."""
        now = self.now()
        endpoint = Endpoint(*place)
        for member in list(self.members.values()):
            if member.port.endpoint != local:
                continue
            for contact in list(member.core.neighbors.values()):
                if any(known[:2] == place for known in contact.endpoints):
                    self._tell(member, ContactFailed(endpoint, reason, contact.address))
                    self.perform(member, member.core.link_failed(contact, now))

    def statistics(self) -> HostStatistics:
        """Figures so far."""
        ports = self._ports.values()
        udp = [port.udp for port in ports if port.udp is not None]
        return HostStatistics(
            members=len(self.members),
            turns=self.turns,
            refused=dict(self._refused),
            udp=tuple(port.statistics() for port in (*udp, *self._groups)),
            tcp=tuple(port.tcp.statistics() for port in ports if port.tcp is not None),
        )

    # Inside

    def _note_digest(self, tag: int) -> None:
        """Members came or went: the first one's attributes are those of the overlay."""
        members = self._by_tag.get(tag)
        if members:
            first = next(iter(members.values()))
            self._digests[tag] = first.core.settings.attributes.digest
        else:
            self._digests.pop(tag, None)

    def _transmit(
        self, member: Member, to: Contact, kind: Kind, body: bytes | ProtocolMessage
    ) -> None:
        route = Route(member.tag, to.index, member.index)
        if member.emulation is not None:
            body = _encoded(member, body)
            member.emulation.charge(Direction.OUT, to.address, len(body))
        if member.local_handover and self.is_here(to):
            if not self._local.push(route, kind, body, member.place):
                self.refuse("local_overflow")
            return
        body = _encoded(member, body)
        port = member.port
        if port.udp is not None and port.udp.send(to, route, kind, body):
            return
        connection = port.tcp.connection_to(to) if port.tcp is not None else None
        if connection is None or not connection.send_control(route, kind, body):
            self.refuse("unreachable")
        else:
            self.wake()

    def _anyone(self, route: Route, sender: Contact) -> Sequence[Member]:
        """Members for whom a message is that names none: all of them for the group's, one for an
        asked buddy's. That is the same one each time: it alone knows the cookie that it gave.
        """
        if route.to_index not in (ANY_INDEX, EVERY_INDEX):
            self.refuse("nobody")
            return ()
        overlay = self._by_tag.get(route.tag, {}).values()
        others = (m for m in overlay if not m.leaving and not _is(m, sender))
        if route.to_index == EVERY_INDEX:
            return list(others)
        if not overlay:
            self.refuse("nobody")
            return []
        # Lazily, because most often the first is the one, and there may be thousands.
        one, another = tee(others)
        stable = (member for member in one if member.core.stable)
        # Whoever asks itself is told so, if nobody else is there.
        return [next(chain(stable, another, overlay))]

    def _wake_member(self, member: Member, when: float) -> None:
        if member.scheduled != when:
            return
        member.scheduled = float("inf")
        self.perform(member, member.core.wake(self.now()))
        if member.leaving and member.core.next_deadline == float("inf"):
            self.dismiss(member)

    def _tell(self, member: Member, event: Event) -> None:
        if isinstance(event, NeighborRemoved):
            self.links.drop(member, event.contact)
        member.publish(event)


def _encoded(member: Member, body: bytes | ProtocolMessage) -> bytes:
    if isinstance(body, bytes):
        return body
    return body.encoded or member.core.encode(body)


def _is(member: Member, sender: Contact) -> bool:
    """Whether a message came from this very member, over the group that it listens to."""
    return sender.index == member.index and sender.endpoints[0][:2] in {
        endpoint[:2] for endpoint in member.port.endpoints
    }
