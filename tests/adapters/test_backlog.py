"""Lanes that share a connection: a full output stops those that feed it, whoever reads when."""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Callable
from contextlib import closing
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from board import DIGEST, TAG, Board, contact, frame, turn_until
from opus_socket.adapters.base import Lane, Route, whole_frames
from opus_socket.adapters.flow import Output, Overflow, spread
from opus_socket.adapters.pool import TcpLink
from opus_socket.adapters.records import open_record, record, select_record
from opus_socket.adapters.tcp import HEARSAY, LONGEST_READ
from opus_socket.core.addresses import Endpoint
from opus_socket.core.effects import Kind
from opus_socket.core.message import OverlayMessage, class_of, version_and_size

LANES = [
    Lane(Route(TAG, number, number + 10), traffic_class)
    for number in range(2)
    for traffic_class in (0, 200)
]
SIZES = st.sampled_from([0, 100, 60_000])
INDEX = st.integers(0, len(LANES) - 1)
STEPS = st.one_of(
    st.tuples(st.just("send"), INDEX, SIZES),
    st.tuples(st.just("shut"), INDEX, st.just(0)),
    st.tuples(st.just("open"), INDEX, st.just(0)),
    st.tuples(st.just("here"), st.just(0), st.just(0)),
    st.tuples(st.just("there"), st.just(0), st.just(0)),
)


Boards = Callable[[], Board]


class Crossing:
    """Links over one connection, each with a gate at the other end that can be shut."""

    def __init__(self) -> None:
        self.here, self.there = Board(), Board()
        source, target = self.here.listen(), self.there.listen()
        self.target = target
        self.output = self.here.output()
        self.links = [
            TcpLink(self.here, source, contact(target.local), lane, self.output) for lane in LANES
        ]
        self.gates = [self.there.output(1, overflow=Overflow.BLOCK) for _ in LANES]
        self.there.gates.update(zip(LANES, self.gates, strict=True))
        self.sent: dict[Lane, int] = defaultdict(int)

    def step(self, what: str, index: int, size: int) -> None:
        gate = self.gates[index]
        if what == "send":
            lane = LANES[index]
            data = frame(b"x" * size, self.sent[lane], lane.traffic_class)
            self.sent[lane] += 1
            self.links[index].push([data], len(data), 1)
        elif what == "shut" and not gate.closed:
            gate.admit(1, 1, 0.0)
        elif what == "open" and gate.closed:
            gate.release(1, 0.0)
        elif what == "here":
            self.here.turn()
        elif what == "there":
            self.there.turn()

    def arrived(self, lane: Lane) -> list[tuple[int, int] | None]:
        frames = [
            data for route, data, _ in self.there.frames_in if Lane(route, class_of(data)) == lane
        ]
        return [OverlayMessage.parse(data).id for data in frames]

    def wait_for(self, lanes: list[Lane]) -> None:
        def complete() -> bool:
            return all(len(self.arrived(lane)) == self.sent[lane] for lane in lanes)

        turn_until(complete, self.here, self.there)
        for lane in lanes:
            assert self.arrived(lane) == [(1, number) for number in range(self.sent[lane])]

    def close(self) -> None:
        self.here.close()
        self.there.close()


@given(st.lists(STEPS, max_size=60))
def test_open_lanes_go_on_and_shut_ones_lose_nothing(steps: list[tuple[str, int, int]]) -> None:
    with closing(Crossing()) as crossing:
        for step in steps:
            crossing.step(*step)
        pairs = list(zip(LANES, crossing.gates, strict=True))
        crossing.wait_for([lane for lane, gate in pairs if not gate.closed])
        for index in range(len(LANES)):
            crossing.step("open", index, 0)
        crossing.wait_for(LANES)
        turn_until(lambda: crossing.target.statistics().kept == 0, crossing.there)
        assert crossing.output.dropped == crossing.output.queued == 0
        assert crossing.here.refused == crossing.there.refused == {}


@given(st.lists(st.integers(0, 300), max_size=8), st.integers(0, 400), st.binary(max_size=40))
def test_whole_frames_are_found(sizes: list[int], cut: int, garbage: bytes) -> None:
    """As many as are there as a whole, and no more, whatever follows them."""
    frames = [frame(b"p" * size) for size in sizes]
    data = b"".join(frames)
    cut = min(cut, len(data))
    kept, total = 0, 0
    for each in frames:
        if total + len(each) > cut:
            break
        kept, total = kept + 1, total + len(each)
    assert whole_frames(memoryview(data[:cut])) == (total, None)
    used, broken = whole_frames(memoryview(data + garbage))
    assert used >= len(data)
    if len(garbage) >= 8 and version_and_size(garbage, 0)[0] != version_and_size(frame(b""), 0)[0]:
        assert (used, broken) == (len(data), "version")


