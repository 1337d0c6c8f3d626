"""A process of a demonstration: some members of the overlay, led over standard input and output.

Its one rule: it does what the orders say and reports what happens (`words`), and it ends when
the orders end, so that none is left behind whatever becomes of its parent.
"""

from __future__ import annotations

import hashlib
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import trio
from attrs import define, field

from opus_socket import ConfigurationError, OverlayConfig, OverlayError, OverlaySocket, open_host
from opus_socket.cli.demo.transfer import Incoming, pieces_of
from opus_socket.cli.demo.words import (
    Begin,
    Failed,
    Finished,
    Joined,
    Look,
    Multicast,
    Place,
    Places,
    Progress,
    Report,
    order,
    pack,
)
from opus_socket.cli.pipes import JsonReader, JsonWriter
from opus_socket.config import LoggingConfig
from opus_socket.core.addresses import LogicalAddress
from opus_socket.logs import configure_logging

BATCH = 8
PROGRESS_EVERY = 0.1


@define(eq=False)
class Member:
    """One member of the overlay."""

    number: int
    sock: OverlaySocket
    reports: JsonWriter
    incoming: Incoming = field(factory=Incoming, init=False)

    async def live(self) -> None:
        """Join, then receive a file."""
        began = time.monotonic()
        await self.sock.join()
        await self._report(Joined(self.number, self.sock.address, time.monotonic() - began))
        while not self.incoming.complete:
            for message in await self.sock.receive_batch():
                self.incoming.take(message.payload)
        ended = time.monotonic()
        size, sha256 = self.incoming.size, self.incoming.sha256
        await self._report(Finished(self.number, size, sha256, 0.0, ended))

    async def send(self, file: Path) -> None:
        """Send a file to all."""
        began = time.monotonic()
        size, digest, batch = 0, hashlib.sha256(), []
        for message, part in pieces_of(file):
            size += len(part)
            digest.update(part)
            batch.append(message)
            if len(batch) == BATCH:
                await self.sock.send_batch(batch)
                batch = []
        await self.sock.send_batch(batch)
        ended = time.monotonic()
        await self._report(Finished(self.number, size, digest.hexdigest(), began, ended))

    def look(self, root: LogicalAddress) -> Place:
        """Where it stands."""
        sock = self.sock
        return Place(self.number, sock.address, sock.neighbors, sock.parent(root))

    async def _report(self, report: Report) -> None:
        await self.reports.write(pack(report))


async def run(orders: JsonReader, reports: JsonWriter) -> None:
    """Follow the orders until they end."""
    first = await anext(orders, None)
    if first is None:
        return
    begin = order(first)
    if not isinstance(begin, Begin):
        raise ValueError(f"the first order is Begin, not {begin}")
    config = OverlayConfig(
        overlay_id=begin.overlay_id,
        node={"protocol": begin.protocol},
        node_adapter={"listen": "127.0.0.1:0"},
        rendezvous={"server": begin.server},
    )
    async with open_host() as host:
        members = {
            number: Member(number, await host.open_socket(config), reports)
            for number in begin.members
        }
        async with trio.open_nursery() as nursery:
            for member in members.values():
                nursery.start_soon(member.live)
            nursery.start_soon(_report_progress, members, reports)
            async for value in orders:
                match order(value):
                    case Look(root=root):
                        at = LogicalAddress(root)
                        places = tuple(member.look(at) for member in members.values())
                        await reports.write(pack(Places(places)))
                    case Multicast(member=number, file=file):
                        nursery.start_soon(members[number].send, Path(file))
                    case other:
                        raise ValueError(f"not now: {other}")
            nursery.cancel_scope.cancel()


async def _report_progress(members: dict[int, Member], reports: JsonWriter) -> None:
    """Say how much has arrived, as often as that changes and not more than ten times a second."""
    said: tuple[tuple[int, int], ...] = ()
    while True:
        await trio.sleep(PROGRESS_EVERY)
        received = tuple((number, member.incoming.size) for number, member in members.items())
        if received != said:
            said = received
            await reports.write(pack(Progress(received)))


async def main() -> None:
    """Follow the orders of standard input; a problem is reported before the process ends."""
    orders = JsonReader(trio.lowlevel.FdStream(os.dup(sys.stdin.fileno())))
    reports = JsonWriter(trio.lowlevel.FdStream(os.dup(sys.stdout.fileno())))
    # Without a reader of the reports there is nobody left to work for.
    with suppress(trio.BrokenResourceError), _unwrapped():
        try:
            with _unwrapped():
                await run(orders, reports)
        except (OverlayError, OSError) as error:
            by_configuration = isinstance(error, ConfigurationError)
            await reports.write(pack(Failed(str(error), by_configuration)))


@contextmanager
def _unwrapped() -> Iterator[None]:
    """Raise the first error of a group instead of the group: the others follow from it."""
    try:
        yield
    except BaseExceptionGroup as group:
        error: BaseException = group
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from None


if __name__ == "__main__":
    # What goes wrong is reported; that neighbors go when a demonstration is cut short is no news.
    configure_logging(LoggingConfig(level="error"))
    trio.run(main)
