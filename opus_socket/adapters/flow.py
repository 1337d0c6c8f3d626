"""Bounded outputs: everything that a message can be handed to, and what happens when it is full.

Its one rule: no queue grows without bound, and no one waits without bound. An output (a neighbor's
link in one traffic class, an application's receive buffer) takes messages up to its limit in bytes.
Above it, its policy acts:

- *block*: the output says that it is closed. Whoever feeds it - a connection that is read, a
  sender - waits until it has drained to half, or by 128 KiB, if that is less; so pressure travels
  back to the source. An output that takes no byte for `stall_timeout` drops its newest messages
  instead, until it has drained to half: trees of different roots share links, and without that
  bound they would wait in a circle. What it feeds may be slow: who waits for a closed output is
  told from time to time when that last took something, and has not stalled if it is not long ago.
- *drop*: what does not fit is dropped at once.
- *evict*: the same, and an output that is full and takes no byte for `evict_timeout` is given up.

A feeder learns that an output is closed by what it has just put in, so an output holds its limit
and one read of each of its feeders at most (with what services make of that). Feeders that come
over a connection answer for what they put into a full one (see `backlog`), those that cannot wait
(datagrams, deadlines of services) find it full. What is dropped is counted and reported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from enum import StrEnum

from attrs import define, field, frozen

from opus_socket.core.addresses import LogicalAddress

OPENS_AFTER = 1 << 17
"""Bytes that a closed output gives away before it opens, or half of its limit, if that is less. Not
more, because what then comes at once should be less than what waits for it, so that those who wait
share it as they should."""

NEWS = 0.1
"""Seconds by which progress must be newer than what was known of, to be worth telling."""


class Overflow(StrEnum):
    """What a full output does."""

    BLOCK = "block"
    DROP = "drop"
    EVICT = "evict"


@frozen
class FlowSettings:
    """Limits of an output.

    Attributes:
        limit: bytes that it may hold before its policy acts.
        overflow: the policy.
        stall_timeout: seconds without progress after which a blocking output drops.
        evict_timeout: seconds without progress after which an evicting output is given up.
    """

    limit: int
    overflow: Overflow = Overflow.BLOCK
    stall_timeout: float = 2.0
    evict_timeout: float = 10.0


@frozen
class FlowStatistics:
    """An output's figures.

    Attributes:
        neighbor: whose link it is; None for the receive buffer of the application.
        traffic_class: whose messages it takes; None for the receive buffer, which takes all.
        queued: bytes that it holds.
        taken: messages that it accepted.
        dropped: messages that it refused or lost.
        discarded: messages that nobody wants, because the receive buffer is set to 0.
    """

    neighbor: LogicalAddress | None
    traffic_class: int | None
    queued: int
    taken: int
    dropped: int
    discarded: int


@frozen
class Dropped:
    """What outputs have lost.

    Attributes:
        messages: how many, of those in fragments each frame.
        size: bytes of their frames.
    """

    messages: int = 0
    size: int = 0


Losses = dict[str, Dropped]
"""What several outputs have lost together, by reason; it outlives them."""

_NOTHING = Dropped()


@define(eq=False)
class Output:
    """The accounting of one bounded output.

    Attributes:
        neighbor: whose it is; None for the application's receive buffer.
        settings: its limits.
        waiting: those who feed it and wait until it is open.
        attend: called when it begins to need somebody who looks at it from time to time.
        traffic_class: whose messages it takes; None for the receive buffer.
        weight: its share where it has to share what it feeds, 1 or more.
        losses: where it counts what it loses, with others.
        queued: bytes that it holds now.
        closed: whether its feeders have to wait.
        stalled: whether it drops what comes until it has drained to half.
        due: until when it is held back on purpose, which is no stall.
        gauge: a number that is another one when something was taken that is not released yet; None
            where everything is released as it is taken.
    """

    neighbor: LogicalAddress | None
    settings: FlowSettings
    attend: Callable[[], None]
    traffic_class: int | None = None
    weight: int = 1
    losses: Losses = field(factory=dict)
    queued: int = 0
    closed: bool = False
    taken: int = 0
    taken_size: int = 0
    dropped: int = 0
    dropped_size: int = 0
    discarded: int = 0
    reported: int = 0
    reason: str = "overflow"
    stalled: bool = False
    due: float = 0.0
    gauge: Callable[[], int] | None = None
    waiting: list[Intake] = field(factory=list, init=False)
    _opens_at: int = field(init=False)
    _progress: float = 0.0
    _gauged: int = 0

    def __attrs_post_init__(self) -> None:
        limit = self.settings.limit
        self._opens_at = max(limit // 2, limit - OPENS_AFTER)

    def admit(self, size: int, messages: int, now: float) -> bool:
        """Whether so many bytes in so many messages may come in; they count from now on."""
        queued, limit = self.queued, self.settings.limit
        if self.stalled or (queued >= limit and self.settings.overflow is not Overflow.BLOCK):
            self.lose(messages, size, "stalled" if self.stalled else "overflow")
            return False
        if not queued:
            self._progress = now
        self.queued = queued = queued + size
        self.taken += messages
        self.taken_size += size
        if queued >= limit and not self.closed:
            self.closed = self.settings.overflow is Overflow.BLOCK
            self.attend()
        return True

    def release(self, size: int, now: float) -> None:
        """So many bytes went out, or will never do."""
        self.queued -= size
        self._progress = now
        if self.closed and self.queued <= self._opens_at:
            self.open()
        elif self.stalled and self.queued * 2 <= self.settings.limit:
            self.stalled = False

    def lose(self, messages: int, size: int, reason: str) -> None:
        """Count messages that went no further, and the bytes of their frames."""
        if messages:
            reported = self.dropped == self.reported
            self.dropped += messages
            self.dropped_size += size
            self.reason = reason
            before = self.losses.get(reason, _NOTHING)
            self.losses[reason] = Dropped(before.messages + messages, before.size + size)
            if reported:
                self.attend()

    def open(self) -> None:
        """Whoever waits goes on; also said of an output that nobody looks after any more."""
        self.closed = False
        waiting, self.waiting = self.waiting, []
        for intake in waiting:
            intake.one_opened()

    def progress(self, now: float) -> float:
        """When it last took something, as far as is known; now if it is held back on purpose."""
        if self.gauge is not None:
            gauged = self.gauge()
            if gauged != self._gauged:
                self._gauged, self._progress = gauged, now
        return min(max(self._progress, self.due), now)

    def hear(self, when: float) -> bool:
        """What it feeds has taken something then; whether that is news."""
        if when < self._progress + NEWS:
            return False
        self._progress = when
        return True

    def overdue(self, now: float) -> bool:
        """Look for a stall. True when an evicting output is to be given up."""
        if self.queued == 0:
            return False
        idle = now - self.progress(now)
        if self.closed and idle >= self.settings.stall_timeout:
            self.stalled = True
            self.open()
        return self._evicts and idle >= self.settings.evict_timeout

    @property
    def needs_look(self) -> bool:
        """Whether something about it depends on the time that passes, or is not yet reported."""
        return self.closed or self.stalled or self._evicts or self.dropped != self.reported

    def unreported(self) -> int:
        """Messages lost since this was last asked."""
        count, self.reported = self.dropped - self.reported, self.dropped
        return count

    def statistics(self) -> FlowStatistics:
        """Figures so far."""
        return FlowStatistics(
            self.neighbor,
            self.traffic_class,
            self.queued,
            self.taken,
            self.dropped,
            self.discarded,
        )

    @property
    def _evicts(self) -> bool:
        return self.settings.overflow is Overflow.EVICT and self.queued >= self.settings.limit


def spread(output: Output, now: float) -> None:
    """Tell those who wait for a closed output when that last took something, and those who wait for
    what these feed, as far as it is news.
    """
    sources = [output]
    while sources:
        source = sources.pop()
        when = source.progress(now)
        for intake in source.waiting:
            sources += [fed for fed in intake.heard(when) if fed.hear(when)]


def attended_by_nobody() -> None:
    """For an output that time does not change: it drains, or is given up with its owner."""


def heard_by_nobody(when: float) -> Iterable[Output]:
    """For a feeder that others do not wait for."""
    return ()


@define(eq=False, repr=False)
class Intake:
    """Something that feeds outputs and must wait while one of them is closed.

    Args:
        resume: called when none of the outputs that it waits for is closed any more.
        heard: called now and then with the time at which one of them last took something; returns
            outputs that are held up as long as this waits.

    Attributes:
        blocked: whether it has to wait.
    """

    _resume: Callable[[], object]
    heard: Callable[[float], Iterable[Output]] = heard_by_nobody
    blocked: bool = field(default=False, init=False)
    _blockers: int = field(default=0, init=False)

    def wait_for(self, outputs: list[Output]) -> None:
        """Wait until each of these outputs is open; some may have opened meanwhile."""
        for output in outputs:
            if output.closed:
                self.blocked = True
                self._blockers += 1
                output.waiting.append(self)

    def one_opened(self) -> None:
        """One of the outputs is open now."""
        self._blockers -= 1
        if self._blockers == 0:
            self.blocked = False
            self._resume()
