"""One connection between two boards: what is queued is written whole, in order, and accounted."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from board import DIGEST, LANE, ROUTE, TAG, Board, contact, frame, turn_until
from opus_socket.adapters import tcp
from opus_socket.adapters.base import Lane, Route
from opus_socket.adapters.flow import Intake, Output, Overflow
from opus_socket.adapters.outgoing import CONTROL_LIMIT, RECORD_SIZE, Chunk
from opus_socket.adapters.pool import TcpLink, TcpPort
from opus_socket.adapters.records import open_record, record, record_head, select_record
from opus_socket.core.addresses import Endpoint
from opus_socket.core.effects import Kind
from opus_socket.core.message import OverlayMessage

Boards = Callable[[], Board]


class Pair:
    """Two boards, each with a port, and a link from the first to the second."""

    def __init__(self, make_board: Boards, host: str = "127.0.0.1") -> None:
        self.a, self.b = make_board(), make_board()
        self.port_a, self.port_b = self.a.listen(host), self.b.listen(host)
        self.output = self.a.output()
        self.link = self.link_to_b(self.output)

    def link_to_b(self, output: Output, route: Route = ROUTE) -> TcpLink:
        return TcpLink(self.a, self.port_a, contact(self.port_b.local), Lane(route, 0), output)

    def send(self, *payloads: bytes, first: int = 0) -> None:
        frames = [frame(payload, first + index) for index, payload in enumerate(payloads)]
        self.link.push(frames, sum(map(len, frames)), len(frames))

    def until(self, condition: Callable[[], bool]) -> None:
        turn_until(condition, self.a, self.b)


@pytest.fixture
def pair(make_board: Boards) -> Pair:
    return Pair(make_board)


def raw_client(port: TcpPort) -> socket.socket:
    """A socket of somebody who may break every rule."""
    return socket.create_connection(port.local[:2], timeout=5)


def reset(client: socket.socket) -> None:
    """Close without a goodbye."""
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_frames_arrive_in_order(make_board: Boards, host: str) -> None:
    pair = Pair(make_board, host)
    payloads = [os.urandom(size) for size in (0, 1, 100, 5000, 60_000, 3)]
    for payload in payloads:
        pair.send(payload)
    pair.until(lambda: len(pair.b.frames_in) == len(payloads))
    assert pair.b.payloads == payloads
    assert {sender.endpoints for _, _, sender in pair.b.frames_in} == {(pair.port_a.local,)}
    statistics = pair.output.statistics()
    assert (statistics.taken, statistics.dropped, statistics.queued) == (len(payloads), 0, 0)


def test_both_ends_use_the_one_connection(pair: Pair) -> None:
    pair.send(b"there")
    pair.until(lambda: bool(pair.b.frames_in))
    back = TcpLink(pair.b, pair.port_b, contact(pair.port_a.local), LANE, pair.b.output())
    back.push([frame(b"back")], len(frame(b"back")), 1)
    pair.until(lambda: bool(pair.a.frames_in))
    assert pair.a.payloads == [b"back"]
    for port in (pair.port_a, pair.port_b):
        assert port.statistics().connections == 1
    assert pair.port_b.statistics().dialed == 0


def test_routes_and_kinds_may_alternate(pair: Pair) -> None:
    """Each record goes to the virtual node that it was queued for, in its overlay and in order."""
    pair.a.digests[8] = pair.b.digests[8] = b"8 others"
    sent: list[tuple[Route, bytes]] = []
    for number in range(60):
        route = Route((TAG, 8)[number % 2], number % 3, number % 5)
        data = frame(str(number).encode())
        pair.link_to_b(pair.output, route).push([data], len(data), 1)
        sent.append((route, data))
    pair.until(lambda: len(pair.b.frames_in) == len(sent))
    arrived = [(route, data) for route, data, _ in pair.b.frames_in]
    for route, _ in sent:
        assert [each for each in arrived if each[0] == route] == [
            each for each in sent if each[0] == route
        ]
    assert pair.b.refused == {}


def test_control_goes_before_data(pair: Pair) -> None:
    """However much data is queued, a protocol message overtakes all of it that is not written."""
    pair.send(b"x" * 60_000)
    pair.until(lambda: bool(pair.b.frames_in))
    before = len(pair.b.frames_in)
    for _ in range(100):
        pair.send(b"y" * 60_000)
    pair.a.flush()
    connection = pair.port_a.connection_to(contact(pair.port_b.local))
    assert connection is not None
    written = connection.sent
    assert connection.send_control(ROUTE, Kind.PROTOCOL, b"urgent")
    pair.until(lambda: bool(pair.b.messages))
    ahead = sum(len(data) for _, data, _ in pair.b.frames_in[before:])
    assert ahead <= written + 2 * RECORD_SIZE
    pair.until(lambda: len(pair.b.frames_in) == before + 100)
    assert ahead < 100 * 60_000


def test_a_long_message_is_several_records(pair: Pair) -> None:
    """Control goes between them, and other routes; what has short frames is not cut up."""
    pair.send(b"x")
    pair.until(lambda: bool(pair.b.frames_in))
    connection = pair.port_a.connection_to(contact(pair.port_b.local))
    assert connection is not None
    pair.send(*[b"y" * 16_000] * 250)
    sizes = [chunk.size for chunk in connection._outgoing._queues[LANE].chunks]
    assert max(sizes) <= tcp.LONGEST_READ < sum(sizes)
    pair.until(lambda: pair.output.queued == 0)
    pair.send(*[b"z" * 100] * 5000)
    chunk = connection._outgoing._lone
    assert chunk is not None
    assert chunk.size > RECORD_SIZE
    pair.until(lambda: len(pair.b.frames_in) == 5251)


def test_control_is_bounded(pair: Pair) -> None:
    connection = pair.port_a.connection_to(contact(pair.port_b.local))
    assert connection is not None
    body = b"x" * 8000
    room = CONTROL_LIMIT // len(body)
    assert [connection.send_control(ROUTE, Kind.PROTOCOL, body) for _ in range(room + 1)] == [
        *[True] * room,
        False,
    ]
    pair.until(lambda: len(pair.b.messages) == room)
    assert connection.send_control(ROUTE, Kind.PROTOCOL, body)


def test_what_cannot_be_written_at_once_outlives_the_read_buffer(pair: Pair) -> None:
    """Views into the buffer are copied before the next read, whole or in part."""
    frames = [frame(os.urandom(9_000), number) for number in range(200)]
    for data in frames:
        view = memoryview(pair.a.buffer)[: len(data)]
        view[:] = data
        pair.link.push([view], len(data), 1)
        pair.a.flush()
        view[:] = b"\xee" * len(data)
    assert pair.output.queued > 0
    pair.until(lambda: len(pair.b.frames_in) == len(frames))
    assert [data for _, data, _ in pair.b.frames_in] == frames


def test_a_batch_longer_than_any_record_is_split_between_frames(pair: Pair) -> None:
    """A record's length has 24 bits; a batch may be longer than that."""
    payloads = [os.urandom(50_000) for _ in range(400)]
    pair.send(*payloads)
    pair.until(lambda: len(pair.b.frames_in) == len(payloads))
    assert pair.b.payloads == payloads
    assert pair.b.refused == {}
    assert pair.output.statistics().queued == 0


