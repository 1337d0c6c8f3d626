"""The services of one membership, and the application's handler.

Its one rule: each service gets what is for it, and what it asks for is carried out here. To the
rest of a core services look like one machine; a handler is the service whose id is None.

Whatever a remote has said, it can make no service ask for something that ends the membership: what
a service wants to send and cannot be sent is counted as refused, `unsendable`. Only who asks
something of a service is told so at once. What a service sends to this very member it gets when the
core is woken next, at once but after all that is in hand; what a handler sends here goes to the
application, as it has seen it. So whoever answers itself does no more than that, within a bound.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from math import inf

from attrs import define, field

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.dispatch import Dispatch, ForService
from opus_socket.core.effects import Emit
from opus_socket.core.engine import ForwardingEngine
from opus_socket.core.events import ServiceResult
from opus_socket.core.service import (
    Originate,
    Publish,
    Release,
    Scope,
    Service,
    ServiceEffects,
    ServiceSpec,
)
from opus_socket.errors import ConfigurationError, LocalProtocolError, NotJoinedError

MAX_OWN = 4096
"""How many messages of services to this very member wait for the core's next turn."""

HANDLER = "handler"
"""By what name the application's handler is known among the services."""


@define(eq=False)
class Forward:
    """For the driver: what a service sends; forward it like the application's."""

    dispatch: Dispatch


ServingEffect = Forward | Emit


