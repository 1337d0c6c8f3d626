"""What happens when an application hands in what is no handler, or one that raises."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import pytest
import trio
from attrs import define, field

from opus_socket import (
    ForService,
    LocalProtocolError,
    Merge,
    Originate,
    OverlayConfig,
    OverlayError,
    OverlaySocket,
    Release,
    Scope,
    Service,
    ServiceEffects,
    open_host,
)
from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.node import Mode
from opus_socket.simulator import Simulator
from support import LINE, at, configure, overlay


class BrokenError(Exception):
    """What a broken handler raises."""


@define(eq=False)
class Fragile(Service):
    """Lets everything pass, and breaks in one of its inputs."""

    breaks_in: str = ""
    inputs: list[str] = field(factory=list)

    def start(self, now: float) -> ServiceEffects:
        return self._take("start")

    def receive(self, message: ForService, now: float) -> ServiceEffects:
        return [*self._take("receive"), Release(message)]

    def leave(self, now: float) -> ServiceEffects:
        return self._take("leave")

    def _take(self, name: str) -> ServiceEffects:
        self.inputs.append(name)
        if name == self.breaks_in:
            raise BrokenError(name)
        return ()


class NotForInstances(Protocol):
    """A class of which nothing can be said to be."""


@pytest.mark.parametrize(
    ("handler", "scope", "allowed"),
    [
        (object(), Scope.BOTH, "derived from Service"),
        (Merge, Scope.BOTH, "derived from Service"),
        (None, Scope.BOTH, "derived from Service"),
        (Fragile(), "both", "Scope.BOTH is allowed"),
        (Fragile(), 3, "Scope.BOTH is allowed"),
        (Fragile(), Scope(0), "Scope.BOTH is allowed"),
    ],
)
async def test_what_is_no_handler_is_refused_and_nothing_changes(
    handler: Service, scope: Scope, allowed: str
) -> None:
    async with overlay(LINE[:2]) as (_, (left, right)):
        former = Fragile()
        right.set_handler(former)
        with pytest.raises(LocalProtocolError, match=allowed):
            right.set_handler(handler, scope)
        await left.send(right.address, b"x")
        assert (await right.receive()).payload == b"x"
        assert former.inputs == ["start", "receive"]


def test_a_simulation_refuses_the_same() -> None:
    member = Simulator(1).add(OverlayConfig(overlay_id="test"), LogicalAddress((1, 2)))
    with pytest.raises(LocalProtocolError, match="derived from Service"):
        member.set_handler(object())  # type: ignore[arg-type]


def test_a_simulation_sets_none_that_raises_when_it_starts_either() -> None:
    simulator = Simulator(1)
    member = simulator.add(OverlayConfig(overlay_id="test"), LogicalAddress((1, 2)))
    assert simulator.run_until_legitimate() is not None
    former = Fragile()
    member.set_handler(former)
    with pytest.raises(BrokenError, match="start"):
        member.set_handler(Fragile("start"))
    member.send(LogicalAddress((1, 2)), b"x")
    assert [message.payload for message in member.received] == [b"x"]
    assert former.inputs == ["start", "leave"]


@pytest.mark.parametrize("kind", ["Aggregate", None, 7, [int], NotForInstances])
async def test_results_of_what_is_no_class_are_refused(kind: type[object]) -> None:
    async with overlay(LINE[:1]) as (_, (sock,)):
        with pytest.raises(LocalProtocolError, match="a class of results is allowed"):
            sock.set_handler(Fragile()).results(kind)


async def test_a_handler_that_raises_when_it_starts_is_not_set() -> None:
    async with overlay(LINE[:2]) as (_, (left, right)):
        former = Fragile()
        right.set_handler(former)
        with pytest.raises(BrokenError, match="start"):
            right.set_handler(Fragile("start"))
        assert former.inputs == ["start", "leave"]
        await left.send(right.address, b"x")
        assert (await right.receive()).payload == b"x"
        await right.leave()
        await right.join()
        assert former.inputs == ["start", "leave"]


async def test_a_handler_that_raises_when_its_member_joins_leaves_nothing_running() -> None:
    async with open_host() as host:
        sock = await host.open_socket(configure(at("0,0")))
        sock.set_handler(Fragile("start"))
        with pytest.raises(BrokenError, match="start"):
            await sock.join()
        sock.remove_handler()
        await sock.join()
        assert sock.stable


@pytest.mark.parametrize("way", ["leave", "aclose"])
async def test_a_handler_that_raises_when_its_member_leaves_keeps_nobody_waiting(way: str) -> None:
    async def receive(sock: OverlaySocket, ended: list[str]) -> None:
        try:
            await sock.receive()
        except (trio.EndOfChannel, trio.ClosedResourceError) as error:
            ended.append(type(error).__name__)

    async with overlay(LINE[:2]) as (host, (left, right)):
        ended: list[str] = []
        right.set_handler(Fragile("leave"))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(receive, right, ended)
            await trio.testing.wait_all_tasks_blocked()
            with pytest.raises(BrokenError, match="leave"):
                await (right.leave() if way == "leave" else right.aclose())
        assert len(ended) == 1
        assert host.statistics().members == 1
        await left.send_to_all(b"left lives")


async def test_a_handler_that_raises_at_a_message_ends_the_host() -> None:
    async def send_to_it() -> None:
        async with overlay(LINE[:2]) as (_, (left, right)):
            right.set_handler(Fragile("receive"))
            await left.send(right.address, b"x")
            await trio.sleep_forever()

    with pytest.raises(OverlayError) as raised:
        await send_to_it()
    assert isinstance(raised.value.__cause__, BrokenError)


async def test_a_handler_that_raises_at_an_own_message_raises_at_whoever_sent_it() -> None:
    async with overlay(LINE[:2]) as (_, (left, right)):
        right.set_handler(Fragile("receive"))
        with pytest.raises(BrokenError, match="receive"):
            await right.send(right.address, b"x")
        right.remove_handler()
        await left.send(right.address, b"y")
        assert (await right.receive()).payload == b"y"


async def test_a_handler_that_answers_its_own_member_answers_once() -> None:
    class Echo(Service):
        def receive(self, message: ForService, now: float) -> Sequence[Originate | Release]:
            answer = b"echo of " + message.message.payload
            source = message.message.source
            return [Release(message), Originate([answer], Mode.UNICAST, source)]

    async with overlay(LINE[:2]) as (_, (left, _)):
        left.set_handler(Echo())
        await left.send(left.address, b"me")
        got = await left.receive_batch()
        assert [each.payload for each in got] == [b"me", b"echo of me"]
