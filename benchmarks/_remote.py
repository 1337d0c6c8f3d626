"""Point to point between two processes: the sender is here, the receiver in another.

Its one rule: both processes read one clock, that of the system, so the time of a run goes from the
first call of the sender to the moment at which the receiver had everything.
"""

from __future__ import annotations

import functools
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import trio
from _bare import send_batch, tune
from _overlay import tcp_config, wait_exact
from _receiver import RECEIVER, SENDER
from attrs import frozen

from opus_socket import open_overlay_socket
from opus_socket.cli.pipes import JsonReader, JsonWriter

_FOLDER = Path(__file__).parent


@frozen
class Remote:
    """A receiver in another process.

    Attributes:
        send: sends a batch to it.
        reader, writer: its standard output and input.
    """

    send: Callable[[Sequence[bytes]], Awaitable[None]]
    reader: JsonReader
    writer: JsonWriter

    async def measure(self, batches: Sequence[Sequence[bytes]]) -> float:
        """Seconds until the receiver has got all messages."""
        await self.writer.write(sum(map(len, batches)))
        started = time.monotonic()
        for batch in batches:
            await self.send(batch)
        finished = await anext(self.reader)
        assert isinstance(finished, float)
        return finished - started


@asynccontextmanager
async def open_overlay(server: object) -> AsyncIterator[Remote]:
    """A member here, whose one neighbor is in another process."""
    async with (
        open_overlay_socket(tcp_config(SENDER, server)) as member,
        open_program("_receiver.py", {"overlay": str(server)}) as (reader, writer),
    ):
        await member.join()
        await anext(reader)
        await wait_exact([member], {SENDER: [RECEIVER]})
        yield Remote(member.send_batch, reader, writer)


@asynccontextmanager
async def open_bare() -> AsyncIterator[Remote]:
    """A connection to a bare receiver in another process."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        async with open_program("_receiver.py", {"bare": port}) as (reader, writer):
            await anext(reader)
            with tune(listener.accept()[0]) as connection:
                yield Remote(functools.partial(send_batch, (connection,)), reader, writer)


@asynccontextmanager
async def open_program(name: str, task: object) -> AsyncIterator[tuple[JsonReader, JsonWriter]]:
    """A process of the program with that file name, told what to do: its output and its input."""
    async with trio.open_nursery() as nursery:
        process = await nursery.start(
            functools.partial(
                trio.run_process,
                [sys.executable, str(_FOLDER / name)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        )
        reader, writer = JsonReader(process.stdout), JsonWriter(process.stdin)
        await writer.write(task)
        yield reader, writer
        await process.stdin.aclose()
        await process.wait()
