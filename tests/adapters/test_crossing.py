"""Two endpoints dial each other at once: one connection stays, whatever happens first."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from board import LANE, ROUTE, Board, contact, frame, turn_until
from opus_socket.adapters.pool import TcpLink, TcpPort
from opus_socket.core.effects import Kind

SMALLER, LARGER = 0, 1
SIZES = {"send": 10, "send much": 60_000}
STEPS = st.tuples(st.sampled_from(["send", "send much", "turn", "control"]), st.integers(0, 1))
CROSS = [("send", SMALLER), ("send", LARGER)]


class Two:
    """Two boards, the first with the smaller endpoint, and what each was given to send."""

    def __init__(self, make_board: Callable[[], Board]) -> None:
        boards = [make_board(), make_board()]
        ports = [board.listen() for board in boards]
        pairs = sorted(zip(ports, boards, strict=True), key=lambda pair: pair[0].local)
        self.ports: list[TcpPort] = [port for port, _ in pairs]
        self.boards: list[Board] = [board for _, board in pairs]
        self.links = [self.link(side) for side in (0, 1)]
        self.sent: list[list[bytes]] = [[], []]
        self.control: list[list[bytes]] = [[], []]

    def link(self, side: int) -> TcpLink:
        board, there = self.boards[side], contact(self.ports[1 - side].local)
        return TcpLink(board, self.ports[side], there, LANE, board.output())

    def step(self, what: str, side: int) -> None:
        if what == "turn":
            self.boards[side].turn()
        elif what == "control":
            connection = self.ports[side].connection_to(contact(self.ports[1 - side].local))
            assert connection is not None
            body = str(len(self.control[side])).encode()
            assert connection.send_control(ROUTE, Kind.PROTOCOL, body)
            self.control[side].append(body)
        else:
            payload = str(len(self.sent[side])).encode() + b"x" * SIZES[what]
            self.sent[side].append(payload)
            data = frame(payload)
            self.links[side].push([data], len(data), 1)

    def complete(self) -> bool:
        return all(
            len(board.frames_in) == len(self.sent[1 - side])
            and len(board.messages) == len(self.control[1 - side])
            and self.ports[side].statistics().connections <= 1
            for side, board in enumerate(self.boards)
        )

    def check(self) -> None:
        for side, board in enumerate(self.boards):
            assert board.payloads == self.sent[1 - side]
            # A connection that is retired may bring a protocol message late, but never loses it.
            assert sorted(body for _, _, body, _ in board.messages) == sorted(
                self.control[1 - side]
            )
            assert board.lost == []
            assert self.links[side].output.statistics().dropped == 0
            assert self.links[side].output.statistics().queued == 0


@given(st.lists(STEPS, max_size=40), st.lists(STEPS, max_size=10))
@example(CROSS, [])
@example([*CROSS, *[("send much", LARGER)] * 20, ("turn", LARGER)], [])
@example([*CROSS, ("turn", SMALLER), ("turn", LARGER), ("turn", LARGER)], CROSS)
@example([*CROSS, *[("turn", LARGER)] * 3, ("send", LARGER), ("turn", LARGER)], CROSS)
@example([*CROSS, *[("turn", SMALLER)] * 3, ("send", SMALLER), ("turn", SMALLER)], CROSS)
def test_one_connection_stays_and_nothing_is_lost_or_overtaken(
    before: list[tuple[str, int]], after: list[tuple[str, int]]
) -> None:
    """Whoever reads, writes and accepts first, each side gets what the other sent, in order."""
    boards: list[Board] = []

    def make() -> Board:
        boards.append(Board())
        return boards[-1]

    two = Two(make)
    for what, side in before:
        two.step(what, side)
    turn_until(two.complete, *boards)
    two.check()
    for what, side in after:
        two.step(what, side)
    turn_until(two.complete, *boards)
    two.check()
    for board in boards:
        board.close()


@pytest.mark.parametrize("first", [SMALLER, LARGER])
def test_the_connection_of_the_smaller_endpoint_stays(
    make_board: Callable[[], Board], first: int
) -> None:
    two = Two(make_board)
    for what, side in CROSS:
        two.step(what, side)
    while not two.complete():
        two.boards[first].turn()
        two.boards[first].turn()
        two.boards[1 - first].turn()
    two.check()
    (stays,) = two.ports[SMALLER]._connections.values()
    assert stays.dialed
    assert [port.statistics().dialed for port in two.ports] == [1, 1]
    assert two.links[LARGER]._connection is not None
    two.step("send", LARGER)
    turn_until(two.complete, *two.boards)
    assert [port.statistics().dialed for port in two.ports] == [1, 1]


def test_an_older_connection_ends_before_the_other_brings_data(
    make_board: Callable[[], Board],
) -> None:
    """The smaller endpoint has not even accepted what the larger one retires: nothing overtakes."""
    two = Two(make_board)
    smaller, larger = two.boards
    accept = two.ports[SMALLER]
    two.step("send", SMALLER)
    two.step("send much", LARGER)
    smaller.poller.remove(accept.listener)
    turn_until(lambda: larger.payloads == two.sent[SMALLER], smaller, larger)
    two.step("send", LARGER)
    for _ in range(5):
        larger.turn()
        smaller.turn()
    assert smaller.frames_in == []
    smaller.poller.add(accept.listener, 1, accept._accept)
    turn_until(two.complete, *two.boards)
    two.check()


def test_a_smaller_endpoint_that_fails_leaves_the_other_connection(
    make_board: Callable[[], Board],
) -> None:
    """When the one that should stay breaks, the one that crossed it takes its part."""
    two = Two(make_board)
    smaller, larger = two.boards
    two.step("send", SMALLER)
    (mine,) = two.ports[SMALLER]._connections.values()
    turn_until(lambda: mine.established, smaller)
    two.step("send", LARGER)
    larger.poller.remove(two.ports[LARGER].listener)
    turn_until(lambda: bool(smaller.frames_in), *two.boards)
    mine.fail("for a test")
    two.step("send", SMALLER)
    turn_until(lambda: bool(larger.frames_in), *two.boards)
    assert larger.payloads == two.sent[SMALLER][1:]
    assert two.ports[SMALLER].statistics().dialed == 1
    assert smaller.lost == []
