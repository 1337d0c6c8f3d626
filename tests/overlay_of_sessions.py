"""Members on a given graph with engines and attendants, and links that break at will.

The one rule: what a broken link or a crashed member carries is gone; everything else arrives at
once and in order. The tree of a root is breadth first through the graph, and does not mend itself.
"""

from __future__ import annotations

from collections import deque
from random import Random

from attrs import define, field

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.attendant import ATTENDED, Attendant, Attended, Speak
from opus_socket.core.dispatch import Dispatch
from opus_socket.core.effects import Emit
from opus_socket.core.engine import EngineSettings, ForwardingEngine
from opus_socket.core.events import Event
from opus_socket.core.node import Mode
from opus_socket.errors import RemoteProtocolError
from still_overlay import Neighbors, StillNode, StillOverlay, member


class RootedNode(StillNode):
    """A still node that knows its parents: `trees` says them, and may be changed by hand."""

    trees: dict[LogicalAddress, LogicalAddress | None]

    def parent(self, root: LogicalAddress) -> LogicalAddress | None:
        return self.trees.get(root)

    def children(self, root: LogicalAddress) -> tuple[LogicalAddress, ...]:
        return tuple(self.hops(Mode.MULTICAST, root, None))


@define(eq=False)
class Watched:
    """One member."""

    node: RootedNode
    engine: ForwardingEngine
    attendant: Attendant
    events: list[Event] = field(factory=list)
    refused: list[str] = field(factory=list)
    delivered: int = 0


@define(eq=False)
class World:
    """The members of a graph."""

    neighbors: Neighbors
    now: float = 0.0
    members: dict[int, Watched] = field(factory=dict)
    dead: list[int] = field(factory=list)
    _wire: deque[tuple[int, int, bytes]] = field(factory=deque)

    def __attrs_post_init__(self) -> None:
        still = StillOverlay(self.neighbors)
        for index, near in self.neighbors.items():
            table = [member(other) for other in near]
            node = RootedNode(member(index), table, still.hops_of(index))
            node.trees = {
                member(root): member(tree[index])
                for root in self.neighbors
                if index in (tree := still.towards(root))
            }
            engine = ForwardingEngine(node, EngineSettings(), 1000 + index)
            attendant = Attendant(engine, node, Random(index))
            self.members[index] = Watched(node, engine, attendant)

    def send(self, source: int, mode: Mode = Mode.MULTICAST, traffic_class: int = 0) -> None:
        """A member sends one message to all."""
        engine = self.members[source].engine
        self._forward(
            source, engine.originate([b"x"], mode, None, self.now, traffic_class=traffic_class)
        )
        self.run()

    def crash(self, index: int) -> None:
        """A member is gone, and its neighbors' adapters say so."""
        self.dead.append(index)
        for other in self.neighbors[index]:
            if other not in self.dead:
                self.members[other].attendant.link_failed(member(index), self.now)

    def advance(self, until: float) -> None:
        """Let time pass."""
        while True:
            alive = [number for number in self.members if number not in self.dead]
            due, number = min(
                ((self.members[n].attendant.sessions.next_deadline, n) for n in alive),
                default=(float("inf"), 0),
            )
            if due > until:
                break
            self.now = max(self.now, due)
            self.perform(number, self.members[number].attendant.wake(self.now))
            self.run()
        self.now = until
        for number, each in self.members.items():
            if number not in self.dead:
                self.perform(number, each.attendant.links((), {}, self.now))
        self.run()

    def events(self) -> dict[int, list[Event]]:
        """What happened to each living member that anything happened to."""
        return {
            number: each.events
            for number, each in self.members.items()
            if each.events and number not in self.dead
        }

    def perform(self, here: int, effects: object) -> None:
        """Do what an attendant asks for."""
        assert isinstance(effects, (list, tuple))
        for effect in effects:
            self._perform(here, effect)

    def _perform(self, here: int, effect: Attended) -> None:
        me = self.members[here]
        if isinstance(effect, Emit):
            me.events.append(effect.event)
        elif isinstance(effect, Speak):
            wanted = effect.messages
            self._forward(
                here,
                me.engine.originate_service(
                    effect.service,
                    wanted.bodies,
                    wanted.mode,
                    wanted.key,
                    self.now,
                    hop_limit=wanted.hop_limit,
                    traffic_class=wanted.traffic_class,
                ),
            )

    def _forward(self, here: int, dispatch: Dispatch) -> None:
        me = self.members[here]
        me.delivered += len(dispatch.delivered)
        for output in dispatch.outputs:
            assert output.contact.address is not None
            self._wire.append((here, output.contact.address[0], b"".join(output.pieces)))
        for message in dispatch.for_services:
            assert message.service in ATTENDED
            try:
                self.perform(here, me.attendant.receive(message, me.node.contact, self.now))
            except RemoteProtocolError as error:
                me.refused.append(error.kind)

    def run(self) -> None:
        """Carry everything."""
        while self._wire:
            sender, receiver, data = self._wire.popleft()
            if receiver not in self.dead:
                engine = self.members[receiver].engine
                buffer = memoryview(bytearray(data))
                self._forward(receiver, engine.switch(buffer, member(sender), self.now))
