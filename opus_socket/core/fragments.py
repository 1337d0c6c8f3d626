"""Fragments: messages that are longer than a frame, cut up and found again.

Its one rule: a fragment is a frame like any other, so relays, queues and duplicate windows treat it
like any other; only its two ends know more. A message of n fragments takes n consecutive sequence
numbers of its lane, and its identity is that of the first. Each carries, behind the message id, its
index and how many there are, and then a part of the payload as raw payload; of a service's message
each carries the service's id as well. All but the last carry equally much, the last carries no
more than these, and none carries nothing.

    message id (0x10), fragment (0x14): index u16, count u16, raw payload (0x05) or service (0x06)

`reassembly` puts them together. Source: ours; the messages of the HyperCast talk fit into a packet.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from attrs import field, frozen

from opus_socket.core.dispatch import Piece
from opus_socket.core.extensions import FRAGMENT, MESSAGE_ID, Code, Extension
from opus_socket.core.message import SHAPES, WORD_MASK, OverlayMessage, Shape
from opus_socket.core.runs import (
    CLASS_MASK,
    CLASS_SHIFT,
    LONGEST_PIECE,
    MODE_MASK,
    MODE_SHIFT,
    RAW_ID_HEAD,
    SERVICE_ID_HEAD,
    SERVICE_SIZE,
    Run,
    scan_run,
)

MAX_FRAGMENTS = 0xFFFF
"""How many fragments a message may have."""

FRAGMENT_ID_HEAD = struct.pack(">BBH", Code.FRAGMENT, 0, MESSAGE_ID.size)
"""The head of a message id that a fragment's extension follows."""

_RAW_NEXT = Code.RAW << 24 | FRAGMENT.size
_SERVICE_NEXT = Code.SERVICE << 24 | FRAGMENT.size


@frozen
class FragmentShape:
    """The usual shape of a fragment.

    `frame` reads it in one go as (first word, Length, middle, sequence, head of the fragment's
    extension, index, count, head of the last extension); the middle is that of the usual shape.

    Attributes:
        whole: the usual shape of a message in one frame.
        size: bytes before the payload (or before a service's id).
        frame: as told above.
    """

    whole: Shape
    size: int = field(init=False)
    frame: struct.Struct = field(init=False)

    def __attrs_post_init__(self) -> None:
        frame = struct.Struct(f">IH{self.whole.middle.size}sQIHHI")
        object.__setattr__(self, "size", frame.size)
        object.__setattr__(self, "frame", frame)


FRAGMENT_SHAPES = tuple(map(FragmentShape, SHAPES))
"""By the LAS field."""


def make_fragments(
    shape: FragmentShape,
    word: int,
    middle: bytes,
    first: int,
    prefix: bytes,
    payload: bytes,
    longest: int,
) -> list[bytes]:
    """The frames of one message, in pieces of at most 64 KiB that hold whole frames.

    Args:
        shape: of the overlay's addresses.
        word: the first word of each frame.
        middle: what they have in common (`Shape.middle`).
        first: the first sequence number.
        prefix: what stands before each part of the payload.
        payload: longer than `longest`.
        longest: how much of it one frame may carry, in bytes.
    """
    pack, empty = shape.frame.pack, shape.size - shape.whole.fixed + len(prefix)
    head = _SERVICE_NEXT if prefix else _RAW_NEXT
    view = memoryview(payload)
    count = count_fragments(len(payload), longest)
    pieces: list[bytes] = []
    parts: list[Piece] = []
    total = 0
    for index in range(count):
        body = view[index * longest : (index + 1) * longest]
        size = len(body)
        start = pack(
            word, empty + size, middle, first + index, head, index, count, len(prefix) + size
        )
        total += len(start) + len(prefix) + size
        if parts and total > LONGEST_PIECE:
            pieces.append(b"".join(parts))
            parts, total = [], len(start) + len(prefix) + size
        parts += (start, prefix, body)
    pieces.append(b"".join(parts))
    return pieces


