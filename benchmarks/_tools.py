"""Programs from elsewhere that benchmarks run: a broker, a measuring tool.

Its one rule: one that is not installed is `MissingError`, with what would install it.
"""

from __future__ import annotations

import functools
import json
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import trio
from _common import MeasurementError
from attrs import frozen

STARTUP = 10.0
LOOK_EVERY = 0.02
PATIENCE = 100


class MissingError(Exception):
    """Something is not installed; the text says what, and how to get it."""


def find_tool(name: str) -> str:
    """The path of a program.

    Raises:
        MissingError: it is not installed.
    """
    # Debian's servers are where not every user looks.
    path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    if path is None:
        raise MissingError(f"no {name}: apt install {name}")
    return path


def free_port() -> int:
    """A port that was free a moment ago, for programs that do not tell which one they got."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port


@asynccontextmanager
async def open_tool(command: Sequence[str], port: int) -> AsyncIterator[trio.Process]:
    """A program that listens at a port, until the block ends.

    Raises:
        MeasurementError: it does not listen in time.
    """
    async with trio.open_nursery() as nursery:
        process: trio.Process = await nursery.start(
            functools.partial(
                trio.run_process,
                command,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
        )
        await _wait_listening(command[0], port)
        yield process
        process.terminate()


async def _wait_listening(name: str, port: int) -> None:
    with trio.move_on_after(STARTUP):
        while True:
            try:
                stream = await trio.open_tcp_stream("127.0.0.1", port)
            except OSError:
                await trio.sleep(LOOK_EVERY)
            else:
                await stream.aclose()
                return
    raise MeasurementError(f"{name} did not listen within {STARTUP:g} s")


@frozen
class Iperf:
    """iperf3: one TCP connection, and as many bytes in writes of a message's size.

    Attributes:
        command: the program.
        port: where its server listens.
    """

    command: str
    port: int

    async def measure(self, batches: Sequence[Sequence[bytes]]) -> float:
        """Seconds until the server has got as many bytes."""
        size = len(batches[0][0])
        total = size * sum(map(len, batches))
        where = ["-c", "127.0.0.1", "-p", str(self.port), "-J"]
        command = [self.command, *where, "-n", str(total), "-l", str(size)]
        for _ in range(PATIENCE):
            done = await trio.run_process(command, capture_stdout=True, check=False)
            match json.loads(done.stdout):
                case {"end": {"sum_received": {"seconds": float(seconds)}}} if seconds > 0:
                    return seconds
                case {"error": str(error)} if "busy" not in error:
                    raise MeasurementError(error)
                case _:
                    # The server has not yet seen that the client before is gone.
                    await trio.sleep(LOOK_EVERY)
        raise MeasurementError("iperf3 is always busy")


@asynccontextmanager
async def open_iperf() -> AsyncIterator[Iperf]:
    """A server of iperf3, and its client.

    Raises:
        MissingError: it is not installed.
    """
    command, port = find_tool("iperf3"), free_port()
    async with open_tool([command, "-s", "-p", str(port)], port):
        yield Iperf(command, port)
