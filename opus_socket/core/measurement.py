"""Measurement of the way to any contact: its round-trip time, and how many bytes it carries.

Its one rule: nobody can be made to send more than came. Each ping and each probe has a nonce of
its own, so an answer says exactly which one it answers; it is never longer, and each source is
answered 64 KiB a second at most.

- *Round-trip time*: the time from a ping to its pong, which is as long as its ping.
- *Bandwidth*: a train of 16 probes of 1,200 bytes, sent at once, spreads at the narrowest part of
  the way. The other end says when each of them arrived by its own clock; what came after the first,
  over the time that it took, is the estimate. Other traffic that comes between them spreads them
  further: the estimate lies between what is left for one more flow and what the way has. None is
  above what the other end's process takes in.

Sources: iOverlay's measurements of latency and available bandwidth to any node, on request (Li,
Guo, Wang, Middleware 2004, section 2); packet-train dispersion (Dovrolis, Ramanathan, Moore,
INFOCOM 2001).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import inf
from random import Random
from typing import ClassVar

from attrs import define, field, fields, frozen

from opus_socket.core.addresses import Contact
from opus_socket.core.effects import DriverEffect, Kind, Quantity, Transmit
from opus_socket.core.limiter import SourceLimiter
from opus_socket.core.node import Measurement
from opus_socket.core.requests import shown
from opus_socket.core.timers import Timers
from opus_socket.core.wire import U64, Codec, ProtocolMessage
from opus_socket.errors import LocalProtocolError, RemoteProtocolError

TRIES = 3
MAX_OPEN = 1024
"""How many measurements may be under way."""

TRAIN = 16
"""Probes of one train."""

PROBE_SIZE = 1200
"""Bytes of one probe: with all headers it fits into one packet of any usual network."""

ANSWERED_BYTES = 1 << 16
"""Bytes of pings and probes of one source that are answered in a second."""

_MEASURED = (Quantity.RTT, Quantity.BANDWIDTH)


@define(eq=False)
class Ping(ProtocolMessage):
    """Asks for a pong with the same nonce and as much padding."""

    code: ClassVar[int] = 1
    nonce: U64
    padding: bytes


@define(eq=False)
class Pong(ProtocolMessage):
    """The answer to a ping."""

    code: ClassVar[int] = 2
    nonce: U64
    padding: bytes


@define(eq=False)
class Probe(ProtocolMessage):
    """One of a train. Asks when it arrived; its padding makes it longer than the answer."""

    code: ClassVar[int] = 3
    nonce: U64
    padding: bytes


@define(eq=False)
class Arrival(ProtocolMessage):
    """The answer to a probe: when it arrived, in microseconds of the answerer's clock."""

    code: ClassVar[int] = 4
    nonce: U64
    microseconds: U64


_CODEC = Codec((Ping, Pong, Probe, Arrival))
_PADDING = bytes(PROBE_SIZE - len(_CODEC.encode(Probe(2**64 - 1, bytes(1000)))) + 1000)


@define(eq=False)
class Measured:
    """The result of a measurement."""

    contact: Contact
    measurement: Measurement


MeterEffect = DriverEffect | Measured
MeterEffects = Sequence[MeterEffect]


@frozen
class MeterStatistics:
    """What a meter has done.

    Attributes:
        pings: pings and probes sent.
        answered: pings and probes of others answered.
        unanswered: pings and probes of others beyond what their source is answered in a second.
        results: measurements that gave a value.
        failures: measurements without an answer, or for which there was no room.
        extra_fields: elements of messages that this version does not know.
    """

    pings: int
    answered: int
    unanswered: int
    results: int
    failures: int
    extra_fields: int


@define(eq=False)
class _Open:
    """One measurement under way.

    Attributes:
        contact, quantity: what is measured.
        tries: how often its pings or trains were sent.
        sent: when each of its pings or probes was sent, by nonce.
        arrivals: when probes of the present train arrived, in microseconds of the other end.
    """

    contact: Contact
    quantity: Quantity
    tries: int = 0
    sent: dict[int, float] = field(factory=dict)
    arrivals: dict[int, int] = field(factory=dict)


