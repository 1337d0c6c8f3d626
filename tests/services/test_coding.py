"""Network coding on simulated and on real sockets; the butterfly (iOverlay, Figure 4)."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from random import Random

import networkx as nx
import pytest
import trio
from simulations import settle

from butterfly_flows import ADDRESSES, APP, PLACES, flows
from opus_socket import ConfigurationError, LocalProtocolError, LogicalAddress, OverlayConfig
from opus_socket.core.node import Mode
from opus_socket.registry import service
from opus_socket.services.coding import (
    SPEC,
    Block,
    Branch,
    CodingStatistics,
    Flow,
    FlowStatistics,
    Rule,
    Send,
)
from opus_socket.services.generations import Packet
from opus_socket.simulator import SimulatedSocket, Simulator
from support import SEPARATE, TRANSPORTS, Settings, overlay

NAMES = list(PLACES)
ON: Settings = {"services.coding.generation": 2}
CONFIG = OverlayConfig.from_mapping({"overlay_id": "test", **ON})


def simulated(
    names: list[str] = NAMES, config: OverlayConfig = CONFIG
) -> tuple[Simulator, dict[str, SimulatedSocket]]:
    simulator = Simulator(1)
    members = {
        name: simulator.add(config, ADDRESSES[name], at=0.01 * number)
        for number, name in enumerate(names)
    }
    assert simulator.run_until_legitimate() is not None
    return simulator, members


def figures(member: SimulatedSocket, app: int = APP) -> FlowStatistics:
    return coding(member).flows[app]


def coding(member: SimulatedSocket) -> CodingStatistics:
    told = member.statistics().services["coding"]
    assert isinstance(told, CodingStatistics)
    return told


def blocks(member: SimulatedSocket) -> dict[tuple[int, int], bytes]:
    """What it decoded, by place in the stream of the source's blocks; each told once."""
    told = [each for each in member.results.get("coding", []) if isinstance(each, Block)]
    found = {(each.generation, each.index): each.data for each in told}
    assert len(found) == len(told)
    return found


def sent(simulator: Simulator, source: SimulatedSocket, data: list[bytes]) -> None:
    # Apart from each other, as a limited source sends.
    for start in range(0, len(data), 2):
        source.ask("coding", Send(APP, data[start : start + 2]))
        settle(simulator, 0.01)
    settle(simulator, 1.0)


