"""The links to the neighbors, looked at once a second while anything passes.

Its one rule: nothing is done for a message, and nothing is sent while nothing passes. What came is
counted for each batch, what went is counted by the driver anyway; once a second both become rates.
The second after the last message is the last one: an idle member has no deadline here.

Failures are found without heartbeats. A link that brought a session and has been silent for five
such seconds, or that has taken nothing of its queue for five, may be broken, or its source may have
nothing to say. One ping decides: whoever answers is well, and is not asked again before something
passes; whoever does not answer it three times is lost. A ping is sent as well, once in ten seconds
at most, over a link that carries something, to know its round-trip time.

Source: iOverlay's QoS measurements and failure detection (Li, Guo, Wang, Middleware 2004,
section 2): throughput, latency and losses of each link reported to the algorithm, failures seen by
errors, timeouts and five seconds of zero throughput.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

from attrs import define, field, frozen

from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.effects import Measure, Quantity
from opus_socket.core.measurement import Measured
from opus_socket.core.node import Measurement
from opus_socket.core.sessions import Sessions

PERIOD = 1.0
"""Seconds between two looks."""

SILENT_LOOKS = 5
"""Looks without throughput after which a link is doubted."""

RTT_PERIOD = 10.0
"""Seconds between two pings over a link that carries something."""


@frozen
class LinkFigures:
    """What a driver knows of a link to a neighbor; everything counts from when it was made.

    Attributes:
        contact: the neighbor.
        taken, taken_size: messages that were accepted for it, and bytes of their frames.
        queued: bytes that wait.
        lost, lost_size: messages that were refused or given up, and bytes of their frames.
    """

    contact: Contact
    taken: int
    taken_size: int
    queued: int
    lost: int
    lost_size: int


@frozen
class LinkStatistics:
    """Figures of the link to one neighbor, as long as it is one.

    Attributes:
        neighbor: its address.
        rtt: the round-trip time to it in seconds, measured when something last passed; None when
            it is not known.
        sent: messages that were accepted for it; some may still be queued.
        sent_size: bytes of such messages that left their queue, for the network nearly always.
        received, received_size: messages that it brought, and bytes of their frames.
        lost, lost_size: messages for it that were dropped here.
        sent_per_second, received_per_second, lost_per_second: messages, in the last second of
            which there are figures.
        sent_bytes_per_second, received_bytes_per_second: bytes in the same time.
    """

    neighbor: LogicalAddress
    rtt: float | None
    sent: int
    sent_size: int
    received: int
    received_size: int
    lost: int
    lost_size: int
    sent_per_second: float
    received_per_second: float
    lost_per_second: float
    sent_bytes_per_second: float
    received_bytes_per_second: float


@frozen(eq=False)
class AskLinks:
    """For the driver: give the core the figures of this member's links (`OverlayCore.links`)."""


@frozen(eq=False)
class Silent:
    """A neighbor brings nothing any more, and does not answer."""

    contact: Contact


WatchEffect = AskLinks | Measure | Measured | Silent
WatchEffects = Sequence[WatchEffect]


@define(eq=False)
class Heard:
    """What a neighbor brought: messages, and bytes of their frames."""

    messages: int = 0
    size: int = 0


@define(eq=False)
class _Totals:
    """All counters of a link at one instant."""

    sent: int = 0
    sent_size: int = 0
    received: int = 0
    received_size: int = 0
    lost: int = 0
    lost_size: int = 0


@define(eq=False)
class _Link:
    """One neighbor's.

    Attributes:
        contact: the neighbor.
        heard: what it brought.
        totals: at the last look.
        rates: in the time before it, a second.
        silent: looks since it last brought something; None when there is no need to doubt it.
        stuck: looks since it last took something of its queue; 0 when nothing is queued.
        queued: whether something waits.
        doubted: whether a ping decides about it now.
        rtt, pinged_at: its round-trip time, and when that was last asked.
    """

    contact: Contact
    heard: Heard = field(factory=Heard)
    totals: _Totals = field(factory=_Totals)
    rates: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)
    silent: int | None = None
    stuck: int = 0
    queued: bool = False
    doubted: bool = False
    rtt: float | None = None
    pinged_at: float = -inf


