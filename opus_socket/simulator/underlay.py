"""The modelled network: bytes from one endpoint to another, late, lost or twice.

Its one rule: what crosses it are bytes, and nothing else is shared between members. A packet meets
the fault rules first, then the quality of the links, then the delay of its pair of endpoints.
Every kind of message takes this way; overlay messages too, as through a UDP socket adapter, so
what reaches the application is best effort here. The network itself carries any number of bytes;
bandwidth is what members are held to (`emulation`).
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple, Protocol

from attrs import define, field, frozen

from opus_socket.core.addresses import Contact, Endpoint
from opus_socket.core.effects import Kind
from opus_socket.core.wire import MAX_BODY
from opus_socket.errors import LocalProtocolError
from opus_socket.simulator.network import LinkQuality, Network
from opus_socket.simulator.rules import AnyRule, Delay, Drop, Rule, RuleBook
from opus_socket.simulator.schedule import Schedule
from opus_socket.simulator.trace import Trace

_MAX_WAYS = 1 << 12
"""Ways that a station keeps at hand."""


@frozen
class Traffic:
    """What had been sent up to some instant, whatever became of it.

    Attributes:
        protocol: protocol messages.
        periodic: those of them that were periodic Hellos: unchanged, from an established
            neighbor, on the slow beat (see `SimulatedSocket`).
        rendezvous: messages to and from rendezvous servers, buddies and the multicast group.
        overlay: packets of overlay messages.
        measurement: measurements and their answers.
    """

    protocol: int
    periodic: int
    rendezvous: int
    overlay: int
    measurement: int


class Way(NamedTuple):
    """From one station to another: who that is, and the base delay in seconds."""

    station: Station
    delay: float


class Station(Protocol):
    """Whoever lives at an endpoint."""

    number: int
    """Its number in the network: a member's, or one below 0 for a server."""
    seen_as: Contact
    """How others see what comes from it: its endpoint and index, and nothing else."""
    ways: dict[bytes, Way]
    """By a contact's wire bytes: who lives there, and how far away. Kept by the underlay."""

    @property
    def in_group(self) -> bool:
        """Whether it listens to the multicast group."""

    def takes(self, size: int) -> bool:
        """Whether somebody is there, with room for so many bytes."""

    def arrive(self, kind: Kind, body: bytes, sender: Contact) -> None:
        """A packet came."""


PERFECT = LinkQuality()
"""Links that do nothing but take their time."""


@define(eq=False, repr=False)
class Underlay:
    """The network between the stations of one simulation.

    Attributes:
        network: the delay of each pair.
        periodic: how many periodic Hellos were sent; counted by who knows one.
    """

    schedule: Schedule
    trace: Trace
    network: Network
    _quality: LinkQuality
    rng: Random
    periodic: int = field(default=0, init=False)
    _rules: RuleBook = field(factory=RuleBook, init=False)
    _faultless: bool = field(default=False, init=False)
    _sent: list[int] = field(factory=lambda: [0] * len(Kind), init=False)
    _stations: dict[Endpoint, Station] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._look_for_faults()

    @property
    def quality(self) -> LinkQuality:
        """Jitter, loss, duplication and reordering, alike for all, from now on."""
        return self._quality

    @quality.setter
    def quality(self, quality: LinkQuality) -> None:
        self._quality = quality
        self._look_for_faults()

    def add_rule(self, rule: AnyRule) -> AnyRule:
        """Put a fault into force, behind all others; returns it."""
        self._rules.add(rule)
        self._look_for_faults()
        return rule

    def remove_rule(self, rule: Rule) -> None:
        """End a fault."""
        self._rules.remove(rule)
        self._look_for_faults()

    def connect(self, station: Station) -> None:
        """Let a station be reached at its endpoint."""
        self._stations[station.seen_as.endpoints[0]] = station

    def send(self, sender: Station, to: Contact, kind: Kind, body: bytes) -> None:
        """Carry a packet, best effort.

        Raises:
            LocalProtocolError: a body that no datagram holds: a machine is broken.
        """
        size = len(body)
        if size > MAX_BODY and kind is not Kind.OVERLAY:
            raise LocalProtocolError(
                f"a body of {size} bytes does not fit into a datagram; {MAX_BODY} are allowed"
            )
        self._sent[kind] += 1
        now, trace, source = self.schedule.now, self.trace, sender.number
        digest = trace.digest(body)
        way = sender.ways.get(to.wire) or self._find(sender, to)
        if way is None:
            trace.note(now, "send", source, to.endpoints[0], digest)
            trace.note(now, "drop", source, to.endpoints[0], digest)
            return
        receiver, delay = way
        target = receiver.number
        trace.note(now, "send", source, target, digest)
        arrival = (receiver, sender, kind, body, digest)
        if self._faultless:
            self.schedule.at(now + delay, self._arrive, arrival)
            return
        copies = self._fate(source, target, size, delay)
        if not copies:
            trace.note(now, "drop", source, target, digest)
        for late in copies:
            self.schedule.at(now + late, self._arrive, arrival)

    def send_group(self, sender: Station, kind: Kind, body: bytes) -> None:
        """Carry a packet to every other station that listens to the multicast group."""
        for station in self._stations.values():
            if station.in_group and station is not sender:
                self.send(sender, station.seen_as, kind, body)

    def traffic(self) -> Traffic:
        """What has been sent so far."""
        sent = self._sent
        return Traffic(
            protocol=sent[Kind.PROTOCOL],
            periodic=self.periodic,
            rendezvous=sent[Kind.RENDEZVOUS],
            overlay=sent[Kind.OVERLAY],
            measurement=sent[Kind.MEASUREMENT],
        )

    def _fate(self, sender: int, receiver: int, size: int, delay: float) -> Sequence[float]:
        """After how many seconds each copy arrives."""
        verdict = self._rules.judge(self.schedule.now, sender, receiver, size)
        if isinstance(verdict, Drop):
            return ()
        if isinstance(verdict, Delay):
            delay += verdict.seconds
        return [late / 1000 for late in self._quality.transmit(delay * 1000, self.rng)]

    def _arrive(
        self, receiver: Station, sender: Station, kind: Kind, body: bytes, digest: str
    ) -> None:
        # Noted first: what the receiver sends in answer comes after it in the trace.
        if receiver.takes(len(body)):
            self.trace.note(self.schedule.now, "deliver", sender.number, receiver.number, digest)
            receiver.arrive(kind, body, sender.seen_as)
        else:
            self.trace.note(self.schedule.now, "drop", sender.number, receiver.number, digest)

    def _find(self, sender: Station, to: Contact) -> Way | None:
        """The way to the first endpoint of a contact at which anybody lives."""
        for endpoint in to.endpoints:
            station = self._stations.get(endpoint)
            if station is not None:
                if len(sender.ways) >= _MAX_WAYS:
                    sender.ways.clear()
                delay = self.network.delay_ms(sender.number, station.number) / 1000
                way = sender.ways[to.wire] = Way(station, delay)
                return way
        return None

    def _look_for_faults(self) -> None:
        self._faultless = self._quality == PERFECT and not len(self._rules)
