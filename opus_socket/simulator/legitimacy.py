"""When an overlay is legitimate, told exactly and at little cost while the simulation runs.

Its one rule: what a legitimate overlay looks like is computed once for each set of members, and
from then on only members whose node has changed are looked at again.

An overlay is legitimate when every member that takes part has joined, is stable, and has exactly
the neighbors, in their present incarnations, that the checker of its topology prescribes for the
set of all of them. After a crash it is therefore illegitimate until the survivors have noticed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import inf
from typing import Any

import attrs
from attrs import define, field, frozen

from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.overlay import CoreSettings
from opus_socket.errors import ConfigurationError
from opus_socket.simulator.checkers.delaunay import reference_triangulation
from opus_socket.simulator.member import SimulatedMember
from opus_socket.simulator.underlay import Traffic, Underlay

HEARTBEATS = 3
"""For so many heartbeats an overlay has to stay legitimate before it counts as legitimate."""

Addresses = Sequence[LogicalAddress]


@frozen
class Topology:
    """What the simulator knows about a protocol beyond its SPEC.

    Attributes:
        expected: the neighbors of each member in a legitimate overlay of these members.
        placed: the protocol's settings with a logical address that the member is to take.
        shown: a logical address as a dump has it.
    """

    expected: Callable[[Addresses], Mapping[LogicalAddress, Addresses]]
    placed: Callable[[Any, LogicalAddress], object]
    shown: Callable[[LogicalAddress], object]


def _delaunay_neighbors(members: Addresses) -> Mapping[LogicalAddress, Addresses]:
    triangulation = reference_triangulation([(x, y) for x, y in members])
    return {
        LogicalAddress(point): [LogicalAddress(neighbor) for neighbor in neighbors]
        for point, neighbors in triangulation.items()
    }


_TOPOLOGIES = {
    "delaunay": Topology(
        expected=_delaunay_neighbors,
        placed=lambda settings, address: attrs.evolve(settings, coordinates=str(address)),
        shown=list,
    ),
}


def topology(protocol: str) -> Topology:
    """What the simulator knows about a protocol.

    Raises:
        ConfigurationError: nothing; there is no checker for it.
    """
    known = _TOPOLOGIES.get(protocol)
    if known is None:
        raise ConfigurationError(
            f"the simulator has no checker for the protocol {protocol!r}; "
            f"it has one for {', '.join(sorted(_TOPOLOGIES))}"
        )
    return known


def heartbeat(settings: CoreSettings) -> float:
    """The heartbeat of a protocol in seconds: its setting of that name, or else 1."""
    seconds: float = getattr(settings.node, "heartbeat", 1.0)
    return seconds


@define(eq=False)
class Legitimacy:
    """Watches members until they are legitimate, or until their time is up.

    Attributes:
        disturbed_at: the last join, fault or heal, in virtual seconds; perhaps yet to come.
        since: the instant since when the overlay has been legitimate; inf when it is not, or
            when nobody watches.
        traffic: what had been sent at that instant.
    """

    _underlay: Underlay
    _members: Sequence[SimulatedMember]
    disturbed_at: float = field(default=0.0, init=False)
    since: float = field(default=inf, init=False)
    traffic: Traffic = field(init=False)
    _watching: bool = field(default=False, init=False)
    _watched_from: float = field(default=0.0, init=False)
    _timeout: float = field(default=0.0, init=False)
    _hold: float = field(default=0.0, init=False)
    _contacts: dict[int, Contact] = field(factory=dict, init=False)
    _expected: dict[int, tuple[Contact, ...]] = field(factory=dict, init=False)
    _wrong: dict[int, bool] = field(factory=dict, init=False)
    _count: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.traffic = self._underlay.traffic()

    def watch(self, timeout: float) -> float:
        """Run the schedule until the overlay has been legitimate for three heartbeats.

        Args:
            timeout: virtual seconds after which to give up, from now or from the last join,
                fault or heal, whichever is later.

        Returns:
            Since when it has been, as far as it was watched; inf when it was given up.

        Raises:
            ConfigurationError: there is no checker for the protocol.
        """
        schedule = self._underlay.schedule
        # Also what is due at this very instant: members that join all at once, for instance.
        schedule.horizon = max(schedule.now, self.disturbed_at)
        schedule.run()
        while schedule.now < self.disturbed_at:
            schedule.horizon = self.disturbed_at
            schedule.run()
        self._hold = HEARTBEATS * max((heartbeat(m.settings) for m in self._members), default=0.0)
        self._watching, self._watched_from, self._timeout = True, schedule.now, timeout
        self._begin()
        schedule.run()
        self._watching = False
        return self.since if self.since + self._hold <= schedule.now else inf

    def expect(self, when: float) -> None:
        """There will be a join, a fault or a heal."""
        self.disturbed_at = max(self.disturbed_at, when)

    def disturbed(self, what: str, member: SimulatedMember) -> None:
        """A member began or ended to take part, or stands still, or goes on."""
        self.note(what, member.number, "")

    def note(self, what: str, member: int | str, text: str) -> None:
        """There is a join, a fault or a heal.

        Args:
            what: its name in the trace.
            member: whom it befalls.
            text: what else describes it.
        """
        now, trace = self._underlay.schedule.now, self._underlay.trace
        trace.note(now, what, member, member, trace.digest(text.encode()))
        self.expect(now)
        if self._watching:
            self._begin()

    def changed(self, member: SimulatedMember) -> None:
        """A member's node may be different."""
        if not self._watching or not member.alive:
            return
        if member.contact is not self._contacts.get(member.number):
            self._begin()
            return
        wrong = not self._is_right(member)
        if wrong is not self._wrong[member.number]:
            self._wrong[member.number] = wrong
            self._count += 1 if wrong else -1
            self._conclude()

    def _begin(self) -> None:
        """The set of members, or the place of one of them, is another."""
        members = [member for member in self._members if member.alive]
        self._contacts = {member.number: member.contact for member in members}
        by_address = {contact.address: contact for contact in self._contacts.values()}
        self._expected = {}
        # Somebody may have no place yet, or two claim the same: not legitimate before that changes.
        if members and None not in by_address and len(by_address) == len(members):
            expected = topology(members[0].settings.spec.name).expected
            neighbors = expected([member.address for member in members])
            for member in members:
                addresses = sorted(neighbors[member.address])
                self._expected[member.number] = tuple(by_address[a] for a in addresses)
        self._wrong = {member.number: not self._is_right(member) for member in members}
        self._count = sum(self._wrong.values())
        self.since = inf
        self._conclude()

    def _is_right(self, member: SimulatedMember) -> bool:
        return (
            member.joined
            and member.stable
            and member.core.node.neighbors == self._expected.get(member.number)
        )

    def _conclude(self) -> None:
        schedule = self._underlay.schedule
        if self._count:
            self.since = inf
        elif self.since == inf:
            self.since = schedule.now
            self.traffic = self._underlay.traffic()
        limit = max(self.disturbed_at, self._watched_from) + self._timeout
        schedule.horizon = min(limit, self.since + self._hold)
