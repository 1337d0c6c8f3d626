"""Delaunay nodes at work: the trees they span for messages, and the leaders that find sheets."""

from __future__ import annotations

from math import inf
from random import Random

import pytest
from delaunay_oracle import compass_tree, delaunay, distance
from delaunay_world import Member, World
from lone_delaunay import (
    contact,
    founder,
    grid,
    hear,
    hello,
    joiner,
    meet,
    place,
    ring,
    sends,
    settled,
    wake_until,
)

from opus_delaunay.messages import Announce, Goodbye, NewNode
from opus_delaunay.states import TRANSITIONS, Change, State
from opus_socket.core import effects
from opus_socket.core.addresses import ANY_INDEX, Contact, Endpoint, LogicalAddress
from opus_socket.core.effects import FindContacts, Role
from opus_socket.core.node import Mode


def by_place(world: World) -> dict[LogicalAddress, Member]:
    return {member.node.address: member for member in world.alive}


def spread(world: World, root: LogicalAddress, mode: Mode) -> list[tuple[object, object]]:
    """Hand a message on from member to member; returns each (from, to)."""
    members = by_place(world)
    hops: list[tuple[object, object]] = []
    seen = {root}
    waiting: list[tuple[LogicalAddress, LogicalAddress | None]] = [(root, None)]
    while waiting:
        at, arrived_from = waiting.pop()
        for hop in members[at].node.next_hops(mode, root, arrived_from):
            hops.append((at, hop))
            if hop not in seen:
                seen.add(hop)
                waiting.append((hop, at))
    assert seen == members.keys()
    return hops


@pytest.fixture(scope="module")
def world() -> World:
    return settled([(70, 5), (5, 70), *grid(5)])


def test_parents_and_children_are_those_of_the_compass_tree(world: World) -> None:
    neighbors = delaunay([(m.at[0], m.at[1]) for m in world.members])
    for root in world.members:
        tree = compass_tree(neighbors, (root.at[0], root.at[1]))
        for member in world.members:
            at = (member.at[0], member.at[1])
            assert member.node.parent(root.node.address) == tree[at]
            children = sorted(child for child, parent in tree.items() if parent == at)
            assert list(member.node.children(root.node.address)) == children


def test_a_multicast_reaches_everybody_once(world: World) -> None:
    for root in world.members:
        hops = spread(world, root.node.address, Mode.MULTICAST)
        assert len(hops) == len(world.members) - 1


def test_a_flood_reaches_everybody_over_every_edge(world: World) -> None:
    edges = sum(len(member.ring) for member in world.members) // 2
    hops = spread(world, world.members[3].node.address, Mode.FLOOD)
    assert len(hops) <= 2 * edges - (len(world.members) - 1)


def test_a_unicast_ends_at_its_destination(world: World) -> None:
    members = by_place(world)
    for start in world.members:
        for end in world.members:
            at, hops = start.node.address, 0
            while at != end.node.address:
                (at,) = members[at].node.next_hops(Mode.UNICAST, end.node.address, None)
                hops += 1
                assert hops < len(members)
            assert members[at].node.next_hops(Mode.UNICAST, at, None) == ()


def test_an_anycast_ends_at_the_nearest_member(world: World) -> None:
    members = by_place(world)
    rng = Random(1)
    for _ in range(100):
        key = LogicalAddress((rng.randrange(60), rng.randrange(60)))
        at = rng.choice(world.members).node.address
        while hops := members[at].node.next_hops(Mode.ANYCAST, key, None):
            assert not members[at].node.accepts(key)
            (at,) = hops
        assert members[at].node.accepts(key)
        to_key = [distance((a[0], a[1]), (key[0], key[1])) for a in members]
        assert distance((at[0], at[1]), (key[0], key[1])) == min(to_key)


def test_the_tree_of_the_talk() -> None:
    """With (8, 4) as root: (4,9) (10,8) (5,2) (12,0) -> (8,4), (0,6) -> (5,2)."""
    talk = settled([(4, 9), (10, 8), (0, 6), (5, 2), (12, 0), (8, 4)])
    parents = {member.at: member.node.parent(place(8, 4)) for member in talk.members}
    assert parents == {
        (4, 9): (8, 4),
        (10, 8): (8, 4),
        (5, 2): (8, 4),
        (12, 0): (8, 4),
        (0, 6): (5, 2),
        (8, 4): None,
    }


def test_a_node_that_is_not_stable_sends_multicasts_to_all() -> None:
    node = founder(10, 10)
    one, other, named = contact(0, 0), contact(20, 20), contact(15, 30)
    meet(node, one, other)
    assert node.stable
    assert node.next_hops(Mode.MULTICAST, place(0, 0), place(0, 0)) == ((20, 20),)
    hear(node, hello(other, node, clockwise=named), other)
    assert not node.stable
    assert node.next_hops(Mode.MULTICAST, place(20, 20), place(20, 20)) == ((0, 0),)
    assert node.next_hops(Mode.MULTICAST, place(10, 10), None) == ((0, 0), (20, 20))


