"""The simulator: its clock, its network, its members and its faults, on real overlay cores."""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from math import inf

import pytest
from attrs import define, evolve
from delaunay_oracle import delaunay
from hypothesis import given, settings
from hypothesis import strategies as st
from simulations import CONFIG, NETWORK, ROUGH, neighbors_by_place, overlay, payloads, settle

from opus_socket.config import OverlayConfig
from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.effects import Effects, Kind
from opus_socket.core.node import Node, NodeContext, ProtocolSpec
from opus_socket.core.wire import MAX_BODY, ProtocolMessage
from opus_socket.errors import (
    AddressInUseError,
    ConfigurationError,
    JoinError,
    LocalProtocolError,
    NotJoinedError,
)
from opus_socket.simulator import (
    ConstantNetwork,
    LinkQuality,
    SimulatedSocket,
    Simulator,
)
from opus_socket.simulator.schedule import Schedule
from opus_socket.simulator.trace import Trace


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=40), st.integers(0, 6))
def test_events_of_an_instant_come_in_order_and_timers_last(
    entries: list[tuple[int, bool]], until: int
) -> None:
    """Whatever was asked for comes by time, then packets before timers, then as asked; what lies
    behind the horizon stays, and comes when the horizon is moved.
    """
    schedule = Schedule()
    seen: list[tuple[int, bool, int]] = []
    for order, (when, is_timer) in enumerate(entries):
        ask = schedule.timer if is_timer else schedule.at
        ask(when, lambda *entry: seen.append(entry), (when, is_timer, order))
    schedule.horizon = until
    schedule.run()
    asked = sorted((when, is_timer, order) for order, (when, is_timer) in enumerate(entries))
    assert seen == [entry for entry in asked if entry[0] <= until]
    assert schedule.now == until
    schedule.horizon = 10
    schedule.run()
    assert seen == asked
    assert schedule.events == len(entries)


def test_what_is_asked_for_in_the_past_happens_now() -> None:
    schedule = Schedule(now=5.0)
    seen: list[float] = []
    schedule.at(1.0, lambda: seen.append(schedule.now))
    schedule.horizon = 5.0
    schedule.run()
    assert seen == [5.0]


# The trace


@given(st.lists(st.tuples(st.floats(0, 1e6), st.binary(max_size=600)), max_size=30))
def test_the_trace_hashes_its_lines(noted: list[tuple[float, bytes]]) -> None:
    """Hashing by the thousand and remembering digests show in nothing."""
    trace = Trace()
    lines = []
    for _ in range(300):
        for now, body in noted:
            trace.note(now, "send", 3, 4, trace.digest(body))
            lines.append(f"{int(now * 1e6)} send 3 4 {sha256(body).hexdigest()}\n")
    assert trace.sha256() == sha256("".join(lines).encode()).hexdigest()


@pytest.mark.parametrize("quality", [LinkQuality(), ROUGH])
def test_equal_seeds_give_equal_traces(quality: LinkQuality) -> None:
    def trace(seed: int) -> str:
        simulator = overlay(25, seed=seed, quality=quality)
        simulator.members[3].send_to_all(b"hello")
        simulator.crash(simulator.members[7])
        settle(simulator)
        return simulator.trace_sha256()

    assert trace(1) == trace(1)
    assert trace(1) != trace(2)


# Convergence


@pytest.mark.parametrize("interval", [0.0, 0.01, 0.3])
def test_all_who_join_form_the_triangulation(interval: float) -> None:
    simulator = overlay(40, interval=interval)
    assert all(member.joined and member.stable for member in simulator.members)
    tables = neighbors_by_place(simulator.members)
    points = [(x, y) for x, y in tables]
    assert tables == delaunay(points)


def test_they_do_over_bad_links() -> None:
    simulator = overlay(40, quality=ROUGH)
    tables = neighbors_by_place(simulator.members)
    assert tables == delaunay([(x, y) for x, y in tables])


def test_chosen_addresses_are_taken_and_cocircular_ones_agree() -> None:
    simulator = Simulator(3, NETWORK)
    grid = [LogicalAddress((x, y)) for x in range(5) for y in range(5)]
    members = [simulator.add(CONFIG, place, 0.02 * i) for i, place in enumerate(grid)]
    assert simulator.run_until_legitimate() is not None
    assert [member.address for member in members] == grid
    assert neighbors_by_place(members) == delaunay([(x, y) for x, y in grid])


def test_a_lone_member_is_legitimate() -> None:
    simulator = overlay(1)
    assert simulator.members[0].neighbors == ()
    assert simulator.members[0].send_to_all(b"nobody") is not None


@pytest.mark.parametrize(
    "rendezvous",
    [
        {"multicast": "239.1.2.3:9000"},
        {"buddies": ["10.0.0.1:9000", "10.0.0.2:9000"]},
        {"server": "192.0.2.1:8081", "multicast": "239.1.2.3:9000"},
    ],
)
def test_members_find_each_other_in_other_ways(rendezvous: dict[str, object]) -> None:
    simulator = overlay(15, config=OverlayConfig(overlay_id="test", rendezvous=rendezvous))
    asked_server = "server" in rendezvous
    assert (simulator.server.machine.statistics().requests > 0) is asked_server


