"""A host without machines: adapters on real sockets, under a clock that is moved by hand.

The one rule: it records what adapters hand over and judges nothing. Boards take turns when they
are told to, so that a test decides what each side has read and written when.
"""

from __future__ import annotations

import heapq
import select
from collections import Counter, deque
from collections.abc import Callable, Iterator
from itertools import count

from attrs import define, field

from opus_socket.adapters.address_cache import AddressCache
from opus_socket.adapters.base import LONGEST_FRAME, READ_SIZE, Feeder, Lane, Route, Writer
from opus_socket.adapters.flow import FlowSettings, Output
from opus_socket.adapters.poller import Poller, open_poller
from opus_socket.adapters.pool import PoolSettings, TcpPort, listen
from opus_socket.core.addresses import Contact, Endpoint, LogicalAddress, Use
from opus_socket.core.effects import Kind
from opus_socket.core.extensions import Code, Extension
from opus_socket.core.message import VERSION, OverlayMessage, class_of, version_and_size
from opus_socket.core.node import Mode
from opus_socket.core.parcel import Frames, Parcel

TAG = 7
DIGEST = b"8 bytes!"
ROUTE = Route(TAG, 1, 2)
LANE = Lane(ROUTE, 0)
PATIENCE = 10.0
"""Real seconds that a test waits for the system at most, before it fails."""


