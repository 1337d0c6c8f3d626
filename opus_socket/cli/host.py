"""`opus-socket host`: many members of an overlay in one process."""

from __future__ import annotations

import json
from contextlib import nullcontext
from math import inf

import click
import structlog
import trio
from attrs import define, field

from opus_socket import OverlayConfig, OverlaySocket, open_host
from opus_socket.cli.collector import MANY, spared_collector
from opus_socket.cli.joining import join_timeout_option, joined_within
from opus_socket.cli.numbers import Seconds, Whole
from opus_socket.cli.options import overlay_options
from opus_socket.cli.signals import run_until_signal
from opus_socket.cli.streams import MessagePrinter
from opus_socket.registry import protocol

BATCH = 256

_log = structlog.get_logger("opus_socket")


@click.command("host")
@overlay_options
@click.option("--members", type=Whole(), required=True, metavar="N", help="How many.")
@click.option(
    "--seconds",
    type=Seconds(),
    default=inf,
    metavar="S",
    help="End so long after all have joined; by default when interrupted.",
)
@join_timeout_option
@click.option(
    "--print", "printing", is_flag=True, help="Print messages: RECEIVER, tab, SOURCE, tab, bytes."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON objects, one a line.")
@click.pass_context
def command(
    context: click.Context,
    /,
    config: OverlayConfig,
    members: int,
    seconds: float,
    join_timeout: float,
    printing: bool,
    as_json: bool,
) -> None:
    """Host many members of an overlay in one process, on one I/O loop.

    Once all are stable it prints how long that took; with --json as {"members": N, "join_s":
    SECONDS, "addresses": [ADDRESS, ...], "endpoints": [HOST:PORT, ...]}. Then it relays and counts
    what comes until it is interrupted. Without a server, buddies or a multicast group its first
    member founds an overlay at a port of its own, which the others join; more may find it there, as
    their buddy. With a thousand members or more Python looks for cyclic garbage seldom, so that
    joining is faster.
    """
    printer = MessagePrinter(protocol(config.node.protocol), as_json) if printing else None
    hosting = _Hosting(config, members, printer, join_timeout)
    with spared_collector() if members >= MANY else nullcontext():
        status = run_until_signal(lambda: hosting.run(seconds, as_json), serves=True)
    context.exit(status)


@define(eq=False)
class _Hosting:
    """One run of the verb.

    Attributes:
        joined: those who have joined, in that order.
        received: messages, by all together.
    """

    config: OverlayConfig
    members: int
    printer: MessagePrinter | None
    join_timeout: float
    joined: list[OverlaySocket] = field(factory=list, init=False)
    all_joined: trio.Event = field(factory=trio.Event, init=False)
    received: int = field(default=0, init=False)

    async def run(self, seconds: float, as_json: bool) -> int:
        """Open, join, report, serve for so many seconds; the exit status."""
        began = trio.current_time()
        async with open_host() as host, trio.open_nursery() as nursery:
            try:
                with joined_within(self.join_timeout, self.config, self._so_far):
                    first = await host.open_socket(self.config)
                    await nursery.start(self._live, first)
                    config = self._joining(first)
                    for _ in range(1, self.members):
                        nursery.start_soon(self._live, await host.open_socket(config))
                    await self.all_joined.wait()
                    # Those who joined at the same time may still be settling among themselves.
                    for sock in self.joined:
                        await sock.wait_stable()
                self._report(trio.current_time() - began, as_json)
                await trio.sleep(seconds)
                nursery.cancel_scope.cancel()
            finally:
                if self.joined:
                    _log.info(f"received {self.received} messages", dropped=self._dropped)
        return 0

    @property
    def _dropped(self) -> int:
        """Messages that members had to drop because somebody took nothing or had no room."""
        lost = [each for sock in self.joined for each in sock.statistics().dropped.values()]
        return sum(each.messages for each in lost)

    async def _live(
        self, sock: OverlaySocket, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        await sock.join()
        task_status.started()
        self.joined.append(sock)
        if len(self.joined) == self.members:
            self.all_joined.set()
        while True:
            messages = await sock.receive_batch(BATCH)
            self.received += len(messages)
            if self.printer is not None:
                await self.printer.print(messages, sock.address)

    def _so_far(self) -> str:
        return f"{len(self.joined)} of {self.members} members joined"

    @property
    def _is_founding(self) -> bool:
        """Whether nothing says how members are found, so that they can only find the first."""
        given = self.config.rendezvous
        return not (given.server or given.buddies or given.multicast)

    def _joining(self, founder: OverlaySocket) -> OverlayConfig:
        """The configuration of the others: where none says how members are found, the first one
        is their buddy, and they share a port of their own.
        """
        if not self._is_founding:
            return self.config
        host, _, _ = self.config.node_adapter.listen.rpartition(":")
        buddy = str(founder.contact.endpoints[0])
        changes = {"rendezvous.buddies": [buddy], "node_adapter.listen": f"{host}:0"}
        return self.config.evolve(**changes)

    def _report(self, join_s: float, as_json: bool) -> None:
        shown = protocol(self.config.node.protocol).format_address
        addresses = [shown(sock.address) for sock in self.joined]
        # A dictionary keeps the order and each endpoint once.
        endpoints = list({str(sock.contact.endpoints[0]): None for sock in self.joined})
        if as_json:
            report = {
                "members": self.members,
                "join_s": round(join_s, 6),
                "addresses": addresses,
                "endpoints": endpoints,
            }
            click.echo(json.dumps(report))
        else:
            members = "1 member" if self.members == 1 else f"{self.members} members"
            if self._is_founding and len(endpoints) > 1:
                endpoints[0] += " (the founder, which has a port of its own)"
            click.echo(f"{members} joined in {join_s:.3f} s at {', '.join(endpoints)}")
