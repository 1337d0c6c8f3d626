"""Members of a simulation that are held to a bandwidth."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulations import CONFIG, overlay, settle

from opus_socket.config import OverlayConfig
from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.buckets import Direction, Limit
from opus_socket.core.events import MessagesDropped
from opus_socket.errors import ConfigurationError, LocalProtocolError
from opus_socket.simulator import ConstantNetwork, SimulatedSocket, Simulator

PAYLOAD = bytes(1_000)
DELAY = 0.01


def pair(**limits: object) -> tuple[Simulator, SimulatedSocket, SimulatedSocket]:
    """Two members, the first of which is held to these limits."""
    simulator = Simulator(network=ConstantNetwork(1000 * DELAY))
    config = CONFIG.evolve(emulation=limits)
    first = simulator.add(config, LogicalAddress((10, 10)))
    second = simulator.add(CONFIG, LogicalAddress((20, 20)))
    assert simulator.run_until_legitimate() is not None
    return simulator, first, second


def feed(
    simulator: Simulator, sender: SimulatedSocket, to: SimulatedSocket, seconds: float
) -> None:
    """Keep the sender's link full for a while."""
    address, end = to.address, simulator.now + seconds

    def more() -> None:
        for _ in range(20):
            sender.send(address, PAYLOAD)
        if simulator.now < end:
            simulator.call_at(simulator.now + 0.1, more)

    more()
    simulator.run(end)


def taken(member: SimulatedSocket) -> int:
    """Bytes of overlay messages that the application was given, whole frames."""
    return sum(len(message.frame) for message in member.received)


@pytest.mark.parametrize(
    ("limits", "turned"),
    [
        ({"node_out": 100_000}, False),
        ({"node_total": 100_000}, False),
        ({"links": ["20,20 out 100000"]}, False),
        ({"node_in": 100_000}, True),
        ({"node_total": 100_000}, True),
        ({"links": ["20,20 in 100000"]}, True),
    ],
)
def test_a_member_is_held_to_its_bandwidth(limits: dict[str, object], turned: bool) -> None:
    """Of more messages than its limit lets through, 100,000 bytes a second go, within 2 percent,
    control messages included.
    """
    simulator, first, second = pair(**limits)
    sender, receiver = (second, first) if turned else (first, second)
    feed(simulator, sender, receiver, 1.0)
    before = taken(receiver)
    feed(simulator, sender, receiver, 20.0)
    assert taken(receiver) - before == pytest.approx(2_000_000, rel=0.02)
    assert first.dropped > 0
    assert any(isinstance(event, MessagesDropped) for event in first.events)


def test_a_change_at_run_time_holds_at_once() -> None:
    simulator, first, second = pair(node_out=50_000)
    feed(simulator, first, second, 2.0)
    for rate in (10_000, 90_000, 30_000):
        first.set_bandwidth("out", rate)
        before = taken(second)
        feed(simulator, first, second, 10.0)
        assert taken(second) - before == pytest.approx(10 * rate, rel=0.02, abs=rate * 0.1 + 1_100)
    assert first.bandwidth == (Limit(Direction.OUT, 30_000),)


def test_a_limit_that_ends_lets_everything_go() -> None:
    """What was held back goes at once when the limit is taken away."""
    simulator, first, second = pair(node_out=10_000)
    for _ in range(50):
        first.send(second.address, PAYLOAD)
    first.set_bandwidth("out", None)
    assert first.bandwidth == ()
    simulator.run(simulator.now + DELAY)
    assert len(second.received) == 50


def test_links_of_a_node_share_its_bandwidth_alike() -> None:
    """A star's center sends three times as much to one neighbor as to the others, and all of them
    get the same.
    """
    simulator = Simulator(network=ConstantNetwork(5))
    center = simulator.add(CONFIG, LogicalAddress((100, 100)))
    places = [(0, 0), (200, 0), (0, 200), (200, 200)]
    leaves = [simulator.add(CONFIG, LogicalAddress(place)) for place in places]
    assert simulator.run_until_legitimate() is not None
    center.set_bandwidth("out", 100_000)
    for _ in range(40):
        for leaf in leaves:
            for _ in range(3 if leaf is leaves[0] else 1):
                center.send(leaf.address, PAYLOAD)
    simulator.run(simulator.now + 1.0)
    counts = [len(leaf.received) for leaf in leaves]
    assert min(counts) > 20
    assert (max(counts) - min(counts)) * len(PAYLOAD) <= 1 << 14


def test_control_passes_a_saturated_member() -> None:
    """However much waits, a member whose bandwidth is used up hears and is heard: nobody takes it
    for gone, and its neighbor's leaving arrives within the network's delay.
    """
    simulator, first, second = pair(node_total=2_000)
    for _ in range(100):
        first.send(second.address, PAYLOAD)
        second.send(first.address, PAYLOAD)
    settle(simulator, 30.0)
    assert first.neighbors == (second.address,)
    assert first.stable
    second.leave()
    settle(simulator, 2 * DELAY)
    assert not first.neighbors


