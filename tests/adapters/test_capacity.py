"""Room for connections: whoever is of use keeps its own, whoever is not makes room for others."""

from __future__ import annotations

import errno
import resource
import socket
import sys
from collections.abc import Callable, Iterator

import pytest
from attrs import define

from board import DIGEST, LANE, ROUTE, TAG, Board, contact, frame, turn_until
from opus_socket.adapters import capacity
from opus_socket.adapters.capacity import descriptor_share
from opus_socket.adapters.flow import Overflow
from opus_socket.adapters.pool import PoolSettings, TcpLink, TcpPort
from opus_socket.adapters.records import lane_bytes, open_record, record, select_record
from opus_socket.adapters.tcp import Connection
from opus_socket.core.addresses import Endpoint
from opus_socket.core.effects import Kind

Boards = Callable[[], Board]
DATA = record(Kind.OVERLAY, frame(b"data"))
PATIENCE = 10.0


class Clients:
    """Whoever connects to a port and says which endpoint it is."""

    def __init__(self) -> None:
        self.sockets: list[socket.socket] = []

    def __call__(self, board: Board, port: TcpPort, data: bytes = b"") -> socket.socket:
        """Connect, and let the board see it."""
        accepted = port.statistics().accepted
        client = self.connect(port, data)
        turn_until(lambda: port.statistics().accepted > accepted and not board.turn(), board)
        return client

    def connect(self, port: TcpPort, data: bytes = b"") -> socket.socket:
        client = socket.create_connection(port.local[:2], timeout=5)
        self.sockets.append(client)
        remote = Endpoint(*client.getsockname())
        client.sendall(open_record(remote, TAG, DIGEST) + select_record(ROUTE) + data)
        return client


@pytest.fixture
def clients() -> Iterator[Clients]:
    made = Clients()
    yield made
    for client in made.sockets:
        client.close()


def small(connections: int) -> PoolSettings:
    return PoolSettings(connections=connections, useless_after=PATIENCE)


def is_closed(client: socket.socket) -> bool:
    client.setblocking(False)
    try:
        return client.recv(1 << 16) == b""
    except BlockingIOError:
        return False
    except ConnectionError:
        return True


def link(board: Board, port: TcpPort, to: Endpoint) -> TcpLink:
    return TcpLink(board, port, contact(to), LANE, board.output())


def push(way: TcpLink, data: bytes) -> None:
    way.push([frame(data)], len(frame(data)), 1)


def test_who_says_nothing_makes_room_for_who_comes(board: Board, clients: Clients) -> None:
    """The one that has been silent for longest goes first, and none before its time."""
    port = board.listen(settings=small(4))
    silent = []
    for _ in range(4):
        silent.append(clients(board, port))
        board.advance(1.0)
    board.advance(PATIENCE - 4.0)
    for gone in range(4):
        clients(board, port, DATA)
        assert [is_closed(each) for each in silent] == [n <= gone for n in range(4)]
        assert port.statistics().connections == 4
        early = clients.connect(port)
        turn_until(lambda early=early: is_closed(early), board)  # type: ignore[misc]
        board.advance(1.0)
    assert len(board.frames_in) == 4
    assert board.refused == {"made_room": 4, "too_many_connections": 4}
    assert (board.lost, port.statistics().failed) == ([], 0)


def test_who_never_sent_a_message_goes_before_who_did(board: Board, clients: Clients) -> None:
    port = board.listen(settings=small(2))
    neighbor = clients(board, port, DATA)
    board.advance(1.0)
    silent = clients(board, port)
    board.advance(PATIENCE)
    clients(board, port, DATA)
    assert (is_closed(silent), is_closed(neighbor)) == (True, False)
    clients(board, port, DATA)
    assert is_closed(neighbor)


@pytest.mark.parametrize(
    "data", [DATA, record(Kind.PROTOCOL, b"hello")], ids=["overlay", "protocol"]
)
def test_messages_in_either_direction_are_use(board: Board, clients: Clients, data: bytes) -> None:
    port = board.listen(settings=small(2))
    sending, hearing = clients(board, port, DATA), clients(board, port, DATA)
    way = link(board, port, Endpoint(*hearing.getsockname()))
    for _ in range(4):
        board.advance(PATIENCE - 1.0)
        sending.sendall(data)
        push(way, b"x")
        turn_until(lambda: not board.turn() and way.output.queued == 0, board)
    refused = clients.connect(port)
    turn_until(lambda: is_closed(refused), board)
    assert not is_closed(sending)
    assert not is_closed(hearing)
    assert board.refused == {"too_many_connections": 1}