def expected(source: SimulatedSocket, data: list[bytes]) -> dict[tuple[int, int], bytes]:
    first = source.contact.incarnation
    return {(first + number // 2, number % 2): block for number, block in enumerate(data)}


DATA = [Random(number).randbytes(100 + number % 7) for number in range(40)]


def test_every_edge_of_the_butterfly_is_one_of_the_overlay() -> None:
    _, members = simulated()
    for name, flow in flows(coded=True).items():
        for branch in flow.branches:
            assert branch.to in members[name].neighbors


@pytest.mark.parametrize("coded", [False, True])
def test_the_butterfly_carries_what_arithmetic_says(coded: bool) -> None:
    """Of 400 units that A sends, D has 400, F and G 300 without coding and 400 with it; D sends 200
    either way. With coding F and G reach the maximum flow from A.
    """
    simulator, members = simulated()
    for name, flow in flows(coded=coded).items():
        members[name].ask("coding", flow)
    sent(simulator, members["A"], DATA)
    told = {name: figures(member) for name, member in members.items()}
    everything = expected(members["A"], DATA)
    assert blocks(members["D"]) == everything
    assert told["D"].sent == len(DATA) // 2
    assert [told[name].received for name in "BCE"] == [20, 20, 20]
    for name, stream in (("F", 0), ("G", 1)):
        if coded:
            assert blocks(members[name]) == everything
            assert told[name].innovative == len(DATA) == _units(name) * len(DATA) // 400
            assert told[name].complete == 20
        else:
            assert told[name].innovative == len(DATA) * 3 // 4
            assert told[name].redundant == len(DATA) // 4
            own = {place: block for place, block in everything.items() if place[1] == stream}
            assert own.items() <= blocks(members[name]).items() <= everything.items()
    assert all(blocks(members[name]) == {} for name in "ABCE")
    assert all(coding(member).refused == {} for member in members.values())


def _units(sink: str) -> int:
    graph = nx.DiGraph()
    for edge in ("AB", "AC", "BD", "BF", "CD", "CG", "DE", "EF", "EG"):
        graph.add_edge(edge[0], edge[1], capacity=200)
    return int(nx.maximum_flow_value(graph, "A", sink))


@pytest.mark.parametrize(
    ("coded", "figures_of_the_paper"),
    [
        (False, {"D": 400, "E": 200, "F": 300, "G": 300}),
        (True, {"D": 400, "E": 200, "F": 400, "G": 400}),
    ],
)
def test_the_butterfly_held_to_the_bandwidths_of_the_paper(
    coded: bool, figures_of_the_paper: dict[str, int]
) -> None:
    """A sends 400 KB/s in all, D 200 KB/s. What counts is what tells a decoder something new; E
    decodes nothing, and counts what it receives.
    """
    simulator, members = simulated()
    members["A"].set_bandwidth("out", 400_000)
    members["D"].set_bandwidth("out", 200_000)
    for name, flow in flows(coded=coded).items():
        members[name].ask("coding", flow)
    block = bytes(5000)

    def feed() -> None:
        members["A"].ask("coding", Send(APP, [block, block]))
        simulator.call_at(simulator.now + 0.025, feed)

    def total(name: str) -> int:
        told = figures(members[name])
        return told.received_bytes if name == "E" else told.innovative_bytes

    feed()
    settle(simulator, 3.0)
    before = {name: total(name) for name in "DEFG"}
    settle(simulator, 10.0)
    for name, wanted in figures_of_the_paper.items():
        assert (total(name) - before[name]) / 10_000 == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize("transport", TRANSPORTS.values(), ids=list(TRANSPORTS))
async def test_the_butterfly_decodes_on_real_sockets(transport: Settings) -> None:
    places = [f"{x},{y}" for x, y in PLACES.values()]
    async with overlay(places, transport, ON) as (_, sockets):
        members = dict(zip(NAMES, sockets, strict=True))
        handles = {name: sock.service("coding") for name, sock in members.items()}
        for name, flow in flows(coded=True).items():
            await handles[name].ask(flow)
        results = {name: handles[name].results(Block) for name in "DFG"}
        data = [Random(number).randbytes(8_000) for number in range(20)]
        await handles["A"].ask(Send(APP, data))
        for name, told in results.items():
            with trio.fail_after(10):
                found = [await anext(told) for _ in data]
            first = members["A"].contact.incarnation
            places_of = {(each.generation - first) * 2 + each.index: each.data for each in found}
            assert places_of == dict(enumerate(data)), name
        statistics = handles["F"].statistics()
        assert isinstance(statistics, CodingStatistics)
        assert statistics.flows[APP].complete == 10


def test_a_lost_generation_blocks_only_itself() -> None:
    """What C never sent makes D send a alone, once it has waited for its time."""
    simulator, members = simulated()
    for name, flow in flows(coded=True).items():
        members[name].ask("coding", flow)
    source = members["A"]
    source.ask("coding", Send(APP, DATA[:2]))
    settle(simulator)
    # In the second generation C sends nothing on.
    members["C"].ask("coding", Flow(APP))
    source.ask("coding", Send(APP, DATA[2:4]))
    settle(simulator, 0.5)
    members["C"].ask("coding", flows(coded=True)["C"])
    source.ask("coding", Send(APP, DATA[4:6]))
    settle(simulator, 1.0)
    everything = expected(source, DATA[:6])
    first = source.contact.incarnation
    without = {place: block for place, block in everything.items() if place[0] != first + 1}
    assert blocks(members["G"]) == without
    assert figures(members["D"]).held[ADDRESSES["E"]].messages == 1
    settle(simulator, 2.0)
    only_a = {(first + 1, 0): DATA[2]}
    assert figures(members["D"]).held[ADDRESSES["E"]].released == {"timeout": 1}
    for name in "DFG":
        assert blocks(members[name]) == without | only_a


def test_what_waits_goes_on_when_its_other_upstream_fails() -> None:
    simulator, members = simulated()
    for name, flow in flows(coded=True).items():
        members[name].ask("coding", flow)
    sent(simulator, members["A"], DATA[:2])
    simulator.crash(members["C"])
    while ADDRESSES["C"] in members["D"].neighbors:
        settle(simulator, 0.25)
        members["A"].ask("coding", Send(APP, [b"a", b"b"]))
    settle(simulator, 0.5)
    assert "upstream" in figures(members["D"]).held[ADDRESSES["E"]].released


def test_who_leaves_or_changes_its_flow_sends_on_what_it_held() -> None:
    for change in ("leave", "flow"):
        simulator, members = simulated()
        for name, flow in flows(coded=True).items():
            members[name].ask("coding", flow)
        members["C"].ask("coding", Flow(APP))
        sent(simulator, members["A"], DATA[:2])
        before = figures(members["F"]).received
        if change == "leave":
            members["D"].leave()
        else:
            members["D"].ask("coding", Flow(APP))
        settle(simulator, 0.1)
        assert figures(members["F"]).received == before + 1


def test_mixing_two_ways_through_random_factors() -> None:
    """A diamond A, B, C, D: each way carries half as many packets, and D has everything."""
    simulator, members = simulated(["A", "B", "C", "D"])
    to = ADDRESSES
    mixed = [Branch(to[name], Rule.MIX, parts=2) for name in "BC"]
    members["A"].ask("coding", Flow(APP, tuple(mixed)))
    for name in "BC":
        members[name].ask("coding", Flow(APP, (Branch(to["D"]),)))
    members["D"].ask("coding", Flow(APP, decode=True))
    sent(simulator, members["A"], DATA)
    told = figures(members["D"])
    # Two random packets of two blocks are independent but for one case in 255.
    assert (told.received, told.innovative + told.redundant) == (len(DATA), len(DATA))
    assert told.complete >= 18
    assert blocks(members["D"]).items() <= expected(members["A"], DATA).items()


def test_what_a_branch_to_somebody_else_would_take_is_counted() -> None:
    simulator, members = simulated()
    branches = Branch(ADDRESSES["G"]), Branch(LogicalAddress((7, 7))), Branch(ADDRESSES["B"])
    assert ADDRESSES["G"] not in members["A"].neighbors
    members["A"].ask("coding", Flow(APP, branches))
    members["A"].ask("coding", Send(APP, DATA[:4]))
    told = figures(members["A"])
    assert (told.sent, told.astray) == (4, 8)
    settle(simulator, 1.0)
    assert figures(members["A"]) == told


def test_packets_that_go_in_a_circle_end() -> None:
    simulator, members = simulated(["A", "B", "C", "D"])
    to = ADDRESSES
    for here, there in ("AB", "BD", "DC", "CA"):
        members[here].ask("coding", Flow(APP, (Branch(to[there]),)))
    members["A"].ask("coding", Send(APP, [b"round"]))
    settle(simulator, 5.0)
    received = Counter({name: figures(member).received for name, member in members.items()})
    assert received == Counter("ABCD")
    assert figures(members["A"]).repeated == 1


def test_generations_that_stay_incomplete_are_given_up() -> None:
    config = CONFIG.evolve(**{"services.coding.window": 3})
    simulator, members = simulated(["A", "B"], config)
    members["A"].ask("coding", Flow(APP, (Branch(ADDRESSES["B"], Rule.STREAM, 0),)))
    members["B"].ask("coding", Flow(APP, decode=True))
    sent(simulator, members["A"], DATA[:20])
    told = figures(members["B"])
    assert (told.innovative, told.blocks, told.complete, told.lost) == (10, 10, 0, 7)


def test_what_is_kept_of_generations_is_bounded_in_bytes() -> None:
    config = CONFIG.evolve(**{"services.coding.decode_buffer": 300})
    simulator, members = simulated(["A", "B"], config)
    members["A"].ask("coding", Flow(APP, (Branch(ADDRESSES["B"], Rule.STREAM, 0),)))
    members["B"].ask("coding", Flow(APP, decode=True))
    sent(simulator, members["A"], [bytes(96)] * 20)
    # 2 coefficients, 2 bytes of length, 96 of the block: three generations of 100 fit.
    assert figures(members["B"]).lost == 7


def test_packets_that_break_the_rules_are_counted() -> None:
    simulator, members = simulated(["A", "B"])
    members["B"].ask("coding", Flow(APP, decode=True))
    good = Packet.of_block(APP, 5, 3, 2, 0, b"good").wire
    bodies = [
        b"",
        good[:-6],
        Packet.of_block(APP + 1, 5, 3, 2, 0, b"x").wire,
        good,
        Packet.of_block(APP, 5, 3, 3, 0, b"x").wire,
        good[:-7] + b"\x01\xff\xff" + b"good",
    ]
    core = members["A"].core
    dispatch = core.engine.originate_service(
        SPEC.id, bodies, Mode.UNICAST, ADDRESSES["B"], simulator.now
    )
    members["A"]._forward(dispatch)
    settle(simulator)
    assert coding(members["B"]).refused == {
        "truncated": 2,
        "unknown_app": 1,
        "generation_size": 1,
        "block_length": 1,
    }
    assert blocks(members["B"]) == {(5, 0): b"good"}


def test_what_cannot_be_asked_for() -> None:
    _, members = simulated(["A", "B"])
    here, there = ADDRESSES["A"], ADDRESSES["B"]
    for request, message in (
        (Send(3, [b"x"]), "app 3 has no flow here; those that have: none"),
        (Flow(-1), "app -1: 0 to 4294967295"),
        (Flow(1, (Branch(here),)), "the address of another member"),
        (Flow(1, (Branch(LogicalAddress((1,))),)), "the address of another member"),
        (Flow(1, (Branch(there, Rule.STREAM, 2, 2),)), "part 2 of 2"),
        (Flow(1, (Branch(there, Rule.ADD, 0, 0),)), "part 0 of 0"),
        (Flow(1, (Branch(there, Rule.ADD, 0, 65),)), "part 0 of 65: 1 to 64"),
    ):
        with pytest.raises(LocalProtocolError, match=message):
            members["A"].ask("coding", request)
    members["A"].ask("coding", Flow(1, (Branch(there),)))
    with pytest.raises(LocalProtocolError, match=r"a block of 17000 bytes; at most 163\d\d are"):
        members["A"].ask("coding", Send(1, [b"fits", bytes(17_000)]))
    for wrong in (None, 7, "text", b"bytes", ["text"], [b"fits", 5], [b"fits", None]):
        with pytest.raises(LocalProtocolError, match="payload"):
            members["A"].ask("coding", Send(1, wrong))  # type: ignore[arg-type]
    assert figures(members["A"], 1).sent == 0


def test_whatever_can_be_gone_through_is_sent() -> None:
    simulator, members = simulated(["A", "B"])
    members["A"].ask("coding", Flow(APP, (Branch(ADDRESSES["B"]),)))
    members["B"].ask("coding", Flow(APP, decode=True))
    members["A"].ask("coding", Send(APP, (bytes([number]) for number in range(3))))
    members["A"].ask("coding", Send(APP, [bytearray(b"d"), memoryview(b"e")]))
    settle(simulator)
    assert list(blocks(members["B"]).values()) == [b"\0", b"\1", b"\2", b"d", b"e"]


def test_what_is_of_another_type_cannot_be_asked_for() -> None:
    _, members = simulated(["A", "B"])
    there = ADDRESSES["B"]
    flow: Callable[..., Flow] = Flow
    branch: Callable[..., Branch] = Branch
    send: Callable[..., Send] = Send
    for request, message in (
        (flow(1.5), "app 1.5: 0 to 4294967295"),
        (flow("7"), "app '7': 0 to 4294967295"),
        (flow(True), "app True: 0 to 4294967295"),
        (flow(1, None), "branches None: a tuple of branches"),
        (flow(1, (there,)), "is no branch; a Branch"),
        (flow(1, decode=1), "decode 1: True or False"),
        (flow(1, (branch("1,2"),)), "the address of another member"),
        (flow(1, (branch(there, "forward"),)), "rule 'forward': Rule.FORWARD, Rule.STREAM"),
        (flow(1, (branch(there, Rule.STREAM, 0.5),)), "part 0.5 of 2"),
        (flow(1, (branch(there, Rule.ADD, 0, 2.5),)), "part 0 of 2.5"),
        (flow(1, (branch(there, Rule.STREAM, "0"),)), "part '0' of 2"),
        (send([], [b"x"]), "app .*: 0 to 4294967295"),
    ):
        with pytest.raises(LocalProtocolError, match=message):
            members["A"].ask("coding", request)
    assert coding(members["A"]).flows == {}


async def test_the_longest_block_fits() -> None:
    async with overlay(["0,0", "9,9"], SEPARATE, ON) as (_, (left, right)):
        there = right.service("coding")
        await left.service("coding").ask(Flow(1, (Branch(right.address),)))
        await there.ask(Flow(1, decode=True))
        results = there.results(Block)
        with pytest.raises(LocalProtocolError) as refused:
            await left.service("coding").ask(Send(1, [bytes(20_000)]))
        longest = int(str(refused.value).split("at most ")[1].split()[0])
        await left.service("coding").ask(Send(1, [b"l" * longest]))
        with trio.fail_after(5):
            assert (await anext(results)).data == b"l" * longest


def test_without_numpy_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numpy", None)
    for module in [name for name in sys.modules if name.startswith("opus_socket.services.")]:
        monkeypatch.delitem(sys.modules, module)
    with pytest.raises(ConfigurationError, match=r"install opus-socket\[coding\]"):
        service("coding")
