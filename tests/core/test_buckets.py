"""Token buckets and turns, against an oracle that counts tokens in exact fractions."""

from __future__ import annotations

from collections import deque
from fractions import Fraction
from itertools import accumulate, cycle
from math import inf, nan

import pytest
from attrs import define, field
from hypothesis import example, given
from hypothesis import strategies as st

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.buckets import Bandwidth, Bucket, Buckets, Direction, Limit, check_direction
from opus_socket.core.shaper import QUANTUM, Shaper
from opus_socket.errors import LocalProtocolError

IN, OUT, TOTAL = Direction.IN, Direction.OUT, Direction.TOTAL
A, B, C = (LogicalAddress((number, 0)) for number in range(3))
NEAR = 1e-6
INTERVAL = Fraction(1, 10)

Key = tuple[Direction, LogicalAddress | None]
KEYS: tuple[Key, ...] = ((IN, None), (OUT, None), (TOTAL, None), (IN, A), (OUT, A), (OUT, B))

sizes = st.integers(1, 65_535)
rates = st.integers(1_000, 50_000_000)


@define
class Tokens:
    """The oracle: a bucket that counts what is in it."""

    rate: Fraction
    count: Fraction = field(init=False)
    at: Fraction = Fraction(0)

    def __attrs_post_init__(self) -> None:
        self.count = self.rate * INTERVAL

    def pass_time(self, until: Fraction) -> None:
        brought = self.rate * (until - self.at)
        self.at, self.count = until, min(self.rate * INTERVAL, self.count + brought)

    def enough_at(self, size: int) -> Fraction:
        """When it holds so much, or all that it can hold."""
        wanted = min(Fraction(size), self.rate * INTERVAL)
        return self.at + max(Fraction(0), (wanted - self.count) / self.rate)

    def change(self, rate: int) -> None:
        self.rate = Fraction(rate)
        self.count = min(self.count, rate * INTERVAL)

    @property
    def tolerance(self) -> float:
        return NEAR * float(self.rate) + NEAR


@define(eq=False)
class Messages:
    """A flow of messages that cannot be cut."""

    direction: Direction
    link: LogicalAddress | None
    sizes: deque[int]
    gone: int = 0

    def head(self, most: int) -> int:
        return self.sizes[0] if self.sizes else 0

    def go(self) -> int:
        size = self.sizes.popleft()
        self.gone += size
        return size


def shaper(*limits: Limit) -> Shaper:
    return Shaper(Buckets.of(Bandwidth(limits)))


def take(shaper: Shaper, now: float) -> list[tuple[Messages, int]]:
    """Who goes now, with how much."""
    went = []
    while (flow := shaper.next(now)) is not None:
        assert isinstance(flow, Messages)
        went.append((flow, flow.go()))
    return went


# One bucket


@given(
    rate=rates,
    steps=st.lists(
        st.tuples(st.floats(0, 0.5), sizes, st.one_of(st.none(), rates)), min_size=1, max_size=40
    ),
)
@example(rate=1_000, steps=[(0.0, 65_535, None), (0.0, 1, 50_000_000), (0.0, 1, 1_000)])
def test_a_bucket_lets_go_when_exact_counting_does(
    rate: int, steps: list[tuple[float, int, int | None]]
) -> None:
    """For any messages, pauses and changes of rate, each may go at the instant at which the
    oracle has enough tokens for it.
    """
    bucket, tokens = Bucket(rate, 0.1), Tokens(Fraction(rate))
    for pause, size, change in steps:
        tokens.pass_time(tokens.at + Fraction(pause))
        if change is not None:
            bucket.change(change, float(tokens.at))
            tokens.change(change)
        enough_at = tokens.enough_at(size)
        ready_at = max(bucket.ready_at(size), float(tokens.at))
        assert ready_at == pytest.approx(float(enough_at), abs=NEAR)
        tokens.pass_time(enough_at)
        tokens.count -= size
        bucket.pay(size, float(tokens.at))
        held = bucket.holds(float(tokens.at))
        assert held == pytest.approx(float(tokens.count), abs=tokens.tolerance)


