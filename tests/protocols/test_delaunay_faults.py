"""One Delaunay node and what goes wrong: lost messages, silence, sleep, claims to one address."""

from __future__ import annotations

from math import inf
from random import Random

from delaunay_oracle import delaunay
from delaunay_world import World
from lone_delaunay import (
    contact,
    founder,
    grid,
    hear,
    hello,
    meet,
    place,
    ring,
    sends,
    sent,
    settled,
    wake_until,
)

from opus_delaunay.messages import Goodbye, Hello, NewNode, NewNodeAck, Taken
from opus_delaunay.states import State
from opus_socket.core.effects import FindContacts
from opus_socket.core.node import Mode
from opus_socket.errors import AddressInUseError


def test_a_new_node_that_passes_is_asked_and_acknowledged() -> None:
    node = founder(10, 10)
    via, newcomer = contact(50, 50), contact(0, 0)
    done = hear(node, NewNode(newcomer, 3, 77), via)
    assert sends(done) == [("Hello", newcomer), ("NewNodeAck", via.at(None))]
    assert [ack.nonce for ack in sent(done, NewNodeAck)] == [77]


def test_a_new_node_without_a_nonce_is_not_acknowledged() -> None:
    node = founder(10, 10)
    newcomer = contact(0, 0)
    assert sends(hear(node, NewNode(newcomer, 3, 0), contact(50, 50))) == [("Hello", newcomer)]


def test_a_repeated_new_node_is_acknowledged_again_and_that_is_all() -> None:
    node = founder(10, 10)
    via, newcomer = contact(50, 50), contact(0, 0)
    hear(node, NewNode(newcomer, 3, 77), via)
    assert sends(hear(node, NewNode(newcomer, 3, 77), via, 0.5)) == [("NewNodeAck", via.at(None))]


def test_a_repeated_new_node_is_not_passed_on_again() -> None:
    node = founder(0, 0)
    meet(node, contact(5, 5))
    via, newcomer = contact(50, 50), contact(9, 9)
    assert len(sends(hear(node, NewNode(newcomer, 3, 5), via))) == 2
    assert sends(hear(node, NewNode(newcomer, 3, 5), via, 0.4)) == [("NewNodeAck", via.at(None))]


def test_a_new_node_goes_on_to_the_nearest_that_is_nearer() -> None:
    node = founder(0, 0)
    near, between = contact(6, 1), contact(5, 5)
    meet(node, near, between)
    newcomer = contact(9, 9)
    done = hear(node, NewNode(newcomer, 3, 5), contact(50, 50))
    assert sends(done) == [("NewNode", between), ("NewNodeAck", contact(50, 50).at(None))]
    (message,) = sent(done, NewNode)
    assert (message.joiner, message.hops) == (newcomer, 4)
    assert message.nonce


def test_a_new_node_is_repeated_until_it_is_acknowledged() -> None:
    """After 0.5, 1 and 2 seconds; then to whoever is nearest by then."""
    node = founder(0, 0)
    between = contact(5, 5)
    meet(node, between)
    (first,) = sent(hear(node, NewNode(contact(9, 9), 3, 5), contact(50, 50)), NewNode)
    repeats = []
    for tick in range(1, 16):
        now = tick * 0.25
        meet(node, between, now=now)
        repeats += [(now, m) for _, done in wake_until(node, now) for m in sent(done, NewNode)]
    assert [(now, message is first) for now, message in repeats] == [
        (0.5, True),
        (1.5, True),
        (3.5, True),
    ]
    hear(node, NewNodeAck(first.nonce), between, 3.75)
    assert not [m for _, done in wake_until(node, 20.0) for m in sent(done, NewNode)]


def test_a_new_node_that_is_not_acknowledged_goes_another_way() -> None:
    node = founder(0, 0)
    nearest, second = contact(8, 7), contact(5, 5)
    meet(node, nearest, second)
    first = sends(hear(node, NewNode(contact(11, 11), 3, 8), contact(50, 50)))[0]
    assert first == ("NewNode", nearest)
    asked = []
    for tick in range(1, 20):
        meet(node, second, now=tick * 0.25)
        asked += [send for _, done in wake_until(node, tick * 0.25) for send in sends(done)]
    tries = [to for name, to in asked if name == "NewNode"]
    assert tries[:4] == [nearest, nearest, nearest, second]


def test_who_is_dropped_is_handed_to_somebody_nearer() -> None:
    """(9, 9) leaves the ring because (5, 5) stands between, and nobody nearer names it."""
    node = founder(0, 0)
    far, between = contact(9, 9), contact(5, 5)
    meet(node, far)
    done = hear(node, hello(between, node), between)
    (message,) = sent(done, NewNode)
    assert message.joiner == far
    assert sends(done) == [("NewNode", between)]
    assert ring(node) == [(5, 5)]


