"""Measurements of simulated members, against what the network is modelled to do."""

from __future__ import annotations

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from simulations import overlay, settle

from opus_socket.core.addresses import Contact
from opus_socket.core.effects import Quantity
from opus_socket.simulator import LinkQuality, SimulatedSocket, Simulator
from opus_socket.simulator.rules import Delay, Verdict


@define
class Bottleneck:
    """Every way carries `rate` bytes a second: what comes sooner waits its turn."""

    rate: float
    free: dict[tuple[int, int], float] = field(factory=dict)

    def judge(self, now: float, sender: int, receiver: int, size: int) -> Verdict:
        end = max(now, self.free.get((sender, receiver), 0.0)) + size / self.rate
        self.free[sender, receiver] = end
        return Delay(end - now)


def measured(
    simulator: Simulator, member: SimulatedSocket, quantity: Quantity, *targets: SimulatedSocket
) -> list[float | None]:
    """What is measured to the addresses of these members."""
    addresses = [target.address for target in targets]
    member.answers.clear()
    for address in addresses:
        member.measure(address, quantity)
    settle(simulator, 7.0)
    by_target = {answer.target: answer.measurement.value for answer in member.answers}
    assert len(member.answers) == len(targets)
    return [by_target[address] for address in addresses]


def test_round_trip_times_are_those_of_the_model() -> None:
    """To every member, neighbor or not, there and back takes twice the one-way delay."""
    simulator = overlay(20, seed=3)
    first, *others = simulator.members
    assert any(other.address not in first.neighbors for other in others)
    expected = [2 * simulator.delay_ms(first, other) / 1000 for other in others]
    assert measured(simulator, first, Quantity.RTT, *others) == pytest.approx(expected, abs=1e-6)


def test_jitter_shows_within_its_bounds() -> None:
    simulator = overlay(8, seed=4)
    simulator.quality = LinkQuality(jitter=10.0)
    first, *others = simulator.members
    for other, value in zip(others, measured(simulator, first, Quantity.RTT, *others), strict=True):
        base = 2 * simulator.delay_ms(first, other) / 1000
        assert value is not None
        assert base <= value <= base + 0.020 + 1e-6


@settings(max_examples=10)
@given(rate=st.floats(1e5, 1e7))
def test_bandwidth_is_that_of_the_bottleneck(rate: float) -> None:
    """Within 5 %, whatever the delay; there is no other traffic but Hellos."""
    simulator = overlay(3, seed=5)
    simulator.add_rule(Bottleneck(rate))
    first, second, _ = simulator.members
    [value] = measured(simulator, first, Quantity.BANDWIDTH, second)
    assert value == pytest.approx(rate, rel=0.05)


def test_where_no_bandwidth_is_modelled_a_way_is_faster_than_clocks_can_tell() -> None:
    simulator = overlay(2)
    first, second = simulator.members
    assert measured(simulator, first, Quantity.BANDWIDTH, second) == [float("inf")]


def test_who_is_gone_has_no_value() -> None:
    simulator = overlay(12, seed=7)
    first, *others = simulator.members
    far = next(other for other in others if other.address not in first.neighbors)
    near = next(other for other in others if other.address in first.neighbors)
    contact: Contact = near.contact
    addresses = [far.address, near.address]
    simulator.crash(far)
    simulator.crash(near)
    for address in addresses:
        first.measure(address)
    first.measure(contact)
    settle(simulator, 7.0)
    assert {a.target: a.measurement.value for a in first.answers} == {
        addresses[0]: None,
        addresses[1]: None,
        contact: None,
    }


def test_losses_are_outlived() -> None:
    """Of three tries one gets through where every fiftieth packet is lost."""
    simulator = overlay(6, seed=8)
    simulator.quality = LinkQuality(loss=0.02)
    first, *others = simulator.members
    for quantity in (Quantity.RTT, Quantity.BANDWIDTH):
        assert None not in measured(simulator, first, quantity, *others)
