"""The exact geometry: stars and rings against the slow twin, ties included."""

from __future__ import annotations

import random
from fractions import Fraction
from itertools import combinations, permutations
from math import isqrt

import delaunay_oracle as oracle
import numpy
import pytest
from delaunay_oracle import LIMIT, THOROUGH, Point
from hypothesis import assume, example, given
from hypothesis import strategies as st
from scipy.spatial import Delaunay

from opus_delaunay.geometry import Ring, direction, incircle, orient, squared_distance, star
from opus_socket.core.addresses import LogicalAddress
from opus_socket.errors import LocalProtocolError

FIGURE = [(4, 9), (10, 8), (0, 6), (5, 2), (12, 0)]
SQUARE = [(0, 0), (1, 0), (0, 1), (1, 1)]


def stars(points: list[Point]) -> oracle.Neighbors:
    return {point: frozenset(star(point, points)) for point in points}


def ring_of(origin: Point, points: list[Point]) -> Ring[Point]:
    """The ring that a member builds when it hears of the points one by one."""
    ring = Ring(origin)
    for point in points:
        if ring.passes(point):
            ring.insert(point)
    return ring


def cross(o: Point, a: Point, b: Point) -> int:
    return (a[0] - o[0]) * (b[1] - o[1]) - (a[1] - o[1]) * (b[0] - o[0])


def sign(number: int | Fraction) -> int:
    return (number > 0) - (number < 0)


@given(oracle.points, oracle.points, oracle.points)
def test_orient_is_the_turn(a: Point, b: Point, c: Point) -> None:
    """Cyclic, turned over by a swap, and 0 only in line."""
    assert orient(a, b, c) == orient(b, c, a) == -orient(b, a, c)
    assert (orient(a, b, c) == 0) == oracle.in_line([a, b, c])


def test_orient_is_positive_to_the_left() -> None:
    assert orient((0, 0), (5, 0), (2, 1)) > 0
    assert orient((0, 0), (LIMIT - 1, LIMIT - 1), (0, LIMIT - 1)) == (LIMIT - 1) ** 2


@given(oracle.points, oracle.points)
def test_squared_distance_is_that_of_pythagoras(a: Point, b: Point) -> None:
    assert squared_distance(a, b) == oracle.distance(a, b) == squared_distance(b, a)


@THOROUGH
@given(oracle.point_sets(4, 4))
def test_incircle_compares_the_distance_from_the_center_with_the_radius(four: list[Point]) -> None:
    """Wherever the fourth point is not on the circle itself, by circumcenters in fractions."""
    a, b, c, d = four
    turn = cross(a, b, c)
    assume(turn)
    bx, by, cx, cy = b[0] - a[0], b[1] - a[1], c[0] - a[0], c[1] - a[1]
    bb, cc = bx * bx + by * by, cx * cx + cy * cy
    center_x = a[0] + Fraction(cy * bb - by * cc, 2 * turn)
    center_y = a[1] + Fraction(bx * cc - cx * bb, 2 * turn)

    def to_center(point: Point) -> Fraction:
        return (point[0] - center_x) ** 2 + (point[1] - center_y) ** 2

    inside = sign(to_center(a) - to_center(d))
    if inside:
        assert sign(incircle(a, b, c, d)) == inside * sign(turn)
    else:
        assert incircle(a, b, c, d) != 0


@THOROUGH
@given(oracle.point_sets(4, 4))
@example(SQUARE)
def test_incircle_turns_over_with_every_swap(four: list[Point]) -> None:
    """All 24 orders of four points tell one story, also on one circle; 0 only in line."""
    straight = sign(incircle(*four))
    for order in permutations(range(4)):
        swaps = sum(order[i] > order[j] for i, j in combinations(range(4), 2))
        a, b, c, d = (four[i] for i in order)
        assert sign(incircle(a, b, c, d)) == (-straight if swaps % 2 else straight)
    assert (straight == 0) == oracle.in_line(four)


vectors = st.one_of(
    st.tuples(st.integers(1 - LIMIT, LIMIT - 1), st.integers(1 - LIMIT, LIMIT - 1)),
    st.tuples(st.integers(-3, 3), st.integers(-3, 3)),
    st.tuples(st.integers(LIMIT - 4, LIMIT - 1), st.integers(LIMIT - 4, LIMIT - 1)),
).filter(any)


