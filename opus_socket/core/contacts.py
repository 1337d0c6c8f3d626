"""The contact finder: every way of finding members behind `find` and `announce`.

Its one rule: rendezvous servers, the multicast group and the buddy list work at the same time, in
any combination, and whoever answers first with members ends a joiner's search. That there is
nobody is said only by those who could know: a server; or, where none is configured, the silence
of every buddy and of the group.

Founders by mistake are harmless: leaders keep looking, and merge. Source: the rendezvous methods
of HyperCast's Delaunay protocol (Liebeherr, Nahas, Si, JSAC 2002): by broadcast announcement, by
server, by buddy list.

    find(NEW) -> ask servers, buddies, group -> members           -> Found(contacts)
                                             -> "wait"            -> ask again a little later
                                             -> "nobody", silence -> Found(())
    first update(stable=True) -> confirm to the servers, answer others from now on
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from math import inf
from random import Random

from attrs import define, fields, frozen

from opus_socket.core.addresses import Contact, OverlayID
from opus_socket.core.answering import Answerer
from opus_socket.core.correspondence import Correspondence, Patience
from opus_socket.core.effects import DriverEffect, Kind, Role, Transmit, TransmitGroup
from opus_socket.core.key_attributes import KeyAttributes
from opus_socket.core.rendezvous_messages import (
    MAX_ANNOUNCEMENT,
    Announcement,
    CachePing,
    CachePong,
    Challenge,
    Purpose,
    Refusal,
    Reply,
    Request,
    decode,
    encode,
)
from opus_socket.core.search import FinderSettings, Found, Search
from opus_socket.core.timers import Timers
from opus_socket.errors import LocalProtocolError, RemoteProtocolError

__all__ = [
    "ContactFinder",
    "FinderEffect",
    "FinderEffects",
    "FinderSettings",
    "FinderStatistics",
    "Found",
    "Heard",
]


CONFIRM_TRIES = 8
"""How often a server is told of a confirmed member before its silence is accepted."""


@define(eq=False)
class Heard:
    """A protocol message that a member announced, to be given to the node."""

    body: bytes
    sender: Contact


FinderEffect = DriverEffect | Found | Heard
FinderEffects = Sequence[FinderEffect]


@frozen
class FinderStatistics:
    """What a contact finder has done.

    Attributes:
        searches: how often members were looked for.
        found: how many contacts came of it.
        answered: requests of others that were answered with members.
        challenged: requests of others that showed no valid cookie.
        announced: announcements made here.
        heard: announcements of others that were given to the node.
        unheard: announcements of others that were too many, or of another overlay's attributes.
        extra_fields: elements of messages that this version does not know.
    """

    searches: int
    found: int
    answered: int
    challenged: int
    announced: int
    heard: int
    unheard: int
    extra_fields: int


class ContactFinder:
    """Finds members for one node, and helps others to find it.

    Args:
        overlay_id: the overlay.
        attributes: what its members must agree on.
        settings: where to look.
        rng: draws nonces, the secret of cookies, jitter and the order of buddies.
    """

    def __init__(
        self,
        overlay_id: OverlayID,
        attributes: KeyAttributes,
        settings: FinderSettings,
        rng: Random,
    ) -> None:
        self._overlay_id = overlay_id
        self._attributes = attributes
        self._settings = settings
        self._timers = Timers()
        self._counts: Counter[str] = Counter()
        self._asking = Correspondence(overlay_id, attributes, rng, self._timers)
        self._search = Search(settings, attributes, self._asking, self._timers, rng)
        self._answerer = Answerer(overlay_id, attributes, settings.buddies, rng, self._counts)
        self._neighbors: Sequence[Contact] = ()
        self._left = True
        self._leads_until = -inf
        self._once = Patience(settings.retry, settings.retry, 1)
        self._announcement = b""
        self._quiet_until = -inf
        self._hearing = -inf

    @property
    def next_deadline(self) -> float:
        """When it wants to be woken, in seconds; inf for never."""
        return self._timers.earliest

    def statistics(self) -> FinderStatistics:
        """What it has done so far."""
        return FinderStatistics(*(self._counts[f.name] for f in fields(FinderStatistics)))

    def begin(self, contact: Contact, now: float) -> FinderEffects:
        """This member is about to join, or to join again, with this contact of its own."""
        self._timers.clear()
        self._asking.clear()
        self._search.stop()
        self._asking.source = contact
        self._neighbors = ()
        self._answerer.confirmed = self._left = False
        self._leads_until = now
        return ()

    def find(self, role: Role, now: float) -> FinderEffects:
        """Look for members.

        A joiner's search goes on until `Found`, and asking again while it does changes nothing.
        For a leader each server and buddy is asked once, and whoever answers is `Found`. Who was
        never stable cannot lead and is looked after as a joiner.

        Raises:
            LocalProtocolError: before `begin`.
        """
        if self._is_silent():
            return ()
        if role is Role.LEADER and self._answerer.confirmed:
            self._leads(now)
        else:
            role = Role.NEW
            self._answerer.confirmed = False
        self._counts["searches"] += 1
        return self._count(self._search.start(role, now), now)

    def announce(self, body: bytes, now: float) -> FinderEffects:
        """Make a protocol message known to the group and, through servers, to new members and
        leaders. Of announcements that come too fast only the newest is made. Through a server
        that still lets this member wait to join none is made: it would pass by the queue.

        Raises:
            LocalProtocolError: the message is too long, or before `begin`.
        """
        if self._is_silent():
            return ()
        if len(body) > MAX_ANNOUNCEMENT:
            raise LocalProtocolError(
                f"an announcement of {len(body)} bytes; {MAX_ANNOUNCEMENT} are allowed"
            )
        self._announcement = body
        if now < self._quiet_until:
            self._timers.set("announce", self._quiet_until)
            return ()
        return self._announce(now)

    def update(
        self, contact: Contact, neighbors: Sequence[Contact], stable: bool, now: float
    ) -> FinderEffects:
        """What the node knows now; called whenever its version changes.

        Once it is stable it is a confirmed member: the servers are told, and from now on it
        answers others. They are told again when its contact changes.
        """
        if self._left:
            return ()
        moved = contact is not self._asking.source and contact != self._asking.source
        self._asking.source = contact
        self._neighbors = neighbors
        if not (moved if self._answerer.confirmed else stable):
            return ()
        self._answerer.confirmed = True
        if self._search.joins:
            # It joined by an announcement while a server let it wait; asking on would take a place
            # among those whom the server admits, and never give it back.
            self._search.stop()
        patience = Patience(self._settings.retry, self._settings.longest_retry, CONFIRM_TRIES)
        return self._tell(Purpose.CONFIRM, patience, now)

    def leave(self, now: float) -> FinderEffects:
        """Tell the servers, as best effort, and be silent from now on."""
        if self._left:
            return ()
        self._search.stop()
        self._asking.clear()
        effects = self._tell(Purpose.LEAVE, self._once, now)
        self._timers.clear()
        self._left = True
        return effects

    def receive(self, body: bytes, sender: Contact, now: float) -> FinderEffects:
        """A message of kind 4 came.

        Raises:
            RemoteProtocolError: malformed, for another overlay, or not for members.
        """
        message = decode(body, self._counts)
        if isinstance(message, Challenge):
            return self._asking.challenged(message, now)
        if self._left:
            return ()
        match message:
            case Reply():
                return self._count(self._search.replied(message, now), now)
            case Refusal():
                return self._count(self._search.refused(message, now), now)
            case Request(source=source) if source.same_member(self._asking.own):
                return self._count(self._search.met_itself(message.nonce, now), now)
            case Request():
                return self._answerer.answer(
                    message, len(body), sender, self._asking.own, self._neighbors, now
                )
            case Announcement():
                return self._on_announcement(message, len(body), sender, now)
            case CachePing(nonce=nonce):
                pong = Transmit(sender, Kind.RENDEZVOUS, encode(CachePong(nonce)))
                return (pong,) if self._answerer.confirmed else ()
            case CachePong():
                raise RemoteProtocolError("unexpected", "a member keeps no cache")

    def wake(self, now: float) -> FinderEffects:
        """The deadline has come."""
        effects: list[FinderEffect] = []
        for name in self._timers.due(now):
            if name == "announce":
                effects += self._announce(now)
            elif name == "group":
                effects += self._search.call_group(now)
            elif name == "silence":
                effects += self._search.ask_again(now)
            elif isinstance(name, int):
                effects += self._asking.overdue(name, now)
        effects += self._count(self._search.settle(now), now)
        return effects

    def _is_silent(self) -> bool:
        """Whether it has left.

        Raises:
            LocalProtocolError: it has not begun.
        """
        if self._asking.source is None:
            raise LocalProtocolError("the contact finder has not begun; call begin() first")
        return self._left

    def _leads(self, now: float) -> None:
        self._leads_until = now + 5 * self._settings.rendezvous_period

    def _count(self, effects: Sequence[DriverEffect | Found], now: float) -> FinderEffects:
        for effect in effects:
            if isinstance(effect, Found):
                self._counts["found"] += len(effect.contacts)
                if not effect.contacts:
                    # A founder answers joiners in the group before it first looks as a leader.
                    self._leads(now)
        return effects

    def _tell(self, purpose: Purpose, patience: Patience, now: float) -> FinderEffects:
        """The same request to every server."""
        return [
            effect
            for server in self._search.servers
            for effect in self._asking.ask(server, purpose, patience, now)
        ]

    def _announce(self, now: float) -> FinderEffects:
        self._quiet_until = now + self._settings.announce_gap
        self._counts["announced"] += 1
        asked = [exchange.to for exchange in self._asking.open(Purpose.JOIN)]
        told = [
            effect
            for server in self._search.servers
            if server not in asked
            for effect in self._asking.ask(
                server, Purpose.ANNOUNCE, self._once, now, self._announcement
            )
        ]
        if not self._settings.multicast:
            return told
        member = self._answerer.confirmed
        body = self._asking.announcement(self._announcement, member=member)
        return (*told, TransmitGroup(Kind.RENDEZVOUS, body))

    def _on_announcement(
        self, message: Announcement, length: int, sender: Contact, now: float
    ) -> FinderEffects:
        if message.overlay != self._overlay_id:
            raise RemoteProtocolError("other_overlay", message.overlay)
        source = message.source
        if source.same_member(self._asking.own):
            return ()
        effects: list[FinderEffect] = []
        if message.member:
            # Asked even when its key attributes differ: it tells in what.
            effects += self._search.announced(source, now)
        elif not message.body and not self._answerer.confirmed:
            self._search.called(source, now)
        elif not message.body and now < self._leads_until:
            answer = self._asking.call(member=True)
            if len(answer) <= length:
                effects.append(Transmit(sender, Kind.RENDEZVOUS, answer))
        if message.body and self._may_hear(message, now):
            effects.append(Heard(message.body, source))
        return effects

    def _may_hear(self, message: Announcement, now: float) -> bool:
        """A bucket that holds one second's worth of announcements."""
        self._hearing = max(self._hearing, now - 1.0)
        heard = message.digest == self._attributes.digest and self._hearing < now
        if heard:
            self._hearing += 1.0 / self._settings.heard_rate
        self._counts["heard" if heard else "unheard"] += 1
        return heard
