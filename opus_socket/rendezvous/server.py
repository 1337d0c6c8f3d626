"""The rendezvous server as a machine: protocol-blind, bounded, live-checked.

Its one rule: cookie before anything else. Until a sender has shown that it receives what is sent
to it, nothing is kept for it and it is sent no more bytes than it sent. Source: the server method
of HyperCast's Delaunay protocol (Liebeherr, Nahas, Si, JSAC 2002); the bounds are ours.

    JOIN      members exist   -> admitted: up to 16, half of them near; else "wait" and a ticket
              nobody exists   -> "nobody" for the first, who is to be the founder; else "wait"
    LEAD      remembered at once as a confirmed member and leader; answered with other leaders
    CONFIRM   remembered; the place in the admission window is free again
    LEAVE     forgotten
    ANNOUNCE  sent on to at most 64 who joined or led within the last 10 seconds

A server that has just been started knows nobody and says so at once. If members of an overlay
are alive, a joiner that comes before their leader asks again (every 2 seconds) founds a fragment
of its own, and the two leaders then find each other here and merge. To let every first member
of a new overlay wait instead would be slower, and no safer: the leader may be cut off for longer.

Members with other key attributes are an overlay of their own here, so that whoever comes first
after a restart cannot shut the others out. Only a joiner whose attributes nobody shares, while
others are there under the same ID, is refused, and told theirs.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from math import inf
from random import Random

from attrs import define, field, fields, frozen

from opus_socket.core.addresses import Contact, OverlayID
from opus_socket.core.cookies import Cookies
from opus_socket.core.effects import Kind, Transmit
from opus_socket.core.key_attributes import KeyAttributes
from opus_socket.core.rendezvous_messages import (
    Announcement,
    CachePing,
    CachePong,
    Challenge,
    Message,
    Purpose,
    Refusal,
    Reply,
    Request,
    Verdict,
    decode,
    encode,
)
from opus_socket.errors import RemoteProtocolError
from opus_socket.rendezvous.admission import LONGEST_WAIT, Admission
from opus_socket.rendezvous.cache import Cache, Member
from opus_socket.rendezvous.table import OverlayTable

PINGS = 6
"""How many pings in a row a member may leave unanswered, two a rendezvous period: under 10 % loss
fewer would forget the living."""

CHECKS_A_WAKE = 64
WAKE_GAP = 0.05
"""Pings are spread: at most 64 in 50 ms, whatever the number of members."""

SWEEP_SOON = 1.0
"""Seconds until overlays that everybody left are looked for, when there are too many."""

LISTENERS = 64
"""To how many an announcement is sent on."""


@frozen
class ServerSettings:
    """Bounds and periods of a server.

    Attributes:
        overlays: how many overlays are remembered at most.
        members: how many members of all overlays together.
        sample: how many confirmed members of one overlay.
        leaders: how many leaders of one overlay besides.
        recent: how many joiners and leaders of one overlay announcements are for.
        joiners: how many join one overlay at the same time.
        rendezvous_period: seconds between a leader's requests.
        admission_expiry: seconds after which an admitted joiner is no longer waited for.
        announcements: how many a second are sent on in one overlay.
    """

    overlays: int = 1024
    members: int = 65_536
    sample: int = 256
    leaders: int = 256
    recent: int = 256
    joiners: int = 4096
    rendezvous_period: float = 2.0
    admission_expiry: float = 5.0
    announcements: float = 20.0

    @property
    def entry_expiry(self) -> float:
        """Seconds without a word after which a member is forgotten: five periods."""
        return 5 * self.rendezvous_period


@frozen
class ServerStatistics:
    """What a server has done, and what it knows.

    Attributes:
        overlays: remembered now.
        members: remembered now, of all overlays.
        joining: admitted and not confirmed now.
        requests: how many came.
        challenges: how many were answered by a cookie.
        admitted: joiners that were told members, or that there is nobody.
        founders: those of them that were told that there is nobody.
        waiting: how often a joiner was told to wait.
        refused: requests with other key attributes.
        confirmed: confirmations.
        announcements: sent on.
        announcements_dropped: not sent on, because there were too many.
        pings: sent.
        failed: members forgotten because they did not answer.
        overflows: what was not remembered because a bound was reached.
        displaced: overlays forgotten to make room for those of others.
        extra_fields: elements of messages that this version does not know.
    """

    overlays: int
    members: int
    joining: int
    requests: int
    challenges: int
    admitted: int
    founders: int
    waiting: int
    refused: int
    confirmed: int
    announcements: int
    announcements_dropped: int
    pings: int
    failed: int
    overflows: int
    displaced: int
    extra_fields: int


@define(eq=False)
class ServerTransmit(Transmit):
    """A `Transmit` of a server, which belongs to no overlay of its own.

    Attributes:
        tag: of the overlay that it concerns, for the datagram's header.
    """

    tag: int


ServerEffects = Sequence[ServerTransmit]


@define(eq=False)
class RendezvousServer:
    """Introduces the members of any number of overlays to each other.

    Args:
        rng: draws samples, nonces and jitter.
        secret: up to 32 bytes that nobody else knows, for cookies.
        settings: bounds and periods.

    Attributes:
        next_deadline: when it wants to be woken, in seconds; inf for never.
    """

    _rng: Random
    _secret: bytes
    _settings: ServerSettings = ServerSettings()
    next_deadline: float = field(default=inf, init=False)
    _cookies: Cookies = field(init=False)
    _overlays: OverlayTable = field(init=False)
    _checks: list[tuple[float, int, Cache, Member]] = field(factory=list, init=False)
    _pinged: dict[int, Member] = field(factory=dict, init=False)
    _pushed: int = field(default=0, init=False)
    _sweep_at: float = field(default=inf, init=False)
    _counts: Counter[str] = field(factory=Counter, init=False)

    def __attrs_post_init__(self) -> None:
        self._cookies = Cookies(self._secret)
        self._overlays = OverlayTable(self._settings.overlays)

    def statistics(self) -> ServerStatistics:
        """What it has done, and what it knows."""
        caches = list(self._overlays)
        now = {
            "overlays": len(caches),
            "members": sum(len(cache.members) for cache in caches),
            "joining": sum(len(cache.admission) for cache in caches),
        }
        names = [f.name for f in fields(ServerStatistics)]
        return ServerStatistics(*(now.get(name, self._counts[name]) for name in names))

    def receive(self, body: bytes, sender: Contact, now: float) -> ServerEffects:
        """A message of kind 4 came.

        Args:
            body: of the datagram.
            sender: its endpoint and index, and nothing else.
            now: seconds.

        Raises:
            RemoteProtocolError: malformed, or nothing that a server is sent.
        """
        match message := decode(body, self._counts):
            case Request():
                self._counts["requests"] += 1
                if self._cookies.know(message.cookie, sender, now):
                    return self._on_request(message, sender, now)
                return self._challenge(message, len(body), sender, now)
            case CachePong(nonce=nonce):
                member = self._pinged.get(nonce)
                if member is not None and member.sender == sender:
                    del self._pinged[nonce]
                    member.heard, member.pings = now, 0
                return ()
            case _:
                raise RemoteProtocolError("unexpected", type(message).__name__)

    def wake(self, now: float) -> ServerEffects:
        """The deadline has come: ask members whether they are still there, and clear up."""
        effects: list[ServerTransmit] = []
        for _ in range(CHECKS_A_WAKE):
            if not self._checks or self._checks[0][0] > now:
                break
            _, _, cache, member = heapq.heappop(self._checks)
            if cache.members.get(member.sender) is member:
                effects += self._check(cache, member, now)
            elif self._pinged.get(member.nonce) is member:
                del self._pinged[member.nonce]
        if now >= self._sweep_at:
            self._sweep(now)
        soonest = self._checks[0][0] if self._checks else inf
        self.next_deadline = min(max(soonest, now + WAKE_GAP), self._sweep_at)
        return effects

    def _on_request(self, request: Request, sender: Contact, now: float) -> ServerEffects:
        match request.purpose:
            case Purpose.JOIN:
                return self._on_join(request, sender, now)
            case Purpose.LEAD:
                return self._on_lead(request, sender, now)
            case Purpose.CONFIRM:
                self._counts["confirmed"] += 1
                self._note(request, sender, 0.0, now)
                return _send(request, sender, Reply(request.nonce, Verdict.NOTED, 0, 0, (), 0))
            case Purpose.LEAVE:
                cache = self._find(request)
                if cache is not None:
                    cache.admission.give_up(sender)
                    cache.left(sender)
                    cache.recent.pop(sender, None)
                return ()
            case _:
                return self._on_announce(request, sender, now)

    def _challenge(
        self, request: Request, length: int, sender: Contact, now: float
    ) -> ServerEffects:
        self._counts["challenges"] += 1
        challenge = Challenge(request.nonce, self._cookies.bake(sender, now))
        # A request carries far more than a cookie; this holds whatever they may become.
        return _send(request, sender, challenge) if len(encode(challenge)) <= length else ()

    def _on_join(self, request: Request, sender: Contact, now: float) -> ServerEffects:
        cache = self._find(request)
        if cache is None or cache.is_empty:
            others = self._overlays.alike(request.overlay).values()
            for other in others:
                if other.size and other.attributes is not None:
                    self._counts["refused"] += 1
                    return _send(request, sender, Refusal(request.nonce, other.attributes))
            if any(not other.is_empty for other in others):
                return self._wait(request, sender, 0, LONGEST_WAIT / 8)
        cache = cache or self._make(request, sender, now)
        if cache is None:
            return self._wait(request, sender, 0, LONGEST_WAIT)
        cache.asked = now
        cache.register(sender, self._settings.recent, now)
        member = cache.members.get(sender)
        is_member = member is not None and member.contact.incarnation == request.source.incarnation
        if member is not None and not is_member:
            cache.left(sender)
        admission = cache.admission
        if not is_member and not admission.admit(sender, request.ticket, cache.size, now):
            return self._wait(
                request, sender, *admission.wait(request.ticket, cache.size, self._rng, now)
            )
        told = cache.tell_joiner(sender, request.source.address)
        self._counts["admitted"] += 1
        self._counts["founders"] += not told
        return self._introduce(request, sender, told, now)

    def _on_lead(self, request: Request, sender: Contact, now: float) -> ServerEffects:
        cache = self._note(request, sender, now + self._settings.entry_expiry, now)
        if cache is None:
            return self._introduce(request, sender, (), now)
        cache.register(sender, self._settings.recent, now)
        told = cache.tell_leader(sender, now)
        return self._introduce(request, sender, told, now)

    def _on_announce(self, request: Request, sender: Contact, now: float) -> ServerEffects:
        cache = self._find(request)
        if cache is None or not request.body:
            return ()
        cache.announced = max(cache.announced, now - 1.0)
        if cache.announced >= now:
            self._counts["announcements_dropped"] += 1
            return ()
        cache.announced += 1.0 / self._settings.announcements
        self._counts["announcements"] += 1
        # Not marked as a member's: joiners would ask it, and pass by the admission window.
        announcement = encode(
            Announcement(request.overlay, request.digest, request.source, False, request.body)
        )
        since = now - self._settings.entry_expiry
        return [
            ServerTransmit(listener, Kind.RENDEZVOUS, announcement, cache.tag)
            for listener in cache.listeners(sender, since, LISTENERS)
        ]

    def _note(
        self, request: Request, sender: Contact, leads_until: float, now: float
    ) -> Cache | None:
        """Remember a confirmed member, if there is room for it."""
        attributes = KeyAttributes.from_wire(request.attributes)
        if attributes.digest != request.digest:
            raise RemoteProtocolError("bad_attributes", "not those of the digest")
        cache = self._find(request) or self._make(request, sender, now)
        if cache is None:
            return None
        cache.asked = now
        cache.attributes = attributes.pairs
        joined = cache.admission.confirm(sender, now)
        if sender not in cache.members and len(self._checks) >= self._settings.members:
            self._counts["overflows"] += 1
            return cache
        member = cache.note(sender, request.source, leads_until, now, joined=joined)
        if member is not None:
            self._check_at(now + 2 * self._settings.rendezvous_period, cache, member)
        return cache

    def _introduce(
        self, request: Request, sender: Contact, told: Sequence[Member], now: float
    ) -> ServerEffects:
        verdict = Verdict.MEMBERS if told else Verdict.NOBODY
        leaders = sum(1 << i for i, member in enumerate(told) if member.leads_until > now)
        members = tuple([member.contact for member in told])
        return _send(request, sender, Reply(request.nonce, verdict, 0, 0, members, leaders))

    def _wait(
        self, request: Request, sender: Contact, ticket: int, seconds: float
    ) -> ServerEffects:
        self._counts["waiting"] += 1
        milliseconds = round(seconds * 1000)
        return _send(
            request, sender, Reply(request.nonce, Verdict.WAIT, milliseconds, ticket, (), 0)
        )

    def _find(self, request: Request) -> Cache | None:
        return self._overlays.find(request.overlay, request.digest)

    def _make(self, request: Request, sender: Contact, now: float) -> Cache | None:
        """A new overlay, if there is room for one of this sender."""
        settings = self._settings
        was = len(self._overlays)
        has_room = self._overlays.has_room(sender)
        self._counts["displaced"] += was - len(self._overlays)
        if not has_room:
            self._counts["overflows"] += 1
            # There may be room after the next sweep; a flood must not buy one with each request.
            self._sweep_at = min(self._sweep_at, now + SWEEP_SOON)
            self.next_deadline = min(self.next_deadline, self._sweep_at)
            return None
        cache = Cache(
            _tag(request.overlay),
            Admission(settings.admission_expiry, settings.joiners),
            settings.sample,
            settings.leaders,
            self._rng,
        )
        self._overlays.add(request.overlay, request.digest, cache, sender)
        if self._sweep_at == inf:
            self._sweep_at = now + settings.entry_expiry
            self.next_deadline = min(self.next_deadline, self._sweep_at)
        return cache

    def _check(self, cache: Cache, member: Member, now: float) -> ServerEffects:
        """Ask a member that was not heard for a while, or forget it."""
        period = self._settings.rendezvous_period
        if not member.sampled and member.leads_until <= now:
            cache.retire(member)
            return ()
        if member.heard + 2 * period > now:
            self._check_at(member.heard + 2 * period, cache, member)
            return ()
        self._pinged.pop(member.nonce, None)
        if member.pings == PINGS:
            self._counts["failed"] += 1
            cache.failed(member)
            return ()
        while (nonce := self._rng.getrandbits(32)) in self._pinged:
            pass
        self._pinged[nonce] = member
        member.nonce = nonce
        member.pings += 1
        self._counts["pings"] += 1
        self._check_at(now + period / 2, cache, member)
        ping = encode(CachePing(nonce))
        return (ServerTransmit(member.sender, Kind.RENDEZVOUS, ping, cache.tag),)

    def _check_at(self, when: float, cache: Cache, member: Member) -> None:
        self._pushed += 1
        heapq.heappush(self._checks, (when, self._pushed, cache, member))
        self.next_deadline = min(self.next_deadline, when)

    def _sweep(self, now: float) -> None:
        """Forget overlays that nobody is in or on the way to."""
        for cache in self._overlays:
            cache.expire(now - self._settings.entry_expiry, now)
        self._overlays.discard(lambda cache: cache.is_empty)
        self._sweep_at = now + self._settings.entry_expiry if self._overlays else inf


def _send(request: Request, sender: Contact, message: Message) -> ServerEffects:
    return (ServerTransmit(sender, Kind.RENDEZVOUS, encode(message), _tag(request.overlay)),)


@lru_cache(maxsize=1024)
def _tag(overlay: str) -> int:
    return OverlayID(overlay).tag
