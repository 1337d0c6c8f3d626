"""Compass routing: the parent and the children of a member in the tree of any root.

Its one rule: each member knows the tree of every root from its own ring alone, because a parent
is the neighbor in the direction closest to the root's, and the angles, compared as exact
integers, come out alike wherever they are compared.

In DT* the parents of one root form a tree: the power of the root with respect to the circles of
the triangles that a route walks through falls all the time, so no route closes. Greedy routing,
to the neighbor nearest to a point, is here too: it finds who is nearest to a point where no
member may be, but has no local rule for children.

Source: Kranakis, Singh and Urrutia, "Compass routing on geometric networks" (1999); Bose and
Morin, "Online routing in triangulations" (2004); the child rule and the ties are ours.
"""

from __future__ import annotations

from collections.abc import Collection

from opus_delaunay.geometry import P, Point, Ring, orient, squared_distance


def parent(o: Point, ring: Collection[P], root: Point) -> P | None:
    """The next member on the way from o to the root; the root itself when it is in the ring.

    Else the ring member c with the smallest angle (c, o, root); of mirror images the one nearer
    to the root, then the smaller address.

    Args:
        o: the member that asks.
        ring: its ring, or those members of it that may be used, in any order.
        root: any member.

    Returns:
        The parent; None for the root's own parent and where there is no neighbor.
    """
    if o == root:
        return None
    best: P | None = None
    for member in ring:
        if member == root:
            return member
        if best is None or _straighter(o, root, member, best):
            best = member
    return best


def children(v: Point, ring: Ring[P], root: Point) -> tuple[P, ...]:
    """The ring members whose parent toward the root is v, sorted by address.

    Exact while v's ring and theirs are those of DT*; no message is needed.

    Args:
        v: the origin of the ring.
        ring: the whole ring of v.
        root: any member, also v itself.
    """
    return tuple(sorted([c for c in ring if is_child(v, c, root, *ring.wedge(c))]))


def is_child(v: Point, c: Point, t: Point, a: Point | None, b: Point | None) -> bool:
    """Whether the parent of c toward the root t is v.

    The ray from c to t leaves c through one of the triangles at c, and the parent is one of that
    triangle's two other corners. So v is the parent if the ray runs through v, or if it enters
    the triangle on its side of the edge of v and c and v beats the third corner there. It does
    enter whenever v wins: on a ray beyond that triangle the third corner is straighter.

    Args:
        v: a member.
        c: a neighbor of v.
        t: the root.
        a, b: v's neighbors next to c, clockwise and counter-clockwise, as v's `Ring.wedge` of c
            names them; None where there is no triangle. The wedge of v that c tells in a Hello
            is the same two the other way round.
    """
    side = orient(c, v, t)
    if side == 0:
        return _ahead(c, t, v)
    corner, turn = (a, 1) if side > 0 else (b, -1)
    return (
        corner is not None and turn * orient(c, v, corner) > 0 and not _straighter(c, t, corner, v)
    )


def nearer(o: Point, ring: Ring[P], x: Point) -> P | None:
    """The ring member nearest to x, if it is strictly nearer to x than o is; else None.

    In DT* such steps end at the member nearest to x of all. A member that rejects x, because x
    fails its `Ring.passes`, always has such a step.
    """
    nearest = ring.nearest(x)
    if nearest is None or squared_distance(nearest, x) >= squared_distance(o, x):
        return None
    return nearest


def _straighter(o: Point, t: Point, a: Point, b: Point) -> bool:
    """Whether a makes a better parent of o toward t than b does."""
    ox, oy = o
    tx, ty = t
    ax, ay = a
    bx, by = b
    tx -= ox
    ty -= oy
    ax -= ox
    ay -= oy
    bx -= ox
    by -= oy
    along_a = ax * tx + ay * ty
    along_b = bx * tx + by * ty
    # The squared cosines with the signs of the cosines, over a common denominator.
    ahead = along_a * abs(along_a) * (bx * bx + by * by)
    ahead -= along_b * abs(along_b) * (ax * ax + ay * ay)
    if ahead:
        return ahead > 0
    return (squared_distance(a, t), a) < (squared_distance(b, t), b)


def _ahead(c: Point, t: Point, v: Point) -> bool:
    """Whether t and v, on one line with c, lie on the same side of it."""
    cx, cy = c
    tx, ty = t
    vx, vy = v
    return (tx - cx) * (vx - cx) + (ty - cy) * (vy - cy) > 0
