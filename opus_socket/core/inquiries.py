"""Inquiries: somebody here wants to know how good the way to a member is.

Its one rule: an inquiry ends exactly once, with a value or without, and whoever asked is told. A
contact is measured at once (see `measurement`). Of a logical address the contact is asked first, by
a message along the overlay that only members carry, get and answer: `Where` to the address, `Here`
back to the asker, thrice a second apart at most. A member answers each other member ten times a
second at most.

Source: iOverlay's measurements to any node, on request (Li, Guo, Wang, Middleware 2004, section 2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import ClassVar

from attrs import define, field, frozen

from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.dispatch import ForService
from opus_socket.core.effects import Measure, Quantity
from opus_socket.core.limiter import SourceLimiter
from opus_socket.core.measurement import check_measurable
from opus_socket.core.node import Measurement, Mode
from opus_socket.core.service import Originate, service_id
from opus_socket.core.timers import Timers
from opus_socket.core.wire import U64, Codec, ProtocolMessage
from opus_socket.errors import RemoteProtocolError

INQUIRIES = service_id("opus_socket.inquiries")
"""The service id that `Where` and `Here` carry."""

TRIES = 3
TIMEOUT = 1.0
"""Seconds that a member has to say where it is, each time that it is asked."""

MAX_OPEN = 256
"""How many members may be looked for at the same time."""

ANSWERS_PER_SECOND = 10

Target = LogicalAddress | Contact
"""Whom an inquiry is about."""


@define(eq=False)
class Where(ProtocolMessage):
    """Asks the member at an address for its contact."""

    code: ClassVar[int] = 1
    nonce: U64


@define(eq=False)
class Here(ProtocolMessage):
    """The answer."""

    code: ClassVar[int] = 2
    nonce: U64
    contact: Contact


_CODEC = Codec((Where, Here))


@frozen(eq=False)
class Answered:
    """For the driver: an inquiry has ended; tell whoever asked."""

    target: Target
    measurement: Measurement


InquiryEffect = Originate | Measure | Answered
InquiryEffects = Sequence[InquiryEffect]


@define(eq=False)
class _Search:
    """A member whose contact is asked for.

    Attributes:
        address: its own.
        nonce: of the question.
        quantities: what is to be measured when its contact is known.
        tries: how often it was asked.
    """

    address: LogicalAddress
    nonce: int
    quantities: list[Quantity]
    tries: int = 0


@define(eq=False)
class Inquiries:
    """Finds members by their address, and has the way to them measured.

    Args:
        rng: draws nonces.
    """

    _rng: Random
    _timers: Timers = field(factory=Timers, init=False)
    _searches: dict[LogicalAddress, _Search] = field(factory=dict, init=False)
    _asked: dict[tuple[Contact, Quantity], list[Target]] = field(factory=dict, init=False)
    _limiter: SourceLimiter = field(factory=lambda: SourceLimiter(ANSWERS_PER_SECOND), init=False)
    _counts: Counter[str] = field(factory=Counter, init=False)

    @property
    def next_deadline(self) -> float:
        """When it wants to be woken, in seconds; inf for never."""
        return self._timers.earliest

    def ask(
        self, target: Target, known: Contact | None, quantity: Quantity, now: float
    ) -> InquiryEffects:
        """Have the way to a member measured; `Answered` says the result, once for each target.

        Args:
            target: whom.
            known: the contact of an address, where it is known: a neighbor's.
            quantity: what.
            now: seconds.

        Raises:
            LocalProtocolError: the quantity cannot be measured on request.
        """
        check_measurable(quantity)
        if isinstance(target, Contact):
            return self._measure(target, target, quantity)
        if known is not None:
            return self._measure(target, known, quantity)
        search = self._searches.get(target)
        if search is not None:
            if quantity not in search.quantities:
                search.quantities.append(quantity)
            return ()
        if len(self._searches) >= MAX_OPEN:
            return (Answered(target, Measurement(quantity, None)),)
        search = self._searches[target] = _Search(target, self._rng.getrandbits(64), [quantity])
        return self._look(search, now)

    def receive(self, message: ForService, here: Contact, now: float) -> InquiryEffects:
        """A message of another member's inquiries came.

        Args:
            message: with the service id `INQUIRIES`, addressed to this member.
            here: this member's contact.
            now: seconds.

        Raises:
            RemoteProtocolError: malformed, or not what was asked for.
        """
        source = message.message.source
        match _CODEC.decode(message.message.payload, self._counts):
            case Where(nonce=nonce):
                if not self._limiter.take(source.wire, 1, now):
                    raise RemoteProtocolError("inquiry_flood", str(source))
                answer = _CODEC.encode(Here(nonce, here))
                return (Originate((answer,), Mode.UNICAST, source),)
            case Here(nonce=nonce, contact=contact):
                search = self._searches.get(source)
                if search is None or search.nonce != nonce or contact.address != source:
                    raise RemoteProtocolError("not_asked", str(source))
                self._end(search)
                return [
                    effect
                    for quantity in search.quantities
                    for effect in self._measure(source, contact, quantity)
                ]
            case other:
                raise RemoteProtocolError("unknown_message", type(other).__name__)

    def measured(self, contact: Contact, measurement: Measurement) -> Sequence[Answered]:
        """The way to a contact was measured, for whomever."""
        targets = self._asked.pop((contact, measurement.quantity), ())
        return [Answered(target, measurement) for target in targets]

    def wake(self, now: float) -> InquiryEffects:
        """The deadline has come: ask again, or give up."""
        effects: list[InquiryEffect] = []
        for search in self._timers.due(now):
            if not isinstance(search, _Search):
                continue
            if search.tries < TRIES:
                effects += self._look(search, now)
                continue
            self._end(search)
            effects += [
                Answered(search.address, Measurement(quantity, None))
                for quantity in search.quantities
            ]
        return effects

    def end(self) -> None:
        """This member leaves: nobody waits any more."""
        self._timers.clear()
        self._searches.clear()
        self._asked.clear()

    def _look(self, search: _Search, now: float) -> InquiryEffects:
        search.tries += 1
        self._timers.set(search, now + TIMEOUT)
        return (Originate((_CODEC.encode(Where(search.nonce)),), Mode.UNICAST, search.address),)

    def _end(self, search: _Search) -> None:
        self._timers.cancel(search)
        del self._searches[search.address]

    def _measure(self, target: Target, contact: Contact, quantity: Quantity) -> InquiryEffects:
        targets = self._asked.setdefault((contact, quantity), [])
        if target not in targets:
            targets.append(target)
        return (Measure(contact, quantity),)