@THOROUGH
@given(vectors, vectors)
@example((LIMIT - 1, LIMIT - 2), (LIMIT - 2, LIMIT - 3))
@example((1 - LIMIT, 1), (2 - LIMIT, 1))
@example((LIMIT - 1, -1), (LIMIT - 2, -1))
@example((1, 0), (LIMIT - 1, 0))
@example((-1, 0), (1 - LIMIT, -1))
def test_direction_sorts_as_half_planes_and_cross_products_do(u: Point, v: Point) -> None:
    """Exact for the longest and closest vectors: equal on one ray only."""
    lower = [y < 0 or (y == 0 and x < 0) for x, y in (u, v)]
    expected = sign(lower[0] - lower[1]) or -sign(cross((0, 0), u, v))
    assert sign(direction(*u) - direction(*v)) == expected


def test_direction_begins_at_the_x_axis() -> None:
    compass = [(1, 0), (1, 1), (0, 1), (-1, 1), (-1, 0), (-1, -1), (0, -1), (1, -1)]
    assert direction(1, 0) == 0
    assert sorted(compass, key=lambda vector: direction(*vector)) == compass


@THOROUGH
@given(oracle.point_sets(1, 14))
@example(SQUARE)
@example([(x, y) for x in range(4) for y in range(4)])
@example([(x, 0) for x in range(9)])
def test_union_of_stars_is_the_triangulation(points: list[Point]) -> None:
    """Each star, found alone, is the one of the brute force; so they are symmetric too."""
    found = stars(points)
    assert found == oracle.delaunay(points)
    assert all(p in found[q] for p in points for q in found[p])


@given(oracle.point_sets(18, 25))
def test_union_of_larger_stars_is_the_triangulation(points: list[Point]) -> None:
    assert stars(points) == oracle.delaunay(points)


@given(oracle.point_sets(), st.randoms(use_true_random=False))
def test_star_does_not_depend_on_the_order(points: list[Point], rng: random.Random) -> None:
    """Not on repetition either, nor on whether the middle is among the points."""
    o = points[0]
    shuffled = points[1:] * 2
    rng.shuffle(shuffled)
    assert star(o, points) == star(o, shuffled)


@given(oracle.point_sets(), st.data())
def test_star_moves_with_its_points(points: list[Point], data: st.DataObject) -> None:
    """Translation moves every star and changes none."""
    left, low = min(x for x, _ in points), min(y for _, y in points)
    right, high = max(x for x, _ in points), max(y for _, y in points)
    dx = data.draw(st.integers(-left, LIMIT - 1 - right))
    dy = data.draw(st.integers(-low, LIMIT - 1 - high))
    moved = [(x + dx, y + dy) for x, y in points]
    for o, o_moved in zip(points, moved, strict=True):
        assert star(o_moved, moved) == tuple((x + dx, y + dy) for x, y in star(o, points))


@given(oracle.point_sets(2))
def test_star_is_counter_clockwise_from_the_x_axis(points: list[Point]) -> None:
    o, *others = points
    angles = [direction(x - o[0], y - o[1]) for x, y in star(o, others)]
    assert angles == sorted(set(angles))


@given(oracle.point_sets(2))
def test_a_new_point_changes_the_stars_of_its_neighbors_only(points: list[Point]) -> None:
    *before, x = points
    old, new = stars(before), stars(points)
    assert all(old[p] == new[p] for p in before if p not in new[x])


@given(oracle.point_sets(3, 20))
@example([(x, y) for x in range(4) for y in range(4)])
def test_edges_are_as_many_as_euler_says(points: list[Point]) -> None:
    """3n - 3 - h, where h counts the points amid the sides of the hull too."""
    edges = sum(map(len, stars(points).values())) // 2
    if oracle.in_line(points):
        assert edges == len(points) - 1
    else:
        assert edges == 3 * len(points) - 3 - len(oracle.on_hull(points))


@pytest.mark.parametrize("seed", range(20))
def test_stars_are_those_of_scipy_in_general_position(seed: int) -> None:
    """Qhull, which knows nothing of our ties, agrees where there are none."""
    rng = random.Random(seed)
    side = rng.choice([2**20, LIMIT])
    points = [(rng.randrange(side), rng.randrange(side)) for _ in range(60)]
    expected: dict[Point, set[Point]] = {point: set() for point in points}
    for triangle in Delaunay(numpy.array(points, dtype=float)).simplices:
        for i, j in permutations(triangle, 2):
            expected[points[i]].add(points[j])
    assert stars(points) == expected


def test_smallest_corner_of_a_square_holds_the_diagonal() -> None:
    found = stars(SQUARE)
    assert found[0, 0] == {(1, 0), (0, 1), (1, 1)}
    assert found[1, 0] == {(0, 0), (1, 1)}


