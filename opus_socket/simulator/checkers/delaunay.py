"""What a legitimate Delaunay overlay is: the triangulation DT* of all its members.

Its one rule: exact integers only, and every decision independent of the order of the input.

DT* is the Delaunay triangulation in which four cocircular points keep the diagonal that
contains the lexicographically smallest of them: every empty cocircular cell becomes the fan
from its smallest corner. It is the lower hull of the lifted points after each was lowered by
an infinitesimal that shrinks from point to point in lexicographic order, hence unique, and
any exact algorithm for points in general position finds it once its in-circle test decides
ties that way. Points on one line form the path along it.

The algorithm is divide and conquer (Guibas and Stolfi 1985, "Primitives for the manipulation
of general subdivisions", section 9): O(n log n) also for grids, lines and circles. The
protocol's node grows single stars instead; the two meet only in the answer.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise

from attrs import define, frozen

Point = tuple[int, int]


@frozen
class Discrepancy:
    """How one member's neighbors differ from those that DT* gives it."""

    member: Point
    """The member's coordinates."""
    missing: tuple[Point, ...]
    """Neighbors in DT* that the member lacks, sorted."""
    surplus: tuple[Point, ...]
    """Neighbors of the member that DT* does not give it, sorted."""


def reference_triangulation(points: Sequence[Point]) -> dict[Point, tuple[Point, ...]]:
    """Return DT* of the points: each point with its sorted neighbors, in sorted order.

    Coordinates are integers of any size and sign. Raises ValueError when a point occurs twice.
    """
    ordered = sorted(points)
    for first, second in pairwise(ordered):
        if first == second:
            raise ValueError(f"point {first} occurs twice; points must be distinct")
    if len(ordered) < 2:
        return dict.fromkeys(ordered, ())
    mesh = _Mesh.of(ordered)
    mesh.triangulate(0, len(ordered))
    return {
        point: tuple([ordered[neighbor] for neighbor in sorted(mesh.after[index])])
        for index, point in enumerate(ordered)
    }


def discrepancies(tables: Mapping[Point, Collection[Point]]) -> tuple[Discrepancy, ...]:
    """Compare the neighbors that every member reports with DT*; empty when legitimate.

    `tables` maps the coordinates of each member to those of its neighbors. Since DT* is
    symmetric, an empty answer also says that the tables are.
    """
    found = []
    for member, expected in reference_triangulation(tuple(tables)).items():
        reported = frozenset(tables[member])
        missing = tuple(point for point in expected if point not in reported)
        surplus = tuple(sorted(reported.difference(expected)))
        if missing or surplus:
            found.append(Discrepancy(member, missing, surplus))
    return tuple(found)


