"""Aggregation over random overlays, in the simulator and on real sockets.

Member number i has the value 2**i, so a sum says exactly whose values are in it, and how often: as
long as all fit into the digits of a float, none can stand for two others.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable
from random import Random

import pytest
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from simulations import overlay as simulated
from simulations import settle

from opus_socket import LocalProtocolError, LogicalAddress, OverlayConfig
from opus_socket.core.dispatch import ForService
from opus_socket.core.extensions import MESSAGE_ID, Code, Extension
from opus_socket.core.message import OverlayMessage
from opus_socket.core.node import Mode
from opus_socket.core.service import Originate, ServiceContext, ServiceEffects
from opus_socket.services.aggregates import Aggregate, Partial
from opus_socket.services.aggregation import (
    SPEC,
    Aggregation,
    AggregationSettings,
    AggregationStatistics,
    Collect,
    Contribute,
    Stop,
)
from opus_socket.services.collecting import Outcome, Report, Round
from opus_socket.simulator import SimulatedSocket, Simulator
from still_overlay import StillNode, contact_of, member
from support import TRANSPORTS, Settings, overlay

ON: Settings = {"services.aggregation.hop_time": 0.25, "services.aggregation.levels": 16}
CONFIG = OverlayConfig.from_mapping({"overlay_id": "test", **ON})


def contribute(simulator: Simulator) -> None:
    for each in simulator.members:
        each.ask("aggregation", Contribute("x", 2.0**each.number))


def aggregates(root: SimulatedSocket) -> list[Aggregate]:
    told = root.results.get("aggregation", [])
    assert all(isinstance(each, Aggregate) for each in told)
    return [each for each in told if isinstance(each, Aggregate)]


def counted(aggregate: Aggregate) -> list[int]:
    """Who is in it, once each: fails when somebody is in it twice."""
    total = int(aggregate.sum)
    assert total.bit_count() == aggregate.members
    return [number for number in range(total.bit_length()) if total >> number & 1]


def figures(each: SimulatedSocket) -> AggregationStatistics:
    told = each.statistics().services["aggregation"]
    assert isinstance(told, AggregationStatistics)
    return told


@settings(max_examples=10)
@given(st.integers(1, 40), st.integers(0, 1 << 16), st.data())
def test_everybody_is_counted_once(size: int, seed: int, data: st.DataObject) -> None:
    """One request of any root gives what plain Python says of all values, for two messages a
    member.
    """
    simulator = simulated(size, seed=seed, config=CONFIG)
    edges = tuple(sorted(data.draw(st.sets(st.floats(-10, 2.0**40), max_size=4))))
    values = {each.number: 2.0**each.number for each in simulator.members}
    contribute(simulator)
    silent = data.draw(st.none() | st.integers(0, size - 1))
    if silent is not None:
        simulator.members[silent].ask("aggregation", Contribute("x", None))
        del values[silent]
    root = simulator.members[data.draw(st.integers(0, size - 1))]
    before = sum(each.statistics().engine.transmitted_frames for each in simulator.members)
    root.ask("aggregation", Collect("x", edges=edges))
    settle(simulator, 10.0)
    [told] = aggregates(root)
    assert counted(told) == sorted(values)
    assert (told.idle, told.missing, told.root) == (size - len(values), 0, root.address)
    assert told.minimum == min(values.values(), default=None)
    assert told.maximum == max(values.values(), default=None)
    if values:
        assert told.mean == pytest.approx(sum(values.values()) / len(values))
    buckets = Counter(bisect_right(edges, value) for value in values.values())
    assert told.histogram == (tuple(buckets[n] for n in range(len(edges) + 1)) if edges else ())
    after = sum(each.statistics().engine.transmitted_frames for each in simulator.members)
    assert after - before == 2 * (size - 1)
    assert figures(root).queries == 0


def test_rounds_follow_each_other_and_see_what_changes() -> None:
    simulator = simulated(12, config=CONFIG)
    contribute(simulator)
    root = simulator.members[3]
    root.ask("aggregation", Collect("x", period=5.0, broadcast=True))
    settle(simulator, 12.0)
    assert [counted(told) for told in aggregates(root)] == [list(range(12))] * 3
    simulator.members[5].ask("aggregation", Contribute("x", None))
    settle(simulator, 5.0)
    assert 5 not in counted(aggregates(root)[-1])
    # Whoever wants to knows it, too.
    for each in simulator.members:
        assert aggregates(each) == aggregates(root)
    root.ask("aggregation", Stop("x"))
    settle(simulator, 20.0)
    assert len(aggregates(root)) == 4
    with pytest.raises(LocalProtocolError, match="'x' is not collected here"):
        root.ask("aggregation", Stop("x"))


def test_members_that_crash_between_rounds_are_missed_and_then_forgotten() -> None:
    simulator = simulated(30, seed=3, config=CONFIG)
    contribute(simulator)
    root = simulator.members[0]
    root.ask("aggregation", Collect("x", period=10.0))
    settle(simulator, 5.0)
    assert counted(aggregates(root)[0]) == list(range(30))
    rng, alive, there = Random(3), list(simulator.members[1:]), set(range(30))
    for _ in range(4):
        # Just before a round, so that nobody has noticed when it begins.
        settle(simulator, 4.9)
        for gone in rng.sample(alive, 2):
            simulator.crash(gone)
            alive.remove(gone)
        settle(simulator, 5.1)
        told = aggregates(root)[-1]
        there = {0, *(each.number for each in alive)}
        assert set(counted(told)) <= there
        # What is silent had been reported in the round before, below those who crashed.
        assert told.members + told.missing >= len(there)
    simulator.run_until_legitimate()
    settle(simulator, 25.0)
    told = aggregates(root)[-1]
    assert counted(told) == sorted(there)
    assert told.missing == 0


def test_one_request_after_another_knows_how_many_are_missing() -> None:
    """Everybody below those who crashed, because the request before told how many they are."""
    simulator = simulated(60, seed=4, config=CONFIG)
    contribute_once = Random(4).sample(simulator.members, 52)
    for place, each in enumerate(contribute_once):
        each.ask("aggregation", Contribute("x", 2.0**place))
    root = simulator.members[0]
    root.ask("aggregation", Collect("x"))
    settle(simulator, 5.0)
    for gone in simulator.members[20:25]:
        simulator.crash(gone)
    root.ask("aggregation", Collect("x"))
    settle(simulator, 20.0)
    before, told = aggregates(root)
    assert (before.members, before.idle, before.missing) == (52, 8, 0)
    assert len(counted(told)) == told.members
    assert 5 <= told.missing == 60 - told.members - told.idle


@settings(max_examples=8)
@given(st.integers(0, 1 << 16), st.lists(st.floats(0.0, 0.4), min_size=1, max_size=5))
def test_crashes_within_a_round_count_nobody_twice(seed: int, times: list[float]) -> None:
    """And the root is not blocked: it publishes within what it waits for a tree of 16 levels."""
    simulator = simulated(24, seed=seed, config=CONFIG)
    contribute(simulator)
    root = simulator.members[0]
    victims = Random(seed).sample(simulator.members[1:], len(times))
    root.ask("aggregation", Collect("x"))
    for victim, delay in zip(victims, times, strict=True):
        simulator.call_at(simulator.now + delay, victim.crash)
    settle(simulator, 16 * 0.25 + 0.001)
    [told] = aggregates(root)
    assert set(counted(told)) >= {0}
    assert told.members <= 24


def test_a_slow_child_costs_what_is_below_it_and_nothing_else() -> None:
    simulator = simulated(20, seed=5, config=CONFIG)
    contribute(simulator)
    root = simulator.members[0]
    root.ask("aggregation", Collect("x", period=8.0))
    settle(simulator, 7.0)
    slow = next(each for each in simulator.members if root.address == each.parent(root.address))
    below = {each.number for each in simulator.members if _passes(each, slow, root, simulator)}
    simulator.pause(slow, 4.0)
    settle(simulator, 7.0)
    told = aggregates(root)[-1]
    assert told.round == 2
    assert set(counted(told)) == set(range(20)) - below
    assert told.missing == len(below)
    assert figures(root).given_up == 1
    settle(simulator, 10.0)
    assert counted(aggregates(root)[-1]) == list(range(20))


def _passes(
    each: SimulatedSocket, by: SimulatedSocket, root: SimulatedSocket, simulator: Simulator
) -> bool:
    by_address = {other.address: other for other in simulator.members}
    while each is not root:
        if each is by:
            return True
        parent = each.parent(root.address)
        assert parent is not None
        each = by_address[parent]
    return False


def test_who_leaves_within_a_round_says_what_it_knows() -> None:
    simulator = simulated(16, seed=2, config=CONFIG)
    contribute(simulator)
    root = simulator.members[0]
    root.ask("aggregation", Collect("x"))
    # The round is at its first hops; who is there says its own value and leaves.
    settle(simulator, 0.02)
    leaver = next(each for each in simulator.members[1:] if figures(each).queries)
    leaver.leave()
    settle(simulator, 5.0)
    [told] = aggregates(root)
    assert leaver.number in counted(told)


def test_two_roots_collect_under_one_name() -> None:
    simulator = simulated(10, config=CONFIG)
    contribute(simulator)
    for root in simulator.members[:2]:
        root.ask("aggregation", Collect("x"))
    settle(simulator, 5.0)
    for root in simulator.members[:2]:
        [told] = aggregates(root)
        assert counted(told) == list(range(10))
    assert all(figures(each).refused == {} for each in simulator.members)


def test_queries_of_others_are_forgotten_when_no_round_comes() -> None:
    simulator = simulated(5, config=CONFIG)
    simulator.members[0].ask("aggregation", Collect("x"))
    settle(simulator, 5.0)
    assert [figures(each).queries for each in simulator.members] == [0, 1, 1, 1, 1]
    settle(simulator, 60.0)
    assert [figures(each).queries for each in simulator.members] == [0] * 5


any_contribute: Callable[..., Contribute] = Contribute
any_collect: Callable[..., Collect] = Collect
any_stop: Callable[..., Stop] = Stop


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (any_contribute("x", "1"), "a value of '1'"),
        (any_contribute(5, 1.0), "the name 5: 1 to 64 bytes"),
        (any_collect(None), "the name None: 1 to 64 bytes"),
        (any_collect("x", period="1"), "a period of '1'"),
        (any_collect("x", edges=None), "edges None: a tuple"),
        (any_collect("x", edges=("a",)), "at most 256 ascending numbers"),
        (any_collect("x", edges=(10**400,)), "at most 256 ascending numbers"),
        (any_collect("x", broadcast=1), "broadcast 1: True or False"),
        (any_stop([]), "is not collected here"),
        (Contribute("", 1.0), "1 to 64 bytes"),
        (Contribute("x" * 65, 1.0), "1 to 64 bytes"),
        (Contribute("\ud800", 1.0), "1 to 64 bytes"),
        (Contribute("x", float("nan")), "a value of nan"),
        (Contribute("x", 1e291), "a value of 1e\\+291"),
        (Contribute("x", 10**400), "a value of .a huge number"),
        (Collect("x", period=0.0), "a period of 0.0"),
        (Collect("x", period=float("inf")), "a period of inf"),
        (Collect("x", edges=(2.0, 1.0)), "ascending"),
        (Collect("x", edges=tuple(map(float, range(257)))), "at most 256"),
        (Stop("x"), "is not collected here"),
        ("x", "allowed: Contribute, Collect, Stop"),
    ],
)
def test_what_cannot_be_asked_for(request_: object, message: str) -> None:
    simulator = simulated(1, config=CONFIG)
    with pytest.raises(LocalProtocolError, match=message):
        simulator.members[0].ask("aggregation", request_)
    assert aggregates(simulator.members[0]) == []


def test_a_histogram_that_fits_into_no_frame_is_refused() -> None:
    config = CONFIG.evolve(**{"socket_adapter.maximum_packet_length": 1024})
    simulator = simulated(1, config=config)
    with pytest.raises(LocalProtocolError, match=r"256 edges make a message of \d+ bytes; at most"):
        simulator.members[0].ask("aggregation", Collect("x", edges=tuple(map(float, range(256)))))


# One machine, what others may send it


def machine(children: Iterable[int], queries: int = 64) -> Aggregation:
    """Member 5, whose parent is 1."""
    node = StillNode(member(5), [member(1), *map(member, children)], lambda *_: [])
    node.children = lambda root: tuple(map(member, children))  # type: ignore[method-assign]
    node.parent = lambda root: member(1)  # type: ignore[method-assign]
    context = ServiceContext(contact_of(member(5)), Random(1), node, 16_000)
    return Aggregation(AggregationSettings(queries=queries), context)


def arrival(body: bytes, source: int, came: int, hop_limit: int = 1) -> ForService:
    chain = (
        Extension(Code.MESSAGE_ID, MESSAGE_ID.pack(1, 1)),
        Extension(Code.SERVICE, SPEC.id.to_bytes(4) + body),
    )
    message = OverlayMessage.build(member(source), None, Mode.MULTICAST, chain, hop_limit=hop_limit)
    return ForService(SPEC.id, message, member(came), addressed=True, held=False)


def asked(number: int = 1, query: int = 7, name: str = "x", levels: int = 4) -> ForService:
    """By member 0, two hops away."""
    return arrival(Round(query, number, 9, levels, name, ()).wire, 0, 1, hop_limit=8)


def reported(child: int, members: int = 1, number: int = 1, query: int = 7) -> ForService:
    partial = Partial(members, 0, 0, 3, float(members), 1.0, 1.0)
    return arrival(Report(query, number, partial.wire).wire, child, child)


def sent(effects: ServiceEffects) -> tuple[LogicalAddress | None, Partial]:
    [report] = effects
    assert isinstance(report, Originate)
    assert (report.mode, report.hop_limit) == (Mode.UNICAST, 1)
    [body] = report.bodies
    return report.key, Partial.from_wire(body[13:], ())


def test_a_member_waits_as_long_as_there_are_levels_below_it() -> None:
    """At depth 2 of 4 levels: two times the time of a hop."""
    here = machine([6, 8])
    assert here.receive(asked(), 10.0) == []
    assert here.next_deadline == 10.0 + 2 * 0.25
    assert here.receive(reported(6), 10.1) == []
    parent, partial = sent(here.wake(10.5))
    assert parent == member(1)
    assert (partial.members, partial.idle, partial.missing) == (1, 1, 1)
    assert (here.statistics().late, here.statistics().given_up) == (0, 1)
    assert here.receive(reported(8), 10.6) == []
    assert here.statistics().late == 1


def test_children_are_missed_with_as_many_as_they_had() -> None:
    here = machine([6, 8])
    here.receive(asked(1), 0.0)
    here.receive(reported(6, members=5), 0.1)
    here.receive(reported(8, members=2), 0.1)
    here.receive(asked(2), 5.0)
    here.receive(reported(8, members=2, number=2), 5.1)
    _, partial = sent(here.link_failed(member(6), 5.2))
    assert (partial.members, partial.missing) == (2, 5)
    assert here.link_failed(member(6), 5.2) == []


def test_a_child_that_lost_its_parent_is_taken_in() -> None:
    here = machine([6])
    here.receive(asked(), 0.0)
    here.receive(reported(9), 0.1)
    _, partial = sent(here.receive(reported(6), 0.2))
    assert partial.members == 2


def test_messages_that_break_the_rules_are_counted() -> None:
    here = machine([6, 8], queries=1)
    here.receive(asked(2), 0.0)
    here.receive(reported(6, number=2), 0.1)
    broken = [
        (arrival(b"\x05" + bytes(12), 0, 1), "kind"),
        (asked(2), "old_round"),
        (asked(3, name="y"), "bad_round"),
        (asked(1, query=8), "queries"),
        (arrival(Round(9, 1, 1, 4, "x", ()).wire, 0, 1, hop_limit=2), "bad_round"),
        (reported(6, number=2), "repeated"),
        (reported(1, number=2), "repeated"),
        (reported(8, query=8), "unknown_query"),
        (arrival(reported(8, number=2).message.payload, 8, 6), "not_a_neighbor"),
        (arrival(Report(7, 2, b"short").wire, 8, 8), "truncated"),
    ]
    for message, _ in broken:
        assert here.receive(message, 0.2) == []
    assert here.statistics().refused == Counter(kind for _, kind in broken)
    _, partial = sent(here.receive(reported(8, number=2), 0.3))
    assert partial.members == 2


def test_a_new_round_ends_the_one_before_it() -> None:
    here = machine([6])
    here.receive(asked(1), 0.0)
    assert here.receive(asked(2), 0.1) == []
    assert here.receive(reported(6, number=1), 0.2) == []
    assert here.statistics().late == 1
    _, partial = sent(here.receive(reported(6, number=2), 0.3))
    assert partial.members == 1


def test_an_outcome_is_told_to_the_application() -> None:
    outcome = Outcome(7, 3, "x", (), Partial.of(2.0, (), 0))
    [told] = machine([]).receive(arrival(outcome.wire, 0, 1), 0.0)
    assert getattr(told, "result", None) == outcome.aggregate(member(0))


# Real sockets


@pytest.mark.parametrize("transport", TRANSPORTS.values(), ids=list(TRANSPORTS))
async def test_eight_members_on_real_sockets(transport: Settings) -> None:
    rng = Random(8)
    places = [f"{rng.randrange(10_000)},{rng.randrange(10_000)}" for _ in range(8)]
    async with overlay(places, transport, ON, {"services.aggregation.levels": 8}) as (_, sockets):
        handles = [sock.service("aggregation") for sock in sockets]
        for number, handle in enumerate(handles):
            await handle.ask(Contribute("x", 2.0**number))
        told = [handle.results(Aggregate) for handle in handles]
        await handles[2].ask(Collect("x", edges=(4.0, 64.0), broadcast=True))
        with trio.fail_after(10):
            seen = [await anext(each) for each in told]
        assert seen == [seen[2]] * 8
        assert (counted(seen[2]), seen[2].histogram) == (list(range(8)), (2, 4, 2))
        # A member that is gone is in no later round.
        await handles[2].ask(Collect("x", period=0.2))
        await sockets[5].aclose()
        with trio.fail_after(10):
            async for each in told[2]:
                if each.members == 7 and each.missing == 0:
                    assert counted(each) == [0, 1, 2, 3, 4, 6, 7]
                    break
