"""Where the members of a benchmark's overlay are: in the plane, and in which process.

Its one rule: the first member sends. The first `here` of them are in the process that measures,
the others in a second one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from enum import StrEnum
from random import Random

from attrs import frozen

from opus_socket.simulator.checkers.delaunay import Point

ASKER, ANSWERER = (0, 0), (1, 0)
MIDDLE = 1000
WIDE = 1 << 30


class Way(StrEnum):
    """How messages are sent, and received.

    Attributes:
        BATCH: to all, by `send_batch` and `receive_batch`.
        SINGLE: to all, by `await send_to_all` and `async for`.
        LAST: to the last member, by `send_batch` and `receive_batch`.
    """

    BATCH = "batch"
    SINGLE = "single"
    LAST = "last"


@frozen
class Layout:
    """The members of an overlay, or of a tree of bare nodes.

    Attributes:
        points: their places.
        here: how many of them are in this process.
        way: how messages are sent.
        handover: whether members of one process share an endpoint, and hand messages over.
    """

    points: Sequence[Point]
    here: int
    way: Way = Way.BATCH
    handover: bool = False

    @property
    def split(self) -> bool:
        """Whether there is a second process."""
        return self.here < len(self.points)

    @property
    def own(self) -> range:
        """The numbers of the members that are here."""
        return range(self.here)

    @property
    def others(self) -> range:
        """The numbers of the members in the second process."""
        return range(self.here, len(self.points))

    def receives(self, number: int) -> bool:
        """Whether messages come out at that member."""
        return number == len(self.points) - 1 if self.way is Way.LAST else number > 0


def circle(count: int) -> list[Point]:
    """A point and so many others around it."""
    angles = [2 * math.pi * number / count for number in range(count)]
    around = [(MIDDLE * (1 + math.cos(angle)), MIDDLE * (1 + math.sin(angle))) for angle in angles]
    return [(MIDDLE, MIDDLE), *((round(x), round(y)) for x, y in around)]


def line(count: int) -> list[Point]:
    """So many points on a line."""
    return [(x, 0) for x in range(count)]


def scattered(count: int, seed: int) -> list[Point]:
    """So many points by chance: one near the middle, then the others from left to right."""
    rng = Random(seed)
    points: dict[Point, None] = {}
    while len(points) < count:
        points[rng.randrange(WIDE), rng.randrange(WIDE)] = None
    middle = min(points, key=lambda point: math.dist(point, (WIDE // 2, WIDE // 2)))
    return [middle, *sorted(point for point in points if point != middle)]
