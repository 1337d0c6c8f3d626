"""Nodes that stand still, and whole overlays of them, for tests of the forwarding engine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from attrs import define, field
from hypothesis import strategies as st

from opus_socket.core.addresses import Contact, Endpoint, LogicalAddress
from opus_socket.core.effects import Effects
from opus_socket.core.engine import Dispatch, EngineSettings, ForwardingEngine
from opus_socket.core.message import OverlayMessage
from opus_socket.core.node import Mode, Node
from opus_socket.core.wire import ProtocolMessage

Hops = Callable[[Mode, LogicalAddress, LogicalAddress | None], Sequence[LogicalAddress]]


def contact_of(address: LogicalAddress) -> Contact:
    """A contact that nobody reaches; its port tells the members apart."""
    port = 1 + sum((index + 1) * word for index, word in enumerate(address)) % 65_000
    return Contact(address, 1, 0, (Endpoint("127.0.0.1", port),))


class StillNode(Node):
    """A node whose tables are given and change by hand only."""

    next_deadline = float("inf")

    def __init__(
        self,
        address: LogicalAddress | None,
        neighbors: Sequence[LogicalAddress],
        hops: Hops,
        accepts: Callable[[LogicalAddress], bool] = lambda key: False,
    ) -> None:
        self.contact = (
            Contact(None, 1, 0, (Endpoint("127.0.0.1", 1),))
            if address is None
            else contact_of(address)
        )
        self.stable = True
        self.version = 0
        self.table = tuple(sorted(neighbors))
        self.hops = hops
        self.accepted = accepts
        self.asked = 0

    @property
    def neighbors(self) -> tuple[Contact, ...]:
        return tuple(contact_of(address) for address in self.table)

    def next_hops(
        self, mode: Mode, key: LogicalAddress, arrived_from: LogicalAddress | None
    ) -> tuple[LogicalAddress, ...]:
        self.asked += 1
        return tuple(self.hops(mode, key, arrived_from))

    def accepts(self, key: LogicalAddress) -> bool:
        return self.accepted(key)

    def parent(self, root: LogicalAddress) -> LogicalAddress | None:
        raise AssertionError("the engine asks for next hops only")

    def children(self, root: LogicalAddress) -> tuple[LogicalAddress, ...]:
        raise AssertionError("the engine asks for next hops only")

    def start(self, now: float) -> Effects:
        return ()

    def receive(self, message: ProtocolMessage, sender: Contact, now: float) -> Effects:
        return ()

    def wake(self, now: float) -> Effects:
        return ()

    def leave(self, now: float) -> Effects:
        return ()

    def contacts(self, found: Sequence[Contact], now: float) -> Effects:
        return ()


Neighbors = dict[int, list[int]]


def member(index: int) -> LogicalAddress:
    return LogicalAddress((index, index))


@define(eq=False)
class StillOverlay:
    """Members that hand every output over at once, on shortest ways through a graph."""

    neighbors: Neighbors
    engines: dict[int, ForwardingEngine] = field(factory=dict)
    delivered: dict[int, list[OverlayMessage]] = field(factory=dict)
    events: dict[int, list[object]] = field(factory=dict)
    transmitted: int = 0
    waiting: deque[tuple[int, int, bytes]] = field(factory=deque)

    def __attrs_post_init__(self) -> None:
        for index, near in self.neighbors.items():
            node = StillNode(member(index), [member(other) for other in near], self.hops_of(index))
            self.engines[index] = ForwardingEngine(node, EngineSettings(), 1000 + index)
            self.delivered[index], self.events[index] = [], []

    def towards(self, root: int) -> dict[int, int]:
        """Each member's next hop to a root: breadth first, the smallest first."""
        hops: dict[int, int] = {}
        queue = deque([root])
        while queue:
            at = queue.popleft()
            for other in self.neighbors[at]:
                if other != root and other not in hops:
                    hops[other] = at
                    queue.append(other)
        return hops

    def hops_of(
        self, here: int
    ) -> Callable[[Mode, LogicalAddress, LogicalAddress | None], list[LogicalAddress]]:
        def hops(
            mode: Mode, key: LogicalAddress, arrived_from: LogicalAddress | None
        ) -> list[LogicalAddress]:
            if mode is Mode.FLOOD:
                return [member(other) for other in self.neighbors[here]]
            tree = self.towards(key[0])
            if mode is Mode.MULTICAST:
                return [member(child) for child, parent in tree.items() if parent == here]
            return [member(tree[here])] if here in tree else []

        return hops

    def send(self, source: int, mode: Mode, key: int | None, payloads: list[bytes]) -> None:
        to = None if key is None else member(key)
        self.perform(source, self.engines[source].originate(payloads, mode, to, 0.0))
        while self.waiting:
            sender, receiver, data = self.waiting.popleft()
            buffer = memoryview(bytearray(data))
            self.perform(receiver, self.engines[receiver].switch(buffer, member(sender), 0.0))

    def perform(self, here: int, dispatch: Dispatch) -> None:
        self.delivered[here] += dispatch.delivered
        self.events[here] += dispatch.events
        for output in dispatch.outputs:
            assert output.contact.address is not None
            self.transmitted += output.frames
            receiver = output.contact.address[0]
            self.waiting.append((here, receiver, b"".join(output.pieces)))


@st.composite
def graphs(draw: st.DrawFn) -> Neighbors:
    """Connected graphs of 1 to 12 members: a tree, and perhaps more edges."""
    size = draw(st.integers(1, 12))
    neighbors: Neighbors = {index: [] for index in range(size)}
    edges = [(index, draw(st.integers(0, index - 1))) for index in range(1, size)]
    more = st.tuples(st.integers(0, size - 1), st.integers(0, size - 1))
    edges += draw(st.lists(more, max_size=8))
    for left, right in edges:
        if left != right and right not in neighbors[left]:
            neighbors[left].append(right)
            neighbors[right].append(left)
    return {index: sorted(near) for index, near in neighbors.items()}


def lone(index: int, *hops: int, accepts: bool = False, joined: bool = True) -> StillNode:
    near = [member(hop) for hop in hops]
    address = member(index) if joined else None
    return StillNode(address, near, lambda *_: near, lambda key: accepts)


def relay(engine: ForwardingEngine, data: bytes, came: int = 1, now: float = 0.0) -> Dispatch:
    return engine.switch(memoryview(bytearray(data)), member(came), now)


def frames_of(source: int, mode: Mode, key: int | None, *payloads: bytes, hops: int = 9) -> bytes:
    engine = ForwardingEngine(lone(source, 1), EngineSettings(), 1000 + source)
    to = None if key is None else member(key)
    [output] = engine.originate(payloads, mode, to, 0.0, hop_limit=hops).outputs
    return b"".join(output.pieces)
