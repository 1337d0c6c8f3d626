"""One member's search for others: servers, buddies and the multicast group at the same time.

Its one rule: that there is nobody is said only by those who could know: a server; or, where none
is configured, the silence of every buddy and of the group. Silent servers are asked for ever.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from random import Random

from attrs import define, field, frozen

from opus_socket.core.addresses import Contact
from opus_socket.core.correspondence import Correspondence, Correspondent, Exchange, Patience
from opus_socket.core.effects import Abort, DriverEffect, Emit, Kind, Role, TransmitGroup
from opus_socket.core.events import ContactFailed
from opus_socket.core.key_attributes import KeyAttributes
from opus_socket.core.rendezvous_messages import Purpose, Refusal, Reply, Verdict, goes_first
from opus_socket.core.timers import Timers
from opus_socket.errors import JoinError, RemoteProtocolError

GROUP_CALLS = 3
"""How often the multicast group is asked before its silence counts."""

MAX_ANNOUNCERS = 4
"""How many announcers one search asks."""

_SEARCHES = (Purpose.JOIN, Purpose.LEAD)


@frozen
class FinderSettings:
    """Where members may be found, and how patiently they are looked for.

    Attributes:
        servers: rendezvous servers: contacts without an address, of index `ANY_INDEX`.
        buddies: likely members, in the same form.
        multicast: whether the driver has a multicast group.
        rendezvous_period: seconds between a leader's searches.
        retry: seconds after which a silent server is asked again, sooner when it is known to
            answer faster; doubles each time.
        longest_retry: seconds; the most that it grows to.
        buddy_retry: seconds after which a silent buddy, or the group, is asked again.
        buddy_patience: seconds for which others who are joining too may go first.
        announce_gap: seconds between two announcements at least; the newest is not lost.
        heard_rate: announcements of others a second that are given to the node, at most.
    """

    servers: tuple[Contact, ...] = ()
    buddies: tuple[Contact, ...] = ()
    multicast: bool = False
    rendezvous_period: float = 2.0
    retry: float = 1.0
    longest_retry: float = 16.0
    buddy_retry: float = 0.5
    buddy_patience: float = 5.0
    announce_gap: float = 0.25
    heard_rate: float = 50.0


@define(eq=False)
class Found:
    """Contacts of members; none: whoever could know says that nobody is there."""

    contacts: tuple[Contact, ...]


SearchEffects = Sequence[DriverEffect | Found]


@define(eq=False)
class _Round:
    """What one search knows so far.

    Attributes:
        purpose: `JOIN` or `LEAD`.
        began: seconds, when it began.
        calls: how often the group is to be asked yet.
        nobody: whether a server said that nobody is there.
        found: whether members were found.
        silences: how often buddies and group were all silent.
        announcers: how many announcers were asked.
    """

    purpose: Purpose
    began: float
    calls: int
    nobody: bool = False
    found: bool = False
    silences: int = 0
    announcers: int = 0


@define(eq=False)
class Search:
    """Looks for members, again and again as the node asks for them.

    Args:
        settings: where to look.
        attributes: what members must agree on.
        asking: the open requests.
        timers: where its deadlines `group` and `silence` are kept.
        rng: draws the order of buddies.

    Attributes:
        servers: the rendezvous servers.
    """

    _settings: FinderSettings
    _attributes: KeyAttributes
    _asking: Correspondence
    _timers: Timers
    _rng: Random
    servers: tuple[Correspondent, ...] = field(init=False)
    _buddies: tuple[Correspondent, ...] = field(init=False)
    _insisting: Patience = field(init=False)
    _sparing: Patience = field(init=False)
    _once: Patience = field(init=False)
    _round: _Round | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        settings = self._settings
        self.servers = tuple(Correspondent(contact, True) for contact in settings.servers)
        self._buddies = tuple(Correspondent(contact, False) for contact in settings.buddies)
        self._insisting = Patience(settings.retry, settings.longest_retry, None)
        self._sparing = Patience(settings.buddy_retry, settings.buddy_retry, 3)
        self._once = Patience(settings.retry, settings.retry, 1)

    @property
    def joins(self) -> bool:
        """Whether it is looking for members in order to join."""
        return self._round is not None and self._round.purpose is Purpose.JOIN

    def start(self, role: Role, now: float) -> SearchEffects:
        """Look for members; a search to join that is under way just goes on."""
        if role is Role.NEW and self.joins:
            return ()
        joins = role is Role.NEW
        calls = GROUP_CALLS if joins and self._settings.multicast else 0
        self._round = _Round(Purpose.JOIN if joins else Purpose.LEAD, now, calls)
        return (
            *(effect for server in self.servers for effect in self._ask(server, now)),
            *self._ask_unsure(now),
            *self.settle(now),
        )

    def stop(self) -> None:
        """Look no more."""
        self._round = None
        for exchange in list(self._asking.open(*_SEARCHES)):
            self._asking.close(exchange)
        self._timers.cancel("group")
        self._timers.cancel("silence")

    def call_group(self, now: float) -> SearchEffects:
        """Ask the group who is there, unless it was asked often enough."""
        if self._round is None or self._round.calls == 0:
            return ()
        self._round.calls -= 1
        self._timers.set("group", now + self._settings.buddy_retry * self._rng.uniform(0.9, 1.1))
        return (TransmitGroup(Kind.RENDEZVOUS, self._asking.call(member=False)),)

    def replied(self, reply: Reply, now: float) -> SearchEffects:
        """A server or buddy replied to one of our requests."""
        exchange = self._asking.answered(reply.nonce, now)
        if exchange is None or not self._wants(exchange):
            return ()
        match reply.verdict:
            case Verdict.MEMBERS:
                return self._found(exchange.to, reply.members, now)
            case Verdict.NOBODY:
                return self._found(exchange.to, (), now)
            case Verdict.WAIT if not exchange.late and self._may_wait(exchange, now):
                return (*self._asking.ask_later(exchange, reply, now), *self.settle(now))
            case _:
                return self.settle(now)

    def refused(self, refusal: Refusal, now: float) -> SearchEffects:
        """A server or buddy belongs to an overlay with other key attributes.

        Raises:
            RemoteProtocolError: it does not say what differs.
        """
        exchange = self._asking.find(refusal.nonce, now)
        if exchange is None or not self._wants(exchange):
            return ()
        differences = self._attributes.differences(KeyAttributes.from_wire(refusal.attributes))
        if not differences:
            raise RemoteProtocolError("bad_refusal", "the key attributes are the same")
        self._asking.close(exchange)
        endpoint = exchange.to.contact.endpoints[0]
        reason = "key attributes differ: " + "; ".join(map(str, differences))
        if exchange.purpose is Purpose.JOIN:
            self.stop()
            return (Abort(JoinError(f"{endpoint} refuses this member: {reason}")),)
        if exchange.to.differs:
            return self.settle(now)
        exchange.to.differs = True
        return (Emit(ContactFailed(endpoint, reason)), *self.settle(now))

    def announced(self, member: Contact, now: float) -> SearchEffects:
        """A member made itself known, by the group or through a server: ask it."""
        search = self._round
        if search is None or not self.joins or search.announcers == MAX_ANNOUNCERS:
            return ()
        if any(exchange.to.contact == member for exchange in self._asking.open(Purpose.JOIN)):
            return ()
        search.announcers += 1
        return self._ask(Correspondent(member, False), now)

    def called(self, joiner: Contact, now: float) -> None:
        """Another joiner asks the group. One lets the other go first, so that of joiners who
        start together one becomes the founder.
        """
        search = self._round
        if search is None or self._timers.when("group") == inf:
            return
        patient = now < search.began + self._settings.buddy_patience
        if patient and goes_first(joiner, self._asking.own):
            search.calls = GROUP_CALLS

    def met_itself(self, nonce: int, now: float) -> SearchEffects:
        """A buddy turned out to be this very member."""
        return () if self._asking.answered(nonce, now) is None else self.settle(now)

    def settle(self, now: float) -> SearchEffects:
        """Conclude when everybody who could say something has said it, or was silent."""
        search = self._round
        if search is None or self._timers.when("group") < inf:
            return ()
        pending = self._asking.open(search.purpose)
        if any(exchange.is_first or not exchange.to.is_server for exchange in pending):
            return ()
        if search.found or search.nobody or not self.servers:
            self.stop()
            return () if search.found else (Found(()),)
        if search.purpose is Purpose.LEAD:
            self.stop()
        elif (self._buddies or self._settings.multicast) and self._timers.when("silence") == inf:
            search.silences += 1
            self._timers.set("silence", now + self._insisting.wait(search.silences))
        return ()

    def ask_again(self, now: float) -> SearchEffects:
        """No server has answered, and buddies and group were silent for a while: ask them again."""
        if self._round is None:
            return ()
        self._round.announcers = 0
        self._round.calls = GROUP_CALLS if self._settings.multicast else 0
        return self._ask_unsure(now)

    def _ask_unsure(self, now: float) -> SearchEffects:
        """Ask those whose silence counts: the buddies in random order, and the group."""
        buddies = self._rng.sample(self._buddies, len(self._buddies))
        asked = [effect for buddy in buddies for effect in self._ask(buddy, now)]
        return (*asked, *self.call_group(now))

    def _ask(self, to: Correspondent, now: float) -> SearchEffects:
        if not self.joins:
            return self._asking.ask(to, Purpose.LEAD, self._once, now)
        patience = self._insisting if to.is_server else self._sparing
        return self._asking.ask(to, Purpose.JOIN, patience, now)

    def _wants(self, exchange: Exchange) -> bool:
        """Whether an answer is one to what is looked for now. One that comes when a leader's search
        is over may name another fragment all the same.
        """
        return exchange.purpose is (Purpose.JOIN if self.joins else Purpose.LEAD)

    def _may_wait(self, exchange: Exchange, now: float) -> bool:
        """Servers may let us wait for as long as they like; buddies are joining themselves."""
        if exchange.to.is_server:
            return True
        patient = now < exchange.began + self._settings.buddy_patience
        return patient and self.joins

    def _found(self, to: Correspondent, members: Sequence[Contact], now: float) -> SearchEffects:
        search, own = self._round, self._asking.own
        others = tuple(contact for contact in members if not contact.same_member(own))
        if search is None:
            return (Found(others),) if others else ()
        if not others:
            search.nobody |= to.is_server
            return self.settle(now)
        search.found = True
        if search.purpose is Purpose.JOIN:
            self.stop()
        return (Found(others), *self.settle(now))
