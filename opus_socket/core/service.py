"""The interface of services and handlers: machines that ride on a socket.

Its one rule: like every machine, a service returns what it wants done. A **service** sees its own
messages only, which travel as the application's do, under an id of its own; members that do not
run it pass them on. A **handler** is a service without an id: it sees the application's messages
that arrive at one socket. Either may hold a message and merge several into others (`hold`).

A driver runs a service like this (see `serving`)::

    engine.register_service(service_id(spec.name), spec.intercepts)
    effects = service.start(now)
    while True:
        for each effect: Originate -> engine.originate_service(...), Release -> engine.resume(...)
        wait for a ForService of a dispatch, for a request, or until service.next_deadline
        effects = service.receive(message, now)   or   ask(request, now)   or   wake(now)

Source: "Algorithm API" and `hold` of iOverlay, section 2; the interceptors of HyperCast's sockets.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from enum import Flag, auto
from math import inf
from random import Random
from typing import Any, Protocol

from attrs import define, frozen

from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.dispatch import ForService
from opus_socket.core.effects import Emit
from opus_socket.core.node import Mode
from opus_socket.errors import ConfigurationError, LocalProtocolError


class Scope(Flag):
    """Which messages of the application a handler sees.

    DELIVERED ones are for this member; RELAYED ones are on their way to others. Of a multicast at
    a member that has children, the two are decided apart: what the handler does not see is
    delivered, or sent on, without it. A message in fragments is seen whole where it is for this
    member, and relayed unseen: relays would have to keep all of it.
    """

    DELIVERED = auto()
    RELAYED = auto()
    BOTH = DELIVERED | RELAYED


@define(eq=False)
class Originate:
    """Send messages: a service's to the same service of others, a handler's to applications.

    What cannot be sent (a key that is no address of a member, a body above the limit) is counted
    as refused, `unsendable`: a remote may have led the service to it.

    Attributes:
        bodies: one for each message.
        mode: how they are delivered.
        key: the destination; None for multicast and flood.
        hop_limit: 1 for neighbors only; None for the socket's own.
        traffic_class: which queue they take, 0..255.
    """

    bodies: Sequence[bytes]
    mode: Mode
    key: LogicalAddress | None = None
    hop_limit: int | None = None
    traffic_class: int = 0


@define(eq=False)
class Release:
    """Let a message go where it would have gone: on its way, if it was held, and to the
    application, if it is the application's and for this member. At most once.
    """

    message: ForService


@define(eq=False)
class Publish:
    """Tell the application a result; it reads them from the service's handle."""

    result: object


ServiceEffect = Originate | Release | Publish | Emit
ServiceEffects = Sequence[ServiceEffect]


def to_neighbor(
    bodies: Sequence[bytes], neighbor: LogicalAddress, traffic_class: int = 0
) -> Originate:
    """The effect that sends messages to one neighbor, and no further."""
    return Originate(bodies, Mode.UNICAST, neighbor, 1, traffic_class)


class Service(ABC):
    """A machine that rides on a socket. Only `receive` has no default."""

    @property
    def next_deadline(self) -> float:
        """When it wants to be woken, in the driver's seconds; inf for never."""
        return inf

    def start(self, now: float) -> ServiceEffects:
        """Begin. The node has no address yet, or none that is sure: nothing can be sent."""
        return ()

    @abstractmethod
    def receive(self, message: ForService, now: float) -> ServiceEffects:
        """A message came for it, or one that it intercepts on its way.

        What waits for its verdict (`message.held`, and at a handler what is for this member) goes
        no further until it is released: at once to let it pass, later to have held it, never to
        consume it.

        Args:
            message: well formed, and its payload not to be trusted.
            now: seconds.

        Raises:
            RemoteProtocolError: it breaks the service's protocol; it is counted, and dropped.
        """

    def ask(self, request: object, now: float) -> ServiceEffects:
        """The application asks for something.

        Args:
            request: of one of the classes that the spec names.
            now: seconds.

        Raises:
            LocalProtocolError: this cannot be asked for. Nothing has changed.
        """
        raise LocalProtocolError(f"{type(self).__name__} takes no requests; {request!r} is one")

    def link_failed(self, neighbor: LogicalAddress, now: float) -> ServiceEffects:
        """The way to a neighbor has failed, or it is a neighbor no more. May be told twice."""
        return ()

    def source_broken(
        self, source: LogicalAddress, via: LogicalAddress, now: float
    ) -> ServiceEffects:
        """What a member sends to all does not come any more.

        Args:
            source: the member.
            via: the neighbor that brought it; it is lost itself, or cut off from the source.
            now: seconds.
        """
        return ()

    def wake(self, now: float) -> ServiceEffects:
        """The deadline has come."""
        return ()

    def leave(self, now: float) -> ServiceEffects:
        """End, and let go what is held. `next_deadline` is inf once nothing is left to do."""
        return ()

    def statistics(self) -> object:
        """A frozen attrs object of counters and gauges; None for nothing to tell."""
        return None


class Place(Protocol):
    """What a service may ask of the node: where this member is in the topology, now."""

    @property
    def address(self) -> LogicalAddress:
        """This member's logical address. Raises LocalProtocolError as long as it has none."""

    @property
    def neighbors(self) -> tuple[Contact, ...]:
        """The neighbors' contacts, sorted by logical address."""

    def parent(self, root: LogicalAddress) -> LogicalAddress | None:
        """The next hop toward `root`; None at the root itself or when there is none."""

    def children(self, root: LogicalAddress) -> tuple[LogicalAddress, ...]:
        """The neighbors whose parent for `root` this member is, sorted."""


@frozen
class ServiceContext:
    """What a service is given when it is made.

    Attributes:
        contact: this member's contact as it was then, without or with a logical address.
        rng: its own source of chance.
        place: the member's place in the topology, to be asked whenever it matters.
        longest_body: bytes of the longest body that fits into one frame.
    """

    contact: Contact
    rng: Random
    place: Place
    longest_body: int


@frozen
class ServiceSpec:
    """What a service's package declares as `SPEC`, under the entry point group
    `opus_socket.services`.

    Attributes:
        name: its entry point's name, from which its id is derived.
        summary: one line for a person.
        settings: the frozen attrs class of its table in the configuration, `[services.NAME]`.
        create: makes a service from a member's context and settings.
        intercepts: whether it also receives its messages where they are relayed, if they fit into
            a frame.
        requests: the classes of what an application may ask of it.
    """

    name: str
    summary: str
    settings: type[Any]
    create: Callable[[ServiceContext, Any], Service]
    intercepts: bool = False
    requests: tuple[type[Any], ...] = ()

    @property
    def id(self) -> int:
        """What its messages carry."""
        return service_id(self.name)


def service_id(name: str) -> int:
    """The id of the service with this entry point name: the first 4 bytes of its BLAKE2s."""
    return int.from_bytes(hashlib.blake2s(name.encode()).digest()[:4])


def services_by_id(specs: Iterable[ServiceSpec]) -> dict[int, ServiceSpec]:
    """The specs by id.

    Raises:
        ConfigurationError: two of them have the same id.
    """
    by_id: dict[int, ServiceSpec] = {}
    for spec in specs:
        other = by_id.setdefault(spec.id, spec)
        if other is not spec:
            raise ConfigurationError(
                f"services {other.name!r} and {spec.name!r} have the same id {spec.id:#010x}; "
                "one of them needs another name"
            )
    return by_id