@define(eq=False)
class LinkWatch:
    """Looks after the links of one member.

    Args:
        sessions: whose upstreams are looked after.

    Attributes:
        heard: what each neighbor brought, for whoever counts it; empty while nothing is watched.
        due: when the next look is; inf while nothing passes.
    """

    sessions: Sessions
    heard: dict[LogicalAddress, Heard] = field(factory=dict, init=False)
    due: float = field(default=inf, init=False)
    _since: float = field(default=0.0, init=False)
    _links: dict[LogicalAddress, _Link] = field(factory=dict, init=False)
    _ended: bool = field(default=False, init=False)

    def begin(self, now: float) -> None:
        """Something passes: look in a second."""
        if self.due == inf and not self._ended:
            self.due, self._since = now + PERIOD, now

    def hear(self, contact: Contact, now: float) -> Heard:
        """The counter of a neighbor that brings something; `heard` has it from now on."""
        address = contact.address
        assert address is not None, "a neighbor has an address"
        self.begin(now)
        heard = self.heard[address] = self._link(address, contact).heard
        return heard

    def wake(self, now: float) -> WatchEffects:
        """The deadline has come."""
        self.due = inf
        return (AskLinks(),)

    def look(
        self,
        figures: Sequence[LinkFigures],
        neighbors: Mapping[LogicalAddress, Contact],
        now: float,
    ) -> WatchEffects:
        """The figures are there: note rates, doubt who is silent, see when to look again.

        Args:
            figures: of every link that there is.
            neighbors: by address; links to others are forgotten.
            now: seconds.
        """
        elapsed = max(now - self._since, 1e-3)
        self._since = now
        known = {each.contact: each for each in figures}
        for address in [each for each in self._links if each not in neighbors]:
            del self._links[address]
        effects: list[WatchEffect] = []
        again = self.sessions.busy
        for address, contact in neighbors.items():
            figure = known.get(contact)
            if figure is not None or address in self._links:
                link = self._link(address, contact)
                effects += self._look_at(link, figure, elapsed, now)
                again = again or any(link.rates) or link.doubted or _counts_down(link)
        if again:
            self.due = now + PERIOD
        else:
            # Whoever brings something next is not found there, and it begins again.
            self.heard.clear()
        return effects

    def measured(self, contact: Contact, measurement: Measurement) -> WatchEffects:
        """A round-trip time was measured, or there was no answer."""
        link = None if contact.address is None else self._links.get(contact.address)
        if measurement.quantity is not Quantity.RTT or link is None or link.contact != contact:
            return ()
        if measurement.value is not None:
            link.rtt = measurement.value
        doubted, link.doubted = link.doubted, False
        came = link.heard.messages != link.totals.received
        if not doubted or came or not (link.silent or link.stuck):
            return ()
        link.silent, link.stuck = None, 0
        return (Silent(contact),) if measurement.value is None else ()

    def end(self) -> None:
        """This member leaves."""
        self._ended = True
        self.due = inf
        self._links.clear()
        self.heard.clear()

    def statistics(self) -> tuple[LinkStatistics, ...]:
        """Figures of every link that has carried anything, by address."""
        return tuple(_figures(address, self._links[address]) for address in sorted(self._links))

    def _link(self, address: LogicalAddress, contact: Contact) -> _Link:
        link = self._links.get(address)
        if link is None or link.contact != contact:
            # A restarted member is another one.
            link = self._links[address] = _Link(contact)
            self.heard.pop(address, None)
        return link

    def _look_at(
        self, link: _Link, figures: LinkFigures | None, elapsed: float, now: float
    ) -> WatchEffects:
        before, link.totals = link.totals, _totals(link, figures)
        totals = link.totals
        link.rates = (
            max(0, totals.sent - before.sent) / elapsed,
            max(0, totals.received - before.received) / elapsed,
            max(0, totals.lost - before.lost) / elapsed,
            max(0, totals.sent_size - before.sent_size) / elapsed,
            max(0, totals.received_size - before.received_size) / elapsed,
        )
        _, received, lost, sent_size, received_size = link.rates
        if received:
            link.silent = 0
        elif link.silent is not None:
            link.silent += 1
        link.queued = figures is not None and figures.queued > 0
        link.stuck = link.stuck + 1 if link.queued and not sent_size else 0
        effects: list[WatchEffect] = []
        if any(link.rates):
            effects += (
                Measured(link.contact, Measurement(Quantity.SENT, sent_size)),
                Measured(link.contact, Measurement(Quantity.RECEIVED, received_size)),
                Measured(link.contact, Measurement(Quantity.LOST, lost)),
            )
        if self._is_doubtful(link, now):
            link.doubted = True
            link.pinged_at = now
            effects.append(Measure(link.contact))
        elif any(link.rates) and now - link.pinged_at >= RTT_PERIOD:
            link.pinged_at = now
            effects.append(Measure(link.contact))
        return effects

    def _is_doubtful(self, link: _Link, now: float) -> bool:
        """Whether it is time to ask."""
        if link.doubted:
            return False
        if link.stuck == SILENT_LOOKS:
            return True
        if link.silent != SILENT_LOOKS:
            return False
        address = link.contact.address
        if address is not None and self.sessions.brought_by(address, now):
            return True
        link.silent = None
        return False


def _counts_down(link: _Link) -> bool:
    """Whether a look in a second may find what this one did not."""
    return link.queued or (link.silent is not None and link.silent < SILENT_LOOKS)


def _totals(link: _Link, figures: LinkFigures | None) -> _Totals:
    received = link.heard
    if figures is None:
        return _Totals(received=received.messages, received_size=received.size)
    return _Totals(
        figures.taken,
        figures.taken_size - figures.queued,
        received.messages,
        received.size,
        figures.lost,
        figures.lost_size,
    )


def _figures(address: LogicalAddress, link: _Link) -> LinkStatistics:
    totals, (sent, received, lost, sent_size, received_size) = link.totals, link.rates
    return LinkStatistics(
        neighbor=address,
        rtt=link.rtt,
        sent=totals.sent,
        sent_size=totals.sent_size,
        received=totals.received,
        received_size=totals.received_size,
        lost=totals.lost,
        lost_size=totals.lost_size,
        sent_per_second=sent,
        received_per_second=received,
        lost_per_second=lost,
        sent_bytes_per_second=sent_size,
        received_bytes_per_second=received_size,
    )
