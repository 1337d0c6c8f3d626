"""Fault rules: the first verdict wins, and each fault does what its name says."""

from __future__ import annotations

from math import inf, nan
from random import Random

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from opus_socket.errors import ConfigurationError, LocalProtocolError
from opus_socket.simulator.rules import (
    DROP,
    PASS,
    BurstLoss,
    Delay,
    Drop,
    LossRule,
    OneWayCut,
    Partition,
    Rule,
    RuleBook,
    Verdict,
)

Asked = tuple[float, int, int, int]


@define
class Scripted:
    """Always gives the same verdict and remembers what it was asked; equal by verdict."""

    verdict: Verdict
    asked: list[Asked] = field(factory=list, eq=False)

    def judge(self, now: float, sender: int, receiver: int, size: int) -> Verdict:
        self.asked.append((now, sender, receiver, size))
        return self.verdict


def verdict_of(rule: Rule, sender: int, receiver: int) -> Verdict:
    return rule.judge(0.0, sender, receiver, 100)


@given(st.lists(st.sampled_from([PASS, DROP, Delay(0.5), Delay(2.0)])))
def test_the_first_verdict_wins_and_later_rules_are_not_asked(verdicts: list[Verdict]) -> None:
    """Rules are asked in order of addition, up to and including the first that objects."""
    book = RuleBook()
    rules = [book.add(Scripted(verdict)) for verdict in verdicts]
    objections = [index for index, verdict in enumerate(verdicts) if verdict != PASS]
    last = objections[0] if objections else len(verdicts)
    assert book.judge(1.5, 3, 4, 100) == (verdicts[last] if objections else PASS)
    for index, rule in enumerate(rules):
        assert rule.asked == ([(1.5, 3, 4, 100)] if index <= last else [])


def test_a_removed_rule_is_over_and_may_come_back_last() -> None:
    book = RuleBook()
    drop, delay = book.add(Scripted(DROP)), book.add(Scripted(Delay(1.0)))
    assert book.judge(0.0, 1, 2, 100) == DROP
    book.remove(drop)
    assert book.judge(0.0, 1, 2, 100) == Delay(1.0)
    book.add(drop)
    assert book.judge(0.0, 1, 2, 100) == Delay(1.0)
    book.remove(delay)
    assert book.judge(0.0, 1, 2, 100) == DROP


def test_rules_are_told_apart_by_identity() -> None:
    """Of two equal rules, removing the second leaves the first in force, and only that."""
    book = RuleBook()
    first, second = book.add(Scripted(PASS)), book.add(Scripted(PASS))
    assert first == second
    book.remove(second)
    assert book.judge(1.5, 3, 4, 100) == PASS
    assert (first.asked, second.asked) == ([(1.5, 3, 4, 100)], [])


def test_adding_twice_and_removing_twice_break_the_interface() -> None:
    book = RuleBook()
    cut = book.add(OneWayCut(1, 2))
    with pytest.raises(LocalProtocolError, match=r"OneWayCut\(a=1, b=2\) is in force already"):
        book.add(cut)
    book.remove(cut)
    with pytest.raises(LocalProtocolError, match=r"OneWayCut\(a=1, b=2\) is not in force"):
        book.remove(cut)


def test_an_empty_book_passes_everything() -> None:
    assert RuleBook().judge(0.0, 1, 2, 100) == PASS


@given(
    st.dictionaries(st.integers(0, 20), st.integers(0, 3)), st.integers(0, 25), st.integers(0, 25)
)
def test_a_partition_drops_exactly_what_crosses_it(
    group_of: dict[int, int], sender: int, receiver: int
) -> None:
    """Members that no group names are one more group."""
    rule = Partition([[m for m, at in group_of.items() if at == group] for group in range(4)])
    crosses = group_of.get(sender, 4) != group_of.get(receiver, 4)
    assert verdict_of(rule, sender, receiver) == (DROP if crosses else PASS)


def test_a_partition_takes_groups_that_can_be_read_only_once() -> None:
    rule = Partition([iter([1, 2]), iter([3])])
    assert rule.groups == ((1, 2), (3,))
    assert verdict_of(rule, 1, 3) == DROP


def test_a_member_on_both_sides_of_a_partition_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="member 2 is in the groups 0 and 1"):
        Partition([[1, 2], [2, 3]])


