"""Runs: frames that lie behind one another and take the same way.

Its one rule: what a run has in common is decided once. Its frames have the usual shape (message
id, then raw payload or service) and agree in everything but their length and their sequence
number, which counts up by one. Any other frame is a run of its own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence

from attrs import define, field

from opus_socket.core.dispatch import Piece
from opus_socket.core.extensions import FRAGMENT, MESSAGE_ID, Code
from opus_socket.core.message import (
    HEADER_SIZE,
    HOP_LIMIT_AT,
    MASK,
    SHIFT,
    WORD_MASK,
    OverlayMessage,
    Shape,
    version_and_size,
)
from opus_socket.errors import RemoteProtocolError

RAW_ID_HEAD = struct.pack(">BBH", Code.RAW, 0, MESSAGE_ID.size)
"""The head of a message id that raw payload follows."""

SERVICE_ID_HEAD = struct.pack(">BBH", Code.SERVICE, 0, MESSAGE_ID.size)
"""The head of a message id that a service's extension follows."""

SERVICE_SIZE = 4
"""Bytes of the service's id in front of a service's own."""

LONGEST_PIECE = 1 << 16
"""About how many bytes short frames are joined to."""

MODE_SHIFT, MODE_MASK = SHIFT["mode"] - 32, MASK["mode"]
CLASS_SHIFT, CLASS_MASK = SHIFT["traffic_class"] - 32, MASK["traffic_class"]
_BY_REFERENCE = 4096
_COPY_EACH = 4096
_BY_COLUMN = 16  # Of so many frames it costs less to write one byte of all at a time.
_HOP_LIMIT = struct.Struct(">H")


@define(eq=False)
class Run:
    """Frames that take the same way.

    Attributes:
        mode, traffic_class, hop_limit: of each of them, as they arrived.
        source, destination: addresses on the wire.
        incarnation: the sender's.
        first: the first sequence number.
        starts: where each frame starts in the buffer.
        stop: where the last one ends.
        is_service: whether they are for services.
        message: the parsed message of a frame without the usual shape.
        fragment: of fragments of one message, the index of the first one here and how many the
            message has; None of whole messages.
    """

    mode: int
    traffic_class: int
    hop_limit: int
    source: bytes
    destination: bytes
    incarnation: int
    first: int
    starts: Sequence[int]
    stop: int
    is_service: bool
    message: OverlayMessage | None = None
    fragment: tuple[int, int] | None = None
    _messages: list[OverlayMessage] | None = field(default=None, init=False)

    def part(self, index: int, count: int) -> Run:
        """The run of `count` of its frames from the one at `index`."""
        end, fragment = index + count, self.fragment
        return Run(
            self.mode,
            self.traffic_class,
            self.hop_limit,
            self.source,
            self.destination,
            self.incarnation,
            self.first + index,
            self.starts[index:end],
            self.starts[end] if end < len(self.starts) else self.stop,
            self.is_service,
            self.message,
            None if fragment is None else (fragment[0] + index, fragment[1]),
        )

    def onward(self, base: int) -> Run:
        """The same run one hop further, where `base` is the start of the buffer."""
        starts = self.starts
        return Run(
            self.mode,
            self.traffic_class,
            self.hop_limit - 1,
            self.source,
            self.destination,
            self.incarnation,
            self.first,
            [start - base for start in starts] if base else starts,
            self.stop - base,
            self.is_service,
            self.message,
            self.fragment,
        )

    def messages(self, buffer: memoryview, payload_at: int) -> list[OverlayMessage]:
        """Copies of its frames, as messages whose payload starts at `payload_at`; they are made
        once, and the list is not to be changed.
        """
        if self._messages is None:
            self._messages = self._copy(buffer, payload_at)
        return self._messages

    def _copy(self, buffer: memoryview, payload_at: int) -> list[OverlayMessage]:
        starts, base = self.starts, self.starts[0]
        if len(starts) == 1:
            return [OverlayMessage(buffer[base : self.stop].tobytes(), payload_at)]
        ends = [*starts[1:], self.stop]
        if self.stop - base >= _COPY_EACH * len(starts):
            return [
                OverlayMessage(buffer[start:end].tobytes(), payload_at)
                for start, end in zip(starts, ends, strict=True)
            ]
        # Short frames are cut from one copy of all, which costs less than a view of each.
        data = bytes(buffer[base : self.stop])
        return [
            OverlayMessage(data[start - base : end - base], payload_at)
            for start, end in zip(starts, ends, strict=True)
        ]

    def put_hop_limit(self, buffer: bytearray | memoryview, value: int) -> None:
        """Write a hop limit into each frame."""
        starts = self.starts
        if type(starts) is range and len(starts) >= _BY_COLUMN:
            for at, byte in enumerate(_HOP_LIMIT.pack(value), HOP_LIMIT_AT):
                column = slice(starts[0] + at, starts[-1] + at + 1, starts.step)
                buffer[column] = bytes((byte,)) * len(starts)
            return
        put = _HOP_LIMIT.pack_into
        for start in starts:
            put(buffer, start + HOP_LIMIT_AT, value)


