"""The records of a connection: what is read from it, taken apart.

Its one rule: nothing is believed and nothing is kept. Of a record of overlay messages whole frames
are handed on as they come, of an unknown one nothing; no other record is longer than a datagram's
body. What breaks the protocol ends the connection.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from opus_socket.adapters.backlog import Backlogs
from opus_socket.adapters.base import Lane, Route, Switchboard, begins_cut
from opus_socket.adapters.flow import Output
from opus_socket.adapters.records import (
    HEAD,
    HEAD_SIZE,
    VERSION,
    parse_lane,
    parse_progress,
    parse_route,
)
from opus_socket.core.addresses import WORD_MAX, Contact, Endpoint
from opus_socket.core.effects import Kind
from opus_socket.core.key_attributes import DIGEST_LENGTH
from opus_socket.core.message import HEADER_SIZE, class_of
from opus_socket.core.wire import MAX_BODY, decode_plain
from opus_socket.errors import RemoteProtocolError

MAX_OVERLAYS = 512
"""How many overlays one connection may be opened for."""

# Plain numbers: to look up and compare members of an enumeration costs more.
_OVERLAY = int(Kind.OVERLAY)
_TAKEN_WHOLE = frozenset(int(kind) for kind in Kind) - {_OVERLAY}


@define(eq=False, repr=False)
class RecordReader:
    """Takes what comes on one connection apart.

    Args:
        host: whom messages are handed to.
        backlogs: whom frames are handed to.
        remote: the endpoint at the other end; None until it has said so.
        opened: called whenever an endpoint has introduced itself.
        regulated: called with a lane and whether the other end has paused it.
        progressed: called with a lane and how long ago, in seconds, something was taken of what it
            waits for there.

    Attributes:
        carried: set when a message was handed on; whoever looks at it clears it.
    """

    host: Switchboard
    backlogs: Backlogs
    remote: Endpoint | None
    opened: Callable[[], None]
    regulated: Callable[[Lane, bool], None]
    progressed: Callable[[Lane, float], None]
    carried: bool = field(default=False, init=False)
    _digests: dict[int, bytes] = field(factory=dict, init=False)
    _route: Route | None = field(default=None, init=False)
    _lane: Lane | None = field(default=None, init=False)
    _sender: Contact | None = field(default=None, init=False)
    _left: int = field(default=0, init=False)
    _begins: bool = field(default=False, init=False)
    _skipping: bool = field(default=False, init=False)

    def take(self, data: memoryview, blockers: list[Output]) -> int:
        """Handle whole records and whole frames; the bytes that are done with.

        Args:
            data: what came, after what the last call was not done with.
            blockers: outputs that must open before more is read are added to it.

        Raises:
            RemoteProtocolError: the other end breaks the protocol.
        """
        offset, total = 0, len(data)
        while True:
            left = self._left
            if not left:
                body = offset + HEAD_SIZE
                if body > total:
                    return offset
                [head] = HEAD.unpack_from(data, offset)
                kind, left = head >> 24, head & 0xFFFFFF
                if kind in _TAKEN_WHOLE:
                    if left > MAX_BODY:
                        raise RemoteProtocolError("oversize", f"a record of {left} bytes")
                    if body + left > total:
                        return offset
                    offset = body + left
                    self._take_whole(Kind(kind), bytes(data[body:offset]))
                    continue
                offset, self._left = body, left
                self._skipping, self._begins = not self._wants(kind), True
                if not left:
                    continue
            part = data[offset : offset + left]
            used = self._take_part(part, blockers) if part else 0
            offset += used
            self._left = left - used
            if self._left:
                return offset

    def _wants(self, kind: int) -> bool:
        """Whether the record that begins is overlay messages that may be handed on."""
        route = self._route
        if kind == _OVERLAY and route is not None:
            return self._agrees(route.tag)
        self.host.refuse("unselected" if kind == _OVERLAY else "unknown_kind")
        return False

    def _agrees(self, tag: int) -> bool:
        """Whether the other end has the key attributes that members here have."""
        if self._digests.get(tag) == self.host.digest(tag):
            return True
        self.host.refuse("key_attributes", tag)
        return False

    def _take_part(self, data: memoryview, blockers: list[Output]) -> int:
        """A part of a record of overlay messages, or of one that is skipped."""
        if self._skipping or self._route is None or self._sender is None:
            return len(data)
        lane = self._lane
        if self._begins:
            if len(data) < min(HEADER_SIZE, self._left):
                return 0
            traffic_class, self._begins = class_of(data), False
            if lane is None or lane.traffic_class != traffic_class:
                lane = self._lane = Lane(self._route, traffic_class)
        if len(data) < self._left and begins_cut(data):
            return 0
        assert lane is not None, "the first part of a record says which lane it is"
        used, broken = self.backlogs.take(lane, data, self._sender, blockers)
        if broken is None and used < len(data) == self._left:
            broken = "partial_frame"
        if broken is not None:
            raise RemoteProtocolError(broken, "in a record of overlay messages")
        if used:
            self.carried = True
        return used

    def _take_whole(self, kind: Kind, body: bytes) -> None:
        if kind is Kind.OPEN:
            self._take_open(body)
        elif kind is Kind.SELECT:
            self._take_select(body)
        elif kind in (Kind.PAUSE, Kind.RESUME):
            self.regulated(parse_lane(body, "bad_pause"), kind is Kind.PAUSE)
        elif kind is Kind.PROGRESS:
            self.progressed(*parse_progress(body))
        elif self._route is None or self._sender is None:
            self.host.refuse("unselected")
        elif kind is not Kind.PROTOCOL or self._agrees(self._route.tag):
            self.carried = True
            self.host.message(self._route, kind, body, self._sender)

    def _take_open(self, body: bytes) -> None:
        match decode_plain(body):
            case [int(version), bytes(wire), int(tag), bytes(digest), *_]:
                if version != VERSION or version is True:
                    raise RemoteProtocolError("bad_version", f"{version}, not {VERSION}")
            case _:
                raise RemoteProtocolError("bad_open", "not [version, endpoint, tag, digest]")
        if not 0 <= tag <= WORD_MAX or len(digest) not in (0, DIGEST_LENGTH):
            raise RemoteProtocolError("bad_open", "the tag or the digest")
        remote = Endpoint.from_wire(wire)
        if self.remote is None:
            self.remote = remote
        if tag not in self._digests and len(self._digests) >= MAX_OVERLAYS:
            raise RemoteProtocolError("bad_open", f"more than {MAX_OVERLAYS} overlays")
        # Most have what members here have: one object serves all of their connections.
        ours = self.host.digest(tag)
        self._digests[tag] = ours if ours == digest else digest
        self.opened()

    def _take_select(self, body: bytes) -> None:
        if self.remote is None:
            raise RemoteProtocolError("bad_select", "not opened")
        self._route, self._lane = parse_route(body, "bad_select"), None
        self._sender = Contact(None, 0, self._route.from_index, (self.remote,))