def test_what_is_kept_is_accounted_twice() -> None:
    """What is kept counts for the connection and for its endpoint, until it is handed on."""
    with closing(Crossing()) as crossing:
        crossing.step("shut", 0, 0)
        crossing.step("send", 0, 100)
        turn_until(lambda: bool(crossing.there.frames_in), crossing.here, crossing.there)
        crossing.step("send", 0, 60_000)
        crossing.here.flush()
        turn_until(lambda: crossing.target.statistics().kept > 60_000, crossing.there)
        (connection,) = crossing.target._connections.values()
        assert isinstance(connection.kept, Output)
        assert connection.kept.queued == crossing.target.statistics().kept
        crossing.step("open", 0, 0)
        crossing.wait_for(LANES)
        assert connection.kept.queued == 0


@pytest.mark.parametrize("far", [0, 3])
def test_a_paused_lane_does_not_stall_while_what_it_waits_for_goes_on(
    far: int, make_board: Boards
) -> None:
    """Also if that is a member further on, and only its output takes something now and then. When
    it takes nothing any more, all of them stall.
    """
    boards = [make_board() for _ in range(far + 2)]
    ports = [board.listen() for board in boards]
    outputs = [board.output(10_000, overflow=Overflow.BLOCK) for board in boards]
    links = [
        TcpLink(board, port, contact(target.local), LANES[0], output)
        for board, port, target, output in zip(boards, ports, ports[1:], outputs, strict=False)
    ]
    for board, link in zip(boards[1:], links[1:], strict=False):
        board.gates[LANES[0]] = link.output
        board.relay = partial(_relay, link)
    gate = outputs[-1]
    boards[-1].gates[LANES[0]] = gate
    gate.admit(20_000, 1, 0.0)

    while not all(output.closed for output in outputs):
        if not outputs[0].closed:
            data = frame(b"x" * 2000)
            links[0].push([data], len(data), 1)
        for board in boards:
            board.turn()

    heard = 0.0

    def has_heard() -> bool:
        return outputs[0].progress(boards[0].clock) >= heard

    def pass_time() -> None:
        for board, output in zip(boards, outputs, strict=True):
            board.advance(0.25)
            output.overdue(board.clock)
            if output.closed:
                spread(output, board.clock)

    for _ in range(10):
        pass_time()
        gate.release(1, boards[-1].clock)
        heard = boards[-1].clock - (far + 1) * HEARSAY - 0.01
        for _ in range(5):
            pass_time()
        turn_until(has_heard, *boards)
        assert all(output.closed for output in outputs)
    for _ in range(9):
        pass_time()
    assert all(output.stalled or not output.closed for output in outputs)


def _relay(link: TcpLink, frames: memoryview) -> None:
    link.push([frames], len(frames), 1)


def test_new_lanes_do_not_get_past_a_full_output_for_ever() -> None:
    """Whoever takes another lane each time fills what its connection may keep, then the system's
    buffers; when the output is taken, the rest comes.
    """
    with closing(Board()) as board:
        port = board.listen()
        gate = board.output(1, overflow=Overflow.BLOCK)
        board.blockers.append(gate)
        board.relay = lambda data: _put_into(gate, data)
        total = 1500
        bodies = [frame(b"z" * 20_000, number) for number in range(total)]
        stream = open_record(Endpoint("127.0.0.1", 9), TAG, DIGEST) + b"".join(
            select_record(Route(TAG, 1, number)) + record(Kind.OVERLAY, body)
            for number, body in enumerate(bodies)
        )
        with socket.create_connection(port.local[:2]) as client:
            sent = _send_what_goes(client, stream, board)
            (connection,) = port._connections.values()
            limit = connection.kept.settings.limit
            assert gate.queued < limit + 2 * LONGEST_READ
            assert limit <= port.statistics().kept < limit + 2 * LONGEST_READ
            for _ in range(total):
                gate.release(gate.queued, 0.0)
                sent += _send_what_goes(client, stream[sent:], board)
        assert len(board.frames_in) == total
        assert port.statistics().kept == 0
        assert board.refused == {}


def test_lanes_that_bring_nothing_are_bounded_too() -> None:
    """Paused lanes cost memory themselves, and what is to be said of them waits once for each."""
    with closing(Board()) as board:
        port = board.listen()
        gate = board.output(1, overflow=Overflow.BLOCK)
        gate.admit(1, 1, 0.0)
        board.blockers.append(gate)
        stream = open_record(Endpoint("127.0.0.1", 9), TAG, DIGEST) + b"".join(
            select_record(Route(TAG, 1, number)) + record(Kind.OVERLAY, frame(b"", number))
            for number in range(40_000)
        )
        with socket.create_connection(port.local[:2]) as client:
            _send_what_goes(client, stream, board)
            (connection,) = port._connections.values()
            limit = connection.kept.settings.limit
            # The cost of a lane is more than that of its message.
            assert limit // 4096 < len(board.frames_in) < limit // 1024
            gate.release(1, 0.0)
            turn_until(lambda: port.statistics().kept == 0, board)


def _put_into(gate: Output, data: memoryview) -> None:
    assert gate.admit(len(data), 1, 0.0)


def _send_what_goes(client: socket.socket, stream: bytes, board: Board) -> int:
    """Send until the board reads no more; the bytes that went."""
    client.setblocking(False)
    sent = 0
    while sent < len(stream):
        try:
            sent += client.send(memoryview(stream)[sent : sent + (1 << 20)])
        except BlockingIOError:
            if not board.turn():
                break
    while board.turn():
        pass
    return sent