def test_while_the_server_is_down_members_talk_and_joiners_wait() -> None:
    simulator = overlay(10)
    simulator.server.crash()
    late = simulator.add(CONFIG, at=simulator.now)
    settle(simulator, 30)
    simulator.members[0].send_to_all(b"still here")
    settle(simulator)
    assert all(payloads(m) == [b"still here"] for m in simulator.members[1:10])
    assert late.alive
    assert not late.joined
    simulator.server.start()
    settle(simulator, 40)
    assert late.joined
    assert simulator.run_until_legitimate() is not None


# The instant at which an overlay is legitimate


@settings(max_examples=10)
@given(st.integers(0, 10_000), st.booleans())
def test_legitimate_is_told_to_the_event(seed: int, crash: bool) -> None:
    """The instant is that of a checker which looks at everybody after every event."""
    simulator = Simulator(seed, NETWORK, LinkQuality(jitter=5))
    for number in range(8):
        simulator.add(CONFIG, at=0.05 * number)
    began = 0.35
    if crash:
        assert simulator.run_until_legitimate() is not None
        simulator.crash(simulator.members[2])
        began = simulator.now
    since: list[float | None] = [None]

    def look() -> None:
        live = [member for member in simulator.members if member.alive]
        contacts = {tuple(m.address): m.contact for m in live}
        tables = neighbors_by_place(live)
        right = (
            all(m.joined and m.stable for m in live)
            and tables == delaunay([(x, y) for x, y in tables])
            and all(contacts.get(tuple(c.address or ())) == c for m in live for c in _contacts(m))
        )
        if not right:
            since[0] = None
        elif since[0] is None:
            since[0] = simulator.now

    simulator.run(began)
    while since[0] is None or simulator.now < since[0] + 3.0:
        assert simulator.now < began + 60.0
        look()
        simulator.run(simulator.next_event_at)
    twin = Simulator(seed, NETWORK, LinkQuality(jitter=5))
    for number in range(8):
        twin.add(CONFIG, at=0.05 * number)
    told = twin.run_until_legitimate()
    if crash:
        twin.crash(twin.members[2])
        told = twin.run_until_legitimate()
    assert told is not None
    assert told == pytest.approx(since[0] - began, abs=1e-9)


def _contacts(member: SimulatedSocket) -> list[Contact]:
    return list(member.core.neighbors.values())


def test_an_overlay_that_cannot_become_legitimate_is_given_up() -> None:
    simulator = overlay(6)
    simulator.partition([simulator.members[:3]])
    settle(simulator, 10)  # until they miss each other, nothing is wrong
    before = simulator.now
    assert simulator.run_until_legitimate(timeout=20.0) is None
    assert simulator.now == pytest.approx(before + 20.0)


def test_a_watch_that_begins_late_has_its_whole_time() -> None:
    simulator = overlay(6)
    settle(simulator, 118)
    assert simulator.run_until_legitimate(timeout=20.0) is not None


def test_what_is_sent_in_peace_is_periodic() -> None:
    simulator = overlay(20)
    settle(simulator, 5)
    before = simulator.traffic()
    settle(simulator, 10)
    after = simulator.traffic()
    sent = after.protocol - before.protocol
    edges = sum(len(member.neighbors) for member in simulator.members)
    assert sent == pytest.approx(10 * edges, rel=0.15)
    assert after.periodic - before.periodic == pytest.approx(sent, rel=0.05)


# What applications do


def test_a_multicast_reaches_all_others_once() -> None:
    simulator = overlay(30)
    for member in simulator.members:
        member.send_to_all(f"from {member.number}".encode())
    settle(simulator, 2)
    for member in simulator.members:
        expected = sorted(f"from {m.number}".encode() for m in simulator.members if m is not member)
        assert sorted(payloads(member)) == expected


def test_a_flood_reaches_all_others_once() -> None:
    simulator = overlay(30)
    simulator.members[4].send_flood(b"flood")
    settle(simulator, 2)
    assert [payloads(m) for m in simulator.members] == [
        [] if m.number == 4 else [b"flood"] for m in simulator.members
    ]


def test_a_unicast_reaches_its_addressee_alone() -> None:
    simulator = overlay(30)
    sender, receiver = simulator.members[1], simulator.members[28]
    sender.send(receiver.address, b"just you")
    settle(simulator, 2)
    assert payloads(receiver) == [b"just you"]
    assert receiver.received[0].source == sender.address
    assert not any(m.received for m in simulator.members if m is not receiver)


def test_an_anycast_reaches_one_member() -> None:
    simulator = overlay(30)
    key = LogicalAddress((1 << 31, 1 << 31))
    simulator.members[1].send_anycast(key, b"whoever")
    settle(simulator, 2)
    assert [p for m in simulator.members for p in payloads(m)] == [b"whoever"]


