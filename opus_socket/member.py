"""Members and ports: what a host knows of each overlay socket that it carries, and of each
endpoint of its process.

Its one rule: only the host changes them.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field, frozen

from opus_socket.adapters.flow import FlowSettings, FlowStatistics, Output
from opus_socket.adapters.inbox import Inbox
from opus_socket.adapters.local import LocalLink
from opus_socket.adapters.pool import TcpLink, TcpPort, TcpStatistics
from opus_socket.adapters.udp import UdpLink, UdpPort, UdpStatistics
from opus_socket.core.addresses import Contact, Endpoint
from opus_socket.core.events import Event
from opus_socket.core.inquiries import Answered
from opus_socket.core.overlay import CoreStatistics, OverlayCore
from opus_socket.errors import JoinError

Link = TcpLink | UdpLink | LocalLink


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
        links: the ways to its neighbors.
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
    links: dict[Contact, Link] = field(factory=dict)

    @property
    def index(self) -> int:
        """Its index at its endpoint."""
        return self.place.index

    def outputs(self) -> list[Output]:
        """Everything bounded that it feeds."""
        return [self.inbox.output, *(link.output for link in self.links.values())]

    def flows(self) -> tuple[FlowStatistics, ...]:
        """The figures of its receive buffer and of the links to its neighbors."""
        return tuple(output.statistics() for output in self.outputs())


@frozen
class SocketStatistics:
    """Figures of an overlay socket.

    Attributes:
        core: of its machines; None before the first join.
        flows: of its receive buffer and its links to neighbors.
        events_lost: events that no subscription could hold.
        udp, tcp: of the sockets of its endpoint, which others may share; None where it has none.
    """

    core: CoreStatistics | None
    flows: tuple[FlowStatistics, ...]
    events_lost: int
    udp: UdpStatistics | None
    tcp: TcpStatistics | None
