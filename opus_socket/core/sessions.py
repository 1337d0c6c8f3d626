"""Sessions: what passes here of each source, and what happens when it breaks off.

Its one rule: a session breaks where its upstream is lost and nobody else brings it, and nowhere
else. A session is what one member sends to all, by multicast or flood, in one traffic class. It
needs no set-up and no heartbeat: the duplicate windows know for each such lane who brought it last
(its upstream), whether somebody else does, too, and when. Its downstream is its route from there.

When an adapter fails, `link_watch` finds a neighbor silent, or the node has given one up, each
session that it brought lately is looked at, a quarter of a second later: a goodbye may be on its
way beside the end of its connection, others take the place of who has left, and a neighbor that has
brought something since then is not lost. If another neighbor brought the session within the last
seconds, or the node has another parent for its source by now, that one is the upstream from now on,
and nobody is told. Else the session is broken: the application gets `SourceBroken`, and the message
`BrokenSource` goes to the session's downstream, where the same is decided in turn. So the news runs
down exactly as far as members are cut off, and other sessions never hear of it. When something new
comes again, whoever brings it, the application gets `SourceRestored`.

`BrokenSource` is said three times, a second apart, because links may be datagrams. From a neighbor
that is not the session's upstream it is counted and ignored; about a broken session it says nothing
new.

Source: iOverlay's domino effect on the failure of an upstream node (Li, Guo, Wang, Middleware 2004,
section 2).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from math import inf
from typing import ClassVar

from attrs import define, field, frozen

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.dispatch import ForService
from opus_socket.core.duplicates import NOBODY, Window
from opus_socket.core.effects import Emit
from opus_socket.core.engine import ForwardingEngine
from opus_socket.core.events import SourceBroken, SourceRestored
from opus_socket.core.node import Mode, Node
from opus_socket.core.origin import FOR_ALL
from opus_socket.core.service import Originate, service_id
from opus_socket.core.wire import U16, U64, Codec, ProtocolMessage
from opus_socket.errors import RemoteProtocolError

SESSIONS = service_id("opus_socket.sessions")
"""The service id that `BrokenSource` carries."""

LIFETIME = 15.0
"""Seconds after its last message until a session counts as over. A silent upstream is found out
within nine.
"""

RECENT = 5.0
"""Seconds for which a neighbor that brought a session counts as another upstream."""

GRACE = 0.25
"""Seconds from the failure of a link to the end of its sessions."""

TOLD = 3
"""How often `BrokenSource` is said."""

_FLOWS_EACH = 16
_MODES = tuple(Mode)


@define(eq=False)
class BrokenSource(ProtocolMessage):
    """The lanes (incarnation and number) that will come no more from this neighbor."""

    code: ClassVar[int] = 1
    lanes: tuple[tuple[U64, U16], ...]


_CODEC = Codec((BrokenSource,))


@frozen
class SessionStatistics:
    """Figures of a lane: what one member sends in one mode and traffic class, as it passes here.

    Attributes:
        source: who sends.
        incarnation: of the sender.
        mode, traffic_class: how.
        upstream: the neighbor that brings it; None when it is not known, or lost.
        messages, size: what came, each message once, and bytes of their frames.
        missing: messages between the first and the last that have not come; None for a mode in
            which only some of them come here.
        messages_per_second, bytes_per_second: in the last second of which there are figures.
    """

    source: LogicalAddress
    incarnation: int
    mode: Mode
    traffic_class: int
    upstream: LogicalAddress | None
    messages: int
    size: int
    missing: int | None
    messages_per_second: float
    bytes_per_second: float


@define(eq=False)
class _Session:
    """One lane and its window."""

    incarnation: int
    lane: int
    window: Window

    @property
    def mode(self) -> Mode:
        """How its messages are delivered."""
        return _MODES[self.lane & 3]

    @property
    def source(self) -> LogicalAddress:
        """Who sends."""
        return LogicalAddress.from_wire(self.window.source)


@define(eq=False)
class _Rate:
    """A lane's figures at the last look, and what came in the time before it."""

    count: int
    size: int
    at: float
    messages: float = 0.0
    bytes: float = 0.0


@define(eq=False)
class _Broken:
    """A broken session, for as long as its downstream is told."""

    session: _Session
    downstream: tuple[LogicalAddress, ...]
    left: int = TOLD - 1


