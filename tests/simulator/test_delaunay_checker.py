"""The Delaunay checker against slow or foreign twins, for every degenerate input we know."""

from __future__ import annotations

from itertools import combinations, pairwise
from random import Random

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from scipy.spatial import Delaunay

from opus_socket.simulator.checkers.delaunay import (
    Discrepancy,
    Point,
    discrepancies,
    reference_triangulation,
)

Graph = dict[Point, tuple[Point, ...]]
Edge = tuple[Point, Point]


def point_lists(side: int, largest: int) -> st.SearchStrategy[list[Point]]:
    coordinate = st.integers(0, side - 1)
    return st.lists(st.tuples(coordinate, coordinate), unique=True, max_size=largest)


def degenerate_or_not(largest: int) -> st.SearchStrategy[list[Point]]:
    """Half of the time a tiny grid, where ties are everywhere."""
    tiny = st.integers(2, 6).flatmap(lambda side: point_lists(side, largest))
    return st.one_of(tiny, point_lists(2**32, largest))


def edges(graph: Graph) -> set[Edge]:
    return {(point, other) for point, others in graph.items() for other in others if point < other}


def cross(a: Point, b: Point, c: Point) -> int:
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def brute_force(points: list[Point]) -> set[Edge]:
    """Every edge of every triangle below whose plane no other lifted point lies.

    The perturbation is a number here: point i of n, in lexicographic order, is lowered by
    epsilon ** (i + 1) with an epsilon that is small even beside the largest determinant.
    Heights are multiplied by epsilon ** -n to remain integers.
    """
    points = sorted(points)
    if all(cross(points[0], points[-1], point) == 0 for point in points):
        return set(pairwise(points))
    big, count = 2**200, len(points)
    lifted = [
        (x, y, (x * x + y * y) * big**count - big ** (count - 1 - index))
        for index, (x, y) in enumerate(points)
    ]

    def below(corners: list[tuple[int, int, int]], other: tuple[int, int, int]) -> bool:
        a, b, c = ([p - q for p, q in zip(corner, other, strict=True)] for corner in corners)
        volume = (
            a[0] * (b[1] * c[2] - b[2] * c[1])
            - a[1] * (b[0] * c[2] - b[2] * c[0])
            + a[2] * (b[0] * c[1] - b[1] * c[0])
        )
        turn = (a[0] - c[0]) * (b[1] - c[1]) - (a[1] - c[1]) * (b[0] - c[0])
        return volume * turn > 0

    found: set[Edge] = set()
    for triangle in combinations(range(count), 3):
        if cross(*(points[index] for index in triangle)) == 0:
            continue
        corners = [lifted[index] for index in triangle]
        others = [lifted[index] for index in range(count) if index not in triangle]
        if not any(below(corners, other) for other in others):
            found.update(combinations([points[index] for index in triangle], 2))
    return found


def points_on_hull(points: list[Point]) -> int:
    """Count the points on the boundary of the hull, those inside its edges too."""
    ordered = sorted(points)
    on_hull: set[Point] = set()
    for sweep in (ordered, ordered[::-1]):
        chain: list[Point] = []
        for point in sweep:
            while len(chain) >= 2 and cross(chain[-2], chain[-1], point) < 0:
                chain.pop()
            chain.append(point)
        on_hull.update(chain)
    return len(on_hull)


SQUARE = [(0, 0), (0, 1), (1, 0), (1, 1)]
FLAT_THEN_APEX = [(0, 0), (1, 0), (2, 0), (3, 0), (1, 5)]


@given(degenerate_or_not(largest=10))
@example(SQUARE)
@example(FLAT_THEN_APEX)
@example([(x, y) for x in range(4) for y in range(3)])
def test_equals_brute_force_with_explicit_perturbation(points: list[Point]) -> None:
    """The edges are those of the lower hull of the explicitly lowered lifted points."""
    assert edges(reference_triangulation(points)) == brute_force(points)


