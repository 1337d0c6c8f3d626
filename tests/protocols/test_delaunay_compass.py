"""Compass routing: parents, children and greedy steps from rings alone."""

from __future__ import annotations

import random

import delaunay_oracle as oracle
from delaunay_oracle import THOROUGH, Point
from hypothesis import example, given

from opus_delaunay.compass import children, is_child, nearer, parent
from opus_delaunay.geometry import Ring, star
from opus_socket.core.addresses import LogicalAddress

FIGURE = [(4, 9), (10, 8), (0, 6), (5, 2), (12, 0), (8, 4)]
GRID = [(x, y) for x in range(4) for y in range(4)]

Rings = dict[Point, Ring[Point]]


def rings_of(points: list[Point]) -> Rings:
    rings = {}
    for origin in points:
        rings[origin] = ring = Ring(origin)
        for neighbor in star(origin, points):
            ring.insert(neighbor)
    return rings


def route(rings: Rings, start: Point, root: Point) -> list[Point]:
    """From the start to where a parent is missing, or one step more than there are members."""
    path = [start]
    while len(path) <= len(rings):
        step = parent(path[-1], rings[path[-1]], root)
        if step is None:
            break
        path.append(step)
    return path


@given(oracle.point_sets())
@example(GRID)
def test_parent_is_the_neighbor_at_the_smallest_angle(points: list[Point]) -> None:
    """For every member and root, with the ring or with its members in any order."""
    rings = rings_of(points)
    neighbors = oracle.delaunay(points)
    for root in points:
        tree = oracle.compass_tree(neighbors, root)
        assert {o: parent(o, ring, root) for o, ring in rings.items()} == tree
        assert {o: parent(o, sorted(ring), root) for o, ring in rings.items()} == tree


@given(oracle.point_sets())
@example(GRID)
@example([(x, 0) for x in range(9)])
def test_parents_of_every_root_are_a_spanning_tree(points: list[Point]) -> None:
    """Every route ends at the root, after fewer steps than there are members."""
    rings = rings_of(points)
    for root in points:
        assert parent(root, rings[root], root) is None
        for start in points:
            path = route(rings, start, root)
            assert path[-1] == root
            assert len(path) <= len(points)


@THOROUGH
@given(oracle.point_sets())
@example(GRID)
def test_children_are_those_whose_parent_i_am(points: list[Point]) -> None:
    """Found from the member's own ring, they are what each child finds from its own."""
    rings = rings_of(points)
    for root in points:
        of: dict[Point, list[Point]] = {v: [] for v in points}
        for c in sorted(points):
            up = parent(c, rings[c], root)
            if up is not None:
                of[up].append(c)
        assert {v: children(v, rings[v], root) for v in points} == {
            v: tuple(found) for v, found in of.items()
        }


@given(oracle.point_sets(2))
def test_is_child_needs_no_more_than_the_wedge_of_the_child(points: list[Point]) -> None:
    """A neighbor beyond a gap of 180 degrees may be named or not: it makes no triangle."""
    rings = rings_of(points)
    for v, ring in rings.items():
        members = ring.members
        for i, c in enumerate(members):
            assert ring.wedge(c) == rings[c].wedge(v)[::-1]
            beside = members[i - 1], members[(i + 1) % len(members)]
            for root in points:
                expected = parent(c, rings[c], root) == v
                assert is_child(v, c, root, *beside) == expected
                assert is_child(v, c, root, *ring.wedge(c)) == expected


def test_a_corner_beyond_a_gap_makes_no_triangle() -> None:
    """Also while tables lag behind: from (1, 0) the turn from (-1, -1) to (0, 0) is 333 degrees."""
    v, c, root = (1, 0), (0, 0), (4, 5)
    assert not is_child(v, c, root, None, None)
    assert not is_child(v, c, root, (-1, -1), None)
    assert is_child(v, c, root, (-5, 1), None)


def test_trees_of_a_hundred_members() -> None:
    """In general position too, for roots inside and on the hull, all edges lead to the root."""
    rng = random.Random(7)
    points = sorted({(rng.randrange(2**32), rng.randrange(2**32)) for _ in range(100)})
    rings = rings_of(points)
    hull = oracle.on_hull(points)
    inner = [point for point in points if point not in hull]
    for root in hull[:4] + inner[:4]:
        assert sum(len(children(v, ring, root)) for v, ring in rings.items()) == len(points) - 1
        assert all(route(rings, start, root)[-1] == root for start in points)


