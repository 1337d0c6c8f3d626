"""Values that merge, and what members of an aggregation say to each other."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from contextlib import suppress
from functools import reduce
from math import inf, nan
from random import Random
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from opus_socket.core.addresses import LogicalAddress
from opus_socket.errors import RemoteProtocolError
from opus_socket.services.aggregates import Partial
from opus_socket.services.collecting import Outcome, Report, Round, are_edges, read

# Whole numbers of which sums are exact, so that no order rounds otherwise.
numbers = st.integers(-(1 << 40), 1 << 40).map(float)
sorted_edges = st.lists(numbers, max_size=5, unique=True).map(lambda edges: tuple(sorted(edges)))
members = st.lists(st.tuples(st.none() | numbers, st.integers(0, 9)), min_size=1, max_size=20)
roots = LogicalAddress((3, 4))


@given(members, sorted_edges, st.integers(0, 1 << 16))
def test_parts_merge_to_what_plain_python_says(
    said: list[tuple[float | None, int]], edges: tuple[float, ...], seed: int
) -> None:
    """In whatever order and grouping they meet."""
    rng = Random(seed)
    parts = [Partial.of(value, edges, depth) for value, depth in said]
    while len(parts) > 1:
        rng.shuffle(parts)
        parts = [*parts[2:], parts[0].merge(parts[1])]
    [whole] = parts
    values = [value for value, _ in said if value is not None]
    assert (whole.members, whole.idle, whole.missing) == (len(values), len(said) - len(values), 0)
    assert whole.total == sum(values)
    assert (whole.minimum, whole.maximum) == (min(values, default=inf), max(values, default=-inf))
    assert whole.deepest == max(depth for _, depth in said)
    buckets = Counter(bisect_right(edges, value) for value in values)
    expected = tuple(buckets[index] for index in range(len(edges) + 1)) if edges else ()
    assert whole.counts == expected
    assert Partial.from_wire(whole.wire, edges) == whole


def test_buckets_of_a_histogram_begin_at_their_edges() -> None:
    parts = [Partial.of(value, (0.0, 10.0), 0) for value in (-1.0, 0.0, 9.9, 10.0, 11.0)]
    assert reduce(Partial.merge, parts).counts == (1, 2, 2)


@given(st.binary(max_size=60), sorted_edges)
def test_any_bytes_are_a_part_or_refused(body: bytes, edges: tuple[float, ...]) -> None:
    with suppress(RemoteProtocolError):
        assert Partial.from_wire(body, edges).wire == body


GOOD = Partial(2, 1, 0, 3, 5.0, 2.0, 3.0, (1, 1))


@pytest.mark.parametrize(
    "change",
    [
        {"total": nan},
        {"total": inf},
        {"minimum": 4.0},
        {"maximum": 1e300},
        {"minimum": nan},
        {"members": 0},
        {"members": 3},
        {"counts": (2,)},
        {"counts": (1, 0)},
        {"counts": ()},
        {"deepest": 1025},
    ],
)
def test_parts_that_no_member_makes_are_refused(change: dict[str, Any]) -> None:
    assert Partial.from_wire(GOOD.wire, (1.0,)) == GOOD
    with pytest.raises(RemoteProtocolError) as refused:
        Partial.from_wire(evolve(GOOD, **change).wire, (1.0,))
    assert refused.value.kind == "bad_partial"


def test_sums_above_all_bounds_are_written_as_the_largest() -> None:
    """Nothing that remotes claim can make a member that merges it fail."""
    large = Partial((1 << 32) - 1, 0, 0, 0, 1e299, 1e289, 1e290, ())
    whole = large.merge(large).merge(large)
    assert Partial.from_wire(whole.wire, ()).members == (1 << 32) - 1


@given(st.integers(0, (1 << 64) - 1), st.integers(1, 9), st.text(min_size=1, max_size=9))
def test_what_is_said_is_understood(query: int, number: int, name: str) -> None:
    edges = (1.0, 2.5)
    partial = Partial.of(2.0, edges, 3)
    for said in (
        Round(query, number, 1024, 7, name, edges),
        Report(query, number, partial.wire),
        Outcome(query, number, name, edges, partial),
    ):
        assert read(said.wire) == said


@given(st.binary(max_size=80) | st.binary(max_size=60).map(lambda tail: b"\x00" * 13 + tail))
def test_any_bytes_say_something_or_are_refused(body: bytes) -> None:
    with suppress(RemoteProtocolError):
        assert read(body).wire == body


ROUND = Round(7, 1, 9, 3, "load", (1.0, 2.0))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "truncated"),
        (b"\x09" + ROUND.wire[1:], "kind"),
        (ROUND.wire[:-1], "truncated"),
        (ROUND.wire + b"x", "bad_round"),
        (evolve(ROUND, hops=0).wire, "bad_round"),
        (evolve(ROUND, hops=1025).wire, "bad_round"),
        (evolve(ROUND, levels=1025).wire, "bad_round"),
        (evolve(ROUND, number=0).wire, "bad_round"),
        (evolve(ROUND, name="").wire, "bad_name"),
        (evolve(ROUND, edges=(2.0, 2.0)).wire, "bad_name"),
        (evolve(ROUND, edges=(nan,)).wire, "bad_name"),
        (ROUND.wire.replace(b"load", b"lo\xffd"), "bad_name"),
        (Outcome(7, 1, "load", (), GOOD).wire, "bad_partial"),
    ],
)
def test_what_nobody_said_is_refused_by_name(body: bytes, kind: str) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        read(body)
    assert refused.value.kind == kind


def test_edges_ascend_and_are_not_too_many() -> None:
    assert are_edges(())
    assert are_edges(tuple(map(float, range(256))))
    assert not are_edges(tuple(map(float, range(257))))
    assert not are_edges((inf,))


def test_an_outcome_without_values_has_no_mean() -> None:
    told = Outcome(7, 3, "load", (), Partial.of(None, (), 0)).aggregate(roots)
    assert (told.members, told.idle, told.sum) == (0, 1, 0.0)
    assert (told.minimum, told.maximum, told.mean) == (None, None, None)
    told = Outcome(7, 3, "load", (1.0,), GOOD).aggregate(roots)
    assert (told.name, told.root, told.round, told.mean) == ("load", roots, 3, 2.5)
    assert (told.minimum, told.maximum, told.histogram) == (2.0, 3.0, (1, 1))