@define(eq=False)
class _Mesh:
    """Edges between points that are numbered in lexicographic order.

    `after[v][w]` is the neighbor of v that follows w counterclockwise around v, `before`
    its inverse. The numbering makes "lexicographically smallest" the smallest number.
    """

    xs: list[int]
    ys: list[int]
    after: list[dict[int, int]]
    before: list[dict[int, int]]

    @classmethod
    def of(cls, ordered: Sequence[Point]) -> _Mesh:
        return cls(
            xs=[x for x, _ in ordered],
            ys=[y for _, y in ordered],
            after=[{} for _ in ordered],
            before=[{} for _ in ordered],
        )

    def triangulate(self, low: int, high: int) -> tuple[int, int]:
        """Triangulate the points low..high-1, of which there are at least two.

        Returns the point after `low` counterclockwise on the hull, and the one after
        `high - 1` clockwise: where a walk to the lower tangent starts on either side.
        """
        if high - low <= 3:
            return self._smallest(low, high)
        middle = (low + high) // 2
        outer_left, inner_left = self.triangulate(low, middle)
        inner_right, outer_right = self.triangulate(middle, high)
        left, right = self._bridge(middle, inner_left, inner_right)
        if left == low:
            outer_left = right
        if right == high - 1:
            outer_right = left
        self._sew(left, right)
        return outer_left, outer_right

    def _smallest(self, low: int, high: int) -> tuple[int, int]:
        last = high - 1
        if high - low == 2:
            self._ring(low, [last])
            self._ring(last, [low])
            return last, low
        middle = low + 1
        turn = self._orient(low, middle, last)
        self._ring(low, [middle, last] if turn else [middle])
        self._ring(middle, [low, last])
        self._ring(last, [low, middle] if turn else [middle])
        return (last, low) if turn < 0 else (middle, middle)

    def _ring(self, center: int, neighbors: list[int]) -> None:
        following = neighbors[1:] + neighbors[:1]
        self.after[center] = dict(zip(neighbors, following, strict=True))
        self.before[center] = dict(zip(following, neighbors, strict=True))

    def _bridge(self, middle: int, below_left: int, below_right: int) -> tuple[int, int]:
        """Add the lower common tangent of the two halves next to `middle`; return its ends.

        Both walks start at the innermost points and move only for a strictly lower tangent,
        so that among collinear points the tangent joins the nearest two.
        """
        left, right = middle - 1, middle
        while True:
            if self._orient(left, below_left, right) > 0:
                left, below_left = below_left, self.before[below_left][left]
            elif self._orient(right, below_right, left) < 0:
                right, below_right = below_right, self.after[below_right][right]
            else:
                break
        self._insert(left, below_left, right)
        self._insert(right, self.before[right][below_right], left)
        return left, right

    def _sew(self, left: int, right: int) -> None:
        """Close the gap above the edge left-right, triangle by triangle."""
        after, before = self.after, self.before
        while True:
            on_left = self._candidate(left, right, left, after)
            on_right = self._candidate(left, right, right, before)
            if on_left is not None and (
                on_right is None or not self._encloses(left, right, on_left, on_right)
            ):
                self._insert(right, before[right][left], on_left)
                self._insert(on_left, left, right)
                left = on_left
            elif on_right is not None:
                self._insert(left, right, on_right)
                self._insert(on_right, before[on_right][right], left)
                right = on_right
            else:
                return

    def _candidate(
        self, left: int, right: int, end: int, around: list[dict[int, int]]
    ) -> int | None:
        """Return the best third corner over left-right among the neighbors of one `end`.

        `around` turns from the base into the gap: `after` at the left end, `before` at the
        right. Edges whose circle holds the next neighbor are no part of the merged mesh.
        """
        ring = around[end]
        candidate = ring[right if end == left else left]
        if self._orient(left, right, candidate) <= 0:
            return None
        while self._encloses(left, right, candidate, ring[candidate]):
            following = ring[candidate]
            self._delete(end, candidate)
            candidate = following
        return candidate

    def _insert(self, center: int, previous: int, new: int) -> None:
        after, before = self.after[center], self.before[center]
        following = after[previous]
        after[previous] = before[following] = new
        after[new], before[new] = following, previous

    def _delete(self, one: int, other: int) -> None:
        for center, gone in ((one, other), (other, one)):
            following, previous = self.after[center].pop(gone), self.before[center].pop(gone)
            self.after[center][previous] = following
            self.before[center][following] = previous

    def _orient(self, a: int, b: int, c: int) -> int:
        """Positive when c lies to the left of a -> b, 0 on the line."""
        xs, ys = self.xs, self.ys
        x, y = xs[a], ys[a]
        return (xs[b] - x) * (ys[c] - y) - (ys[b] - y) * (xs[c] - x)

    def _encloses(self, a: int, b: int, c: int, d: int) -> bool:
        """Whether the circle through the counterclockwise a, b, c holds d, ties decided."""
        xs, ys = self.xs, self.ys
        x, y = xs[d], ys[d]
        ax, ay = xs[a] - x, ys[a] - y
        bx, by = xs[b] - x, ys[b] - y
        cx, cy = xs[c] - x, ys[c] - y
        determinant = (
            (ax * ax + ay * ay) * (bx * cy - by * cx)
            + (bx * bx + by * by) * (cx * ay - cy * ax)
            + (cx * cx + cy * cy) * (ax * by - ay * bx)
        )
        if determinant:
            return determinant > 0
        return self._wins_tie(a, b, c, d)

    def _wins_tie(self, a: int, b: int, c: int, d: int) -> bool:
        """Whether the diagonal at d wins the cocircular quadrangle of a, b, c and d.

        That diagonal joins d to the corner from which one of the other sides cuts it off.
        A ring of two neighbors leads back to the base, where d is a or b: no quadrangle.
        """
        if d in (a, b, c):
            return False
        if self._orient(b, c, d) < 0:
            opposite = a
        elif self._orient(c, a, d) < 0:
            opposite = b
        else:
            opposite = c
        return min(a, b, c, d) in (d, opposite)
