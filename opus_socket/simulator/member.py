"""One member of a simulation: an overlay core, driven on the virtual clock.

Its one rule: it is the loop that `OverlayCore` prints, and nothing else. What a socket of the
Trio driver can be asked, this one can be asked too; where that one waits, this one is finished
as soon as the simulation has run far enough.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Protocol

import cbor2
from attrs import define, field

from opus_socket.core.addresses import Contact, Endpoint, LogicalAddress
from opus_socket.core.dispatch import Dispatch
from opus_socket.core.effects import Abort, Emit, Kind, Quantity, Transmit, TransmitGroup
from opus_socket.core.events import Event, ServiceResult, Stable
from opus_socket.core.inquiries import Answered, Target
from opus_socket.core.message import OverlayMessage
from opus_socket.core.node import Mode
from opus_socket.core.overlay import (
    CoreEffects,
    CoreSettings,
    CoreStatistics,
    OverlayCore,
)
from opus_socket.core.service import Scope, Service
from opus_socket.core.serving import Forward
from opus_socket.errors import JoinError, LocalProtocolError, NotJoinedError
from opus_socket.simulator.chance import generator
from opus_socket.simulator.underlay import Underlay, Way

PORT = 9000
MAX_BACKLOG = 212_992
"""Bytes that wait for a paused member: the usual receive buffer of a socket on Linux."""

_MAX_EVENTS = 1024
_MAX_SPINS = 1000


def endpoint(number: int) -> Endpoint:
    """Where a member lives, from 10.0.0.1 upward, or a server, whose number is below 0: from
    10.255.255.254 downward.
    """
    place = number + 1 if number >= 0 else (1 << 24) + number - 1
    return Endpoint("10." + ".".join(map(str, place.to_bytes(3))), PORT)


class Watcher(Protocol):
    """Who wants to know about members: the simulator."""

    def changed(self, member: SimulatedSocket) -> None:
        """Its neighbors, its place or its stability may be different."""

    def disturbed(self, what: str, member: SimulatedSocket) -> None:
        """It began or ended to take part, or stands still, or goes on: `what` says which."""


@define(eq=False, repr=False)
class SimulatedSocket:
    """An overlay socket on the virtual clock; made by `Simulator.add`.

    Attributes:
        number: the member's number, from 0.
        settings: its overlay and how it behaves.
        joined: whether it has become stable since it began to join.
        paused: whether it stands still.
        error: why its join cannot succeed, if so.
        place: its logical address, also when it is gone; None before it had any.
        received: messages for the application that nobody took yet, the oldest first.
        events: the last 1,024 events.
        answers: the results of `measure`, in the order in which they came.
        results: what services and the handler told the application, by name, the oldest first.
        seen_as, ways, in_group: see `Station`.
    """

    number: int
    settings: CoreSettings
    _underlay: Underlay
    _seed: int
    _watcher: Watcher
    _slow_beat: float
    joined: bool = field(default=False, init=False)
    paused: bool = field(default=False, init=False)
    error: JoinError | None = field(default=None, init=False)
    place: LogicalAddress | None = field(default=None, init=False)
    received: list[OverlayMessage] = field(factory=list, init=False)
    events: deque[Event] = field(factory=lambda: deque(maxlen=_MAX_EVENTS), init=False)
    answers: list[Answered] = field(factory=list, init=False)
    results: dict[str, list[object]] = field(factory=dict, init=False)
    seen_as: Contact = field(init=False)
    ways: dict[bytes, Way] = field(factory=dict, init=False)
    _hellos: tuple[bytes, ...] = field(init=False)
    _core: OverlayCore | None = field(default=None, init=False)
    _leaving: bool = field(default=False, init=False)
    _lives: int = field(default=0, init=False)
    _incarnation: int = field(default=0, init=False)
    _handler: tuple[Service, Scope] | None = field(default=None, init=False)
    _version: int = field(default=-1, init=False)
    _wake_at: float = field(default=inf, init=False)
    _spins: int = field(default=0, init=False)
    _resumes_at: float = field(default=0.0, init=False)
    _backlog: list[tuple[Kind, bytes, Contact]] = field(factory=list, init=False)
    _backlog_size: int = field(default=0, init=False)
    _told: dict[bytes, tuple[bytes, float]] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self.seen_as = Contact(None, 0, 0, (endpoint(self.number),))
        # How they begin on the wire, behind the byte that says how long the array is.
        messages = self.settings.spec.messages
        self._hellos = tuple(cbor2.dumps(each.code) for each in messages if each.repeats)

    # Queries

    @property
    def alive(self) -> bool:
        """Whether it takes part: it began to join and neither crashed, left nor failed to."""
        return self._core is not None and not self._leaving

    @property
    def gone(self) -> bool:
        """Whether it took part and does not any more; a leaver is gone once it has finished."""
        return self._core is None and self._lives > 0

    @property
    def core(self) -> OverlayCore:
        """The overlay core of its present life.

        Raises:
            NotJoinedError: it has none.
        """
        if self._core is None:
            raise NotJoinedError(f"member {self.number} takes no part in the overlay now")
        return self._core

    @property
    def contact(self) -> Contact:
        """How it is reached."""
        return self.core.contact

    @property
    def address(self) -> LogicalAddress:
        """Its logical address."""
        return self.core.node.address

    @property
    def stable(self) -> bool:
        """Whether its node has found its place."""
        return self._core is not None and self._core.stable

    @property
    def neighbors(self) -> tuple[LogicalAddress, ...]:
        """Its neighbors' logical addresses, sorted."""
        return tuple(self.core.neighbors)

    def parent(self, root: LogicalAddress) -> LogicalAddress | None:
        """The next hop toward a root; None at the root itself or when there is none."""
        return self.core.node.parent(root)

    def children(self, root: LogicalAddress) -> tuple[LogicalAddress, ...]:
        """The neighbors whose next hop toward the root it is, sorted."""
        return self.core.node.children(root)

    def statistics(self) -> CoreStatistics:
        """Its counters and gauges."""
        return self.core.statistics()

    # The application

    def send_to_all(self, payload: bytes) -> tuple[int, int]:
        """Multicast to every other member; returns the message's identity."""
        return self._originate(payload, Mode.MULTICAST, None)

    def send(self, destination: LogicalAddress, payload: bytes) -> tuple[int, int]:
        """Send to one member; returns the message's identity."""
        return self._originate(payload, Mode.UNICAST, destination)

    def send_flood(self, payload: bytes) -> tuple[int, int]:
        """Send to every other member over every link; returns the message's identity."""
        return self._originate(payload, Mode.FLOOD, None)

    def send_anycast(self, key: LogicalAddress, payload: bytes) -> tuple[int, int]:
        """Send to the member that is responsible for a key; returns the message's identity."""
        return self._originate(payload, Mode.ANYCAST, key)

    def measure(self, target: Target, quantity: Quantity = Quantity.RTT) -> None:
        """Measure the way to a member; the result is added to `answers` when it is there."""
        self._perform(self._running().measure(target, quantity, self._underlay.schedule.now))
        self._settle()

    def ask(self, service: str, request: object) -> None:
        """Ask something of a service that is on, or of the handler."""
        core = self._running()
        if not self.joined:
            raise NotJoinedError(f"member {self.number} has not joined")
        self._perform(core.ask(service, request, self._underlay.schedule.now))
        self._settle()

    def set_handler(self, handler: Service, scope: Scope = Scope.BOTH) -> None:
        """Let a handler see the application's messages, in this life and those that follow."""
        self._use_handler((handler, scope))

    def remove_handler(self) -> None:
        """Let messages go their way without a handler from now on."""
        self._use_handler(None)

    def leave(self) -> None:
        """Say goodbye; it is gone once its machines have nothing left to do."""
        core = self._running()
        if not self._leaving:
            self._leaving = True
            self.joined = False
            self._watcher.disturbed("leave", self)
            self._perform(core.leave(self._underlay.schedule.now))
            self._settle()

    # Its life, as the simulator decides

    def start(self) -> None:
        """Begin to join, with an incarnation higher than any before.

        Raises:
            LocalProtocolError: it takes part already.
        """
        if self._core is not None:
            raise LocalProtocolError(f"member {self.number} takes part in the overlay already")
        now = self._underlay.schedule.now
        self._lives += 1
        rng = generator(self._seed, "member", self.number, self._lives)
        # Two lives may begin within one millisecond of the virtual clock.
        drawn = (int(now * 1000) + 1) << 20 | rng.getrandbits(20)
        self._incarnation = max(drawn, self._incarnation + 1)
        contact = Contact(None, self._incarnation, 0, self.seen_as.endpoints)
        self._core = OverlayCore(self.settings, contact, rng)
        self.error = None
        self._version = -1
        self._watcher.disturbed("join" if self._lives == 1 else "restart", self)
        self._perform(self._core.join(now))
        if self._handler is not None:
            self._use_handler(self._handler)
        self._settle()

    def crash(self) -> None:
        """Be gone at once and silently, with everything that it knew.

        Raises:
            NotJoinedError: it takes no part.
        """
        _ = self.core
        self._stop()
        self._watcher.disturbed("crash", self)

    def pause(self, until: float) -> None:
        """Stand still, as under SIGSTOP: packets wait, within bounds, and no deadline is kept.

        Args:
            until: virtual seconds; a pause that is on already may only grow longer.

        Raises:
            NotJoinedError: it takes no part.
        """
        _ = self.core
        self.paused = True
        self._resumes_at = max(self._resumes_at, until)
        self._watcher.disturbed("pause", self)
        self._underlay.schedule.timer(self._resumes_at, self._resume, (self._lives,))

    # The driver's loop

    @property
    def in_group(self) -> bool:
        """Whether it listens to the multicast group."""
        return self._core is not None and self.settings.finder.multicast

    def takes(self, size: int) -> bool:
        """Whether it runs, or has room for so many bytes until it runs again."""
        if self._core is None:
            return False
        return not self.paused or self._backlog_size + size <= MAX_BACKLOG

    def arrive(self, kind: Kind, body: bytes, sender: Contact) -> None:
        """A packet came for which there is room."""
        if self.paused:
            self._backlog.append((kind, body, sender))
            self._backlog_size += len(body)
        elif self._core is not None:
            self._handle(self._core, kind, body, sender)
            self._settle()

    def _handle(self, core: OverlayCore, kind: Kind, body: bytes, sender: Contact) -> None:
        now = self._underlay.schedule.now
        if kind is Kind.OVERLAY:
            # A copy, as in a receive buffer: the engine writes the hop limits into it.
            buffer = memoryview(bytearray(body))
            self._forward(core.switch(buffer, core.neighbor_at(sender), now, mutable=True))
        else:
            effects = core.receive(kind, body, sender, now)
            if effects:
                self._perform(effects)

    def _resume(self, life: int) -> None:
        if life != self._lives or not self.paused or self._underlay.schedule.now < self._resumes_at:
            return
        self.paused = False
        self._watcher.disturbed("resume", self)
        # A late driver must not look like a failure: first everything in hand, then the timers.
        for kind, body, sender in self._take_backlog():
            if self._core is not None:
                self._handle(self._core, kind, body, sender)
        self._settle()

    def _wake(self) -> None:
        core, now = self._core, self._underlay.schedule.now
        if core is None or now != self._wake_at:
            return  # Another entry of the schedule stands for its next deadline.
        self._wake_at = inf
        if self.paused:
            return
        if core.next_deadline <= now:
            self._perform(core.wake(now))
            self._spins = self._spins + 1 if core.next_deadline <= now else 0
            if self._spins > _MAX_SPINS:
                raise LocalProtocolError(
                    f"a machine of member {self.number} asks to be woken at {core.next_deadline} "
                    f"again and again; it is {now} already"
                )
        self._settle()

    def _settle(self) -> None:
        """After every input: see to the next deadline, and say what has changed."""
        core = self._core
        if core is None or self.paused:
            return
        deadline = core.next_deadline
        if deadline < self._wake_at:
            schedule = self._underlay.schedule
            self._wake_at = max(deadline, schedule.now)
            schedule.timer(self._wake_at, self._wake)
        if core.node.version != self._version:
            self._version = core.node.version
            self.place = core.contact.address
            self._watcher.changed(self)
        if self._leaving and deadline == inf:
            self._stop()

    def _perform(self, effects: CoreEffects) -> None:
        underlay = self._underlay
        for effect in effects:
            # Nearly all are of this class, and asking for it is cheaper than a pattern.
            if isinstance(effect, Transmit):
                if effect.kind is Kind.PROTOCOL and self._is_periodic(effect.to, effect.body):
                    underlay.periodic += 1
                underlay.send(self, effect.to, effect.kind, effect.body)
                continue
            match effect:
                case TransmitGroup(kind=kind, body=body):
                    underlay.send_group(self, kind, body)
                case Forward(dispatch=dispatch):
                    self._forward(dispatch)
                case Emit(event=event):
                    self._tell(event)
                case Answered():
                    self.answers.append(effect)
                case Abort(error=error):
                    self.error = error
                    self._stop()
                    self._watcher.disturbed("refused", self)

    def _forward(self, dispatch: Dispatch) -> None:
        for output in dispatch.outputs:
            body = b"".join(output.pieces)
            self._underlay.send(self, output.contact, Kind.OVERLAY, body)
        self.received.extend(dispatch.delivered)
        self.events.extend(dispatch.events)
        if dispatch.for_services:
            self._perform(self.core.serve(dispatch.for_services, self._underlay.schedule.now))

    def _originate(self, payload: bytes, mode: Mode, key: LogicalAddress | None) -> tuple[int, int]:
        core = self._running()
        if not self.joined:
            raise NotJoinedError(f"member {self.number} has not joined")
        dispatch = core.originate([payload], mode, key, self._underlay.schedule.now)
        self._forward(dispatch)
        self._settle()
        assert dispatch.first_id is not None, "whatever is originated has an identity"
        return dispatch.first_id

    def _use_handler(self, handler: tuple[Service, Scope] | None) -> None:
        self._handler = handler
        if self._core is not None:
            machine, scope = handler or (None, Scope.BOTH)
            now = self._underlay.schedule.now
            self._perform(self._core.set_handler(machine, scope, now))
            self._settle()

    def _tell(self, event: Event) -> None:
        if isinstance(event, ServiceResult):
            self.results.setdefault(event.service, []).append(event.result)
            return
        self.events.append(event)
        if isinstance(event, Stable) and not self._leaving:
            self.joined = True

    def _is_periodic(self, to: Contact, body: bytes) -> bool:
        """Whether a protocol message is a periodic Hello: of a class that repeats, to a neighbor,
        the same bytes as the last such message to it, and that no sooner than a slow beat ago.
        """
        told, now = self._told, self._underlay.schedule.now
        before, when = told.get(to.wire, (b"", 0.0))
        repeated = body == before
        neighbors = self.core.neighbors
        if (not repeated and not body.startswith(self._hellos, 1)) or to.address not in neighbors:
            return False
        told[to.wire] = (body, now)
        if len(told) > 2 * len(neighbors) + 32:
            present = (contact.wire for contact in neighbors.values())
            self._told = {wire: told[wire] for wire in present if wire in told}
        return repeated and now - when >= self._slow_beat

    def _running(self) -> OverlayCore:
        if self.paused:
            raise LocalProtocolError(f"member {self.number} stands still: nobody there can act")
        return self.core

    def _stop(self) -> None:
        self._core = None
        self._leaving = self.joined = self.paused = False
        self._wake_at = inf
        self._resumes_at = 0.0
        self._take_backlog()

    def _take_backlog(self) -> list[tuple[Kind, bytes, Contact]]:
        taken, self._backlog, self._backlog_size = self._backlog, [], 0
        return taken
