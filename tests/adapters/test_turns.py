"""Who goes first on real sockets: control, then lanes in turns; bytes are counted, not seconds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import pytest

from board import LANE, ROUTE, TAG, Board, contact, frame, turn_until
from emulated_board import NEIGHBORS, EmulatedBoard
from opus_socket.adapters.base import Lane, Route
from opus_socket.adapters.flow import Output, Overflow
from opus_socket.adapters.local import LocalLink, LocalWay
from opus_socket.adapters.outgoing import CONTESTED_SIZE
from opus_socket.adapters.pool import TcpLink
from opus_socket.core.addresses import Endpoint
from opus_socket.core.buckets import Direction, Limit
from opus_socket.core.effects import Kind
from opus_socket.core.message import class_of

Boards = Callable[[], Board]
OTHER = Lane(ROUTE, 9)


def fill(link: TcpLink | LocalLink, total: int, size: int = 1000, number: int = 0) -> None:
    """Queue messages of a class, `total` bytes of payload, one by one."""
    for _ in range(total // size):
        data = frame(b"x" * size, traffic_class=number)
        link.push([data], len(data), 1)


def test_a_control_record_waits_for_no_more_than_a_turn(make_board: Boards) -> None:
    """Behind what the system has taken of a saturated link whose reader does nothing."""
    here, there = make_board(), make_board()
    source, target = here.listen(), there.listen()
    output = here.output()
    links = [TcpLink(here, source, contact(target.local), lane, output) for lane in (LANE, OTHER)]
    fill(links[0], 1000)
    turn_until(lambda: bool(there.frames_in), here, there)
    for link, number in zip(links, (0, 9), strict=True):
        fill(link, 20_000_000, 10_000, number)
    while here.turn():
        pass
    connection = source.connection_to(contact(target.local))
    assert connection is not None
    written = connection.sent
    assert output.queued > 10_000_000
    assert connection.send_control(ROUTE, Kind.PROTOCOL, b"urgent")
    turn_until(lambda: bool(there.messages), here, there)
    ahead = sum(len(data) for _, data, _ in there.frames_in) - written
    assert ahead <= CONTESTED_SIZE


@pytest.mark.parametrize("sizes", [(1_000, 12_000), (1_000, 1_000), (60_000, 2_000)])
def test_two_inputs_share_the_output_that_both_feed(
    make_board: Boards, sizes: tuple[int, int]
) -> None:
    """By bytes, within 10 %, whatever their messages are like, while both have more to send."""
    relay, sink = make_board(), make_board()
    sources = [make_board(), make_board()]
    entrance, target = relay.listen(), sink.listen()
    output = relay.output(1 << 18, overflow=Overflow.BLOCK)
    way_on = TcpLink(relay, entrance, contact(target.local), LANE, output)

    def pass_on(frames: memoryview) -> None:
        way_on.push([frames], len(frames), 1)

    relay.relay = pass_on
    total = 30_000_000
    for number, (board, size) in enumerate(zip(sources, sizes, strict=True)):
        lane = Lane(Route(TAG, 1, 10 + number), 0)
        relay.gates[lane] = output
        link = TcpLink(board, board.listen(), contact(entrance.local), lane, board.output())
        for _ in range(total // size):
            data = frame(bytes((number,)) * size)
            link.push([data], len(data), 1)
    got: Counter[int] = Counter()
    while got.total() < total:
        for _ in range(12):
            for board in (*sources, relay):
                board.turn()
        sink.turn()
        for payload, (_, data, _) in zip(sink.payloads, sink.frames_in, strict=True):
            got[payload[0]] += len(data)
        sink.frames_in.clear()
    assert max(got.values()) < total
    assert abs(got[0] / got.total() - 0.5) <= 0.1 * 0.5


def test_classes_share_a_neighbor_in_the_process_by_weight(board: Board) -> None:
    """However often what they feed is full, and however little it takes at once."""
    gate = board.output(400_000, overflow=Overflow.BLOCK)
    board.blockers.append(gate)

    def take(frames: memoryview) -> None:
        gate.admit(len(frames), 1, 0.0)

    board.relay = take
    way = LocalWay(board, ROUTE, contact(Endpoint("127.0.0.1", 9)))
    outputs = [Output(None, board.output().settings, board._attend, weight=w) for w in (1, 3)]
    links = [LocalLink(way, output) for output in outputs]
    for number, (link, size) in enumerate(zip(links, (9_000, 500), strict=True)):
        fill(link, 2_000_000, size, number)
    got: Counter[int] = Counter()
    while True:
        while board.run_feeders():
            pass
        if not all(output.queued for output in outputs):
            break
        for _, data, _ in board.frames_in:
            got[class_of(data)] += len(data)
        board.frames_in.clear()
        gate.release(gate.queued, 0.0)
    assert abs(got[1] / got.total() - 0.75) <= 0.05 * 0.75


def test_classes_share_emulated_bandwidth_by_weight() -> None:
    """Of what the bucket pays for, as long as both wait for it."""
    here, there = EmulatedBoard(), Board()
    emulation = here.limit(Limit(Direction.OUT, 100_000))
    outputs = [Output(None, here.output().settings, here._attend, weight=w) for w in (1, 3)]
    way = LocalWay(there, ROUTE, contact(Endpoint("127.0.0.1", 9)))
    links = [emulation.hold(LocalLink(way, output), NEIGHBORS[0]) for output in outputs]
    for number, (link, size) in enumerate(zip(links, (9_000, 500), strict=True)):
        for _ in range(2_000_000 // size):
            data = frame(b"x" * size, traffic_class=number)
            link.push([data], len(data), 1)
    for _ in range(100):
        here.pass_time(0.1)
    while there.run_feeders():
        pass
    got: Counter[int] = Counter()
    for _, data, _ in there.frames_in:
        got[class_of(data)] += len(data)
    assert all(output.queued for output in outputs)
    assert got.total() > 900_000
    assert abs(got[1] / got.total() - 0.75) <= 0.05 * 0.75
    here.close()
    there.close()