def test_who_is_dropped_is_not_handed_on_if_somebody_nearer_names_it() -> None:
    node = founder(0, 0)
    far, between = contact(9, 9), contact(5, 5)
    meet(node, far)
    done = hear(node, hello(between, node, clockwise=far), between)
    assert sent(done, NewNode) == []
    assert ring(node) == [(5, 5)]


def test_who_is_dropped_is_handed_on_if_only_suspects_or_the_farther_name_it() -> None:
    node = founder(20, 20)
    far, farther, between = contact(29, 29), contact(10, 30), contact(25, 25)
    meet(node, far)
    hear(node, hello(farther, node, clockwise=far), farther)
    (message,) = sent(hear(node, hello(between, node), between), NewNode)
    assert message.joiner == far

    node = founder(20, 20)
    suspect = contact(29, 24)
    meet(node, far)
    hear(node, hello(suspect, node, counterclockwise=far), suspect)
    meet(node, far, now=2.0)
    wake_until(node, 2.3)
    assert node.statistics().suspects == 1
    (message,) = sent(hear(node, hello(between, node), between, 2.3), NewNode)
    assert message.joiner == far


def test_a_new_node_goes_to_a_suspect_only_if_there_is_nobody_else() -> None:
    node = founder(0, 0)
    nearest, second = contact(8, 7), contact(5, 5)
    meet(node, nearest, second)
    meet(node, second, now=2.0)
    wake_until(node, 2.3)
    done = hear(node, NewNode(contact(11, 11), 3, 0), contact(50, 50), 2.3)
    assert sends(done) == [("NewNode", second)]


def test_a_candidate_that_was_entrusted_is_handed_on_when_it_fails_the_test() -> None:
    node = founder(0, 0)
    entrusted, between = contact(9, 9), contact(5, 5)
    hear(node, NewNode(entrusted, 3, 5), contact(50, 50))
    meet(node, between, now=0.5)
    handed = [m for _, done in wake_until(node, 1.2) for m in sent(done, NewNode)]
    assert [message.joiner for message in handed] == [entrusted]


def test_a_silent_neighbor_is_probed_avoided_and_given_up() -> None:
    world = settled(grid(4))
    victim, near = world.members[5], next(m for m in world.members if m.at == (10, 2))
    assert victim.at in near.ring
    world.crash([victim])
    took = world.run_until(lambda: near.node.statistics().suspects > 0, 5.0, step=0.05)
    assert 1.2 <= took <= 2.3
    root = victim.node.address
    assert near.node.parent(root) not in (None, victim.at)
    assert set(near.node.next_hops(Mode.MULTICAST, root, None)) == set(near.ring)
    took = world.run_until(lambda: victim.at not in near.ring, 5.0, step=0.05)
    assert took <= 1.4


def test_a_probe_is_answered_though_the_prober_is_heard() -> None:
    """A suspect that answers one probe is no suspect any more, and its table never changed."""
    node = founder(0, 0)
    other = contact(5, 5)
    meet(node, other)
    probes = [m for _, done in wake_until(node, 2.6) for m in sent(done, Hello) if not m.heard]
    assert len(probes) == 2
    assert node.statistics().suspects == 1
    version = node.version
    meet(node, other, now=2.7)
    assert node.statistics().suspects == 0
    assert node.version > version
    wake_until(node, 4.0)
    assert ring(node) == [(5, 5)]


def test_a_link_that_failed_is_looked_at_at_once() -> None:
    node = founder(0, 0)
    other = contact(5, 5)
    meet(node, other)
    node.link_failed(place(5, 5), 0.5)
    assert node.next_deadline == 0.5
    assert ("Hello", other) in sends(node.wake(0.5))
    wake_until(node, 1.8)
    assert ring(node) == []
    node.link_failed(place(5, 5), 2.0)


def test_a_link_that_works_one_way_is_down_at_both_ends() -> None:
    world = settled([(0, 0), (10, 0)])
    a, b = world.members
    world.cut.add((b.number, a.number))
    world.rendezvous_up = False
    assert world.run_until(lambda: not a.ring and not b.ring, 12.0) < inf
    for _ in range(40):
        world.run(0.25)
        assert not a.ring
        assert not b.ring
    world.cut.clear()
    world.rendezvous_up = True
    assert world.run_until(lambda: bool(a.ring and b.ring), 20.0) < inf


def test_a_neighbor_that_does_not_hear_is_given_up_though_it_talks() -> None:
    """For as long as it talks without hearing, it does not come back; its Hellos are answered."""
    node = founder(0, 0)
    other = contact(5, 5)
    meet(node, other)
    deaf = hello(other, node, heard=False)
    for tick in range(1, 60):
        now = tick * 0.25
        wake_until(node, now)
        answers = sent(hear(node, deaf, other, now), Hello)
        assert answers[-1].heard
        assert ring(node) == ([(5, 5)] if now < 3.5 else [])