@given(st.lists(st.lists(st.binary(max_size=3000), min_size=1, max_size=6), max_size=8))
def test_what_is_queued_is_what_arrives(batches: list[list[bytes]]) -> None:
    boards: list[Board] = []

    def make() -> Board:
        boards.append(Board())
        return boards[-1]

    pair = Pair(make)
    for batch in batches:
        pair.send(*batch)
        pair.a.turn()
    total = sum(map(len, batches))
    pair.until(lambda: len(pair.b.frames_in) == total)
    assert pair.b.payloads == [payload for batch in batches for payload in batch]
    for board in boards:
        board.close()


def test_a_part_that_is_written_counts_as_progress(pair: Pair) -> None:
    """A stall is a link that takes no byte, not one that takes a long message slowly."""
    slow = pair.a.output(1000, overflow=Overflow.BLOCK, stall_timeout=2.0)
    pair.link = pair.link_to_b(slow)
    pair.send(*[b"z" * 60_000] * 60)
    pair.a.turn()
    pair.until(lambda: bool(pair.b.frames_in))

    def is_below(size: int) -> Callable[[], bool]:
        return lambda: slow.queued < size

    while slow.queued:
        pair.a.clock += 1.9
        pair.until(is_below(slow.queued))
        slow.overdue(pair.a.clock)
        assert not slow.stalled


