"""A star: ring and table hold the same members, and what it keeps in mind stays true."""

from __future__ import annotations

from delaunay_oracle import Point, point_sets
from hypothesis import given
from hypothesis import strategies as st
from lone_delaunay import contact, place

from opus_delaunay.geometry import Ring
from opus_delaunay.geometry import star as star_of
from opus_delaunay.star import MOST_HIDDEN, Star
from opus_socket.core.neighborhood import Patience

PATIENCE = Patience(suspect_after=2.25, fail_after=3.5, probe_interval=0.25, probes=5)


@given(point_sets(smallest=3, largest=12), st.lists(st.tuples(st.integers(0, 11), st.booleans())))
def test_ring_and_table_agree_and_whoever_is_hidden_stays_hidden_until_somebody_goes(
    points: list[Point], steps: list[tuple[int, bool]]
) -> None:
    """Members come and go in any order. The ring is the star of those who were let in, the table
    has the same members, and `hides` answers as the neighbor test itself would.
    """
    origin, *others = points
    star = Star.around(place(*origin), PATIENCE)
    for index, goes in steps:
        address = place(*others[index % len(others)])
        row = star.table.rows.get(address)
        before = star.number
        if row is not None and goes:
            star.remove(row)
        elif row is None and not star.hides(address):
            dropped = star.insert(address, contact(*address), 0.0)[1]
            assert all(gone.address not in star.ring for gone in dropped)
        else:
            assert star.number == before
        assert set(star.ring) == set(star.table.rows)
        assert star.ring.members == star_of(star.address, star.ring.members)
        fresh = Ring(star.address)
        for member in star.ring:
            fresh.insert(member)
        for other in others:
            assert star.hides(place(*other)) == (not fresh.passes(other))


def test_what_is_hidden_is_kept_in_mind_within_bounds() -> None:
    star = Star.around(place(0, 0), PATIENCE)
    star.insert(place(1, 1), contact(1, 1), 0.0)
    for number in range(2, 3 * MOST_HIDDEN):
        assert star.hides(place(number, number))
    assert star.hidden <= MOST_HIDDEN
