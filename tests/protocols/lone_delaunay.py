"""One Delaunay node by itself, and others to talk to it: helpers of its tests."""

from __future__ import annotations

from math import inf
from random import Random
from typing import TypeVar

from delaunay_oracle import delaunay
from delaunay_world import World

from opus_delaunay import DelaunayNode, DelaunaySettings
from opus_delaunay.messages import Hello
from opus_socket.core.addresses import Contact, Endpoint, LogicalAddress
from opus_socket.core.effects import Effects, Send
from opus_socket.core.node import NodeContext
from opus_socket.core.wire import ProtocolMessage

M = TypeVar("M", bound=ProtocolMessage)


def contact(x: int, y: int, incarnation: int = 5, host: int | None = None) -> Contact:
    """A member at a place; its endpoint follows from the place, or is host's."""
    endpoint = Endpoint("10.1.0.1", 1 + (x * 64 + y if host is None else host) % 60000)
    return Contact(LogicalAddress((x, y)), incarnation, 0, (endpoint,))


def place(x: int, y: int) -> LogicalAddress:
    return LogicalAddress((x, y))


def founder(x: int, y: int) -> DelaunayNode:
    """A node that was told that nobody is there."""
    node = joiner(x, y)
    node.contacts([], 0.0)
    return node


def joiner(x: int, y: int) -> DelaunayNode:
    """A node that was started at time 0."""
    own = Contact(None, 50, 0, (Endpoint("10.1.0.1", 60001),))
    node = DelaunayNode(NodeContext(own, Random(1)), DelaunaySettings(coordinates=f"{x},{y}"))
    node.start(0.0)
    return node


def hello(
    source: Contact,
    to: DelaunayNode,
    clockwise: Contact | None = None,
    counterclockwise: Contact | None = None,
    heard: bool = True,
) -> Hello:
    own = to.contact
    return Hello(source, to.address, own.incarnation, clockwise, counterclockwise, heard)


def hear(
    node: DelaunayNode, message: ProtocolMessage, sender: Contact, now: float = 0.0
) -> Effects:
    return node.receive(message, sender.at(None), now)


def meet(node: DelaunayNode, *others: Contact, now: float = 0.0) -> None:
    """Let these become neighbors."""
    for other in others:
        hear(node, hello(other, node), other, now)


def sends(done: Effects) -> list[tuple[str, Contact]]:
    return [(type(e.message).__name__, e.to) for e in done if isinstance(e, Send)]


def sent(done: Effects, cls: type[M]) -> list[M]:
    """The messages of one class among what a node wants done."""
    return [e.message for e in done if isinstance(e, Send) and isinstance(e.message, cls)]


def wake_until(node: DelaunayNode, until: float) -> list[tuple[float, Effects]]:
    """Wake a node whenever it wants to be woken; returns what it did and when."""
    done = []
    while node.next_deadline <= until:
        now = node.next_deadline
        done.append((now, node.wake(now)))
    return done


def ring(node: DelaunayNode) -> list[tuple[int, ...]]:
    return [tuple(c.address or ()) for c in node.neighbors]


def settled(
    points: list[tuple[int, int]],
    heartbeat: float = 1.0,
    delay: tuple[float, float] = (0.01, 0.1),
    seed: int = 0,
) -> World:
    """An overlay that has come to rest."""
    world = World(seed=seed, heartbeat=heartbeat, delay=delay)
    for point in points:
        world.add(point)
    expected = delaunay(points)
    took = world.run_until(
        lambda: world.tables() == expected and all(m.node.stable for m in world.alive), 60.0
    )
    assert took < inf
    world.run(2.5 * heartbeat)
    return world


def grid(side: int, pitch: int = 10) -> list[tuple[int, int]]:
    return [(pitch * x + y, pitch * y + 2 * x) for x in range(side) for y in range(side)]
