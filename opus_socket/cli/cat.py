"""`opus-socket cat`: the netcat of overlays. Lines in are messages out, and the other way round."""

from __future__ import annotations

from math import inf

import click
import structlog
import trio
from attrs import define

from opus_socket import (
    ConfigurationError,
    EventSubscription,
    LocalProtocolError,
    LogicalAddress,
    MessageLost,
    MessagesDropped,
    NeighborAdded,
    NeighborRemoved,
    OverlayConfig,
    OverlaySocket,
    open_overlay_socket,
)
from opus_socket.cli.options import overlay_options
from opus_socket.cli.signals import run_until_signal
from opus_socket.cli.streams import MessagePrinter, TooLong, input_lines
from opus_socket.core.message import SHAPES
from opus_socket.registry import protocol

BATCH = 256

_log = structlog.get_logger("opus_socket")


@click.command("cat")
@overlay_options
@click.option("--to", metavar="ADDRESS", help="Send to this member only (Delaunay: x,y).")
@click.option(
    "--count", type=click.IntRange(1), metavar="N", help="End after N messages have come."
)
@click.option(
    "--linger",
    type=click.FloatRange(0),
    metavar="SECONDS",
    help="Stay for so long after the end of input; `inf`: until interrupted.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each message.")
@click.pass_context
def command(
    context: click.Context,
    /,
    config: OverlayConfig,
    to: str | None,
    count: int | None,
    linger: float | None,
    as_json: bool,
) -> None:
    """Join an overlay, send lines, print what comes.

    A line of standard input goes to every other member, or with --to to one, as the bytes that it
    is, without its newline. A line above the limit is not sent: an error says so, the lines after
    it are sent, and the exit status is 1.

    A message is printed as SOURCE, a tab and its bytes as they are; with --json as {"source":
    ADDRESS, "payload": TEXT, "mode": MODE}, where "payload_base64" takes the place of "payload"
    when that is not UTF-8.

    At the end of input all that was sent is written out, then the member leaves: at once, unless
    --linger says how long it stays or --count for how many messages it waits. --count ends it in
    any case, whatever input is left. Fewer messages than that are exit status 1.
    """
    address = None if to is None else _parse_address(config, to)
    printer = MessagePrinter(protocol(config.node.protocol), as_json)
    verb = _Cat(config, address, inf if count is None else count, linger, printer)
    context.exit(run_until_signal(verb.run))


@define(eq=False)
class _Cat:
    """One run of the verb.

    Attributes:
        to: whom lines are sent to; None for everybody.
        missing: how many messages are still waited for; inf for no limit.
        linger: seconds from the end of input; None when nothing was said.
        status: the exit status so far.
    """

    config: OverlayConfig
    to: LogicalAddress | None
    missing: float
    linger: float | None
    printer: MessagePrinter
    status: int = 0

    async def run(self) -> int:
        """Join, send and receive until the end; the exit status."""
        async with open_overlay_socket(self.config) as sock:
            events = sock.events()
            await sock.join()
            log_joined(sock)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(log_events, events)
                nursery.start_soon(self._receive, sock, nursery.cancel_scope)
                await self._send(sock)
                await trio.sleep(self._stay())
                nursery.cancel_scope.cancel()
        return 1 if 0 < self.missing < inf else self.status

    def _stay(self) -> float:
        """Seconds from the end of input to the end."""
        if self.linger is not None:
            return self.linger
        return 0.0 if self.missing == inf else inf

    async def _send(self, sock: OverlaySocket) -> None:
        packet = self.config.socket_adapter.maximum_packet_length
        limit = packet - SHAPES[sock.address.las].size
        async for lines in input_lines(limit):
            for line in lines:
                if isinstance(line, TooLong):
                    self.status = 1
                    _log.error(
                        f"line {line.number} is not sent: {line.length} bytes; at most {limit} are "
                        f"allowed (socket_adapter.maximum_packet_length = {packet} less a header)"
                    )
            allowed = [line for line in lines if isinstance(line, bytes)]
            if self.to is None:
                await sock.send_batch(allowed)
                continue
            for line in allowed:
                await sock.send(self.to, line)

    async def _receive(self, sock: OverlaySocket, scope: trio.CancelScope) -> None:
        while self.missing > 0:
            messages = await sock.receive_batch(int(min(BATCH, self.missing)))
            await self.printer.print(messages)
            self.missing -= len(messages)
        scope.cancel()


def log_joined(sock: OverlaySocket) -> None:
    """Say who this member is, and where others reach it."""
    address, neighbors = sock.address, len(sock.neighbors)
    endpoint = str(sock.contact.endpoints[0])
    _log.info(f"joined as {address} with {neighbors} neighbors", endpoint=endpoint)


async def log_events(events: EventSubscription) -> None:
    """Log what happens to a member: losses as warnings, neighbors that come
    and go, everything else for those who look.
    """
    async for event in events:
        match event:
            case MessageLost(destination=destination, reason=reason, at=at):
                whom = "everybody" if destination is None else str(destination)
                _log.warning(f"a message to {whom} was lost at {at}: {reason}")
            case MessagesDropped(count=count, reason=reason, neighbor=neighbor):
                where = "here, unread" if neighbor is None else f"on the way to {neighbor}"
                _log.warning(f"{count} messages were dropped {where}: {reason}")
            case NeighborAdded(contact=contact):
                _log.info(f"{contact.address} is a neighbor")
            case NeighborRemoved(contact=contact):
                _log.info(f"{contact.address} is no neighbor any more")
            case _:
                _log.debug(str(event))


def _parse_address(config: OverlayConfig, text: str) -> LogicalAddress:
    try:
        return protocol(config.node.protocol).parse_address(text)
    except LocalProtocolError as error:
        raise ConfigurationError(f"--to: {error}") from error
