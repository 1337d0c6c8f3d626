"""A board that is one member, held to a bandwidth, and what can be pushed through it.

The one rule: it lets go and lets in what `Emulation` says, and records it as any board does.
"""

from __future__ import annotations

from attrs import define, field

from board import LANE, TAG, Board, contact, frame
from opus_socket.adapters.base import Route
from opus_socket.adapters.emulation import EmulatedLink, Emulation, Gate
from opus_socket.adapters.flow import FlowSettings, Output
from opus_socket.adapters.local import LocalLink, LocalWay
from opus_socket.adapters.pool import TcpLink
from opus_socket.core.addresses import Contact, Endpoint, LogicalAddress
from opus_socket.core.buckets import Bandwidth, Buckets, Direction, Limit
from opus_socket.core.message import OverlayMessage
from opus_socket.core.parcel import Frames
from opus_socket.core.shaper import SHARE

NEIGHBORS = [LogicalAddress((number, 4)) for number in range(3)]
SENDER = contact(Endpoint("127.0.0.1", 9))
BOUNDS = FlowSettings(1 << 18)
IN, OUT, TOTAL = Direction.IN, Direction.OUT, Direction.TOTAL
RATE = 100_000
DEPTH = RATE // 10
PART = DEPTH // SHARE
FRAME = len(frame(bytes(1_000)))


@define(eq=False)
class EmulatedBoard(Board):
    """A board that is one member, held to a bandwidth."""

    emulation: Emulation | None = None
    pace: float = 0.0
    """Seconds that pass whenever somebody asks for the time."""
    freed: int = 0
    neighbors: dict[int, LogicalAddress] = field(factory=dict)
    """By the index from which they send."""

    def now(self) -> float:
        self.clock += self.pace
        return self.clock

    def limit(self, *limits: Limit, flow: FlowSettings = BOUNDS) -> Emulation:
        buckets = Buckets.of(Bandwidth(limits))
        self.emulation = made = Emulation(
            self, buckets, flow, {}, self._attend, self._switch, self._free
        )
        return made

    def frames(
        self, route: Route, frames: Frames, sender: Contact, blockers: list[Output] | None
    ) -> tuple[int, str | None]:
        if self.emulation is None:
            return Board.frames(self, route, frames, sender, blockers)
        link = self.neighbors.get(sender.index)
        return self.emulation.take(frames, sender, link, blockers)

    def change(self, direction: Direction, rate: float | None) -> None:
        assert self.emulation is not None
        self.emulation.buckets.limit(direction, None, rate, self.clock)
        self.emulation.changed()
        self.work()

    def gate(self, link: LogicalAddress | None = None, traffic_class: int = 0) -> Gate:
        assert self.emulation is not None
        return self.emulation.inlets[link].gates[traffic_class]

    def work(self) -> None:
        """Do everything that can be done now, except on sockets."""
        while self.run_feeders():
            pass
        self.flush()

    def pass_time(self, seconds: float) -> None:
        self.advance(seconds)
        self.work()

    @property
    def taken(self) -> int:
        """Bytes of the frames that came."""
        return sum(len(data) for _, data, _ in self.frames_in)

    def _switch(
        self, frames: Frames, sender: Contact, blockers: list[Output] | None
    ) -> tuple[int, str | None]:
        return Board.frames(self, Route(TAG, 1, sender.index), frames, sender, blockers)

    def _free(self, emulation: Emulation) -> None:
        assert emulation is self.emulation
        self.freed += 1


def local(board: EmulatedBoard, to: Board, number: int = 0, **settings: object) -> EmulatedLink:
    """The link to a neighbor in the same process."""
    assert board.emulation is not None
    flow = FlowSettings(**{"limit": BOUNDS.limit, **settings})  # type: ignore[arg-type]
    output = Output(NEIGHBORS[number], flow, board._attend)
    link = LocalLink(LocalWay(to, Route(TAG, 1, number), SENDER), output)
    return board.emulation.hold(link, NEIGHBORS[number])


def push(link: EmulatedLink, count: int, size: int = 1_000, first: int = 0) -> int:
    """Push so many messages at once; their bytes."""
    pieces = [frame(b"x" * size, first + number) for number in range(count)]
    total = sum(map(len, pieces))
    link.push(pieces, total, count)
    return total


def bring(
    board: EmulatedBoard,
    count: int,
    size: int = 1_000,
    first: int = 0,
    *,
    index: int = 9,
    can_wait: bool = True,
) -> None:
    """Bring so many messages from the neighbor that sends from an index."""
    data = bytearray(b"".join(frame(b"x" * size, first + number) for number in range(count)))
    sender = contact(Endpoint("127.0.0.1", 9), index=index)
    route = Route(TAG, 1, index)
    assert board.frames(route, memoryview(data), sender, [] if can_wait else None)[1] is None


def numbers(board: Board, index: int | None = None) -> list[int]:
    """The numbers of the messages that came, of those from one index only if that is given."""
    found = []
    for route, data, _ in board.frames_in:
        identity = OverlayMessage.parse(data).id
        assert identity is not None
        if index is None or route.from_index == index:
            found.append(identity[1])
    return found


def taken(board: Board) -> int:
    return sum(len(data) for _, data, _ in board.frames_in)


def over_tcp(board: EmulatedBoard, to: Board) -> EmulatedLink:
    """The link to a neighbor over a connection."""
    assert board.emulation is not None
    source, target = board.listen(), to.listen()
    output = Output(NEIGHBORS[0], BOUNDS, board._attend)
    link = TcpLink(board, source, contact(target.local), LANE, output)
    return board.emulation.hold(link, NEIGHBORS[0])


def feed(board: Board) -> None:
    """Let everybody hand over until nobody has anything."""
    while board.run_feeders():
        pass
