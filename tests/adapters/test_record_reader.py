"""What comes on a connection: cut anywhere it says the same, and nothing in it can do harm."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from board import DIGEST, LANE, ROUTE, TAG, Board, frame
from opus_socket.adapters.backlog import Backlogs
from opus_socket.adapters.base import READ_SIZE, Lane, Route
from opus_socket.adapters.flow import Output
from opus_socket.adapters.record_reader import MAX_OVERLAYS, RecordReader
from opus_socket.adapters.records import (
    lane_bytes,
    open_record,
    progress_bytes,
    record,
    record_head,
    select_record,
)
from opus_socket.core.addresses import WORD_MAX, Endpoint
from opus_socket.core.effects import Kind
from opus_socket.core.wire import MAX_BODY
from opus_socket.errors import RemoteProtocolError

REMOTE = Endpoint("127.0.0.1", 9)
OPENING = open_record(REMOTE, TAG, DIGEST) + select_record(ROUTE)
OTHER = Route(TAG, 3, 4)


class Stream:
    """What a connection does with a reader: it keeps what the reader is not done with."""

    def __init__(self, board: Board, remote: Endpoint | None = None) -> None:
        self.board = board
        self.introductions = 0
        self.regulated: list[tuple[Lane, bool]] = []
        self.reported: list[tuple[Lane, float]] = []
        nothing_kept = Backlogs(board, (), _unexpected, _unexpected, _unexpected, _unexpected)
        self.reader = RecordReader(
            board, nothing_kept, remote, self._count, self._regulate, self._report
        )
        self.tail = b""
        self.longest_tail = 0

    def feed(self, data: bytes) -> None:
        buffer = bytearray(self.tail + data)
        blockers: list[Output] = []
        used = self.reader.take(memoryview(buffer), blockers)
        self.tail = bytes(buffer[used:])
        self.longest_tail = max(self.longest_tail, len(self.tail))
        # The buffer is used again: whatever was handed over must have been copied.
        buffer[:] = b"\xff" * len(buffer)

    def feed_all(self, parts: Iterable[bytes]) -> None:
        for part in parts:
            self.feed(part)

    def _report(self, lane: Lane, age: float) -> None:
        self.reported.append((lane, age))

    def _count(self) -> None:
        self.introductions += 1

    def _regulate(self, lane: Lane, paused: bool) -> None:
        self.regulated.append((lane, paused))


def _unexpected(*_: object) -> None:
    raise AssertionError("no output is closed")


def of_overlay(*frames: bytes) -> bytes:
    return record(Kind.OVERLAY, b"".join(frames))


def everything() -> bytes:
    """A stream with records of every kind, known and unknown, with and without a body."""
    return b"".join(
        [
            OPENING,
            record(Kind.PROTOCOL, b"hello"),
            of_overlay(frame(b"one", 1), frame(b"", 2), frame(b"three" * 50, 3)),
            bytes((200,)) + (5).to_bytes(3) + b"later",
            of_overlay(),
            select_record(OTHER),
            of_overlay(frame(b"four", 4)),
            record(Kind.RENDEZVOUS, b""),
            bytes((9,)) + (0).to_bytes(3),
            record(Kind.MEASUREMENT, b"x" * 300),
        ]
    )


def check_everything(board: Board) -> None:
    assert [(route, kind, body) for route, kind, body, _ in board.messages] == [
        (ROUTE, Kind.PROTOCOL, b"hello"),
        (OTHER, Kind.RENDEZVOUS, b""),
        (OTHER, Kind.MEASUREMENT, b"x" * 300),
    ]
    assert [(route, data) for route, data, _ in board.frames_in] == [
        (ROUTE, frame(b"one", 1)),
        (ROUTE, frame(b"", 2)),
        (ROUTE, frame(b"three" * 50, 3)),
        (OTHER, frame(b"four", 4)),
    ]
    assert {sender.endpoints for _, _, sender in board.frames_in} == {(REMOTE,)}
    assert [sender.index for _, _, sender in board.frames_in] == [2, 2, 2, 4]
    assert board.refused == {"unknown_kind": 2}


def test_a_stream_in_one_piece(board: Board) -> None:
    stream = Stream(board)
    stream.feed(everything())
    check_everything(board)
    assert stream.introductions == 1
    assert stream.tail == b""


def test_what_begins_is_handed_on_when_a_frame_of_it_is_whole(board: Board) -> None:
    """Nobody is bothered with a part of one; what is no frame at all is seen at once."""
    seen: list[int] = []
    board.seen = seen.append
    stream = Stream(board)
    first, second = frame(b"one" * 50, 1), frame(b"two" * 50, 2)
    stream.feed(OPENING + of_overlay(first, second, first)[: 4 + len(first) + 100])
    assert seen == [len(first) + 100]
    stream.feed(second[100:150])
    assert seen == [len(first) + 100]
    stream.feed(second[150:] + first[:50])
    assert seen == [len(first) + 100, len(second) + 50]
    assert stream.tail == first[:50]
    with pytest.raises(RemoteProtocolError, match="version"):
        stream.feed(first[50:] + of_overlay(b"\xff" * 100)[:50])
    assert seen[2:] == [len(first), 46]


def test_a_stream_cut_at_every_byte_says_the_same(board: Board) -> None:
    stream = Stream(board)
    stream.feed_all(bytes((byte,)) for byte in everything())
    check_everything(board)


def test_a_stream_cut_once_at_any_byte_says_the_same(make_board: Callable[[], Board]) -> None:
    data = everything()
    for cut in range(1, len(data)):
        board = make_board()
        Stream(board).feed_all((data[:cut], data[cut:]))
        check_everything(board)


@given(st.lists(st.integers(1, 700), max_size=30))
def test_a_stream_cut_anywhere_says_the_same(cuts: list[int]) -> None:
    board = Board()
    data = everything()
    ends = sorted({min(cut, len(data)) for cut in cuts} | {len(data)})
    starts = [0, *ends[:-1]]
    Stream(board).feed_all(data[a:b] for a, b in zip(starts, ends, strict=True))
    board.close()
    check_everything(board)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (record_head(Kind.PROTOCOL, MAX_BODY + 1), "oversize"),
        (record_head(Kind.OPEN, 0xFFFFFF), "oversize"),
        (record(Kind.OPEN, b""), "malformed"),
        (record(Kind.OPEN, b"\xc3\x41\x00"), "tag"),
        (record(Kind.OPEN, cbor2.dumps([1])), "bad_open"),
        (record(Kind.OPEN, cbor2.dumps("hello")), "bad_open"),
        (record(Kind.OPEN, cbor2.dumps([2, REMOTE.wire, TAG, DIGEST])), "bad_version"),
        (record(Kind.OPEN, cbor2.dumps([True, REMOTE.wire, TAG, DIGEST])), "bad_version"),
        (record(Kind.OPEN, cbor2.dumps([1, REMOTE.wire, -1, DIGEST])), "bad_open"),
        (record(Kind.OPEN, cbor2.dumps([1, REMOTE.wire, 1 << 32, DIGEST])), "bad_open"),
        (record(Kind.OPEN, cbor2.dumps([1, REMOTE.wire, TAG, b"x" * 4000])), "bad_open"),
        (record(Kind.OPEN, cbor2.dumps([1, REMOTE.wire[:-1], TAG, DIGEST])), "bad_endpoint"),
        (record(Kind.OPEN, cbor2.dumps([1, b"", TAG, DIGEST])), "bad_endpoint"),
        (select_record(ROUTE), "bad_select"),
        (OPENING + record(Kind.SELECT, b"x" * 11), "bad_select"),
        (OPENING + record(Kind.PAUSE, b"x" * 12), "bad_pause"),
        (OPENING + record(Kind.PAUSE, b"x" * 14), "bad_pause"),
        (OPENING + record(Kind.RESUME, b""), "bad_pause"),
        (OPENING + record(Kind.PROGRESS, lane_bytes(LANE)), "bad_progress"),
        (OPENING + record(Kind.PROGRESS, b"xyz"), "bad_progress"),
        (OPENING + of_overlay(frame(b"x")[:-1]), "partial_frame"),
        (OPENING + of_overlay(frame(b"x"), b"\0" * 7), "partial_frame"),
        (OPENING + of_overlay(b"\xf0" * 40), "version"),
    ],
)
def test_what_breaks_the_protocol_ends_the_connection(data: bytes, kind: str) -> None:
    """Whether it comes in one piece or byte by byte."""
    for parts in ([data], [bytes((byte,)) for byte in data]):
        board = Board()
        with pytest.raises(RemoteProtocolError) as caught:
            Stream(board).feed_all(parts)
        board.close()
        assert caught.value.kind == kind


def test_frames_before_a_broken_one_are_handed_on(board: Board) -> None:
    with pytest.raises(RemoteProtocolError):
        Stream(board).feed(OPENING + of_overlay(frame(b"good"), b"\xf0" * 40))
    assert board.payloads == [b"good"]


def test_messages_before_select_are_counted_and_skipped(board: Board) -> None:
    stream = Stream(board)
    stream.feed(record(Kind.PROTOCOL, b"x") + of_overlay(frame(b"y"), frame(b"z")))
    stream.feed(OPENING + of_overlay(frame(b"good")))
    assert board.refused == {"unselected": 2}
    assert board.payloads == [b"good"]
    assert board.messages == []


@pytest.mark.parametrize("digest", [b"", b"another!"])
def test_members_with_other_key_attributes_are_heard_by_the_finder_only(
    digest: bytes, board: Board
) -> None:
    """What differs is told by rendezvous messages; nothing else is taken from them."""
    stream = Stream(board)
    stream.feed(open_record(REMOTE, TAG, digest) + select_record(ROUTE))
    stream.feed(record(Kind.PROTOCOL, b"p") + record(Kind.RENDEZVOUS, b"r"))
    stream.feed_all(bytes((byte,)) for byte in of_overlay(frame(b"x"), frame(b"y")))
    assert board.refused == {"key_attributes": 2}
    assert [body for _, _, body, _ in board.messages] == [b"r"]
    assert board.frames_in == []
    stream.feed(OPENING + of_overlay(frame(b"now"))[:20])
    stream.feed(of_overlay(frame(b"now"))[20:])
    assert board.payloads == [b"now"]


def test_an_endpoint_introduces_itself_once(board: Board) -> None:
    """A connection stands for one endpoint, whatever it claims later."""
    stream = Stream(board)
    stream.feed(OPENING)
    stream.feed(open_record(Endpoint("10.0.0.1", 1), 8, DIGEST))
    stream.feed(select_record(ROUTE) + of_overlay(frame(b"x")))
    assert stream.reader.remote == REMOTE
    assert board.frames_in[0][2].endpoints == (REMOTE,)


def test_routes_are_paused_and_resumed_by_name(board: Board) -> None:
    """Whatever is selected, and before anything is."""
    stream = Stream(board)
    other = Lane(OTHER, 255)
    stream.feed(record(Kind.PAUSE, lane_bytes(other)) + OPENING)
    stream.feed(record(Kind.RESUME, lane_bytes(other)) + record(Kind.PAUSE, lane_bytes(LANE)))
    assert stream.regulated == [(other, True), (other, False), (LANE, True)]


@given(st.floats(0, 1e12))
def test_progress_is_known_to_the_millisecond(age: float) -> None:
    with closing(Board()) as board:
        stream = Stream(board)
        stream.feed(record(Kind.PROGRESS, progress_bytes(LANE, age)))
        [(lane, reported)] = stream.reported
        assert lane == LANE
        assert reported == pytest.approx(min(age, WORD_MAX / 1000), abs=0.001)


def test_overlays_of_one_connection_are_bounded(board: Board) -> None:
    stream = Stream(board)
    for tag in range(MAX_OVERLAYS):
        stream.feed(open_record(REMOTE, tag, DIGEST))
    stream.feed(open_record(REMOTE, 0, b""))
    with pytest.raises(RemoteProtocolError, match="bad_open"):
        stream.feed(open_record(REMOTE, MAX_OVERLAYS, DIGEST))


def test_a_digest_that_members_here_have_is_kept_once(board: Board) -> None:
    """For all connections of all their neighbors."""
    streams = [Stream(board) for _ in range(3)]
    for stream in streams:
        stream.feed(OPENING + open_record(REMOTE, TAG + 1, b"another!"))
    assert all(stream.reader._digests[TAG] is board.digests[TAG] for stream in streams)
    assert streams[0].reader._digests[TAG + 1] == b"another!"


@given(st.lists(st.binary(max_size=200), max_size=20), st.booleans())
def test_garbage_is_refused_and_never_kept(parts: list[bytes], introduced: bool) -> None:
    """Any bytes are taken or end the connection, and no more than a datagram's body waits."""
    board = Board()
    stream = Stream(board)
    try:
        if introduced:
            stream.feed(OPENING)
        stream.feed_all(parts)
    except RemoteProtocolError:
        pass
    board.close()
    assert stream.longest_tail <= MAX_BODY + 4


@given(st.integers(0, 255), st.integers(0, 0xFFFFFF))
def test_no_length_makes_a_reader_keep_more_than_it_got(kind: int, length: int) -> None:
    """A head promises what it likes: nothing is allocated for it, and no frame waits for ever."""
    board = Board()
    stream = Stream(board)
    stream.feed(OPENING)
    try:
        stream.feed(bytes((kind,)) + length.to_bytes(3))
        for _ in range(3):
            stream.feed(b"\0" * READ_SIZE)
    except RemoteProtocolError:
        pass
    board.close()
    assert stream.longest_tail <= MAX_BODY + 4
