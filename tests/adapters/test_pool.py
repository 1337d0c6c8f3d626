"""The connections of an endpoint: dialed in order, one for each pair, and bounded."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator

import pytest

from board import DIGEST, LANE, ROUTE, TAG, Board, contact, frame, turn_until
from opus_socket.adapters.pool import PoolSettings, TcpLink, TcpPort
from opus_socket.adapters.records import open_record, record, select_record
from opus_socket.core.addresses import Contact, Endpoint, Use
from opus_socket.core.effects import Kind

Boards = Callable[[], Board]
DATA = frame(b"data")


def link(board: Board, port: TcpPort, to: Contact) -> TcpLink:
    return TcpLink(board, port, to, LANE, board.output())


def push(way: TcpLink, data: bytes = DATA) -> None:
    way.push([data], len(data), 1)


class Dead:
    """Endpoints where nobody listens, and nobody else can begin to."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []

    def __call__(self) -> Endpoint:
        self.sockets.append(socket.socket())
        self.sockets[-1].bind(("127.0.0.1", 0))
        return Endpoint(*self.sockets[-1].getsockname())

    def listen(self) -> socket.socket:
        """The last of them comes to life."""
        self.sockets[-1].listen()
        return self.sockets[-1]


@pytest.fixture
def dead() -> Iterator[Dead]:
    endpoints = Dead()
    yield endpoints
    for sock in endpoints.sockets:
        sock.close()


@pytest.fixture
def deaf() -> Iterator[Endpoint]:
    """An endpoint that never answers: its queue of connections is full."""
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    server.listen(0)
    clients = []
    for _ in range(4):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(server.getsockname())
        clients.append(client)
    yield Endpoint(*server.getsockname())
    for each in (*clients, server):
        each.close()


def test_nobody_there_is_reported_and_tried_again_later_and_later(board: Board, dead: Dead) -> None:
    port = board.listen(settings=PoolSettings(retry_after=0.5, longest_retry=2.0))
    nobody = dead()
    place = nobody[:2]
    way = link(board, port, contact(nobody))
    waits = []

    def has_lost(count: int) -> Callable[[], bool]:
        return lambda: len(board.lost) == count

    for failures in range(1, 6):
        push(way)
        turn_until(has_lost(failures), board)
        assert board.lost[-1][0] == place
        assert "refused" in board.lost[-1][1]
        began = board.clock
        dialed = port.statistics().dialed
        while port.statistics().dialed == dialed:
            board.clock += 0.125
            push(way)
        waits.append(board.clock - began)
    assert waits == [0.5, 1.0, 2.0, 2.0, 2.0]
    assert port.statistics().failed == 5
    assert way.output.reason in ("unreachable", "connection")
    assert way.output.queued == len(DATA)


def test_a_connection_that_succeeds_ends_the_back_off(board: Board, dead: Dead) -> None:
    port = board.listen(settings=PoolSettings(retry_after=0.5))
    way = link(board, port, contact(dead()))
    push(way)
    turn_until(lambda: len(board.lost) == 1, board)
    server = dead.listen()
    board.clock += 0.5
    push(way)
    turn_until(lambda: way.output.queued == 0, board)
    accepted, _ = server.accept()
    assert DATA in accepted.recv(1 << 16)
    accepted.close()
    turn_until(lambda: len(board.lost) == 2, board)
    assert board.lost[1][1] == "closed by the other end"
    push(way)
    assert port.statistics().dialed == 3


def test_an_endpoint_that_never_answers_is_given_up(board: Board, deaf: Endpoint) -> None:
    port = board.listen(settings=PoolSettings(dial_timeout=5.0))
    way = link(board, port, contact(deaf))
    push(way)
    for _ in range(19):
        board.advance(0.25)
    assert board.lost == []
    board.advance(0.25)
    board.turn()
    assert board.lost == [(deaf[:2], "no answer")]
    assert (way.output.queued, way.output.dropped) == (0, 1)
    assert port.quiet
    assert board.timers == 0


def test_the_second_endpoint_is_used_when_the_first_is_dead(make_board: Boards, dead: Dead) -> None:
    a, b = make_board(), make_board()
    port, there = a.listen(), b.listen()
    way = link(a, port, contact(dead(), there.local))
    push(way)
    turn_until(lambda: bool(b.frames_in), a, b)
    assert a.lost == []
    assert (way.output.queued, way.output.dropped) == (0, 0)
    assert port.statistics().connections == 1


def test_the_second_endpoint_is_used_when_the_first_does_not_answer(
    make_board: Boards, deaf: Endpoint
) -> None:
    """They are dialed a little apart, and what was queued goes where one answers."""
    a, b = make_board(), make_board()
    port, there = a.listen(settings=PoolSettings(dial_apart=0.25)), b.listen()
    way = link(a, port, contact(deaf, there.local))
    push(way, frame(b"first"))
    a.turn()
    assert port.statistics().dialed == 1
    a.advance(0.25)
    assert port.statistics().dialed == 2
    push(way, frame(b"second"))
    turn_until(lambda: len(b.frames_in) == 2, a, b)
    assert b.payloads == [b"first", b"second"]
    assert port.statistics().connections == 1
    push(way, frame(b"third"))
    turn_until(lambda: len(b.frames_in) == 3, a, b)
    assert a.lost == []


