"""The neighborhood table: silence makes suspects, and only silence under probes ends a row."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opus_socket.core.addresses import Contact, Endpoint, LogicalAddress
from opus_socket.core.neighborhood import Inspection, Neighborhood, Patience, Row

PATIENCE = Patience(suspect_after=2.25, fail_after=3.5, probe_interval=0.25, probes=5)


def contact(number: int) -> Contact:
    return Contact(LogicalAddress((number, number)), 1, 0, (Endpoint("10.0.0.1", 1 + number),))


def row(number: int, now: float) -> Row:
    return Row(LogicalAddress((number, number)), contact(number), now, now)


def table(*numbers: int, now: float = 0.0) -> Neighborhood[Row]:
    neighborhood: Neighborhood[Row] = Neighborhood(PATIENCE)
    for number in numbers:
        neighborhood.add(row(number, now))
    return neighborhood


def inspect(neighborhood: Neighborhood[Row], until: float) -> tuple[list[float], list[float]]:
    """Inspect whenever it is due; returns when somebody was probed, and when given up."""
    probed: list[float] = []
    failed: list[float] = []
    now = 0.0
    while now <= until:
        inspection = neighborhood.inspect(now)
        probed += [now] * len(inspection.probe)
        failed += [now] * len(inspection.failed)
        for gone in inspection.failed:
            neighborhood.remove(gone.address)
        assert inspection.next_at > now
        now = inspection.next_at
    return probed, failed


def test_contacts_are_sorted_by_logical_address() -> None:
    neighborhood = table(3, 1, 2)
    assert neighborhood.contacts == (contact(1), contact(2), contact(3))
    assert len(neighborhood) == 3
    assert [neighbor.address[0] for neighbor in neighborhood] == [3, 1, 2]


def test_contacts_follow_every_change() -> None:
    neighborhood = table(1, 2)
    assert list(neighborhood.contacts) == [contact(1), contact(2)]
    neighborhood.add(row(0, 0.0))
    assert list(neighborhood.contacts) == [contact(0), contact(1), contact(2)]
    neighborhood.remove(LogicalAddress((1, 1)))
    assert list(neighborhood.contacts) == [contact(0), contact(2)]
    moved = contact(7).at(LogicalAddress((2, 2)))
    neighborhood.replace(neighborhood.rows[LogicalAddress((2, 2))], moved)
    assert list(neighborhood.contacts) == [contact(0), moved]
    neighborhood.clear()
    assert list(neighborhood.contacts) == []
    assert LogicalAddress((2, 2)) not in neighborhood


def test_removing_nobody_says_so() -> None:
    assert table(1).remove(LogicalAddress((2, 2))) is None


def test_an_empty_table_needs_no_inspection() -> None:
    assert table().inspect(5.0) == Inspection((), (), inf)


def test_a_silent_neighbor_is_probed_and_then_given_up() -> None:
    probed, failed = inspect(table(1), until=10.0)
    assert probed == [2.25, 2.5, 2.75, 3.0, 3.25]
    assert failed == [3.5]


def test_a_neighbor_that_answers_a_probe_stays() -> None:
    neighborhood = table(1)
    (neighbor,) = neighborhood
    assert neighborhood.inspect(3.4).probe == (neighbor,)
    assert neighbor.suspected_at == 3.4
    neighbor.confirm(3.45)
    assert neighbor.suspected_at is None
    assert neighborhood.inspect(4.0) == Inspection((), (), 3.45 + 2.25)


def test_being_heard_without_being_confirmed_does_not_count() -> None:
    """A link that works one way only is down at both ends."""
    neighborhood = table(1)
    (neighbor,) = neighborhood
    neighbor.received_at = 3.4
    neighborhood.inspect(2.25)
    neighbor.received_at = 3.49
    assert neighborhood.inspect(3.5).failed == (neighbor,)


def test_a_late_inspection_still_probes_before_it_gives_up() -> None:
    """However late the first look is, every probe gets its time to be answered."""
    neighborhood = table(1)
    (neighbor,) = neighborhood
    assert neighborhood.inspect(9.0).probe == (neighbor,)
    assert neighborhood.inspect(10.24).failed == ()
    assert neighborhood.inspect(10.25).failed == (neighbor,)


def test_a_doubted_neighbor_is_probed_at_once_and_given_up_soon() -> None:
    neighborhood = table(1)
    (neighbor,) = neighborhood
    neighborhood.doubt(neighbor, 1.0)
    assert neighborhood.inspect(1.0).probe == (neighbor,)
    assert neighborhood.inspect(2.24).failed == ()
    assert neighborhood.inspect(2.25).failed == (neighbor,)


def test_doubt_does_not_add_to_older_doubt() -> None:
    neighborhood = table(1)
    (neighbor,) = neighborhood
    neighborhood.inspect(3.0)
    neighborhood.doubt(neighbor, 3.0)
    assert neighbor.confirmed_at == 0.0


@pytest.mark.parametrize("heard_after", [0.0, 0.5])
def test_a_shift_forgives_the_time_asleep_but_not_more(heard_after: float) -> None:
    """What came in after the sleep is not moved into the future."""
    neighborhood = table(1)
    (neighbor,) = neighborhood
    if heard_after:
        neighbor.confirm(20.0)
    neighborhood.shift(19.0, 20.0)
    assert neighbor.confirmed_at == (20.0 if heard_after else 19.0)
    assert neighborhood.inspect(20.5) == Inspection((), (), neighbor.confirmed_at + 2.25)


@given(
    confirmed=st.lists(st.floats(0.01, 2.0), min_size=1, max_size=12),
    late=st.floats(0.0, 30.0),
    asleep_before=st.floats(0.0, 2.0),
)
@example(confirmed=[1.0], late=30.0, asleep_before=2.0)
def test_who_confirms_in_time_is_never_a_suspect(
    confirmed: list[float], late: float, asleep_before: float
) -> None:
    """A neighbor that confirms within two heartbeats stays without a probe, also if this member
    sleeps in between for as long as it likes.
    """
    neighborhood = table(1)
    (neighbor,) = neighborhood
    now = 0.0
    for gap in confirmed:
        now += gap
        inspection = neighborhood.inspect(now)
        assert (inspection.probe, inspection.failed) == ((), ())
        neighbor.confirm(now)
    now += asleep_before + late
    neighborhood.shift(late, now)
    inspection = neighborhood.inspect(now)
    assert (inspection.probe, inspection.failed) == ((), ())


@given(st.lists(st.tuples(st.floats(0.05, 3.0), st.booleans()), max_size=30))
def test_nobody_is_given_up_before_its_time_and_its_probes(steps: list[tuple[float, bool]]) -> None:
    """Given up means: silent for the whole time, and probed for the whole time of the probes."""
    neighborhood = table(1)
    (neighbor,) = neighborhood
    now = confirmed_at = 0.0
    first_probe: float | None = None
    for gap, confirms in steps:
        now += gap
        inspection = neighborhood.inspect(now)
        if inspection.probe and first_probe is None:
            first_probe = now
        if inspection.failed:
            assert now - confirmed_at >= PATIENCE.fail_after - 1e-9
            assert first_probe is not None
            assert now - first_probe >= PATIENCE.probes * PATIENCE.probe_interval - 1e-9
            return
        assert inspection.next_at > now
        if confirms:
            neighbor.confirm(now)
            confirmed_at, first_probe = now, None
