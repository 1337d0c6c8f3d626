"""Services and handlers on real sockets and in the simulator: how applications use them."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from pathlib import Path

import pytest
import trio
from simulations import overlay as simulated
from simulations import payloads, settle

from opus_socket import (
    ConfigurationError,
    ForService,
    HoldSettings,
    LocalProtocolError,
    LogicalAddress,
    Merge,
    Mode,
    NotJoinedError,
    Originate,
    OverlayConfig,
    OverlaySocket,
    Publish,
    Release,
    Scope,
    Service,
    ServiceEffects,
    open_host,
    to_neighbor,
)
from opus_socket.config import example_text, find_setting
from opus_socket.registry import SERVICES, protocol, service
from opus_socket.simulator import SimulatedSocket, Simulator
from plugin_distribution import install
from support import LINE, SEPARATE, TRANSPORTS, Settings, configure, overlay, until

TALLY = """\
from __future__ import annotations

from attrs import frozen

from opus_socket.core.node import Mode
from opus_socket.core.service import Originate, Publish, Service, ServiceSpec
from opus_socket.core.settings import setting


@frozen
class TallySettings:
    step: int = setting(1, unit="votes", minimum=1, meaning="what a vote counts", key=True)


class Vote:
    pass


class Tally(Service):
    def __init__(self, step):
        self.step, self.votes = step, 0

    def ask(self, request, now):
        return [Originate([bytes([self.step])], Mode.MULTICAST), *self.count(self.step)]

    def receive(self, message, now):
        return self.count(message.message.payload[0])

    def count(self, step):
        self.votes += step
        return [Publish(self.votes), Publish(str(self.votes))]

    def statistics(self):
        return self.votes


