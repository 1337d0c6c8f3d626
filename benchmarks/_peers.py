"""The peers that throughput is measured beside: other systems that carry messages.

Its one rule: a peer is measured as its makers mean it to be used, without loss; what it does less
than an overlay socket does, or more, its note says. A peer that is not installed is skipped with
the reason, never a failure. `pip install 'opus-socket[peers]'` installs what PyPI has.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

import trio
from _common import MeasurementError, Side
from _peer import Group, Sender, load
from _remote import open_program
from attrs import frozen

from opus_socket.cli.pipes import JsonReader, JsonWriter


@frozen
class Peer:
    """One peer.

    Attributes:
        name: the system's.
        module: of these benchmarks.
        notes: for each workload that it can do, what is compared there.
    """

    name: str
    module: str
    notes: Mapping[str, str]


@frozen
class Opened:
    """A peer that can be measured now."""

    name: str
    note: str
    side: Side


PEERS = (
    Peer(
        "ZeroMQ",
        "_zeromq",
        {
            "point_to_point": "PUSH/PULL; no relays; its I/O thread is a thread beside Python's",
            "two_processes": "PUSH/PULL; no relays; an I/O thread beside Python's in each process",
            "fan_out": "XPUB/SUB that waits instead of dropping; a star, no relays; its I/O thread"
            " is a thread beside Python's",
        },
    ),
    Peer(
        "Zenoh",
        "_zenoh",
        {
            "point_to_point": "reliable, waits when congested; no relays; its runtime's threads are"
            " beside Python's",
            "two_processes": "reliable, waits when congested; no relays; its runtime's threads are"
            " beside Python's in each process",
            "fan_out": "reliable, waits when congested; a star, no relays; its runtime's threads"
            " are beside Python's",
        },
    ),
)


@frozen
class Near:
    """A peer whose receivers are in this process: a thread of it does the work."""

    name: str
    group: Group

    async def measure(self, batches: Sequence[Sequence[bytes]]) -> float:
        """Seconds until every receiver has got all messages."""
        started = time.monotonic()
        await _in_thread(self.name, self.group.exchange, batches)
        return time.monotonic() - started


@frozen
class Far:
    """A peer whose receiver is in another process.

    Attributes:
        name: the peer's.
        sender: is here.
        reader, writer: the other process's standard output and input.
    """

    name: str
    sender: Sender
    reader: JsonReader
    writer: JsonWriter

    async def measure(self, batches: Sequence[Sequence[bytes]]) -> float:
        """Seconds until the receiver has got all messages."""
        await self.writer.write(sum(map(len, batches)))
        started = time.monotonic()
        await _in_thread(self.name, self.sender.send_all, batches)
        finished = await anext(self.reader)
        assert isinstance(finished, float)
        return finished - started


async def _in_thread(
    name: str, work: Callable[[Sequence[Sequence[bytes]]], None], batches: Sequence[Sequence[bytes]]
) -> None:
    try:
        await trio.to_thread.run_sync(work, batches)
    except TimeoutError as error:
        raise MeasurementError(f"{name}: {error}") from error


@asynccontextmanager
async def open_peers(
    workload: str, receivers: int, skip: Callable[[str, str], None]
) -> AsyncIterator[list[Opened]]:
    """Every peer that can do a workload and is installed.

    Args:
        workload: its name.
        receivers: how many it has.
        skip: told the name of a peer that is missing, and why.
    """
    async with AsyncExitStack() as stack:
        opened: list[Opened] = []
        for peer in PEERS:
            if workload not in peer.notes:
                continue
            try:
                if workload == "two_processes":
                    side: Side = await stack.enter_async_context(_open_far(peer))
                else:
                    group = await trio.to_thread.run_sync(
                        stack.enter_context, load(peer.module).open_group(receivers)
                    )
                    side = Near(peer.name, group)
            except ImportError as error:
                skip(peer.name, f"{error}: pip install 'opus-socket[peers]'")
            else:
                opened.append(Opened(peer.name, peer.notes[workload], side))
        yield opened


@asynccontextmanager
async def _open_far(peer: Peer) -> AsyncIterator[Far]:
    """A sender here, its receiver in another process."""
    with load(peer.module).open_sender() as sender:
        task = {"peer": peer.module, "endpoint": sender.endpoint}
        async with open_program("_receiver.py", task) as (reader, writer):
            await anext(reader)
            await trio.to_thread.run_sync(sender.wait_ready)
            yield Far(peer.name, sender, reader, writer)
