"""Exact geometry: which members are neighbors in the Delaunay triangulation DT*.

Its one rule: every decision is a comparison of exact integers with a total tie-break, so all
members that know the same points decide alike, also for collinear and cocircular points.

A point is a pair `(x, y)` of unsigned 32-bit integers; a subclass of tuple, such as a logical
address of two words, comes back as itself. Equal points are refused before they get here.

Ties. The in-circle test asks on which side of a plane a point lies once z = x^2 + y^2 is added
to each. When four points lie on one circle, the lexicographically smallest is lowered by an
infinitesimal. The heights of all points so perturbed have exactly one lower hull, and DT* is its
projection: every empty circle with more than three points is cut as a fan from its smallest
point. Points of one line form the path along it.

Source: the Delaunay overlay is Liebeherr, Nahas and Si, "Application-layer multicasting with
Delaunay triangulation overlays" (JSAC 2002); symbolic perturbation after Edelsbrunner and
Muecke, "Simulation of simplicity" (1990). The choice of the perturbation is ours.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator
from typing import Generic, TypeAlias, TypeVar

from attrs import define, field

from opus_socket.errors import LocalProtocolError

Point: TypeAlias = tuple[int, ...]
P = TypeVar("P", bound=Point)

_Spoke: TypeAlias = tuple[int, int, int, P]
"""A point as seen from the origin of a star: dx, dy, dx^2 + dy^2, and the point itself."""

_DIRECTION_BITS = 66


def orient(a: Point, b: Point, c: Point) -> int:
    """Twice the signed area of the triangle a, b, c: positive when c lies left of a -> b."""
    ax, ay = a
    bx, by = b
    cx, cy = c
    return (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)


def squared_distance(a: Point, b: Point) -> int:
    """The square of the Euclidean distance, exact where its root would not be."""
    ax, ay = a
    bx, by = b
    return (ax - bx) * (ax - bx) + (ay - by) * (ay - by)


def incircle(a: Point, b: Point, c: Point, d: Point) -> int:
    """Where d lies: positive inside the circle through a, b, c when these turn left.

    The sign turns over with the turn of a, b, c. On the circle itself the tie rule of the module
    decides; the result is 0 only when all four distinct points lie on one line.
    """
    dx, dy = d
    ax, ay = a
    bx, by = b
    cx, cy = c
    ax -= dx
    ay -= dy
    bx -= dx
    by -= dy
    cx -= dx
    cy -= dy
    determinant = (
        (ax * ax + ay * ay) * (bx * cy - by * cx)
        - (bx * bx + by * by) * (ax * cy - ay * cx)
        + (cx * cx + cy * cy) * (ax * by - ay * bx)
    )
    return determinant or _tie(a, b, c, d)


def _tie(a: Point, b: Point, c: Point, d: Point) -> int:
    """What lowering the smallest of four cocircular points adds to the determinant."""
    lowered = min(a, b, c, d)
    if lowered == a:
        return -orient(b, c, d)
    if lowered == b:
        return orient(a, c, d)
    if lowered == c:
        return -orient(a, b, d)
    return orient(a, b, c)


def direction(dx: int, dy: int) -> int:
    """A whole number that grows counter-clockwise with the angle of the vector, from 0 at (1, 0).

    Exact: two vectors get the same number if and only if they point the same way. The number is
    the angle measured along the diamond |x| + |y| = 1, a fraction whose denominator is below
    2^33. Different such fractions are more than 2^-66 apart, so 66 binary places tell them apart.

    Args:
        dx, dy: the vector, not null, each below 2^32 in size.

    Raises:
        LocalProtocolError: the null vector, which two equal points make.
    """
    size = abs(dx) + abs(dy)
    if not size:
        raise LocalProtocolError("two members with equal coordinates; each needs its own")
    return ((size - dx if dy >= 0 else 3 * size + dx) << _DIRECTION_BITS) // size


def star(o: P, points: Iterable[P]) -> tuple[P, ...]:
    """The neighbors of o in DT* of o and the points, by direction from that of (1, 0).

    Args:
        o: the point in question; if it is among the points it counts once.
        points: all the others, in any order.

    Returns:
        The neighbors, counter-clockwise.

    O(d log d). The points scaled to p / |p|^2 around o, the polar dual of the Voronoi cell, have
    the neighbors as corners of their convex hull; this is Graham's scan of that hull, begun at
    the nearest point, which always is a corner.
    """
    spokes = _one_per_ray(o, points)
    if not spokes:
        return ()
    nearest = min(range(len(spokes)), key=lambda i: spokes[i][2])
    kept: list[_Spoke[P]] = []
    for spoke in spokes[nearest:] + spokes[: nearest + 1]:
        while len(kept) > 1 and _hidden(o, kept[-2], kept[-1], spoke):
            kept.pop()
        kept.append(spoke)
    standing = set(kept)
    return tuple([spoke[3] for spoke in spokes if spoke in standing])


def _one_per_ray(o: P, points: Iterable[P]) -> list[_Spoke[P]]:
    """The nearest point of each ray from o, counter-clockwise."""
    nearest: dict[int, _Spoke[P]] = {}
    for point in points:
        if point != o:
            spoke = _spoke(o, point)
            ray = direction(spoke[0], spoke[1])
            other = nearest.get(ray)
            if other is None or spoke[2] < other[2]:
                nearest[ray] = spoke
    return [nearest[ray] for ray in sorted(nearest)]


def _spoke(o: Point, point: P) -> _Spoke[P]:
    ox, oy = o
    px, py = point
    dx = px - ox
    dy = py - oy
    return dx, dy, dx * dx + dy * dy, point


def _hidden(o: Point, before: _Spoke[P], middle: _Spoke[P], after: _Spoke[P]) -> bool:
    """Whether the edge to `middle` falls to the triangle of o, `before` and `after`.

    The three are in counter-clockwise order. It is not when a gap of 180 degrees or more would
    be left: then `whole` is not positive, and so the excess is negative.
    """
    ux, uy, uz, u = before
    vx, vy, vz, v = middle
    wx, wy, wz, w = after
    first = ux * vy - uy * vx
    second = vx * wy - vy * wx
    if first <= 0 or second <= 0:
        return False
    whole = ux * wy - uy * wx
    excess = vz * whole - uz * second - wz * first
    return excess > 0 if excess else _tie(o, u, w, v) < 0


@define(eq=False)
class Ring(Generic[P]):
    """The neighbors of one member, finished: always equal to `star(origin, ring)`.

    Iterates counter-clockwise. A ring grows by `insert` of points that pass and shrinks by
    `remove`; it does not remember what it dropped, so after a removal the caller offers again
    whomever it heard of.

    Attributes:
        origin: the member in the middle, which is never in its own ring.
    """

    # Parallel and sorted by direction. The dictionary gives a member's direction, hence its
    # place by bisection, and makes the commonest question, membership, the cheapest.
    origin: P
    _directions: list[int] = field(init=False, factory=list, repr=False)
    _spokes: list[_Spoke[P]] = field(init=False, factory=list, repr=False)
    _direction_of: dict[Point, int] = field(init=False, factory=dict, repr=False)
    _last: Point | None = field(init=False, default=None, repr=False)
    _last_ray: int = field(init=False, default=0, repr=False)

    def __contains__(self, x: object) -> bool:
        return x in self._direction_of

    def __len__(self) -> int:
        return len(self._spokes)

    def __iter__(self) -> Iterator[P]:
        return iter(self.members)

    @property
    def members(self) -> tuple[P, ...]:
        """The neighbors counter-clockwise, the first at or after the direction of (1, 0)."""
        return tuple([spoke[3] for spoke in self._spokes])

    def passes(self, x: Point) -> bool:
        """Whether x belongs to the star of origin, ring and x; true for a member of the ring.

        Raises:
            LocalProtocolError: x is the origin itself.
        """
        if x in self._direction_of:
            return True
        ox, oy = self.origin
        px, py = x
        dx = px - ox
        dy = py - oy
        ray = self._ray(x, dx, dy)
        directions = self._directions
        if not directions:
            return True
        place = bisect_left(directions, ray)
        if place == len(directions):
            place = 0
        ax, ay, az, a = self._spokes[place - 1]
        bx, by, bz, b = self._spokes[place]
        if directions[place] == ray:
            return dx * dx + dy * dy < bz
        turn = ax * by - ay * bx
        if turn <= 0:
            return True
        excess = (dx * dx + dy * dy) * turn - az * (dx * by - dy * bx) - bz * (ax * dy - ay * dx)
        return excess < 0 if excess else _tie(self.origin, a, b, x) > 0

    def wedge(self, x: Point) -> tuple[P | None, P | None]:
        """The ring members next to the direction of x, clockwise and counter-clockwise of it.

        None stands for one that is 180 degrees or more away (x or the origin is at the border,
        or the ring is a line), or that does not exist. A member on the ray of x itself, x or
        another, is passed over: it is x's place that is asked for.

        Raises:
            LocalProtocolError: x is the origin itself.
        """
        return self._wedge(x)[:2]

    def wedge_for_reject(self, x: Point) -> tuple[P | None, P | None]:
        """The wedge to tell to x, which does not pass: names also a member on x's own ray.

        Without it the members of one line would not learn who stands between them. It takes the
        counter-clockwise place if that is empty, else the clockwise one.

        Raises:
            LocalProtocolError: x is the origin itself.
        """
        clockwise, counter_clockwise, on_ray = self._wedge(x)
        if on_ray is None or on_ray == x:
            return clockwise, counter_clockwise
        if counter_clockwise is None:
            return clockwise, on_ray
        return on_ray, counter_clockwise

    def _wedge(self, x: Point) -> tuple[P | None, P | None, P | None]:
        """Clockwise, counter-clockwise, and the member on the ray of x."""
        spokes = self._spokes
        if not spokes:
            return None, None, None
        dx, dy, _, _ = _spoke(self.origin, x)
        ray = self._ray(x, dx, dy)
        place = bisect_left(self._directions, ray)
        ax, ay, _, a = spokes[place - 1]
        on_ray = None
        if place < len(spokes) and self._directions[place] == ray:
            on_ray = spokes[place][3]
            place += 1
        bx, by, _, b = spokes[place % len(spokes)]
        return (
            a if ax * dy - ay * dx > 0 else None,
            b if dx * by - dy * bx > 0 else None,
            on_ray,
        )

    def insert(self, x: P) -> tuple[P, ...]:
        """Take in x, which passes, and drop the members that fail because of it.

        Looks only at the members around x, outward until one stands.

        Returns:
            The dropped members: the one behind x, then clockwise from x, then counter-clockwise.

        Raises:
            LocalProtocolError: x does not pass, or is the origin itself.
        """
        if x in self._direction_of:
            return ()
        if not self.passes(x):
            raise LocalProtocolError(
                f"{x!r} is no neighbor of {self.origin!r}; only a point that passes is inserted"
            )
        spokes = self._spokes
        new = _spoke(self.origin, x)
        ray = self._ray(x, new[0], new[1])
        place = bisect_left(self._directions, ray)
        dropped: list[P] = []
        if place < len(spokes) and self._directions[place] == ray:
            dropped.append(self._drop(place))
        self._directions.insert(place, ray)
        spokes.insert(place, new)
        self._direction_of[x] = ray
        while _hidden(self.origin, spokes[(place - 2) % len(spokes)], spokes[place - 1], new):
            dropped.append(self._drop(place - 1))
            place = place - 1 if place else 0
        while True:
            after = (place + 1) % len(spokes)
            beyond = (place + 2) % len(spokes)
            if not _hidden(self.origin, new, spokes[after], spokes[beyond]):
                return tuple(dropped)
            dropped.append(self._drop(after))
            if after < place:
                place -= 1

    def remove(self, x: P) -> None:
        """Take out x. What is left is the star of what is left.

        Raises:
            LocalProtocolError: x is not in the ring.
        """
        ray = self._direction_of.get(x)
        if ray is None:
            raise LocalProtocolError(f"{x!r} is not in the ring of {self.origin!r}")
        self._drop(bisect_left(self._directions, ray))

    def _ray(self, x: Point, dx: int, dy: int) -> int:
        """The direction of x. Of somebody new it is asked for several times in a row."""
        ray = self._direction_of.get(x)
        if ray is None:
            if x != self._last:
                self._last, self._last_ray = x, direction(dx, dy)
            return self._last_ray
        return ray

    def _drop(self, place: int) -> P:
        del self._directions[place]
        point = self._spokes.pop(place)[3]
        del self._direction_of[point]
        return point

    def nearest(self, x: Point) -> P | None:
        """The member nearest to x, of equally near ones the smallest; None of an empty ring."""
        px, py = x
        best: P | None = None
        least = 0
        for _, _, _, point in self._spokes:
            qx, qy = point
            distance = (px - qx) * (px - qx) + (py - qy) * (py - qy)
            if best is None or distance < least or (distance == least and point < best):
                best, least = point, distance
        return best
