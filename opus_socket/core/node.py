"""The interfaces of every protocol: a machine, a node, and what a protocol's package declares.

Its one rule: a machine has no I/O, no clock and no chance of its own. It is given inputs with
`now` (seconds of a monotonic clock) and returns effects; when its deadline comes it is woken.

A driver runs a machine like this::

    effects = machine.start(now)
    while True:
        perform(effects)
        wait until a packet comes or machine.next_deadline
        effects = machine.receive(message, sender, now)   or   machine.wake(now)

A driver that is late must not look like a failure: it delivers the packets in hand before it
wakes a machine, and a machine woken more than a heartbeat late shifts its neighbors' expiry.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from enum import IntEnum
from random import Random
from typing import Any

from attrs import frozen

from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.effects import Effects, Quantity
from opus_socket.core.wire import ProtocolMessage
from opus_socket.errors import LocalProtocolError


class Mode(IntEnum):
    """Delivery modes, as the header's Dmd field has them."""

    MULTICAST = 0
    FLOOD = 1
    UNICAST = 2
    ANYCAST = 3


@frozen
class Measurement:
    """What was measured on the way to a contact.

    Attributes:
        quantity: what it is.
        value: in the unit of the quantity (see `Quantity`); None when no answer came.
    """

    quantity: Quantity
    value: float | None


class Machine(ABC):
    """A protocol without I/O: inputs and `now` in, effects out."""

    @property
    @abstractmethod
    def next_deadline(self) -> float:
        """When it wants to be woken, in the driver's seconds; inf for never."""

    @abstractmethod
    def start(self, now: float) -> Effects:
        """Begin."""

    @abstractmethod
    def receive(self, message: ProtocolMessage, sender: Contact, now: float) -> Effects:
        """A message came.

        Args:
            message: decoded and within its bounds, otherwise not to be trusted.
            sender: where it came from; its logical address is unknown (None).
            now: seconds.
        """

    @abstractmethod
    def wake(self, now: float) -> Effects:
        """The deadline has come (or the driver was asked to look)."""

    @abstractmethod
    def leave(self, now: float) -> Effects:
        """Say goodbye. `next_deadline` is inf once nothing is left to do."""


class Node(Machine):
    """One member's place in one topology.

    Attributes:
        contact: this member's own contact, with its logical address.
        stable: whether the node has found its place, as its protocol defines it.
        version: grows whenever an answer of the queries below may have changed.
    """

    contact: Contact
    stable: bool
    version: int

    @property
    def address(self) -> LogicalAddress:
        """This member's logical address."""
        address = self.contact.address
        if address is None:
            raise LocalProtocolError("this node has no logical address yet")
        return address

    @property
    @abstractmethod
    def neighbors(self) -> tuple[Contact, ...]:
        """The neighbors' contacts, sorted by logical address."""

    @abstractmethod
    def parent(self, root: LogicalAddress) -> LogicalAddress | None:
        """The next hop toward `root`; None at the root itself or when there is none."""

    @abstractmethod
    def children(self, root: LogicalAddress) -> tuple[LogicalAddress, ...]:
        """The neighbors whose parent for `root` this node is, sorted."""

    def next_hops(
        self, mode: Mode, key: LogicalAddress, arrived_from: LogicalAddress | None
    ) -> tuple[LogicalAddress, ...]:
        """Where a message goes next. All that the forwarding engine asks.

        Args:
            mode: how it is delivered.
            key: the source of a multicast or flood, the destination of a unicast or anycast.
            arrived_from: the neighbor it came from; None for this member's own.
        """
        if mode is Mode.MULTICAST:
            return self.children(key)
        if mode is Mode.FLOOD:
            return tuple(
                contact.address
                for contact in self.neighbors
                if contact.address is not None and contact.address != arrived_from
            )
        parent = self.parent(key)
        return () if parent is None else (parent,)

    def accepts(self, key: LogicalAddress) -> bool:
        """Whether an anycast message for `key` is delivered here (asked when no hop is nearer)."""
        return key == self.address

    @abstractmethod
    def contacts(self, found: Sequence[Contact], now: float) -> Effects:
        """Members were found. An empty list means that whoever could know says: nobody is there."""

    def measured(self, contact: Contact, measurement: Measurement, now: float) -> Effects:
        """A measurement that was asked for has ended."""
        return ()

    def link_failed(self, neighbor: LogicalAddress, now: float) -> Effects:
        """An adapter lost its connection to a neighbor: a hint to look at once, not a proof."""
        return ()

    def set(self, name: str, value: object, now: float) -> Effects:
        """Turn a knob that the protocol documents.

        Raises:
            LocalProtocolError: the protocol has no such knob, or the value is out of range.
        """
        raise LocalProtocolError(f"this protocol has no knob {name!r}; it has none")

    def statistics(self) -> object:
        """A frozen attrs object of counters and gauges, each field documented."""
        return None


@frozen
class NodeContext:
    """What a node is given when it is made.

    Attributes:
        contact: the member's contact, still without a logical address.
        rng: its own source of chance.
    """

    contact: Contact
    rng: Random


@frozen
class ProtocolSpec:
    """What a protocol's package declares as `SPEC`, under the entry point group
    `opus_socket.protocols`.

    Attributes:
        name: the value of `node.protocol` in a configuration.
        summary: one line for `opus-socket protocols`.
        las: words of a logical address less one.
        settings: the frozen attrs class of the table `[node.NAME]`; every field has a default
            and metadata `unit` and `meaning`.
        messages: the protocol's message classes.
        create: makes a node from its context and settings.
        parse_address, format_address: logical addresses as a person writes them.
    """

    name: str
    summary: str
    las: int
    settings: type[Any]
    messages: tuple[type[ProtocolMessage], ...]
    create: Callable[[NodeContext, Any], Node]
    parse_address: Callable[[str], LogicalAddress] = LogicalAddress.parse
    format_address: Callable[[LogicalAddress], str] = str
