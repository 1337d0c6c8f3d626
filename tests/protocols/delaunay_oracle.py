"""The obviously right, slow twin of the Delaunay geometry, and the point sets to try it on.

Shares no code and no formula with the protocol. The triangulation is read off the lower hull of
the points lifted to z = x^2 + y^2, lowered by explicit amounts that fall from the
lexicographically smallest point to the largest so steeply that none can be made up for by all
that follow; the angles of compass routing are compared as fractions.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from fractions import Fraction
from itertools import combinations

from hypothesis import settings
from hypothesis import strategies as st

Point = tuple[int, int]
Neighbors = dict[Point, frozenset[Point]]

LIMIT = 2**32
THOROUGH = settings(max_examples=max(250, settings().max_examples))
"""For properties of small point sets: more examples than the default, in about a second."""

_STEP = 320
"""Bits between one perturbation and the next. Where two bounds are compared, a perturbation is
multiplied by four differences of coordinates, of 33 bits each; twice that is left to spare."""


def delaunay(points: Iterable[Point]) -> Neighbors:
    """The neighbors of each of the distinct points in DT*, in O(n^3).

    An edge p, q belongs to the lower hull if some plane through both lifted ends passes below all
    the other points. Such a plane can only tilt about the line through the ends, so each point on
    the left bounds the tilt from above, each on the right from below, and each in line with the
    ends is either between them or no obstacle.
    """
    order = sorted(set(points))
    height = {
        point: ((point[0] ** 2 + point[1] ** 2) << (_STEP * len(order)))
        - (1 << (_STEP * (len(order) - rank)))
        for rank, point in enumerate(order, start=1)
    }
    neighbors: dict[Point, set[Point]] = {point: set() for point in order}
    for p, q in combinations(order, 2):
        if _on_lower_hull(p, q, order, height):
            neighbors[p].add(q)
            neighbors[q].add(p)
    return {point: frozenset(found) for point, found in neighbors.items()}


def _on_lower_hull(p: Point, q: Point, points: Sequence[Point], height: dict[Point, int]) -> bool:
    ux, uy = q[0] - p[0], q[1] - p[1]
    least: tuple[int, int] | None = None
    most: tuple[int, int] | None = None
    for r in points:
        if r in (p, q):
            continue
        vx, vy = r[0] - p[0], r[1] - p[1]
        side = ux * vy - uy * vx
        along = ux * vx + uy * vy
        above = (height[r] - height[p]) * (ux * ux + uy * uy) - (height[q] - height[p]) * along
        if side == 0:
            if above < 0:
                return False
        elif side > 0:
            if least is None or above * least[1] < least[0] * side:
                least = above, side
        elif most is None or above * most[1] > most[0] * side:
            most = above, side
    if least is None or most is None:
        return True
    # most[1] is negative, so multiplying by it turns the comparison over.
    return most[0] * least[1] > least[0] * most[1]


def on_hull(points: Collection[Point]) -> list[Point]:
    """The points on the border of the convex hull, those amid its sides too, sorted."""
    border: set[Point] = set()
    for p, q in combinations(sorted(points), 2):
        sides = [(q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0]) for r in points]
        if min(sides) >= 0 or max(sides) <= 0:
            border |= {p, q}
    return sorted(border)


def in_line(points: Collection[Point]) -> bool:
    """Whether no three points make a triangle."""
    return all(
        (q[0] - p[0]) * (r[1] - p[1]) == (q[1] - p[1]) * (r[0] - p[0])
        for p, q, r in combinations(sorted(points), 3)
    )


def distance(a: Point, b: Point) -> Fraction:
    """The square of the distance."""
    return Fraction(a[0] - b[0]) ** 2 + Fraction(a[1] - b[1]) ** 2


def compass_parent(neighbors: Neighbors, member: Point, root: Point) -> Point | None:
    """The neighbor at the smallest angle from the direction of the root, by the law of cosines."""
    if member == root:
        return None
    if root in neighbors[member]:
        return root

    def rank(neighbor: Point) -> tuple[Fraction, Fraction, Point]:
        to_root, to_neighbor = distance(member, root), distance(member, neighbor)
        cosine = to_root + to_neighbor - distance(neighbor, root)
        squared = cosine**2 / (to_root * to_neighbor)
        return (-squared if cosine > 0 else squared), distance(neighbor, root), neighbor

    return min(neighbors[member], key=rank, default=None)


def compass_tree(neighbors: Neighbors, root: Point) -> dict[Point, Point | None]:
    """Each member's parent in the tree of the root."""
    return {member: compass_parent(neighbors, member, root) for member in neighbors}


