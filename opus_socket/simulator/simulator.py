"""`Simulator`: many overlay sockets on one virtual clock, with faults at will.

Its one rule: one seed decides everything. Members, the rendezvous server and the network draw
from generators of their own, derived from it; nothing else is left to chance.

    simulator = Simulator(seed=7, network=EuclideanNetwork(2, 40))
    members = [simulator.add(config, at=0.001 * i) for i in range(1000)]
    seconds = simulator.run_until_legitimate()
    members[0].send_to_all(b"hello")
    simulator.run(simulator.now + 1)
    members[1].received[0].payload                    # b"hello"

Members' clocks are the simulation's: 0 when it begins.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

import attrs
from attrs import define, field

from opus_socket import registry
from opus_socket.config import OverlayConfig, parse_host_port
from opus_socket.core.addresses import ANY_INDEX, Contact, Endpoint, LogicalAddress, OverlayID
from opus_socket.core.buckets import Bandwidth
from opus_socket.core.contacts import FinderSettings
from opus_socket.core.engine import EngineSettings
from opus_socket.core.key_attributes import KeyAttributes
from opus_socket.core.overlay import CoreSettings
from opus_socket.errors import LocalProtocolError
from opus_socket.simulator.chance import generator
from opus_socket.simulator.legitimacy import Legitimacy, heartbeat, topology
from opus_socket.simulator.network import ConstantNetwork, LinkQuality, Network
from opus_socket.simulator.rendezvous import SimulatedServer
from opus_socket.simulator.rules import AnyRule, Partition, Rule
from opus_socket.simulator.schedule import Schedule
from opus_socket.simulator.simulated_socket import SimulatedSocket
from opus_socket.simulator.trace import Trace
from opus_socket.simulator.underlay import PERFECT, Traffic, Underlay

TIMEOUT = 600.0
"""Virtual seconds after which an overlay that is not legitimate is given up."""

SLOW_BEAT = 0.8
"""Of a heartbeat: Hellos that follow each other no sooner are on the slow beat (jitter is 10 %)."""


@define(eq=False, repr=False)
class Simulator:
    """A simulation of one overlay.

    Args:
        seed: decides everything that is left to chance.
        network: the delays between members.
        quality: jitter, loss, duplication and reordering, alike for all.

    Attributes:
        members: everybody who was ever added, by number.
        server: the rendezvous server, number -1, for configurations that name one, or that name
            no way to find members at all. It may be crashed and started again.
    """

    seed: int = 0
    network: Network = field(factory=lambda: ConstantNetwork(20.0))
    _quality: LinkQuality = PERFECT
    members: list[SimulatedSocket] = field(factory=list, init=False)
    server: SimulatedServer = field(init=False)
    _schedule: Schedule = field(factory=Schedule, init=False)
    _underlay: Underlay = field(init=False)
    _legitimacy: Legitimacy = field(init=False)
    _partition: Partition | None = field(default=None, init=False)
    _settings: tuple[OverlayConfig, CoreSettings] | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        rng = generator(self.seed, "network")
        self._underlay = Underlay(self._schedule, Trace(), self.network, self._quality, rng)
        self._legitimacy = Legitimacy(self._underlay, self.members)
        self.server = SimulatedServer(-1, self._underlay, self.seed)
        self._underlay.connect(self.server)

    # Members

    def add(
        self,
        config: OverlayConfig | CoreSettings,
        address: LogicalAddress | None = None,
        at: float = 0.0,
    ) -> SimulatedSocket:
        """Add a member.

        Args:
            config: its configuration. Of the rendezvous part, the server's place is taken by
                the simulated one, buddies are endpoints of members (`member.seen_as`), and
                there is one multicast group. Core settings are used as they are.
            address: the logical address that it is to take; by default as configured.
            at: when it begins to join, in virtual seconds; what is past means now.

        Raises:
            ConfigurationError: the simulator does not know how members of this protocol take a
                chosen address.
            LocalProtocolError: it belongs to another overlay than those before it.
        """
        settings = config if isinstance(config, CoreSettings) else self.settings(config)
        if self.members and self.members[0].settings.overlay_id != settings.overlay_id:
            raise LocalProtocolError(
                f"a simulation has one overlay, here {self.members[0].settings.overlay_id!r}; "
                f"{settings.overlay_id!r} is another"
            )
        if address is not None:
            placed = topology(settings.spec.name).placed(settings.node, address)
            settings = attrs.evolve(settings, node=placed)
        member = SimulatedSocket(
            len(self.members),
            settings,
            self._underlay,
            self.seed,
            self._legitimacy,
            SLOW_BEAT * heartbeat(settings),
            config.bandwidth() if isinstance(config, OverlayConfig) else Bandwidth(),
        )
        self.members.append(member)
        self._underlay.connect(member)
        self._legitimacy.expect(max(at, self.now))
        self._schedule.at(at, member.start)
        return member

    def settings(self, config: OverlayConfig) -> CoreSettings:
        """The core settings that a configuration stands for in this simulation."""
        if self._settings is None or self._settings[0] is not config:
            rendezvous = config.rendezvous
            others = bool(rendezvous.buddies or rendezvous.multicast)
            settings = CoreSettings(
                overlay_id=OverlayID(config.overlay_id),
                spec=registry.protocol(config.node.protocol),
                node=config.node.settings,
                attributes=KeyAttributes(config.key_pairs()),
                finder=FinderSettings(
                    servers=() if others and not rendezvous.server else (self.server.contact,),
                    buddies=tuple(map(_buddy, rendezvous.buddies)),
                    multicast=bool(rendezvous.multicast),
                ),
                engine=EngineSettings(
                    hop_limit=config.socket.hop_limit,
                    maximum_frame=config.socket_adapter.maximum_packet_length,
                    max_message=config.socket.max_message,
                ),
                services=config.services.specs(),
            )
            self._settings = (config, settings)
        return self._settings[1]

    # Faults

    def crash(self, member: SimulatedSocket) -> None:
        """Let a member be gone at once and silently.

        Raises:
            NotJoinedError: it takes no part.
        """
        member.crash()

    def kill(self, member: SimulatedSocket) -> None:
        """Let a member's process end and its machine go on, which ends every connection to it: its
        neighbors' adapters learn that after the delay to them.

        Raises:
            NotJoinedError: it takes no part.
        """
        contact = member.contact
        member.crash()
        for other in self.members:
            if other.alive and contact.address in other.neighbors:
                delay = self.delay_ms(member, other) / 1000
                self._schedule.at(self.now + delay, other.lose_connection, (contact,))

    def restart(self, member: SimulatedSocket, at: float = 0.0) -> None:
        """Let a member that crashed, left or was refused join again, knowing nothing of before.

        Args:
            at: when, in virtual seconds; what is past means now.

        Raises:
            LocalProtocolError: it takes part.
        """
        if at > self.now:
            self._legitimacy.expect(at)
            self._schedule.at(at, member.start)
        else:
            member.start()

    def pause(self, member: SimulatedSocket, seconds: float) -> None:
        """Let a member stand still, as under SIGSTOP and SIGCONT.

        Packets wait for it, up to 212,992 bytes; no deadline is kept. When it goes on, it first
        handles every packet and then its deadlines.

        Raises:
            NotJoinedError: it takes no part.
        """
        until = self.now + seconds
        self._legitimacy.expect(until)
        member.pause(until)

    def partition(self, groups: Iterable[Iterable[SimulatedSocket]]) -> None:
        """Cut groups of members off from each other; all that are in none are one more group.

        The rendezvous server is in none. A partition that was in force ends.

        Raises:
            ConfigurationError: a member is in two groups.
        """
        partition = Partition([[member.number for member in group] for group in groups])
        if self._partition is not None:
            self._underlay.remove_rule(self._partition)
        self._partition = self._underlay.add_rule(partition)
        self._legitimacy.note("partition", "-", repr(partition.groups))

    def heal(self) -> None:
        """End the partition.

        Raises:
            LocalProtocolError: there is none.
        """
        if self._partition is None:
            raise LocalProtocolError("there is no partition that could be healed")
        self._underlay.remove_rule(self._partition)
        self._partition = None
        self._legitimacy.note("heal", "-", "")

    def add_rule(self, rule: AnyRule) -> AnyRule:
        """Put a fault into force, such as a `OneWayCut`; returns the rule."""
        self._legitimacy.note("rule", "-", type(rule).__name__)
        return self._underlay.add_rule(rule)

    def remove_rule(self, rule: Rule) -> None:
        """End a fault that `add_rule` began."""
        self._underlay.remove_rule(rule)
        self._legitimacy.note("unrule", "-", type(rule).__name__)

    @property
    def quality(self) -> LinkQuality:
        """Jitter, loss, duplication and reordering, from now on."""
        return self._underlay.quality

    @quality.setter
    def quality(self, quality: LinkQuality) -> None:
        self._underlay.quality = quality

    # The clock

    @property
    def now(self) -> float:
        """Virtual seconds since the simulation began."""
        return self._schedule.now

    @property
    def next_event_at(self) -> float:
        """When the next event is due, in virtual seconds; inf when there is none."""
        return self._schedule.next_at

    def run(self, until: float) -> None:
        """Let the simulation run up to an instant, in virtual seconds, that included."""
        self._schedule.horizon = until
        self._schedule.run()

    def run_until_legitimate(self, timeout: float = TIMEOUT) -> float | None:
        """Run until the overlay has been legitimate for three heartbeats.

        Joins, restarts and pauses that are scheduled are waited for first.

        Args:
            timeout: virtual seconds after which to give up, from now or from the last join,
                fault or heal, whichever is later.

        Returns:
            Virtual seconds from the last join, fault or heal to the first instant, not before
            this call, from which it has been legitimate; None when it was given up.

        Raises:
            ConfigurationError: there is no checker for the protocol.
        """
        since = self._legitimacy.watch(timeout)
        return None if since == inf else since - self._legitimacy.disturbed_at

    def call_at(self, when: float, call: Callable[[], None]) -> None:
        """Call something at an instant, in virtual seconds."""
        self._schedule.at(when, call)

    # Figures

    @property
    def events(self) -> int:
        """How many events were handled: packets that arrived, deadlines, calls."""
        return self._schedule.events

    def traffic(self) -> Traffic:
        """What has been sent so far."""
        return self._underlay.traffic()

    def traffic_until_legitimate(self) -> Traffic:
        """What had been sent when the overlay became legitimate the last time."""
        return self._legitimacy.traffic

    def trace_sha256(self) -> str:
        """The hash of the trace so far, in hexadecimal; see `trace`."""
        return self._underlay.trace.sha256()

    def delay_ms(self, a: SimulatedSocket, b: SimulatedSocket) -> float:
        """The underlay's one-way delay from one member to another, in milliseconds."""
        return self.network.delay_ms(a.number, b.number)


def _buddy(text: str) -> Contact:
    host, port = parse_host_port(text)
    return Contact(None, 0, ANY_INDEX, (Endpoint(host, port),))