@define(eq=False)
class Board:
    """What an adapter sees of its host.

    Attributes:
        clock: its time, in seconds.
        digests: of the overlays that have members here.
        messages, frames_in: what came, in order.
        refused: what was counted.
        lost: what connections reported as lost.
        blockers: outputs that whatever is fed is told of, as far as they are closed.
        gates: an output that all frames of a lane feed, where there is one.
        relay: called with every run of frames.
        seen: called with how many bytes are handed on.
        attended: how often an output asked to be looked at.
        feeders: those that can go on, and have not yet.
    """

    clock: float = 0.0
    digests: dict[int, bytes] = field(factory=lambda: {TAG: DIGEST})
    poller: Poller = field(factory=open_poller)
    buffer: bytearray = field(factory=lambda: bytearray(READ_SIZE + LONGEST_FRAME))
    address_cache: AddressCache = field(factory=AddressCache)
    messages: list[tuple[Route, Kind, bytes, Contact]] = field(factory=list)
    frames_in: list[tuple[Route, bytes, Contact]] = field(factory=list)
    refused: Counter[str] = field(factory=Counter)
    lost: list[tuple[tuple[str, int], str]] = field(factory=list)
    blockers: list[Output] = field(factory=list)
    gates: dict[Lane, Output] = field(factory=dict)
    relay: Callable[[memoryview], None] | None = None
    seen: Callable[[int], None] = field(default=lambda _: None)
    attended: int = 0
    ports: list[TcpPort] = field(factory=list)
    feeders: deque[Feeder] = field(factory=deque)
    turns: int = 0
    _timers: list[tuple[float, int, Callable[[], None]]] = field(factory=list)
    _writers: list[Writer] = field(factory=list)
    _order: Iterator[int] = field(factory=count)

    def now(self) -> float:
        return self.clock

    def call_at(self, when: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (when, next(self._order), call))

    def message(self, route: Route, kind: Kind, body: bytes, sender: Contact) -> None:
        self.messages.append((route, kind, body, sender))

    def frames(
        self, route: Route, frames: Frames, sender: Contact, blockers: list[Output] | None
    ) -> tuple[int, str | None]:
        frames = frames.view if isinstance(frames, Parcel) else frames
        start = 0
        broken = None
        self.seen(len(frames))
        lane = Lane(route, class_of(frames))
        while len(frames) - start >= 8:
            version, size = version_and_size(frames, start)
            if version != VERSION:
                broken = "version"
                break
            if start + size > len(frames):
                break
            self.frames_in.append((route, bytes(frames[start : start + size]), sender))
            start += size
        if self.relay is not None and start:
            self.relay(frames[:start])
        if blockers is not None:
            fed = [*self.blockers, *filter(None, [self.gates.get(lane)])]
            blockers += [output for output in fed if output.closed]
        return start, broken

    def digest(self, tag: int) -> bytes | None:
        return self.digests.get(tag)

    def refuse(self, kind: str, tag: int | None = None) -> None:
        self.refused[kind] += 1

    def run_later(self, feeder: Feeder) -> None:
        self.feeders.append(feeder)

    def flush_later(self, writer: Writer) -> None:
        self._writers.append(writer)

    def flush(self) -> None:
        while self._writers:
            writers, self._writers = self._writers, []
            for writer in writers:
                writer.flush()

    # What tests do

    def listen(
        self, host: str = "127.0.0.1", settings: PoolSettings | None = None, use: Use = Use.BOTH
    ) -> TcpPort:
        """A port that listens somewhere."""
        listener = listen(host, 0)
        endpoint = Endpoint(host, listener.getsockname()[1], use)
        port = TcpPort(self, listener, endpoint, self._lose, settings or PoolSettings())
        self.ports.append(port)
        return port

    def output(self, limit: int = 1 << 30, **settings: object) -> Output:
        """An output; by default one that is never full."""
        flow = FlowSettings(limit, **settings)  # type: ignore[arg-type]
        return Output(None, flow, self._attend)

    def turn(self) -> bool:
        """One turn of the loop; whether anything was ready or due."""
        self.turns += 1
        ready = self.poller.poll()
        for call, mask in ready:
            call(mask)
        due = self._run_timers()
        fed = self.run_feeders()
        self.flush()
        return bool(ready) or due or fed

    def run_feeders(self) -> bool:
        """Let those go on that had to wait; whether there were any."""
        waiting, self.feeders = self.feeders, deque()
        for feeder in waiting:
            feeder.run()
        return bool(waiting)

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.clock += seconds
        self._run_timers()
        self.flush()

    @property
    def payloads(self) -> list[bytes]:
        """The payloads of the frames that came."""
        return [OverlayMessage.parse(frame).payload for _, frame, _ in self.frames_in]

    @property
    def timers(self) -> int:
        """How many calls are due later."""
        return len(self._timers)

    def close(self) -> None:
        for port in self.ports:
            port.close()
        self.poller.close()

    def _run_timers(self) -> bool:
        due = False
        while self._timers and self._timers[0][0] <= self.clock:
            due = True
            heapq.heappop(self._timers)[2]()
        return due

    def _lose(self, local: Endpoint, place: tuple[str, int], reason: str) -> None:
        assert local in [port.local for port in self.ports]
        self.lost.append((place, reason))

    def _attend(self) -> None:
        self.attended += 1


def turn_until(condition: Callable[[], bool], *boards: Board) -> None:
    """Let boards take turns until something holds; fails when nothing comes any more."""
    while not condition():
        busy = [board.turn() for board in boards]
        if not any(busy) and not condition():
            ready, _, _ = select.select([board.poller for board in boards], [], [], PATIENCE)
            assert ready, "nothing comes any more, and it does not hold"


def frame(payload: bytes, sequence: int = 0, traffic_class: int = 0) -> bytes:
    """A multicast message."""
    identity = (1).to_bytes(8) + sequence.to_bytes(8)
    chain = (Extension(Code.MESSAGE_ID, identity), Extension(Code.RAW, payload))
    source = LogicalAddress((1, 2))
    return OverlayMessage.build(
        source, None, Mode.MULTICAST, chain, hop_limit=9, traffic_class=traffic_class
    ).frame


def contact(*endpoints: Endpoint, index: int = 1) -> Contact:
    """A neighbor that is reached there."""
    return Contact(LogicalAddress((3, 4)), 1, index, endpoints)
