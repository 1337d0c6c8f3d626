"""Models of the underlay: how long a packet takes from one member to another, and what befalls it.

Its one rule: the base delay of a pair is a pure function of the network's seed and of the two
member numbers, computed when asked (BLAKE2s of seed and numbers), so neither the order of the
questions nor PYTHONHASHSEED shows in it. Chance per packet is another matter: `LinkQuality`
draws it from the generator that the simulator passes, always the same number of draws.

A member is a number from 0. Delays are one-way, in milliseconds; a member's delay to itself is 0.
"""

from __future__ import annotations

import csv
import re
from array import array
from collections.abc import Callable, Sequence
from hashlib import blake2s
from math import inf, isfinite, nan, sqrt
from pathlib import Path
from random import Random
from typing import Protocol

from attrs import Attribute, field, frozen

from opus_socket.errors import ConfigurationError


class Network(Protocol):
    """What the simulator asks of an underlay."""

    def delay_ms(self, a: int, b: int) -> float:
        """Return the base one-way delay from member a to member b in milliseconds."""


def _within(low: float, high: float) -> Callable[[object, Attribute[float], float], None]:
    """Validate a field as a finite number from `low` to `high`."""

    def validate(instance: object, attribute: Attribute[float], value: float) -> None:
        if not (isfinite(value) and low <= value <= high):
            allowed = f"from {low:g} to {high:g}" if high < inf else f"of at least {low:g}"
            raise ConfigurationError(
                f"{type(instance).__name__}: {attribute.name} is {value},"
                f" but must be a finite number {allowed}"
            )

    return validate


@frozen
class LinkQuality:
    """What befalls packets on their way, alike for every pair; the default is a perfect link."""

    jitter: float = field(default=0.0, validator=_within(0.0, inf))
    """Each copy takes longer by a uniform 0 to `jitter` milliseconds."""
    loss: float = field(default=0.0, validator=_within(0.0, 1.0))
    """Probability that a packet is lost with all its copies."""
    duplication: float = field(default=0.0, validator=_within(0.0, 1.0))
    """Probability that a packet arrives twice."""
    reordering: float = field(default=0.0, validator=_within(0.0, 1.0))
    """Probability that a copy is held back, by up to its base delay or 1 ms if that is more,
    so that packets sent after it overtake it."""

    def transmit(self, base_ms: float, rng: Random) -> tuple[float, ...]:
        """Draw the fate of one packet: the delay of each copy in milliseconds, () when lost.

        Always takes eight draws from `rng`, in this order: loss, duplication, then jitter,
        reordering and holding time of the first and of the second copy. So another quality
        or another fate changes nothing about the packets that follow.
        """
        lost = rng.random() < self.loss
        twice = rng.random() < self.duplication
        first = self._arrival(base_ms, rng)
        second = self._arrival(base_ms, rng)
        if lost:
            return ()
        return (first, second) if twice else (first,)

    def _arrival(self, base_ms: float, rng: Random) -> float:
        delayed = base_ms + rng.random() * self.jitter
        held = rng.random() < self.reordering
        holding = rng.random() * max(base_ms, 1.0)
        return delayed + holding if held else delayed


@frozen
class ConstantNetwork:
    """Every two members are equally far apart."""

    delay: float = field(validator=_within(0.0, inf))
    """One-way delay in milliseconds."""

    def delay_ms(self, a: int, b: int) -> float:
        """Return the one delay, or 0 from a member to itself."""
        return 0.0 if a == b else self.delay


@frozen
class RandomNetwork:
    """Every pair has its own delay, uniform between two bounds and the same both ways.

    Such delays are no metric: a detour through a third member is often shorter.
    """

    low: float = field(validator=_within(0.0, inf))
    """Least one-way delay in milliseconds."""
    high: float = field(validator=_within(0.0, inf))
    """Greatest one-way delay in milliseconds."""
    seed: int = 0

    @high.validator
    def _not_below_low(self, attribute: Attribute[float], value: float) -> None:
        _check_bounds(self, self.low, value)

    def delay_ms(self, a: int, b: int) -> float:
        """Return the pair's delay, the same for (b, a)."""
        if a == b:
            return 0.0
        near, far = (a, b) if a < b else (b, a)
        share, _ = _uniform_pair(f"delay {self.seed} {near} {far}")
        return self.low + (self.high - self.low) * share


@frozen
class EuclideanNetwork:
    """Members lie uniformly in the unit square; delay grows with their distance.

    Two members at one spot are `low` apart, two in opposite corners `high`.
    """

    low: float = field(validator=_within(0.0, inf))
    """The floor: one-way delay at distance 0, in milliseconds."""
    high: float = field(validator=_within(0.0, inf))
    """One-way delay along the diagonal of the square, in milliseconds."""
    seed: int = 0
    _positions: dict[int, tuple[float, float]] = field(
        factory=dict, init=False, eq=False, repr=False
    )

    @high.validator
    def _not_below_low(self, attribute: Attribute[float], value: float) -> None:
        _check_bounds(self, self.low, value)

    def delay_ms(self, a: int, b: int) -> float:
        """Return the delay that the distance of a and b gives."""
        if a == b:
            return 0.0
        ax, ay = self.position(a)
        bx, by = self.position(b)
        dx, dy = ax - bx, ay - by
        # Only operations that IEEE 754 rounds exactly: the same delay on every platform.
        share = sqrt((dx * dx + dy * dy) / 2.0)
        return self.low + (self.high - self.low) * share

    def position(self, member: int) -> tuple[float, float]:
        """Return where the member lies: x and y, each at least 0 and below 1."""
        found = self._positions.get(member)
        if found is None:
            found = self._positions[member] = _uniform_pair(f"position {self.seed} {member}")
        return found


