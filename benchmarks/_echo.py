"""The second process of an echo: sends back what the first one sends.

Its one rule: it does what it is told on standard input, as `_receiver.py` does, and for each run
sends back as many messages as it is told.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable

import trio
from _layout import ANSWERER
from _overlay import tcp_config
from _receiver import Take, serve

from opus_socket import OverlaySocket, open_overlay_socket
from opus_socket.cli.pipes import JsonReader, JsonWriter
from opus_socket.config import LoggingConfig
from opus_socket.logs import configure_logging

READ_SIZE = 1 << 16


async def main() -> None:
    """Send back until standard input ends."""
    reader = JsonReader(trio.lowlevel.FdStream(sys.stdin.fileno()))
    writer = JsonWriter(trio.lowlevel.FdStream(sys.stdout.fileno()))
    match await anext(reader):
        case {"overlay": str(server)}:
            async with open_overlay_socket(tcp_config(ANSWERER, server)) as sock:
                await sock.join()
                await serve(reader, writer, lambda count, _: send_back(sock, count))
        case {"raw": int(port)}:
            stream = await trio.open_tcp_stream("127.0.0.1", port)
            stream.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await serve(reader, writer, lambda count, size: send_back_bytes(stream, count * size))
        case {"zeromq": str(endpoint)}:
            from _zeromq import open_answering  # it may not be installed

            with open_answering(endpoint) as answering:
                await serve(reader, writer, blocking(answering.answer))
        case {"zenoh": str(endpoint)}:
            from _zenoh_echo import open_answering as open_zenoh  # it may not be installed

            with open_zenoh(endpoint) as zenoh_answering:
                await serve(reader, writer, blocking(zenoh_answering.answer))
        case other:
            raise SystemExit(f"not understood: {other}")


def blocking(answer: Callable[[int], None]) -> Take:
    """An answerer that has threads of its own, or blocks: nothing else is to be done meanwhile."""

    async def take(count: int, _: int) -> None:
        answer(count)

    return take


async def send_back(sock: OverlaySocket, count: int) -> None:
    """Send so many messages back to where they came from."""
    for _ in range(count):
        message = await sock.receive()
        await sock.send(message.source, message.payload)


async def send_back_bytes(stream: trio.SocketStream, count: int) -> None:
    """Send so many bytes back."""
    while count > 0:
        data = await stream.receive_some(READ_SIZE)
        await stream.send_all(data)
        count -= len(data)


if __name__ == "__main__":
    configure_logging(LoggingConfig(level="warning"))
    trio.run(main)