def test_a_hello_to_a_former_incarnation_does_not_hear() -> None:
    """Its sender takes this node for its former self; it is told at once."""
    node = founder(0, 0)
    other = contact(5, 5)
    to_former = Hello(other, node.address, node.contact.incarnation - 1, None, None, True)
    (answer,) = sent(hear(node, to_former, other), Hello)
    assert answer.source.incarnation == node.contact.incarnation


def test_a_member_that_fell_silent_comes_back_when_it_hears_again() -> None:
    node = founder(0, 0)
    other = contact(5, 5)
    meet(node, other)
    wake_until(node, 3.6)
    assert ring(node) == []
    deaf = hello(other, node, heard=False)
    (answer,) = sent(hear(node, deaf, other, 3.7), Hello)
    assert answer.heard
    assert ring(node) == []
    meet(node, other, now=3.8)
    assert ring(node) == [(5, 5)]


def test_hearsay_does_not_bring_back_the_dead() -> None:
    node = founder(0, 0)
    other, gone = contact(5, 5), contact(-5 % 64, 0)
    meet(node, other, gone)
    hear(node, Goodbye(gone), gone)
    naming = hello(other, node, clockwise=gone)
    assert ("Hello", gone) not in sends(hear(node, naming, other, 0.1))
    assert hear(node, hello(gone, node), gone, 0.2) == ()
    assert ring(node) == [(5, 5)]
    assert node.stable


def test_a_sleeper_tears_nothing_apart() -> None:
    """A process that stood still for 10 seconds keeps its table; the others' edges are untouched
    but for its own, and it is back within three heartbeats.
    """
    points = grid(4)
    world = settled(points)
    sleeper = world.members[5]
    before = world.tables()
    others = [point for point in points if point != sleeper.at]
    expected = delaunay(others)
    world.pause(sleeper, 10.0)
    for _ in range(38):
        world.run(0.25)
        for point, ring_now in world.tables().items():
            if point != sleeper.at:
                kept = before[point] & expected[(point[0], point[1])]
                assert kept <= ring_now
    assert sleeper.ring == before[sleeper.at]
    world.run(0.55)
    assert sleeper.ring == before[sleeper.at]
    assert world.run_until(lambda: world.tables() == before, 3.0) < inf


def test_who_is_woken_late_forgives_the_time() -> None:
    node = founder(0, 0)
    other = contact(5, 5)
    meet(node, other)
    hello_again = node.wake(60.0)
    assert sends(hello_again) == [("Hello", other)]
    assert all(message.heard for message in sent(hello_again, Hello))
    assert ring(node) == [(5, 5)]


def test_goodbye_closes_the_gap_at_once() -> None:
    world = settled(grid(4), delay=(0.01, 0.01))
    leaver = world.members[5]
    world.leave([leaver])
    expected = delaunay([(m.at[0], m.at[1]) for m in world.alive])
    assert world.run_until(lambda: world.tables() == expected, 1.0, step=0.01) <= 0.5


def test_the_edges_of_a_gap_are_told_of_each_other() -> None:
    node = founder(10, 10)
    gone, left, right = contact(10, 14), contact(6, 16), contact(14, 16)
    meet(node, gone, left, right)
    wake_until(node, 1.1)
    done = hear(node, Goodbye(gone), gone, 1.2)
    told = {m.to: (m.clockwise, m.counterclockwise) for m in sent(done, Hello)}
    assert told == {left.address: (right, None), right.address: (None, left)}


def test_who_leaves_answers_stray_hellos_for_a_heartbeat() -> None:
    node = founder(0, 0)
    other, stranger = contact(5, 5), contact(7, 1)
    meet(node, other)
    assert sends(node.leave(1.0)) == [("Goodbye", other)]
    assert (node.state, node.stable, node.neighbors) == (State.LEAVING, False, ())
    assert node.leave(1.1) == ()
    assert sends(hear(node, hello(stranger, node), stranger, 1.5)) == [("Goodbye", stranger)]
    assert hear(node, NewNode(stranger, 0, 0), stranger, 1.6) == ()
    assert node.contacts([stranger], 1.7) == ()
    assert node.wake(2.0) == ()
    assert (node.state, node.next_deadline) == (State.STOPPED, inf)
    assert hear(node, hello(stranger, node), stranger, 2.1) == ()


def test_a_node_that_starts_again_has_a_higher_incarnation() -> None:
    node = founder(0, 0)
    incarnation = node.contact.incarnation
    node.leave(1.0)
    (search,) = node.start(1.5)
    assert isinstance(search, FindContacts)
    assert node.contact.incarnation > incarnation
    assert node.address == (0, 0)
    assert node.start(1.6) == ()


