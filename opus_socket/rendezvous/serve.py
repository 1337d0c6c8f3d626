"""The server's process: one UDP socket and a clock around the `RendezvousServer` machine.

Its one rule: a wake-up drains. The socket is read until it is empty or the budget is spent, the
machine's answers are sent as they come, without a single await in between; what the system will
not take is counted, because every request is repeated by whoever did not get its answer.
"""

from __future__ import annotations

import errno
import secrets
import socket
from collections import Counter, OrderedDict
from collections.abc import Mapping
from random import Random

import structlog
import trio
from attrs import asdict, define, field, frozen

from opus_socket.adapters.udp import bind
from opus_socket.config import parse_host_port
from opus_socket.core import datagram
from opus_socket.core.addresses import Contact, Endpoint, Use
from opus_socket.core.effects import Kind
from opus_socket.core.wire import MAX_BODY
from opus_socket.errors import ConfigurationError, RemoteProtocolError
from opus_socket.rendezvous.server import (
    RendezvousServer,
    ServerEffects,
    ServerSettings,
    ServerStatistics,
)

DATAGRAMS_A_TURN = 256
MAX_SENDERS = 1 << 16

INDEX = 0
"""The server's own index at its endpoint."""

_REMEDIES = {
    errno.EADDRINUSE: "it is in use; choose another port, or 0 to let the system choose",
    errno.EACCES: "permission denied; choose a port above 1023",
    errno.EADDRNOTAVAIL: "no such address on this machine; choose one of its own, or 0.0.0.0",
}

_log = structlog.get_logger()


@frozen
class ProcessStatistics:
    """Figures of a server's process.

    Attributes:
        received: datagrams that came.
        sent: datagrams that went.
        unsent: datagrams that the system would not take.
        refused: datagrams that break the protocol, by what was wrong with them.
        senders: how many are remembered, so that their contacts need not be made again.
        server: what the machine did.
    """

    received: int
    sent: int
    unsent: int
    refused: Mapping[str, int]
    senders: int
    server: ServerStatistics

    def figures(self) -> dict[str, int]:
        """All of them side by side, as a line of a log has them.

        The server refuses requests; so datagrams that break the protocol are `malformed` here, and
        `malformed_KIND` for each kind.
        """
        return {
            "received": self.received,
            "sent": self.sent,
            "unsent": self.unsent,
            "malformed": sum(self.refused.values()),
            **{f"malformed_{kind}": count for kind, count in sorted(self.refused.items())},
            "senders": self.senders,
            **asdict(self.server),
        }


@define(eq=False)
class ServerProcess:
    """Drives a server on a socket.

    Args:
        sock: a bound, non-blocking UDP socket; owned by whoever made it.
        machine: the server.
    """

    _sock: socket.socket
    _machine: RendezvousServer
    _senders: OrderedDict[tuple[object, int], Contact] = field(factory=OrderedDict, init=False)
    _received: int = field(default=0, init=False)
    _sent: int = field(default=0, init=False)
    _unsent: int = field(default=0, init=False)
    _refused: Counter[str] = field(factory=Counter, init=False)

    async def run(self) -> None:
        """Serve until cancelled."""
        while True:
            with trio.move_on_at(self._machine.next_deadline):
                await trio.lowlevel.wait_readable(self._sock)
            self.drain(trio.current_time())
            now = trio.current_time()
            if self._machine.next_deadline <= now:
                self._perform(self._machine.wake(now))

    def drain(self, now: float) -> None:
        """Read and answer what has come, up to 256 datagrams."""
        for _ in range(DATAGRAMS_A_TURN):
            try:
                data, source = self._sock.recvfrom(datagram.HEADER_LENGTH + MAX_BODY + 1)
            except BlockingIOError:
                return
            except OSError:
                # An earlier answer found nobody at its port; that is the asker's loss.
                continue
            self._received += 1
            try:
                self._receive(data, source, now)
            except RemoteProtocolError as error:
                self._refused[error.kind] += 1

    def statistics(self) -> ProcessStatistics:
        """Figures so far."""
        return ProcessStatistics(
            self._received,
            self._sent,
            self._unsent,
            dict(self._refused),
            len(self._senders),
            self._machine.statistics(),
        )

    def _receive(self, data: bytes, source: tuple[str, int], now: float) -> None:
        header = datagram.unpack(data)
        if header.seal != 0:
            raise RemoteProtocolError("unknown_seal", str(header.seal))
        if header.kind != Kind.RENDEZVOUS:
            raise RemoteProtocolError("unexpected", f"kind {header.kind}")
        sender = self._sender(source, header.from_index)
        self._perform(self._machine.receive(data[datagram.HEADER_LENGTH :], sender, now))

    def _sender(self, source: tuple[str, int], index: int) -> Contact:
        key = (source, index)
        sender = self._senders.get(key)
        if sender is not None:
            self._senders.move_to_end(key)
            return sender
        if source[1] == 0:
            raise RemoteProtocolError("bad_source", "port 0")
        sender = Contact(None, 0, index, (Endpoint(source[0], source[1], Use.UDP),))
        self._senders[key] = sender
        if len(self._senders) > MAX_SENDERS:
            self._senders.popitem(last=False)
        return sender

    def _perform(self, effects: ServerEffects) -> None:
        for effect in effects:
            data = datagram.pack(effect.kind, 0, effect.tag, effect.to.index, INDEX, effect.body)
            host, port, _ = effect.to.endpoints[0]
            try:
                self._sock.sendto(data, (host, port))
            except OSError:
                # Full buffers and unreachable networks alike: lost, as on any wire.
                self._unsent += 1
            else:
                self._sent += 1


async def serve(
    listen: str,
    *,
    settings: ServerSettings | None = None,
    option: str = "listen",
    task_status: trio.TaskStatus[Endpoint] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Run a rendezvous server until cancelled.

    Args:
        listen: `HOST:PORT`, the host an IPv4 address, an IPv6 address in brackets, or a name;
            port 0 lets the system choose.
        settings: bounds and periods.
        option: what the user calls `listen`, for errors.
        task_status: told the endpoint that it listens at.

    Raises:
        ConfigurationError: it cannot listen there; the text says why, and what to do.
    """
    with await _open(listen, option) as sock:
        host, port = sock.getsockname()[:2]
        endpoint = Endpoint(host, port, Use.UDP)
        machine = RendezvousServer(
            Random(secrets.randbits(64)), secrets.token_bytes(32), settings or ServerSettings()
        )
        process = ServerProcess(sock, machine)
        _log.info("rendezvous server listens", endpoint=str(endpoint))
        task_status.started(endpoint)
        try:
            await process.run()
        finally:
            _log.info("rendezvous server stops", **process.statistics().figures())


async def _open(listen: str, option: str) -> socket.socket:
    host, port = parse_host_port(listen, key=option)
    try:
        found = await trio.socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
    except OSError as error:
        raise ConfigurationError(
            f"{option} = {listen!r}: no address of {host!r} is known ({error}); "
            "give an address of this machine"
        ) from error
    address = str(found[0][4][0])
    try:
        return bind(address, port)
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, error.strerror or str(error))
        raise ConfigurationError(f"cannot listen at {listen!r}: {remedy}") from error
