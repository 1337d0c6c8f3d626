"""Whose turn it is: messages that wait for bandwidth, link by link.

Its one rule: links that share a bucket share it alike. They take turns, a quantum of bytes each
(surplus round robin: who took more has so much less in its next turn). Who waits for a bucket is
overtaken by those who do without that bucket, and by nobody else; so a long message starves no
more than a short one, and no bucket stands full because another one is empty.

The driver's part, whenever something was queued or `next_at` has come:

    while (flow := shaper.next(now)) is not None:
        hand on the part of `flow` that its `head` has just named
    be back at shaper.next_at
"""

from __future__ import annotations

from math import inf
from typing import Protocol

from attrs import define, field

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.buckets import Bucket, Buckets, Direction

QUANTUM = 1 << 12
"""Bytes of a turn."""

PART = 1 << 14
"""Bytes above which what goes at once is cut, if it can be."""

SHARE = 4
"""What goes at once is at most one of so many parts of a burst, so that it goes evenly."""


class Flow(Protocol):
    """Messages of one link in one direction, in their order."""

    @property
    def direction(self) -> Direction:
        """In or out."""

    @property
    def link(self) -> LogicalAddress | None:
        """The neighbor at the other end; None for somebody who is none."""

    def head(self, most: int) -> int:
        """Bytes of the part that goes next, 0 when nothing can go.

        Args:
            most: it is no longer than that, unless a single message is.
        """


@define(eq=False)
class Shaper:
    """The flows of one member, and the buckets that pay for them.

    Attributes:
        buckets: its limits.
        next_at: when a part can go at the earliest; inf when none waits for time to pass. Known
            once `next` has returned None.
    """

    buckets: Buckets
    next_at: float = field(default=inf, init=False)
    _turns: dict[Flow, int] = field(factory=dict, init=False)

    @property
    def waiting(self) -> tuple[Flow, ...]:
        """The flows that wait, in the order of their turns."""
        return tuple(self._turns)

    def charge(
        self, direction: Direction, link: LogicalAddress | None, size: int, now: float
    ) -> None:
        """Pay for a control message, which waits for nothing: what follows waits the longer."""
        for bucket in self.buckets.paying(direction, link):
            bucket.pay(size, now)

    def passes(
        self, direction: Direction, link: LogicalAddress | None, size: int, now: float
    ) -> bool:
        """Whether messages may go at once, and are paid for: nothing limits them, or nobody waits
        and there is enough for all of them. Nothing of their own flow may be waiting.
        """
        buckets = self.buckets.paying(direction, link)
        if not buckets:
            return True
        if self._turns:
            return False
        if any(bucket.holds(now) < size for bucket in buckets):
            return False
        for bucket in buckets:
            bucket.pay(size, now)
        return True

    def enlist(self, flow: Flow) -> None:
        """Let a flow that has something to go take its turns, until `head` says 0."""
        self._turns.setdefault(flow, QUANTUM)

    def dismiss(self, flow: Flow) -> None:
        """Let it take no more turns; does nothing when it takes none."""
        self._turns.pop(flow, None)

    def next(self, now: float) -> Flow | None:
        """The flow whose next part goes now, which is paid for; None when none can."""
        while (found := self._first_ready(now)) is not None:
            flow, size, buckets = found
            if self._turns[flow] > 0:
                for bucket in buckets:
                    bucket.pay(size, now)
                self._turns[flow] -= size
                if self._turns[flow] <= 0:
                    self._end_turn(flow)
                return flow
            # It took this turn in advance.
            self._end_turn(flow)
        return None

    def _first_ready(self, now: float) -> tuple[Flow, int, list[Bucket]] | None:
        """The first flow that can pay, the bytes of its next part, and what pays for them."""
        self.next_at = inf
        wanted: list[Bucket] = []
        for flow in self.waiting:
            buckets = self.buckets.paying(flow.direction, flow.link)
            size = flow.head(min([PART, *(int(bucket.depth) // SHARE for bucket in buckets)]))
            if not size:
                del self._turns[flow]
                continue
            ready = max([bucket.ready_at(size) for bucket in buckets], default=-inf)
            if ready > now:
                # Nobody behind may take what it waits for last.
                wanted += [bucket for bucket in buckets if bucket.ready_at(size) == ready]
                self.next_at = min(self.next_at, ready)
            elif not any(bucket in wanted for bucket in buckets):
                return flow, size, buckets
        return None

    def _end_turn(self, flow: Flow) -> None:
        """The next ones take theirs, and then it may have another quantum."""
        self._turns[flow] = self._turns.pop(flow) + QUANTUM
