"""The asking side of finding members: requests, cookies, retries and outages.

Its one rule: an answer counts only by the nonce of a request that is open, or was given up at most
five seconds after it was sent, so neither a forged nor an old answer can do anything. With each
correspondent there is at most one open request for each purpose; asking anew gives it up. Who stays
silent is reported once an outage; a server that keeps somebody from joining, ever more seldom.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import inf
from random import Random

from attrs import define, field, frozen

from opus_socket.core.addresses import Contact, OverlayID
from opus_socket.core.effects import DriverEffect, Emit, Kind, Transmit
from opus_socket.core.events import ContactFailed
from opus_socket.core.key_attributes import KeyAttributes
from opus_socket.core.rendezvous_messages import (
    Announcement,
    Challenge,
    Purpose,
    Reply,
    Request,
    encode,
)
from opus_socket.core.timers import Timers

MAX_CHALLENGES = 3
"""How often one request follows a new cookie before it waits for its next turn."""

OUTAGE = 2
OUTAGE_SECONDS = 1.2
BUDDY_OUTAGE_SECONDS = 30.0
"""After so many requests without an answer, over so many seconds, a correspondent is out. A buddy
is only likely to be there: that the one of a founder has not come yet is no failure."""

LONG_WAIT = 3.0
"""Seconds for which a server keeps somebody from joining, by its silence or by letting it wait,
before that is reported; and again after twice as long each time."""

LATEST = 5.0
"""Seconds after which an answer counts no more: the longest round trip to a correspondent with
which a member, who asks for others every two seconds, still finds them."""

MAX_LATE = 256
"""How many requests that were given up may be answered yet."""

PATIENCE = 4
SHORTEST_PATIENCE = 0.25
"""An answer is waited for four times as long as answers took, and at least a quarter second."""


@frozen
class Patience:
    """How often a request is sent again, and when.

    Attributes:
        first: seconds until the second time.
        longest: seconds; the wait doubles up to this.
        tries: how many times it is sent; None for as long as it takes.
    """

    first: float
    longest: float
    tries: int | None

    def wait(self, tries: int, expected: float = inf) -> float:
        """Seconds to wait for an answer when it was sent so many times in a row.

        Args:
            tries: how often it was sent.
            expected: seconds after which an answer was to be expected, by experience.
        """
        # A request that is not repeated is open to late answers for as long as is allowed.
        first = self.first if self.tries == 1 else min(self.first, expected)
        return min(first * 2.0 ** min(tries - 1, 16), self.longest)


@define(eq=False)
class Correspondent:
    """A server, a buddy or an announcer.

    Attributes:
        contact: where it is.
        is_server: whether it is a rendezvous server.
        cookie: what it gave us last.
        ticket: our place among those who wait there.
        silent: requests in a row without an answer.
        silent_since: seconds, when the first of them was sent.
        round_trip: seconds that answers of a server took, on average; inf before the first.
        out: whether its silence was reported.
        differs: whether it was reported that its key attributes are others.
    """

    contact: Contact
    is_server: bool
    cookie: bytes = b""
    ticket: int = 0
    silent: int = 0
    silent_since: float = inf
    round_trip: float = inf
    out: bool = False
    differs: bool = False

    @property
    def patience(self) -> float:
        """Seconds after which an answer was to be expected."""
        return max(PATIENCE * self.round_trip, SHORTEST_PATIENCE)

    def took(self, seconds: float) -> None:
        """It answered a request after so many seconds."""
        if self.is_server:
            before = self.round_trip if self.round_trip < inf else seconds
            self.round_trip = before + (seconds - before) / 4


@define(eq=False)
class Exchange:
    """One open request.

    Attributes:
        to: whom it was sent to.
        purpose: what it is for.
        nonce: of the request, however often it is sent.
        patience: when it is sent again.
        began: seconds, when it was first sent.
        body: the protocol message to be announced.
        sent: seconds, when it was sent last.
        tries: how often it was sent since the last answer.
        challenges: how often it was answered by a cookie since it was sent by itself.
        waiting: whether it was answered by "ask again later".
        late: whether it was given up, so that it is not sent again, but may be answered yet.
        report_after: seconds of waiting after which that is reported.
    """

    to: Correspondent
    purpose: Purpose
    nonce: int
    patience: Patience
    began: float
    body: bytes = b""
    sent: float = -inf
    tries: int = 0
    challenges: int = 0
    waiting: bool = False
    late: bool = False
    report_after: float = LONG_WAIT

    @property
    def is_first(self) -> bool:
        """Whether it was sent once, and may well be answered yet."""
        return self.tries == 1 and not self.waiting

    def has_waited_long(self, now: float) -> bool:
        """Whether that is to be reported; not again before it has waited twice as long."""
        seconds = now - self.began
        if seconds < self.report_after:
            return False
        while self.report_after <= seconds:
            self.report_after *= 2
        return True


@define(eq=False)
class Correspondence:
    """Every open request of one member.

    Args:
        overlay_id: the overlay.
        attributes: the member's key attributes.
        rng: draws nonces and jitter.
        timers: where deadlines are kept, named by their nonces.

    Attributes:
        source: the member's own contact, once it is known.
    """

    _overlay_id: OverlayID
    _attributes: KeyAttributes
    _rng: Random
    _timers: Timers
    source: Contact | None = None
    _open: dict[int, Exchange] = field(factory=dict, init=False)
    _late: dict[int, Exchange] = field(factory=dict, init=False)

    @property
    def own(self) -> Contact:
        """The member's own contact, known once it has begun."""
        assert self.source is not None, "nothing is sent or received before begin()"
        return self.source

    def open(self, *purposes: Purpose) -> Iterator[Exchange]:
        """The open requests for any of these purposes."""
        return (exchange for exchange in self._open.values() if exchange.purpose in purposes)

    def find(self, nonce: int, now: float) -> Exchange | None:
        """The request with this nonce that is open, or may be answered yet."""
        self._expire(now)
        return self._open.get(nonce) or self._late.get(nonce)

    def ask(
        self,
        to: Correspondent,
        purpose: Purpose,
        patience: Patience,
        now: float,
        body: bytes = b"",
    ) -> Sequence[DriverEffect]:
        """Send a request; an open one for the same purpose is given up for it."""
        for exchange in list(self.open(purpose)):
            if exchange.to is to:
                self._give_up(exchange, now)
        while (nonce := self._rng.getrandbits(32)) in self._open or nonce in self._late:
            pass
        exchange = Exchange(to, purpose, nonce, patience, now, body)
        self._open[nonce] = exchange
        return self._send_again(exchange, now)

    def challenged(self, challenge: Challenge, now: float) -> Sequence[DriverEffect]:
        """The correspondent wants to see a cookie: send the request again, with it. One that was
        given up is not, but the next one shows the cookie.
        """
        exchange = self.find(challenge.nonce, now)
        if exchange is None or exchange.challenges >= MAX_CHALLENGES:
            return ()
        exchange.challenges += 1
        exchange.to.cookie = challenge.cookie
        if exchange.is_first:
            exchange.to.took(now - exchange.sent)
        if exchange.late:
            return ()
        # Somebody is there: should what follows get lost, it is worth a try soon.
        if exchange.to.is_server:
            exchange.tries = 1
        self._timers.set_no_later(exchange.nonce, self._patient_until(exchange, now))
        return (self._transmit(exchange, now),)

    def answered(self, nonce: int, now: float) -> Exchange | None:
        """Take the request that is answered with this nonce; it is closed thereby."""
        exchange = self.find(nonce, now)
        if exchange is not None:
            self.close(exchange)
            to = exchange.to
            to.silent, to.out = 0, False
            if exchange.is_first:
                to.took(now - exchange.sent)
        return exchange

    def ask_later(self, exchange: Exchange, reply: Reply, now: float) -> Sequence[DriverEffect]:
        """Open a request again that was answered by "ask again later"."""
        exchange.to.ticket = reply.ticket
        exchange.waiting = True
        exchange.tries = 0
        self._open[exchange.nonce] = exchange
        seconds = reply.wait_ms / 1000 * self._rng.uniform(0.9, 1.1)
        self._timers.set(exchange.nonce, now + min(seconds, exchange.patience.longest))
        return _waits(exchange, now)

    def close(self, exchange: Exchange) -> None:
        """Forget a request."""
        if exchange.late:
            del self._late[exchange.nonce]
            return
        del self._open[exchange.nonce]
        self._timers.cancel(exchange.nonce)

    def _give_up(self, exchange: Exchange, now: float) -> None:
        """Send a request no more; it may be answered yet."""
        self.close(exchange)
        self._expire(now)
        exchange.late = True
        self._late[exchange.nonce] = exchange
        if len(self._late) > MAX_LATE:
            del self._late[next(iter(self._late))]

    def _expire(self, now: float) -> None:
        """Forget the requests whose answers would be too old."""
        old = [nonce for nonce, late in self._late.items() if now > late.sent + LATEST]
        for nonce in old:
            del self._late[nonce]

    def announcement(self, body: bytes, *, member: bool) -> bytes:
        """The bytes of an announcement of a protocol message."""
        return self._announcement(self.own, member, body)

    def call(self, *, member: bool) -> bytes:
        """The bytes by which a joiner asks the group who is there, and a member answers: as short
        for the one as for the other.
        """
        own = self.own
        place = Contact(None, own.incarnation, own.index, own.endpoints[:1])
        return self._announcement(place, member, b"")

    def _announcement(self, source: Contact, member: bool, body: bytes) -> bytes:
        digest = self._attributes.digest
        return encode(Announcement(self._overlay_id, digest, source, member, body))

    def clear(self) -> None:
        """Forget every request."""
        for exchange in list(self._open.values()):
            self.close(exchange)
        self._late.clear()

    def overdue(self, nonce: int, now: float) -> Sequence[DriverEffect]:
        """The deadline of an open request has come: send it again, or give it up."""
        exchange = self._open.get(nonce)
        if exchange is None:
            return ()
        effects: list[DriverEffect] = []
        if exchange.waiting:
            exchange.waiting = False
        elif exchange.purpose in (Purpose.JOIN, Purpose.LEAD, Purpose.CONFIRM):
            effects += _silent(exchange, now)
        if exchange.patience.tries is None or exchange.tries < exchange.patience.tries:
            effects += self._send_again(exchange, now)
        else:
            self._give_up(exchange, now)
        return effects

    def _send_again(self, exchange: Exchange, now: float) -> Sequence[DriverEffect]:
        exchange.tries += 1
        exchange.challenges = 0
        self._timers.set(exchange.nonce, self._patient_until(exchange, now))
        return (self._transmit(exchange, now),)

    def _patient_until(self, exchange: Exchange, now: float) -> float:
        seconds = exchange.patience.wait(exchange.tries, exchange.to.patience)
        return now + seconds * self._rng.uniform(0.9, 1.1)

    def _transmit(self, exchange: Exchange, now: float) -> Transmit:
        to, purpose = exchange.to, exchange.purpose
        exchange.sent = now
        states = to.is_server and purpose in (Purpose.LEAD, Purpose.CONFIRM)
        request = Request(
            exchange.nonce,
            to.cookie,
            self._overlay_id,
            self._attributes.digest,
            self.own,
            purpose,
            to.ticket,
            self._attributes.pairs if states else (),
            exchange.body,
        )
        return Transmit(to.contact, Kind.RENDEZVOUS, encode(request))


def _silent(exchange: Exchange, now: float) -> Sequence[DriverEffect]:
    to = exchange.to
    to.silent += 1
    if to.silent == 1:
        to.silent_since = exchange.sent
    seconds = now - to.silent_since
    # For a member it is one outage; who cannot join meanwhile wants to know that it goes on.
    keeps_out = to.is_server and exchange.purpose is Purpose.JOIN
    again = keeps_out and exchange.has_waited_long(now)
    least = OUTAGE_SECONDS if to.is_server else BUDDY_OUTAGE_SECONDS
    if (to.out and not again) or to.silent < OUTAGE or seconds < least:
        return ()
    to.out = True
    what = "rendezvous server" if to.is_server else "buddy"
    reason = f"the {what} has not answered for {seconds:.1f} s; it is asked again"
    return (Emit(ContactFailed(to.contact.endpoints[0], reason)),)


def _waits(exchange: Exchange, now: float) -> Sequence[DriverEffect]:
    to = exchange.to
    if not to.is_server or not exchange.has_waited_long(now):
        return ()
    reason = (
        "the rendezvous server answers, but has let this member wait for "
        f"{now - exchange.began:.1f} s; it is asked again"
    )
    return (Emit(ContactFailed(to.contact.endpoints[0], reason)),)
