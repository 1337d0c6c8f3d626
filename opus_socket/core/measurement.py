"""Measurement of round-trip times to any contact, before joining too.

Its one rule: each ping has a nonce of its own, so a pong says exactly which ping it answers, and
a pong is as long as its ping, so nobody can be made to send more than came. Source: iOverlay's
QoS measurements (Li, Guo, Wang, Middleware 2004), which any node may be asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random
from typing import ClassVar

from attrs import define, field, fields, frozen

from opus_socket.core.addresses import Contact
from opus_socket.core.effects import DriverEffect, Kind, Quantity, Transmit
from opus_socket.core.node import Measurement
from opus_socket.core.timers import Timers
from opus_socket.core.wire import U64, Codec, ProtocolMessage
from opus_socket.errors import LocalProtocolError, RemoteProtocolError

TRIES = 3
MAX_OPEN = 1024
"""How many contacts are measured at the same time."""


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


_CODEC = Codec((Ping, Pong))


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
        pings: sent.
        answered: pings of others that were answered.
        results: measurements that gave a value.
        failures: measurements without an answer, or for which there was no room.
        extra_fields: elements of messages that this version does not know.
    """

    pings: int
    answered: int
    results: int
    failures: int
    extra_fields: int


@define(eq=False)
class _Open:
    """One measurement under way: its contact, and when each of its pings was sent, by nonce."""

    contact: Contact
    sent: dict[int, float] = field(factory=dict)


@define(eq=False)
class Meter:
    """Measures round-trip times, and answers those who do.

    Args:
        rng: draws nonces.
        timeout: seconds to wait for each of three pings; a pong is accepted as long as the
            measurement is under way, whichever ping it answers.
    """

    _rng: Random
    _timeout: float = 1.0
    _timers: Timers = field(factory=Timers, init=False)
    _open: dict[Contact, _Open] = field(factory=dict, init=False)
    _by_nonce: dict[int, _Open] = field(factory=dict, init=False)
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
            LocalProtocolError: the quantity cannot be measured.
        """
        if quantity is not Quantity.RTT:
            raise LocalProtocolError(f"{quantity!r} cannot be measured; allowed: {Quantity.RTT!r}")
        if contact in self._open:
            return ()
        if len(self._open) >= MAX_OPEN:
            return self._result(contact, None)
        self._open[contact] = _Open(contact)
        return self._ping(self._open[contact], now)

    def receive(self, body: bytes, sender: Contact, now: float) -> MeterEffects:
        """A message of kind 5 came.

        Raises:
            RemoteProtocolError: malformed.
        """
        match _CODEC.decode(body, self._counts):
            case Ping(nonce=nonce, padding=padding):
                pong = _CODEC.encode(Pong(nonce, padding))
                self._counts["answered"] += 1
                return (Transmit(sender, Kind.MEASUREMENT, pong),)
            case Pong(nonce=nonce):
                measured = self._by_nonce.get(nonce)
                if measured is None:
                    return ()
                self._close(measured)
                return self._result(measured.contact, now - measured.sent[nonce])
            case other:
                raise RemoteProtocolError("unknown_message", type(other).__name__)

    def wake(self, now: float) -> MeterEffects:
        """The deadline has come: ping again, or give up."""
        effects: list[MeterEffect] = []
        for contact in self._timers.due(now):
            if not isinstance(contact, Contact):
                continue
            measured = self._open[contact]
            if len(measured.sent) < TRIES:
                effects += self._ping(measured, now)
            else:
                self._close(measured)
                effects += self._result(contact, None)
        return effects

    def _ping(self, measured: _Open, now: float) -> MeterEffects:
        while (nonce := self._rng.getrandbits(64)) in self._by_nonce:
            pass
        measured.sent[nonce] = now
        self._by_nonce[nonce] = measured
        self._timers.set(measured.contact, now + self._timeout)
        self._counts["pings"] += 1
        body = _CODEC.encode(Ping(nonce, b""))
        return (Transmit(measured.contact, Kind.MEASUREMENT, body),)

    def _close(self, measured: _Open) -> None:
        self._timers.cancel(measured.contact)
        del self._open[measured.contact]
        for nonce in measured.sent:
            del self._by_nonce[nonce]

    def _result(self, contact: Contact, seconds: float | None) -> MeterEffects:
        self._counts["failures" if seconds is None else "results"] += 1
        return (Measured(contact, Measurement(Quantity.RTT, seconds)),)
