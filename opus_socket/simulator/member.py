"""One member of a simulation: an overlay core, driven on the virtual clock.

Its one rule: it is the loop that `OverlayCore` prints, and nothing else. What applications ask of
it is `simulated_socket`.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Protocol

import cbor2
from attrs import define, field

from opus_socket.core.addresses import Contact, Endpoint, LogicalAddress
from opus_socket.core.buckets import (
    Bandwidth,
    Buckets,
    Direction,
)
from opus_socket.core.dispatch import Dispatch
from opus_socket.core.effects import Abort, Emit, Kind, Send, Transmit, TransmitGroup
from opus_socket.core.events import Event, MessagesDropped, ServiceResult, Stable
from opus_socket.core.inquiries import Answered
from opus_socket.core.link_watch import AskLinks, LinkFigures
from opus_socket.core.message import OverlayMessage
from opus_socket.core.overlay import (
    CoreEffects,
    CoreSettings,
    OverlayCore,
)
from opus_socket.core.runs import split_pieces
from opus_socket.core.service import Scope, Service
from opus_socket.core.serving import Forward
from opus_socket.errors import JoinError, LocalProtocolError, NotJoinedError
from opus_socket.simulator.chance import generator
from opus_socket.simulator.emulation import Emulation
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

    def changed(self, member: SimulatedMember) -> None:
        """Its neighbors, its place or its stability may be different."""

    def disturbed(self, what: str, member: SimulatedMember) -> None:
        """It began or ended to take part, or stands still, or goes on: `what` says which."""


@define(eq=False, repr=False)
class SimulatedMember:
    """One member on the virtual clock.

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
        dropped: overlay messages for which its emulated links had no room.
        seen_as, ways, in_group: see `Station`.
    """

    number: int
    settings: CoreSettings
    _underlay: Underlay
    _seed: int
    _watcher: Watcher
    _slow_beat: float
    _bandwidth: Bandwidth = field(factory=Bandwidth)
    joined: bool = field(default=False, init=False)
    paused: bool = field(default=False, init=False)
    error: JoinError | None = field(default=None, init=False)
    place: LogicalAddress | None = field(default=None, init=False)
    received: list[OverlayMessage] = field(factory=list, init=False)
    events: deque[Event] = field(factory=lambda: deque(maxlen=_MAX_EVENTS), init=False)
    answers: list[Answered] = field(factory=list, init=False)
    results: dict[str, list[object]] = field(factory=dict, init=False)
    dropped: int = field(default=0, init=False)
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
    _carried: dict[Contact, tuple[int, int]] = field(factory=dict, init=False)
    _lost: dict[LogicalAddress, tuple[int, int]] = field(factory=dict, init=False)
    _told: dict[bytes, tuple[bytes, float]] = field(factory=dict, init=False)
    _emulation: Emulation | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.seen_as = Contact(None, 0, 0, (endpoint(self.number),))
        # How they begin on the wire, behind the byte that says how long the array is.
        messages = self.settings.spec.messages
        self._hellos = tuple(cbor2.dumps(each.code) for each in messages if each.repeats)
        if self._bandwidth.limits:
            self._emulation = self._emulate()

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

    def lose_connection(self, contact: Contact) -> None:
        """An adapter would say that its connection to a contact has failed."""
        if self._core is not None and not self.paused:
            self._perform(self._core.link_failed(contact, self._underlay.schedule.now))
            self._settle()

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
        if self._emulation is not None:
            link = core.neighbor_at(sender)
            if kind is Kind.OVERLAY:
                self._emulation.push(Direction.IN, link, sender, body)
                return
            self._emulation.charge(Direction.IN, link, len(body))
        if kind is Kind.OVERLAY:
            self._switch(sender, body)
        else:
            effects = core.receive(kind, body, sender, self._underlay.schedule.now)
            if effects:
                self._perform(effects)

    def _switch(self, sender: Contact, body: bytes) -> None:
        core, now = self.core, self._underlay.schedule.now
        # A copy, as in a receive buffer: the engine writes the hop limits into it.
        buffer = memoryview(bytearray(body))
        self._forward(core.switch(buffer, core.neighbor_at(sender), now))

    def _resume(self, life: int) -> None:
        if life != self._lives or not self.paused or self._underlay.schedule.now < self._resumes_at:
            return
        self.paused = False
        self._watcher.disturbed("resume", self)
        # A late driver must not look like a failure: first everything in hand, then the timers.
        for kind, body, sender in self._take_backlog():
            if self._core is not None:
                self._handle(self._core, kind, body, sender)
        if self._emulation is not None:
            self._emulation.move()
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
        held = self._emulation is not None and self._emulation.waiting
        if self._leaving and deadline == inf and not held:
            self._stop()

    def _perform(self, effects: CoreEffects) -> None:
        underlay = self._underlay
        for effect in effects:
            # Nearly all are of this class, and asking for it is cheaper than a pattern.
            if isinstance(effect, Send):
                body = self.core.encode(effect.message)
                if self._is_periodic(effect.to, body):
                    underlay.periodic += 1
                self._transmit(effect.to, Kind.PROTOCOL, body)
                continue
            match effect:
                case Transmit(to=to, kind=kind, body=body):
                    self._transmit(to, kind, body)
                case TransmitGroup(kind=kind, body=body):
                    if self._emulation is not None:
                        self._emulation.charge(Direction.OUT, None, len(body))
                    underlay.send_group(self, kind, body)
                case Forward(dispatch=dispatch):
                    self._forward(dispatch)
                case Emit(event=event):
                    self._tell(event)
                case Answered():
                    self.answers.append(effect)
                case AskLinks():
                    now = underlay.schedule.now
                    self._perform(self.core.links(self._link_figures(), now))
                case Abort(error=error):
                    self.error = error
                    self._stop()
                    self._watcher.disturbed("refused", self)

    def _transmit(self, to: Contact, kind: Kind, body: bytes) -> None:
        if self._emulation is not None:
            self._emulation.charge(Direction.OUT, to.address, len(body))
        self._underlay.send(self, to, kind, body)

    def _forward(self, dispatch: Dispatch) -> None:
        for output in dispatch.outputs:
            contact, maximum = output.contact, self.settings.engine.maximum_frame
            frames, size = self._carried.get(contact, (0, 0))
            self._carried[contact] = frames + output.frames, size + output.size
            for part, _, _ in split_pieces(output.pieces, maximum):
                body = b"".join(part)
                if self._emulation is None:
                    self._send(contact, body)
                else:
                    self._emulation.push(Direction.OUT, contact.address, contact, body)
        self.received.extend(dispatch.delivered)
        self.events.extend(dispatch.events)
        if dispatch.for_services:
            self._perform(self.core.serve(dispatch.for_services, self._underlay.schedule.now))

    def _send(self, contact: Contact, body: bytes) -> None:
        self._underlay.send(self, contact, Kind.OVERLAY, body)

    def _emulate(self) -> Emulation:
        return Emulation(
            self._underlay.schedule,
            Buckets.of(self._bandwidth),
            self._send,
            self._switch,
            lambda: self.paused,
            self._settle,
            self._drop,
        )

    def _drop(
        self, count: int, size: int, direction: Direction, link: LogicalAddress | None
    ) -> None:
        self.dropped += count
        if direction is Direction.OUT and link is not None:
            lost, lost_size = self._lost.get(link, (0, 0))
            self._lost[link] = lost + count, lost_size + size
        self._tell(MessagesDropped(count, "overflow", link))

    def _link_figures(self) -> list[LinkFigures]:
        """What its core wants to know of the links; only an emulated bandwidth holds anything."""
        neighbors = self.core.neighbors
        self._carried = {
            each: self._carried[each] for each in neighbors.values() if each in self._carried
        }
        self._lost = {each: self._lost[each] for each in neighbors if each in self._lost}
        figures = []
        for address, contact in neighbors.items():
            frames, size = self._carried.get(contact, (0, 0))
            lost, lost_size = self._lost.get(address, (0, 0))
            held = 0 if self._emulation is None else self._emulation.held(address)
            if frames:
                taken, taken_size = frames - lost, size - lost_size
                figures.append(LinkFigures(contact, taken, taken_size, held, lost, lost_size))
        return figures

    def _use_handler(self, handler: tuple[Service, Scope] | None) -> None:
        self._handler, core = None, self._core
        if core is not None:
            # One that raises when it starts is not set; what the former lets go is let go.
            for each in (None, handler) if handler else (None,):
                machine, scope = each or (None, Scope.BOTH)
                self._perform(core.set_handler(machine, scope, self._underlay.schedule.now))
            self._settle()
        self._handler = handler

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

    def _stop(self) -> None:
        self._core = None
        self._leaving = self.joined = self.paused = False
        self._wake_at = inf
        self._resumes_at = 0.0
        self._carried.clear()
        self._lost.clear()
        self._take_backlog()
        if self._emulation is not None:
            self._emulation.clear()

    def _take_backlog(self) -> list[tuple[Kind, bytes, Contact]]:
        taken, self._backlog, self._backlog_size = self._backlog, [], 0
        return taken
