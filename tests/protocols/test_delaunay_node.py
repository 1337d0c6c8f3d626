"""One Delaunay node: how it joins, whom it believes, and what it says."""

from __future__ import annotations

from itertools import pairwise
from math import inf
from random import Random

import pytest
from delaunay_oracle import delaunay
from delaunay_world import CODEC, World
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
    sent,
    settled,
    wake_until,
)

from opus_delaunay import DelaunayNode, DelaunaySettings
from opus_delaunay.messages import Goodbye, Hello, NewNode, Reject
from opus_delaunay.states import State, SubState
from opus_socket.core.addresses import Contact, Endpoint
from opus_socket.core.effects import FindContacts, Role
from opus_socket.core.node import NodeContext

FIGURE = [(4, 9), (10, 8), (0, 6), (5, 2), (12, 0)]
"""The overlay of the HyperCast talk; (8, 4) joins it there."""


def test_a_founder_is_stable_once_it_is_told_that_nobody_is_there() -> None:
    own = Contact(None, 1, 0, (Endpoint("10.0.0.1", 1),))
    node = DelaunayNode(NodeContext(own, Random(1)), DelaunaySettings(coordinates="3,4"))
    assert (node.state, node.next_deadline) == (State.STOPPED, inf)
    (search,) = node.start(0.0)
    assert isinstance(search, FindContacts)
    assert search.role is Role.NEW
    assert not node.stable
    assert node.contacts([], 0.1) == ()
    assert node.stable
    assert (node.state, node.sub_state) == (State.LEADER_ALONE, SubState.STABLE)
    assert node.address == (3, 4)


@pytest.mark.parametrize("leads", [True, False])
def test_who_has_lost_its_last_neighbor_looks_around_again_before_it_is_alone(leads: bool) -> None:
    """Also if it finds nobody at once: others that were cut off look for it, once in a period."""
    node, other = founder(10, 10), contact(10, 9 if leads else 11)
    meet(node, other)
    assert node.stable
    gone = now = 0.0
    alone = False
    while not alone:
        now = node.next_deadline
        looked = [effect for effect in node.wake(now) if isinstance(effect, FindContacts)]
        if not node.neighbors:
            gone = gone or now
        if looked:
            node.contacts([], now)
        alone = bool(looked and gone and now >= gone + 1.8)
        assert node.stable is (alone or bool(node.neighbors))
    assert gone + 1.8 <= now <= gone + 2.2 * 2
    # It has been told that nobody is there before, and is alone on purpose now.
    wake_until(node, now + 10.0)
    assert node.stable


def test_who_is_left_by_its_last_neighbor_is_alone_at_once() -> None:
    node, other = founder(0, 0), contact(10, 0)
    meet(node, other)
    hear(node, Goodbye(other), other, 1.0)
    assert node.neighbors == ()
    assert not node.stable
    node.contacts([], 1.0)
    assert node.stable


def test_who_asks_somebody_else_is_not_alone() -> None:
    """Its last neighbor said goodbye, and had named another one, who has not answered yet."""
    node, other, further = founder(0, 0), contact(10, 0), contact(0, 10)
    meet(node, other)
    hear(node, hello(other, node, further), other, 0.5)
    hear(node, Goodbye(other), other, 1.0)
    node.contacts([], 1.0)
    assert not node.stable
    hear(node, hello(further, node), further, 1.1)
    assert node.stable
    assert [each.address for each in node.neighbors] == [further.address]


def test_the_table_of_the_talk() -> None:
    """What (10, 8) tells its neighbors is the table of the HyperCast talk, before and after
    (8, 4) joins.
    """
    world = settled(FIGURE)
    assert told_by(world, (10, 8)) == {
        (4, 9): (None, (5, 2)),
        (5, 2): ((4, 9), (12, 0)),
        (12, 0): ((5, 2), None),
    }
    world.add((8, 4))
    world.run(3.0)
    assert told_by(world, (8, 4)).keys() == {(10, 8), (4, 9), (5, 2), (12, 0)}
    assert (5, 2) not in told_by(world, (10, 8))


def test_a_join_waits_for_no_heartbeat() -> None:
    """Where nothing is lost, the newcomer and all its neighbors are done within the delays of
    the messages, though a heartbeat takes five seconds.
    """
    points = grid(5)
    world = settled(points, heartbeat=5.0, delay=(0.01, 0.01))
    points.append((23, 27))
    newcomer = world.add(points[-1])
    expected = delaunay(points)
    took = world.run_until(lambda: world.tables() == expected, 5.0, step=0.01)
    assert took < 0.5
    assert newcomer.node.stable


@pytest.mark.parametrize("seed", range(8))
def test_who_joins_together_by_one_contact_waits_for_no_heartbeat(seed: int) -> None:
    """Each is told of those who came to its side while it was being asked."""
    rng = Random(seed)
    points = [(rng.randrange(1000), rng.randrange(1000)) for _ in range(5)]
    world = settled(points[:1], heartbeat=5.0, delay=(0.01, 0.01))
    for point in points[1:]:
        world.add(point)
    expected = delaunay(points)
    assert world.run_until(lambda: world.tables() == expected, 5.0, step=0.01) < 0.5


