"""What came on one connection for outputs that are closed.

Its one rule: a full output stops the route that feeds it, and no other. Virtual nodes of two
processes share a connection, so to leave it unread would stop them all, and trees over several
processes would wait in a circle. Instead the other end is told to pause the route (a record of its
own); what was on its way meanwhile is kept here and handed on, in order, as soon as the outputs
take it; then the route is resumed.

What is kept is bounded, for the connection and for its endpoint. Another end that does not pause
fills that bound: then the connection is not read, until half of it is handed on.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from attrs import define, field

from opus_socket.adapters.base import Route, Switchboard, whole_frames
from opus_socket.adapters.flow import Intake, Output
from opus_socket.core.addresses import Contact
from opus_socket.errors import RemoteProtocolError

_OVERHEAD = 512
"""Bytes that a kept piece counts for beside its own, so that small ones are bounded, too."""


@define(eq=False, repr=False)
class Backlogs:
    """The backlogs of one connection, by route.

    Args:
        host: whom frames are handed to.
        room: outputs that account for what is kept: the connection's, and its endpoint's.
        tell: called with a route and whether the other end is to pause it.
        drained: called when nothing is kept any more.
        broken: called with what was wrong with frames that were kept.
    """

    host: Switchboard
    room: tuple[Output, ...]
    tell: Callable[[Route, bool], None]
    drained: Callable[[], None]
    broken: Callable[[RemoteProtocolError], None]
    _by_route: dict[Route, _Backlog] = field(factory=dict, init=False)
    _closed: dict[Route, tuple[Contact, list[Output]]] = field(factory=dict, init=False)

    def __bool__(self) -> bool:
        """Whether a route is paused."""
        return bool(self._by_route)

    def take(
        self, route: Route, data: memoryview, sender: Contact, blockers: list[Output]
    ) -> tuple[int, str | None]:
        """Frames came: hand them on, or keep them.

        Args:
            route: whom they are for and from.
            data: whole frames, and perhaps a part of one.
            sender: where they came from.
            blockers: the room is added to it when there is none left.

        Returns:
            as `Switchboard.frames`.
        """
        backlog = self._by_route.get(route) if self._by_route else None
        if backlog is None:
            closed: list[Output] = []
            result = self.host.frames(route, data, sender, closed)
            if closed:
                self._closed[route] = sender, closed
            return result
        used, broken = whole_frames(data)
        if used:
            backlog.keep(bytearray(data[:used]))
            blockers += [output for output in self.room if output.closed]
        return used, broken

    def settle(self) -> None:
        """Pause the routes whose outputs are closed after all that they had has been flushed."""
        for route, (sender, outputs) in self._closed.items():
            if any(output.closed for output in outputs):
                self._by_route[route] = _Backlog(self, route, sender, outputs)
                self.tell(route, True)
        self._closed.clear()

    def end(self, route: Route) -> None:
        """Everything that was kept for a route is handed on."""
        del self._by_route[route]
        self.tell(route, False)
        if not self._by_route:
            self.drained()


@define(eq=False, repr=False)
class _Backlog:
    """What is kept for one route."""

    owner: Backlogs
    route: Route
    sender: Contact
    _outputs: list[Output]
    _kept: deque[bytearray] = field(factory=deque, init=False)
    _intake: Intake = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._intake = Intake(lambda: self.owner.host.run_later(self))
        self._intake.wait_for(self._outputs)

    def keep(self, data: bytearray) -> None:
        """Keep whole frames."""
        self._kept.append(data)
        for output in self.owner.room:
            output.admit(len(data) + _OVERHEAD, 1, self.owner.host.now())

    def run(self) -> None:
        """Hand on what is kept, as far as outputs take it."""
        host = self.owner.host
        while self._kept and not self._intake.blocked:
            data = self._kept.popleft()
            for output in self.owner.room:
                output.release(len(data) + _OVERHEAD, host.now())
            closed: list[Output] = []
            _, broken = host.frames(self.route, memoryview(data), self.sender, closed)
            if broken is not None:
                self.owner.broken(RemoteProtocolError(broken, "in a record of overlay messages"))
            host.flush()
            self._intake.wait_for(closed)
        if not self._kept and not self._intake.blocked:
            self.owner.end(self.route)
