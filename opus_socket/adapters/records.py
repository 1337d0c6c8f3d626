"""Records: what the bytes of a connection are made of.

Its one rule: the layout stands here and nowhere else. A record is `u8 kind | u24 length | body`;
`open` introduces the endpoint at the other end and an overlay that it has members of, `select`
says between which virtual nodes the records that follow go, `pause` and `resume` say of which
lane, a route and a traffic class, the other end wants no overlay messages for now, and `progress`
how long ago (u32, in milliseconds) something was taken of what a paused lane waits for. The overlay
messages of one record are of one class, which their first one names.
"""

from __future__ import annotations

import struct

from opus_socket.adapters.base import Lane, Route
from opus_socket.core.addresses import WORD_MAX, Endpoint
from opus_socket.core.effects import Kind
from opus_socket.core.wire import encode_plain
from opus_socket.errors import RemoteProtocolError

VERSION = 1
HEAD = struct.Struct(">I")
HEAD_SIZE = HEAD.size
_WORD = 4


def record_head(kind: Kind, length: int) -> bytes:
    """The four bytes before a record's body."""
    return HEAD.pack(kind << 24 | length)


def record(kind: Kind, body: bytes) -> bytes:
    """A whole record."""
    return record_head(kind, len(body)) + body


def open_record(local: Endpoint, tag: int, digest: bytes) -> bytes:
    """The record that introduces an endpoint and an overlay that has members there."""
    return record(Kind.OPEN, encode_plain([VERSION, local.wire, tag, digest]))


def select_record(route: Route) -> bytes:
    """The record that says between which virtual nodes those go that follow."""
    return record(Kind.SELECT, route_bytes(route))


def route_bytes(route: Route) -> bytes:
    """A route, as it stands in `select`."""
    return b"".join([word.to_bytes(_WORD) for word in route])


def lane_bytes(lane: Lane) -> bytes:
    """A lane, as it stands in `pause` and `resume`: its route and its traffic class."""
    return route_bytes(lane.route) + lane.traffic_class.to_bytes(1)


def parse_lane(body: bytes, kind: str) -> Lane:
    """The lane in the body of a `pause` or `resume`.

    Raises:
        RemoteProtocolError: `kind`; the body has another length.
    """
    return Lane(parse_route(body[:-1], kind), body[-1])


def progress_bytes(lane: Lane, age: float) -> bytes:
    """The body of a `progress`: a lane, and so many seconds."""
    return lane_bytes(lane) + min(round(age * 1000), WORD_MAX).to_bytes(_WORD)


def parse_progress(body: bytes) -> tuple[Lane, float]:
    """The lane in the body of a `progress`, and the seconds.

    Raises:
        RemoteProtocolError: the body has another length.
    """
    return parse_lane(body[:-_WORD], "bad_progress"), int.from_bytes(body[-_WORD:]) / 1000


def parse_route(body: bytes, kind: str) -> Route:
    """The route in the body of a `select`.

    Raises:
        RemoteProtocolError: `kind`; the body has another length.
    """
    if len(body) != 3 * _WORD:
        raise RemoteProtocolError(kind, f"{len(body)} bytes")
    return Route(*[int.from_bytes(body[at : at + _WORD]) for at in range(0, len(body), _WORD)])