def test_a_restarted_neighbor_replaces_its_former_self() -> None:
    node = founder(0, 0)
    old, new = contact(5, 5, incarnation=5), contact(5, 5, incarnation=6)
    meet(node, old)
    assert sends(hear(node, hello(new, node, heard=False), new)) == [("Hello", new)]
    assert node.neighbors == (new,)
    assert hear(node, hello(old, node, heard=False), old) == ()
    assert node.neighbors == (new,)


def test_a_new_node_of_a_higher_incarnation_replaces_the_former_self() -> None:
    node = founder(0, 0)
    old, new = contact(5, 5, incarnation=5), contact(5, 5, incarnation=6)
    meet(node, old)
    assert sends(hear(node, NewNode(new, 2, 0), contact(9, 9))) == [("Hello", new)]
    assert ring(node) == []
    assert hear(node, NewNode(old, 2, 0), contact(9, 9)) == () or ring(node) == []
    meet(node, new)
    assert node.neighbors == (new,)


def test_the_holder_of_an_address_says_that_it_is_taken() -> None:
    node = founder(0, 0)
    other = contact(0, 0, host=7)
    assert sends(hear(node, NewNode(other, 2, 0), contact(9, 9))) == [("Taken", other)]


def test_a_neighbor_of_the_holder_sends_the_newcomer_on_to_it() -> None:
    node = founder(0, 0)
    holder, newcomer = contact(5, 5), contact(5, 5, host=7)
    meet(node, holder)
    assert sends(hear(node, NewNode(newcomer, 2, 0), contact(9, 9))) == [("NewNode", holder)]
    assert sends(hear(node, hello(newcomer, node), newcomer)) == []
    assert node.neighbors == (holder,)


def test_a_silent_holder_gives_way() -> None:
    """The holder is asked four times; then the newcomer is asked to take its place."""
    node = founder(0, 0)
    holder, newcomer = contact(5, 5), contact(5, 5, host=7)
    meet(node, holder)
    hear(node, hello(newcomer, node), newcomer)
    asked = [to for _, done in wake_until(node, 4.6) for to in sends(done)]
    assert asked.count(("NewNode", holder)) == 3
    assert ("Hello", newcomer) in asked
    meet(node, newcomer, now=4.7)
    assert node.neighbors == (newcomer,)


def test_a_fixed_address_that_is_taken_ends_the_join() -> None:
    world = settled(grid(3))
    newcomer = world.add(world.members[4].at)
    world.run(3.0)
    (error,) = newcomer.errors
    assert isinstance(error, AddressInUseError)
    assert str(world.members[4].contact.endpoints[0]) in str(error)
    assert newcomer.node.state is State.STOPPED
    assert newcomer.node.next_deadline == inf
    assert all(len(m.node.neighbors) > 0 for m in world.members[:9])


class Repeating(Random):
    """A source of chance whose first coordinates are those of somebody else."""

    first: list[int]

    def randrange(self, start: int, stop: int | None = None, step: int = 1) -> int:
        if self.first:
            return self.first.pop(0)
        return super().randrange(start, stop, step)


def test_a_random_address_that_is_taken_is_drawn_again() -> None:
    world = settled(grid(3))
    taken = world.members[4].at
    chance = Repeating(1)
    chance.first = list(taken)
    newcomer = world.add(rng=chance)
    assert newcomer.at == taken
    version = newcomer.node.version
    world.run(3.0)
    assert newcomer.at != taken
    assert newcomer.node.version > version
    assert newcomer.node.stable
    expected = delaunay([(m.at[0], m.at[1]) for m in world.members])
    assert world.tables() == expected


def test_of_two_members_with_one_address_the_older_keeps_it() -> None:
    """Two parts of an overlay, each with its member at one place, meet: the one that was started
    later gives way, whoever hears of the other first.
    """
    points = grid(3)
    world = World(seed=3)
    for point in points[:6]:
        world.add(point)
    world.run(8.0)
    world.part(world.members)
    for point in points[6:]:
        world.add(point)
    chance = Repeating(2)
    chance.first = list(points[2])
    twin = world.add(rng=chance)
    world.run(20.0)
    older = world.members[2]
    assert older.at == twin.at
    assert older.node.stable
    assert twin.node.stable
    world.heal()
    assert world.run_until(lambda: twin.at != older.at, 30.0) < inf
    assert older.at == points[2]
    expected = delaunay([(m.at[0], m.at[1]) for m in world.members])
    assert world.run_until(lambda: world.tables() == expected, 10.0) < inf


def test_a_claim_to_another_address_is_ignored() -> None:
    node = founder(0, 0)
    assert hear(node, Taken(contact(1, 1)), contact(1, 1)) == ()
    assert hear(node, Taken(node.contact), contact(1, 1)) == ()
    assert node.address == (0, 0)