@define(eq=False)
class Meter:
    """Measures the ways to contacts, and answers those who do.

    Args:
        rng: draws nonces.
        timeout: seconds to wait for each of three pings or trains; a pong is accepted as long as
            the measurement is under way, whichever ping it answers.
    """

    _rng: Random
    _timeout: float = 1.0
    _timers: Timers = field(factory=Timers, init=False)
    _open: dict[tuple[Contact, Quantity], _Open] = field(factory=dict, init=False)
    _by_nonce: dict[int, _Open] = field(factory=dict, init=False)
    _limiter: SourceLimiter = field(factory=lambda: SourceLimiter(ANSWERED_BYTES), init=False)
    _counts: Counter[str] = field(factory=Counter, init=False)

    @property
    def next_deadline(self) -> float:
        """When it wants to be woken, in seconds; inf for never."""
        return self._timers.earliest

    def statistics(self) -> MeterStatistics:
        """What it has done so far."""
        return MeterStatistics(*(self._counts[f.name] for f in fields(MeterStatistics)))

    def measure(self, contact: Contact, quantity: Quantity, now: float) -> MeterEffects:
        """Measure the way to a contact; `Measured` will say the result.

        What is measured already is not measured twice at the same time: there is one result.
        When 1,024 measurements are under way, the result is at once that there is none.

        Raises:
            LocalProtocolError: the quantity cannot be measured on request.
        """
        check_measurable(quantity)
        if (contact, quantity) in self._open:
            return ()
        if len(self._open) >= MAX_OPEN:
            return self._result(contact, quantity, None)
        measured = self._open[contact, quantity] = _Open(contact, quantity)
        return self._try(measured, now)

    def receive(self, body: bytes, sender: Contact, now: float) -> MeterEffects:
        """A message of kind 5 came.

        Raises:
            RemoteProtocolError: malformed, or a probe that is shorter than its answer.
        """
        match _CODEC.decode(body, self._counts):
            case Ping(nonce=nonce, padding=padding):
                return self._answer(Pong(nonce, padding), body, sender, now)
            case Probe(nonce=nonce):
                return self._answer(Arrival(nonce, int(now * 1e6)), body, sender, now)
            case Pong(nonce=nonce):
                measured = self._by_nonce.get(nonce)
                if measured is None or measured.quantity is not Quantity.RTT:
                    return ()
                return self._end(measured, now - measured.sent[nonce])
            case Arrival(nonce=nonce, microseconds=microseconds):
                return self._arrived(nonce, microseconds)
            case other:
                raise RemoteProtocolError("unknown_message", type(other).__name__)

    def wake(self, now: float) -> MeterEffects:
        """The deadline has come: try again, or give up."""
        effects: list[MeterEffect] = []
        for measured in self._timers.due(now):
            if not isinstance(measured, _Open):
                continue
            if len(measured.arrivals) > 1:
                effects += self._end(measured, _dispersion(measured))
            elif measured.tries < TRIES:
                effects += self._try(measured, now)
            else:
                effects += self._end(measured, None)
        return effects

    def _answer(
        self, answer: ProtocolMessage, body: bytes, sender: Contact, now: float
    ) -> MeterEffects:
        encoded, size = _CODEC.encode(answer), len(body)
        if len(encoded) > size:
            raise RemoteProtocolError("short_probe", f"{size} bytes")
        if self._limiter.take(sender.endpoints[0].host.encode(), size, now) < size:
            self._counts["unanswered"] += 1
            return ()
        self._counts["answered"] += 1
        return (Transmit(sender, Kind.MEASUREMENT, encoded),)

    def _arrived(self, nonce: int, microseconds: int) -> MeterEffects:
        measured = self._by_nonce.get(nonce)
        if measured is None or measured.quantity is not Quantity.BANDWIDTH:
            return ()
        measured.arrivals[nonce] = microseconds
        return self._end(measured, _dispersion(measured)) if len(measured.arrivals) == TRAIN else ()

    def _try(self, measured: _Open, now: float) -> MeterEffects:
        measured.tries += 1
        self._timers.set(measured, now + self._timeout)
        if measured.quantity is Quantity.RTT:
            return (self._send(Ping(self._nonce(measured, now), b""), measured),)
        # Of an earlier train hardly anything came: it says nothing.
        self._forget(measured)
        return [
            self._send(Probe(self._nonce(measured, now), _PADDING), measured) for _ in range(TRAIN)
        ]

    def _nonce(self, measured: _Open, now: float) -> int:
        while (nonce := self._rng.getrandbits(64)) in self._by_nonce:
            pass
        measured.sent[nonce] = now
        self._by_nonce[nonce] = measured
        return nonce

    def _send(self, message: ProtocolMessage, measured: _Open) -> Transmit:
        self._counts["pings"] += 1
        return Transmit(measured.contact, Kind.MEASUREMENT, _CODEC.encode(message))

    def _forget(self, measured: _Open) -> None:
        for nonce in measured.sent:
            del self._by_nonce[nonce]
        measured.sent.clear()
        measured.arrivals.clear()

    def _end(self, measured: _Open, value: float | None) -> MeterEffects:
        contact, quantity = measured.contact, measured.quantity
        self._timers.cancel(measured)
        del self._open[contact, quantity]
        self._forget(measured)
        return self._result(contact, quantity, value)

    def _result(self, contact: Contact, quantity: Quantity, value: float | None) -> MeterEffects:
        self._counts["failures" if value is None else "results"] += 1
        return (Measured(contact, Measurement(quantity, value)),)


def check_measurable(quantity: object) -> Quantity:
    """The quantity that a caller names, if it can be measured on request.

    Raises:
        LocalProtocolError: it cannot.
    """
    if not isinstance(quantity, str) or quantity not in _MEASURED:
        raise LocalProtocolError(
            f"{shown(quantity)} cannot be measured on request; allowed: "
            + ", ".join(repr(each.value) for each in _MEASURED)
        )
    return Quantity(quantity)


def _dispersion(measured: _Open) -> float:
    """Bytes a second: what came after the first probe, over the time until the last."""
    times = measured.arrivals.values()
    spread = max(times) - min(times)
    return (len(times) - 1) * PROBE_SIZE * 1e6 / spread if spread else inf
