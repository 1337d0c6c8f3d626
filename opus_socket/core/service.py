"""The interface of services: machines that ride on a socket and talk to their like elsewhere.

Its one rule: a service sees its own messages only, and like every machine it returns what it
wants done. Its messages travel as the application's do, under an id of its own; members that do
not run it pass them on.

A driver runs a service like this:

    engine.register_service(service_id(spec.name), spec.intercepts)
    effects = service.start(now)
    while True:
        for each effect: Originate -> engine.originate_service(...), Release -> engine.resume(...)
        wait for a ForService of a dispatch, or until service.next_deadline
        effects = service.receive(message, now)   or   service.wake(now)
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from attrs import define, frozen

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.dispatch import ForService
from opus_socket.core.effects import Emit
from opus_socket.core.node import Mode, NodeContext
from opus_socket.errors import ConfigurationError


@define(eq=False)
class Originate:
    """Send messages to the same service of other members.

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
    """Send a held message on its way, at most once."""

    message: ForService


ServiceEffect = Originate | Release | Emit
ServiceEffects = Sequence[ServiceEffect]


class Service(ABC):
    """A machine that rides on a socket."""

    @property
    @abstractmethod
    def next_deadline(self) -> float:
        """When it wants to be woken, in the driver's seconds; inf for never."""

    @abstractmethod
    def start(self, now: float) -> ServiceEffects:
        """Begin."""

    @abstractmethod
    def receive(self, message: ForService, now: float) -> ServiceEffects:
        """A message came for it, or one that it intercepts on its way.

        An intercepted message (`message.held`) goes no further until it is released: at once to
        let it pass, later to have held it, never to consume it.

        Args:
            message: well formed, and its payload not to be trusted.
            now: seconds.
        """

    @abstractmethod
    def wake(self, now: float) -> ServiceEffects:
        """The deadline has come."""

    @abstractmethod
    def leave(self, now: float) -> ServiceEffects:
        """End. `next_deadline` is inf once nothing is left to do."""


@frozen
class ServiceSpec:
    """What a service's package declares as `SPEC`, under the entry point group
    `opus_socket.services`.

    Attributes:
        name: its entry point's name, from which its id is derived.
        summary: one line for a person.
        settings: the frozen attrs class of its table in the configuration.
        create: makes a service from a member's context and settings.
        intercepts: whether it also receives its messages where they are relayed.
    """

    name: str
    summary: str
    settings: type[Any]
    create: Callable[[NodeContext, Any], Service]
    intercepts: bool = False

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
