"""The two small interfaces between a host and its adapters.

Its one rule: an adapter never waits and never decides. It is called when its sockets are ready,
hands what came to its `Switchboard`, and is told what to send. Every send is best effort: what
cannot go is counted, and the machines above repeat what must not get lost.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from opus_socket.adapters.address_cache import AddressCache
from opus_socket.adapters.flow import Output
from opus_socket.adapters.poller import Poller
from opus_socket.core.addresses import Contact
from opus_socket.core.dispatch import Piece
from opus_socket.core.effects import Kind
from opus_socket.core.message import HEADER_SIZE, VERSION, class_of, version_and_size
from opus_socket.core.parcel import Frames

READ_SIZE = 1 << 18
"""Bytes of one read."""

LONGEST_FRAME = 1 << 17
"""Bytes that a read buffer has room for beside one read: no header can promise more."""

EVERY_INDEX = -1
"""In a route: every member of the overlay, for what came from the multicast group. Never sent."""


class Route(NamedTuple):
    """From which virtual node to which, in which overlay: what `select` and a datagram's header
    say.

    Attributes:
        tag: the overlay's tag.
        to_index, from_index: virtual nodes at their endpoints.
    """

    tag: int
    to_index: int
    from_index: int


class Lane(NamedTuple):
    """The messages of a route in one traffic class: what stays in order, waits and is paused.

    Attributes:
        route: between which virtual nodes.
        traffic_class: 0..255.
    """

    route: Route
    traffic_class: int


class Writer(Protocol):
    """Something that writes what is queued when it is told to."""

    def flush(self) -> None:
        """Write what can be written now."""


class Feeder(Protocol):
    """Something that feeds outputs, and had to wait until they are open."""

    def run(self) -> None:
        """Feed them, as far as they take it."""


class Switchboard(Protocol):
    """What an adapter sees of its host."""

    poller: Poller
    buffer: bytearray
    """Where every read goes; its content is gone with the next read."""
    address_cache: AddressCache

    def now(self) -> float:
        """Seconds, monotonic."""

    def call_at(self, when: float, call: Callable[[], None]) -> None:
        """Call once, not before `when`."""

    def message(self, route: Route, kind: Kind, body: bytes, sender: Contact) -> None:
        """A protocol, rendezvous or measurement message came."""

    def frames(
        self, route: Route, frames: Frames, sender: Contact, blockers: list[Output] | None
    ) -> tuple[int, str | None]:
        """Overlay messages came.

        Args:
            route: whom they are for and from.
            frames: zero or more whole frames, and in a buffer perhaps a part of one.
            sender: where they came from.
            blockers: outputs that are closed now are added to it. None when whoever feeds them
                cannot wait: then a closed output takes nothing.

        Returns:
            the bytes of whole frames that were handled, and what was wrong with the next one.
        """

    def digest(self, tag: int) -> bytes | None:
        """The digest of the key attributes of an overlay that has members here."""

    def refuse(self, kind: str, tag: int | None = None) -> None:
        """Count bytes that break the protocol."""

    def run_later(self, feeder: Feeder) -> None:
        """It can feed its outputs again; to be said once until its `run`."""

    def flush_later(self, writer: Writer) -> None:
        """It has something to write at the next flush; to be said once until then."""

    def flush(self) -> None:
        """Write what was queued while the frames of the buffer were handled."""


class Link(Protocol):
    """The way from one member here to one neighbor, in one traffic class."""

    output: Output

    def push(self, pieces: Sequence[Piece], size: int, frames: int) -> None:
        """Queue whole frames, or drop and count them. Views are copied or written before the
        next read.
        """

    def evict(self) -> None:
        """Give up what is queued: the neighbor has taken nothing for too long."""

    def close(self) -> None:
        """The neighbor is none any more."""


class Carrier(Link, Protocol):
    """A link that hands what it is given to the wire, or to another member."""

    def hand_on(self, pieces: Sequence[Piece], size: int, frames: int) -> None:
        """Queue whole frames that its output has admitted before."""


@contextmanager
def closed_on_failure(sock: socket.socket) -> Iterator[socket.socket]:
    """Close a socket if it cannot be set up. For whatever reason, because nobody else has it yet
    who could close it.
    """
    try:
        yield sock
    except BaseException:
        sock.close()
        raise


def whole_frames(data: memoryview) -> tuple[int, str | None]:
    """The bytes of whole frames at the beginning of `data`, and what is wrong with the next one."""
    start, end = 0, len(data)
    while end - start >= HEADER_SIZE:
        version, length = version_and_size(data, start)
        if version != VERSION:
            return start, "version"
        if start + length > end:
            break
        start += length
    return start, None


def begins_cut(data: memoryview) -> bool:
    """Whether not even the first frame of `data` is there as a whole, and nothing is wrong with it
    so far.
    """
    if not HEADER_SIZE <= len(data) < LONGEST_FRAME:
        return len(data) < HEADER_SIZE
    version, length = version_and_size(data, 0)
    return version == VERSION and length > len(data)


def split_classes(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Whole frames in parts of one traffic class: the class of each part, and the part."""
    start = end = 0
    known: int | None = None
    while end < len(data):
        traffic_class = class_of(data[end:])
        if known is not None and traffic_class != known:
            yield known, data[start:end]
            start = end
        known = traffic_class
        end += version_and_size(data, end)[1]
    if known is not None:
        yield known, data[start:end]


def split_frames(data: memoryview, maximum: int) -> Iterator[tuple[memoryview, int]]:
    """Whole frames in parts of at most `maximum` bytes, each with the number of its frames.

    A frame that is longer by itself is a part of its own.
    """
    start = end = frames = 0
    while end < len(data):
        _, length = version_and_size(data, end)
        if frames and end + length - start > maximum:
            yield data[start:end], frames
            start, frames = end, 0
        end += length
        frames += 1
    if frames:
        yield data[start:end], frames
