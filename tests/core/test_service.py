"""The seam of services: a counter that rides on sockets, and a guard that holds what passes."""

from __future__ import annotations

from math import inf

import pytest
from attrs import define, field, frozen

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.dispatch import Dispatch, ForService
from opus_socket.core.engine import EngineSettings, ForwardingEngine
from opus_socket.core.node import Mode
from opus_socket.core.service import (
    Originate,
    Release,
    Service,
    ServiceEffects,
    ServiceSpec,
    service_id,
    services_by_id,
)
from opus_socket.errors import ConfigurationError
from still_overlay import Hops, StillNode

LINE = [LogicalAddress((index, 0)) for index in range(3)]


@frozen
class EchoSettings:
    """Nothing can be set."""


@define(eq=False)
class Echo(Service):
    """Asks the end of the line, answers whom it hears, and holds what passes until it is woken."""

    here: LogicalAddress
    heard: list[bytes] = field(factory=list)
    held: list[ForService] = field(factory=list)
    next_deadline: float = field(default=inf)

    def start(self, now: float) -> ServiceEffects:
        return [Originate([b"ask"], Mode.UNICAST, LINE[2])] if self.here == LINE[0] else ()

    def receive(self, message: ForService, now: float) -> ServiceEffects:
        if message.held:
            self.held.append(message)
            self.next_deadline = now + 1.0
            return ()
        self.heard.append(message.message.payload)
        if message.message.payload != b"ask":
            return ()
        return [Originate([b"answer"], Mode.UNICAST, message.message.source)]

    def wake(self, now: float) -> ServiceEffects:
        released, self.held, self.next_deadline = self.held, [], inf
        return [Release(message) for message in released]

    def leave(self, now: float) -> ServiceEffects:
        return ()


SPEC = ServiceSpec(
    "echo",
    "Answers.",
    EchoSettings,
    lambda context, settings: Echo(context.contact.address or LINE[0]),
    intercepts=True,
)


@define(eq=False)
class Line:
    """Three members in a row; the middle one runs the service or does not."""

    middle_runs_it: bool
    engines: list[ForwardingEngine] = field(factory=list)
    services: dict[int, Echo] = field(factory=dict)
    dropped: list[dict[str, int]] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        for index, here in enumerate(LINE):
            near = [LINE[other] for other in (index - 1, index + 1) if 0 <= other < 3]
            node = StillNode(here, near, self._hops_of(index))
            self.engines.append(ForwardingEngine(node, EngineSettings(), index + 1))
            if index != 1 or self.middle_runs_it:
                self.engines[index].register_service(SPEC.id, SPEC.intercepts)
                self.services[index] = Echo(here)

    def _hops_of(self, index: int) -> Hops:
        def hops(
            mode: Mode, key: LogicalAddress, arrived_from: LogicalAddress | None
        ) -> list[LogicalAddress]:
            if mode is Mode.UNICAST:
                return [LINE[index + (1 if key[0] > index else -1)]]
            children = [index - 1] if key[0] >= index else []
            children += [index + 1] if key[0] <= index else []
            return [LINE[child] for child in children if 0 <= child < 3]

        return hops

    def perform(self, index: int, effects: ServiceEffects, now: float) -> None:
        engine = self.engines[index]
        for effect in effects:
            if isinstance(effect, Release):
                self.carry(index, engine.resume(effect.message, now), now)
            elif isinstance(effect, Originate):
                dispatch = engine.originate_service(
                    SPEC.id, effect.bodies, effect.mode, effect.key, now
                )
                self.carry(index, dispatch, now)

    def carry(self, index: int, dispatch: Dispatch, now: float) -> None:
        self.dropped.append(dispatch.dropped)
        assert dispatch.delivered == []
        for message in dispatch.for_services:
            self.perform(index, self.services[index].receive(message, now), now)
        for output in dispatch.outputs:
            assert output.contact.address is not None
            to = output.contact.address[0]
            buffer = memoryview(bytearray(b"".join(output.pieces)))
            self.carry(to, self.engines[to].switch(buffer, LINE[index], now), now)


def test_a_service_asks_and_is_answered() -> None:
    line = Line(middle_runs_it=False)
    line.perform(0, line.services[0].start(0.0), 0.0)
    assert line.services[2].heard == [b"ask"]
    assert line.services[0].heard == [b"answer"]
    assert not any(line.dropped)


def test_a_service_holds_what_passes_until_it_releases_it() -> None:
    line = Line(middle_runs_it=True)
    line.perform(0, line.services[0].start(0.0), 0.0)
    guard = line.services[1]
    assert [(each.addressed, each.held) for each in guard.held] == [(False, True)]
    assert line.services[2].heard == []
    line.perform(1, guard.wake(1.0), 1.0)
    assert line.services[2].heard == [b"ask"]
    assert len(guard.held) == 1
    line.perform(1, guard.wake(2.0), 2.0)
    assert line.services[0].heard == [b"answer"]
    assert guard.heard == []


def test_a_held_multicast_is_for_the_holder_too() -> None:
    line = Line(middle_runs_it=True)
    line.perform(0, [Originate([b"1", b"2"], Mode.MULTICAST)], 0.0)
    guard = line.services[1]
    assert [(each.addressed, each.held) for each in guard.held] == [(True, True)] * 2
    line.perform(1, guard.wake(1.0), 1.0)
    assert line.services[2].heard == [b"1", b"2"]


def test_an_intercepted_message_is_released_as_it_came() -> None:
    line = Line(middle_runs_it=True)
    sent = line.engines[0].originate_service(SPEC.id, [b"x"], Mode.UNICAST, LINE[2], 0.0)
    data = b"".join(sent.outputs[0].pieces)
    dispatch = line.engines[1].switch(memoryview(bytearray(data)), LINE[0], 0.0)
    assert dispatch.outputs == []
    [output] = line.engines[1].resume(dispatch.for_services[0], 1.0).outputs
    passed = bytearray(data)
    passed[6:8] = (1023).to_bytes(2)
    assert b"".join(output.pieces) == passed


def test_members_without_the_service_count_what_is_for_them() -> None:
    line = Line(middle_runs_it=False)
    line.perform(0, [Originate([b"x", b"y"], Mode.UNICAST, LINE[1])], 0.0)
    assert {"unknown_service": 2} in line.dropped


def test_sending_to_oneself() -> None:
    line = Line(middle_runs_it=False)
    line.perform(0, [Originate([b"x", b"y"], Mode.UNICAST, LINE[0])], 0.0)
    assert line.services[0].heard == [b"x", b"y"]


def test_ids_come_from_names_and_are_told_apart() -> None:
    assert service_id("store") == 0xA7EF654B
    other = ServiceSpec("echo", "Another.", EchoSettings, SPEC.create)
    assert services_by_id([SPEC]) == {SPEC.id: SPEC}
    with pytest.raises(ConfigurationError, match="'echo' and 'echo' have the same id"):
        services_by_id([SPEC, other])
    engine = ForwardingEngine(StillNode(LINE[0], [], lambda *_: []), EngineSettings(), 1)
    engine.register_service(7)
    with pytest.raises(ConfigurationError, match="0x00000007 is taken"):
        engine.register_service(7)