def test_a_circle_is_a_fan_from_its_smallest_point() -> None:
    """Twelve points of the circle of radius 5: all chords not on the border meet in one point."""
    circle = sorted(
        (x + 5, y + 5) for x in range(-5, 6) for y in range(-5, 6) if x * x + y * y == 25
    )
    assert set(star(circle[0], circle)) == set(circle[1:])
    assert sum(len(star(point, circle)) for point in circle) == 2 * (12 + 9)


def test_a_line_is_a_path() -> None:
    line = [(LIMIT - 1 - 7 * step, 3 * step) for step in range(9)]
    assert star(line[4], line) == (line[5], line[3])
    assert star(line[0], line) == (line[1],)


def test_the_star_of_a_lone_point_is_empty() -> None:
    assert star((3, 4), []) == star((3, 4), [(3, 4)]) == ()


def test_figure_of_the_talk() -> None:
    """The published example: its edges, and what the newcomer at (8, 4) changes."""
    edges = {frozenset((p, q)) for p in FIGURE for q in star(p, FIGURE)}
    assert edges == {
        frozenset(edge)
        for edge in [
            ((0, 6), (4, 9)),
            ((0, 6), (5, 2)),
            ((4, 9), (5, 2)),
            ((4, 9), (10, 8)),
            ((5, 2), (10, 8)),
            ((5, 2), (12, 0)),
            ((10, 8), (12, 0)),
        ]
    }
    joined = [*FIGURE, (8, 4)]
    assert set(star((8, 4), joined)) == {(10, 8), (4, 9), (5, 2), (12, 0)}
    assert (10, 8) not in star((5, 2), joined)


def test_neighborhood_table_of_the_talk() -> None:
    """The published columns CW and CCW of (10, 8)."""
    ring = ring_of((10, 8), FIGURE[:1] + FIGURE[2:])
    assert {member: ring.wedge(member) for member in ring} == {
        (4, 9): (None, (5, 2)),
        (5, 2): ((4, 9), (12, 0)),
        (12, 0): ((5, 2), None),
    }
    assert ring.insert((8, 4)) == ((5, 2),)


@THOROUGH
@given(oracle.point_sets(1, 14))
@example(SQUARE)
def test_ring_built_one_by_one_is_the_star(points: list[Point]) -> None:
    """In whatever order a member hears of the others."""
    o, *others = points
    assert ring_of(o, others).members == star(o, others)


@THOROUGH
@given(oracle.point_sets(2, 14))
def test_passes_says_whether_the_star_would_hold_the_point(points: list[Point]) -> None:
    """Against the ring alone it comes out as against all points that the ring was made of."""
    o, x, *others = points
    ring = ring_of(o, others)
    assert ring.passes(x) == (x in star(o, points)) == (x in star(o, [*ring, x]))
    assert all(ring.passes(member) for member in ring)


@THOROUGH
@given(oracle.point_sets(3, 10), st.data())
def test_ring_stays_a_star_whatever_comes_and_goes(
    points: list[Point], data: st.DataObject
) -> None:
    """Insert drops what the star drops, remove drops nothing more; all views agree."""
    o, *others = points
    ring = Ring(o)
    for x in data.draw(st.lists(st.sampled_from(others), min_size=1, max_size=30)):
        before = ring.members
        if x in ring and data.draw(st.booleans(), label="remove"):
            ring.remove(x)
            assert ring.members == tuple(member for member in before if member != x)
        elif ring.passes(x):
            dropped = ring.insert(x)
            assert len(dropped) == len(set(dropped))
            assert set(dropped) == {*before, x} - set(ring)
            assert ring.members == star(o, [*before, x])
        assert ring.members == star(o, ring)
        assert tuple(ring) == ring.members
        assert len(ring) == len(ring.members)
        assert all((point in ring) == (point in ring.members) for point in points)


@THOROUGH
@given(oracle.point_sets(2, 14))
def test_wedge_is_the_next_member_within_a_half_turn(points: list[Point]) -> None:
    """Of the members less than 180 degrees away on either side the one that all others precede."""
    o, x, *others = points
    ring = ring_of(o, others)
    for asked in (x, *ring):
        clockwise = [a for a in ring if cross(o, a, asked) > 0]
        counter_clockwise = [b for b in ring if cross(o, asked, b) > 0]
        before, after = ring.wedge(asked)
        assert before == (
            next((a for a in clockwise if all(cross(o, a, c) <= 0 for c in clockwise)), None)
        )
        assert after == (
            next(
                (
                    b
                    for b in counter_clockwise
                    if all(cross(o, b, c) >= 0 for c in counter_clockwise)
                ),
                None,
            )
        )


