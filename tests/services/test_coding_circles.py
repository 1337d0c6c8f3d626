"""Flows that close circles: whatever the graph and the rules, little is sent and all of it ends."""

from __future__ import annotations

from collections import deque
from random import Random

import pytest
from attrs import define, evolve, field
from hypothesis import given
from hypothesis import strategies as st

from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.dispatch import ForService
from opus_socket.core.extensions import MESSAGE_ID, Code, Extension
from opus_socket.core.message import OverlayMessage
from opus_socket.core.node import Mode
from opus_socket.core.service import Originate, Publish, ServiceContext, ServiceEffects
from opus_socket.services.coding import (
    SPEC,
    Block,
    Branch,
    Coding,
    CodingSettings,
    Flow,
    Rule,
    Send,
)
from opus_socket.services.generations import MAX_HOPS, Packet, Told
from still_overlay import contact_of, lone, member

APP = 7
SIZE = 2
"""Blocks of a generation."""


@define(eq=False)
class Coders:
    """Machines that hand each other what they send, at once and in order."""

    machines: dict[int, Coding]
    decoded: dict[int, set[bytes]] = field(factory=dict)
    passed: int = 0
    waiting: deque[tuple[int, int, bytes]] = field(factory=deque)

    @classmethod
    def of(cls, flows: dict[int, Flow]) -> Coders:
        machines = {}
        for number, flow in flows.items():
            contact: Contact = contact_of(member(number))
            others = [other for other in flows if other != number]
            context = ServiceContext(contact, Random(number), lone(number, *others), 10_000)
            machines[number] = Coding(CodingSettings(generation=SIZE), context)
            assert machines[number].ask(flow, 0.0) == []
        return cls(machines, {number: set() for number in machines})

    def perform(self, number: int, effects: ServiceEffects) -> None:
        for effect in effects:
            if isinstance(effect, Originate):
                assert effect.key is not None
                self.waiting.extend((number, effect.key[0], body) for body in effect.bodies)
            if isinstance(effect, Publish):
                assert isinstance(effect.result, Block)
                self.decoded[number].add(effect.result.data)

    def run(self, most: int) -> None:
        """Carry everything; fails when there is more to carry than so much."""
        while self.waiting:
            origin, to, body = self.waiting.popleft()
            self.passed += 1
            assert self.passed <= most
            machine, message = self.machines[to], carried(member(origin), member(to), body)
            self.perform(to, machine.receive(message, 0.0))

    def sent(self, number: int) -> int:
        return self.machines[number].statistics().flows[APP].sent


def carried(source: LogicalAddress, to: LogicalAddress, body: bytes) -> ForService:
    chain = (
        Extension(Code.MESSAGE_ID, MESSAGE_ID.pack(1, 1)),
        Extension(Code.SERVICE, SPEC.id.to_bytes(4) + body),
    )
    message = OverlayMessage.build(source, to, Mode.UNICAST, chain, hop_limit=1)
    return ForService(SPEC.id, message, source, True, False)


@st.composite
def graphs(draw: st.DrawFn, rules: list[Rule]) -> dict[int, Flow]:
    """Two to six members, each with branches to any of the others."""
    numbers = range(draw(st.integers(2, 6)))
    flows = {}
    for number in numbers:
        others = [other for other in numbers if other != number]
        chosen = draw(st.lists(st.sampled_from(others), unique=True, min_size=1))
        branches = [
            Branch(member(other), draw(st.sampled_from(rules)), 0, draw(st.integers(1, SIZE)))
            for other in chosen
        ]
        flows[number] = Flow(APP, tuple(branches), decode=draw(st.booleans()))
    return flows


@given(graphs(list(Rule)), st.integers(1, 6), st.randoms())
def test_of_each_generation_a_branch_sends_no_more_than_it_has_blocks(
    flows: dict[int, Flow], count: int, rng: Random
) -> None:
    coders = Coders.of(flows)
    generations = -(-count // SIZE)
    bound = {number: generations * SIZE * len(flow.branches) for number, flow in flows.items()}
    source = rng.choice(list(flows))
    data = [rng.randbytes(9) for _ in range(count)]
    coders.perform(source, coders.machines[source].ask(Send(APP, data), 0.0))
    coders.run(sum(bound.values()))
    for now in (2.5, 5.0):
        for number, machine in coders.machines.items():
            coders.perform(number, machine.wake(now))
        coders.run(sum(bound.values()))
    assert all(coders.sent(number) <= bound[number] for number in flows)
    assert all(found <= set(data) for found in coders.decoded.values())


@given(graphs([Rule.FORWARD]), st.integers(1, 6))
def test_whoever_can_be_reached_has_everything(flows: dict[int, Flow], count: int) -> None:
    """Nothing is kept from anybody because it came before to somebody else."""
    flows = {number: evolve(flow, decode=True) for number, flow in flows.items()}
    coders = Coders.of(flows)
    data = [bytes([number]) * 5 for number in range(count)]
    coders.perform(0, coders.machines[0].ask(Send(APP, data), 0.0))
    coders.run(10_000)
    reached, edge = {0}, [0]
    while edge:
        near = {branch.to[0] for branch in flows[edge.pop()].branches} - reached
        reached |= near
        edge += near
    for number in reached - {0}:
        assert coders.decoded[number] == set(data)


@pytest.mark.parametrize("hops", [0, MAX_HOPS + 1, 255])
def test_packets_that_claim_to_go_further_are_refused(hops: int) -> None:
    coders = Coders.of({0: Flow(APP, (Branch(member(1)),)), 1: Flow(APP)})
    packet = Packet.of_block(APP, 1, hops, SIZE, 0, b"x")
    assert coders.machines[0].receive(carried(member(1), member(0), packet.wire), 0.0) == ()
    assert coders.machines[0].statistics().refused == {"hops": 1}


def test_what_was_told_is_remembered_within_bounds() -> None:
    told = Told(3)
    packets = [Packet.of_block(APP, number, 1, 1, 0, b"x") for number in range(5)]
    assert [told.add(packet) for packet in packets] == [True] * 5
    assert [told.add(packet) for packet in reversed(packets)] == [False] * 3 + [True] * 2