@pytest.mark.parametrize(
    "data",
    [
        record(Kind.RESUME, lane_bytes(LANE)),
        bytes((200,)) + (5).to_bytes(3) + b"later",
        open_record(Endpoint("127.0.0.1", 9), TAG + 1, DIGEST),
        record(Kind.OVERLAY, b""),
        b"\0",
        DATA[:-1],
    ],
    ids=["resume", "unknown", "open", "empty", "head", "part"],
)
def test_what_carries_no_message_is_no_use(board: Board, clients: Clients, data: bytes) -> None:
    """Whatever the connection carried long ago."""
    port = board.listen(settings=small(1))
    busy = clients(board, port, DATA)
    board.advance(PATIENCE)
    busy.sendall(data)
    turn_until(lambda: bool(board.poller.poll()), board)
    board.turn()
    clients(board, port, DATA)
    assert board.refused["made_room"] == 1
    assert len(board.frames_in) == 2


def test_what_was_opened_from_here_never_makes_room(make_board: Boards, clients: Clients) -> None:
    a, b = make_board(), make_board()
    port, there = a.listen(settings=small(1)), b.listen()
    push(link(a, port, there.local), b"x")
    turn_until(lambda: bool(b.frames_in), a, b)
    a.advance(100.0)
    refused = clients.connect(port)
    turn_until(lambda: is_closed(refused), a)
    assert a.refused == {"too_many_connections": 1}


def test_who_is_owed_something_keeps_its_connection(board: Board, clients: Clients) -> None:
    """What is queued for it waits until it takes it, however long that is."""
    port = board.listen(settings=small(1))
    slow = clients(board, port, DATA + record(Kind.PAUSE, lane_bytes(LANE)))
    way = link(board, port, Endpoint(*slow.getsockname()))
    push(way, b"first")
    turn_until(lambda: way.output.queued == 0, board)
    slow.sendall(record(Kind.PAUSE, lane_bytes(LANE)))
    turn_until(lambda: bool(board.poller.poll()), board)
    board.turn()
    push(way, b"later")
    board.advance(100.0)
    refused = clients.connect(port)
    turn_until(lambda: is_closed(refused), board)
    assert board.refused == {"pause_of_nothing": 1, "too_many_connections": 1}
    assert way.output.queued == len(frame(b"later"))


def test_whose_messages_wait_here_keeps_its_connection(board: Board, clients: Clients) -> None:
    port = board.listen(settings=small(1))
    gate = board.output(1, overflow=Overflow.BLOCK)
    gate.admit(1, 1, 0.0)
    board.gates[LANE] = gate
    paused = clients(board, port, DATA)
    paused.sendall(DATA)
    board.advance(100.0)
    turn_until(lambda: not board.turn(), board)
    board.advance(100.0)
    refused = clients.connect(port)
    turn_until(lambda: is_closed(refused), board)
    assert len(board.frames_in) == 1
    gate.release(1, board.clock)
    turn_until(lambda: len(board.frames_in) == 2, board)


def test_a_message_that_has_come_is_read_before_anybody_goes(
    board: Board, clients: Clients
) -> None:
    """Also when the one who comes is seen before it."""
    port = board.listen(settings=small(1))
    neighbor = clients(board, port)
    board.advance(PATIENCE)
    refused = clients.connect(port)
    neighbor.sendall(DATA)
    turn_until(lambda: is_closed(refused), board)
    assert len(board.frames_in) == 1
    assert not is_closed(neighbor)


