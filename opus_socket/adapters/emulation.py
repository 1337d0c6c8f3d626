"""Bandwidth emulation on real sockets: what one member holds back.

Its one rule: nothing is held but whole overlay messages, in bounded queues that push back like any
other. On its way out a message stays in its link's `Output` until the buckets have paid for it and
the link hands it to the connection; traffic classes take turns by weight. On its way in it waits
behind a gate, an `Output` for each neighbor and traffic class: a gate that is full stops what feeds
it, so the pressure reaches the sender. What came first from a neighbor goes in first, but a class
that finds the next output full stops no other.
Control messages never come this way; they are paid for and go at once.

Bytes are those of whole frames, headers included, and of the bodies of control messages.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from math import inf

import attrs
from attrs import define, field

from opus_socket.adapters.base import (
    Carrier,
    Switchboard,
    split_classes,
    split_frames,
    whole_frames,
)
from opus_socket.adapters.flow import FlowSettings, Intake, Losses, Output, Overflow
from opus_socket.adapters.turns import CLASS_TURN, Turns
from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.buckets import Buckets, Direction
from opus_socket.core.dispatch import Piece
from opus_socket.core.parcel import Frames
from opus_socket.core.shaper import Shaper

MOVE_BUDGET = 0.002
"""Seconds for which messages are handed on without giving way."""

TICK = 0.001
"""Seconds between two looks at what can go, at least: messages of that time go together."""

Switch = Callable[[Frames, Contact, list[Output] | None], tuple[int, str | None]]
"""Has the member handle frames from a sender now; arguments and result as `Switchboard.frames`."""


@define(eq=False, repr=False)
class Held:
    """Whole frames that wait, in their order; they are cut where a part ends."""

    size: int = field(default=0, init=False)
    _runs: deque[tuple[memoryview, int, Contact | None, int]] = field(factory=deque, init=False)
    _part: tuple[int, int, int] | None = field(default=None, init=False)

    def put(
        self, run: memoryview, frames: int, sender: Contact | None = None, number: int = 0
    ) -> None:
        """Add frames behind the others, with whom they are from and their number in an order."""
        self._runs.append((run, frames, sender, number))
        self.size += len(run)

    @property
    def number(self) -> int:
        """The number with which the first of them were put."""
        return self._runs[0][3]

    def head(self, most: int) -> int:
        """Bytes of the next part: at most so many, or one frame that is longer."""
        if not self._runs:
            return 0
        if self._part is None or self._part[0] != most:
            run, frames, _, _ = self._runs[0]
            part = next(split_frames(run, most)) if len(run) > most else (run, frames)
            self._part = most, len(part[0]), part[1]
        return self._part[1]

    def take(self) -> tuple[memoryview, int, Contact | None]:
        """The part that `head` has named: its frames, their number, and from whom they are."""
        run, frames, sender, number = self._runs.popleft()
        if self._part is not None and self._part[1] < len(run):
            _, size, count = self._part
            self._runs.appendleft((run[size:], frames - count, sender, number))
            run, frames = run[:size], count
        self._part = None
        self.size -= len(run)
        return run, frames, sender


@define(eq=False, repr=False)
class EmulatedLink:
    """A link whose messages wait for bandwidth before they go the way that `inner` knows.

    Args:
        way: what it shares with the other traffic classes.
        inner: what it is given to when it is paid for.
    """

    way: EmulatedWay
    inner: Carrier
    held: Held = field(factory=Held, init=False)

    @property
    def weight(self) -> int:
        """Its share of the bandwidth of the way."""
        return self.output.weight

    @property
    def waits(self) -> bool:
        """Whether it has something that waits for bandwidth."""
        return self.held.size > 0

    @property
    def held_back(self) -> bool:
        """Never for any other reason."""
        return False

    @property
    def output(self) -> Output:
        """Its bounds, which what is held shares with what is on the connection."""
        return self.inner.output

    def push(self, pieces: Sequence[Piece], size: int, frames: int) -> None:
        """Queue whole frames, or drop and count them."""
        way = self.way
        if not self.held.size and way.emulation.passes(way.direction, way.link, size):
            self.inner.push(pieces, size, frames)
        elif self.output.admit(size, frames, way.emulation.home.now()):
            self.held.put(memoryview(b"".join(pieces)), frames)
            way.join(self)

    def go(self) -> int:
        """Hand the next part on; its bytes."""
        part, frames, _ = self.held.take()
        self.inner.hand_on((bytes(part),), len(part), frames)
        return len(part)

    def evict(self) -> None:
        """Give up what is queued: the neighbor has taken nothing for too long."""
        while self.held.head(self.held.size):
            part, frames, _ = self.held.take()
            self.output.release(len(part), self.way.emulation.home.now())
            self.output.lose(frames, len(part), "evicted")
        self.inner.evict()

    def close(self) -> None:
        """The neighbor is none any more; what is held still goes."""
        self.inner.close()


@define(eq=False, repr=False)
class EmulatedWay:
    """What the links to one neighbor share: their turns at what is paid for."""

    emulation: Emulation
    link: LogicalAddress | None
    direction: Direction = field(default=Direction.OUT, init=False)
    _turns: Turns[EmulatedLink] = field(factory=lambda: Turns(CLASS_TURN), init=False)

    def join(self, link: EmulatedLink) -> None:
        """A link has something that waits for bandwidth."""
        self._turns.join(link)
        self.emulation.wait(self)

    def head(self, most: int) -> int:
        """Bytes of the part that goes next; 0 when nothing is left."""
        if not any(link.waits for link in self._turns):
            return 0
        return self._turns.next()[0].held.head(most)

    def go(self) -> None:
        """Hand the next part on."""
        link, _ = self._turns.next()
        self._turns.pay(link, link.go())

    def put_off(self, until: float) -> None:
        """Nothing of it can go before then, which is no stall."""
        for link in self._turns:
            link.output.due = until


@define(eq=False, repr=False)
class Gate:
    """What came from one neighbor in one traffic class and is not let in yet."""

    inlet: Inlet
    output: Output
    held: Held = field(factory=Held, init=False)
    _intake: Intake = field(init=False)

    def __attrs_post_init__(self) -> None:
        emulation = self.inlet.emulation
        self._intake = Intake(lambda: emulation.wait(self.inlet), lambda when: (self.output,))

    @property
    def waits(self) -> bool:
        """Whether it has something that can go in when it is paid for."""
        return self.held.size > 0 and not self._intake.blocked

    def put(
        self, run: memoryview, sender: Contact, number: int, blockers: list[Output] | None
    ) -> None:
        """Keep frames, or lose them when it is full and whoever brings them cannot wait."""
        frames = sum(count for _, count in split_frames(run, len(run)))
        if blockers is None and self.output.closed:
            self.output.lose(frames, len(run), "overflow")
        elif self.output.admit(len(run), frames, self.inlet.emulation.home.now()):
            self.held.put(memoryview(bytearray(run)), frames, sender, number)
        if blockers is not None and self.output.closed:
            blockers.append(self.output)

    def go(self) -> None:
        """Let the next part in."""
        emulation = self.inlet.emulation
        part, _, sender = self.held.take()
        assert sender is not None, "whatever comes in comes from somebody"
        closed: list[Output] = []
        emulation.let_in(part, sender, closed)
        self.output.release(len(part), emulation.home.now())
        self._intake.wait_for(closed)

    def discard(self) -> None:
        """Nobody takes it any more."""
        while self.held.head(self.held.size):
            part, _, _ = self.held.take()
            self.output.release(len(part), self.inlet.emulation.home.now())


@define(eq=False, repr=False)
class Inlet:
    """The gates of one neighbor, or of all who are none."""

    emulation: Emulation
    link: LogicalAddress | None
    gates: dict[int, Gate] = field(factory=dict, init=False)
    direction: Direction = field(default=Direction.IN, init=False)
    _count: int = field(default=0, init=False)

    @property
    def queued(self) -> bool:
        """Whether anything waits here."""
        return any(gate.output.queued for gate in self.gates.values())

    def put(self, frames: memoryview, sender: Contact, blockers: list[Output] | None) -> None:
        """Keep whole frames at the gates of their classes."""
        for traffic_class, part in split_classes(frames):
            self._count += 1
            self._gate(traffic_class).put(part, sender, self._count, blockers)
        self.emulation.wait(self)

    def head(self, most: int) -> int:
        """Bytes of the part that goes in next; 0 while what the member feeds is full."""
        gate = self._first()
        return 0 if gate is None else gate.held.head(most)

    def go(self) -> None:
        """Let the next part in."""
        gate = self._first()
        assert gate is not None, "its head was asked for before"
        gate.go()

    def put_off(self, until: float) -> None:
        """Nothing of it can go before then, which is no stall."""
        for gate in self.gates.values():
            gate.output.due = until

    def discard(self) -> None:
        """Nobody takes anything of it any more."""
        self.emulation.cease(self)
        for gate in self.gates.values():
            gate.discard()

    def _gate(self, traffic_class: int) -> Gate:
        gate = self.gates.get(traffic_class)
        if gate is None:
            of = self.emulation
            output = Output(self.link, of.flow, of.attend, traffic_class, losses=of.losses)
            gate = self.gates[traffic_class] = Gate(self, output)
        return gate

    def _first(self) -> Gate | None:
        """The gate at which whoever came first waits."""
        waiting = [gate for gate in self.gates.values() if gate.waits]
        return min(waiting, key=lambda gate: gate.held.number, default=None)


@define(eq=False, repr=False)
class Emulation:
    """The bandwidth of one member.

    Args:
        home: the host.
        buckets: what limits it.
        flow: the limits of its links, which its gates share.
        losses: where gates count what they lose.
        attend: called when a gate has lost messages.
        switch: has the member handle frames.
        freed: called with this when nothing is limited any more and nothing is held.
    """

    home: Switchboard
    buckets: Buckets
    flow: FlowSettings
    losses: Losses
    attend: Callable[[], None]
    switch: Switch
    freed: Callable[[Emulation], None]
    inlets: dict[LogicalAddress | None, Inlet] = field(factory=dict, init=False)
    _forgotten: list[Inlet] = field(factory=list, init=False)
    _ways: dict[LogicalAddress | None, EmulatedWay] = field(factory=dict, init=False)
    _shaper: Shaper = field(init=False)
    _wakes_at: float = field(default=inf, init=False)
    _listed: bool = field(default=False, init=False)
    _closed: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._shaper = Shaper(self.buckets)
        # What waits for bandwidth is no stall, and nobody else may be given up for it.
        self.flow = attrs.evolve(self.flow, overflow=Overflow.BLOCK, stall_timeout=inf)

    # What the host says

    def charge(self, direction: Direction, link: LogicalAddress | None, size: int) -> None:
        """A control message goes or comes."""
        self._shaper.charge(direction, link, size, self.home.now())

    def take(
        self,
        frames: Frames,
        sender: Contact,
        link: LogicalAddress | None,
        blockers: list[Output] | None,
    ) -> tuple[int, str | None]:
        """Overlay messages came from a neighbor, or from somebody who is none."""
        view = frames if isinstance(frames, memoryview) else frames.view
        used, broken = whole_frames(view)
        inlet = self.inlets.get(link)
        if inlet is None:
            inlet = self.inlets[link] = Inlet(self, link)
        if not inlet.queued and self.passes(Direction.IN, link, used):
            return self.switch(frames, sender, blockers)
        if used:
            inlet.put(view[:used], sender, blockers)
        return used, broken

    def outputs(self) -> list[Output]:
        """The bounds of what is not let in yet."""
        return [gate.output for inlet in self.inlets.values() for gate in inlet.gates.values()]

    def forget(self, link: LogicalAddress | None) -> list[Output]:
        """It is no neighbor any more: the bounds of what came from it; all that still goes in."""
        self._ways.pop(link, None)
        inlet = self.inlets.pop(link, None)
        if inlet is None:
            return []
        self._forgotten = [old for old in (*self._forgotten, inlet) if old.queued]
        return [gate.output for gate in inlet.gates.values()]

    def hold(self, inner: Carrier, link: LogicalAddress | None) -> EmulatedLink:
        """A link to a neighbor in one class, whose messages wait for bandwidth."""
        way = self._ways.setdefault(link, EmulatedWay(self, link))
        return EmulatedLink(way, inner)

    def changed(self) -> None:
        """The limits are others now."""
        self._list()

    def close(self) -> None:
        """The member is gone: what came for it leads nowhere."""
        self._closed = True
        for inlet in (*self.inlets.values(), *self._forgotten):
            inlet.discard()

    # What links and inlets say

    def passes(self, direction: Direction, link: LogicalAddress | None, size: int) -> bool:
        """Whether messages may go at once, and are paid for."""
        return self._shaper.passes(direction, link, size, self.home.now())

    def wait(self, flow: EmulatedWay | Inlet) -> None:
        """It has something that can go when it is paid for."""
        self._shaper.enlist(flow)
        self._list()

    def cease(self, flow: Inlet) -> None:
        """It waits no more."""
        self._shaper.dismiss(flow)

    def let_in(self, part: memoryview, sender: Contact, closed: list[Output]) -> None:
        """Have the member handle what is paid for."""
        if self._closed:
            return
        _, broken = self.switch(part, sender, closed)
        if broken is not None:
            self.home.refuse(broken)

    # Time

    def run(self) -> None:
        """Hand on what can be paid for."""
        self._listed = False
        now = self.home.now()
        until = now + MOVE_BUDGET
        while now <= until:
            flow = self._shaper.next(now)
            if flow is None:
                self._rest(now)
                return
            assert isinstance(flow, EmulatedWay | Inlet), "nothing else is enlisted"
            flow.go()
            now = self.home.now()
        self._list()

    def _rest(self, now: float) -> None:
        """Nothing more can go now."""
        wait_until = self._shaper.next_at
        if wait_until < inf:
            for flow in self._shaper.waiting:
                assert isinstance(flow, EmulatedWay | Inlet), "nothing else is enlisted"
                flow.put_off(wait_until)
            self._wake_at(max(wait_until, now + TICK))
        elif not self.buckets and not any(
            inlet.queued for inlet in (*self.inlets.values(), *self._forgotten)
        ):
            self.freed(self)

    def _wake_at(self, when: float) -> None:
        if when < self._wakes_at:
            self._wakes_at = when
            self.home.call_at(when, lambda: self._woken(when))

    def _woken(self, when: float) -> None:
        if when == self._wakes_at:
            self._wakes_at = inf
            self._list()

    def _list(self) -> None:
        if not self._listed:
            self._listed = True
            self.home.run_later(self)
