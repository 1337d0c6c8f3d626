"""Overlay messages: their binary header, and one message as the bytes of its frame.

Its one rule: the layout stands in one table, `HEADER`, from which every shift, mask and struct
is derived. A message holds its frame's bytes and parses on access, and never changes: members of
one process may have the same one. A forwarding engine changes frames, but nothing of them except
their hop limit and the extensions that ask for it.

    byte 0      Version (0) 4 bits, LAS 2 bits, delivery mode 2 bits
    byte 1      Traffic Class          byte 2  Flow Label        byte 3  Next Header
    bytes 4-5   OL Message Length      bytes 6-7  Hop Limit
    bytes 8..   Source, (LAS + 1) * 4 bytes;   then Destination, as long
    then        extension headers, the last of them the payload

Length counts the bytes after Destination. Source: the overlay message of the HyperCast talk; the
widths are ours where it contradicts itself.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from attrs import field, frozen

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.extensions import (
    MAX_LENGTH,
    MESSAGE_ID,
    Code,
    Extension,
    parse_chain,
    recorded_route,
    serialize_chain,
)
from opus_socket.core.node import Mode
from opus_socket.errors import LocalProtocolError, RemoteProtocolError

HEADER = (
    ("version", 4),
    ("las", 2),
    ("mode", 2),
    ("traffic_class", 8),
    ("flow_label", 8),
    ("next_header", 8),
    ("length", 16),
    ("hop_limit", 16),
)
"""The common header: the name and width of each field, in bits, the first on the wire first."""

VERSION = 0
HEADER_SIZE = sum(width for _, width in HEADER) // 8
MODES = tuple(Mode)


def _shifts() -> dict[str, int]:
    left = 8 * HEADER_SIZE
    shifts = {}
    for name, width in HEADER:
        left -= width
        shifts[name] = left
    return shifts


SHIFT = _shifts()
"""How far right a header of 8 bytes, taken as one number, is shifted to reach each field."""

MASK = {name: (1 << width) - 1 for name, width in HEADER}
_LAS_SHIFT, _LAS_MASK = SHIFT["las"] - 8 * (HEADER_SIZE - 1), MASK["las"]
HOP_LIMIT_AT = HEADER_SIZE - 2 - SHIFT["hop_limit"] // 8


def fixed_size(las: int) -> int:
    """Bytes of the common header and both addresses."""
    return HEADER_SIZE + 8 * (las + 1)


def version_and_size(buffer: bytes | memoryview, offset: int) -> tuple[int, int]:
    """The version and whole length in bytes of the frame whose common header is at `offset`."""
    head = int.from_bytes(buffer[offset : offset + HEADER_SIZE])
    las = head >> SHIFT["las"] & MASK["las"]
    length = head >> SHIFT["length"] & MASK["length"]
    return head >> SHIFT["version"] & MASK["version"], fixed_size(las) + length


def class_of(frames: bytes | memoryview) -> int:
    """The traffic class of the first of these frames; 0 when not even its header is there."""
    return frames[1] if len(frames) >= HEADER_SIZE else 0


WORD_MASK = (
    MASK["version"] << SHIFT["version"]
    | MASK["las"] << SHIFT["las"]
    | MASK["next_header"] << SHIFT["next_header"]
) >> 32
"""What frames of one shape have in common in their first word."""


@frozen
class Shape:
    """The one shape of nearly all frames: message id, then raw payload or service.

    `frame` reads it in one go as (first word, Length, middle, sequence, head of the last
    extension): the middle is what a run of frames has in common, hop limit, addresses and
    incarnation. `middle` splits that into (hop limit, source, destination, head of the message
    id, incarnation). `alike` reads it as (what is before the sequence, sequence, head of the last
    extension), to compare frames of one length.

    Attributes:
        las: the LAS field.
        fixed: bytes before those that Length counts.
        size: bytes before the payload (or before a service's id).
        frame, middle, alike: as told above.
        first_word: what `first word & WORD_MASK` is.
        everybody: everybody's address on the wire, which nobody's messages come from.
    """

    las: int
    fixed: int = field(init=False)
    size: int = field(init=False)
    frame: struct.Struct = field(init=False)
    middle: struct.Struct = field(init=False)
    alike: struct.Struct = field(init=False)
    first_word: int = field(init=False)
    everybody: bytes = field(init=False)

    def __attrs_post_init__(self) -> None:
        address = 4 * (self.las + 1)
        middle = struct.Struct(f">H{address}s{address}s4sQ")
        frame = struct.Struct(f">IH{middle.size}sQI")
        word = VERSION << SHIFT["version"] | self.las << SHIFT["las"]
        word |= Code.MESSAGE_ID << SHIFT["next_header"]
        object.__setattr__(self, "fixed", fixed_size(self.las))
        object.__setattr__(self, "size", frame.size)
        object.__setattr__(self, "frame", frame)
        object.__setattr__(self, "middle", middle)
        object.__setattr__(self, "alike", struct.Struct(f">{6 + middle.size}sQI"))
        object.__setattr__(self, "first_word", word >> 32)
        object.__setattr__(self, "everybody", LogicalAddress.everybody(self.las).wire)

    def word(self, mode: Mode, traffic_class: int) -> int:
        """The first word of a frame of this shape."""
        head = mode << SHIFT["mode"] | traffic_class << SHIFT["traffic_class"]
        return self.first_word | head >> 32


SHAPES = tuple(Shape(las) for las in range(MASK["las"] + 1))


class OverlayMessage:
    """One overlay message: the bytes of its frame, parsed on access.

    Two are equal when their frames are. Make one with `parse`, `build`, or, from a frame that is
    known to be well formed, directly.

    Args:
        frame: header, extensions and payload.
        payload_at: where the payload starts, when that is known.
    """

    __slots__ = ("_chain", "_frame", "_payload_at")

    def __init__(self, frame: bytes, payload_at: int = 0) -> None:
        self._frame = frame
        self._payload_at = payload_at
        self._chain: tuple[Extension, ...] | None = None

    @property
    def frame(self) -> bytes:
        """Header, extensions and payload."""
        return self._frame

    @classmethod
    def parse(cls, frame: bytes) -> OverlayMessage:
        """The message in one whole frame, checked to its last byte.

        Raises:
            RemoteProtocolError: `truncated`, `version`, `bad_length` or `bad_extension`.
        """
        if len(frame) < HEADER_SIZE:
            raise RemoteProtocolError("truncated", f"{len(frame)} bytes")
        version, size = version_and_size(frame, 0)
        if version != VERSION:
            raise RemoteProtocolError("version", f"first byte {frame[0]:#04x}")
        if len(frame) < size:
            raise RemoteProtocolError("truncated", f"{len(frame)} of {size} bytes")
        if len(frame) > size:
            raise RemoteProtocolError("bad_length", f"{len(frame)} instead of {size}")
        message = cls(bytes(frame))
        _ = message.extensions
        return message

    @classmethod
    def build(
        cls,
        source: LogicalAddress,
        destination: LogicalAddress | None,
        mode: Mode,
        extensions: Sequence[Extension],
        *,
        hop_limit: int,
        traffic_class: int = 0,
        flow_label: int = 0,
    ) -> OverlayMessage:
        """A message of these parts.

        Args:
            source: who sends it.
            destination: whom it is for, with as many words; None for everybody.
            mode: how it is delivered.
            extensions: the chain, payload last.
            hop_limit: 0..65,535.
            traffic_class: 0..255.
            flow_label: 0..255.

        Raises:
            LocalProtocolError: a value out of range, or a chain that no receiver would accept.
        """
        if destination is None:
            destination = LogicalAddress.everybody(source.las)
        if destination.las != source.las:
            raise LocalProtocolError(
                f"{destination} has {len(destination)} words; {len(source)} are allowed, "
                f"as the source {source} has"
            )
        following, chain = serialize_chain(extensions, source.las)
        if len(chain) > MAX_LENGTH:
            raise LocalProtocolError(
                f"extensions and payload of {len(chain)} bytes; {MAX_LENGTH} are allowed"
            )
        values = {
            "version": VERSION,
            "las": source.las,
            "mode": mode,
            "traffic_class": traffic_class,
            "flow_label": flow_label,
            "next_header": following,
            "length": len(chain),
            "hop_limit": hop_limit,
        }
        head = 0
        for name, value in values.items():
            if not 0 <= value <= MASK[name]:
                raise LocalProtocolError(f"{name} {value}: 0 to {MASK[name]} are allowed")
            head |= value << SHIFT[name]
        return cls(head.to_bytes(HEADER_SIZE) + source.wire + destination.wire + chain)

    def _field(self, name: str) -> int:
        return (int.from_bytes(self._frame[:HEADER_SIZE]) >> SHIFT[name]) & MASK[name]

    @property
    def las(self) -> int:
        """Words of the addresses less one."""
        return self.frame[0] >> _LAS_SHIFT & _LAS_MASK

    @property
    def mode(self) -> Mode:
        """How it is delivered."""
        return MODES[self._field("mode")]

    @property
    def traffic_class(self) -> int:
        """Which queue it takes on its way, 0..255."""
        return self._field("traffic_class")

    @property
    def flow_label(self) -> int:
        """A mark that nobody here looks at, 0..255."""
        return self._field("flow_label")

    @property
    def hop_limit(self) -> int:
        """How many hops it had left when it arrived here, this one included."""
        return self._field("hop_limit")

    @property
    def source(self) -> LogicalAddress:
        """Who sent it."""
        end = HEADER_SIZE + 4 * (self.las + 1)
        return LogicalAddress.from_wire(self._frame[HEADER_SIZE:end])

    @property
    def destination(self) -> LogicalAddress:
        """Whom it is for; all ones when it is for everybody."""
        las = self.las
        return LogicalAddress.from_wire(self._frame[HEADER_SIZE + 4 * (las + 1) : fixed_size(las)])

    @property
    def extensions(self) -> tuple[Extension, ...]:
        """Everything behind the addresses."""
        if self._chain is None:
            las = self.las
            self._chain = parse_chain(self._frame, fixed_size(las), self._field("next_header"), las)
        return self._chain

    def extension(self, code: int) -> Extension | None:
        """The first extension with this code."""
        return next((each for each in self.extensions if each.code == code), None)

    @property
    def id(self) -> tuple[int, int] | None:
        """Its identity: the sender's incarnation, and a sequence number."""
        found = self.extension(Code.MESSAGE_ID)
        if found is None:
            return None
        incarnation, sequence = MESSAGE_ID.unpack(found.body)
        return incarnation, sequence

    @property
    def payload(self) -> bytes:
        """What its sender handed over: the raw payload, or the body for a service."""
        if self._payload_at:
            return self._frame[self._payload_at :]
        last = self.extensions[-1] if self.extensions else None
        if last is None or last.code not in (Code.RAW, Code.SERVICE):
            return b""
        return last.body if last.code == Code.RAW else last.body[4:]

    @property
    def is_usual(self) -> bool:
        """Whether it is known to have the usual shape: message id, then raw payload or service."""
        return self._payload_at > 0

    @property
    def size(self) -> int:
        """What it takes of a receive buffer, in bytes: headers and payload."""
        return len(self._frame)

    @property
    def service(self) -> int | None:
        """The id of the service that it is for; None when it is for the application."""
        last = self.extensions[-1] if self.extensions else None
        if last is None or last.code != Code.SERVICE:
            return None
        return int.from_bytes(last.body[:4])

    @property
    def route(self) -> tuple[LogicalAddress, ...]:
        """The members that forwarded it, as far as its route records tell."""
        return tuple(
            address
            for each in self.extensions
            if each.code == Code.ROUTE_RECORD
            for address in recorded_route(each.body)
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, OverlayMessage) and self._frame == other._frame

    def __hash__(self) -> int:
        return hash(self._frame)

    def __repr__(self) -> str:
        return (
            f"<OverlayMessage {self.mode.name.lower()} {self.source} -> {self.destination} "
            f"#{self.id} {len(self.payload)} bytes>"
        )
