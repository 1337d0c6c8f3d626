"""What came on one connection for outputs that are closed.

Its one rule: a full output stops the lanes that feed it, and no other. Virtual nodes of two
processes share a connection, so to leave it unread would stop them all, and trees over several
processes would wait in a circle. Instead the other end is told to pause the lane (a record of its
own); what was on its way meanwhile is kept here and handed on, in order, as soon as the outputs
take it; then the lane is resumed.

Lanes that wait for the same output go on in the order in which their messages came, which is that
of the turns that they took at the other end, and are resumed together: so they share the output as
they share the connection. Connections that wait for the same output take turns, by bytes.

What is kept is bounded, for the connection and for its endpoint. In it counts what each paused lane
costs, too: itself, and what it had put into outputs that others had closed before; for a lane is
paused only by what it has put in, and there may be very many of them. Another end that does not
pause, or always takes other lanes, fills that bound: then the connection is not read, until enough
of it is handed on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from heapq import heappop, heappush
from itertools import count

from attrs import define, field

from opus_socket.adapters.base import Lane, Switchboard, whole_frames
from opus_socket.adapters.flow import NEWS, Intake, Output
from opus_socket.adapters.turns import ROUTE_TURN
from opus_socket.core.addresses import Contact
from opus_socket.errors import RemoteProtocolError

_MOST_OWED = 1 << 20
"""Bytes that a connection owes at most to others, because it handed them on at once."""

_OVERHEAD = 512
"""Bytes that a kept piece counts for beside its own, so that small ones are bounded, too."""

_PER_LANE = 1 << 11
"""Bytes that a paused lane counts for."""


@define(eq=False, repr=False)
class Backlogs:
    """The backlogs of one connection, by lane.

    Args:
        host: whom frames are handed to.
        room: outputs that account for what is kept: the connection's, and its endpoint's.
        tell: called with a lane and whether the other end is to pause it.
        report: called with a paused lane and when something was taken of what it waits for.
        drained: called when nothing is kept any more.
        broken: called with what was wrong with frames that were kept.

    Attributes:
        unsettled: senders and closed outputs of lanes that `settle` has to look at.
    """

    host: Switchboard
    room: tuple[Output, ...]
    tell: Callable[[Lane, bool], None]
    report: Callable[[Lane, float], None]
    drained: Callable[[], None]
    broken: Callable[[RemoteProtocolError], None]
    _by_lane: dict[Lane, _Backlog] = field(factory=dict, init=False)
    unsettled: dict[Lane, _Backlog] = field(factory=dict, init=False)
    _arrivals: Iterator[int] = field(factory=count, init=False)
    _open: list[tuple[int, _Backlog]] = field(factory=list, init=False)
    _dry: list[_Backlog] = field(factory=list, init=False)
    _credit: int = field(default=ROUTE_TURN, init=False)
    _listed: bool = field(default=False, init=False)

    def __bool__(self) -> bool:
        """Whether a lane is paused."""
        return bool(self._by_lane)

    def take(
        self, lane: Lane, data: memoryview, sender: Contact, blockers: list[Output]
    ) -> tuple[int, str | None]:
        """Frames came: hand them on, or keep them.

        Args:
            lane: whom they are for and from, and their class.
            data: whole frames, and perhaps a part of one.
            sender: where they came from.
            blockers: the room is added to it when there is none left.

        Returns:
            as `Switchboard.frames`.
        """
        backlog = self._by_lane.get(lane) if self._by_lane else None
        if backlog is None:
            closed: list[Output] = []
            result = self.host.frames(lane.route, data, sender, closed)
            # What goes on at once counts like what was kept, where others wait for the same.
            self._credit = max(self._credit - result[0], -_MOST_OWED)
            if closed:
                fed = self.unsettled.get(lane)
                if fed is None:
                    fed = self.unsettled[lane] = _Backlog(lane, sender, self._opened, self.report)
                fed.note(closed, result[0])
            return result
        used, broken = whole_frames(data)
        if used:
            self._keep(backlog, bytearray(data[:used]))
            self._stop(blockers)
        return used, broken

    def settle(self, blockers: list[Output]) -> None:
        """Pause the lanes whose outputs are closed after all that they had has been flushed.

        Args:
            blockers: the room is added to it when there is none left.
        """
        paused = [backlog for backlog in self.unsettled.values() if backlog.must_wait()]
        self.unsettled.clear()
        for backlog in paused:
            self._by_lane[backlog.lane] = backlog
            self._charge(_PER_LANE + backlog.beyond)
            self.tell(backlog.lane, True)
        if paused:
            self._stop(blockers)

    def run(self) -> None:
        """Hand on what is kept, as far as outputs take it and until others have their turn."""
        self._listed = False
        if self._credit <= 0:
            self._credit += ROUTE_TURN
            self._list()
            return
        while self._open and self._credit > 0:
            _, backlog = heappop(self._open)
            if backlog.must_wait():
                continue
            self._hand_on(backlog)
            if not backlog.kept:
                self._dry.append(backlog)
            elif not backlog.must_wait():
                heappush(self._open, (backlog.kept[0][0], backlog))
        if self._open:
            self._list()
        else:
            self._resume()

    def _keep(self, backlog: _Backlog, data: bytearray) -> None:
        """Keep whole frames."""
        number = next(self._arrivals)
        if not backlog.kept and backlog in self._dry:
            self._dry.remove(backlog)
            heappush(self._open, (number, backlog))
        backlog.kept.append((number, data))
        self._charge(len(data) + _OVERHEAD)

    def _stop(self, blockers: list[Output]) -> None:
        """Nothing more is to be read while there is no room."""
        blockers += [output for output in self.room if output.closed and output not in blockers]

    def _charge(self, size: int) -> None:
        for output in self.room:
            output.admit(size, 1, self.host.now())

    def _refund(self, size: int) -> None:
        for output in self.room:
            output.release(size, self.host.now())

    def _hand_on(self, backlog: _Backlog) -> None:
        """The first that a lane has."""
        host = self.host
        _, data = backlog.kept.popleft()
        self._credit -= len(data)
        self._refund(len(data) + _OVERHEAD + backlog.beyond)
        backlog.forget()
        closed: list[Output] = []
        route = backlog.lane.route
        used, broken = host.frames(route, memoryview(data), backlog.sender, closed)
        if broken is not None:
            self.broken(RemoteProtocolError(broken, "in a record of overlay messages"))
        host.flush()
        if closed:
            backlog.note(closed, used)
            self._charge(backlog.beyond)

    def _resume(self) -> None:
        """Everything has gone as far as it can: lanes that need wait no more are resumed."""
        dry, self._dry = self._dry, []
        for backlog in dry:
            if not backlog.must_wait():
                del self._by_lane[backlog.lane]
                self._refund(_PER_LANE + backlog.beyond)
                self.tell(backlog.lane, False)
        if dry and not self._by_lane:
            self.drained()

    def _opened(self, backlog: _Backlog) -> None:
        """None of the outputs that a lane waits for is closed."""
        if backlog.kept:
            heappush(self._open, (backlog.kept[0][0], backlog))
        else:
            self._dry.append(backlog)
        self._list()

    def _list(self) -> None:
        if not self._listed:
            self._listed = True
            self.host.run_later(self)


@define(eq=False, repr=False)
class _Backlog:
    """What is kept for one lane.

    Attributes:
        kept: whole frames, with the number of their arrival.
        beyond: bytes that it had last for outputs that were full without them.
    """

    lane: Lane
    sender: Contact
    opened: Callable[[_Backlog], None]
    report: Callable[[Lane, float], None]
    kept: deque[tuple[int, bytearray]] = field(factory=deque, init=False)
    beyond: int = field(default=0, init=False)
    _reported: float = field(default=0.0, init=False)
    _outputs: list[Output] = field(factory=list, init=False)
    _intake: Intake = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._intake = Intake(lambda: self.opened(self), self._heard)

    def note(self, outputs: list[Output], size: int) -> None:
        """It has fed outputs that are closed now with so many bytes, each with all at most."""
        self._outputs += [output for output in outputs if output not in self._outputs]
        self.beyond += size * sum([each.queued - size >= each.settings.limit for each in outputs])

    def forget(self) -> None:
        """What it had fed is taken."""
        self._outputs = []
        self.beyond = 0

    def must_wait(self) -> bool:
        """Whether its outputs are closed; then it says when they are open."""
        if not self._intake.blocked:
            self._intake.wait_for(self._outputs)
        return self._intake.blocked

    def _heard(self, when: float) -> Iterable[Output]:
        """One of its outputs has taken something then; its own are at the other end."""
        if when >= self._reported + NEWS:
            self._reported = when
            self.report(self.lane, when)
        return ()