def count_fragments(length: int, longest: int) -> int:
    """How many frames a payload of `length` bytes takes, if one carries `longest` at most."""
    return -(-length // longest)


def scan_fragments(buffer: memoryview, offset: int, usual: Shape, maximum: int) -> Run | None:
    """The longest run of fragments of one message at `offset`.

    As `runs.scan_run`: None when the frame there has another shape, is too long or is not there
    as a whole.
    """
    shape = FRAGMENT_SHAPES[usual.las]
    fixed, unpack = usual.fixed, shape.frame.unpack_from
    end, empty = len(buffer), shape.size - fixed
    last = end - shape.size
    if offset > last:
        return None
    word, length, middle, first, link, index, count, head = unpack(buffer, offset)
    stop = offset + fixed + length
    if (
        word & WORD_MASK != usual.first_word
        or head != length - empty
        or stop > end
        or fixed + length > maximum
    ):
        return None
    hop_limit, source, destination, id_head, incarnation = usual.middle.unpack(middle)
    is_service = link == _SERVICE_NEXT
    shortest = empty + SERVICE_SIZE if is_service else empty
    if id_head != FRAGMENT_ID_HEAD or length < shortest or not (is_service or link == _RAW_NEXT):
        return None
    if source == usual.everybody:
        return None
    starts = [offset]
    following = index + 1
    while following < count and stop <= last:
        next_word, size, next_middle, sequence, next_link, at, of, head = unpack(buffer, stop)
        if (
            sequence != first + len(starts)
            or next_middle != middle
            or next_word != word
            or (next_link, at, of, head) != (link, following, count, size - empty)
            or not (size == length or (following + 1 == count and shortest <= size < length))
            or stop + fixed + size > end
        ):
            break
        starts.append(stop)
        stop += fixed + size
        following += 1
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
        fragment=(index, count),
    )


def find_run(buffer: memoryview, offset: int, shape: Shape, maximum: int) -> Run | None:
    """The longest run at `offset`, of whole messages or of fragments of one: as `scan_run`."""
    return scan_run(buffer, offset, shape, maximum) or scan_fragments(
        buffer, offset, shape, maximum
    )


def bodies_of(run: Run, buffer: memoryview, usual: Shape) -> Sequence[Piece]:
    """What each fragment of a run carries; views die with the buffer."""
    if run.message is not None:
        return (run.message.payload,)
    ahead = FRAGMENT_SHAPES[usual.las].size + (SERVICE_SIZE if run.is_service else 0)
    ends = [*run.starts[1:], run.stop]
    return [buffer[start + ahead : end] for start, end in zip(run.starts, ends, strict=True)]


def opening_of(run: Run, buffer: memoryview, usual: Shape) -> OverlayMessage:
    """An empty message that is otherwise like the first fragment of a run."""
    if run.message is not None:
        return _emptied(run.message)
    start = run.starts[0]
    kept = FRAGMENT_SHAPES[usual.las].size, SERVICE_SIZE if run.is_service else 0
    service = bytes(buffer[start + kept[0] : start + sum(kept)])
    word, _, middle, *_ = usual.frame.unpack_from(buffer, start)
    hop_limit, source, destination, _, incarnation = usual.middle.unpack(middle)
    id_head = SERVICE_ID_HEAD if run.is_service else RAW_ID_HEAD
    middle = usual.middle.pack(hop_limit, source, destination, id_head, incarnation)
    size = usual.size - usual.fixed + len(service)
    frame = usual.frame.pack(word, size, middle, run.first, len(service)) + service
    return OverlayMessage(frame, len(frame))


def _emptied(opening: OverlayMessage) -> OverlayMessage:
    """The same of a fragment without the usual shape."""
    *before, last = opening.extensions
    keep = SERVICE_SIZE if last.code == Code.SERVICE else 0
    chain = [each for each in before if each.code != Code.FRAGMENT]
    chain.append(Extension(last.code, last.body[:keep], last.flags))
    return OverlayMessage.build(
        opening.source,
        opening.destination,
        opening.mode,
        chain,
        hop_limit=opening.hop_limit,
        traffic_class=opening.traffic_class,
        flow_label=opening.flow_label,
    )
