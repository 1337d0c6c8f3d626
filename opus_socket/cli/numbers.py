"""The numbers that options take.

Its one rule: what is no number is refused before anything is done; `nan` is in no range.
"""

from __future__ import annotations

import math

import click


class Number(click.FloatRange):
    """A number within a range; `inf` where the range has no upper end, unless it is to be finite.

    Args:
        low, high: the least and the greatest that is allowed.
        low_open, high_open: whether these are excluded themselves.
        finite: whether `inf` is refused.
    """

    name = "number"

    def __init__(
        self,
        low: float = 0,
        high: float | None = None,
        *,
        low_open: bool = False,
        high_open: bool = False,
        finite: bool = False,
    ) -> None:
        super().__init__(low, high, min_open=low_open, max_open=high_open)
        self.finite = finite

    def convert(
        self, value: float, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """The number that was written.

        Raises:
            click.BadParameter: it is none, or not in the range.
        """
        number = float(super().convert(value, param, ctx))
        if math.isnan(number) or (self.finite and math.isinf(number)):
            a_number = "a finite number" if self.finite else "a number"
            what = a_number if self.name == Number.name else f"{a_number} of {self.name}"
            self.fail(f"{value!r} is not {what}.", param, ctx)
        return number


class Seconds(Number):
    """Seconds from 0 on; `inf` is for ever, and `nan` nothing at all."""

    name = "seconds"

    def __init__(self, *, positive: bool = False, finite: bool = False) -> None:
        super().__init__(low_open=positive, finite=finite)


class Whole(click.IntRange):
    """A whole number of at least 1."""

    name = "whole number"

    def __init__(self) -> None:
        super().__init__(1)

    def convert(self, value: int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """The number that was written.

        Raises:
            click.BadParameter: it is none, or not in the range.
        """
        try:
            return int(super().convert(value, param, ctx))
        except click.BadParameter:
            self.fail(f"{value!r} is not a whole number of at least {self.min}.", param, ctx)
