"""Route decisions, asked of the node once and kept until its tables change.

Its one rule: a decision is known by (mode, key, arrived from) and dies with the node's version.
"""

from __future__ import annotations

from attrs import define, field, frozen

from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.message import MODES
from opus_socket.core.node import Mode, Node


@frozen(eq=False)
class Route:
    """Where messages go next.

    Attributes:
        contacts: the neighbors, never the one they came from.
        accepted: whether an anycast message is delivered here.
    """

    contacts: tuple[Contact, ...]
    accepted: bool


@define(eq=False)
class RouteCache:
    """The decisions of one node.

    Args:
        node: who decides.
        capacity: how many are kept, the oldest forgotten first.

    Attributes:
        version: that of the node's tables when the decisions were made.
        hits, misses: decisions that were known, and those that the node was asked for.
    """

    node: Node
    capacity: int
    version: int | None = field(default=None, init=False)
    hits: int = field(default=0, init=False)
    misses: int = field(default=0, init=False)
    _contacts: dict[LogicalAddress, Contact] = field(factory=dict, init=False)
    _routes: dict[tuple[int, bytes, LogicalAddress | None], Route] = field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._routes)

    def refresh(self) -> None:
        """Forget everything, because the node's tables have changed."""
        self.version = self.node.version
        self._routes.clear()
        self._contacts = {
            contact.address: contact
            for contact in self.node.neighbors
            if contact.address is not None
        }

    def find(self, mode: int, key: bytes, arrived_from: LogicalAddress | None) -> Route:
        """The decision for a message.

        Args:
            mode: how it is delivered.
            key: the source's (multicast, flood) or the destination's address on the wire.
            arrived_from: the neighbor it came from; None for this member's own.
        """
        route = self._routes.get((mode, key, arrived_from))
        if route is not None:
            self.hits += 1
            return route
        self.misses += 1
        route = self._ask(MODES[mode], LogicalAddress.from_wire(key), arrived_from)
        while len(self._routes) >= self.capacity:
            del self._routes[next(iter(self._routes))]
        self._routes[mode, key, arrived_from] = route
        return route

    def _ask(self, mode: Mode, key: LogicalAddress, arrived_from: LogicalAddress | None) -> Route:
        hops = self.node.next_hops(mode, key, arrived_from)
        # Sent back where it came from, a message would only be dropped there as a duplicate,
        # and nobody would be told that it was lost.
        contacts = tuple(
            self._contacts[hop] for hop in hops if hop != arrived_from and hop in self._contacts
        )
        accepted = mode is Mode.ANYCAST and not contacts and self.node.accepts(key)
        return Route(contacts, accepted)
