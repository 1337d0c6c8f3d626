"""What the applications of a simulation hold: an overlay socket on the virtual clock.

Its one rule: what a socket of the Trio driver can be asked, this one can be asked too; where that
one waits, this one is finished as soon as the simulation has run far enough.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define

from opus_socket._arguments import (
    check_address,
    check_handler,
    check_target,
    check_traffic_class,
)
from opus_socket.core.addresses import Endpoint, LogicalAddress
from opus_socket.core.buckets import Direction, DirectionName, Limit
from opus_socket.core.effects import Quantity, QuantityName
from opus_socket.core.inquiries import Target
from opus_socket.core.measurement import check_measurable
from opus_socket.core.node import Mode
from opus_socket.core.overlay import CoreStatistics, OverlayCore
from opus_socket.core.requests import Payload, check_payloads
from opus_socket.core.service import Scope, Service
from opus_socket.errors import LocalProtocolError, NotJoinedError
from opus_socket.simulator.member import SimulatedMember


@define(eq=False, repr=False)
class SimulatedSocket(SimulatedMember):
    """An overlay socket on the virtual clock; made by `Simulator.add`.

    Its attributes are those of `SimulatedMember`.
    """

    # Queries

    @property
    def neighbors(self) -> tuple[LogicalAddress, ...]:
        """Its neighbors' logical addresses, sorted."""
        return tuple(self.core.neighbors)

    def parent(self, root: LogicalAddress) -> LogicalAddress | None:
        """The next hop toward a root; None at the root itself or when there is none."""
        return self.core.node.parent(root)

    def children(self, root: LogicalAddress) -> tuple[LogicalAddress, ...]:
        """The neighbors whose next hop toward the root it is, sorted."""
        return self.core.node.children(root)

    def statistics(self) -> CoreStatistics:
        """Its counters and gauges."""
        return self.core.statistics()

    @property
    def bandwidth(self) -> tuple[Limit, ...]:
        """The limits that are in force; () when it is held to none."""
        return () if self._emulation is None else self._emulation.buckets.limits

    # The application

    def set_bandwidth(
        self,
        direction: Direction | DirectionName,
        rate: float | None,
        link: LogicalAddress | None = None,
    ) -> None:
        """Hold it to a bandwidth from now on: as `OverlaySocket.set_bandwidth`, in every life."""
        if link is not None:
            check_address(self.settings.spec, link)
        if self._emulation is None:
            self._emulation = self._emulate()
        self._emulation.buckets.limit(direction, link, rate, self._underlay.schedule.now)
        self._emulation.move()
        self._settle()

    def send_to_all(self, payload: Payload, *, traffic_class: int = 0) -> tuple[int, int]:
        """Multicast to every other member; returns the message's identity."""
        return self._originate([payload], Mode.MULTICAST, None, traffic_class)

    def send_batch(
        self,
        payloads: Sequence[Payload],
        *,
        to: LogicalAddress | None = None,
        traffic_class: int = 0,
    ) -> tuple[int, int]:
        """Send many messages at once, at least one: to one member, or to all others by default.
        Returns the identity of the first; those of the others follow it.
        """
        mode = Mode.MULTICAST if to is None else Mode.UNICAST
        return self._originate(payloads, mode, to, traffic_class)

    def send(
        self, destination: LogicalAddress, payload: Payload, *, traffic_class: int = 0
    ) -> tuple[int, int]:
        """Send to one member; returns the message's identity."""
        return self._originate([payload], Mode.UNICAST, destination, traffic_class)

    def send_flood(self, payload: Payload, *, traffic_class: int = 0) -> tuple[int, int]:
        """Send to every other member over every link; returns the message's identity."""
        return self._originate([payload], Mode.FLOOD, None, traffic_class)

    def send_anycast(
        self, key: LogicalAddress, payload: Payload, *, traffic_class: int = 0
    ) -> tuple[int, int]:
        """Send to the member that is responsible for a key; returns the message's identity."""
        return self._originate([payload], Mode.ANYCAST, key, traffic_class)

    def measure(
        self, target: Target | Endpoint, quantity: Quantity | QuantityName = Quantity.RTT
    ) -> None:
        """Measure the way to a member; the result is added to `answers` when it is there."""
        core, now = self._running(), self._underlay.schedule.now
        whom = check_target(self.settings.spec, target)
        self._perform(core.measure(whom, check_measurable(quantity), now))
        self._settle()

    def ask(self, service: str, request: object) -> None:
        """Ask something of a service that is on, or of the handler."""
        core = self._running()
        if not self.joined:
            raise NotJoinedError(f"member {self.number} has not joined")
        self._perform(core.ask(service, request, self._underlay.schedule.now))
        self._settle()

    def set_handler(self, handler: Service, scope: Scope = Scope.BOTH) -> None:
        """Let a handler see the application's messages, in this life and those that follow."""
        self._use_handler(check_handler(handler, scope))

    def remove_handler(self) -> None:
        """Let messages go their way without a handler from now on."""
        self._use_handler(None)

    def leave(self) -> None:
        """Say goodbye; it is gone once its machines have nothing left to do."""
        core = self._running()
        if not self._leaving:
            self._leaving = True
            self.joined = False
            self._watcher.disturbed("leave", self)
            self._perform(core.leave(self._underlay.schedule.now))
            self._settle()

    # Inside

    def _originate(
        self,
        payloads: Sequence[Payload],
        mode: Mode,
        key: LogicalAddress | None,
        traffic_class: int,
    ) -> tuple[int, int]:
        core, number = self._running(), check_traffic_class(traffic_class)
        if not self.joined:
            raise NotJoinedError(f"member {self.number} has not joined")
        if key is not None:
            check_address(self.settings.spec, key)
        owned, now = check_payloads(payloads), self._underlay.schedule.now
        if not owned:
            raise LocalProtocolError("no payloads; a simulated batch has one at least")
        dispatch = core.originate(owned, mode, key, now, traffic_class=number)
        self._forward(dispatch)
        self._settle()
        assert dispatch.first_id is not None, "whatever is originated has an identity"
        return dispatch.first_id

    def _running(self) -> OverlayCore:
        if self.paused:
            raise LocalProtocolError(f"member {self.number} stands still: nobody there can act")
        return self.core