@THOROUGH
@given(oracle.point_sets(2, 14))
def test_wedge_for_reject_names_the_member_in_the_way_too(points: list[Point]) -> None:
    """Whoever stands between is told; else it is the wedge."""
    o, x, *others = points
    ring = ring_of(o, others)
    told, wedge = ring.wedge_for_reject(x), ring.wedge(x)
    same_ray = {
        member
        for member in ring
        if member != x
        and cross(o, member, x) == 0
        and oracle.distance(o, x) + oracle.distance(o, member) > oracle.distance(x, member)
    }
    if same_ray:
        assert same_ray < {*told, o} - {None}
        assert {*told} - same_ray <= {*wedge}
        assert ({*told} - same_ray == {None}) == ({*wedge} == {None})
    else:
        assert told == wedge
    assert all(ring.wedge_for_reject(member) == ring.wedge(member) for member in ring)


def test_wedges_at_the_end_of_a_line() -> None:
    ring = ring_of((0, 0), [(1, 1)])
    assert ring.wedge((2, 2)) == (None, None)
    assert ring.wedge_for_reject((2, 2)) == (None, (1, 1))
    ring.insert((1, 0))
    assert ring.wedge_for_reject((2, 2)) == ((1, 0), (1, 1))
    ring.insert((0, 1))
    assert ring.wedge((2, 2)) == ((1, 0), (0, 1))
    assert ring.wedge_for_reject((2, 2)) == ((1, 1), (0, 1))


@given(oracle.point_sets(2, 14), oracle.points)
def test_nearest_is_the_nearest(points: list[Point], anywhere: Point) -> None:
    """Of equally near members the smallest."""
    o, *others = points
    ring = ring_of(o, others)
    for x in (anywhere, *points):
        assert ring.nearest(x) == min(ring, key=lambda m: (oracle.distance(m, x), m), default=None)


def test_a_hub_drops_a_whole_circle_for_a_nearer_one() -> None:
    """108 members on one circle, all tied, then 108 inside: exactly the outer ones go."""
    hub = (2**31, 2**31)
    circle = [
        (x, sign_of_y * y)
        for x in range(-1105, 1106)
        for y in [isqrt(1105**2 - x * x)]
        for sign_of_y in (1, -1)
        if x * x + y * y == 1105**2 and (y or sign_of_y > 0)
    ]
    assert len(circle) == 108
    outer = [(hub[0] + 4 * x, hub[1] + 4 * y) for x, y in circle]
    inner = [(hub[0] + x, hub[1] + y) for x, y in circle]
    ring = Ring(hub)
    assert [ring.insert(x) for x in outer] == [()] * len(outer)
    dropped = [gone for x in inner for gone in ring.insert(x)]
    assert sorted(dropped) == sorted(outer)
    assert ring.members == star(hub, inner + outer)


def test_what_goes_in_comes_out_as_itself() -> None:
    """Logical addresses stay logical addresses."""
    addresses = [LogicalAddress(point) for point in FIGURE]
    ring = Ring(addresses[1])
    dropped = [
        gone for point in [*FIGURE[2:], (8, 4)] for gone in ring.insert(LogicalAddress(point))
    ]
    assert dropped
    seen = [*dropped, *ring, *ring.members, ring.nearest((3, 3)), *star(addresses[0], addresses)]
    seen += [*ring.wedge((5, 2)), *ring.wedge_for_reject((5, 2))]
    assert {type(address) for address in seen if address is not None} == {LogicalAddress}


def test_an_empty_ring() -> None:
    ring = Ring((5, 5))
    assert not len(ring)
    assert ring.members == ()
    assert (1, 1) not in ring
    assert ring.passes((1, 1))
    assert ring.wedge((1, 1)) == ring.wedge_for_reject((1, 1)) == (None, None)
    assert ring.nearest((1, 1)) is None


def test_our_own_mistakes_are_named() -> None:
    """Equal coordinates, removing a stranger and inserting what fails change nothing."""
    ring = ring_of((0, 0), [(1, 0)])
    with pytest.raises(LocalProtocolError, match="equal coordinates"):
        ring.passes((0, 0))
    with pytest.raises(LocalProtocolError, match="equal coordinates"):
        ring.insert((0, 0))
    with pytest.raises(LocalProtocolError, match="equal coordinates"):
        ring.wedge((0, 0))
    with pytest.raises(LocalProtocolError, match="no neighbor"):
        ring.insert((2, 0))
    with pytest.raises(LocalProtocolError, match="not in the ring"):
        ring.remove((2, 0))
    assert ring.members == ((1, 0),)
