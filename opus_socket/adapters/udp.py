"""UDP: the node adapter of every day, the multicast group, and overlay messages in datagrams.

Its one rule: a wake-up drains. A socket that is ready is read until it is empty or the budget is
spent, without a single await; a send that would wait is dropped and counted, because everything
that travels here is either repeated by its machine or promised best effort only.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress

from attrs import define, field, frozen

from opus_socket.adapters.address_cache import Source
from opus_socket.adapters.base import (
    EVERY_INDEX,
    Route,
    Switchboard,
    closed_on_failure,
    split_frames,
)
from opus_socket.adapters.flow import Output
from opus_socket.adapters.poller import READ
from opus_socket.adapters.seal import PlaintextSeal, Seal
from opus_socket.core import datagram
from opus_socket.core.addresses import Contact
from opus_socket.core.dispatch import Piece
from opus_socket.core.effects import Kind
from opus_socket.errors import RemoteProtocolError

DATAGRAMS_PER_WAKE = 256
DRAIN_BUDGET = 0.002
LONGEST_DATAGRAM = 1 << 16
KERNEL_BUFFER = 4 << 20
_LOOK_EVERY = 16
_OVERLAY = bytes((Kind.OVERLAY,))
_SINGLE = {int(kind): kind for kind in (Kind.PROTOCOL, Kind.RENDEZVOUS, Kind.MEASUREMENT)}
_SO_RCVBUFFORCE = 33


@frozen
class UdpStatistics:
    """Figures of one UDP socket.

    Attributes:
        sent, received: datagrams.
        sent_bytes, received_bytes: their bytes, headers included.
        unsent: datagrams that the system would not take.
    """

    sent: int
    received: int
    sent_bytes: int
    received_bytes: int
    unsent: int


@define(eq=False, repr=False)
class UdpPort:
    """One UDP socket, shared by any number of virtual nodes.

    Args:
        host: whom to hand packets to.
        sock: bound and non-blocking; owned from now on.
        group: whether it listens to the multicast group: what comes is for every member.
    """

    host: Switchboard
    sock: socket.socket
    group: bool = False
    seal: Seal = field(factory=PlaintextSeal)
    _v6: bool = field(init=False)
    _sent: int = 0
    _received: int = 0
    _sent_bytes: int = 0
    _received_bytes: int = 0
    _unsent: int = 0

    def __attrs_post_init__(self) -> None:
        self._v6 = self.sock.family == socket.AF_INET6
        self.host.poller.add(self.sock, READ, self._drain)

    def send(self, to: Contact, route: Route, kind: Kind, body: bytes) -> bool:
        """Send one datagram; whether the contact can be reached from here at all."""
        target = self.host.address_cache.target_of(to, self._v6)
        if target is None:
            return False
        self.send_to(target, route, kind, body)
        return True

    def send_to(self, target: Source, route: Route, kind: Kind, body: bytes | memoryview) -> bool:
        """Send one datagram to an address; whether the system took it."""
        header = datagram.HEADER.pack(
            datagram.VERSION, kind, self.seal.code, route.tag, route.to_index, route.from_index
        )
        try:
            sent = self.sock.sendto(header + self.seal.protect(header, bytes(body)), target)
        except OSError:
            # Full buffers and unreachable networks alike: the datagram is lost, as on any wire.
            self._unsent += 1
            return False
        self._sent += 1
        self._sent_bytes += sent
        return True

    def target_of(self, to: Contact) -> Source | None:
        """Where datagrams for a contact go; None when none of its endpoints is for this socket."""
        return self.host.address_cache.target_of(to, self._v6)

    def statistics(self) -> UdpStatistics:
        """Figures so far."""
        return UdpStatistics(
            self._sent, self._received, self._sent_bytes, self._received_bytes, self._unsent
        )

    def close(self) -> None:
        """Close the socket."""
        self.host.poller.remove(self.sock)
        self.sock.close()

    def _drain(self, _mask: int) -> None:
        host = self.host
        sock = self.sock
        until = host.now() + DRAIN_BUDGET
        for number in range(1, DATAGRAMS_PER_WAKE + 1):
            if sock.fileno() < 0:
                return
            # What is left is ready at the next turn, too.
            if number % _LOOK_EVERY == 0 and host.now() >= until:
                return
            try:
                data, source = sock.recvfrom(LONGEST_DATAGRAM)
            except BlockingIOError:
                return
            except OSError:
                # An earlier datagram found nobody at its port; the machines will notice.
                continue
            self._received += 1
            self._received_bytes += len(data)
            try:
                self._hand_over(host, data, source)
            except RemoteProtocolError as error:
                host.refuse(error.kind)

    def _hand_over(self, host: Switchboard, data: bytes, source: Source) -> None:
        header, body = data[: datagram.HEADER_LENGTH], data[datagram.HEADER_LENGTH :]
        # Overlay messages have a limit of their own, which the forwarding engine knows.
        whole = header if header[1:2] == _OVERLAY else data
        kind, seal, tag, to_index, from_index = datagram.unpack(whole)
        body = self.seal.open(seal, header, body)
        sender = host.address_cache.sender_at(source, from_index)
        route = Route(tag, EVERY_INDEX if self.group else to_index, from_index)
        if kind == Kind.OVERLAY:
            used, broken = host.frames(route, memoryview(bytearray(body)), sender, None)
            host.flush()
            if broken is None and used < len(body):
                broken = "partial_frame"
            if broken is not None:
                host.refuse(broken, tag)
        elif kind in _SINGLE:
            host.message(route, _SINGLE[kind], body, sender)
        else:
            host.refuse("unknown_kind", tag)


@define(eq=False, repr=False)
class UdpLink:
    """Overlay messages to one neighbor in one class, in datagrams, as many to one as it holds.

    Nothing is queued, so classes do not compete.
    """

    port: UdpPort
    contact: Contact
    route: Route
    output: Output
    maximum: int

    def push(self, pieces: Sequence[Piece], size: int, frames: int) -> None:
        """Send whole frames, packed into datagrams."""
        sent, sent_size = self._send(pieces, size, frames)
        self.output.taken += sent
        self.output.taken_size += sent_size

    def hand_on(self, pieces: Sequence[Piece], size: int, frames: int) -> None:
        """Send whole frames that the output has admitted."""
        self._send(pieces, size, frames)
        self.output.release(size, self.port.host.now())

    def _send(self, pieces: Sequence[Piece], size: int, frames: int) -> tuple[int, int]:
        """Send frames, packed into datagrams; how many went, and their bytes."""
        target = self.port.target_of(self.contact)
        if target is None:
            self.output.lose(frames, size, "unreachable")
            return 0, 0
        sent = sent_size = 0
        for data, count in split_frames(memoryview(b"".join(pieces)), self.maximum):
            if self.port.send_to(target, self.route, Kind.OVERLAY, data):
                sent += count
                sent_size += len(data)
            else:
                self.output.lose(count, len(data), "unsent")
        return sent, sent_size

    def evict(self) -> None:
        """Nothing is queued."""

    def close(self) -> None:
        """Nothing is held."""


def bind(host: str, port: int) -> socket.socket:
    """A bound, non-blocking UDP socket with large kernel buffers.

    Raises:
        OSError: as the system says it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closed_on_failure(socket.socket(family, socket.SOCK_DGRAM)) as sock:
        sock.setblocking(False)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        enlarge(sock)
        sock.bind((host, port))
        return sock