def test_control_is_paid_for() -> None:
    """A round trip takes from what is left for messages, in both directions."""
    simulator, first, second = pair(node_in=1_000, node_out=1_000)
    settle(simulator, 1.0)
    first.measure(second.address)
    assert held(first, Direction.OUT, simulator.now) < 90
    simulator.run(simulator.now + 2 * DELAY)
    assert first.answers
    assert held(first, Direction.IN, simulator.now) < 90


def held(member: SimulatedSocket, direction: Direction, now: float) -> float:
    """Bytes in one of a member's buckets."""
    assert member._emulation is not None
    return member._emulation.buckets.each[direction, None].holds(now)


def test_any_number_of_messages_can_go_at_one_instant() -> None:
    """A relay lets in, and on, whatever has waited for its bandwidth, at once."""
    simulator = Simulator(network=ConstantNetwork(5))
    first, relay, third = (
        simulator.add(CONFIG, LogicalAddress(place)) for place in ((0, 0), (1_000, 0), (2_000, 0))
    )
    assert simulator.run_until_legitimate() is not None
    assert first.children(first.address) == (relay.address,)
    relay.set_bandwidth("in", 1_000)
    for _ in range(1_500):
        first.send_to_all(b"")
    settle(simulator, 1.0)
    relay.set_bandwidth("in", None)
    settle(simulator, 1.0)
    assert len(third.received) == 1_500


def test_a_member_that_leaves_first_lets_go_what_it_holds() -> None:
    simulator, first, second = pair(node_out=10_000)
    for _ in range(30):
        first.send(second.address, PAYLOAD)
    first.leave()
    settle(simulator, 30.0)
    assert first.gone
    assert len(second.received) == 30


def test_what_waits_is_gone_with_a_crash() -> None:
    simulator, first, second = pair(node_out=10_000)
    for _ in range(30):
        first.send(second.address, PAYLOAD)
    simulator.crash(first)
    settle(simulator, 30.0)
    assert len(second.received) <= 1
    simulator.restart(first)
    assert simulator.run_until_legitimate() is not None
    assert first.bandwidth == (Limit(Direction.OUT, 10_000),)


def test_a_member_that_stands_still_lets_nothing_go() -> None:
    simulator, first, second = pair(node_out=10_000)
    for _ in range(30):
        first.send(second.address, PAYLOAD)
    settle(simulator, 0.5)
    before = len(second.received)
    simulator.pause(first, 1.0)
    settle(simulator, 0.99)
    assert len(second.received) <= before + 1
    settle(simulator, 3.5)
    assert len(second.received) == 30


def traffic(seed: int, rate: int | None) -> tuple[str, Counter[bytes]]:
    """The trace of some multicasts, of which one member is perhaps held to a bandwidth."""
    simulator = overlay(6, seed=seed)
    slow = simulator.members[2]
    if rate is not None:
        slow.set_bandwidth("total", rate)
    for number in range(10):
        for member in simulator.members:
            member.send_to_all(bytes([number, member.number]) * 200)
        settle(simulator, 0.01)
    settle(simulator, 20.0)
    got = Counter(message.payload for member in simulator.members for message in member.received)
    return simulator.trace_sha256(), got


@settings(max_examples=3)
@given(seed=st.integers(0, 1 << 32), rate=st.integers(8_000, 100_000))
def test_a_limited_simulation_is_reproducible_and_loses_nothing(seed: int, rate: int) -> None:
    """The same seed and limits give the same trace; unlimited members leave the one that there is
    without limits; and whoever has time gets every message once.
    """
    limited = traffic(seed, rate)
    assert traffic(seed, rate) == limited
    free = traffic(seed, None)
    assert free[1] == limited[1]
    assert all(count == 5 for count in free[1].values())
    assert traffic(seed, 1 << 40)[0] == free[0]


def test_what_cannot_be_is_refused() -> None:
    _, first, _ = pair()
    with pytest.raises(LocalProtocolError, match="at least 1"):
        first.set_bandwidth("out", 0)
    with pytest.raises(LocalProtocolError, match="direction 'up'"):
        first.set_bandwidth("up", 1_000)  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError, match="no address of delaunay"):
        first.set_bandwidth("out", 1_000, LogicalAddress((1,)))
    assert first.bandwidth == ()


@pytest.mark.parametrize(
    ("links", "said"),
    [
        (["1,2 out"], "ADDRESS DIRECTION RATE"),
        (["1,2 total 1000"], "in or out"),
        (["1,2 out 0"], "from 1 to 10"),
        (["1,2 out 1e6"], "whole number"),
        (["1 out 1000"], "'1 out 1000'"),
        (["1,2 out 1000", "1,2 out 2000"], "one limit for a link and direction"),
    ],
)
def test_a_link_that_cannot_be_limited_is_a_refused_configuration(
    links: list[str], said: str
) -> None:
    with pytest.raises(ConfigurationError, match=r"emulation\.links") as caught:
        OverlayConfig(overlay_id="lab", emulation={"links": links})
    assert said in str(caught.value)