def test_a_join_takes_few_messages() -> None:
    """Fewer than 24 for each of 150 members; at 10,000 members about 40."""
    rng = Random(2)
    world = World(seed=2)
    for number in range(150):
        world.add((rng.randrange(2**32 - 1), rng.randrange(2**32 - 1)), at=number * 0.001)
    world.run_until(lambda: world.joined == 150, 60.0)
    assert sum(world.sent.values()) - world.sent["beats"] < 24 * 150


def test_a_joiner_asks_the_nearest_then_the_next() -> None:
    node = joiner(0, 0)
    near, far, unknown = contact(3, 3), contact(40, 40), contact(5, 5).at(None)
    first = node.contacts([unknown, far, near], 0.1)
    assert sends(first) == [("NewNode", near)]
    assert [message.nonce for message in sent(first, NewNode)] == [0]
    later = [
        target
        for _, done in wake_until(node, 20.0)
        for message, target in sends(done)
        if message == "NewNode"
    ]
    assert later[0] == far
    assert unknown in later


def test_a_joiner_searches_again_with_longer_and_longer_waits() -> None:
    node = joiner(0, 0)
    times = [t for t, done in wake_until(node, 100.0) for e in done if isinstance(e, FindContacts)]
    waits = [b - a for a, b in pairwise([0.0, *times])]
    for wait, expected in zip(waits, [2.0, 4.0, 8.0, 16.0, 16.0], strict=False):
        assert 0.9 * expected <= wait <= 1.1 * expected


def test_it_is_not_stable_while_candidates_of_its_join_are_silent() -> None:
    node = joiner(10, 10)
    known, named = contact(0, 0), contact(20, 0)
    hear(node, hello(known, node, counterclockwise=named), known)
    assert not node.stable
    wake_until(node, 3.0)
    assert not node.stable
    hear(node, hello(known, node), known, 3.0)
    hear(node, hello(named, node), named, 3.0)
    assert node.stable


def test_it_is_not_stable_while_a_newcomer_to_its_join_is_silent() -> None:
    node = joiner(10, 10)
    known, newcomer = contact(0, 0), contact(20, 0)
    hear(node, NewNode(newcomer, 1, 0), known)
    hear(node, hello(known, node), known)
    assert not node.stable
    hear(node, hello(newcomer, node), newcomer)
    assert node.stable
    later = contact(0, 20)
    hear(node, NewNode(later, 1, 0), known)
    assert node.sub_state is SubState.STABLE_WITH_CANDIDATE


def told_by(world: World, who: tuple[int, int]) -> dict[object, tuple[object, object]]:
    """Whom a member names in the Hellos of one heartbeat."""
    world.log = []
    world.run(1.2)
    told: dict[object, tuple[object, object]] = {}
    for s in world.log:
        if isinstance(s.message, Hello) and s.sender.at == who:
            columns = (s.message.clockwise, s.message.counterclockwise)
            told[s.message.to] = (
                None if columns[0] is None else columns[0].address,
                None if columns[1] is None else columns[1].address,
            )
    world.log = None
    return told


def test_who_never_answers_never_enters_a_ring() -> None:
    """A member that is only named is asked once a heartbeat, and then forgotten for a while."""
    node = founder(10, 10)
    known, ghost = contact(0, 0), contact(20, 0)
    asked: list[float] = []
    naming = hello(known, node, counterclockwise=ghost)
    for tick in range(400):
        now = tick / 20
        done = hear(node, naming, known, now)
        asked += [now for _, to in sends(done) if to == ghost]
        for at, more in wake_until(node, now):
            asked += [at for _, to in sends(more) if to == ghost]
        assert ring(node) == [(0, 0)]
    gaps = [b - a for a, b in pairwise(asked)]
    assert min(gaps) >= 1.0 - 1e-9
    assert max(gaps) >= 3.5


def test_a_name_that_was_barred_is_looked_at_again() -> None:
    """After its tombstone, a silent member that is still named makes the node unstable and is
    asked again; when it answers it enters.
    """
    node = founder(10, 10)
    known, named = contact(0, 0), contact(20, 0)
    naming = hello(known, node, counterclockwise=named)
    asked = 0
    for tick in range(60):
        now = tick / 4
        done = [e for _, more in wake_until(node, now) for e in more]
        done += hear(node, naming, known, now)
        asked += sum(to == named for _, to in sends(done))
    assert asked > 4
    hear(node, hello(named, node), named, 15.0)
    assert ring(node) == [(0, 0), (20, 0)]


def test_a_hello_that_does_not_hear_is_answered_at_once() -> None:
    node = founder(10, 10)
    other = contact(0, 0)
    (answer,) = sent(hear(node, hello(other, node, heard=False), other), Hello)
    assert answer.heard
    assert (answer.to, answer.incarnation) == (other.address, other.incarnation)