def test_a_reset_counts_what_was_queued_as_lost(pair: Pair, board: Board) -> None:
    client = socket.create_server(("127.0.0.1", 0))
    there = contact(Endpoint(*client.getsockname()))
    link = TcpLink(pair.a, pair.port_a, there, LANE, pair.output)
    data = frame(b"x" * 50_000)
    for _ in range(100):
        link.push([data], len(data), 1)
    pair.a.turn()
    accepted, _ = client.accept()
    turn_until(lambda: pair.output.queued < 100 * len(data), pair.a)
    reset(accepted)
    turn_until(lambda: bool(pair.a.lost), pair.a)
    client.close()
    statistics = pair.output.statistics()
    assert statistics.queued == 0
    assert 0 < statistics.dropped < 100
    assert pair.output.reason == "connection"
    assert pair.a.lost[0][0] == there.endpoints[0][:2]


def test_frames_before_garbage_reach_those_they_are_relayed_to(make_board: Boards) -> None:
    """What comes before a broken frame is on its way, although its connection ends at once, and
    although another one is read into the same buffer in the same turn.
    """
    pair = Pair(make_board)
    sources = [raw_client(pair.port_a) for _ in range(2)]
    for source in sources:
        remote = Endpoint("127.0.0.1", source.getsockname()[1])
        source.sendall(open_record(remote, TAG, DIGEST) + select_record(ROUTE))
    turn_until(lambda: all(each.remote for each in pair.port_a._connections.values()), pair.a)
    pair.a.relay = lambda frames: pair.link.push([frames], len(frames), 1)
    good = frame(b"good" * 1000)
    sources[0].sendall(record(Kind.OVERLAY, good + b"\xf0" * 40))
    sources[1].sendall(bytes((200,)) + (60_000).to_bytes(3) + b"\xee" * 60_000)
    turn_until(lambda: len(pair.a.refused) == 2, pair.a)
    pair.until(lambda: bool(pair.b.frames_in))
    for source in sources:
        source.close()
    assert [data for _, data, _ in pair.b.frames_in] == [good]


def test_chunks_of_another_connection_do_not_hide_views_from_being_copied(pair: Pair) -> None:
    connection = pair.port_a.connection_to(contact(pair.port_b.local))
    assert connection is not None
    data = frame(b"view" * 100)
    view = memoryview(pair.a.buffer)[: len(data)]
    view[:] = data
    pair.link.push([view], len(data), 1)
    connection.adopt([Chunk(LANE, Kind.OVERLAY, (data,), len(data), None, 1)])
    pair.a.flush()
    view[:] = b"\xee" * len(data)
    pair.until(lambda: len(pair.b.frames_in) == 2)
    assert [each for _, each, _ in pair.b.frames_in] == [data, data]


def test_members_that_come_later_are_introduced_as_they_are(pair: Pair) -> None:
    """The members of an overlay may leave an endpoint, and others come with other attributes."""
    pair.send(b"first")
    pair.until(lambda: len(pair.b.frames_in) == 1)
    del pair.a.digests[TAG]
    pair.send(b"of one that has left")
    pair.until(lambda: pair.b.refused["key_attributes"] == 1)
    pair.a.digests[TAG] = pair.b.digests[TAG] = b"changed!"
    pair.send(b"second")
    pair.until(lambda: len(pair.b.frames_in) == 2)
    assert pair.b.payloads == [b"first", b"second"]