def test_equals_brute_force_on_every_subset_of_a_grid() -> None:
    """All 512 subsets of a 3 x 3 grid."""
    grid = [(x, y) for x in range(3) for y in range(3)]
    for size in range(10):
        for points in combinations(grid, size):
            assert edges(reference_triangulation(points)) == brute_force(list(points))


def test_equals_brute_force_on_crowded_grids() -> None:
    """100 draws of 12 points from grids of side 4 to 8, where most circles hold ties."""
    random = Random(11)
    for side in [4, 5, 6, 7, 8] * 20:
        grid = [(x, y) for x in range(side) for y in range(side)]
        points = random.sample(grid, 12)
        assert edges(reference_triangulation(points)) == brute_force(points)


def test_the_brute_force_knows_the_unit_squares_diagonal() -> None:
    assert ((0, 0), (1, 1)) in brute_force(SQUARE)
    assert ((0, 1), (1, 0)) not in brute_force(SQUARE)


@given(degenerate_or_not(largest=60), st.randoms(use_true_random=False))
def test_order_of_the_input_does_not_matter(points: list[Point], random: Random) -> None:
    """A permutation of the points gives the same dictionary in the same order."""
    shuffled = points.copy()
    random.shuffle(shuffled)
    expected = list(reference_triangulation(points).items())
    assert list(reference_triangulation(shuffled).items()) == expected


@given(degenerate_or_not(largest=60), st.integers(), st.integers())
def test_translation_moves_the_answer(points: list[Point], dx: int, dy: int) -> None:
    """Moving all points moves the triangulation and changes no edge."""
    moved = reference_triangulation([(x + dx, y + dy) for x, y in points])
    expected = edges(reference_triangulation(points))
    assert edges(moved) == {((a + dx, b + dy), (c + dx, d + dy)) for (a, b), (c, d) in expected}


@given(degenerate_or_not(largest=60))
@example([(x, y) for x in range(6) for y in range(6)])
def test_symmetric_sorted_and_of_eulers_size(points: list[Point]) -> None:
    """Neighbors are mutual and sorted; n points, h on the hull, have 3n - 3 - h edges."""
    graph = reference_triangulation(points)
    assert list(graph) == sorted(points)
    for point, others in graph.items():
        assert list(others) == sorted(set(others))
        assert all(point in graph[other] for other in others)
    count = len(points)
    flat = all(cross(points[0], points[1], point) == 0 for point in points[2:])
    expected = max(count - 1, 0) if flat else 3 * count - 3 - points_on_hull(points)
    assert len(edges(graph)) == expected


@given(degenerate_or_not(largest=40).filter(bool))
@example([*SQUARE, (1, 2)])
def test_a_new_point_changes_only_the_stars_of_its_neighbors(points: list[Point]) -> None:
    """Whoever is not adjacent to the new point keeps exactly the neighbors it had."""
    *old, new = points
    before, after = reference_triangulation(old), reference_triangulation(points)
    for point, others in before.items():
        if point not in after[new]:
            assert after[point] == others


def test_equals_scipy_in_general_position() -> None:
    """2,000 random points, at 26 bits a coordinate: far beyond any rounding of scipy's."""
    random = Random(7)
    points = sorted({(random.getrandbits(26), random.getrandbits(26)) for _ in range(2000)})
    found: set[Edge] = set()
    for triangle in Delaunay(np.array(points, dtype=float)).simplices:
        corners = sorted(points[index] for index in triangle)
        found.update(combinations(corners, 2))
    assert edges(reference_triangulation(points)) == found


def grid_edges(columns: int, rows: int) -> set[Edge]:
    """A grid in DT*: its sides, and in every square the diagonal from the lower left."""
    return {
        ((x, y), (x + dx, y + dy))
        for x in range(columns)
        for y in range(rows)
        for dx, dy in ((1, 0), (0, 1), (1, 1))
        if x + dx < columns and y + dy < rows
    }


