"""What a demonstration shows: its progress, and in the end what came of it.

Its one rule: progress goes to standard error, to a terminal as bars and elsewhere as a line a
stage; results go to standard output.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import median
from types import TracebackType
from typing import Self

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from opus_socket.cli.demo.picture import Figure, draw
from opus_socket.cli.demo.run import SENDER, Outcome, Plan, Spectator

MOST_ROWS = 64
_WIDTH = 100
_UNITS = (("MB", 1_000_000), ("kB", 1_000), ("bytes", 1))


class Stages(Spectator):
    """The progress of a demonstration as lines, a few for each stage.

    Args:
        plan: what is to be shown.
        say: takes a line.
    """

    def __init__(self, plan: Plan, say: Callable[[str], None]) -> None:
        self._plan = plan
        self._say = say
        self._size = 0
        self._tenths = 0
        self._said = ""

    def serving(self, server: str) -> None:
        """The rendezvous server listens."""
        members = _count(self._plan.members, "member")
        processes = _count(self._plan.processes, "process", "processes")
        self._say(f"rendezvous server at {server}; joining {members} in {processes}")

    def joined(self, count: int) -> None:
        """So many members have joined."""
        if self._has_grown(count, self._plan.members):
            self._say(f"joined: {count} of {self._plan.members}")

    def agreed(self, size: int, seconds: float) -> None:
        """The overlay is complete; the file is on its way."""
        self._size = size * (self._plan.members - 1)
        self._tenths = 0
        others = self._plan.members - 1
        whom = _count(others, "member") if others else "nobody, for there is no other member"
        self._say(
            f"settled {seconds:.1f} s after the last join; sending {self._plan.file.name} "
            f"({_count(size, 'byte')}) to {whom}"
        )

    def received(self, size: int) -> None:
        """So many bytes have arrived, at all members together."""
        line = f"arrived: {_bytes(size, self._size)}"
        if self._has_grown(size, self._size) and line != self._said:
            self._said = line
            self._say(line)

    def verifying(self) -> None:
        """Everything has arrived."""
        self._say("verifying the SHA-256 of every member")

    def _has_grown(self, done: int, total: int) -> bool:
        """Whether another tenth, or more, has been done."""
        tenths = done * 10 // max(1, total)
        grown = tenths > self._tenths
        self._tenths = max(tenths, self._tenths)
        return grown


class Bars(Spectator):
    """The progress of a demonstration on a terminal; a context manager."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._plan = plan
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._joining: TaskID | None = None
        self._sending: TaskID | None = None
        self._size = 0

    def __enter__(self) -> Self:
        self._progress.start()
        members = self._plan.members
        self._joining = self._progress.add_task(
            "members join", total=members, figures=f"0 of {members}"
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def joined(self, count: int) -> None:
        """So many members have joined."""
        assert self._joining is not None
        figures = f"{count} of {self._plan.members}"
        self._progress.update(self._joining, completed=count, figures=figures)

    def agreed(self, size: int, seconds: float) -> None:
        """The overlay is complete; the file is on its way."""
        self._size = size * (self._plan.members - 1)
        self._sending = self._progress.add_task(
            f"{self._plan.file.name} to all", total=self._size, figures=""
        )

    def received(self, size: int) -> None:
        """So many bytes have arrived, at all members together."""
        assert self._sending is not None
        figures = _bytes(size, self._size)
        self._progress.update(self._sending, completed=size, figures=figures)


@contextmanager
def spectator_of(plan: Plan) -> Iterator[Spectator]:
    """Who shows the progress on standard error, as that is."""
    console = Console(stderr=True)
    if console.is_terminal:
        with Bars(plan, console) as bars:
            yield bars
    else:
        yield Stages(plan, lambda line: click.echo(f"demo: {line}", err=True))


def summary_of(outcome: Outcome) -> dict[str, object]:
    """The figures of a demonstration."""
    rate = outcome.rate(outcome.multicast_s)
    return {
        "members": outcome.plan.members,
        "processes": outcome.plan.processes,
        "protocol": outcome.plan.protocol,
        "bytes": outcome.size,
        "sha256": outcome.sha256,
        "delivered": len(outcome.delivered),
        "join_s": round(max(joined.seconds for joined in outcome.joined.values()), 6),
        "multicast_s": round(outcome.multicast_s, 6),
        "per_member_mbit_s": round(rate, 3),
        "aggregate_mbit_s": round(rate * outcome.receivers, 3),
        "tree_depth": max(outcome.depths.values()),
    }


def describe(outcome: Outcome, picture: str | None) -> None:
    """Print what came of a demonstration, for people, and where its picture is if there is one."""
    plan = outcome.plan
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    if plan.members <= MOST_ROWS:
        console.print(_table(outcome))
    seconds = [joined.seconds for joined in outcome.joined.values()]
    edges = sum(len(place.neighbors) for place in outcome.places.values()) // 2
    lines = (
        f"{_count(plan.members, 'member')} in {_count(plan.processes, 'process', 'processes')} "
        f"joined within {max(seconds):.3f} s (median {median(seconds):.3f} s) and settled "
        f"{outcome.settled_s:.1f} s after the last join: "
        f"{_count(edges, 'edge')}, tree depth {max(outcome.depths.values())}",
        f"{plan.file} ({_count(outcome.size, 'byte')}) {_fate(outcome)}",
        f"SHA-256 {outcome.sha256} at {len(outcome.delivered)} of {_count(plan.members, 'member')}",
        "no picture" if picture is None else f"picture: {picture}",
    )
    for line in lines:
        console.print(line, soft_wrap=True, highlight=False, markup=False)


def picture_of(outcome: Outcome) -> str:
    """The overlay as an SVG picture."""
    plan = outcome.plan
    numbers = {place.address: number for number, place in outcome.places.items()}
    figures = [
        Figure(
            number,
            place.address,
            plan.process_of(number),
            None if place.parent is None else numbers[place.parent],
            [numbers[neighbor] for neighbor in place.neighbors],
        )
        for number, place in outcome.places.items()
    ]
    rate = outcome.rate(outcome.multicast_s)
    return draw(
        figures,
        f"{_count(plan.members, 'member')} in "
        f"{_count(plan.processes, 'process', 'processes')}, {plan.protocol}",
        f"{plan.file.name}, {_count(outcome.size, 'byte')}, at {len(outcome.delivered)} of "
        f"{plan.members}; tree depth {max(outcome.depths.values())}; {rate:,.0f} Mbit/s a member",
    )


def _table(outcome: Outcome) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("member", justify="right")
    table.add_column("process", justify="right")
    table.add_column("address")
    for title in ("joined after", "hops", "file after", "Mbit/s"):
        table.add_column(title, justify="right")
    table.add_column("SHA-256")
    right = set(outcome.delivered)
    for number, joined in outcome.joined.items():
        seconds = outcome.seconds(number)
        known = number in outcome.finished and number != SENDER
        table.add_row(
            str(number),
            str(outcome.plan.process_of(number)),
            ",".join(map(str, outcome.places[number].address)),
            f"{joined.seconds:.3f} s",
            str(outcome.depths[number]),
            f"{seconds:.3f} s" if known else "",
            f"{outcome.rate(seconds):,.0f}" if known else "",
            "sender" if number == SENDER else "right" if number in right else "WRONG",
        )
    return table


def _fate(outcome: Outcome) -> str:
    """What became of the file."""
    if missing := _without(outcome):
        return f"did not reach {', '.join(missing)}"
    if not outcome.receivers:
        return "was sent to nobody, for there is no other member"
    rate = outcome.rate(outcome.multicast_s)
    return (
        f"reached all members but the sender within {outcome.multicast_s:.3f} s: {rate:,.0f} "
        f"Mbit/s a member, {rate * outcome.receivers:,.0f} Mbit/s in all"
    )


def _without(outcome: Outcome) -> list[str]:
    return [f"member {n}" for n in outcome.joined if n not in outcome.delivered]


def _bytes(size: int, total: int) -> str:
    """In the largest unit of which the total has ten at least."""
    unit, one = next((u, one) for u, one in _UNITS if total >= 10 * one or one == 1)
    return f"{size // one:,} of {total // one:,} {unit}"


def _count(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"