SPEC = ServiceSpec(
    "tally", "counts votes", TallySettings, lambda context, settings: Tally(settings.step),
    requests=(Vote,),
)
"""


@pytest.fixture
def vote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> object:
    points = {"tally": "opus_tally:SPEC"}
    install(
        *(tmp_path, monkeypatch), points=points, group=SERVICES, module="opus_tally", source=TALLY
    )
    made: object = service("tally").requests[0]()
    return made


@pytest.fixture(params=TRANSPORTS.values(), ids=list(TRANSPORTS))
def transport(request: pytest.FixtureRequest) -> Settings:
    chosen: Settings = request.param
    return chosen


# The configuration


def test_a_table_switches_a_service_on(vote: object) -> None:
    off = OverlayConfig(overlay_id="lab")
    assert off.services.specs() == ()
    on = off.evolve(services={"tally": {}})
    assert [(spec.name, spec.settings) for spec, _ in on.services.specs()] == [
        ("tally", service("tally").settings)
    ]
    changed = on.evolve(**{"services.tally.step": 3})
    [(_, settings)] = changed.services.on
    assert settings == service("tally").settings(step=3)
    assert changed.evolve(overlay_id="other").services == changed.services
    assert [(leaf.key, leaf.value) for leaf in changed.services.leaves()] == [
        ("services.tally.step", 3)
    ]
    assert ("services.tally.step", "3") in changed.evolve(key_attributes=["services"]).key_pairs()
    found = find_setting("services.tally.step")
    assert found is not None
    assert found.unit == "votes"


def test_a_configuration_file_names_services(vote: object, tmp_path: Path) -> None:
    file = tmp_path / "h.toml"
    file.write_text('overlay_id = "lab"\n[services.tally]\nstep = 2\n')
    assert OverlayConfig.load(file).services.given() == {"tally": {"step": 2}}
    assert "#[services.tally]\n" in example_text([protocol("delaunay")], [service("tally")])
    for text, message in (
        ("[services.telly]", r"h\.toml: unknown key services\.telly = .*mean tally\?"),
        ("[services.tally]\nstop = 1", r"unknown key services\.tally\.stop.*mean step\?"),
        ("[services.tally]\nstep = 0", r"services\.tally\.step = 0 is refused.*at least 1"),
        ("[services]\ntally = 3", r"services\.tally = 3 is refused; allowed: a table"),
        ("services = 3", r"services = 3 is refused; allowed: tables of services"),
    ):
        # Top-level keys stand before any table.
        file.write_text(f"{text}\n" if "[" not in text else "")
        with file.open("a") as out:
            out.write('overlay_id = "lab"\n' + (text if "[" in text else ""))
        with pytest.raises(ConfigurationError, match=message):
            OverlayConfig.load(file)


async def test_a_service_that_is_not_on_has_no_handle() -> None:
    async with open_host() as host:
        sock = await host.open_socket(configure())
        with pytest.raises(ConfigurationError, match=r"'tally' is not switched on.*: none\. A tab"):
            sock.service("tally")


# Handles


async def test_requests_go_in_and_results_come_out(vote: object, transport: Settings) -> None:
    async with overlay(LINE, transport, {"services.tally.step": 2}) as (_, (left, middle, right)):
        handles = [sock.service("tally") for sock in (left, middle, right)]
        assert left.service("tally") is handles[0]
        totals = [handle.results(int) for handle in handles]
        texts = handles[2].results(str)
        with trio.fail_after(5):
            await handles[0].ask(vote)
            assert [await anext(total) for total in totals] == [2, 2, 2]
            await handles[2].ask(vote)
            assert [await anext(total) for total in totals] == [4, 4, 4]
            assert [await anext(texts), await anext(texts)] == ["2", "4"]
        assert handles[1].statistics() == 4
        core = right.statistics().core
        assert core is not None
        assert core.services == {"tally": 4}
        with pytest.raises(LocalProtocolError, match="tally cannot be asked for 7; allowed: Vote"):
            await handles[0].ask(7)
        await left.leave()
        with pytest.raises(NotJoinedError):
            await handles[0].ask(vote)
        await right.aclose()
        assert [each async for each in texts] == []


async def test_a_slow_reader_of_results_is_told_how_many_it_lost(vote: object) -> None:
    async with overlay(LINE[:1], {"services.tally.step": 1}) as (_, (sock,)):
        handle = sock.service("tally")
        slow = handle.results(int)
        for _ in range(1030):
            await handle.ask(vote)
        assert slow.lost == 6
        assert sock.statistics().events_lost == 6
        assert [await anext(slow) for _ in range(1024)] == list(range(1, 1025))


def test_services_run_in_the_simulator(vote: object) -> None:
    config = OverlayConfig(overlay_id="test").evolve(services={"tally": {"step": 3}})
    simulator = simulated(6, config=config)
    simulator.members[0].ask("tally", vote)
    settle(simulator)
    assert [member.results["tally"] for member in simulator.members] == [[3, "3"]] * 6
    assert all(not member.received for member in simulator.members)


# Handlers


def joined(group: Sequence[ForService]) -> list[Originate] | None:
    """Of two messages to the same member, one."""
    if len(group) < 2:
        return None
    whole = b"+".join(sorted(each.message.payload for each in group))
    return [Originate([whole], Mode.UNICAST, group[0].message.destination)]


def pairs(timeout: float = 60.0) -> Merge:
    return Merge(lambda each: each.message.payload[:1], joined, HoldSettings(timeout=timeout))


async def test_a_relay_merges_what_passes(transport: Settings) -> None:
    async with overlay(LINE, transport) as (_, (left, middle, right)):
        middle.set_handler(pairs(), Scope.RELAYED)
        await left.send(right.address, b"a1")
        await left.send(right.address, b"b1")
        await left.send(right.address, b"a2")
        await left.send(middle.address, b"for the middle")
        with trio.fail_after(5):
            assert (await right.receive()).payload == b"a1+a2"
            assert (await middle.receive()).payload == b"for the middle"
        core = middle.statistics().core
        assert core is not None
        assert "messages=1" in str(core.services["handler"])


async def test_what_finds_no_partner_goes_on_after_its_time() -> None:
    async with overlay(LINE, SEPARATE) as (_, (left, middle, right)):
        middle.set_handler(pairs(timeout=0.05), Scope.RELAYED)
        await left.send(right.address, b"alone")
        with trio.fail_after(5):
            message = await right.receive()
        assert (message.payload, message.source) == (b"alone", left.address)


async def test_a_handler_consumes_forwards_and_answers() -> None:
    class Desk(Service):
        """Answers questions, consumes what is secret, lets the rest pass."""

        def receive(self, message: ForService, now: float) -> ServiceEffects:
            payload = message.message.payload
            if payload == b"secret":
                return [Publish("kept")]
            if payload == b"?" and message.arrived_from is not None:
                return [to_neighbor([b"!"], message.arrived_from)]
            return [Release(message)]

    async with overlay(LINE[:2], SEPARATE) as (_, (left, right)):
        kept = right.set_handler(Desk(), Scope.DELIVERED).results(str)
        for payload in (b"secret", b"?", b"plain"):
            await left.send_to_all(payload)
        with trio.fail_after(5):
            assert (await right.receive()).payload == b"plain"
            assert (await left.receive()).payload == b"!"
            assert await anext(kept) == "kept"
        right.remove_handler()
        await left.send_to_all(b"secret")
        with trio.fail_after(5):
            assert (await right.receive()).payload == b"secret"


async def test_a_handler_stays_when_its_socket_joins_again() -> None:
    async with overlay(LINE, SEPARATE) as (host, (left, middle, right)):
        middle.set_handler(pairs())
        await left.send(right.address, b"held")
        await until(host, lambda: _held(middle) == 1)
        await middle.leave()
        with trio.fail_after(20):
            assert (await right.receive()).payload == b"held"
            await middle.join()
            await left.wait_stable()
            await right.wait_stable()
        await until(host, lambda: middle.address in left.neighbors)
        await left.send(middle.address, b"held")
        await until(host, lambda: _held(middle) == 1)


async def test_a_cancelled_leave_lets_go_what_is_held() -> None:
    async with overlay(LINE, SEPARATE) as (host, (left, middle, right)):
        middle.set_handler(pairs(), Scope.RELAYED)
        await left.send(right.address, b"held")
        await until(host, lambda: _held(middle) == 1)
        with trio.CancelScope() as scope:
            scope.cancel()
            await middle.leave()
        assert scope.cancelled_caught
        with trio.fail_after(20):
            assert (await right.receive()).payload == b"held"


def _held(sock: OverlaySocket) -> int:
    core = sock.statistics().core
    held = None if core is None else core.services.get("handler")
    return int(getattr(held, "messages", 0))


def line(seed: int = 1) -> tuple[Simulator, list[SimulatedSocket]]:
    simulator = Simulator(seed)
    config = OverlayConfig(overlay_id="test")
    members = [simulator.add(config, LogicalAddress((x, 0)), at=x / 1000) for x in (0, 1, 2)]
    assert simulator.run_until_legitimate() is not None
    return simulator, members


def test_what_is_held_goes_on_when_its_time_is_over() -> None:
    simulator, (left, middle, right) = line()
    middle.set_handler(pairs(timeout=2.0), Scope.RELAYED)
    left.send(LogicalAddress((2, 0)), b"alone")
    # One hop takes 20 ms.
    simulator.run(simulator.now + 2.015)
    assert payloads(right) == []
    settle(simulator, 0.1)
    assert payloads(right) == [b"alone"]


def test_what_is_held_goes_on_when_an_upstream_fails() -> None:
    """What came from the left waits, perhaps, for the right, which has sent here before."""
    simulator, (left, middle, right) = line()
    middle.set_handler(pairs(timeout=inf), Scope.BOTH)
    for sender, payload in ((left, b"a1"), (right, b"a2")):
        sender.send(LogicalAddress((1, 0)), payload)
    settle(simulator)
    # What is merged is for the member itself, whose handler does not see it again.
    left.send(LogicalAddress((1, 0)), b"b")
    settle(simulator)
    assert payloads(middle) == [b"a1+a2"]
    simulator.crash(right)
    settle(simulator, 60.0)
    assert payloads(middle) == [b"a1+a2", b"b"]


def test_what_is_held_goes_on_when_its_holder_leaves() -> None:
    simulator, (left, middle, right) = line()
    middle.set_handler(pairs(timeout=inf), Scope.RELAYED)
    left.send(LogicalAddress((2, 0)), b"held")
    settle(simulator)
    assert payloads(right) == []
    middle.leave()
    settle(simulator)
    assert payloads(right) == [b"held"]
