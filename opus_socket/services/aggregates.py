"""Values that merge: what members report up a tree, and what the root makes of it.

Its one rule: merging is associative and commutative (but for the rounding of sums), so it does not
matter by which tree values meet; who merges nothing changes nothing.

Source: the aggregates of the algorithm notes, section 14 (dicast), which this shares.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_right
from collections.abc import Sequence

from attrs import evolve, frozen

from opus_socket.core.addresses import LogicalAddress
from opus_socket.errors import RemoteProtocolError

MAX_VALUE = 1e290
"""How large a value may be, either way: no sum over members leaves the range of numbers."""

MAX_EDGES = 256
MAX_DEPTH = 1024
"""Hops from the root that a message of a round travels at most."""

_MOST = (1 << 32) - 1
_PARTIAL = struct.Struct(">IIIHdddH")


@frozen
class Partial:
    """What is known of a part of the tree.

    Attributes:
        members: values that are merged.
        idle: members that take part and have no value.
        missing: members that were expected and did not report in time, as far as is known.
        deepest: the greatest depth of a member in it; the root's is 0.
        total, minimum, maximum: of the values; 0, inf and -inf without any.
        counts: how many values are below the first edge of the histogram, from there up to the
            second, and so on, and from the last edge up; empty without a histogram.
    """

    members: int = 0
    idle: int = 0
    missing: int = 0
    deepest: int = 0
    total: float = 0.0
    minimum: float = math.inf
    maximum: float = -math.inf
    counts: tuple[int, ...] = ()

    @classmethod
    def of(cls, value: float | None, edges: Sequence[float], depth: int) -> Partial:
        """What one member has to say.

        Args:
            value: None for none.
            edges: of the histogram; none for no histogram.
            depth: the member's.
        """
        counts = [0] * (len(edges) + 1 if edges else 0)
        if value is None:
            return cls(idle=1, deepest=depth, counts=tuple(counts))
        if edges:
            counts[bisect_right(edges, value)] = 1
        return cls(1, 0, 0, depth, value, value, value, tuple(counts))

    def merge(self, other: Partial) -> Partial:
        """Of two parts that have no member in common, what is known of both."""
        return Partial(
            self.members + other.members,
            self.idle + other.idle,
            self.missing + other.missing,
            max(self.deepest, other.deepest),
            self.total + other.total,
            min(self.minimum, other.minimum),
            max(self.maximum, other.maximum),
            tuple([a + b for a, b in zip(self.counts, other.counts, strict=True)]),
        )

    def without(self, missing: int) -> Partial:
        """The same, knowing of so many more that are missing."""
        return evolve(self, missing=self.missing + missing)

    @property
    def wire(self) -> bytes:
        """In a message. Counts above what 4 bytes hold are written as the largest number."""
        head = _PARTIAL.pack(
            *(min(each, _MOST) for each in (self.members, self.idle, self.missing)),
            self.deepest,
            self.total,
            self.minimum,
            self.maximum,
            len(self.counts),
        )
        return head + struct.pack(
            f">{len(self.counts)}I", *(min(each, _MOST) for each in self.counts)
        )

    @classmethod
    def from_wire(cls, body: bytes, edges: Sequence[float]) -> Partial:
        """The part in a message.

        Args:
            body: the rest of the message.
            edges: of the histogram that is collected.

        Raises:
            RemoteProtocolError: it is none, or such a one as no member of this query makes.
        """
        try:
            members, idle, missing, deepest, total, least, most, size = _PARTIAL.unpack_from(body)
            counts = struct.unpack(f">{size}I", body[_PARTIAL.size :])
        except struct.error:
            raise RemoteProtocolError("truncated", f"{len(body)} bytes") from None
        partial = cls(members, idle, missing, deepest, total, least, most, counts)
        if len(counts) != (len(edges) + 1 if edges else 0) or partial.deepest > MAX_DEPTH:
            raise RemoteProtocolError("bad_partial", f"{size} counts, depth {partial.deepest}")
        partial._check_values()
        return partial

    def _check_values(self) -> None:
        if self.members == 0:
            fair = (self.total, self.minimum, self.maximum) == (0.0, math.inf, -math.inf)
        else:
            # Comparisons with what is no number are false, so those are refused, too.
            fair = -MAX_VALUE <= self.minimum <= self.maximum <= MAX_VALUE
            fair = fair and abs(self.total) <= MAX_VALUE * self.members
        if not fair or (self.counts and sum(self.counts) != self.members):
            raise RemoteProtocolError("bad_partial", f"{self.members} members, {self.total}")


@frozen
class Aggregate:
    """A result: what the members of an overlay say of one name, in one round.

    Attributes:
        name: of what.
        root: who collected it.
        round: its number, from 1; later ones are higher.
        members: values that are in it, each exactly once.
        idle: members that were reached and had no value.
        missing: members that were expected and did not report in time: of each part of the tree
            that stayed silent as many as it had when it reported last, and one at least. Who never
            reported to anybody is not known to be missing.
        sum: of the values.
        minimum, maximum, mean: of the values; None without any.
        edges: of the histogram, ascending; empty without one.
        histogram: how many values are below the first edge, from there up to the second, and so on,
            and from the last edge up.
    """

    name: str
    root: LogicalAddress
    round: int
    members: int
    idle: int
    missing: int
    sum: float
    minimum: float | None
    maximum: float | None
    mean: float | None
    edges: tuple[float, ...]
    histogram: tuple[int, ...]
