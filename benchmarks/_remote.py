"""Overlays and bare trees in one process or two: the sender is here, receivers may be in another.

Its one rule: both processes read one clock, that of the system, so the time of a run goes from the
first call of the sender to the moment at which the last receiver had everything.
"""

from __future__ import annotations

import functools
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext, suppress
from pathlib import Path

import trio
from _bare import Tree, accept, crossing
from _common import MeasurementError
from _layout import Layout, Way
from _overlay import form, open_members, receive_all, send
from attrs import frozen

from opus_socket import open_host
from opus_socket.cli.pipes import JsonReader, JsonWriter
from opus_socket.core.addresses import LogicalAddress

FOLDER = Path(__file__).parent
END_TIMEOUT = 10.0


@frozen
class Elsewhere:
    """The second process.

    Attributes:
        reader, writer: its standard output and input.
    """

    reader: JsonReader
    writer: JsonWriter

    async def answer(self) -> object:
        """What it says next.

        Raises:
            MeasurementError: it says no more, or that it cannot do what it was told.
        """
        match await anext(self.reader, None):
            case None:
                raise MeasurementError("the second process has ended")
            case {"failed": str(reason)}:
                raise MeasurementError(reason)
            case other:
                return other


@frozen
class Exchange:
    """A sender here and its receivers, here and elsewhere.

    Attributes:
        receive: returns when the receivers here have got so many messages of so many bytes.
        send: sends messages.
        elsewhere: the second process, if there is one; it is told how many messages of how many
            bytes are to come, and says when they had.
    """

    receive: Callable[[int, int], Awaitable[None]]
    send: Callable[[Sequence[Sequence[bytes]]], Awaitable[None]]
    elsewhere: Elsewhere | None

    async def measure(self, batches: Sequence[Sequence[bytes]]) -> float:
        """Seconds until every receiver has got all messages."""
        count, size = sum(map(len, batches)), len(batches[0][0])
        if self.elsewhere is not None:
            await self.elsewhere.writer.write([count, size])
        started = time.monotonic()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.receive, count, size)
            await self.send(batches)
        finished = time.monotonic()
        if self.elsewhere is not None:
            there = await self.elsewhere.answer()
            assert isinstance(there, float)
            finished = max(finished, there)
        return finished - started


@asynccontextmanager
async def open_sides(layout: Layout, server: object) -> AsyncIterator[tuple[Exchange, Exchange]]:
    """An overlay, and a bare tree of the same shape."""
    async with (
        open_overlay(layout, server) as (overlay, parents),
        open_bare(layout, parents) as bare,
    ):
        yield overlay, bare


@asynccontextmanager
async def open_overlay(layout: Layout, server: object) -> AsyncIterator[tuple[Exchange, list[int]]]:
    """An exact overlay, and the parent of each member but the first in the sender's tree."""
    task = {
        "overlay": str(server),
        "points": layout.points,
        "here": layout.here,
        "way": layout.way,
        "handover": layout.handover,
    }
    async with open_host() as host, open_elsewhere(layout, task) as elsewhere:
        members = await open_members(host, layout, layout.own, server)
        await form(members, layout.points)
        root = LogicalAddress(layout.points[0])
        parents = parent_numbers(layout, [member.parent(root) for member in members[1:]])
        if elsewhere is not None:
            there = await elsewhere.answer()
            assert isinstance(there, list)
            parents += there

        async def receive(count: int, _: int) -> None:
            await receive_all(layout, layout.own, members, count)

        yield Exchange(receive, functools.partial(send, layout, members[0]), elsewhere), parents


@asynccontextmanager
async def open_bare(layout: Layout, parents: Sequence[int]) -> AsyncIterator[Exchange]:
    """A tree of bare nodes.

    Args:
        layout: which of them are here.
        parents: the parent of each node but the first.
    """
    with socket.create_server(("127.0.0.1", 0), backlog=len(parents)) as listener:
        last_only = layout.way is Way.LAST
        task = {
            "bare": listener.getsockname()[1],
            "parents": parents,
            "here": layout.here,
            "last_only": last_only,
        }
        async with open_elsewhere(layout, task) as elsewhere:
            edges = crossing(parents, layout.own) if elsewhere is not None else []
            connections = await trio.to_thread.run_sync(accept, listener, edges)
            tree = Tree(parents, layout.own, connections, last_only=last_only)
            try:
                if elsewhere is not None:
                    await elsewhere.answer()
                yield Exchange(tree.receive, tree.send, elsewhere)
            finally:
                tree.close()


@asynccontextmanager
async def open_elsewhere(layout: Layout, task: object) -> AsyncIterator[Elsewhere | None]:
    """The second process of a layout, told what to do; None when there is none."""
    opened = open_program("_receiver.py", task) if layout.split else nullcontext()
    async with opened as program:
        yield None if program is None else Elsewhere(*program)


def parent_numbers(layout: Layout, parents: Sequence[LogicalAddress | None]) -> list[int]:
    """The numbers of members that are given by their addresses."""
    numbers = {point: number for number, point in enumerate(layout.points)}
    found: list[int] = []
    for parent in parents:
        assert parent is not None, "only the root has no parent"
        x, y = parent
        found.append(numbers[x, y])
    return found


@asynccontextmanager
async def open_program(
    name: str, task: object, *, python: str = sys.executable, quiet: bool = False
) -> AsyncIterator[tuple[JsonReader, JsonWriter]]:
    """A process of the program with that file name, told what to do: its output and its input.

    Args:
        name: of the file.
        task: what it is told.
        python: what runs it.
        quiet: what it writes to standard error is thrown away.
    """
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            functools.partial(
                trio.run_process,
                [python, str(FOLDER / name)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL if quiet else None,
                check=False,
            )
        )
        assert process.stdin is not None
        assert process.stdout is not None
        reader, writer = JsonReader(process.stdout), JsonWriter(process.stdin)
        # One that ends at once is noticed when it is asked for its answer.
        with suppress(trio.BrokenResourceError):
            await writer.write(task)
        yield reader, writer
        await process.stdin.aclose()
        with trio.move_on_after(END_TIMEOUT):
            await process.wait()
        if process.returncode is None:
            process.kill()
