"""What waits on a connection is written whole and accounted for, however the system takes it."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from board import DIGEST, LANE, ROUTE, TAG, Board, frame
from opus_socket.adapters.flow import Output
from opus_socket.adapters.outgoing import Chunk, Outgoing
from opus_socket.adapters.record_writer import PIECES_PER_WRITE, RecordWriter
from opus_socket.adapters.records import open_record, record_head, select_record
from opus_socket.core.addresses import Endpoint
from opus_socket.core.effects import Kind

LOCAL = Endpoint("127.0.0.1", 9)
OPENING = open_record(LOCAL, TAG, DIGEST) + select_record(ROUTE)


class System(socket.socket):
    """A socket whose system takes as much of each write as it is told to.

    Args:
        takes: the most bytes of the next writes, one after the other; 0 for none, and then as much
            as there is.
    """

    def __init__(self, takes: Sequence[int] = ()) -> None:
        super().__init__(socket.AF_INET, socket.SOCK_STREAM)
        self.takes = [*reversed(takes)]
        self.taken = b""
        self.writes: list[int] = []

    def send(self, data: object, *_: object) -> int:
        return self.sendmsg([data])

    def sendmsg(self, buffers: object, *_: object) -> int:
        assert isinstance(buffers, list)
        self.writes.append(len(buffers))
        data = b"".join(buffers)
        data = data[: self.takes.pop()] if self.takes else data
        if not data:
            raise BlockingIOError
        self.taken += data
        return len(data)


@define
class Desk:
    """A writer with what it needs."""

    board: Board = field(factory=Board)
    outgoing: Outgoing = field(factory=Outgoing)
    output: Output = field(init=False)
    writer: RecordWriter = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.output = self.board.output()
        self.writer = RecordWriter(self.board, LOCAL, self.outgoing)

    def queue(self, pieces: Sequence[bytes], frames: int) -> None:
        size = sum(map(len, pieces))
        self.output.admit(size, frames, 0.0)
        self.outgoing.add_data(Chunk(LANE, Kind.OVERLAY, [*pieces], size, self.output, frames))


def with_desk(test: Callable[[Desk], None]) -> None:
    """Run a test with a desk, and clear that away."""
    desk = Desk()
    try:
        test(desk)
    finally:
        desk.board.close()


def test_many_pieces_are_written_at_once() -> None:
    """One write takes no more than so many pieces; while the system takes all, the next follows."""
    count = 3 * PIECES_PER_WRITE
    frames = [frame(bytes(5000), number) for number in range(count)]

    def write(desk: Desk) -> None:
        desk.queue(frames, count)
        with System() as system:
            assert desk.writer.write(system, data=True)
            assert system.taken == OPENING + record_head(
                Kind.OVERLAY, sum(map(len, frames))
            ) + b"".join(frames)
            assert max(system.writes) == PIECES_PER_WRITE
        assert not desk.writer.pending
        assert desk.output.queued == 0

    with_desk(write)


@given(
    st.lists(st.lists(st.integers(0, 3000), min_size=1, max_size=90), min_size=1, max_size=4),
    st.lists(st.sampled_from([0, 1, 3, 5000, 60_000, 1 << 20]), max_size=8),
)
def test_whatever_the_system_takes_is_accounted_for(
    batches: list[list[int]], takes: list[int]
) -> None:
    """To the byte, and never more than was written."""

    def write(desk: Desk) -> None:
        sent = b""
        with System(takes) as system:
            for sizes in batches:
                frames = [frame(bytes((number % 251,)) * size) for number, size in enumerate(sizes)]
                desk.queue(frames, len(frames))
                sent += b"".join(frames)
                before = len(system.taken)
                assert desk.writer.write(system, data=True) is (len(system.taken) > before)
                assert desk.writer.sent == len(system.taken)
                desk.writer.own_pieces()
            left = sum(size for output, size, _ in desk.writer._spans if output is desk.output)
            queue, lone = desk.outgoing._queues.get(LANE), desk.outgoing._lone
            waiting = [*(() if queue is None else queue.chunks), *(() if lone is None else (lone,))]
            assert desk.output.queued == left + sum(chunk.size for chunk in waiting)
            system.takes.clear()
            while desk.output.queued:
                desk.writer.write(system, data=True)
            assert _bodies(system.taken[len(OPENING) :]) == sent

    with_desk(write)


def _bodies(records: bytes) -> bytes:
    """What records of overlay messages hold."""
    bodies = b""
    while records:
        kind, length = records[0], int.from_bytes(records[1:4])
        assert kind == Kind.OVERLAY
        bodies += records[4 : 4 + length]
        records = records[4 + length :]
    return bodies
