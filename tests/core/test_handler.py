"""What the forwarding engine hands to the application's handler, and what becomes of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from attrs import define, field

from core_world import ECHO, World
from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.dispatch import ForService
from opus_socket.core.effects import Emit
from opus_socket.core.engine import EngineSettings, ForwardingEngine
from opus_socket.core.events import EventsLost, SourceBroken
from opus_socket.core.extensions import MESSAGE_ID, Code, Extension
from opus_socket.core.message import OverlayMessage
from opus_socket.core.node import Mode
from opus_socket.core.service import Originate, Publish, Release, Scope, Service, ServiceEffects
from opus_socket.errors import ConfigurationError, LocalProtocolError
from still_overlay import frames_of, lone, member, relay


@define(eq=False)
class Keeper(Service):
    """Keeps everything until it ends, unless it is to let everything pass at once."""

    passes: bool = False
    kept: list[ForService] = field(factory=list)
    failed: list[LogicalAddress] = field(factory=list)
    broken: list[tuple[LogicalAddress, LogicalAddress]] = field(factory=list)
    started: int = 0

    def start(self, now: float) -> ServiceEffects:
        self.started += 1
        return ()

    def receive(self, message: ForService, now: float) -> ServiceEffects:
        self.kept.append(message)
        return [Release(message), Publish(len(self.kept))] if self.passes else ()

    def ask(self, request: object, now: float) -> ServiceEffects:
        return [Originate([repr(request).encode()], Mode.MULTICAST)]

    def link_failed(self, neighbor: LogicalAddress, now: float) -> ServiceEffects:
        self.failed.append(neighbor)
        return ()

    def source_broken(
        self, source: LogicalAddress, via: LogicalAddress, now: float
    ) -> ServiceEffects:
        self.broken.append((source, via))
        return [Emit(EventsLost(1))]

    def leave(self, now: float) -> ServiceEffects:
        kept, self.kept = self.kept, []
        return [Release(message) for message in kept]


def watched(scope: Scope, *hops: int) -> ForwardingEngine:
    engine = ForwardingEngine(lone(5, *hops), EngineSettings(), 9)
    engine.watch(delivered=Scope.DELIVERED in scope, relayed=Scope.RELAYED in scope)
    return engine


Outcome = tuple[list[bytes], list[tuple[bool, bool]], int]


@pytest.mark.parametrize(
    ("scope", "mode", "hops", "outcome"),
    [
        # What is delivered at once, what the handler gets (for here, waits for others), sent on.
        (Scope(0), Mode.MULTICAST, [6], ([b"x", b"y"], [], 2)),
        (Scope.DELIVERED, Mode.MULTICAST, [6], ([], [(True, False)] * 2, 2)),
        (Scope.RELAYED, Mode.MULTICAST, [6], ([b"x", b"y"], [(False, True)] * 2, 0)),
        (Scope.BOTH, Mode.MULTICAST, [6], ([], [(True, True)] * 2, 0)),
        (Scope.BOTH, Mode.MULTICAST, [], ([], [(True, False)] * 2, 0)),
        (Scope.RELAYED, Mode.MULTICAST, [], ([b"x", b"y"], [], 0)),
        (Scope.DELIVERED, Mode.UNICAST, [6], ([], [], 2)),
        (Scope.RELAYED, Mode.UNICAST, [6], ([], [(False, True)] * 2, 0)),
    ],
)
def test_a_handler_sees_what_its_scope_says(
    scope: Scope, mode: Mode, hops: list[int], outcome: Outcome
) -> None:
    """And once it lets everything go, everything is where it would be without a handler."""
    engine = watched(scope, *hops)
    key = 6 if mode is Mode.UNICAST else None
    dispatch = relay(engine, frames_of(1, mode, key, b"x", b"y"))
    assert all(each.service is None for each in dispatch.for_services)
    seen = [(each.addressed, each.held) for each in dispatch.for_services]
    assert (_payloads(dispatch.delivered), seen, _sent(dispatch.outputs)) == outcome
    let_go = [engine.resume(each, 1.0) for each in dispatch.for_services]
    delivered = [*dispatch.delivered, *[each for one in let_go for each in one.delivered]]
    sent = _sent(dispatch.outputs) + sum(_sent(one.outputs) for one in let_go)
    plain = relay(watched(Scope(0), *hops), frames_of(1, mode, key, b"x", b"y"))
    assert (_payloads(delivered), sent) == (_payloads(plain.delivered), _sent(plain.outputs))
    figures = engine.statistics()
    assert figures.delivered_frames == len(plain.delivered)
    assert figures.delivered_bytes == plain.delivered_size


def test_a_message_of_its_own_shape_is_handed_over_too() -> None:
    engine = watched(Scope.BOTH, 6)
    dispatch = relay(engine, _frame(Extension(0x77, b"?"), Extension(Code.RAW, b"x")))
    [seen] = dispatch.for_services
    assert (seen.message.payload, seen.addressed, seen.held) == (b"x", True, True)


@pytest.mark.parametrize(
    "extension",
    [Extension(Code.CONTROL, b"\x01"), Extension(0x78, b"", flags=1)],
    ids=["control", "mandatory"],
)
def test_what_no_application_sent_or_nobody_here_understands_is_sent_on(
    extension: Extension,
) -> None:
    data = _frame(extension, *(() if extension.code == Code.CONTROL else [_RAW]))
    dispatch = relay(watched(Scope.RELAYED, 6), data)
    assert (dispatch.for_services, _sent(dispatch.outputs)) == ([], 1)


def test_messages_to_oneself_are_seen_and_own_ones_to_others_are_not() -> None:
    engine = watched(Scope.BOTH, 6)
    assert engine.originate([b"x"], Mode.MULTICAST, None, 0.0).for_services == []
    [seen] = engine.originate([b"x"], Mode.UNICAST, member(5), 0.0).for_services
    assert (seen.arrived_from, seen.addressed, seen.held) == (None, True, False)


def test_a_handler_is_set_asked_replaced_and_removed() -> None:
    world = World()
    middle = world.join(1)
    left, right = world.join(2, 1), world.join(3, 1)
    keeper, passer = Keeper(), Keeper(passes=True)
    world.perform(1, middle.core.set_handler(keeper, Scope.RELAYED, 0.0))
    world.send(2, b"x", Mode.UNICAST, to=3)
    assert (len(keeper.kept), right.delivered) == (1, [])
    # Replaced, it lets go what it kept.
    world.perform(1, middle.core.set_handler(passer, Scope.RELAYED, 0.0))
    world.run()
    assert _payloads(right.delivered) == [b"x"]
    world.send(2, b"y", Mode.UNICAST, to=3)
    assert _payloads(right.delivered) == [b"x", b"y"]
    assert (keeper.started, passer.started) == (1, 1)
    world.perform(1, middle.core.ask("handler", 7, 0.0))
    world.run()
    assert _payloads(left.delivered) == [b"7"]
    world.perform(1, middle.core.set_handler(None, Scope.BOTH, 0.0))
    world.send(2, b"z", Mode.UNICAST, to=3)
    assert _payloads(right.delivered)[-1] == b"z"
    assert len(passer.kept) == 0
    with pytest.raises(ConfigurationError, match=r"no handler is set.*set_handler"):
        middle.core.ask("handler", 7, 0.0)


def test_whoever_leaves_lets_go_what_it_holds() -> None:
    world = World()
    middle = world.join(1)
    world.join(2, 1)
    right = world.join(3, 1)
    world.perform(1, middle.core.set_handler(Keeper(), Scope.BOTH, 0.0))
    world.send(2, b"there", Mode.UNICAST, to=3)
    world.send(2, b"here", Mode.UNICAST, to=1)
    assert (right.delivered, middle.delivered) == ([], [])
    world.perform(1, middle.core.leave(0.0))
    world.run()
    assert _payloads(right.delivered) == [b"there"]
    assert _payloads(middle.delivered) == [b"here"]


def test_services_and_handlers_are_told_of_failed_links() -> None:
    world = World()
    founder = world.join(1)
    joiner = world.join(2, 1)
    keeper = Keeper()
    world.perform(1, founder.core.set_handler(keeper, Scope.BOTH, 0.0))
    world.perform(1, founder.core.link_failed(joiner.core.contact, 0.0))
    assert keeper.failed == [LogicalAddress((2,))]
    world.perform(2, joiner.core.leave(0.0))
    world.run()
    assert keeper.failed == [LogicalAddress((2,))] * 2


def test_services_and_handlers_are_told_of_sources_that_broke_off() -> None:
    """A quarter of a second after the link, when it is sure; what they ask for then is done."""
    world = World()
    founder = world.join(1)
    joiner = world.join(2, 1)
    keeper = Keeper(passes=True)
    world.perform(1, founder.core.set_handler(keeper, Scope.BOTH, 0.0))
    world.send(2, b"x")
    world.perform(1, founder.core.link_failed(joiner.core.contact, 0.0))
    world.advance(0.2)
    assert keeper.broken == []
    world.advance(0.3)
    two = LogicalAddress((2,))
    assert keeper.broken == [(two, two)]
    assert founder.events[-2:] == [SourceBroken(two, two), EventsLost(1)]


def test_a_service_takes_only_the_requests_that_it_names() -> None:
    founder = World().join(1, services=[ECHO])
    with pytest.raises(LocalProtocolError, match="echo cannot be asked for 7; allowed: nothing"):
        founder.core.ask("echo", 7, 0.0)
    with pytest.raises(ConfigurationError, match=r"no service 'store' rides.*: echo"):
        founder.core.ask("store", 7, 0.0)


_RAW = Extension(Code.RAW, b"x")


def _frame(*chain: Extension) -> bytes:
    identity = Extension(Code.MESSAGE_ID, MESSAGE_ID.pack(1001, 1))
    message = OverlayMessage.build(member(1), None, Mode.MULTICAST, (identity, *chain), hop_limit=9)
    return message.frame


def _payloads(messages: Sequence[OverlayMessage]) -> list[bytes]:
    return [message.payload for message in messages]


def _sent(outputs: Sequence[object]) -> int:
    return sum(getattr(output, "frames", 0) for output in outputs)
