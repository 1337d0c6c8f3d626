"""Who is stable: whoever lacks nobody, as far as it can know. And what its beats repeat."""

from __future__ import annotations

from lone_delaunay import contact, founder, hear, hello, joiner, meet, ring, sent

from opus_delaunay import DelaunayNode
from opus_delaunay.messages import Hello
from opus_socket.core.addresses import Contact

MIDDLE = (10, 10)
NEAR, BEHIND, ASIDE = contact(30, 10), contact(50, 10), contact(10, 30)


def test_a_neighbor_that_names_somebody_hidden_does_not_unsettle() -> None:
    """It has yet to meet who hides them: to wait for its next beat would delay every join."""
    node = founder(*MIDDLE)
    meet(node, NEAR)
    hear(node, hello(ASIDE, node, clockwise=BEHIND), ASIDE)
    assert node.stable
    assert ring(node) == [(10, 30), (30, 10)]


def test_a_join_ends_with_the_last_neighbor_that_was_missing() -> None:
    node = joiner(*MIDDLE)
    hear(node, hello(ASIDE, node, clockwise=BEHIND), ASIDE)
    assert not node.stable
    hear(node, hello(BEHIND, node, clockwise=NEAR), BEHIND)
    assert not node.stable
    meet(node, NEAR)
    assert node.stable


def test_a_neighbor_that_names_somebody_who_passes_unsettles() -> None:
    node = founder(*MIDDLE)
    hear(node, hello(ASIDE, node, clockwise=BEHIND), ASIDE)
    assert not node.stable


def test_what_a_beat_repeats_is_counted_apart_from_what_it_tells() -> None:
    node = founder(*MIDDLE)
    meet(node, NEAR)
    assert [beat(node, NEAR) for _ in range(3)] == [0, 1, 1]
    meet(node, ASIDE, now=node.next_deadline)
    assert [beat(node, NEAR, ASIDE) for _ in range(2)] == [0, 2]


def beat(node: DelaunayNode, *neighbors: Contact) -> int:
    """How many of the Hellos of the next beat are counted as repeated."""
    before = node.statistics().repeated
    now = node.next_deadline
    while not sent(node.wake(now), Hello):
        now = node.next_deadline
    meet(node, *neighbors, now=now)
    return node.statistics().repeated - before