@frozen(eq=False)
class MatrixNetwork:
    """Delays that were measured between places; members take the places in turn.

    Member m is at place m modulo the number of places. The way from a to b may differ from the
    way back. Two members at one place are as far apart as the diagonal says.
    """

    places: tuple[str, ...]
    """Names of the places, in the order of rows and columns."""
    _one_way: tuple[array[float], ...] = field(repr=False)

    @classmethod
    def read(cls, path: Path) -> MatrixNetwork:
        """Read a CSV file of round-trip times in milliseconds; one-way is half of each.

        The header row names the places after its first cell, which is free; the first column
        names them again in the same order. Raises ConfigurationError that names file, row and
        what is allowed.
        """
        rows = _csv_rows(path)
        line, header = rows[0] if rows else (1, [])
        places = tuple(name.strip() for name in header[1:])
        if not places or len(set(places)) < len(places) or "" in places:
            raise ConfigurationError(
                f"{path}, row {line}: the header is {','.join(header)!r}, but must hold one free"
                " cell and then the name of each place once, at least one"
            )
        if len(rows) - 1 != len(places):
            raise ConfigurationError(
                f"{path}, row {line}: the header names {len(places)} places but {len(rows) - 1}"
                " rows follow; there must be one row for each place"
            )
        named = zip(places, rows[1:], strict=True)
        return cls(
            places,
            tuple(_one_way(f"{path}, row {at}", row, name, places) for name, (at, row) in named),
        )

    def delay_ms(self, a: int, b: int) -> float:
        """Return half the round-trip time from the place of a to that of b."""
        if a == b:
            return 0.0
        places = len(self._one_way)
        return self._one_way[a % places][b % places]


def parse_network(text: str, seed: int = 0) -> Network:
    """Make a network from a command line's words, all times in milliseconds.

    `constant:20`, `random:20-150` (bounds), `euclidean:5-120` (floor and greatest delay),
    `matrix:FILE` (CSV of round-trip times). Raises ConfigurationError for any other text.
    """
    kind, _, argument = text.partition(":")
    if kind == "matrix" and argument:
        return MatrixNetwork.read(Path(argument))
    numbers = [float(number) for number in argument.split("-")] if _NUMBERS.match(argument) else []
    match kind, numbers:
        case "constant", [delay]:
            return ConstantNetwork(delay)
        case "random", [low, high]:
            return RandomNetwork(low, high, seed)
        case "euclidean", [low, high]:
            return EuclideanNetwork(low, high, seed)
        case _:
            raise ConfigurationError(
                f"network {text!r} is unknown; allowed are constant:MS, random:MS-MS,"
                " euclidean:MS-MS and matrix:FILE, for example constant:20 or random:20-150"
            )


_NUMBERS = re.compile(r"\d+(\.\d+)?(-\d+(\.\d+)?)?\Z", re.ASCII)


def _uniform_pair(text: str) -> tuple[float, float]:
    """Return two numbers, each at least 0 and below 1, that depend on nothing but the text."""
    both = int.from_bytes(blake2s(text.encode(), digest_size=16).digest(), "big")
    return (both >> 75) * 2.0**-53, (both >> 11 & (1 << 53) - 1) * 2.0**-53


def _check_bounds(instance: object, low: float, high: float) -> None:
    if low > high:
        raise ConfigurationError(
            f"{type(instance).__name__}: low is {low:g} and high is {high:g},"
            " but low must not exceed high"
        )


def _csv_rows(path: Path) -> list[tuple[int, list[str]]]:
    """Return the rows that are not blank, each with its line number in the file."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            return [(reader.line_num, row) for row in reader if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(
            f"{path}: cannot be read as a CSV file in UTF-8: {error}"
        ) from error


def _one_way(where: str, row: list[str], name: str, places: Sequence[str]) -> array[float]:
    """Return the one-way delays of the row of place `name`; errors begin with `where`."""
    if row[0].strip() != name:
        raise ConfigurationError(
            f"{where}: is named {row[0]!r}, but must be {name!r} as in the header"
        )
    if len(row) - 1 != len(places):
        raise ConfigurationError(
            f"{where}: has {len(row) - 1} values, but must have {len(places)}, one a place"
        )
    delays = array("d")
    for place, cell in zip(places, row[1:], strict=True):
        try:
            rtt = float(cell)
        except ValueError:
            rtt = nan
        if not (isfinite(rtt) and rtt >= 0.0):
            raise ConfigurationError(
                f"{where}, column {place!r}: is {cell!r}, but must be a round-trip time in"
                " milliseconds, a finite number of at least 0"
            )
        delays.append(rtt / 2.0)
    return delays
