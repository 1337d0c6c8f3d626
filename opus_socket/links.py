"""The ways of members to their neighbors: made when first needed, looked after, dropped.

Its one rule: a neighbor has a link for each traffic class, so that none holds up another; and every
bounded output of a member - such a link, its receive buffer - is
looked at from time to time while the time that passes matters to it, and what it has lost is told
to the application once.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Protocol

from attrs import define, field

from opus_socket.adapters.base import Carrier, Lane, Route, Switchboard
from opus_socket.adapters.emulation import EmulatedLink, Emulation
from opus_socket.adapters.flow import Output, spread
from opus_socket.adapters.local import LocalLink, LocalWay
from opus_socket.adapters.pool import TcpLink
from opus_socket.adapters.udp import UdpLink
from opus_socket.core.addresses import Contact
from opus_socket.core.buckets import Buckets
from opus_socket.core.events import MessagesDropped
from opus_socket.core.parcel import Frames
from opus_socket.member import Link, Member

LOOK_AROUND = 0.25
"""Seconds between two looks at outputs."""


class Home(Switchboard, Protocol):
    """What this sees of the host."""

    @property
    def members(self) -> Mapping[tuple[int, int], Member]:
        """All members, by tag and index."""

    def switch(
        self,
        member: Member,
        frames: Frames,
        sender: Contact,
        blockers: list[Output] | None,
    ) -> tuple[int, str | None]:
        """Have a member handle overlay messages, as `frames` does with those of whoever it is."""

    def is_here(self, contact: Contact) -> bool:
        """Whether a contact is a member of this process."""


@define(eq=False, repr=False)
class Links:
    """Makes and drops the links of a host's members.

    Args:
        home: the host.
    """

    home: Home
    _looking: bool = field(default=False, init=False)

    def make(self, member: Member, contact: Contact, traffic_class: int) -> Link:
        """The link of a member to a contact in a class: by hand-over, by TCP or by UDP."""
        weight = member.weights.get(traffic_class, 1)
        output = Output(
            *(contact.address, member.flow, self.look_soon, traffic_class, weight, member.losses)
        )
        route = Route(member.tag, contact.index, member.index)
        link: Carrier
        if member.local_handover and self.home.is_here(contact):
            link = LocalLink(self._way(member, contact, route), output)
        elif member.port.tcp is not None:
            link = TcpLink(self.home, member.port.tcp, contact, Lane(route, traffic_class), output)
        else:
            assert member.port.udp is not None, "a port has a socket for its socket adapter"
            link = UdpLink(member.port.udp, contact, route, output, member.maximum_packet)
        made: Link = link
        if member.emulation is not None:
            made = member.emulation.hold(link, contact.address)
        member.links[contact, traffic_class] = made
        return made

    def emulate(self, member: Member, buckets: Buckets) -> None:
        """Hold a member to a bandwidth from now on, until its buckets limit nothing."""
        member.emulation = emulation = Emulation(
            self.home,
            buckets,
            member.flow,
            member.losses,
            self.look_soon,
            partial(self.home.switch, member),
            partial(self._free, member),
        )
        for key, link in member.links.items():
            assert not isinstance(link, EmulatedLink), "it was held to none"
            member.links[key] = emulation.hold(link, key[0].address)

    def _free(self, member: Member, emulation: Emulation) -> None:
        """Nothing limits a member any more, and nothing is held back."""
        if member.emulation is not emulation:
            return
        for output in member.outputs():
            report(member, output)
        member.emulation = None
        for key, link in member.links.items():
            if isinstance(link, EmulatedLink):
                member.links[key] = link.inner

    def _way(self, member: Member, contact: Contact, route: Route) -> LocalWay:
        """What the links to a neighbor in this process share."""
        for (other, _), link in member.links.items():
            inner = link.inner if isinstance(link, EmulatedLink) else link
            if other == contact and isinstance(inner, LocalLink):
                return inner.way
        return LocalWay(self.home, route, member.place)

    def drop(self, member: Member, contact: Contact) -> None:
        """The neighbor is none any more. What is queued for it still goes, and nobody waits."""
        for key in [key for key in member.links if key[0] == contact]:
            link = member.links.pop(key)
            report(member, link.output)
            # Nobody looks at it from time to time from now on.
            link.output.attend = partial(report, member, link.output)
            link.output.open()
            link.close()
        if member.emulation is not None:
            for output in member.emulation.forget(contact.address):
                report(member, output)

    def look_soon(self) -> None:
        """Look for stalled outputs and unreported losses in a while."""
        if not self._looking:
            self._looking = True
            self.home.call_at(self.home.now() + LOOK_AROUND, self._look_around)

    def _look_around(self) -> None:
        self._looking = False
        now = self.home.now()
        looked_at = [(member, member.outputs()) for member in self.home.members.values()]
        for _, outputs in looked_at:
            for output in outputs:
                if output.closed:
                    spread(output, now)
        for member, outputs in looked_at:
            for output in outputs:
                if output.queued and output.overdue(now):
                    link = next((k for k in member.links.values() if k.output is output), None)
                    if link is not None:
                        link.evict()
                report(member, output)
                if output.needs_look:
                    self.look_soon()


def report(member: Member, output: Output) -> None:
    """Tell the application what an output has lost since it was last told."""
    lost = output.unreported()
    if lost:
        member.publish(MessagesDropped(lost, output.reason, output.neighbor))
