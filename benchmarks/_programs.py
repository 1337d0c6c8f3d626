"""Peers that are programs of their own: NATS, whose client needs asyncio, and py-libp2p, which has
a virtual environment of its own.

Its one rule: such a program imports nothing of ours; it reads what to do on standard input, one
JSON value a line. First `{"role": ROLE, "endpoint": TEXT, "receivers": COUNT}`: a *sender*,
*receivers*, both (*group*), an *asker* or an *answerer*. It answers the endpoint of the sender when
it is ready. Then `[COUNT, SIZE]` for each run, which it answers by the clock's reading at which it
began (sender) or had everything (receivers), by the seconds of the run (group), or by those of each
round trip (asker). `{"idle": SECONDS}` is answered after that time by the seconds of processor time
that the program took meanwhile.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import trio
from _common import MeasurementError
from _remote import FOLDER, Elsewhere, open_program
from _tools import MissingError, find_tool, free_port, open_tool
from attrs import frozen

STARTUP = 150.0
LIBP2P_PYTHON = "LIBP2P_PYTHON"
LIBP2P_DEFAULT = FOLDER.parent / ".venv" / "libp2p" / "bin" / "python"
_NATS_SETTINGS = """\
listen: "127.0.0.1:{port}"
# Nobody is thrown out for being slow: a benchmark ends before so much is waiting.
max_pending: 2147483648
write_deadline: "60s"
"""


@frozen
class Kind:
    """A peer that is a program.

    Attributes:
        program: its file.
        python: what runs it.
        endpoint: of a server that it needs; empty when it needs none.
    """

    program: str
    python: str
    endpoint: str


@frozen
class Together:
    """A sender and its receivers in one program."""

    program: Elsewhere

    async def measure(self, batches: Sequence[Sequence[bytes]]) -> float:
        """Seconds until every receiver has got all messages."""
        await self.program.writer.write([sum(map(len, batches)), len(batches[0][0])])
        seconds = await self.program.answer()
        assert isinstance(seconds, float)
        return seconds


@frozen
class Apart:
    """A sender in one program, and receivers in another."""

    sender: Elsewhere
    receivers: Elsewhere

    async def measure(self, batches: Sequence[Sequence[bytes]]) -> float:
        """Seconds until every receiver has got all messages."""
        task = [sum(map(len, batches)), len(batches[0][0])]
        await self.receivers.writer.write(task)
        await self.sender.writer.write(task)
        started = await self.sender.answer()
        finished = await self.receivers.answer()
        assert isinstance(started, float)
        assert isinstance(finished, float)
        return finished - started


@frozen
class Asking:
    """An asker and an answerer."""

    asker: Elsewhere

    async def trips(self, count: int, size: int) -> list[float]:
        """The seconds of each of so many round trips of so many bytes."""
        await self.asker.writer.write([count, size])
        taken = await self.asker.answer()
        assert isinstance(taken, list)
        return taken


@asynccontextmanager
async def open_together(name: str, receivers: int) -> AsyncIterator[Together]:
    """One program with a sender and so many receivers.

    Raises:
        MissingError: it is not installed.
    """
    async with (
        _open_kind(name) as kind,
        _open_role(kind, "group", kind.endpoint, receivers) as (program, _),
    ):
        yield Together(program)


@asynccontextmanager
async def open_apart(name: str, receivers: int) -> AsyncIterator[Apart]:
    """A program that sends, and one with so many receivers.

    Raises:
        MissingError: it is not installed.
    """
    async with (
        _open_kind(name) as kind,
        _open_role(kind, "sender", kind.endpoint, receivers) as (sender, endpoint),
        _open_role(kind, "receiver", endpoint, receivers) as (below, _),
    ):
        yield Apart(sender, below)


@asynccontextmanager
async def open_asking(name: str) -> AsyncIterator[Asking]:
    """A program that asks, and one that answers.

    Raises:
        MissingError: it is not installed.
    """
    async with (
        _open_kind(name) as kind,
        _open_role(kind, "answerer", kind.endpoint, 1),
        _open_role(kind, "asker", kind.endpoint, 1) as (asker, _),
    ):
        yield Asking(asker)


@asynccontextmanager
async def _open_kind(name: str) -> AsyncIterator[Kind]:
    if name == "NATS":
        if importlib.util.find_spec("nats") is None:
            raise MissingError("No module named 'nats': pip install 'opus-socket[peers]'")
        async with _open_nats_server() as endpoint:
            yield Kind("_nats.py", sys.executable, endpoint)
    else:
        python = os.environ.get(LIBP2P_PYTHON) or str(LIBP2P_DEFAULT)
        if not await trio.Path(python).exists():
            raise MissingError(
                f"no {python}: `make peers`, or name a Python that has libp2p by {LIBP2P_PYTHON}"
            )
        yield Kind("_libp2p.py", python, "")


@asynccontextmanager
async def _open_role(
    kind: Kind, role: str, endpoint: str, receivers: int
) -> AsyncIterator[tuple[Elsewhere, str]]:
    """A program in some role, when it is ready, and the endpoint of the sender."""
    task = {"role": role, "endpoint": endpoint, "receivers": receivers}
    async with open_program(kind.program, task, python=kind.python, quiet=True) as streams:
        program = Elsewhere(*streams)
        found: object = None
        with trio.move_on_after(STARTUP):
            found = await program.answer()
        if found is None:
            raise MeasurementError(f"{receivers} receivers were not ready after {STARTUP:g} s")
        yield program, str(found)


@asynccontextmanager
async def _open_nats_server() -> AsyncIterator[str]:
    """A NATS server on a free port, with settings that throw nobody out."""
    command, port = find_tool("nats-server"), free_port()
    with TemporaryDirectory() as folder:
        settings = Path(folder) / "nats.conf"
        settings.write_text(_NATS_SETTINGS.format(port=port))
        async with open_tool([command, "-c", str(settings)], port):
            yield f"nats://127.0.0.1:{port}"
