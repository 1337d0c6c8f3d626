"""Members and ports: what a host knows of each overlay socket that it carries, and of each
endpoint of its process.

Its one rule: only the host changes them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from attrs import define, field, frozen

from opus_socket.adapters.base import Carrier
from opus_socket.adapters.emulation import EmulatedLink, Emulation
from opus_socket.adapters.flow import Dropped, FlowSettings, FlowStatistics, Losses, Output
from opus_socket.adapters.inbox import Inbox
from opus_socket.adapters.pool import TcpPort, TcpStatistics
from opus_socket.adapters.udp import UdpPort, UdpStatistics
from opus_socket.core.addresses import Contact, Endpoint
from opus_socket.core.events import Event
from opus_socket.core.inquiries import Answered
from opus_socket.core.link_watch import LinkFigures
from opus_socket.core.overlay import CoreStatistics, OverlayCore
from opus_socket.errors import JoinError

Link = Carrier | EmulatedLink


def tell_nobody(news: object) -> None:
    """Before it joins and when it has left, a member has nobody to tell."""


@define(eq=False, repr=False)
class Port:
    """What one endpoint of this process has: a UDP socket, a listener, or both.

    Attributes:
        endpoint: by which others know it, as its first advertised one says.
        udp: carries protocol messages; None where UDP is shut.
        tcp: carries overlay messages; None with the UDP socket adapter.
    """

    endpoint: Endpoint
    endpoints: tuple[Endpoint, ...]
    udp: UdpPort | None
    tcp: TcpPort | None

    def close(self) -> None:
        """Close both."""
        if self.udp is not None:
            self.udp.close()
        if self.tcp is not None:
            self.tcp.close()


@define(eq=False, repr=False)
class Member:
    """The driver's side of one membership.

    Attributes:
        core: the machines.
        tag: the overlay's tag.
        port: the endpoint that it lives at.
        flow: the limits of its links.
        local_handover: whether neighbors in this process are fed without a socket.
        inbox: what the application has not yet read.
        place: where it is, as those see it who get messages from it.
        publish: called with every event.
        aborted: called when the overlay refuses this member.
        answered: called with the result of each inquiry.
        scheduled: the deadline for which a timer is set.
        leaving: whether it only lingers to say goodbye, until its core has no deadline.
        emulation: the bandwidth that it is held to; None for whatever there is.
        links: the ways to its neighbors, by traffic class.
        weights: of the traffic classes; those that are not named have 1.
        losses: what its outputs have lost, in former memberships of its socket, too.
    """

    core: OverlayCore
    tag: int
    port: Port
    flow: FlowSettings
    local_handover: bool
    maximum_packet: int
    group: tuple[str, int] | None
    inbox: Inbox
    place: Contact
    publish: Callable[[Event], None] = tell_nobody
    aborted: Callable[[JoinError], None] = tell_nobody
    answered: Callable[[Answered], None] = tell_nobody
    scheduled: float = float("inf")
    leaving: bool = False
    emulation: Emulation | None = None
    links: dict[tuple[Contact, int], Link] = field(factory=dict)
    weights: dict[int, int] = field(factory=dict)
    losses: Losses = field(factory=dict)

    @property
    def index(self) -> int:
        """Its index at its endpoint."""
        return self.place.index

    def weigh(self, traffic_class: int, weight: int) -> None:
        """Let a class have another share, on the links that there are and those to come."""
        self.weights[traffic_class] = weight
        for (_, number), link in self.links.items():
            if number == traffic_class:
                link.output.weight = weight

    def outputs(self) -> list[Output]:
        """Everything bounded that it feeds, and what holds back what feeds it."""
        held = () if self.emulation is None else self.emulation.outputs()
        return [
            self.inbox.output,
            *(link.output for link in self.links.values()),
            *held,
        ]

    def link_figures(self) -> list[LinkFigures]:
        """What its core wants to know of the links from time to time."""
        by_contact: dict[Contact, list[Output]] = {}
        for (contact, _), link in self.links.items():
            by_contact.setdefault(contact, []).append(link.output)
        return [
            LinkFigures(
                contact=contact,
                taken=sum([output.taken for output in outputs]),
                taken_size=sum([output.taken_size for output in outputs]),
                queued=sum([output.queued for output in outputs]),
                lost=sum([output.dropped for output in outputs]),
                lost_size=sum([output.dropped_size for output in outputs]),
            )
            for contact, outputs in by_contact.items()
        ]

    def flows(self) -> tuple[FlowStatistics, ...]:
        """The figures of its receive buffer, of the links to its neighbors, and of what comes from
        them and waits for bandwidth.
        """
        return tuple(output.statistics() for output in self.outputs())


@frozen
class SocketStatistics:
    """Figures of an overlay socket.

    Attributes:
        core: of its machines; None before the first join.
        flows: of its receive buffer, and of each link to a neighbor in a traffic class; then, where
            bandwidth is emulated, of what has come from each neighbor.
        dropped: what this socket has dropped since it was opened, by reason (those of
            `MessagesDropped`): in `flows`, and for neighbors that are gone.
        events_lost: events that no subscription could hold.
        udp, tcp: of the sockets of its endpoint, which others may share; None where it has none.
    """

    core: CoreStatistics | None
    flows: tuple[FlowStatistics, ...]
    dropped: Mapping[str, Dropped]
    events_lost: int
    udp: UdpStatistics | None
    tcp: TcpStatistics | None