def scan_run(buffer: memoryview, offset: int, shape: Shape, maximum: int) -> Run | None:
    """The longest run of usual frames at `offset`.

    Args:
        buffer: whole frames, and perhaps a part of one at the end.
        offset: where a frame starts.
        shape: of the overlay's addresses.
        maximum: the longest frame, in bytes.

    Returns:
        None when the frame there has another shape, is too long or is not there as a whole, or
        says that everybody sends it, which `parse_run` refuses.
    """
    end = len(buffer)
    last = end - shape.size
    if offset > last:
        return None
    fixed, unpack = shape.fixed, shape.frame.unpack_from
    empty = shape.size - fixed
    word, length, middle, first, head = unpack(buffer, offset)
    stop = offset + fixed + length
    if (
        word & WORD_MASK != shape.first_word
        or head != length - empty
        or stop > end
        or fixed + length > maximum
    ):
        return None
    hop_limit, source, destination, id_head, incarnation = shape.middle.unpack(middle)
    is_service = id_head == SERVICE_ID_HEAD
    shortest = empty + SERVICE_SIZE if is_service else empty
    if length < shortest or not (is_service or id_head == RAW_ID_HEAD):
        return None
    if source == shape.everybody:
        return None
    starts: Sequence[int] = (offset,)
    if stop <= last:
        # Most frames are as long as the one before, and have all that precedes the sequence alike.
        expected, step, alike = first + 1, stop - offset, shape.alike.unpack_from
        common, _, _ = alike(buffer, offset)
        whole = end - step
        while stop <= whole:
            next_common, sequence, next_head = alike(buffer, stop)
            if sequence != expected or next_common != common or next_head != head:
                break
            stop += step
            expected += 1
        starts = range(offset, stop, step)
        if stop <= last:
            known = word, middle, shortest
            *others, stop = _scan_others(buffer, stop, shape, maximum, known, expected)
            if others:
                starts = [*starts, *others]
    return Run(
        word >> MODE_SHIFT & MODE_MASK,
        word >> CLASS_SHIFT & CLASS_MASK,
        hop_limit,
        source,
        destination,
        incarnation,
        first,
        starts,
        stop,
        is_service,
    )


def _scan_others(
    buffer: memoryview,
    stop: int,
    shape: Shape,
    maximum: int,
    known: tuple[int, bytes, int],
    expected: int,
) -> list[int]:
    """Where the frames of a run start that come at `stop`, of whatever length, and at last where
    the run stops.

    Args:
        buffer, shape, maximum: as for `scan_run`.
        stop: where the run stops if there are none.
        known: the first word of each, the middle, and what Length is at least.
        expected: the sequence number of the first one.
    """
    word, middle, shortest = known
    fixed, empty, unpack = shape.fixed, shape.size - shape.fixed, shape.frame.unpack_from
    end = len(buffer)
    last = end - shape.size
    bounds = [stop]
    while stop <= last:
        # The head of the last extension is its length alone: nothing follows it, no flags.
        next_word, length, next_middle, sequence, head = unpack(buffer, stop)
        stop += fixed + length
        if (
            sequence != expected
            or next_middle != middle
            or next_word != word
            or head != length - empty
            or length < shortest
            or fixed + length > maximum
            or stop > end
        ):
            break
        bounds.append(stop)
        expected += 1
    return bounds