def test_spanning_tree_of_the_talk() -> None:
    """The published example with (8, 4) as root."""
    rings = rings_of(FIGURE)
    assert {o: parent(o, ring, (8, 4)) for o, ring in rings.items()} == {
        (4, 9): (8, 4),
        (10, 8): (8, 4),
        (5, 2): (8, 4),
        (12, 0): (8, 4),
        (0, 6): (5, 2),
        (8, 4): None,
    }
    assert children((8, 4), rings[8, 4], (8, 4)) == ((4, 9), (5, 2), (10, 8), (12, 0))
    assert children((5, 2), rings[5, 2], (8, 4)) == ((0, 6),)


def test_mirror_images_go_to_the_smaller_address() -> None:
    """Left and right of the ray, equally far: only the address is left to tell them apart."""
    assert parent((0, 2), [(1, 3), (1, 1)], (4, 2)) == (1, 1)
    assert parent((0, 2), [(1, 1), (1, 3)], (4, 2)) == (1, 1)


def test_equal_angles_go_to_the_one_nearer_to_the_root() -> None:
    """Before the address: here the larger one is nearer."""
    assert parent((0, 2), [(1, 1), (2, 4)], (4, 2)) == (2, 4)


def test_without_neighbors_there_is_no_parent_and_no_step() -> None:
    ring: Ring[Point] = Ring((1, 1))
    assert parent((1, 1), ring, (2, 2)) is None
    assert parent((1, 1), (), (2, 2)) is None
    assert children((1, 1), ring, (2, 2)) == ()
    assert nearer((1, 1), ring, (2, 2)) is None


def test_backwards_is_a_direction_too() -> None:
    """With no neighbor ahead the parent is the one least behind."""
    assert parent((5, 5), [(0, 5), (1, 9), (0, 0)], (9, 5)) == (1, 9)


@given(oracle.point_sets(1, 14), oracle.points)
def test_greedy_steps_end_at_the_nearest_member(points: list[Point], anywhere: Point) -> None:
    """From every start, and every step is strictly nearer."""
    rings = rings_of(points)
    (ax, ay), (bx, by) = points[0], points[-1]
    for x in (anywhere, ((ax + bx) // 2, (ay + by) // 2), *points[:3]):
        least = min(oracle.distance(point, x) for point in points)
        for start in points:
            here, away = start, oracle.distance(start, x)
            while (step := nearer(here, rings[here], x)) is not None:
                assert oracle.distance(step, x) < away
                here, away = step, oracle.distance(step, x)
            assert away == least


def test_equally_near_is_not_nearer() -> None:
    """Two members on either side of a point would hand a message to and fro."""
    ring: Ring[Point] = Ring((0, 0))
    ring.insert((2, 0))
    assert nearer((0, 0), ring, (1, 0)) is None
    assert nearer((0, 0), ring, (2, 1)) == (2, 0)


@THOROUGH
@given(oracle.point_sets(2, 14))
def test_whoever_rejects_knows_somebody_strictly_nearer(points: list[Point]) -> None:
    """Also with a ring made of any part of the members."""
    o, x, *others = points
    ring = Ring(o)
    for point in others:
        if ring.passes(point):
            ring.insert(point)
    if not ring.passes(x):
        step = nearer(o, ring, x)
        assert step in ring
        assert step is not None
        assert oracle.distance(step, x) < oracle.distance(o, x)


def test_logical_addresses_come_out_as_such() -> None:
    ring: Ring[LogicalAddress] = Ring(LogicalAddress((5, 2)))
    for point in [(0, 6), (4, 9), (8, 4), (12, 0)]:
        ring.insert(LogicalAddress(point))
    found = [
        parent(ring.origin, ring, (11, 9)),
        nearer(ring.origin, ring, (11, 9)),
        *children(ring.origin, ring, ring.origin),
    ]
    assert {type(address) for address in found} == {LogicalAddress}