@given(rate=rates, messages=st.lists(sizes, min_size=1, max_size=40))
def test_no_burst_is_longer_than_configured(rate: int, messages: list[int]) -> None:
    """Whatever waits, no span of time carries more than `rate * span` and one burst, which is
    `max(rate * interval, longest message)`.
    """
    machine, times = shaper(Limit(OUT, rate)), []
    machine.enlist(Messages(OUT, None, deque(messages)))
    now = 0.0
    while now < inf:
        times += [now for _ in take(machine, now)]
        now = machine.next_at
    assert len(times) == len(messages)
    burst = max(rate * 0.1, max(messages))
    before = [0, *accumulate(messages)]
    for first, start in enumerate(times):
        for last in range(first, len(times)):
            carried = before[last + 1] - before[first]
            assert carried <= burst + rate * (times[last] - start + NEAR)


@given(
    changes=st.lists(st.tuples(rates, st.floats(10, 30)), min_size=1, max_size=4),
    pattern=st.lists(sizes, min_size=1),
)
def test_the_long_run_rate_is_what_was_configured(
    changes: list[tuple[int, float]], pattern: list[int]
) -> None:
    """Of messages of any sizes, a saturated bucket lets go what it was configured to, within
    2 percent of every span without a change, besides one burst.
    """
    fastest = max(rate for rate, _ in changes)
    # Whole multiples, so that some hundred messages last for the whole span.
    unit = max(1, fastest // (10 * max(pattern)))
    bucket, now = Bucket(changes[0][0], 0.1), 0.0
    messages = cycle(size * unit for size in pattern)
    size, debt = next(messages), 0.0
    for rate, span in changes:
        bucket.change(rate, now)
        end, sent = now + span, 0
        held = bucket.holds(now)
        while (at := max(now, bucket.ready_at(size))) <= end:
            now = at
            bucket.pay(size, now)
            sent += size
            size = next(messages)
        now = end
        debt = bucket.holds(end)
        assert sent + debt - held == pytest.approx(rate * span, rel=0.02)
        longest = max(pattern) * unit
        assert -longest - 1 <= debt <= max(rate * 0.1, longest) + 1


# Turns


@given(
    limits=st.dictionaries(st.sampled_from(KEYS), rates, min_size=1),
    flows=st.lists(
        st.builds(
            Messages,
            st.sampled_from([IN, OUT]),
            st.sampled_from([A, B, C, None]),
            st.lists(sizes, min_size=1, max_size=8).map(deque),
        ),
        min_size=1,
        max_size=5,
    ),
)
def test_all_buckets_pay_or_none_does(limits: dict[Key, int], flows: list[Messages]) -> None:
    """A message that goes has taken its size from each of its buckets and from no other, and
    each had it; one that waits has taken nothing. At the end everything has gone.
    """
    machine = shaper(*(Limit(way, rate, link) for (way, link), rate in limits.items()))
    oracle = {key: Tokens(Fraction(rate)) for key, rate in limits.items()}
    for flow in flows:
        machine.enlist(flow)
    now = 0.0
    while now < inf:
        for tokens in oracle.values():
            tokens.pass_time(Fraction(now))
        for flow, size in take(machine, now):
            keys: list[Key] = [(flow.direction, None), (TOTAL, None)]
            if flow.link is not None:
                keys.append((flow.direction, flow.link))
            for key in keys:
                if key in oracle:
                    assert float(oracle[key].enough_at(size)) <= now + NEAR
                    oracle[key].count -= size
        for key, tokens in oracle.items():
            held = machine.buckets.each[key].holds(now)
            assert held == pytest.approx(float(tokens.count), abs=tokens.tolerance)
        now = machine.next_at
    assert not any(flow.sizes for flow in flows)


@given(
    rate=st.integers(1_000, 500_000),
    patterns=st.lists(
        st.lists(st.integers(200, 65_535), min_size=1, max_size=3), min_size=2, max_size=5
    ),
    other=st.booleans(),
)
@example(rate=1_000, patterns=[[200], [65_535]], other=False)
@example(rate=100_000, patterns=[[200], [16_000]], other=True)
def test_links_share_a_bucket_within_a_quantum(
    rate: int, patterns: list[list[int]], other: bool
) -> None:
    """While they all have something to send, no link has taken more of the node's bandwidth than
    another by more than a quantum and a message, however long their messages are, and whatever
    goes the other way.
    """
    each = 10 * QUANTUM
    links = [
        Messages(OUT, LogicalAddress((number,)), deque(pattern * (1 + each // sum(pattern))))
        for number, pattern in enumerate(patterns)
    ]
    machine = shaper(Limit(OUT, rate), Limit(IN, 10 * rate))
    for link in links:
        machine.enlist(link)
    if other:
        machine.enlist(Messages(IN, A, deque([16_000] * 2_000)))
    longest = max(map(max, patterns))
    now = 0.0
    while all(link.sizes for link in links):
        while (flow := machine.next(now)) is not None and all(link.sizes for link in links):
            assert isinstance(flow, Messages)
            flow.go()
            taken = [link.gone for link in links]
            assert max(taken) - min(taken) <= QUANTUM + longest
        now = machine.next_at


def test_a_slow_link_holds_up_no_other() -> None:
    """Who waits for the bucket of a link is overtaken by who goes elsewhere."""
    slow, fast = Messages(OUT, A, deque([1_000] * 3)), Messages(OUT, B, deque([1_000] * 50))
    machine = shaper(Limit(OUT, 1_000_000), Limit(OUT, 1_000, A))
    machine.enlist(slow)
    machine.enlist(fast)
    take(machine, 0.0)
    assert (slow.gone, fast.gone) == (1_000, 50_000)
    assert machine.next_at == pytest.approx(1.0)
    take(machine, 1.0)
    assert slow.gone == 2_000


def test_a_long_message_is_not_starved_by_short_ones() -> None:
    """Nobody takes what the first in line waits for, so a message that needs a full bucket finds
    it full.
    """
    long, short = Messages(OUT, A, deque([10_000])), Messages(OUT, B, deque([100] * 10_000))
    machine = shaper(Limit(OUT, 100_000))
    assert machine.passes(OUT, B, 5_000, 0.0)
    machine.enlist(long)
    machine.enlist(short)
    assert take(machine, 0.0) == []
    assert machine.next_at == pytest.approx(0.05)
    assert take(machine, machine.next_at) == [(long, 10_000)]


def test_control_waits_for_nothing_and_is_paid_for() -> None:
    """A charge empties the bucket beyond its ground; what follows waits until that is filled."""
    machine = shaper(Limit(TOTAL, 1_000))
    machine.charge(IN, A, 600, 0.0)
    machine.enlist(Messages(OUT, B, deque([50])))
    assert take(machine, 0.0) == []
    assert machine.next_at == pytest.approx(0.55)


def test_only_what_nobody_waits_before_passes_at_once() -> None:
    machine = shaper(Limit(OUT, 1_000))
    assert machine.passes(OUT, A, 60, 0.0)
    assert not machine.passes(OUT, A, 60, 0.0)
    assert machine.passes(IN, A, 1 << 30, 0.0)
    machine.enlist(Messages(OUT, A, deque([60])))
    assert not machine.passes(OUT, B, 1, 0.0)


def test_a_dismissed_flow_takes_no_turn() -> None:
    machine, flow = shaper(Limit(OUT, 1_000)), Messages(OUT, A, deque([60]))
    machine.enlist(flow)
    machine.dismiss(flow)
    machine.dismiss(flow)
    assert take(machine, 0.0) == []
    assert machine.next_at == inf


def test_a_limit_that_is_taken_away_limits_nothing() -> None:
    machine = shaper(Limit(OUT, 1_000), Limit(OUT, 1_000, A))
    machine.charge(OUT, A, 1 << 20, 0.0)
    machine.buckets.limit("out", None, None, 0.0)
    assert machine.buckets.limits == (Limit(OUT, 1_000, A),)
    machine.buckets.limit(OUT, A, None, 0.0)
    machine.buckets.limit(OUT, A, None, 0.0)
    assert not machine.buckets
    assert machine.passes(OUT, A, 1 << 20, 0.0)


# What callers may say


@pytest.mark.parametrize("rate", [0, 0.5, -1, nan, inf, True, "100", 1j, 10**400, 1e16])
def test_a_rate_that_cannot_be_is_refused(rate: object) -> None:
    with pytest.raises(LocalProtocolError, match="at least 1"):
        Limit(OUT, rate)  # type: ignore[arg-type]


def test_a_direction_that_there_is_not_is_refused() -> None:
    with pytest.raises(LocalProtocolError, match="'in', 'out', 'total' are allowed"):
        check_direction("up", None)
    with pytest.raises(LocalProtocolError, match="of a link in direction 'total'; 'in', 'out'"):
        Limit(TOTAL, 1_000, A)
    assert check_direction("out", A) is OUT