def parse_run(frame: bytes, las: int, start: int) -> Run:
    """The run of one frame that has not the usual shape.

    Args:
        frame: one whole overlay message.
        las: of the overlay's addresses.
        start: where the frame starts in the buffer.

    Raises:
        RemoteProtocolError: it is malformed, not for this overlay, or not to be forwarded.
    """
    message = OverlayMessage.parse(frame)
    if message.las != las:
        raise RemoteProtocolError("las", f"{message.las}")
    if message.source == message.source.everybody(las):
        raise RemoteProtocolError("bad_source", "everybody")
    identity = message.id
    if identity is None:
        raise RemoteProtocolError("no_id")
    if any(each.hop_by_hop and each.unknown_mandatory for each in message.extensions):
        raise RemoteProtocolError("unknown_extension")
    return run_of(message, identity, start)


def run_of(message: OverlayMessage, identity: tuple[int, int], start: int) -> Run:
    """The run of one parsed message, whose frame starts at `start` of the buffer."""
    half = 4 * (message.las + 1)
    fragment = message.extension(Code.FRAGMENT)
    return Run(
        message.mode,
        message.traffic_class,
        message.hop_limit,
        message.frame[HEADER_SIZE : HEADER_SIZE + half],
        message.frame[HEADER_SIZE + half : HEADER_SIZE + 2 * half],
        *identity,
        (start,),
        start + len(message.frame),
        message.service is not None,
        message,
        None if fragment is None else FRAGMENT.unpack(fragment.body),
    )


def make_frames(
    shape: Shape, word: int, middle: bytes, first: int, prefix: bytes, payloads: Sequence[bytes]
) -> list[bytes]:
    """Frames of the usual shape, in pieces that together hold whole frames.

    Short payloads are joined to pieces of about 64 KiB. Long ones are pieces by themselves: to
    copy them costs more than to write one piece more.

    Args:
        shape: of the overlay's addresses.
        word: the first word of each frame.
        middle: what they have in common (`Shape.middle`).
        first: the first sequence number.
        prefix: what stands before each payload.
        payloads: one a frame.
    """
    pack, size, empty = shape.frame.pack, shape.size, shape.size - shape.fixed
    before = len(prefix)
    pieces: list[bytes] = []
    parts: list[bytes] = []
    total = 0
    for sequence, payload in enumerate(payloads, first):
        body = before + len(payload)
        head = pack(word, empty + body, middle, sequence, body)
        if prefix:
            head += prefix
        if body >= _BY_REFERENCE:
            if parts:
                head = b"".join((*parts, head))
                parts, total = [], 0
            pieces += (head, payload)
            continue
        parts += (head, payload)
        total += size + body
        if total >= LONGEST_PIECE:
            pieces.append(b"".join(parts))
            parts, total = [], 0
    if parts:
        pieces.append(b"".join(parts))
    return pieces


def split_pieces(pieces: Sequence[Piece], maximum: int) -> Iterator[tuple[list[Piece], int, int]]:
    """Whole frames in parts of at most `maximum` bytes; nothing is copied.

    A frame that is longer by itself is a part of its own.

    Args:
        pieces: together whole frames, of which the header of each is in one piece.
        maximum: bytes of a part.

    Yields:
        The pieces of a part, its bytes and how many frames it holds.
    """
    part: list[Piece] = []
    size = frames = left = 0
    for piece in pieces:
        begin = at = 0
        while at < len(piece):
            if not left:
                _, left = version_and_size(piece, at)
                if frames and size + at - begin + left > maximum:
                    if at > begin:
                        part.append(memoryview(piece)[begin:at])
                    yield part, size + at - begin, frames
                    part, size, frames, begin = [], 0, 0, at
                frames += 1
            step = min(left, len(piece) - at)
            at += step
            left -= step
        part.append(memoryview(piece)[begin:] if begin else piece)
        size += at - begin
    if frames:
        yield part, size, frames