def test_the_state_follows_from_the_ring() -> None:
    node = founder(10, 10)
    smaller, larger = contact(11, 9), contact(0, 11)
    states = [node.state]
    for message in (
        hello(smaller, node),
        hello(larger, node),
        Goodbye(larger),
        Goodbye(smaller),
    ):
        hear(node, message, message.source)
        states.append(node.state)
    assert states == [
        State.LEADER_ALONE,
        State.LEADER_WITH_NEIGHBOR,
        State.NOT_LEADER,
        State.LEADER_WITH_NEIGHBOR,
        State.LEADER_ALONE,
    ]
    assert not node.stable
    node.contacts([], 1.0)
    assert node.stable


def test_every_state_of_a_member_answers_every_change_of_its_ring() -> None:
    for state in (State.LEADER_ALONE, State.LEADER_WITH_NEIGHBOR, State.NOT_LEADER):
        assert TRANSITIONS[state][Change.ALONE] is State.LEADER_ALONE
        assert TRANSITIONS[state][Change.LEADS] is State.LEADER_WITH_NEIGHBOR
        assert TRANSITIONS[state][Change.FOLLOWS] is State.NOT_LEADER
        assert TRANSITIONS[state][Change.LEAVE] is State.LEAVING
    reachable = {state for changes in TRANSITIONS.values() for state in changes.values()}
    assert reachable == set(State)


def test_only_a_leader_looks_around() -> None:
    """A leader does so every rendezvous period, and lets itself be known."""
    leader, follower = founder(10, 10), founder(10, 10)
    meet(leader, contact(5, 5))
    meet(follower, contact(15, 15))
    looks = []
    for tick in range(400):
        now = tick / 20
        meet(leader, contact(5, 5), now=now)
        meet(follower, contact(15, 15), now=now)
        for at, done in wake_until(leader, now):
            if any(isinstance(e, FindContacts) and e.role is Role.LEADER for e in done):
                looks.append(at)
                assert any(isinstance(e, effects.Announce) for e in done)
        for _, done in wake_until(follower, now):
            assert not any(isinstance(e, FindContacts | effects.Announce) for e in done)
    assert 20 / 2.2 - 1 <= len(looks) <= 20 / 1.8 + 1


def test_a_leader_introduces_itself_to_somebody_larger_or_anybody() -> None:
    node = founder(10, 10)
    known, small, large = contact(5, 5), contact(1, 2), contact(3, 30)
    meet(node, known)
    assert sends(node.contacts([known], 1.0)) == []
    many = [contact(30 + number, 3) for number in range(30)]
    assert sends(node.contacts([known, *many, large], 1.0)) == [("NewNode", large)]
    assert sends(node.contacts([known, small], 1.0)) == [("NewNode", small)]
    meet(node, contact(0, 60))
    assert sends(node.contacts([known, small, large], 1.0)) == []


def test_of_two_leaders_the_smaller_goes_to_the_larger() -> None:
    node = founder(10, 10)
    meet(node, contact(5, 5))
    large, small = contact(3, 30), contact(30, 3)
    assert sends(hear(node, Announce(large), large, 5.0)) == [("NewNode", large)]
    assert sends(hear(node, Announce(large), large, 5.1)) == []
    (answer,) = hear(node, Announce(small), small, 5.2)
    assert isinstance(answer, effects.Announce)
    assert hear(node, Announce(small), small, 5.3) == ()
    assert hear(node, Announce(contact(5, 5)), small, 9.0) == ()
    meet(node, contact(0, 60), now=9.0)
    assert hear(node, Announce(large), large, 10.0) == ()


def test_a_joiner_goes_to_whoever_announces_itself_and_does_not_answer_in_kind() -> None:
    node = joiner(10, 10)
    small = contact(5, 3)
    assert sends(hear(node, Announce(small), small, 0.2)) == [("NewNode", small)]


def test_who_lost_the_larger_neighbors_looks_around_at_once() -> None:
    node = founder(10, 10)
    larger, smaller = contact(20, 20), contact(0, 0)
    meet(node, larger, smaller)
    hear(node, Goodbye(larger), larger, 3.0)
    assert node.next_deadline <= 3.0
    assert any(isinstance(e, FindContacts) for e in node.wake(3.0))


def test_a_buddy_of_unknown_address_can_be_asked() -> None:
    node = joiner(10, 10)
    buddy = Contact(None, 0, ANY_INDEX, (Endpoint("10.0.0.9", 9),))
    assert sends(node.contacts([buddy], 0.1)) == [("NewNode", buddy)]


def test_its_own_new_node_that_comes_back_means_nothing() -> None:
    node = founder(10, 10)
    meet(node, contact(0, 0))
    assert hear(node, NewNode(node.contact, 4, 0), contact(0, 0)) == ()


def test_sheets_without_a_common_member_merge_through_their_leaders() -> None:
    """Two overlays that were never one, woven into each other, become one overlay."""
    points = grid(5)
    world = World(seed=4)
    for point in points[::2]:
        world.add(point)
    world.run(10.0)
    world.part(world.members)
    for point in points[1::2]:
        world.add(point)
    world.run(10.0)
    assert all(member.node.stable for member in world.members)
    leaders = [m for m in world.members if m.node.state is not State.NOT_LEADER]
    assert len(leaders) == 2
    world.heal()
    expected = delaunay(points)
    assert world.run_until(lambda: world.tables() == expected, 15.0) < inf
    assert ring(world.members[0].node) == sorted(expected[points[0]])