def test_the_first_endpoint_is_preferred(make_board: Boards) -> None:
    a, b, c = make_board(), make_board(), make_board()
    port, first, second = a.listen(), b.listen(), c.listen()
    push(link(a, port, contact(first.local, second.local)))
    turn_until(lambda: bool(b.frames_in), a, b, c)
    for _ in range(4):
        a.advance(0.25)
    assert port.statistics().dialed == 1


def test_all_endpoints_dead_are_all_reported(board: Board, dead: Dead) -> None:
    port = board.listen()
    endpoints = [dead() for _ in range(3)]
    way = link(board, port, contact(*endpoints))
    push(way)
    turn_until(lambda: len(board.lost) == 3, board)
    assert [place for place, _ in board.lost] == [each[:2] for each in endpoints]
    assert (way.output.queued, way.output.dropped) == (0, 1)


def test_endpoints_for_datagrams_only_are_not_dialed(board: Board) -> None:
    port = board.listen()
    way = link(board, port, contact(Endpoint("127.0.0.1", 9, Use.UDP)))
    push(way)
    assert (way.output.dropped, way.output.reason) == (1, "unreachable")
    assert port.statistics().dialed == 0


def test_a_system_without_room_is_no_crash(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    port = board.listen()
    way = link(board, port, contact(Endpoint("127.0.0.1", 9)))

    def full(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr("opus_socket.adapters.pool.socket.socket", full)
    push(way)
    assert (way.output.dropped, way.output.reason) == (1, "unreachable")
    assert [reason for _, reason in board.lost] == ["[Errno 24] Too many open files"]


class FullListener:
    """A listener in a process without descriptors to spare."""

    def __init__(self, real: socket.socket) -> None:
        self.real = real
        self.error: OSError | None = None

    def accept(self) -> tuple[socket.socket, object]:
        if self.error is not None:
            raise self.error
        return self.real.accept()

    def fileno(self) -> int:
        return self.real.fileno()

    def close(self) -> None:
        self.real.close()


def test_connections_wait_while_the_system_has_no_room(make_board: Boards) -> None:
    a, b = make_board(), make_board()
    port, there = a.listen(), b.listen()
    listener = FullListener(there.listener)
    there.listener = listener  # type: ignore[assignment]
    listener.error = OSError(errno.EMFILE, "Too many open files")
    push(link(a, port, contact(there.local)))
    turn_until(lambda: b.refused["unaccepted"] == 1, a, b)
    for _ in range(5):
        b.turn()
    assert b.refused["unaccepted"] == 1
    listener.error = None
    b.advance(PoolSettings().retry_after)
    turn_until(lambda: bool(b.frames_in), a, b)


def test_connections_above_the_limit_are_closed_at_once(make_board: Boards) -> None:
    board = make_board()
    port = board.listen(settings=PoolSettings(connections=10))
    clients = [socket.create_connection(port.local[:2]) for _ in range(25)]
    turn_until(lambda: board.refused["too_many_connections"] == 15, board)
    assert port.statistics().connections == 10
    for client in clients:
        client.close()
    turn_until(lambda: port.quiet, board)
    push(link(board, port, contact(port.local)))
    turn_until(lambda: bool(board.frames_in), board)


def test_a_connection_that_says_nothing_is_closed(board: Board) -> None:
    port = board.listen(settings=PoolSettings(open_timeout=10.0))
    with socket.create_connection(port.local[:2]) as client:
        turn_until(lambda: port.statistics().connections == 1, board)
        for _ in range(39):
            board.advance(0.25)
        assert port.statistics().connections == 1
        board.advance(0.25)
        assert port.quiet
        assert client.recv(1) == b""
    assert board.timers == 0
    assert board.lost == []


def test_connections_that_come_and_go_leave_nothing_behind(board: Board) -> None:
    """Neither connections nor timers pile up, however many come."""
    port = board.listen()
    for _ in range(300):
        socket.create_connection(port.local[:2]).close()
        turn_until(lambda: port.quiet, board)
    assert board.timers <= 1
    assert board.lost == []
    board.advance(1.0)
    assert board.timers == 0


def introduced(port: TcpPort, claimed: Endpoint) -> socket.socket:
    """Somebody connects and says who it is."""
    client = socket.create_connection(port.local[:2])
    head = open_record(claimed, TAG, DIGEST) + select_record(ROUTE)
    client.sendall(head + record(Kind.OVERLAY, DATA))
    return client


def test_a_claimed_endpoint_of_another_address_is_read_only(make_board: Boards) -> None:
    """Whoever claims a neighbor's endpoint gets nothing of what is for that neighbor, and ends
    nothing by going away.
    """
    a, b = make_board(), make_board()
    port, neighbor = a.listen(), b.listen("127.0.0.2")
    liar = introduced(port, neighbor.local)
    turn_until(lambda: bool(a.frames_in), a)
    way = link(a, port, contact(neighbor.local))
    push(way)
    turn_until(lambda: bool(b.frames_in), a, b)
    assert port.statistics().dialed == 1
    liar.close()
    turn_until(lambda: port.statistics().connections == 1, a, b)
    assert a.lost == []


def test_whoever_connects_truly_is_answered_on_its_connection(board: Board, dead: Dead) -> None:
    port = board.listen()
    claimed = dead()
    with introduced(port, claimed) as client:
        turn_until(lambda: bool(board.frames_in), board)
        way = link(board, port, contact(claimed))
        push(way)
        turn_until(lambda: way.output.queued == 0, board)
        client.settimeout(5)
        assert DATA in client.recv(1 << 16)
    turn_until(lambda: bool(board.lost), board)
    assert port.statistics().dialed == 0
    assert board.lost == [(claimed[:2], "closed by the other end")]


def test_a_newer_connection_takes_the_place_of_an_older_one(board: Board, dead: Dead) -> None:
    """A member that came back is written to where it is now."""
    port = board.listen()
    claimed = dead()
    with introduced(port, claimed) as old:
        turn_until(lambda: len(board.frames_in) == 1, board)
        with introduced(port, claimed) as new:
            turn_until(lambda: len(board.frames_in) == 2, board)
            way = link(board, port, contact(claimed))
            push(way)
            turn_until(lambda: way.output.queued == 0, board)
            new.settimeout(5)
            assert DATA in new.recv(1 << 16)
            old.close()
            turn_until(lambda: port.statistics().connections == 1, board)
            assert board.lost == []


@pytest.mark.parametrize("answered", [True, False])
def test_who_claims_the_place_of_a_dialed_neighbor_gets_nothing(
    make_board: Boards, answered: bool
) -> None:
    """Its messages stay on the connection that was opened to it: it has answered there, or it has
    long known of it. If that ends, who came later takes its place.
    """
    boards = sorted([make_board(), make_board()], key=lambda board: board.listen().local)
    (b, [neighbor]), (a, [port]) = [(board, board.ports) for board in boards]
    way = link(a, port, contact(neighbor.local))
    push(way)
    turn_until(lambda: bool(b.frames_in), a, b)
    if answered:
        back = neighbor.connection_to(contact(port.local))
        assert back is not None
        assert back.send_control(ROUTE, Kind.PROTOCOL, b"hello")
        turn_until(lambda: bool(a.messages), a, b)
    else:
        a.clock += PoolSettings().dial_timeout
    with introduced(port, neighbor.local) as thief:
        turn_until(lambda: bool(a.frames_in), a, b)
        push(way)
        turn_until(lambda: len(b.frames_in) == 2, a, b)
        neighbor.close()
        turn_until(lambda: port.statistics().connections == 1, a)
        push(way)
        turn_until(lambda: way.output.queued == 0, a)
        thief.settimeout(5)
        assert DATA in thief.recv(1 << 16)


def test_a_port_that_finishes_writes_what_is_queued(make_board: Boards, dead: Dead) -> None:
    """Also what waits for a connection that is being dialed, at whichever endpoint."""
    a, b = make_board(), make_board()
    port, there = a.listen(), b.listen()
    push(link(a, port, contact(there.local)), frame(b"x" * 60_000))
    push(link(a, port, contact(dead(), there.local)), frame(b"last"))
    port.finish()
    turn_until(lambda: port.quiet, a, b)
    assert sorted(b.payloads, key=len) == [b"last", b"x" * 60_000]
    assert there.quiet
    assert a.lost == []
    push(way := link(a, port, contact(there.local)))
    assert (way.output.dropped, port.statistics().connections) == (1, 0)


def test_a_port_that_closes_ends_everything_at_once(make_board: Boards, deaf: Endpoint) -> None:
    a, b = make_board(), make_board()
    port, there = a.listen(), b.listen()
    ways = [link(a, port, contact(deaf, there.local)), link(a, port, contact(there.local))]
    for way in ways:
        push(way)
    a.turn()
    port.close()
    port.close()
    assert port.quiet
    assert a.lost == []
    assert [way.output.queued for way in ways] == [0, 0]
    a.advance(1.0)
    assert port.statistics().connections == 0


def test_a_listener_that_is_closed_while_it_is_ready_is_no_crash(board: Board) -> None:
    """The application may close a port between two of the sockets that are ready."""
    port = board.listen()
    client = socket.create_connection(port.local[:2])
    turn_until(lambda: bool(board.poller.poll()), board)
    ready = board.poller.poll()
    port.close()
    for call, mask in ready:
        call(mask)
    client.close()
    assert board.refused == {}


def test_a_member_may_talk_to_itself(board: Board) -> None:
    """Virtual nodes of one endpoint that do not hand over share a connection to themselves."""
    port = board.listen()
    ways = [link(board, port, contact(port.local, index=index)) for index in range(3)]
    for number in range(30):
        push(ways[number % 3], frame(str(number).encode()))
        board.turn()
    turn_until(lambda: len(board.frames_in) == 30, board)
    assert board.payloads == [str(number).encode() for number in range(30)]
    assert port.statistics().connections == 2
