"""`opus-socket cat`: the netcat of overlays. Lines in are messages out, and the other way round."""

from __future__ import annotations

from math import inf

import click
import structlog
import trio
from attrs import define

from opus_socket import (
    ConfigurationError,
    Event,
    EventSubscription,
    LocalProtocolError,
    LogicalAddress,
    MessageLost,
    MessagesDropped,
    NeighborAdded,
    NeighborRemoved,
    OverlayConfig,
    OverlayError,
    OverlaySocket,
    SourceBroken,
    SourceRestored,
    open_overlay_socket,
)
from opus_socket.cli.joining import join_timeout_option, joined_within
from opus_socket.cli.numbers import Seconds, Whole
from opus_socket.cli.options import overlay_options
from opus_socket.cli.signals import run_until_signal
from opus_socket.cli.streams import MessagePrinter, TooLong, input_lines
from opus_socket.registry import protocol

BATCH = 256
LOSS_WAIT = 1.0
"""Seconds for the report of a loss to come back from a member at the other end of the world."""

_REASONS = {
    "unroutable": "no member was found to whom it could go",
    "hop_limit": "its way was longer than socket.hop_limit allows",
    "incomplete": "fragments of it did not come, or there was no room to wait for them",
    "too_long": "it is longer than socket.max_message allows",
}

_log = structlog.get_logger("opus_socket")


@click.command("cat")
@overlay_options
@click.option("--to", metavar="ADDRESS", help="Send to this member only (Delaunay: x,y).")
@click.option("--count", type=Whole(), metavar="N", help="End after N messages have come.")
@click.option(
    "--linger",
    type=Seconds(),
    metavar="SECONDS",
    help="Stay for so long after the end of input; `inf`: until interrupted.",
)
@join_timeout_option
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object for each message.")
@click.pass_context
def command(
    context: click.Context,
    /,
    config: OverlayConfig,
    to: str | None,
    count: int | None,
    linger: float | None,
    join_timeout: float,
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

    With --to it stays for a second after the end of input, because a member that is not there is
    known only by a report of who found no way to it. Such a line is an error, and exit status 1.
    """
    address = None if to is None else _parse_address(config, to)
    printer = MessagePrinter(protocol(config.node.protocol), as_json)
    verb = _Cat(config, address, inf if count is None else count, linger, join_timeout, printer)
    context.exit(run_until_signal(verb.run))


@define(eq=False)
class _Cat:
    """One run of the verb.

    Attributes:
        to: whom lines are sent to; None for everybody.
        count: how many messages are waited for; inf for no limit.
        linger: seconds from the end of input; None when nothing was said.
        join_timeout: seconds; inf to wait for ever.
        received: how many messages have come.
        sent: how many lines were sent to one member.
        status: the exit status so far.
    """

    config: OverlayConfig
    to: LogicalAddress | None
    count: float
    linger: float | None
    join_timeout: float
    printer: MessagePrinter
    received: int = 0
    sent: int = 0
    status: int = 0

    async def run(self) -> int:
        """Join, send and receive until the end; the exit status.

        Raises:
            OverlayError: fewer messages came than were waited for.
        """
        async with open_overlay_socket(self.config) as sock:
            events = sock.events()
            with joined_within(self.join_timeout, self.config):
                await sock.join()
            log_joined(sock)
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._watch, events)
                nursery.start_soon(self._receive, sock, nursery.cancel_scope)
                await self._send(sock)
                await trio.sleep(self._stay())
                nursery.cancel_scope.cancel()
        if self.received < self.count < inf:
            raise OverlayError(f"{self.received} of {self.count:.0f} messages came")
        return self.status

    def _stay(self) -> float:
        """Seconds from the end of input to the end."""
        if self.linger is not None:
            return self.linger
        if self.count < inf:
            return inf
        return LOSS_WAIT if self.sent else 0.0

    async def _send(self, sock: OverlaySocket) -> None:
        limit = self.config.socket.max_message
        async for lines in input_lines(limit):
            for line in lines:
                if isinstance(line, TooLong):
                    self.status = 1
                    _log.error(
                        f"line {line.number} is not sent: {line.length} bytes; at most {limit} "
                        "bytes are allowed (socket.max_message)"
                    )
            allowed = [line for line in lines if isinstance(line, bytes)]
            if self.to is None:
                await sock.send_batch(allowed)
                continue
            for line in allowed:
                await sock.send(self.to, line)
                self.sent += 1

    async def _watch(self, events: EventSubscription) -> None:
        async for event in events:
            if (
                isinstance(event, MessageLost)
                and self.to is not None
                and event.destination == self.to
            ):
                self.status = 1
            log_event(event)

    async def _receive(self, sock: OverlaySocket, scope: trio.CancelScope) -> None:
        while self.received < self.count:
            messages = await sock.receive_batch(int(min(BATCH, self.count - self.received)))
            await self.printer.print(messages)
            self.received += len(messages)
        scope.cancel()


def log_joined(sock: OverlaySocket) -> None:
    """Say who this member is, where others reach it, and what it means when nobody is there."""
    count = len(sock.neighbors)
    neighbors = "1 neighbor" if count == 1 else f"{count} neighbors"
    endpoint = str(sock.contact.endpoints[0])
    _log.info(f"joined as {sock.address} with {neighbors}", endpoint=endpoint)
    given = sock.config.rendezvous
    if not (given.server or given.buddies or given.multicast):
        _log.warning(
            "no way to find other members is given (--server, --buddy or --multicast); they can "
            "only find this one, as their buddy",
            buddy=endpoint,
        )
    elif given.buddies and not given.server and not count:
        _log.info("no buddy answers yet; this member founds the overlay, and asks them again")


def log_event(event: Event) -> None:
    """Log what happened to a member: what was lost as errors and warnings, neighbors that come
    and go, everything else for those who look.
    """
    match event:
        case MessageLost(destination=None, reason=reason, at=at):
            _log.warning(f"a message to everybody was lost at {at}: {_words(reason)}")
        case MessageLost(destination=destination, reason=reason, at=at):
            _log.error(f"a message to {destination} was lost at {at}: {_words(reason)}")
        case MessagesDropped(count=count, reason=reason, neighbor=neighbor):
            where = "here, unread" if neighbor is None else f"on the way to {neighbor}"
            _log.warning(f"{count} messages were dropped {where}: {reason}")
        case SourceBroken(source=source, via=via):
            _log.warning(f"{source} does not get through any more: it came by {via}, which is lost")
        case SourceRestored(source=source):
            _log.info(f"{source} gets through again")
        case NeighborAdded(contact=contact):
            _log.info(f"{contact.address} is a neighbor")
        case NeighborRemoved(contact=contact):
            _log.info(f"{contact.address} is no neighbor any more")
        case _:
            _log.debug(str(event))


def _words(reason: str) -> str:
    return f"{_REASONS[reason]} ({reason})" if reason in _REASONS else reason


def _parse_address(config: OverlayConfig, text: str) -> LogicalAddress:
    try:
        return protocol(config.node.protocol).parse_address(text)
    except LocalProtocolError as error:
        raise ConfigurationError(f"--to: {error}") from error
