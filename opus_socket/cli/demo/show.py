"""What a demonstration shows: its progress, and in the end what came of it.

Its one rule: progress goes to standard error and only to a terminal; results go to standard output.
"""

from __future__ import annotations

from statistics import median
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from opus_socket.cli.demo.picture import Figure, draw
from opus_socket.cli.demo.run import SENDER, Outcome, Plan, Spectator

MOST_ROWS = 64
_WIDTH = 100


class Show(Spectator):
    """The progress of a demonstration; a context manager."""

    def __init__(self, plan: Plan) -> None:
        console = Console(stderr=True)
        self._plan = plan
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            console=console,
            disable=not console.is_terminal,
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

    def agreed(self, size: int) -> None:
        """The overlay is complete; the file is on its way."""
        self._size = size * (self._plan.members - 1)
        self._sending = self._progress.add_task(
            f"{self._plan.file.name} to all", total=self._size, figures=""
        )

    def received(self, size: int) -> None:
        """So many bytes have arrived, at all members together."""
        assert self._sending is not None
        figures = f"{size / 1e6:,.0f} of {self._size / 1e6:,.0f} MB"
        self._progress.update(self._sending, completed=size, figures=figures)


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
    rate = outcome.rate(outcome.multicast_s)
    delivered = len(outcome.delivered)
    lines = (
        f"{_count(plan.members, 'member')} in {_count(plan.processes, 'process', 'processes')} "
        f"joined within {max(seconds):.3f} s (median {median(seconds):.3f} s): "
        f"{_count(edges, 'edge')}, tree depth {max(outcome.depths.values())}",
        f"{plan.file} ({_count(outcome.size, 'byte')}) reached all members but the sender within "
        f"{outcome.multicast_s:.3f} s: {rate:,.0f} Mbit/s a member, "
        f"{rate * outcome.receivers:,.0f} Mbit/s in all"
        if delivered == plan.members
        else f"{plan.file} ({_count(outcome.size, 'byte')}) did not reach "
        f"{', '.join(map(str, _without(outcome)))}",
        f"SHA-256 {outcome.sha256} at {delivered} of {_count(plan.members, 'member')}",
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


def _without(outcome: Outcome) -> list[str]:
    return [f"member {n}" for n in outcome.joined if n not in outcome.delivered]


def _count(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or one + 's'}"
