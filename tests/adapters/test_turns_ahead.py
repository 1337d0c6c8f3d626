"""Turns that nobody can take: they are skipped at once, and nothing else changes."""

from __future__ import annotations

from attrs import define
from hypothesis import given
from hypothesis import strategies as st

from opus_socket.adapters.turns import SAVED_LIMIT, Turns

LONGEST = 100


@define(eq=False)
class Taker:
    """Somebody whose turn it may be, and how often it was asked whether it waits."""

    weight: int
    something: bool = True
    paused: bool = False
    asked: int = 0

    @property
    def waits(self) -> bool:
        self.asked += 1
        return self.something and not self.paused

    @property
    def held_back(self) -> bool:
        return self.something and self.paused


class Walk:
    """The same by definition, one turn after the other."""

    def __init__(self) -> None:
        self.credits: list[tuple[Taker, int]] = []
        self.turn: Taker | None = None

    def join(self, taker: Taker) -> None:
        if taker not in [each for each, _ in self.credits]:
            self.credits.append((taker, 0))

    def next(self) -> tuple[Taker, int]:
        heaviest = 0
        while len(self.credits) > 1:
            taker, credit = self.credits[0]
            if taker is not self.turn:
                self.turn = taker
                heaviest = heaviest or max(each.weight for each, _ in self.credits)
                credit = min(credit + max(1, LONGEST * taker.weight // heaviest), SAVED_LIMIT)
                self.credits[0] = taker, credit
            if credit > 0 and taker.something and not taker.paused:
                return taker, credit
            self.turn = None
            del self.credits[0]
            if credit <= 0 or taker.held_back:
                self.credits.append((taker, credit))
        return self.credits[0][0], 0

    def pay(self, taker: Taker, size: int) -> None:
        if len(self.credits) == 1:
            self.credits = [(taker, 0)]
            return
        at = [each for each, _ in self.credits].index(taker)
        credit = self.credits[at][1] - size
        self.credits[at] = taker, credit
        if credit <= 0:
            self.turn = None
            self.credits.append(self.credits.pop(at))


STEPS = st.tuples(
    st.sampled_from(["take", "take", "take", "come", "dry", "pause"]),
    st.integers(0, 5),
    st.sampled_from([1, 99, 100, 1000, 30_000]),
)


@given(st.lists(st.integers(1, 100), min_size=6, max_size=6), st.lists(STEPS, max_size=60))
def test_what_is_skipped_is_what_would_have_passed(
    weights: list[int], steps: list[tuple[str, int, int]]
) -> None:
    """Whoever takes turns one by one, gives them to the same, in the same length."""
    takers = [Taker(weight) for weight in weights]
    turns, walk = Turns[Taker](LONGEST), Walk()
    for taker in takers:
        turns.join(taker)
        walk.join(taker)
    for what, index, size in steps:
        chosen = takers[index]
        if what == "come":
            chosen.something, chosen.paused = True, False
            turns.join(chosen)
            walk.join(chosen)
        elif what == "dry":
            chosen.something = False
        elif what == "pause":
            chosen.paused = True
        if any(each.something and not each.paused for each in turns):
            taker, left = turns.next()
            assert (taker, left) == walk.next()
            if what == "take":
                turns.pay(taker, size)
                walk.pay(taker, size)
    for taker in turns:
        assert taker in [each for each, _ in walk.credits]


def test_many_who_owe_much_cost_a_few_looks() -> None:
    """Light ones beside a heavy one that has nothing left: their turns are a hundredth of its."""
    light, heavy = [Taker(1) for _ in range(255)], Taker(100)
    turns = Turns[Taker](3 << 14)
    for taker in (*light, heavy):
        turns.join(taker)
    for taker in (*light, heavy):
        turns.pay(taker, 4 << 20)
        taker.asked = 0
    heavy.something = False
    taker, left = turns.next()
    assert taker in light
    assert left > 0
    assert sum(taker.asked for taker in (*light, heavy)) < 10 * 256