def test_a_neighbor_that_made_room_dials_again(make_board: Boards, clients: Clients) -> None:
    """Nobody here takes it for lost, and both ends reach each other when they want to."""
    a, b = make_board(), make_board()
    port, there = a.listen(), b.listen(settings=small(1))
    way = link(a, port, there.local)
    push(way, b"before")
    turn_until(lambda: bool(b.frames_in), a, b)
    b.advance(PATIENCE)
    other = clients(b, there, DATA)
    assert (b.refused["made_room"], b.lost) == (1, [])
    turn_until(lambda: port.quiet, a, b)
    b.advance(PATIENCE)
    push(way, b"again")
    turn_until(lambda: b.payloads == [b"before", b"data", b"again"], a, b)
    assert is_closed(other)
    assert (way.output.queued, way.output.dropped) == (0, 0)
    b.advance(PATIENCE)
    clients(b, there, DATA)
    turn_until(lambda: port.quiet, a, b)
    push(link(b, there, port.local), b"back")
    turn_until(lambda: a.payloads == [b"back"], a, b)


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """One item for each connection that was looked at."""
    seen: list[object] = []
    judge = capacity._is_useless

    def counted(connection: Connection, before: float) -> bool:
        seen.append(connection)
        return judge(connection, before)

    monkeypatch.setattr(capacity, "_is_useless", counted)
    return seen


def test_a_flood_looks_seldom_when_nobody_makes_room(
    board: Board, clients: Clients, looks: list[object]
) -> None:
    port = board.listen(settings=small(40))
    for _ in range(240):
        clients.connect(port)
    turn_until(lambda: board.refused["too_many_connections"] == 200, board)
    assert len(looks) == 40
    board.advance(capacity.LOOK_AGAIN)
    clients.connect(port)
    turn_until(lambda: board.refused["too_many_connections"] == 201, board)
    assert len(looks) == 80


def test_a_flood_looks_seldom_when_many_make_room(
    board: Board, clients: Clients, looks: list[object]
) -> None:
    """Each look finds a sixteenth of all of them, so what it costs is shared by so many."""
    port = board.listen(settings=small(160))
    for _ in range(160):
        clients.connect(port)
    turn_until(lambda: port.statistics().accepted == 160 and not board.turn(), board)
    board.advance(PATIENCE)
    for _ in range(100):
        clients.connect(port)
    turn_until(lambda: port.statistics().accepted == 260, board)
    assert board.refused == {"made_room": 100}
    assert len(looks) == 10 * (160 + 10)


@define(eq=False)
class FullListener:
    """A listener in a process that has descriptors for so many connections only."""

    port: TcpPort
    room: int
    real: socket.socket

    def accept(self) -> tuple[socket.socket, object]:
        if self.port.statistics().connections >= self.room:
            raise OSError(errno.EMFILE, "Too many open files")
        return self.real.accept()

    def fileno(self) -> int:
        return self.real.fileno()

    def close(self) -> None:
        self.real.close()


def test_who_says_nothing_gives_its_descriptor_back(board: Board, clients: Clients) -> None:
    """Without them nobody could be accepted: there is no wait, and the rest stay."""
    port = board.listen(settings=small(32))
    silent = [clients(board, port) for _ in range(5)]
    port.listener = FullListener(port, 5, port.listener)  # type: ignore[assignment]
    board.advance(PATIENCE)
    timers = board.timers
    clients(board, port, DATA)
    assert len(board.frames_in) == 1
    assert board.timers <= timers + 1
    assert sum(map(is_closed, silent)) == 32 // 16
    assert board.refused == {"unaccepted": 1, "made_room": 2}


def test_without_anybody_useless_who_comes_waits(board: Board, clients: Clients) -> None:
    port = board.listen(settings=small(32))
    for _ in range(5):
        clients(board, port, DATA)
    port.listener = FullListener(port, 5, port.listener)  # type: ignore[assignment]
    clients.connect(port, DATA)
    turn_until(lambda: board.refused["unaccepted"] == 1, board)
    while board.turn():
        pass
    assert board.refused == {"unaccepted": 1}
    board.clock += PATIENCE
    turn_until(lambda: len(board.frames_in) == 6, board)
    assert board.refused["made_room"] == 2


@pytest.mark.parametrize(
    ("soft", "share"), [(1024, 512), (20, 16), (1000, 500), (resource.RLIM_INFINITY, sys.maxsize)]
)
def test_an_endpoint_takes_half_of_the_descriptors(
    monkeypatch: pytest.MonkeyPatch, soft: int, share: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (soft, resource.RLIM_INFINITY))
    assert descriptor_share() == share


def test_the_application_keeps_descriptors(
    board: Board, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (60, 60))
    port = board.listen()
    for _ in range(40):
        clients.connect(port)
    turn_until(lambda: board.refused["too_many_connections"] == 10, board)
    assert port.statistics().connections == 30
