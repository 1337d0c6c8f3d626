"""The attendant of a membership: it knows how the ways are, and sees when they break.

Its one rule: it joins three machines to one and decides nothing itself. `inquiries` are what
somebody here asks about any member, `link_watch` looks after the links to neighbors, `sessions`
after what passes over them. All of them speak to their like as services do, under ids of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from random import Random

from attrs import define, field

from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.dispatch import ForService
from opus_socket.core.effects import Emit, Measure, Quantity
from opus_socket.core.engine import ForwardingEngine
from opus_socket.core.inquiries import INQUIRIES, Answered, Inquiries, Target
from opus_socket.core.link_watch import AskLinks, LinkFigures, LinkWatch, Silent
from opus_socket.core.measurement import Measured
from opus_socket.core.node import Measurement, Node
from opus_socket.core.service import Originate
from opus_socket.core.sessions import SESSIONS, SessionEffects, Sessions

ATTENDED = (INQUIRIES, SESSIONS)
"""The service ids of its own messages."""


@define(eq=False)
class Speak:
    """Send messages under this service id."""

    service: int
    messages: Originate


Attended = Speak | Measure | Measured | Emit | Answered | AskLinks | Silent


@define(eq=False)
class Attendant:
    """One membership's.

    Args:
        engine: whose messages pass.
        node: who the neighbors are, and the parents.
        rng: draws nonces.
    """

    engine: ForwardingEngine
    node: Node
    _rng: Random
    inquiries: Inquiries = field(init=False)
    sessions: Sessions = field(init=False)
    watch: LinkWatch = field(init=False)
    _ended: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self.inquiries = Inquiries(self._rng)
        self.sessions = Sessions(self.engine, self.node)
        self.watch = LinkWatch(self.sessions)
        for service in ATTENDED:
            self.engine.register_service(service)

    @property
    def next_deadline(self) -> float:
        """When it wants to be woken, in seconds; inf for never."""
        return min(self.watch.due, self.inquiries.next_deadline, self.sessions.next_deadline)

    def wake(self, now: float) -> Sequence[Attended]:
        """The deadline has come."""
        effects: list[Attended] = []
        if self.inquiries.next_deadline <= now:
            effects += _spoken(INQUIRIES, self.inquiries.wake(now))
        if self.sessions.next_deadline <= now:
            effects += self._break(self.sessions.wake(now), now)
        if self.watch.due <= now:
            effects += self.watch.wake(now)
        return effects

    def ask(
        self, target: Target, known: Contact | None, quantity: Quantity, now: float
    ) -> Sequence[Attended]:
        """Somebody asks about a member: see `Inquiries.ask`.

        Raises:
            LocalProtocolError: the address is none of this overlay's members, or the quantity
                cannot be measured on request.
        """
        if not isinstance(target, Contact):
            target.check_destination(self.node.address)
        return _spoken(INQUIRIES, self.inquiries.ask(target, known, quantity, now))

    def receive(self, message: ForService, here: Contact, now: float) -> Sequence[Attended]:
        """A message with one of the `ATTENDED` ids came.

        Raises:
            RemoteProtocolError: it is malformed, or not to be believed.
        """
        if self._ended:
            return ()
        if message.service == INQUIRIES:
            return _spoken(INQUIRIES, self.inquiries.receive(message, here, now))
        return self._break(self.sessions.receive(message, now), now)

    def links(
        self,
        figures: Sequence[LinkFigures],
        neighbors: Mapping[LogicalAddress, Contact],
        now: float,
    ) -> Sequence[Attended]:
        """The figures of the links, as `AskLinks` has asked for."""
        effects = _spoken(SESSIONS, self.sessions.look(now))
        return [*effects, *self.watch.look(figures, neighbors, now)]

    def measured(self, contact: Contact, measurement: Measurement) -> Sequence[Attended]:
        """A measurement has ended, or is reported."""
        return [
            *self.inquiries.measured(contact, measurement),
            *self.watch.measured(contact, measurement),
        ]

    def link_failed(self, neighbor: LogicalAddress, now: float) -> None:
        """The way to a neighbor has failed."""
        if not self._ended:
            self.sessions.link_failed(neighbor, now)

    def gone(self, neighbor: LogicalAddress, now: float) -> None:
        """Somebody is no neighbor any more."""
        if not self._ended:
            self.sessions.gone(neighbor, now)

    def _break(self, effects: SessionEffects, now: float) -> Sequence[Attended]:
        if effects:
            # What was said once is said again at the next looks.
            self.watch.begin(now)
        return _spoken(SESSIONS, effects)

    def end(self) -> None:
        """This member leaves: what breaks now, breaks by its own will."""
        self._ended = True
        self.inquiries.end()
        self.sessions.end()
        self.watch.end()


def _spoken(service: int, effects: Iterable[Attended | Originate]) -> list[Attended]:
    return [
        Speak(service, effect) if isinstance(effect, Originate) else effect for effect in effects
    ]
