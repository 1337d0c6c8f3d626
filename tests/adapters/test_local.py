"""Hand-over inside the process: by the same rules as the wire, without it."""

from __future__ import annotations

from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from board import ROUTE, Board, contact, frame
from opus_socket.adapters.flow import Output, Overflow
from opus_socket.adapters.inbox import Inbox
from opus_socket.adapters.local import LITTLE, LocalLink, LocalWay
from opus_socket.adapters.seal import PlaintextSeal
from opus_socket.adapters.turns import CLASS_TURN
from opus_socket.core.addresses import Endpoint
from opus_socket.core.message import OverlayMessage
from opus_socket.errors import RemoteProtocolError

PLACE = contact(Endpoint("127.0.0.1", 9))


class Way:
    """A link, and the list of those that have something to hand over."""

    def __init__(self, board: Board, output: Output) -> None:
        self.board = board
        self.link = LocalLink(LocalWay(board, ROUTE, PLACE), output)

    def push(self, *payloads: bytes) -> None:
        frames = [frame(payload) for payload in payloads]
        self.link.push(frames, sum(map(len, frames)), len(frames))

    def run(self) -> None:
        while self.board.run_feeders():
            pass


def test_what_is_queued_is_handed_over_in_order(board: Board) -> None:
    way = Way(board, board.output())
    way.push(b"one", b"two")
    way.push(b"three")
    assert len(way.board.feeders) == 1
    assert board.frames_in == []
    way.run()
    assert board.payloads == [b"one", b"two", b"three"]
    assert [(route, sender) for route, _, sender in board.frames_in] == [(ROUTE, PLACE)] * 3
    assert way.link.output.queued == 0


def test_a_closed_gate_leaves_the_queue_where_it_is(board: Board) -> None:
    """And fills the output, so that pressure travels to the sender."""
    gate = board.output(1)
    gate.admit(1, 1, 0.0)
    board.blockers.append(gate)
    way = Way(board, board.output(100, overflow=Overflow.BLOCK))
    for number in range(4):
        way.push(str(number).encode() * 60)
        way.run()
    assert len(board.frames_in) == 1
    assert way.link.output.closed
    gate.release(1, 0.0)
    way.run()
    assert len(board.frames_in) == 4
    assert not way.link.output.closed


def test_a_neighbor_that_takes_nothing_can_be_given_up(board: Board) -> None:
    gate = board.output(1)
    gate.admit(1, 1, 0.0)
    board.blockers.append(gate)
    way = Way(board, board.output())
    for number in range(3):
        way.push(b"x", str(number).encode())
        way.run()
    way.link.evict()
    assert (way.link.output.queued, way.link.output.dropped) == (0, 4)
    assert way.link.output.reason == "evicted"
    gate.release(1, 0.0)
    way.run()
    way.push(b"again")
    way.run()
    assert board.payloads == [b"x", b"0", b"again"]


def test_what_is_queued_when_a_link_is_closed_still_arrives(board: Board) -> None:
    way = Way(board, board.output())
    way.push(b"last")
    way.link.close()
    way.run()
    assert board.payloads == [b"last"]


@given(st.lists(st.lists(st.integers(0, 3 * LITTLE), min_size=1, max_size=4), max_size=40))
def test_what_waits_goes_together_as_far_as_it_is_little(waiting: list[list[int]]) -> None:
    """In order and at most about a turn at once; what is more goes as it came."""
    board = Board()
    taken: list[int] = []
    board.relay = lambda frames: taken.append(len(frames))
    way = Way(board, board.output())
    pushed = [[bytes((number,)) * size for size in sizes] for number, sizes in enumerate(waiting)]
    for payloads in pushed:
        way.push(*payloads)
    way.run()
    assert board.payloads == [payload for payloads in pushed for payload in payloads]
    assert way.link.output.queued == 0
    sizes = [sum(len(frame(payload)) for payload in payloads) for payloads in pushed]
    expected: list[int] = []
    joins = False
    for size in sizes:
        if joins and size <= LITTLE and expected[-1] < CLASS_TURN:
            expected[-1] += size
        else:
            expected.append(size)
        joins = size <= LITTLE
    assert taken == expected
    board.close()


def message(payload: bytes) -> OverlayMessage:
    return OverlayMessage.parse(frame(payload))


@given(st.lists(st.one_of(st.integers(0, 5), st.lists(st.binary(max_size=50), min_size=1))))
def test_an_inbox_is_a_bounded_queue(steps: list[int | list[bytes]]) -> None:
    """What is pushed comes out in order, one (0) or several at once, until the bound drops what is
    newest. A batch counts until its last message is taken.
    """
    board = Board()
    inbox = Inbox(board.output(300, overflow=Overflow.DROP), board.now)
    expected: deque[tuple[deque[OverlayMessage], int]] = deque()
    dropped = 0

    def take() -> OverlayMessage:
        message = expected[0][0].popleft()
        if not expected[0][0]:
            expected.popleft()
        return message

    for step in steps:
        count = sum(len(messages) for messages, _ in expected)
        if isinstance(step, list):
            messages = [message(payload) for payload in step]
            size = sum(len(each.frame) for each in messages)
            if sum(size for _, size in expected) < 300:
                expected.append((deque(messages), size))
            else:
                dropped += len(messages)
            inbox.push(messages, size)
        elif step:
            assert inbox.take(step) == [take() for _ in range(min(step, count))]
        elif count:
            assert inbox.pop() == take()
        assert len(inbox) == sum(len(messages) for messages, _ in expected)
        assert bool(inbox) == bool(expected)
        assert inbox.output.queued == sum(size for _, size in expected)
        assert inbox.output.dropped == dropped
    board.close()


def test_an_inbox_without_room_discards_everything(board: Board) -> None:
    inbox = Inbox(board.output(0), board.now)
    inbox.push([message(b"x"), message(b"y")], 100)
    assert inbox.take(10) == []
    statistics = inbox.output.statistics()
    assert (statistics.discarded, statistics.dropped, statistics.taken) == (2, 0, 0)
    assert not inbox.output.closed
    assert board.attended == 0


def test_plaintext_is_what_it_is_and_nothing_else() -> None:
    seal = PlaintextSeal()
    assert seal.open(seal.code, b"head", seal.protect(b"head", b"body")) == b"body"
    with pytest.raises(RemoteProtocolError) as caught:
        seal.open(1, b"head", b"body")
    assert caught.value.kind == "sealed"