def test_parents_and_children_are_inverse() -> None:
    simulator = overlay(30)
    members = {member.address: member for member in simulator.members}
    for root in members:
        for address, member in members.items():
            assert all(members[child].parent(root) == address for child in member.children(root))
        parents = [member.parent(root) for address, member in members.items() if address != root]
        assert len(parents) == sum(len(m.children(root)) for m in members.values())


def test_who_has_not_joined_cannot_send() -> None:
    simulator = Simulator()
    member = simulator.add(CONFIG, at=1.0)
    with pytest.raises(NotJoinedError):
        member.send_to_all(b"too early")
    assert simulator.run_until_legitimate() is not None
    member.send_to_all(b"now")
    member.leave()
    with pytest.raises(NotJoinedError):
        member.send_to_all(b"too late")


def test_members_with_other_key_attributes_are_refused() -> None:
    simulator = overlay(3)
    other = simulator.add(CONFIG.evolve(**{"node.delaunay.heartbeat": 2.0}), at=simulator.now)
    settle(simulator, 5)
    assert isinstance(other.error, JoinError)
    assert "heartbeat" in str(other.error)
    assert not other.alive
    assert simulator.run_until_legitimate() is not None


def test_of_two_members_with_one_fixed_address_the_later_is_refused() -> None:
    simulator = overlay(3)
    place = simulator.members[1].address
    other = simulator.add(CONFIG, place, simulator.now)
    settle(simulator, 20)
    assert isinstance(other.error, AddressInUseError)
    assert simulator.run_until_legitimate() is not None


def test_a_simulation_has_one_overlay() -> None:
    simulator = Simulator()
    simulator.add(CONFIG)
    with pytest.raises(LocalProtocolError, match="another"):
        simulator.add(OverlayConfig(overlay_id="another"))


def test_lives_begin_and_end_once() -> None:
    simulator = overlay(2, network=ConstantNetwork(5))
    member = simulator.members[0]
    with pytest.raises(LocalProtocolError):
        simulator.restart(member)
    simulator.crash(member)
    with pytest.raises(NotJoinedError):
        simulator.crash(member)
    with pytest.raises(LocalProtocolError):
        simulator.server.start()
    with pytest.raises(ConfigurationError):
        simulator.partition([[member], [member]])


def test_what_no_datagram_holds_is_a_machine_broken() -> None:
    simulator = overlay(2)
    sender, receiver = simulator.members
    with pytest.raises(LocalProtocolError, match="does not fit"):
        sender._underlay.send(sender, receiver.contact, Kind.PROTOCOL, bytes(MAX_BODY + 1))


@define
class NoSettings:
    """A protocol without settings."""


class Restless(Node):
    """A node that is never content with being woken."""

    def __init__(self, context: NodeContext, settings: NoSettings) -> None:
        self.contact = context.contact.at(LogicalAddress((0,)))
        self.stable = True
        self.version = 0

    next_deadline = 0.0
    neighbors = ()

    def start(self, now: float) -> Effects:
        return ()

    def receive(self, message: ProtocolMessage, sender: Contact, now: float) -> Effects:
        return ()

    def wake(self, now: float) -> Effects:
        return ()

    def leave(self, now: float) -> Effects:
        return ()

    def contacts(self, found: Sequence[Contact], now: float) -> Effects:
        return ()

    def parent(self, root: LogicalAddress) -> LogicalAddress | None:
        return None

    def children(self, root: LogicalAddress) -> tuple[LogicalAddress, ...]:
        return ()


class Restful(Restless):
    """A node that has nothing to do."""

    next_deadline = inf


def test_a_machine_that_stops_the_clock_is_told() -> None:
    simulator = Simulator()
    spec = ProtocolSpec("restless", "", 0, NoSettings, (), Restless)
    settings = evolve(simulator.settings(CONFIG), spec=spec, node=NoSettings())
    simulator.add(settings)
    with pytest.raises(LocalProtocolError, match="again and again"):
        simulator.run(1.0)


def test_a_protocol_without_checker_runs_but_is_not_judged() -> None:
    simulator = Simulator()
    spec = ProtocolSpec("restful", "", 0, NoSettings, (), Restful)
    settings = evolve(simulator.settings(CONFIG), spec=spec, node=NoSettings())
    member = simulator.add(settings)
    simulator.run(1.0)
    assert member.joined
    with pytest.raises(ConfigurationError, match="delaunay"):
        simulator.run_until_legitimate()


def test_a_disturbance_on_the_way_begins_the_wait_anew() -> None:
    simulator = overlay(8)
    simulator.crash(simulator.members[0])
    later = simulator.now + 1.0
    simulator.call_at(later, lambda: simulator.crash(simulator.members[1]))
    seconds = simulator.run_until_legitimate()
    assert seconds is not None
    assert seconds > 0
    assert simulator.now == pytest.approx(later + seconds + 3.0)
