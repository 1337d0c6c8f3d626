"""Reassembly: whole messages from the fragments that come.

Its one rule: whatever comes, in whatever order, memory is bounded, and of every message of which a
fragment came exactly one thing is told: the message, or its loss.

Fragments of a message, known by its identity, are gathered until all of them are here. A message is
given up, as `incomplete`, when no new fragment of it came for 10 seconds and later ones of its lane
have come, which says that something is lost. What only comes late may be slow or held up, and is
waited for 10 minutes, for its source may be gone. It is given up, too, when there is no room: of
what all sources together, or one of them, have begun, the message goes first that has gained
nothing for longest. One that promises to be longer than is allowed is given up at once, as
`too_long`. Fragments that contradict what is known of their message, or themselves, are refused one
by one. Of messages that are done with only the identity is kept, and not for ever: stragglers begin
nothing new.

Source: ours.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from io import BytesIO
from math import inf

from attrs import define, field, frozen

from opus_socket.core.dispatch import Piece
from opus_socket.core.duplicates import LANE_SHIFT, DuplicateWindows
from opus_socket.core.message import OverlayMessage
from opus_socket.core.runs import Run

LIFETIME = 10.0
"""Seconds without a new fragment after which a message is given up that others have overtaken."""

PATIENCE = 600.0
"""The same for one that none has overtaken."""

OF_A_SOURCE = 2
"""How many messages of the longest kind there is room for from one source."""

OF_ALL = 8
"""The same from all sources together."""

MAX_FINISHED = 1024
"""How many messages that are done with are remembered."""

_SLACK = 1 << 16
_PER_MESSAGE = 2048
_PER_PIECE = 128

Identity = tuple[int, int]


class ReassembledMessage(OverlayMessage):
    """A message that came in fragments.

    Its `frame` is that of an empty message which is otherwise the same: its header, and what the
    first fragment had for extensions. The payload is beside it, and handed out without a copy.
    """

    __slots__ = ("_whole",)

    def __init__(self, opening: OverlayMessage, payload: bytes) -> None:
        super().__init__(opening.frame, len(opening.frame) if opening.is_usual else 0)
        self._whole = payload

    @property
    def payload(self) -> bytes:
        """What its sender handed over."""
        return self._whole

    @property
    def size(self) -> int:
        """What it takes of a receive buffer, in bytes: headers and payload."""
        return len(self.frame) + len(self._whole)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, ReassembledMessage)
            and self.frame == other.frame
            and self._whole == other._whole
        )

    def __hash__(self) -> int:
        return hash(self.frame)


@frozen
class Loss:
    """A message that will never be whole.

    Attributes:
        id: its identity.
        destination: whom it was for, on the wire.
        reason: `incomplete` or `too_long`.
    """

    id: Identity
    destination: bytes
    reason: str


@define(eq=False)
class Gathered:
    """What came of some fragments.

    Attributes:
        message: the message, if it is whole now.
        duplicates: how many had been here before.
        refused: how many contradict themselves or what is known.
        losses: messages that were given up.
    """

    message: OverlayMessage | None = None
    duplicates: int = 0
    refused: int = 0
    losses: list[Loss] = field(factory=list)


@define(eq=False)
class _Partial:
    """What is here of one message.

    Attributes:
        id: its identity.
        count: how many fragments it has.
        nature: what else its fragments agree in.
        destination: whom it is for, on the wire.
        used: when the last new fragment came, in seconds.
        opening: an empty message that is otherwise like it; None until its first fragment has
            come.
        body: the payload as far as it is here without a gap; `following` comes next.
        early: what came before its turn.
        longest, last: bytes of every fragment but the last, and of the last; 0 if unknown.
        cost: bytes that it counts for.
    """

    id: Identity
    count: int
    nature: tuple[object, ...]
    destination: bytes
    used: float
    opening: OverlayMessage | None = None
    body: BytesIO = field(factory=BytesIO)
    following: int = 0
    early: dict[int, bytes] = field(factory=dict)
    longest: int = 0
    last: int = 0
    cost: int = _PER_MESSAGE

    @property
    def least(self) -> int:
        """How many bytes of payload it has at least."""
        return (self.count - 1) * (self.longest or self.last) + (self.last or 1)

    def has(self, index: int) -> bool:
        """Whether this fragment has come."""
        return index < self.following or index in self.early

    def measure(self, index: int, size: int) -> bool:
        """Learn from the size of a fragment; False when it contradicts what is known."""
        if index == self.count - 1:
            if not 0 < size <= (self.longest or size):
                return False
            self.last = size
            return True
        if not self.longest and size >= self.last:
            self.longest = size
        return 0 < size == self.longest

    def add(self, index: int, body: Piece) -> None:
        """Take a new fragment."""
        self.cost += len(body)
        if index == self.following:
            self.body.write(body)
            self.following += 1
        else:
            self.early[index] = bytes(body)
            self.cost += _PER_PIECE

    def begin(self, opening: OverlayMessage) -> None:
        """Take what is known of the message by its first fragment."""
        self.opening = opening
        self.cost += len(opening.frame)

    def close_gap(self) -> None:
        """Append what came early, as far as it is its turn now."""
        while self.following in self.early:
            self.body.write(self.early.pop(self.following))
            self.following += 1
            self.cost -= _PER_PIECE

    def whole(self) -> OverlayMessage | None:
        """The message, if all of it is here."""
        if self.following < self.count or self.opening is None:
            return None
        # The one reference to its buffer: nothing is copied.
        return ReassembledMessage(self.opening, self.body.getvalue())


@define(eq=False)
class _Source:
    """What one source has begun: its messages, the longest without gain first."""

    partials: OrderedDict[int, _Partial] = field(factory=OrderedDict)
    cost: int = 0


@define(eq=False, repr=False)
class Reassembly:
    """Gathers fragments.

    Args:
        longest: bytes of payload that a message may have.
        windows: know what else of a lane has come.

    Attributes:
        cost: bytes that are held now, with what it takes to hold them.
    """

    longest: int
    windows: DuplicateWindows
    cost: int = field(default=0, init=False)
    _again: float = field(default=0.0, init=False)
    _partials: OrderedDict[Identity, _Partial] = field(factory=OrderedDict, init=False)
    _sources: dict[int, _Source] = field(factory=dict, init=False)
    _finished: OrderedDict[Identity, bool] = field(factory=OrderedDict, init=False)

    @property
    def next_deadline(self) -> float:
        """When `wake` is due, in seconds; inf for never."""
        if not self._partials:
            return inf
        return max(next(iter(self._partials.values())).used + LIFETIME, self._again)

    def take(
        self, run: Run, bodies: Sequence[Piece], opening: OverlayMessage | None, now: float
    ) -> Gathered:
        """Take new fragments of one message.

        Args:
            run: fragments whose indices count up.
            bodies: what each carries; views are copied.
            opening: an empty message that is otherwise like the first of them, if its index is 0.
            now: seconds.
        """
        assert run.fragment is not None, "whole messages need no reassembly"
        gathered = Gathered()
        index, count = run.fragment
        first = run.first - index
        if not _is_sound(index, len(bodies), count, first):
            gathered.refused = len(bodies)
            return gathered
        identity = run.incarnation, first
        delivered = self._finished.get(identity)
        if delivered is not None:
            gathered.duplicates = len(bodies) if delivered else 0
            return gathered
        nature = run.mode, run.traffic_class, run.source, run.destination, run.is_service
        partial = self._partials.get(identity)
        if partial is None:
            partial = _Partial(identity, count, nature, run.destination, now)
        if partial.count != count or partial.nature != nature:
            gathered.refused = len(bodies)
            return gathered
        before = partial.cost
        added = False
        for position, body in enumerate(bodies, index):
            if partial.has(position):
                gathered.duplicates += 1
            elif not partial.measure(position, len(body)):
                gathered.refused += 1
            elif partial.least > self.longest:
                self._drop(partial, before, "too_long", gathered.losses)
                return gathered
            else:
                partial.add(position, body)
                added = True
        if not added:
            return gathered
        if opening is not None and partial.opening is None:
            partial.begin(opening)
        partial.close_gap()
        gathered.message = partial.whole()
        if gathered.message is not None:
            self._forget(partial, before)
            self._finish(identity, delivered=True)
        else:
            self._keep(partial, before, now)
            self._make_room(run.incarnation, gathered.losses)
        return gathered

    def wake(self, now: float) -> Sequence[Loss]:
        """The deadline has come: the messages that are given up."""
        losses: list[Loss] = []
        self._again = now + LIFETIME
        for partial in list(self._partials.values()):
            if partial.used + LIFETIME > now:
                self._again = min(self._again, partial.used + LIFETIME)
                break
            if partial.used + PATIENCE <= now or self._is_overtaken(partial):
                self._drop(partial, partial.cost, "incomplete", losses)
        return losses

    def _is_overtaken(self, partial: _Partial) -> bool:
        """Whether what comes behind the first fragment that is missing has come, or that was seen
        and refused.
        """
        incarnation, first = partial.id
        window = self.windows.find(incarnation, first >> LANE_SHIFT)
        latest = -1 if window is None else window.highest
        return bool(partial.early) or latest >= first + partial.following

    def clear(self) -> None:
        """Forget everything, and say nothing."""
        self._partials.clear()
        self._sources.clear()
        self._finished.clear()
        self.cost = 0

    def _keep(self, partial: _Partial, before: int, now: float) -> None:
        """Keep a message that has gained something; `before` is what it counted for."""
        incarnation, first = partial.id
        partial.used = now
        source = self._sources.setdefault(incarnation, _Source())
        if partial.id not in self._partials:
            before = 0
            self._partials[partial.id] = source.partials[first] = partial
        else:
            self._partials.move_to_end(partial.id)
            source.partials.move_to_end(first)
        source.cost += partial.cost - before
        self.cost += partial.cost - before

    def _make_room(self, incarnation: int, losses: list[Loss]) -> None:
        """Give up what has gained nothing for longest, until everything is within its bounds."""
        source = self._sources[incarnation]
        while source.cost > OF_A_SOURCE * self.longest + _SLACK:
            oldest = next(iter(source.partials.values()))
            self._drop(oldest, oldest.cost, "incomplete", losses)
        while self.cost > OF_ALL * self.longest + _SLACK:
            oldest = next(iter(self._partials.values()))
            self._drop(oldest, oldest.cost, "incomplete", losses)

    def _drop(self, partial: _Partial, counted: int, reason: str, losses: list[Loss]) -> None:
        self._forget(partial, counted)
        self._finish(partial.id, delivered=False)
        losses.append(Loss(partial.id, partial.destination, reason))

    def _forget(self, partial: _Partial, counted: int) -> None:
        """Hold a message no longer, for which `counted` bytes were counted."""
        if self._partials.pop(partial.id, None) is None:
            return
        incarnation, first = partial.id
        source = self._sources[incarnation]
        del source.partials[first]
        source.cost -= counted
        self.cost -= counted
        if not source.partials:
            del self._sources[incarnation]

    def _finish(self, identity: Identity, *, delivered: bool) -> None:
        while len(self._finished) >= MAX_FINISHED:
            self._finished.popitem(last=False)
        self._finished[identity] = delivered


def _is_sound(index: int, number: int, count: int, first: int) -> bool:
    """Whether fragments can be what they say: several of one message, all of it in one lane."""
    return (
        count > 1
        and index + number <= count
        and first >= 0
        and first >> LANE_SHIFT == first + count - 1 >> LANE_SHIFT
    )