@define(eq=False, repr=False)
class Serving:
    """The services of one membership.

    Args:
        engine: carries their messages.
        refused: counts what they wanted to send and could not.
    """

    _engine: ForwardingEngine
    _refused: Counter[str]
    _services: dict[int | None, Service] = field(factory=dict, init=False)
    _specs: dict[int | None, ServiceSpec] = field(factory=dict, init=False)
    _own: list[ForService] = field(factory=list, init=False)
    _own_at: float = field(default=inf, init=False)
    _left: bool = field(default=False, init=False)

    def add(self, spec: ServiceSpec, service: Service) -> None:
        """Let a service ride.

        Raises:
            ConfigurationError: one with its id does so already.
        """
        self._engine.register_service(spec.id, spec.intercepts)
        self._services[spec.id] = service
        self._specs[spec.id] = spec

    def set_handler(
        self, handler: Service | None, scope: Scope, now: float
    ) -> Sequence[ServingEffect]:
        """Let a handler see the application's messages, instead of one that may be there.

        Args:
            handler: None for none. One that raises when it starts is not set.
            scope: which messages it sees.
            now: seconds.
        """
        out: list[ServingEffect] = []
        former = self._services.pop(None, None)
        self._engine.watch(delivered=False, relayed=False)
        if former is not None:
            self._perform(None, former.leave(now), now, out)
        if handler is not None:
            begun = handler.start(now)
            self._engine.watch(delivered=Scope.DELIVERED in scope, relayed=Scope.RELAYED in scope)
            self._services[None] = handler
            self._perform(None, begun, now, out)
        return out

    def start(self, now: float) -> Sequence[ServingEffect]:
        """The member begins to join."""
        out: list[ServingEffect] = []
        for code, service in self._services.items():
            self._perform(code, service.start(now), now, out)
        return out

    def leave(self, now: float) -> Sequence[ServingEffect]:
        """The member leaves."""
        self._left = True
        self.take_own()
        out: list[ServingEffect] = []
        out += self.set_handler(None, Scope.BOTH, now)
        for code, service in self._services.items():
            self._perform(code, service.leave(now), now, out)
        return out

    def receive(self, message: ForService, now: float) -> Sequence[ServingEffect]:
        """Hand a message to the service that it is for."""
        out: list[ServingEffect] = []
        code = message.service
        self._perform(code, self._services[code].receive(message, now), now, out)
        return out

    def ask(self, name: str, request: object, now: float) -> Sequence[ServingEffect]:
        """The application asks something of a service.

        Raises:
            ConfigurationError: no service of that name rides here.
            LocalProtocolError: it cannot be asked for that, and nothing has changed; or it wants
                to send what cannot be sent, and nothing was sent.
            NotJoinedError: this member has no address yet.
        """
        code = self._find(name)
        spec = self._specs.get(code)
        if spec is not None and not isinstance(request, spec.requests):
            allowed = ", ".join(each.__name__ for each in spec.requests) or "nothing"
            raise LocalProtocolError(f"{name} cannot be asked for {request!r}; allowed: {allowed}")
        out: list[ServingEffect] = []
        self._perform(code, self._services[code].ask(request, now), now, out, asked=True)
        return out

    def link_failed(self, neighbor: LogicalAddress, now: float) -> Sequence[ServingEffect]:
        """The way to a neighbor has failed, or it is a neighbor no more."""
        out: list[ServingEffect] = []
        for code, service in self._services.items():
            self._perform(code, service.link_failed(neighbor, now), now, out)
        return out

    def source_broken(
        self, source: LogicalAddress, via: LogicalAddress, now: float
    ) -> Sequence[ServingEffect]:
        """What a member sends to all does not come any more by a neighbor."""
        out: list[ServingEffect] = []
        for code, service in self._services.items():
            self._perform(code, service.source_broken(source, via, now), now, out)
        return out

    def wake(self, now: float) -> Sequence[ServingEffect]:
        """A deadline has come."""
        out: list[ServingEffect] = []
        for code, service in self._services.items():
            if service.next_deadline <= now:
                self._perform(code, service.wake(now), now, out)
        return out

    def take_own(self) -> Sequence[ForService]:
        """What services have sent to this very member, once `next_deadline` has come."""
        own, self._own, self._own_at = self._own, [], inf
        return own

    @property
    def next_deadline(self) -> float:
        """When `wake` and `take_own` are due; inf for never."""
        # A driver asks after every input; the loop costs more than the rest where it is empty.
        if not self._services:
            return self._own_at
        return min(self._own_at, *[each.next_deadline for each in self._services.values()])

    def send(self, code: int | None, wanted: Originate, now: float) -> Sequence[Forward]:
        """Send what the service with this id wants to, of its own accord or because of a remote;
        what cannot be sent is counted.
        """
        try:
            return self._forward(code, wanted, now)
        except (LocalProtocolError, NotJoinedError):
            self._refused["unsendable"] += 1
            return ()

    def _forward(self, code: int | None, wanted: Originate, now: float) -> Sequence[Forward]:
        bodies, mode, key = wanted.bodies, wanted.mode, wanted.key
        hop_limit, traffic_class = wanted.hop_limit, wanted.traffic_class
        if code is None:
            dispatch = self._engine.originate(
                bodies, mode, key, now, hop_limit=hop_limit, traffic_class=traffic_class
            )
        else:
            dispatch = self._engine.originate_service(
                code, bodies, mode, key, now, hop_limit=hop_limit, traffic_class=traffic_class
            )
        own, dispatch.for_services = dispatch.for_services, []
        if code is None:
            return [Forward(dispatch), *[Forward(self._engine.resume(each, now)) for each in own]]
        if own and not self._left:
            room = MAX_OWN - len(self._own)
            self._own += own[:room]
            self._own_at = min(self._own_at, now)
            if len(own) > room:
                self._refused["own_overflow"] += len(own) - room
        return (Forward(dispatch),)

    def named(self, name: str) -> Service:
        """The service of that name.

        Raises:
            ConfigurationError: it does not ride here.
        """
        return self._services[self._find(name)]

    def statistics(self) -> Mapping[str, object]:
        """What each service that counts anything has counted, by name."""
        told = {self._name(code): each.statistics() for code, each in self._services.items()}
        return {name: figures for name, figures in told.items() if figures is not None}

    def _find(self, name: str) -> int | None:
        for code in self._services:
            if self._name(code) == name:
                return code
        if name == HANDLER:
            raise ConfigurationError(
                "no handler is set on this socket; set_handler(...) sets one and returns its handle"
            )
        there = ", ".join(map(self._name, self._services)) or "none"
        raise ConfigurationError(
            f"no service {name!r} rides on this socket; those that do: {there}. "
            f"A table [services.{name}] in the configuration switches it on"
        )

    def _name(self, code: int | None) -> str:
        return HANDLER if code is None else self._specs[code].name

    def _perform(
        self,
        code: int | None,
        effects: ServiceEffects,
        now: float,
        out: list[ServingEffect],
        *,
        asked: bool = False,
    ) -> None:
        """Carry out what a service asks for, perhaps because somebody here has asked it."""
        for effect in effects:
            match effect:
                case Originate() if asked:
                    out += self._forward(code, effect, now)
                case Originate():
                    out += self.send(code, effect, now)
                case Release(message=message):
                    out.append(Forward(self._engine.resume(message, now)))
                case Publish(result=result):
                    out.append(Emit(ServiceResult(self._name(code), result)))
                case Emit():
                    out.append(effect)
                case _:
                    raise TypeError(f"not an effect of a service: {effect!r}")