points = st.tuples(st.integers(0, LIMIT - 1), st.integers(0, LIMIT - 1))
"""Anywhere in the plane."""


def _sets(
    among: st.SearchStrategy[Point], smallest: int, largest: int
) -> st.SearchStrategy[list[Point]]:
    return st.lists(among, min_size=smallest, max_size=largest, unique=True)


@st.composite
def _grids(draw: st.DrawFn, smallest: int, largest: int) -> list[Point]:
    """Many ties: points of a grid of side 2 to 6, which lies anywhere and may be stretched."""
    side = draw(st.integers(2, 6).filter(lambda side: side * side >= smallest))
    pitch = draw(st.sampled_from([1, 1, 1, 3, 2**20, 2**29]))
    room = LIMIT - 1 - pitch * (side - 1)
    left, low = draw(st.tuples(st.integers(0, room), st.integers(0, room)))
    cells = draw(
        st.lists(
            st.sampled_from([(x, y) for x in range(side) for y in range(side)]),
            min_size=smallest,
            max_size=min(largest, side * side),
            unique=True,
        )
    )
    return [(left + pitch * x, low + pitch * y) for x, y in cells]


@st.composite
def _lines(draw: st.DrawFn, smallest: int, largest: int) -> list[Point]:
    """Points of one line, some of them with a few strays beside it."""
    dx, dy = draw(st.tuples(st.integers(-9, 9), st.integers(0, 9)).filter(any))
    pitch = draw(st.sampled_from([1, 2**21]))
    steps = draw(st.lists(st.integers(0, 100), min_size=smallest, max_size=largest, unique=True))
    strays = draw(st.lists(st.tuples(st.integers(900, 1100), st.integers(0, 200)), max_size=2))
    line = [(1000 + dx * step, dy * step) for step in steps]
    return [(pitch * x, pitch * y) for x, y in dict.fromkeys(line + strays)][:largest]


@st.composite
def _circles(draw: st.DrawFn, smallest: int, largest: int) -> list[Point]:
    """Points of one circle: 36 lie on that of squared radius 1105; some with its center."""
    radius = 33
    around = [
        (x, y)
        for x in range(-radius, radius + 1)
        for y in range(-radius, radius + 1)
        if x * x + y * y in (0, 1105)
    ]
    pitch = draw(st.sampled_from([1, 2**25]))
    middle = draw(st.integers(radius * pitch, LIMIT - 1 - radius * pitch))
    chosen = draw(_sets(st.sampled_from(around), smallest, largest))
    return [(middle + pitch * x, middle + pitch * y) for x, y in chosen]


@st.composite
def _corners(draw: st.DrawFn, smallest: int, largest: int) -> list[Point]:
    """Points crowded into the corners of the plane: the longest and the thinnest triangles."""
    edge = st.one_of(st.integers(0, 3), st.integers(LIMIT - 4, LIMIT - 1))
    return draw(_sets(st.tuples(edge, edge), smallest, largest))


def point_sets(smallest: int = 1, largest: int = 12) -> st.SearchStrategy[list[Point]]:
    """Distinct points in any order, half of the time from a tiny grid.

    Args:
        smallest: at least so many points, at most 36.
        largest: at most so many.
    """
    grids = _grids(smallest, largest)
    others = st.one_of(
        _lines(smallest, largest),
        _circles(smallest, largest),
        _corners(smallest, largest),
        _sets(points, smallest, largest),
    )
    return st.booleans().flatmap(lambda tiny: grids if tiny else others)