def enlarge(sock: socket.socket) -> None:
    """Ask for kernel buffers that hold a burst; take what the system gives."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, KERNEL_BUFFER)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, KERNEL_BUFFER)
    with suppress(OSError):  # only root may exceed the system's bound
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, KERNEL_BUFFER)


def join_group(group: str, port: int, interface: str) -> socket.socket:
    """A socket that hears a multicast group on an interface.

    Args:
        group: an IPv4 or IPv6 multicast address.
        port: the group's port.
        interface: a local address (IPv4) or an interface's name (IPv6); "" for the system's choice.

    Raises:
        OSError: as the system says it.
    """
    address = ipaddress.ip_address(group)
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    with closed_on_failure(socket.socket(family, socket.SOCK_DGRAM)) as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if hasattr(socket, "SO_REUSEPORT"):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET:
            sock.bind((group, port))
            local = socket.inet_aton(interface or "0.0.0.0")
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, address.packed + local)
        else:
            index = socket.if_nametoindex(interface) if interface else 0
            # A group of one link or one machine is bound to together with its interface.
            sock.bind((group, port, 0, index))
            sock.setsockopt(
                socket.IPPROTO_IPV6,
                socket.IPV6_JOIN_GROUP,
                address.packed + struct.pack("@I", index),
            )
        return sock


def send_to_group_from(sock: socket.socket, interface: str) -> None:
    """Let a socket's multicast datagrams leave by an interface, and be heard on this machine."""
    if sock.family == socket.AF_INET:
        if interface:
            local = socket.inet_aton(interface)
            sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, local)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
    else:
        if interface:
            index = socket.if_nametoindex(interface)
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 1)