@pytest.mark.parametrize(("columns", "rows"), [(12, 12), (2, 5000), (5000, 2), (70, 70)])
def test_grids(columns: int, rows: int) -> None:
    points = [(x, y) for x in range(columns) for y in range(rows)]
    assert edges(reference_triangulation(points)) == grid_edges(columns, rows)


def test_a_circle_is_the_fan_from_its_smallest_point() -> None:
    squared = 5**2 * 13 * 17 * 29
    radius = range(-500, 501)
    circle = sorted((x, y) for x in radius for y in radius if x * x + y * y == squared)
    assert len(circle) == 96
    corner = circle[0]
    around = sorted(circle[1:], key=lambda p: np.arctan2(p[1] - corner[1], p[0] - corner[0]))
    expected = {(corner, point) for point in circle[1:]}
    expected.update((min(pair), max(pair)) for pair in pairwise(around))
    assert edges(reference_triangulation(circle)) == expected


@pytest.mark.parametrize(("dx", "dy"), [(1, 0), (0, 1), (3, 7), (2, -5)])
def test_points_on_a_line_form_the_path_along_it(dx: int, dy: int) -> None:
    line = sorted((dx * step, dy * step) for step in range(101))
    assert edges(reference_triangulation(line[::-1])) == set(pairwise(line))


def test_coordinates_beyond_any_machine_word_are_exact() -> None:
    """A square of side 2**200 is cocircular; moving a corner by one decides the diagonal."""
    far = 2**200
    square = [(0, 0), (0, far), (far, 0), (far, far)]
    assert ((0, 0), (far, far)) in edges(reference_triangulation(square))
    wider = [(0, 0), (0, far), (far, 0), (far + 1, far)]
    assert ((0, far), (far, 0)) in edges(reference_triangulation(wider))


def test_golden_example_of_the_hypercast_talk() -> None:
    five = [(4, 9), (10, 8), (0, 6), (5, 2), (12, 0)]
    assert edges(reference_triangulation(five)) == {
        ((0, 6), (4, 9)),
        ((0, 6), (5, 2)),
        ((4, 9), (5, 2)),
        ((4, 9), (10, 8)),
        ((5, 2), (10, 8)),
        ((5, 2), (12, 0)),
        ((10, 8), (12, 0)),
    }
    joined = reference_triangulation([*five, (8, 4)])
    assert joined[8, 4] == ((4, 9), (5, 2), (10, 8), (12, 0))
    assert (10, 8) not in joined[5, 2]


def test_fewer_than_three_points() -> None:
    assert reference_triangulation([]) == {}
    assert reference_triangulation([(3, 4)]) == {(3, 4): ()}
    assert reference_triangulation([(3, 4), (1, 2)]) == {(1, 2): ((3, 4),), (3, 4): ((1, 2),)}


def test_a_duplicate_is_named() -> None:
    with pytest.raises(ValueError, match=r"point \(3, 4\) occurs twice"):
        reference_triangulation([(3, 4), (1, 2), (3, 4)])


@given(degenerate_or_not(largest=30))
def test_the_triangulation_itself_has_no_discrepancies(points: list[Point]) -> None:
    """Tables equal to DT* are legitimate, whatever order they list neighbors in."""
    tables = {point: others[::-1] for point, others in reference_triangulation(points).items()}
    assert discrepancies(tables) == ()


def test_missing_and_surplus_neighbors_are_named_at_each_member() -> None:
    tables: dict[Point, list[Point]] = {
        (0, 0): [(0, 1), (1, 0)],
        (0, 1): [(0, 0), (1, 1), (1, 0), (9, 9)],
        (1, 0): [(0, 0), (1, 1)],
        (1, 1): [(0, 0), (0, 1), (1, 0)],
    }
    assert discrepancies(tables) == (
        Discrepancy((0, 0), missing=((1, 1),), surplus=()),
        Discrepancy((0, 1), missing=(), surplus=((1, 0), (9, 9))),
    )
