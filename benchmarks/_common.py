"""What the benchmarks share: a measurement with what was measured beside it, and how it is shown.

Its one rule: no figure stands alone. Machines are shared and drift by a factor of two, so each
value is the median of several runs, and a limit or a peer was measured in turn with it.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import Protocol, TypeVar

import trio
from attrs import frozen
from rich.console import Console
from rich.table import Table

Result = TypeVar("Result")
Row = dict[str, str | int | float]
_DESCRIPTORS_BESIDES = 64


class MeasurementError(Exception):
    """What was to be measured did not come about; the text says why."""


class Side(Protocol):
    """What can be measured: an overlay, the bare program, or a peer."""

    async def measure(self, batches: Sequence[Sequence[bytes]]) -> float:
        """Seconds until every receiver has got all messages.

        Raises:
            MeasurementError: they never do.
        """


def run(program: Callable[[], Awaitable[Result]]) -> Result:
    """Run a program under Trio; a failure ends the process with its text and status 1."""
    try:
        with ungrouped(MeasurementError):
            return trio.run(program)
    except MeasurementError as failure:
        raise SystemExit(f"failed: {failure}") from None


@contextmanager
def ungrouped(*kinds: type[Exception]) -> Iterator[None]:
    """Raise the first failure instead of the group that a nursery makes, if all are of these kinds:
    so that who expects failures names them once.
    """
    try:
        yield
    except BaseExceptionGroup as group:
        failures, others = group.split(kinds)
        if others is not None or failures is None:
            raise
        raise _first(failures) from None


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, BaseExceptionGroup) else error


@frozen
class Measurement:
    """One figure, and what it is compared with.

    Attributes:
        workload: what was done.
        size: bytes of a payload; 0 where there is none.
        members: overlay sockets that took part.
        unit: of the values.
        values: one a run.
        beside: what else was measured, or the goal that was set.
        beside_values: its values in the same unit, one a run too, or a goal.
        note: what the reader must know of that to compare fairly; most need none.
    """

    workload: str
    size: int
    members: int
    unit: str
    values: Sequence[float]
    beside: str
    beside_values: Sequence[float]
    note: str = ""

    @property
    def ratio(self) -> float:
        """The value as a part of what it is compared with: the median over pairs of runs that were
        made one after the other, because from one pair to the next a shared machine changes.
        """
        if len(self.values) != len(self.beside_values):
            return median(self.values) / median(self.beside_values)
        pairs = zip(self.values, self.beside_values, strict=True)
        return median(value / beside for value, beside in pairs)

    def as_row(self) -> Row:
        """What is printed; `note` is there only where there is one."""
        row: Row = {
            "workload": self.workload,
            "size": self.size,
            "members": self.members,
            "value": _rounded(median(self.values)),
            "unit": self.unit,
            "runs": len(self.values),
            "median": _rounded(median(self.values)),
            "min": _rounded(min(self.values)),
            "max": _rounded(max(self.values)),
            "beside": self.beside,
            "beside_median": _rounded(median(self.beside_values)),
            "beside_min": _rounded(min(self.beside_values)),
            "beside_max": _rounded(max(self.beside_values)),
            "ratio": _rounded(self.ratio),
        }
        return row | ({"note": self.note} if self.note else {})


class Printer:
    """Prints measurements on standard output: one JSON object each as they come, or a table."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._kept: list[Row] = []

    def add(self, measurement: Measurement) -> None:
        """A measurement was made."""
        self.add_row(measurement.as_row())

    def skip(self, what: str, reason: str) -> None:
        """Something cannot be measured here; that is said once."""
        row: Row = {"skipped": what, "reason": reason}
        if row not in self._kept:
            self.add_row(row)

    def add_row(self, row: Row) -> None:
        """A row as it is printed, of a measurement or of something skipped."""
        self._kept.append(row)
        if self._as_json:
            print(json.dumps(row), flush=True)

    def finish(self) -> None:
        """That was all."""
        if self._as_json:
            return
        table = Table(box=None, pad_edge=False)
        for title in ("workload", "size", "members", "median", "min", "max", "unit"):
            table.add_column(title, justify="left" if title in ("workload", "unit") else "right")
        for title in ("beside it", "median", "ratio"):
            table.add_column(title, justify="left" if title == "beside it" else "right")
        for row in self._kept:
            if "skipped" in row:
                continue
            table.add_row(
                str(row["workload"]),
                f"{row['size']:,}" if row["size"] else "",
                f"{row['members']:,}",
                *(_shown(row[which]) for which in ("median", "min", "max")),
                str(row["unit"]),
                str(row["beside"]),
                _shown(row["beside_median"]),
                f"{row['ratio']:.2f}",
            )
        console = Console(width=130, highlight=False)
        console.print(table)
        notes = {(row["beside"], row["note"]): None for row in self._kept if "note" in row}
        for beside, note in notes:
            console.print(f"{beside}: {note}")
        for row in self._kept:
            if "skipped" in row:
                console.print(f"skipped {row['skipped']}: {row['reason']}")


def allow_descriptors(count: int) -> None:
    """Let this process open so many sockets, and some files besides.

    Raises:
        SystemExit: the system does not allow it; the message says what it allows.
    """
    wanted = count + _DESCRIPTORS_BESIDES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        raise SystemExit(
            f"{wanted} descriptors are needed and {hard} allowed: raise `ulimit -Hn`, "
            "take fewer members, or let them share a socket"
        )
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _rounded(value: float) -> float:
    return round(value, 4)


def _shown(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