def test_a_healed_partition_lets_everything_through() -> None:
    book = RuleBook()
    split = book.add(Partition([[1, 2]]))
    assert book.judge(0.0, 1, 3, 100) == DROP
    assert book.judge(0.0, 1, 2, 100) == PASS
    book.remove(split)
    assert book.judge(0.0, 1, 3, 100) == PASS


@given(st.integers(0, 3), st.integers(0, 3))
def test_a_one_way_cut_drops_one_direction_of_one_pair(sender: int, receiver: int) -> None:
    """Only what 1 sends to 2 is lost."""
    expected = DROP if (sender, receiver) == (1, 2) else PASS
    assert verdict_of(OneWayCut(1, 2), sender, receiver) == expected


@given(st.floats(0.0, 1.0), st.integers(0, 2**32))
def test_loss_takes_one_draw_a_packet(p: float, seed: int) -> None:
    """A packet is lost exactly when its own draw falls below p."""
    rule, twin = LossRule(p, Random(seed)), Random(seed)
    for _ in range(20):
        assert verdict_of(rule, 1, 2) == (DROP if twin.random() < p else PASS)


@pytest.mark.parametrize(("p", "verdict"), [(0.0, PASS), (1.0, DROP)])
def test_certain_loss_and_no_loss_leave_nothing_to_chance(p: float, verdict: Verdict) -> None:
    rule = LossRule(p, Random(1))
    assert {verdict_of(rule, 1, 2) for _ in range(1_000)} == {verdict}


def test_bursts_have_the_length_and_the_share_of_gilberts_channel() -> None:
    """enter 0.02 and leave 0.2: one packet in eleven lost, in bursts of five on average."""
    rule = BurstLoss(enter=0.02, leave=0.2, rng=Random(6))
    lost = [verdict_of(rule, 1, 2) == DROP for _ in range(100_000)]
    bursts = sum(now and not before for before, now in zip([False, *lost], lost, strict=False))
    assert sum(lost) / len(lost) == pytest.approx(0.02 / 0.22, rel=0.05)
    assert sum(lost) / bursts == pytest.approx(5.0, rel=0.05)


def test_a_burst_may_let_some_packets_through() -> None:
    rule = BurstLoss(enter=1.0, leave=0.0, rng=Random(7), loss=0.75)
    lost = sum(verdict_of(rule, 1, 2) == DROP for _ in range(10_000))
    assert lost / 10_000 == pytest.approx(0.75, abs=0.02)


def test_each_direction_of_a_pair_has_bursts_of_its_own() -> None:
    """With certain turns of state, a way is bad at its every first of two packets."""
    rule = BurstLoss(enter=1.0, leave=1.0, rng=Random(8))
    ways = [(1, 2), (2, 1), (1, 2), (1, 3), (2, 1), (1, 2)]
    assert [verdict_of(rule, *way) for way in ways] == [DROP, DROP, PASS, DROP, PASS, DROP]


@given(st.floats(0.0, 1.0), st.floats(0.0, 1.0), st.integers(0, 2**32))
def test_burst_loss_takes_two_draws_a_packet(enter: float, leave: float, seed: int) -> None:
    """The generator moves alike in good and in bad states."""
    rng, twin = Random(seed), Random(seed)
    rule = BurstLoss(enter, leave, rng)
    for _ in range(10):
        verdict_of(rule, 1, 2)
        twin.random()
        twin.random()
    assert rng.getstate() == twin.getstate()


@pytest.mark.parametrize("bad", [-0.1, 1.1, nan])
def test_probabilities_out_of_range_are_refused_by_name(bad: float) -> None:
    with pytest.raises(ConfigurationError, match=f"LossRule: p is {bad}, but must be"):
        LossRule(bad, Random(1))
    with pytest.raises(ConfigurationError, match=f"BurstLoss: leave is {bad}, but must be"):
        BurstLoss(0.1, bad, Random(1))


@pytest.mark.parametrize("bad", [-1.0, inf, nan])
def test_a_delay_is_finite_and_not_negative(bad: float) -> None:
    with pytest.raises(ConfigurationError, match=f"Delay: seconds is {bad}, but must be"):
        Delay(bad)


def test_verdicts_are_values() -> None:
    assert Drop() == DROP
    assert Delay(1.0) == Delay(1.0) != Delay(2.0)