def test_a_hello_that_hears_and_brings_nothing_new_is_not_answered() -> None:
    node = founder(10, 10)
    other = contact(0, 0)
    assert sends(hear(node, hello(other, node), other)) == []
    assert ring(node) == [(0, 0)]


def test_a_hello_that_names_somebody_hidden_is_answered_with_what_is_between() -> None:
    """Its sender knows less than this node; it is told once, not each time."""
    node = founder(0, 10)
    other, between, hidden = contact(9, 10), contact(4, 16), contact(8, 22)
    meet(node, other)
    wake_until(node, 1.1)
    meet(node, between, other, now=1.2)
    outdated = hello(other, node, counterclockwise=hidden)
    (answer,) = sent(hear(node, outdated, other, 1.3), Hello)
    assert answer.counterclockwise == between
    again = hello(other, node, counterclockwise=hidden)
    assert sends(hear(node, again, other, 1.4)) == []


def test_who_was_rejected_may_be_asked_again_a_heartbeat_later() -> None:
    node = founder(10, 10)
    known, named = contact(0, 0), contact(20, 0)
    naming = hello(known, node, counterclockwise=named)
    assert sends(hear(node, naming, known)) == [("Hello", named)]
    reject = Reject(named, node.address, node.contact.incarnation, None, None)
    hear(node, reject, named, 0.1)
    assert node.sub_state is SubState.NOT_STABLE
    assert sends(hear(node, naming, known, 0.9)) == []
    wake_until(node, 1.05)
    assert sends(hear(node, naming, known, 1.1)) == [("Hello", named)]


def test_first_hellos_that_cross_answer_each_other() -> None:
    node = founder(10, 10)
    other = contact(0, 0)
    asked = hear(node, NewNode(other, 1, 0), contact(7, 7))
    assert sends(asked) == [("Hello", other)]
    assert sends(hear(node, hello(other, node, heard=False), other, 0.1)) == []
    assert ring(node) == [(0, 0)]


def test_the_same_hello_again_only_refreshes() -> None:
    node = founder(10, 10)
    other = contact(0, 0)
    message = hello(other, node)
    hear(node, message, other)
    version = node.version
    for now in range(1, 20):
        assert hear(node, message, other, now) == ()
        wake_until(node, float(now))
    assert node.version == version
    assert ring(node) == [(0, 0)]


def test_an_unchanged_hello_is_the_very_same_object() -> None:
    node = founder(10, 10)
    other = contact(0, 0)
    message = hello(other, node)
    objects = []
    for now in range(5):
        hear(node, message, other, now)
        for _, done in wake_until(node, float(now)):
            objects += sent(done, Hello)
    assert len(objects) > 2
    assert all(again is objects[0] for again in objects)


def test_who_fails_the_test_is_rejected_with_those_between() -> None:
    node = founder(0, 10)
    left, right = contact(4, 12), contact(4, 8)
    meet(node, left, right)
    stranger = contact(60, 10)
    (reject,) = sent(hear(node, hello(stranger, node), stranger), Reject)
    assert (reject.clockwise, reject.counterclockwise) == (right, left)
    assert ring(node) == [(4, 8), (4, 12)]


def test_a_reject_names_who_stands_on_the_same_ray() -> None:
    node = founder(0, 0)
    between = contact(1, 1)
    meet(node, between)
    behind = contact(5, 5)
    (reject,) = sent(hear(node, hello(behind, node), behind), Reject)
    assert between in (reject.clockwise, reject.counterclockwise)


def test_a_rejected_node_asks_those_between_and_is_not_stable() -> None:
    node = founder(0, 0)
    far, between = contact(5, 5), contact(1, 1)
    meet(node, far)
    assert node.stable
    reject = Reject(far, node.address, node.contact.incarnation, None, between)
    assert sends(hear(node, reject, far)) == [("Hello", between)]
    assert not node.stable
    meet(node, between)
    assert ring(node) == [(1, 1)]
    assert node.stable


def test_the_size_of_a_hello_does_not_grow_with_the_ring() -> None:
    node = founder(1000, 1000)
    sizes = set()
    around = [contact(1000 + x, 1000 + y) for x, y in _circle()]
    for other in around:
        done = hear(node, hello(other, node, heard=False), other)
        for message in sent(done, Hello):
            sizes.add(len(CODEC.encode(message)))
    assert len(node.neighbors) == len(around) > 30
    assert max(sizes) < 150


def test_a_greeting_for_somebody_else_is_answered_by_goodbye() -> None:
    """Whoever greets a member that was at this endpoint before learns at once that it left."""
    node = founder(10, 10)
    other = contact(0, 0)
    stray = Hello(other, place(9, 9), 3, None, None, True)
    (goodbye,) = sent(hear(node, stray, other), Goodbye)
    assert goodbye.source.address == (9, 9)
    assert goodbye.source.incarnation == 3
    assert goodbye.source.same_member(node.contact)
    assert ring(node) == []


def _circle() -> list[tuple[int, int]]:
    """36 points around the origin, all on one circle."""
    return [(x, y) for x in range(-33, 34) for y in range(-33, 34) if x * x + y * y == 1105]