def test_records_are_read_from_any_pieces_that_the_system_hands_over(pair: Pair) -> None:
    client = raw_client(pair.port_b)
    client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    remote = Endpoint("127.0.0.1", client.getsockname()[1])
    data = open_record(remote, TAG, DIGEST) + select_record(ROUTE)
    data += record(Kind.PROTOCOL, b"hello") + record(Kind.OVERLAY, frame(b"x") + frame(b"y"))
    turn_until(lambda: pair.port_b.statistics().connections == 1, pair.b)
    (connection,) = pair.port_b._connections.values()

    def has_read(count: int) -> Callable[[], bool]:
        return lambda: connection.received == count

    for index in range(len(data)):
        client.sendall(data[index : index + 1])
        turn_until(has_read(index + 1), pair.b)
    client.close()
    assert pair.b.payloads == [b"x", b"y"]
    assert [body for _, _, body, _ in pair.b.messages] == [b"hello"]


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n" + b"x" * 0x455420, "unknown_kind"),
        (record_head(Kind.PROTOCOL, 0xFFFFFF), "oversize"),
        (select_record(ROUTE), "bad_select"),
        (record(Kind.OPEN, b"\xff"), "malformed"),
    ],
)
def test_garbage_is_counted_and_never_raised(data: bytes, kind: str, pair: Pair) -> None:
    client = raw_client(pair.port_b)
    client.setblocking(False)
    view = memoryview(data)

    def feed() -> bool:
        nonlocal view
        try:
            view = view[client.send(view) :]
        except BlockingIOError:
            pass
        except ConnectionError:
            return True
        return not view and pair.b.refused[kind] > 0

    while not feed():
        pair.b.turn()
    assert pair.b.refused[kind] >= 1
    reset(client)
    turn_until(lambda: pair.port_b.quiet, pair.b)
    assert pair.b.lost == []


def test_a_closed_gate_pauses_its_route_and_no_other(pair: Pair) -> None:
    """Pressure travels: what feeds a full output waits at its source, others overtake it, and
    when it goes on nothing was lost and everything is in order.
    """
    gate = pair.b.output(1, overflow=Overflow.BLOCK)
    gate.admit(1, 1, 0.0)
    pair.b.gates[LANE] = gate
    total = 200
    for number in range(total):
        pair.send(b"x" * 20_000, first=number)
    other = Route(TAG, 8, 9)
    free = pair.link_to_b(pair.a.output(), other)
    pair.until(lambda: bool(pair.b.frames_in))
    for number in range(total):
        data = frame(b"y" * 20_000, number)
        free.push([data], len(data), 1)
    pair.until(lambda: len(_frames_of(pair.b, other)) == total)
    assert pair.output.queued > 2_000_000
    assert len(_frames_of(pair.b, ROUTE)) <= tcp.READS_PER_WAKE * (1 << 16) // 20_000 + 1
    assert 0 < pair.port_b.statistics().kept < 2_000_000
    gate.release(1, 0.0)
    pair.until(lambda: len(_frames_of(pair.b, ROUTE)) == total)
    assert pair.b.frames_in[-1][0] == ROUTE
    for route in (ROUTE, other):
        sequences = [OverlayMessage.parse(data).id for data in _frames_of(pair.b, route)]
        assert sequences == [(1, number) for number in range(total)]
    assert pair.port_b.statistics().kept == pair.output.queued == pair.output.dropped == 0
    assert pair.a.refused == pair.b.refused == {}


def _frames_of(board: Board, route: Route) -> list[bytes]:
    return [data for each, data, _ in board.frames_in if each == route]


def test_one_that_does_not_pause_is_left_unread(board: Board) -> None:
    """What is kept is bounded: whoever sends on fills the system's buffers, not ours."""
    port = board.listen()
    gate = board.output(1, overflow=Overflow.BLOCK)
    gate.admit(1, 1, 0.0)
    board.gates[LANE] = gate
    client = raw_client(port)
    client.setblocking(False)
    opening = open_record(Endpoint("127.0.0.1", 9), TAG, DIGEST) + select_record(ROUTE)
    burst = record(Kind.OVERLAY, b"".join([frame(b"z" * 20_000, n) for n in range(200)]))
    stream = memoryview(opening + 10 * burst)
    sent = 0
    while sent < len(stream):
        try:
            sent += client.send(stream[sent:])
        except BlockingIOError:
            if not board.turn():
                break
    (connection,) = port._connections.values()
    limit = connection.kept.settings.limit
    assert limit <= port.statistics().kept < limit + tcp.READS_PER_WAKE * (1 << 17)
    gate.release(1, 0.0)
    client.setblocking(True)
    rest = threading.Thread(target=client.sendall, args=(stream[sent:],))
    rest.start()
    turn_until(lambda: len(board.frames_in) == 2000, board)
    rest.join()
    assert port.statistics().kept == 0
    client.close()


