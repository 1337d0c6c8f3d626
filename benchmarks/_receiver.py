"""The second process of a benchmark: receives what the first one sends.

Its one rule: it does what it is told on standard input, one JSON value a line, and says so on
standard output. First `{"overlay": SERVER}`, `{"bare": PORT}` or the endpoint of a peer; then, for
each run, how many messages are to come. It answers `true` when it is ready, and for each run the
clock's reading when all had come.
"""

from __future__ import annotations

import functools
import socket
import sys
import time
from collections.abc import Awaitable, Callable

import trio
from _bare import Receiver, tune
from _overlay import receive, tcp_config
from _peer import Receiver as PeerReceiver
from _peer import load

from opus_socket import open_overlay_socket
from opus_socket.cli.pipes import JsonReader, JsonWriter
from opus_socket.config import LoggingConfig
from opus_socket.logs import configure_logging

SENDER, RECEIVER = (0, 0), (1, 0)


async def main() -> None:
    """Receive until standard input ends."""
    reader = JsonReader(trio.lowlevel.FdStream(sys.stdin.fileno()))
    writer = JsonWriter(trio.lowlevel.FdStream(sys.stdout.fileno()))
    match await anext(reader):
        case {"overlay": str(server)}:
            async with open_overlay_socket(tcp_config(RECEIVER, server)) as sock:
                await sock.join()
                await serve(reader, writer, lambda count: receive(sock, count))
        case {"bare": int(port)}:
            source = socket.create_connection(("127.0.0.1", port))
            with tune(source):
                await serve(reader, writer, Receiver(source, ()).receive)
        case {"peer": str(module), "endpoint": str(endpoint)}:
            with load(module).open_receiver(endpoint) as receiver:
                await serve(reader, writer, functools.partial(receive_all, receiver))
        case other:
            raise SystemExit(f"not understood: {other}")


async def receive_all(receiver: PeerReceiver, count: int) -> None:
    """Receive so many messages of a peer, which has a loop and threads of its own: this process has
    nothing else to do meanwhile.
    """
    receiver.receive(count)


async def serve(
    reader: JsonReader, writer: JsonWriter, take: Callable[[int], Awaitable[None]]
) -> None:
    """Receive for run after run."""
    await writer.write(True)
    async for count in reader:
        assert isinstance(count, int)
        await take(count)
        await writer.write(time.monotonic())


if __name__ == "__main__":
    configure_logging(LoggingConfig(level="warning"))
    trio.run(main)
