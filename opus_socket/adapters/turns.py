"""Whose turn it is: weighted deficit round robin.

Its one rule: who waits gets bytes in the ratio of the weights, in whatever sizes it takes them. The
turn of the heaviest is a stated number of bytes, that of others shorter in the ratio of the
weights.

- Who takes more, because its next piece is longer than what is left of its turn, has so much less
  in the turns that follow; who then has nothing more stays until that is paid, so that nobody gains
  by coming one piece at a time.
- Who has something but is held back, because the other end has paused it, saves its turns, up to a
  bound, and takes them when it may: two that are not paused at the very same instant share what
  they feed by their weights all the same.
- Who is alone pays nothing.

The method is that of Shreedhar and Varghese ("Efficient Fair Queuing Using Deficit Round Robin",
1995), with what was taken in advance carried over instead of what was left.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, Protocol, TypeVar

from attrs import define, field

CLASS_TURN = 3 << 14
"""Bytes of a turn of a traffic class, if no other one in it has more weight."""

ROUTE_TURN = 1 << 16
"""Bytes of a turn of a route, in whatever classes."""

SAVED_LIMIT = 1 << 20
"""Bytes of turns that are saved for one that is held back."""


class Taker(Protocol):
    """Somebody who takes turns."""

    @property
    def weight(self) -> int:
        """Its share, 1 or more."""

    @property
    def waits(self) -> bool:
        """Whether it can take something now."""

    @property
    def held_back(self) -> bool:
        """Whether it has something, and cannot take it now."""


T = TypeVar("T", bound=Taker)


@define(eq=False, repr=False)
class Turns(Generic[T]):
    """Who takes turns.

    Args:
        longest: bytes of the turn of the heaviest.
    """

    longest: int
    _credits: OrderedDict[T, int] = field(factory=OrderedDict, init=False)
    _turn: T | None = field(default=None, init=False)

    def __iter__(self) -> Iterator[T]:
        """All that are there, in the order of their turns."""
        return iter(self._credits)

    def join(self, taker: T) -> None:
        """Take turns from now on, behind all others; nothing changes for one that does already."""
        self._credits.setdefault(taker, 0)

    def leave(self, taker: T) -> None:
        """Take no more turns; what was owed or saved is forgotten."""
        self._credits.pop(taker, None)
        if taker is self._turn:
            self._turn = None

    def next(self) -> tuple[T, int]:
        """Whose turn it is, and how many bytes are left of it, 0 for any number because nobody
        else is there. There must be one that waits.
        """
        credits = self._credits
        if len(credits) == 1:
            [taker] = credits
            return taker, 0
        heaviest = passed = 0
        while True:
            if passed == len(credits):
                self._skip_rounds(heaviest)
                passed = 0
            taker = next(iter(credits))
            waits, credit = taker.waits, credits[taker]
            if len(credits) == 1:
                assert waits, "somebody waits"
                return taker, 0
            if taker is not self._turn:
                self._turn = taker
                heaviest = heaviest or max([each.weight for each in credits])
                credits[taker] = credit = min(credit + self._turn_of(taker, heaviest), SAVED_LIMIT)
            if credit > 0 and waits:
                return taker, credit
            self._end_turn(taker)
            passed += 1
            if credit > 0 and not (waits or taker.held_back):
                del credits[taker]
                passed = 0

    def pay(self, taker: T, size: int) -> None:
        """It has taken so many bytes; when its turn is used up, it is that of the next one."""
        credits = self._credits
        if len(credits) == 1:
            credits[taker] = 0
            return
        credits[taker] -= size
        if credits[taker] <= 0:
            self._end_turn(taker)

    def clear(self) -> None:
        """Nobody takes turns any more, and nothing is owed or saved."""
        self._credits.clear()
        self._turn = None

    def _turn_of(self, taker: T, heaviest: int) -> int:
        return max(1, self.longest * taker.weight // heaviest)

    def _skip_rounds(self, heaviest: int) -> None:
        """All have had their turn, and none has taken anything: go on to the round before that in
        which the first of those who owe has paid. There may be very many.
        """
        credits = self._credits
        turns = {taker: self._turn_of(taker, heaviest) for taker in credits}
        rounds = min(
            -credits[taker] // turn for taker, turn in turns.items() if not taker.held_back
        )
        for taker, turn in turns.items():
            credits[taker] = min(credits[taker] + rounds * turn, SAVED_LIMIT)

    def _end_turn(self, taker: T) -> None:
        self._turn = None
        self._credits.move_to_end(taker)
