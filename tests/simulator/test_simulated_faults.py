"""The simulator's faults: who leaves, crashes, pauses, is cut off, and comes back."""

from __future__ import annotations

from itertools import pairwise

import pytest
from simulations import overlay, payloads, settle

from opus_socket.core.events import NeighborRemoved
from opus_socket.errors import (
    LocalProtocolError,
    NotJoinedError,
)
from opus_socket.simulator import (
    OneWayCut,
)


def test_who_leaves_is_gone_soon() -> None:
    simulator = overlay(10)
    leaver = simulator.members[4]
    address = leaver.address
    leaver.leave()
    assert not leaver.alive
    seconds = simulator.run_until_legitimate()
    assert seconds is not None
    assert seconds < 3.5  # told, not found out by silence
    assert all(address not in m.neighbors for m in simulator.members if m is not leaver)
    with pytest.raises(NotJoinedError):
        _ = leaver.address
    assert leaver.place == address


# Faults


def test_survivors_of_a_crash_repair_the_overlay() -> None:
    simulator = overlay(40)
    for member in simulator.members[::5]:
        simulator.crash(member)
    seconds = simulator.run_until_legitimate()
    assert seconds is not None
    assert seconds <= 3.5 + 3.0
    live = [member for member in simulator.members if member.alive]
    assert len(live) == 32
    live[0].send_to_all(b"after")
    settle(simulator)
    assert all(payloads(member) == [b"after"] for member in live[1:])


def test_who_restarts_has_a_higher_incarnation() -> None:
    simulator = overlay(12)
    member = simulator.members[5]
    incarnations = [member.contact.incarnation]
    for _ in range(3):
        simulator.crash(member)
        simulator.restart(member)  # at once: within the same millisecond
        incarnations.append(member.contact.incarnation)
    assert all(low < high for low, high in pairwise(incarnations))
    now_ms = int(simulator.now * 1000)
    assert all(0 <= inc >> 20 <= now_ms + 1 for inc in incarnations)
    assert simulator.run_until_legitimate() is not None


@pytest.mark.parametrize("seconds", [2.0, 10.0])
def test_a_paused_member_comes_back_without_losing_its_neighbors(seconds: float) -> None:
    """After 10 seconds its neighbors have given it up, but it has not given them up: what came
    meanwhile is delivered before it is woken, so that its own lateness is not their failure.
    """
    simulator = overlay(20)
    member = simulator.members[6]
    before = member.neighbors
    member.events.clear()
    began = simulator.now
    simulator.pause(member, seconds)
    with pytest.raises(LocalProtocolError):
        member.send_to_all(b"I stand still")
    simulator.run(began + seconds - 0.001)
    assert member.paused
    assert member.neighbors == before
    simulator.run(began + seconds)
    assert not member.paused
    assert simulator.run_until_legitimate() is not None
    assert member.neighbors == before
    assert not any(isinstance(event, NeighborRemoved) for event in member.events)


def test_packets_wait_for_a_paused_member_within_bounds() -> None:
    simulator = overlay(2)
    sender, receiver = simulator.members
    simulator.pause(receiver, 1.0)
    for _ in range(30):
        sender.send_to_all(bytes(10_000))
    simulator.run(simulator.now + 0.9)
    assert receiver.received == []
    settle(simulator)
    assert len(receiver.received) == 212_992 // 10_048


def test_pauses_add_up_to_the_longest() -> None:
    simulator = overlay(3)
    member, began = simulator.members[0], simulator.now
    simulator.pause(member, 2.0)
    simulator.pause(member, 1.0)
    simulator.run(began + 1.5)
    assert member.paused
    simulator.run(began + 2.0)
    assert not member.paused


@pytest.mark.parametrize("seconds", [2.0, 60.0])
def test_a_partition_that_heals_merges(seconds: float) -> None:
    simulator = overlay(24)
    halves = simulator.members[:12], simulator.members[12:]
    simulator.partition(halves)
    settle(simulator, seconds)
    halves[0][0].send_to_all(b"on this side")
    settle(simulator)
    assert not any(member.received for member in halves[1])
    simulator.heal()
    assert simulator.run_until_legitimate() is not None
    halves[1][0].send_to_all(b"everybody")
    settle(simulator)
    assert all(
        m.received[-1].payload == b"everybody" for m in simulator.members if m is not halves[1][0]
    )


def test_a_new_partition_replaces_the_old_one() -> None:
    simulator = overlay(6)
    simulator.partition([simulator.members[:3]])
    simulator.partition([simulator.members[:1]])
    simulator.heal()
    with pytest.raises(LocalProtocolError):
        simulator.heal()
    assert simulator.run_until_legitimate() is not None


def test_who_is_heard_but_does_not_hear_is_no_neighbor_for_long() -> None:
    simulator = overlay(2)
    one, other = simulator.members
    cut = simulator.add_rule(OneWayCut(one.number, other.number))
    settle(simulator, 12)
    assert one.neighbors == other.neighbors == ()
    simulator.remove_rule(cut)
    assert simulator.run_until_legitimate() is not None


# What is refused
