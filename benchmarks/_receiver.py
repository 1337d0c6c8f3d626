"""The second process of a benchmark: receives what the first one sends.

Its one rule: it does what it is told on standard input, one JSON value a line, and says so on
standard output. First which members of an overlay it has, which nodes of a bare tree, or which
receivers of a peer; then, for each run, how many messages of how many bytes are to come. It answers
when it is ready, with the parents of its members if it has any, and for each run the clock's
reading when all had come; or `{"failed": REASON}`. `{"idle": SECONDS}` it answers after that time
by the seconds of processor time that it took meanwhile.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager

import trio
from _bare import Tree, connect, crossing
from _common import MeasurementError, ungrouped
from _layout import Layout, Way
from _overlay import form, open_members, receive_all
from _peer import Receiver, load
from _remote import parent_numbers

from opus_socket import open_host
from opus_socket.cli.pipes import JsonReader, JsonWriter
from opus_socket.config import LoggingConfig
from opus_socket.core.addresses import LogicalAddress
from opus_socket.logs import configure_logging

MOST_TASKS = 16
Take = Callable[[int, int], Awaitable[None]]


async def main() -> None:
    """Receive until standard input ends."""
    reader = JsonReader(trio.lowlevel.FdStream(sys.stdin.fileno()))
    writer = JsonWriter(trio.lowlevel.FdStream(sys.stdout.fileno()))
    match await anext(reader):
        case {
            "overlay": str(server),
            "points": list(points),
            "here": int(here),
            "way": str(way),
            "handover": bool(handover),
        }:
            layout = Layout([(x, y) for x, y in points], here, Way(way), handover)
            await receive_overlay(reader, writer, layout, server)
        case {
            "bare": int(port),
            "parents": list(parents),
            "here": int(here),
            "last_only": bool(last_only),
        }:
            own = range(here, len(parents) + 1)
            connections = connect(port, crossing(parents, own))
            tree = Tree(parents, own, connections, last_only=last_only)
            await serve(reader, writer, tree.receive)
        case {"peer": str(module), "endpoint": str(endpoint), "receivers": int(receivers)}:
            await receive_peer(reader, writer, load(module).open_receiver(endpoint, receivers))
        case {
            "peer": str(module),
            "endpoint": str(endpoint),
            "nodes": int(nodes),
            "everywhere": bool(everywhere),
        }:
            await receive_peer(reader, writer, load(module).open_tail(endpoint, nodes, everywhere))
        case other:
            raise SystemExit(f"not understood: {other}")


async def receive_overlay(
    reader: JsonReader, writer: JsonWriter, layout: Layout, server: str
) -> None:
    """Receive as the members of an overlay."""
    async with open_host() as host:
        members = await open_members(host, layout, layout.others, server)
        try:
            await form(members, layout.points)
        except MeasurementError as error:
            await writer.write({"failed": str(error)})
            return

        async def take(count: int, _: int) -> None:
            await receive_all(layout, layout.others, members, count)

        root = LogicalAddress(layout.points[0])
        parents = parent_numbers(layout, [member.parent(root) for member in members])
        await serve(reader, writer, take, parents)


async def receive_peer(
    reader: JsonReader, writer: JsonWriter, opened: AbstractContextManager[Receiver]
) -> None:
    """Receive as receivers of a peer, which has a loop and threads of its own: this process has
    nothing else to do meanwhile.
    """
    try:
        with ungrouped(TimeoutError), opened as receiver:

            async def take(count: int, _: int) -> None:
                receiver.receive(count)

            await serve(reader, writer, take)
    except TimeoutError as error:
        await writer.write({"failed": str(error)})


async def serve(reader: JsonReader, writer: JsonWriter, take: Take, ready: object = True) -> None:
    """Receive for run after run; the end of standard input ends one that goes on, too."""
    await writer.write(ready)
    send, tasks = trio.open_memory_channel[object](MOST_TASKS)
    async with trio.open_nursery() as nursery:

        async def listen() -> None:
            async for task in reader:
                await send.send(task)
            nursery.cancel_scope.cancel()

        nursery.start_soon(listen)
        async for task in tasks:
            match task:
                case [int(count), int(size)]:
                    await take(count, size)
                    await writer.write(time.monotonic())
                case {"idle": float(seconds)}:
                    before = time.process_time()
                    await trio.sleep(seconds)
                    await writer.write(time.process_time() - before)
                case other:
                    raise SystemExit(f"not understood: {other}")


if __name__ == "__main__":
    configure_logging(LoggingConfig(level="error"))
    trio.run(main)