@define(eq=False)
class _Doubt:
    """A neighbor that may be lost: since when, and whether the node counts it as one no more."""

    since: float
    gone: bool = False


SessionEffects = Sequence[Originate | Emit]


@define(eq=False)
class Sessions:
    """What passes at one member.

    Args:
        engine: whose windows these are.
        node: says who is downstream, and which parent a source has.
    """

    engine: ForwardingEngine
    node: Node
    _rates: dict[tuple[int, int], _Rate] = field(factory=dict, init=False)
    _broken: dict[tuple[int, int], _Broken] = field(factory=dict, init=False)
    _doubts: dict[LogicalAddress, _Doubt] = field(factory=dict, init=False)
    _counts: Counter[str] = field(factory=Counter, init=False)

    @property
    def busy(self) -> bool:
        """Whether `look` has something to do though nothing came."""
        return bool(self._broken)

    def brought_by(self, neighbor: LogicalAddress, now: float) -> bool:
        """Whether a session that is not over has this upstream."""
        return any(session.window.via == neighbor for session in self._live(now))

    @property
    def next_deadline(self) -> float:
        """When it wants to be woken, in seconds; inf for never."""
        return min(doubt.since for doubt in self._doubts.values()) + GRACE if self._doubts else inf

    def link_failed(self, neighbor: LogicalAddress, now: float) -> None:
        """The way to a neighbor has failed. More is said when it is sure."""
        if len(self.engine.windows):
            self._doubts.setdefault(neighbor, _Doubt(now))

    def gone(self, neighbor: LogicalAddress, now: float) -> None:
        """Somebody is no neighbor any more, as the node says: it has failed, it has left, or others
        have come between. What it sent itself is not broken by that.
        """
        if len(self.engine.windows):
            self._doubts.setdefault(neighbor, _Doubt(now)).gone = True

    def wake(self, now: float) -> SessionEffects:
        """The deadline has come: whoever is doubted and has brought nothing since is lost."""
        effects: list[Originate | Emit] = []
        neighbors = {contact.address for contact in self.node.neighbors}
        for neighbor, doubt in list(self._doubts.items()):
            if doubt.since + GRACE > now:
                continue
            del self._doubts[neighbor]
            if doubt.gone and neighbor in neighbors:
                continue
            mine = [
                session
                for session in self._live(now)
                if session.window.via == neighbor
                and session.window.used <= doubt.since
                and not (doubt.gone and session.source == neighbor)
            ]
            effects += self._break(mine, neighbor, now)
        return effects

    def receive(self, message: ForService, now: float) -> SessionEffects:
        """A neighbor says that sessions of which it is the upstream are broken.

        Raises:
            RemoteProtocolError: malformed, or about a session that it does not bring.
        """
        body = _CODEC.decode(message.message.payload, self._counts)
        neighbor = message.arrived_from
        if neighbor is None or message.message.source != neighbor:
            raise RemoteProtocolError("not_upstream", "not from a neighbor")
        assert isinstance(body, BrokenSource), "the only message of the codec"
        hit, wrong = [], 0
        for incarnation, lane in body.lanes:
            window = self.engine.windows.find(incarnation, lane)
            if window is not None and _is_session(lane) and window.via == neighbor:
                hit.append(_Session(incarnation, lane, window))
            elif window is not None and window.other == neighbor:
                window.other = None
            elif window is None or window.via is not NOBODY:
                wrong += 1
        effects = self._break(hit, neighbor, now)
        if wrong and not hit:
            raise RemoteProtocolError("not_upstream", f"of {wrong} sessions")
        return effects

    def look(self, now: float) -> SessionEffects:
        """Once a second while anything passes: note rates, say what is broken or came again."""
        windows = self.engine.windows
        seen: dict[tuple[int, int], _Rate] = {}
        for incarnation, lane, window in windows.since(now - LIFETIME):
            key = incarnation, lane
            before = self._rates.get(key)
            rate = seen[key] = _Rate(window.count, window.size, now)
            if before is not None and now > before.at:
                rate.messages = (window.count - before.count) / (now - before.at)
                rate.bytes = (window.size - before.size) / (now - before.at)
        self._rates = seen
        restored = {
            LogicalAddress.from_wire(window.source): window.via
            for window in windows.regained.values()
            if window.via is not NOBODY
        }
        windows.regained.clear()
        events = [Emit(SourceRestored(source, via)) for source, via in restored.items()]
        return [*events, *self._repeat()]

    def end(self) -> None:
        """This member leaves: nobody is told any more."""
        self._broken.clear()
        self._doubts.clear()

    def statistics(self) -> tuple[SessionStatistics, ...]:
        """Figures of every lane that is remembered, the one used latest first."""
        return tuple(
            self._figures(_Session(incarnation, lane, window))
            for incarnation, lane, window in self.engine.windows.since(-inf)
        )

    def _figures(self, session: _Session) -> SessionStatistics:
        window = session.window
        rate = self._rates.get((session.incarnation, session.lane))
        return SessionStatistics(
            source=session.source,
            incarnation=session.incarnation,
            mode=session.mode,
            traffic_class=session.lane >> 2,
            upstream=None if window.via is NOBODY else window.via,
            messages=window.count,
            size=window.size,
            missing=window.missing if session.mode in FOR_ALL else None,
            messages_per_second=0.0 if rate is None else rate.messages,
            bytes_per_second=0.0 if rate is None else rate.bytes,
        )

    def _live(self, now: float) -> Iterable[_Session]:
        return [
            _Session(incarnation, lane, window)
            for incarnation, lane, window in self.engine.windows.since(now - LIFETIME)
            if _is_session(lane)
        ]

    def _break(
        self, sessions: Sequence[_Session], lost: LogicalAddress, now: float
    ) -> SessionEffects:
        """Find another upstream for each session of a lost one, or tell everybody downstream."""
        sources: dict[LogicalAddress, None] = {}
        news: list[_Broken] = []
        for session in sessions:
            other = self._other_upstream(session, lost, now)
            if other is not None:
                session.window.via, session.window.other = other, None
                continue
            session.window.via = NOBODY
            hops = self.node.next_hops(session.mode, session.source, lost)
            broken = _Broken(session, tuple([hop for hop in hops if hop != lost]))
            news.append(broken)
            self._broken[session.incarnation, session.lane] = broken
            sources[session.source] = None
        events = [Emit(SourceBroken(source, lost)) for source in sources]
        return [*events, *_tell(news)]

    def _other_upstream(
        self, session: _Session, lost: LogicalAddress, now: float
    ) -> LogicalAddress | None:
        """Who brings a session instead, as far as is known here."""
        source, window = session.source, session.window
        if source == lost:
            return None
        other = window.other if now - window.other_at < RECENT else None
        known = {contact.address for contact in self.node.neighbors} - {lost}
        if session.mode is not Mode.MULTICAST:
            return other if other in known else None
        # Where nobody else is left, a node may name somebody below it as its parent.
        known -= {*self.node.children(source)}
        parent = self.node.parent(source)
        return other if other in known else parent if parent in known else None

    def _repeat(self) -> Sequence[Originate]:
        """Say again what was said, as long as it is true."""
        again = [each for each in self._broken.values() if each.session.window.via is NOBODY]
        for each in again:
            each.left -= 1
        self._broken = {
            (each.session.incarnation, each.session.lane): each for each in again if each.left
        }
        return _tell(again)


def _is_session(lane: int) -> bool:
    """Whether a lane is for all members, and one that a member makes: it has 256 classes."""
    return lane & 3 in FOR_ALL and lane >> 2 <= 0xFF


def _tell(news: Sequence[_Broken]) -> Sequence[Originate]:
    """One message for each neighbor downstream and each class, behind what is queued there."""
    lanes: dict[tuple[LogicalAddress, int], list[tuple[int, int]]] = {}
    for each in news:
        session = each.session
        for neighbor in each.downstream:
            told = lanes.setdefault((neighbor, session.lane >> 2), [])
            told.append((session.incarnation, session.lane))
    return [
        Originate(
            [
                _CODEC.encode(BrokenSource(tuple(all_of_them[at : at + _FLOWS_EACH])))
                for at in range(0, len(all_of_them), _FLOWS_EACH)
            ],
            Mode.UNICAST,
            neighbor,
            hop_limit=1,
            traffic_class=traffic_class,
        )
        for (neighbor, traffic_class), all_of_them in lanes.items()
    ]
