"""Fault rules: what is done to a packet before the network model carries it.

Its one rule: the first verdict wins. For every packet the rules of the `RuleBook` are asked in
the order in which they were added; `Pass` hands the packet to the next rule, `Delay` and `Drop`
end the matter, and later rules are not asked. A packet that every rule passes, or that one
delayed, then meets the network: its base delay and its link's own quality.

A rule that needs chance holds its own generator and takes a fixed number of draws whenever it is
asked. A rule behind one that drops is not asked, so the order of rules is part of an experiment.
Members are numbers, as in `network`. Pausing a member is no rule: the simulator does that.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import isfinite
from random import Random
from typing import Final, Protocol, TypeVar

from attrs import Attribute, define, field, frozen

from opus_socket.errors import ConfigurationError, LocalProtocolError


@frozen
class Pass:
    """This rule has nothing to say about the packet."""


@frozen
class Drop:
    """The packet is lost."""


@frozen
class Delay:
    """The packet takes longer than the network says."""

    seconds: float = field()
    """How much longer, in seconds, at least 0."""

    @seconds.validator
    def _check(self, attribute: Attribute[float], value: float) -> None:
        if not (isfinite(value) and value >= 0.0):
            raise ConfigurationError(
                f"Delay: seconds is {value}, but must be a finite number of at least 0"
            )


Verdict = Pass | Delay | Drop

PASS: Final = Pass()
DROP: Final = Drop()


class Rule(Protocol):
    """One fault that is in force while its rule is in the book."""

    def judge(self, now: float, sender: int, receiver: int, size: int) -> Verdict:
        """Decide about one packet of `size` bytes, sent at `now` (virtual seconds)."""


AnyRule = TypeVar("AnyRule", bound=Rule)


@define(eq=False)
class RuleBook:
    """The rules in force, in the order in which they are asked."""

    _rules: list[Rule] = field(factory=list, init=False)

    def __len__(self) -> int:
        return len(self._rules)

    def add(self, rule: AnyRule) -> AnyRule:
        """Put a rule behind all others and return it: the handle that `remove` takes.

        Raises LocalProtocolError when this very rule is in the book already.
        """
        if any(held is rule for held in self._rules):
            raise LocalProtocolError(f"{rule!r} is in force already; a rule is added only once")
        self._rules.append(rule)
        return rule

    def remove(self, rule: Rule) -> None:
        """End a fault, for instance heal a partition; the rule may be added again.

        Raises LocalProtocolError when this very rule is not in the book.
        """
        for index, held in enumerate(self._rules):
            if held is rule:
                del self._rules[index]
                return
        raise LocalProtocolError(f"{rule!r} is not in force; only an added rule can be removed")

    def judge(self, now: float, sender: int, receiver: int, size: int) -> Verdict:
        """Return the first verdict other than `Pass`, or `Pass` when no rule has any."""
        for rule in self._rules:
            verdict = rule.judge(now, sender, receiver, size)
            if not isinstance(verdict, Pass):
                return verdict
        return PASS


@define(eq=False)
class Partition:
    """Members of different groups cannot reach each other; within a group all is well.

    All members that no group names, also those that join later, form one more group. So
    `Partition([half])` cuts one half off from the rest.
    """

    groups: Sequence[Iterable[int]]
    """Member numbers of each group. A member in two groups raises ConfigurationError."""
    _group_of: dict[int, int] = field(factory=dict, init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.groups = tuple(tuple(group) for group in self.groups)
        for number, group in enumerate(self.groups):
            for member in group:
                if self._group_of.setdefault(member, number) != number:
                    raise ConfigurationError(
                        f"Partition: member {member} is in the groups {self._group_of[member]}"
                        f" and {number}, but may be in one only"
                    )

    def judge(self, now: float, sender: int, receiver: int, size: int) -> Verdict:
        """Drop what would pass from one group to another."""
        return PASS if self._group_of.get(sender) == self._group_of.get(receiver) else DROP


@frozen(eq=False)
class OneWayCut:
    """What member `a` sends never reaches member `b`; the way back is open."""

    a: int
    b: int

    def judge(self, now: float, sender: int, receiver: int, size: int) -> Verdict:
        """Drop what `a` sends to `b`."""
        return DROP if sender == self.a and receiver == self.b else PASS


def _probability(instance: object, attribute: Attribute[float], value: float) -> None:
    if not 0.0 <= value <= 1.0:
        raise ConfigurationError(
            f"{type(instance).__name__}: {attribute.name} is {value},"
            " but must be a probability from 0 to 1"
        )


@frozen(eq=False)
class LossRule:
    """Every packet is lost with probability `p`, independently; one draw a packet."""

    p: float = field(validator=_probability)
    rng: Random = field(repr=False)

    def judge(self, now: float, sender: int, receiver: int, size: int) -> Verdict:
        """Draw once; drop with probability `p`."""
        return DROP if self.rng.random() < self.p else PASS


@define(eq=False)
class BurstLoss:
    """Packets are lost in bursts, on each direction of each pair by itself.

    The two-state channel of Gilbert (1960, "Capacity of a burst-noise channel"): a packet first
    may change the state of its way, then is lost with probability `loss` if that state is bad.
    In the long run a way is bad for enter / (enter + leave) of its packets, in bursts of
    1 / leave packets on average. Two draws a packet.
    """

    enter: float = field(validator=_probability)
    """Probability, a packet, that a good way turns bad."""
    leave: float = field(validator=_probability)
    """Probability, a packet, that a bad way turns good."""
    rng: Random = field(repr=False)
    loss: float = field(default=1.0, validator=_probability)
    """Probability that a packet on a bad way is lost."""
    _bad: dict[tuple[int, int], bool] = field(factory=dict, init=False, repr=False)

    def judge(self, now: float, sender: int, receiver: int, size: int) -> Verdict:
        """Draw twice: for the state of the way, then for the packet."""
        way = (sender, receiver)
        bad = self._bad.get(way, False)
        if self.rng.random() < (self.leave if bad else self.enter):
            bad = not bad
        self._bad[way] = bad
        return DROP if self.rng.random() < self.loss and bad else PASS
