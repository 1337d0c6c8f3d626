"""The one loop that does I/O for a process: a wait, then work without waiting.

Its one rule: whoever waits, leads. A task that waits for something that only the loop can bring -
a message, room for one more - takes the loop's turns itself until it has come, so that no other
task has to run between a packet and the one who waits for it. Everybody else who waits is woken by
the leader. When nobody waits, the hub leads: a task that does nothing else. The leader waits for
sockets alone, because that costs least: another task keeps the time, and a bell stands for whatever
else there is to do.

Each turn hands every packet in hand to the machines, then lets members of this process hand over to
each other, then wakes those whose deadline has come, then writes what is queued. Packets come
before deadlines that are up to half a second late, so that a late driver does not look like a
failure of others, and a flood does not stop the clock. A turn that takes too long ends, and what is
left is for the next one: other tasks of the program run between turns.

    while True:
        wait until a socket is ready or the next deadline      # the only wait
        for each ready socket: machine.receive(...) or switch(...), perform the effects
        hand over inside the process
        for each deadline that has come: machine.wake(...), perform the effects
        flush connections
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from itertools import count
from math import ceil

import trio
from attrs import define, field

from opus_socket.adapters.base import Feeder, Writer
from opus_socket.adapters.poller import Bell, Poller, Ready, open_poller

TURN_BUDGET = 0.002
LATEST_WAKE = 0.5
OVERDUE_EVERY = 0.1
"""Seconds between two looks at overdue deadlines while packets keep coming."""

TIMER_SLACK = 0.004
"""Seconds between two alarms: thousands of members have as many deadlines a second."""

FAR = 0.5
GRAIN = 1 / 32
"""Deadlines at least half a second away, such as those of heartbeats, come together with others, up
to a 32nd of a second late: waking costs more than what there is to do then."""

PASSES_BEFORE_HUB = 2
"""How often all tasks that can run have run before the hub takes over from a leader, who often
comes back at once."""


@define(eq=False)
class Bed:
    """Where one task rests until it is roused. A parking lot is for many, and costs three times as
    much.
    """

    _task: trio.lowlevel.Task | None = None

    async def rest(self) -> None:
        """Wait until somebody rouses this task."""
        self._task = trio.lowlevel.current_task()
        await trio.lowlevel.wait_task_rescheduled(self._abort)

    def rouse(self) -> None:
        """Let whoever rests here go on."""
        if self._task is not None:
            trio.lowlevel.reschedule(self._task)
            self._task = None

    def _abort(self, _: object) -> trio.lowlevel.Abort:
        self._task = None
        return trio.lowlevel.Abort.SUCCEEDED


@define(eq=False, repr=False)
class Loop:
    """Timers, sockets, and what is to be fed or written at the next turn."""

    poller: Poller = field(factory=open_poller)
    now: Callable[[], float] = field(init=False)
    """Seconds, monotonic."""
    turns: int = field(default=0, init=False)
    _bell: Bell = field(init=False)
    _timers: list[tuple[float, int, Callable[[], None]]] = field(factory=list, init=False)
    _order: Iterator[int] = field(factory=count, init=False)
    _alarm: trio.CancelScope | None = field(default=None, init=False)
    _due: bool = field(default=False, init=False)
    _not_before: float = field(default=0.0, init=False)
    _timekeeper: Bed = field(factory=Bed, init=False)
    _ready: deque[tuple[Ready, int]] = field(factory=deque, init=False)
    _feeders: deque[Feeder] = field(factory=deque, init=False)
    _writers: list[Writer] = field(factory=list, init=False)
    _turn_ended: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)
    _turn_awaited: bool = field(default=False, init=False)
    _hub: Bed = field(factory=Bed, init=False)
    _hub_leads: bool = field(default=False, init=False)
    _succession: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)
    _led: bool = field(default=False, init=False)
    _waiting: bool = field(default=False, init=False)
    _sent_in: int = field(default=-1, init=False)
    _filled_in: int = field(default=-1, init=False)
    _sends: int = field(default=0, init=False)
    _woke: float = field(default=0.0, init=False)
    _crash: Exception | None = field(default=None, init=False)
    _closed: bool = field(default=False, init=False)
    _runs: bool = field(default=True, init=False)

    def __attrs_post_init__(self) -> None:
        self.now = trio.lowlevel.current_clock().current_time
        try:
            self._bell = Bell(self.poller)
        except OSError:
            self.poller.close()
            raise

    # Waiting

    async def run(self) -> None:
        """Drive everything whenever nobody else does, until cancelled or closed.

        Raises:
            Exception: a machine or an adapter crashed, in whichever task.
        """
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._keep_time)
            passes = 0
            while self._runs:
                if self._led:
                    passes = 0
                    await self._hub.rest()
                elif passes < PASSES_BEFORE_HUB:
                    passes += 1
                    await trio.lowlevel.checkpoint()
                else:
                    self._hub_leads = True
                    try:
                        await self._step()
                    finally:
                        self._hub_leads = False
                        self._succession.unpark_all()
            nursery.cancel_scope.cancel()
        if self._crash is not None:
            raise self._crash

    async def wait_for(self, done: Callable[[], object], lot: trio.lowlevel.ParkingLot) -> None:
        """Wait until something is so, and drive the loop meanwhile, unless somebody else does.

        Args:
            done: whether it is so.
            lot: unparked whenever that may have changed, and when the loop is closed.
        """
        while not done():
            if self._led or not self._runs:
                # A crash ends the block that this task is in.
                await lot.park()
                continue
            self._led = True
            try:
                if self._hub_leads:
                    await self._succeed()
                    if done():
                        return
                while await self._step():
                    if done():
                        return
            finally:
                self._led = False
                self._hub.rouse()

    async def _succeed(self) -> None:
        """Take the lead over from the hub."""
        while self._hub_leads:
            self.wake()
            await self._succession.park()

    async def wait_turn(self) -> None:
        """Wait until the loop has taken a turn."""
        self._turn_awaited = True
        await self._turn_ended.park()

    def wake(self) -> None:
        """Let the loop take a turn soon."""
        if self._waiting:
            self._bell.ring()

    async def _step(self) -> bool:
        """Wait, unless there is something to do, and take a turn; whether more can follow."""
        if self._ready or self._feeders or self._writers or self._due:
            await trio.lowlevel.checkpoint()
        else:
            self._waiting = True
            try:
                await trio.lowlevel.wait_readable(self.poller.fileno())
            finally:
                self._waiting = False
        if self._closed:
            return False
        try:
            self._turn()
        except Exception as error:  # noqa: BLE001
            # Whatever it is, `run` raises it, and not the application's call that led.
            self._crash = error
            self._runs = False
            self._hub.rouse()
        return self._runs

    async def _keep_time(self) -> None:
        """Let the loop take a turn when a deadline has come, or soon after if there are many."""
        while True:
            self._not_before = self.now() + TIMER_SLACK
            with trio.CancelScope(deadline=self._next_alarm()) as self._alarm:
                await trio.sleep_forever()
            self._alarm = None
            self._due = True
            self.wake()
            while self._due:
                await self._timekeeper.rest()

    def _next_alarm(self) -> float:
        return max(self._next_deadline(), self._not_before)

    def _next_deadline(self) -> float:
        return self._timers[0][0] if self._timers else float("inf")

    # A turn

    def _turn(self) -> None:
        self.turns += 1
        now = self.now()
        limit = now + TURN_BUDGET
        ready = self._ready
        if not ready:
            ready.extend(self.poller.poll())
        idle = not ready
        while ready:
            call, mask = ready.popleft()
            call(mask)
            now = self.now()
            if now > limit:
                break
        if self._feeders:
            self._hand_over(limit)
            now = self.now()
        timers = self._timers
        if timers and timers[0][0] <= now and self._may_wake(now - timers[0][0], now, idle):
            self._woke = now
            self._run_timers(now, now + TURN_BUDGET)
        if self._due and self._next_deadline() > now:
            self._due = False
            self._timekeeper.rouse()
        if self._writers:
            self.flush()
        if self._turn_awaited:
            self._turn_awaited = False
            self._turn_ended.unpark_all()

    def _may_wake(self, late: float, now: float, idle: bool) -> bool:
        """Whether deadlines have their turn: when nothing else is in hand, or now and then. Answers
        may be among what is in hand, and whoever wakes before he hears them asks again.
        """
        if not self._feeders and (idle or self._is_idle()):
            return True
        return late > LATEST_WAKE and now - self._woke >= OVERDUE_EVERY

    def _is_idle(self) -> bool:
        """Whether no packet is in hand."""
        if not self._ready:
            self._ready.extend(self.poller.poll())
        return not self._ready

    def _run_timers(self, now: float, limit: float) -> None:
        timers = self._timers
        while timers and timers[0][0] <= now:
            heapq.heappop(timers)[2]()
            if self.now() > limit:
                return

    def _hand_over(self, limit: float) -> None:
        while self._feeders:
            self._feeders.popleft().run()
            if self.now() > limit:
                return

    # What adapters ask for

    def call_at(self, when: float, call: Callable[[], None]) -> None:
        """Call once, not before `when`, and soon after."""
        if when - self.now() >= FAR:
            when = ceil(when / GRAIN) * GRAIN
        heapq.heappush(self._timers, (when, next(self._order), call))
        if self._alarm is not None and when < self._alarm.deadline:
            self._alarm.deadline = self._next_alarm()

    def run_later(self, feeder: Feeder) -> None:
        """It can feed its outputs again."""
        self._feeders.append(feeder)
        self.wake()

    def run_soon(self, feeder: Feeder) -> None:
        """It can feed its outputs again, and comes before all that wait but the next."""
        self._feeders.insert(1, feeder)
        self.wake()

    def flush_later(self, writer: Writer) -> None:
        """It has something to write at the next flush."""
        self._writers.append(writer)

    def flush(self) -> None:
        """Write what was queued on any connection."""
        while self._writers:
            writers, self._writers = self._writers, []
            for writer in writers:
                writer.flush()

    def flush_lone(self) -> None:
        """Write now what an application has just sent, unless it has sent before in this turn, or
        several times in the last one: then more may follow, and the loop's next turn writes all of
        it at once.
        """
        if self._sent_in == self.turns:
            self._sends += 1
        else:
            busy = self._sends > 1 and self._sent_in == self.turns - 1
            self._sent_in, self._sends = self.turns, 1
            if not busy:
                self.flush()
        if self._writers:
            self.wake()

    def flush_full(self) -> None:
        """Write now what has just filled an output: if the system takes it, whoever sends need not
        wait for a turn. Once in a turn: a write of which only a part is taken costs more.
        """
        if self._filled_in != self.turns:
            self._filled_in = self.turns
            self.flush()
        if self._writers:
            self.wake()

    def check_open(self) -> None:
        """Raises `trio.ClosedResourceError` once it is closed."""
        if self._closed:
            raise trio.ClosedResourceError("this host is closed; open another one")

    def close(self) -> None:
        """Take no more turns."""
        self._closed, self._runs = True, False
        self.wake()

    def release(self) -> None:
        """Close what it waits with, when nobody waits any more."""
        self._bell.close()
        self.poller.close()
