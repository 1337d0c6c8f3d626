"""Bandwidth that a member may use: token buckets, for its node and for each of its links.

Its one rule: a message goes only when all of its buckets can pay for it, and then all of them pay
at once. A bucket fills at its rate up to what the rate brings in one interval. A message that is
longer than that waits for a full bucket and leaves it in debt, so a burst is never longer than
`max(rate * interval, longest message)`, and the long-run rate is exact whatever is sent.

A bucket is one number, the instant at which it will be full again, so both questions have an
answer without a loop: may this go now (a real socket), and from when on may it (the simulator).

Source: iOverlay (Li, Guo, Wang, Middleware 2004), emulation of bandwidth availability: per link,
per node incoming and outgoing, per node in total; changed at run time.
"""

from __future__ import annotations

from enum import StrEnum
from math import inf
from typing import Literal

from attrs import define, field, frozen

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.requests import finite, shown
from opus_socket.errors import LocalProtocolError

MAX_RATE = 10**15
"""Bytes a second above which nothing is limited."""

INTERVAL = 0.1
"""Seconds whose share of the rate a bucket can hold."""


class Direction(StrEnum):
    """Which way messages go, as a member sees it."""

    IN = "in"
    OUT = "out"
    TOTAL = "total"


DirectionName = Literal["in", "out", "total"]
"""A direction as callers may write it."""


@frozen
class Limit:
    """How many bytes a second a node or a link may carry.

    Attributes:
        direction: of the messages that are limited; `total` is both together.
        rate: bytes a second, 1 to 10^15.
        link: the neighbor at the other end of the link; None for the node as a whole.

    Raises:
        LocalProtocolError: another direction, a rate that is no number within bounds, or a link
            that is limited in total.
    """

    direction: Direction = field()
    rate: float = field()
    link: LogicalAddress | None = None

    def __attrs_post_init__(self) -> None:
        check_direction(self.direction, self.link)
        if not _is_rate(self.rate):
            raise LocalProtocolError(
                f"a bandwidth of {shown(self.rate)}; a number of at least 1 and at most 10^15 "
                "(bytes a second) is allowed, and None for no limit"
            )


@frozen
class Bandwidth:
    """The limits that a member begins with.

    Attributes:
        limits: one for each direction of the node and of each link that is limited.
        interval: seconds whose share of its rate each bucket can hold.
    """

    limits: tuple[Limit, ...] = ()
    interval: float = INTERVAL


@define(eq=False)
class Bucket:
    """What one limit allows.

    Attributes:
        rate: bytes a second.
        interval: seconds that an empty bucket takes to fill.
    """

    rate: float
    interval: float
    _full_at: float = -inf

    @property
    def depth(self) -> float:
        """Bytes that it holds when it is full."""
        return self.rate * self.interval

    def holds(self, now: float) -> float:
        """Bytes that it holds; below 0 when it has paid in advance."""
        return self.depth - max(0.0, self._full_at - now) * self.rate

    def ready_at(self, size: int) -> float:
        """The instant from which on it can pay so many bytes, which may be past."""
        return self._full_at - max(0.0, self.interval - size / self.rate)

    def pay(self, size: int, now: float) -> None:
        """Pay so many bytes, if need be in advance."""
        self._full_at = max(self._full_at, now) + size / self.rate

    def change(self, rate: float, now: float) -> None:
        """Fill at another rate from now on; it keeps what it holds and has room for."""
        held = self.holds(now)
        self.rate = rate
        self._full_at = now + (self.depth - min(held, self.depth)) / rate


@define(eq=False)
class Buckets:
    """The buckets of one member.

    Attributes:
        interval: seconds that an empty bucket takes to fill.
        each: the bucket of each limit, by its direction and link.
    """

    interval: float = INTERVAL
    each: dict[tuple[Direction, LogicalAddress | None], Bucket] = field(factory=dict, init=False)

    @classmethod
    def of(cls, bandwidth: Bandwidth) -> Buckets:
        """Full buckets for these limits."""
        made = cls(bandwidth.interval)
        for limit in bandwidth.limits:
            made.each[limit.direction, limit.link] = Bucket(limit.rate, made.interval)
        return made

    def __bool__(self) -> bool:
        """Whether anything is limited."""
        return bool(self.each)

    @property
    def limits(self) -> tuple[Limit, ...]:
        """What is limited now, in the order in which it first was."""
        return tuple(Limit(way, bucket.rate, link) for (way, link), bucket in self.each.items())

    def limit(
        self,
        direction: Direction | DirectionName,
        link: LogicalAddress | None,
        rate: float | None,
        now: float,
    ) -> None:
        """Put a limit in the place of the one that there was, or take it away.

        Args:
            direction: of the messages that are limited.
            link: the neighbor at the other end of the link; None for the node as a whole.
            rate: bytes a second; None for no limit.

        Raises:
            LocalProtocolError: as `Limit`; the limits are what they were.
        """
        key = (check_direction(direction, link), link)
        if rate is None:
            self.each.pop(key, None)
            return
        rate = Limit(key[0], rate, link).rate
        bucket = self.each.get(key)
        if bucket is None:
            self.each[key] = Bucket(rate, self.interval)
        else:
            bucket.change(rate, now)

    def paying(self, direction: Direction, link: LogicalAddress | None) -> list[Bucket]:
        """Those that pay for a message.

        Args:
            direction: in or out.
            link: the neighbor that it comes from or goes to; None for somebody else.
        """
        keys: list[tuple[Direction, LogicalAddress | None]] = [
            (direction, None),
            (Direction.TOTAL, None),
        ]
        if link is not None:
            keys.append((direction, link))
        return [self.each[key] for key in keys if key in self.each]


def check_direction(direction: object, link: LogicalAddress | None) -> Direction:
    """The direction that a caller names.

    Raises:
        LocalProtocolError: there is no such direction, or a link has none of that name.
    """
    allowed = [way for way in Direction if link is None or way is not Direction.TOTAL]
    if direction not in allowed:
        words = ", ".join(f"{way.value!r}" for way in allowed)
        whose = "the node" if link is None else "a link"
        raise LocalProtocolError(
            f"a bandwidth of {whose} in direction {str(direction)!r}; {words} are allowed"
        )
    return Direction(str(direction))


def _is_rate(given: object) -> bool:
    rate = finite(given)
    return rate is not None and 1 <= rate <= MAX_RATE