def test_what_was_kept_arrives_when_the_other_end_has_gone(pair: Pair) -> None:
    gate = pair.b.output(1, overflow=Overflow.BLOCK)
    gate.admit(1, 1, 0.0)
    pair.b.gates[LANE] = gate
    pair.send(b"first")
    pair.until(lambda: bool(pair.b.frames_in))
    for number in range(1, 10):
        pair.send(b"x" * 10_000, first=number)
    # Written before the other end is heard.
    pair.a.flush()
    assert pair.output.queued == 0
    pair.port_a.finish()
    pair.until(lambda: pair.port_b.statistics().kept > 90_000)
    assert len(pair.b.frames_in) == 1
    assert not pair.port_b.quiet
    gate.release(1, 0.0)
    pair.until(lambda: pair.port_a.quiet and pair.port_b.quiet)
    assert len(pair.b.frames_in) == 10
    assert pair.port_b.statistics().kept == 0


def test_a_pause_of_what_was_never_sent_is_counted(pair: Pair) -> None:
    pair.send(b"x")
    pair.until(lambda: bool(pair.b.frames_in))
    back = pair.port_b.connection_to(contact(pair.port_a.local))
    assert back is not None
    back._regulate(Lane(Route(TAG, 70, 80), 0), True)
    pair.until(lambda: bool(pair.a.refused))
    assert pair.a.refused == {"pause_of_nothing": 1}


@pytest.mark.parametrize("paused", [True, False])
def test_only_what_takes_nothing_is_evicted(pair: Pair, paused: bool) -> None:
    """A neighbor that is paused loses what waits for it, and others keep the connection."""
    gate = pair.b.output(1, overflow=Overflow.BLOCK)
    gate.admit(1, 1, 0.0)
    pair.b.gates[LANE] = gate
    pair.send(b"first")
    pair.until(lambda: bool(pair.b.frames_in))
    if paused:
        (there,) = pair.port_a._connections.values()
        pair.until(lambda: there._outgoing.is_paused(LANE))
    pair.send(b"x" * 60_000, b"y" * 60_000)
    pair.link.evict()
    assert pair.output.dropped == 2
    assert pair.output.queued == 0
    assert pair.port_a.quiet is not paused
    gate.release(1, 0.0)
    pair.send(b"again")
    pair.until(lambda: len(pair.b.frames_in) == 2)
    assert pair.b.payloads == [b"first", b"again"]


def test_a_connection_is_not_watched_for_what_it_does_not_want(pair: Pair) -> None:
    """Nothing is ready, so a host that has nothing to do sleeps."""
    pair.send(b"x")
    pair.until(lambda: bool(pair.b.frames_in))
    pair.until(lambda: not pair.a.turn() and not pair.b.turn())
    assert pair.a.poller.poll() == []
    gate = pair.b.output(1)
    gate.admit(1, 1, 0.0)
    (connection,) = pair.port_b._connections.values()
    blocked = connection._intake
    assert isinstance(blocked, Intake)
    blocked.wait_for([gate])
    connection._watch()
    pair.send(b"y")
    pair.a.flush()
    assert not pair.b.turn()
    gate.release(1, 0.0)
    pair.until(lambda: len(pair.b.frames_in) == 2)


def test_two_connections_share_an_output_and_account_for_their_own_part(pair: Pair) -> None:
    """A link may have something queued on an old connection when it uses a new one."""
    silent = [socket.create_server(("127.0.0.1", 0)) for _ in range(2)]
    data = frame(b"x" * 1000)
    for server in silent:
        there = contact(Endpoint(*server.getsockname()))
        link = TcpLink(pair.a, pair.port_a, there, LANE, pair.output)
        link.push([data], len(data), 1)
    assert pair.output.queued == 2 * len(data)
    first = pair.port_a.connection_to(contact(Endpoint(*silent[0].getsockname())))
    assert first is not None
    first.fail("for a test")
    assert pair.output.queued == len(data)
    assert pair.output.dropped == 1
    turn_until(lambda: pair.output.queued == 0, pair.a)
    for server in silent:
        server.close()
