"""What members of an aggregation tell each other, as bytes.

Its one rule: whatever cannot have been written here is refused by name. Three kinds, after a byte
that says which: a `Round` goes from the root to all, a `Report` from a member to its parent, an
`Outcome`, if it is wanted, from the root to all.
"""

from __future__ import annotations

import struct
from itertools import pairwise

from attrs import frozen

from opus_socket.core.addresses import LogicalAddress
from opus_socket.errors import RemoteProtocolError
from opus_socket.services.aggregates import MAX_DEPTH, MAX_EDGES, MAX_VALUE, Aggregate, Partial

MAX_NAME = 64
"""Bytes of a name, in UTF-8."""

_KIND = struct.Struct(">BQI")
_ROUND = struct.Struct(">HHBH")
_OUTCOME = struct.Struct(">BH")


@frozen
class Round:
    """The root asks for values.

    Attributes:
        query: the root's number for what it collects, of which no other root has an equal one.
        number: of the round, from 1.
        hops: the hop limit that the message was sent with, from which depths are told.
        levels: how deep the tree is thought to be.
        name: of what values are wanted.
        edges: of the histogram.
    """

    query: int
    number: int
    hops: int
    levels: int
    name: str
    edges: tuple[float, ...]

    @property
    def wire(self) -> bytes:
        """The body of a message."""
        name = self.name.encode()
        head = _KIND.pack(0, self.query, self.number)
        return b"".join(
            (
                head,
                _ROUND.pack(self.hops, self.levels, len(name), len(self.edges)),
                name,
                _doubles(self.edges),
            )
        )


@frozen
class Report:
    """A member tells its parent of its part of the tree; `partial` is still bytes, because only
    who knows the query can read it.
    """

    query: int
    number: int
    partial: bytes

    @property
    def wire(self) -> bytes:
        """The body of a message."""
        return _KIND.pack(1, self.query, self.number) + self.partial


@frozen
class Outcome:
    """The root tells everybody what came out."""

    query: int
    number: int
    name: str
    edges: tuple[float, ...]
    partial: Partial

    @property
    def wire(self) -> bytes:
        """The body of a message."""
        name = self.name.encode()
        head = _KIND.pack(2, self.query, self.number)
        sizes = _OUTCOME.pack(len(name), len(self.edges))
        return b"".join((head, sizes, name, _doubles(self.edges), self.partial.wire))

    def aggregate(self, root: LogicalAddress) -> Aggregate:
        """The same for an application."""
        partial, some = self.partial, self.partial.members > 0
        return Aggregate(
            name=self.name,
            root=root,
            round=self.number,
            members=partial.members,
            idle=partial.idle,
            missing=partial.missing,
            sum=partial.total,
            minimum=partial.minimum if some else None,
            maximum=partial.maximum if some else None,
            mean=partial.total / partial.members if some else None,
            edges=self.edges,
            histogram=partial.counts,
        )


def read(body: bytes) -> Round | Report | Outcome:
    """What a body says.

    Raises:
        RemoteProtocolError: nothing that was written here.
    """
    try:
        kind, query, number = _KIND.unpack_from(body)
        rest = body[_KIND.size :]
        if kind == 0:
            hops, levels, length, count = _ROUND.unpack_from(rest)
            name, edges, rest = _named(rest[_ROUND.size :], length, count)
            fair = 1 <= hops <= MAX_DEPTH and levels <= MAX_DEPTH and number > 0
            if rest or not fair:
                raise RemoteProtocolError("bad_round", f"{hops} hops, {levels} levels")
            return Round(query, number, hops, levels, name, edges)
        if kind == 1:
            return Report(query, number, rest)
        if kind == 2:
            length, count = _OUTCOME.unpack_from(rest)
            name, edges, rest = _named(rest[_OUTCOME.size :], length, count)
            return Outcome(query, number, name, edges, Partial.from_wire(rest, edges))
    except struct.error:
        raise RemoteProtocolError("truncated", f"{len(body)} bytes") from None
    raise RemoteProtocolError("kind", f"{kind}")


def is_name(name: str) -> bool:
    """Whether it may name what is collected."""
    try:
        return 1 <= len(name.encode()) <= MAX_NAME
    except UnicodeEncodeError:
        return False


def are_edges(edges: tuple[float, ...]) -> bool:
    """Whether they may be the edges of a histogram: ascending, and not too many."""
    fair = all(-MAX_VALUE <= edge <= MAX_VALUE for edge in edges)
    return fair and len(edges) <= MAX_EDGES and all(a < b for a, b in pairwise(edges))


def _named(body: bytes, length: int, count: int) -> tuple[str, tuple[float, ...], bytes]:
    """The name, the edges, and the bytes that follow."""
    if len(body) < length + 8 * count:
        raise RemoteProtocolError("truncated", f"{len(body)} bytes")
    try:
        name = body[:length].decode()
    except UnicodeDecodeError:
        raise RemoteProtocolError("bad_name", "not UTF-8") from None
    end = length + 8 * count
    edges = struct.unpack(f">{count}d", body[length:end])
    if not is_name(name) or not are_edges(edges):
        raise RemoteProtocolError("bad_name", f"{length} bytes, {count} edges")
    return name, edges, body[end:]


def _doubles(numbers: tuple[float, ...]) -> bytes:
    return struct.pack(f">{len(numbers)}d", *numbers)
