"""How a configuration becomes sockets and settings.

Its one rule: whatever the system refuses is said in the words of the configuration: which key,
which value, and what to do about it.
"""

from __future__ import annotations

import errno
import ipaddress
import socket

import trio
from attrs import frozen

from opus_socket.adapters.base import closed_on_failure
from opus_socket.adapters.flow import FlowSettings, Overflow
from opus_socket.adapters.inbox import Inbox
from opus_socket.adapters.pool import TcpPort, listen
from opus_socket.adapters.udp import UdpPort, bind, join_group, send_to_group_from
from opus_socket.config import OverlayConfig, parse_host_port
from opus_socket.core.addresses import ANY_INDEX, Contact, Endpoint, OverlayID, Use
from opus_socket.core.contacts import FinderSettings
from opus_socket.core.engine import EngineSettings
from opus_socket.core.key_attributes import KeyAttributes
from opus_socket.core.overlay import CoreSettings, OverlayCore
from opus_socket.driver import Host
from opus_socket.errors import ConfigurationError
from opus_socket.member import Member, Port
from opus_socket.registry import protocol

_PORT_TRIES = 32
_SOMEWHERE = {False: ("192.0.2.1", 9), True: ("2001:db8::1", 9)}
_LOOPBACK = {False: "127.0.0.1", True: "::1"}
_REMEDIES = {
    errno.EADDRINUSE: "it is in use; choose another port, or 0 to let the system choose",
    errno.EACCES: "permission denied; choose a port above 1023",
    errno.EMFILE: "this process has too many files open; close some or raise the limit (ulimit -n)",
    errno.ENFILE: "the system has too many files open; close some",
    errno.EADDRNOTAVAIL: "no such address on this machine; choose one of its own, or 0.0.0.0",
}


@frozen
class Meeting:
    """Where other members may be met, resolved.

    Attributes:
        servers, buddies: contacts without logical address.
        group: the multicast group's address and port.
        v6: whether all of this is IPv6.
    """

    servers: tuple[Contact, ...]
    buddies: tuple[Contact, ...]
    group: tuple[str, int] | None
    v6: bool

    @property
    def first_target(self) -> tuple[str, int]:
        """An address on the way to which members are found."""
        for contact in (*self.servers, *self.buddies):
            return contact.endpoints[0][:2]
        return self.group or _SOMEWHERE[self.v6]


async def find_meeting(config: OverlayConfig) -> Meeting:
    """Resolve the names under `[rendezvous]`, all in the address family that is listened in.

    Raises:
        ConfigurationError: a name does not resolve, or not in that family.
    """
    given = config.rendezvous
    listen_host, _ = parse_host_port(config.node_adapter.listen)
    texts = [text for text in (given.server, *given.buddies, given.multicast) if text]
    v6 = ":" in listen_host
    if config.node_adapter.listen == "0.0.0.0:0" and texts:
        v6 = all(text.startswith("[") for text in texts)
    servers = []
    if given.server:
        if config.node_adapter.kind == "tcp":
            raise ConfigurationError(
                f"rendezvous.server = {given.server!r} needs UDP; with node_adapter.kind = "
                '"tcp" members are found by rendezvous.buddies'
            )
        servers.append(await _meet("rendezvous.server", given.server, v6, Use.UDP))
    buddies = [await _meet("rendezvous.buddies", text, v6, Use.BOTH) for text in given.buddies]
    group = None
    if given.multicast:
        group = parse_host_port(given.multicast, key="rendezvous.multicast")
        if (":" in group[0]) != v6:
            raise ConfigurationError(
                f"rendezvous.multicast = {given.multicast!r} is of another address family than "
                f"node_adapter.listen = {config.node_adapter.listen!r}; make them alike"
            )
    return Meeting(tuple(servers), tuple(buddies), group, v6)


def open_loop() -> Host:
    """A host without ports.

    Raises:
        ConfigurationError: the system has nothing left that it could wait with.
    """
    try:
        return Host()
    except OSError as error:
        remedy = _REMEDIES.get(error.errno or 0, error.strerror or str(error))
        raise ConfigurationError(f"no host can be opened: {remedy}") from error


def core_settings(config: OverlayConfig, meeting: Meeting) -> CoreSettings:
    """The settings of the machines."""
    return CoreSettings(
        overlay_id=OverlayID(config.overlay_id),
        spec=protocol(config.node.protocol),
        node=config.node.settings,
        attributes=KeyAttributes(config.key_pairs()),
        finder=FinderSettings(
            servers=meeting.servers,
            buddies=meeting.buddies,
            multicast=meeting.group is not None,
        ),
        engine=EngineSettings(
            hop_limit=config.socket.hop_limit,
            maximum_frame=config.socket_adapter.maximum_packet_length,
            max_message=config.socket.max_message,
        ),
        services=config.services.specs(),
    )


def flow_settings(config: OverlayConfig, limit: int) -> FlowSettings:
    """The limits of an output of so many bytes."""
    return FlowSettings(
        limit,
        Overflow(config.socket.overflow),
        config.socket.stall_timeout,
        config.socket.evict_timeout,
    )


def make_member(
    config: OverlayConfig,
    meeting: Meeting,
    port: Port,
    core: OverlayCore,
    place: Contact,
    inbox: Inbox,
) -> Member:
    """The driver's side of a core, with the limits of the configuration."""
    return Member(
        core=core,
        tag=core.settings.overlay_id.tag,
        port=port,
        flow=flow_settings(config, config.socket.send_buffer),
        local_handover=config.socket.local_handover,
        maximum_packet=config.socket_adapter.maximum_packet_length,
        group=meeting.group,
        inbox=inbox,
        place=place,
    )


async def open_port(host: Host, config: OverlayConfig, meeting: Meeting) -> Port:
    """Open the sockets that one endpoint needs, and give them to the host.

    Raises:
        ConfigurationError: the address cannot be listened at.
        trio.ClosedResourceError: the host was closed meanwhile.
    """
    address, number = await _listen_address(config, meeting)
    use = _use(config)
    advertised = await _advertised(config, use)
    # Nothing waits from here on, so nobody can cancel and leave sockets open.
    host.check_open()
    try:
        host_address = "" if advertised else _found_out(address, meeting)
        interface = None if meeting.group is None else _interface(config, address, meeting.group)
        udp, tcp = _bind_both(address, number, use is not Use.TCP, use is not Use.UDP)
    except OSError as error:
        raise _refused("node_adapter.listen", config.node_adapter.listen, error) from error
    sockets = [sock for sock in (udp, tcp) if sock is not None]
    if udp is not None and interface is not None:
        try:
            send_to_group_from(udp, interface)
        except OSError as error:
            for sock in sockets:
                sock.close()
            raise _refused("node_adapter.multicast_interface", interface, error) from error
    if not advertised:
        advertised = (Endpoint(host_address, sockets[0].getsockname()[1], use),)
    port = Port(
        advertised[0],
        advertised,
        None if udp is None else UdpPort(host, udp),
        None if tcp is None else TcpPort(host, tcp, advertised[0], host.lost),
    )
    host.add_port(port)
    return port


async def open_group(host: Host, config: OverlayConfig, meeting: Meeting) -> None:
    """Listen to the multicast group.

    Raises:
        ConfigurationError: the group cannot be joined.
        trio.ClosedResourceError: the host was closed meanwhile.
    """
    if meeting.group is None:
        return
    address, _ = await _listen_address(config, meeting)
    host.check_open()
    try:
        sock = join_group(*meeting.group, _interface(config, address, meeting.group))
    except OSError as error:
        raise _refused("rendezvous.multicast", config.rendezvous.multicast, error) from error
    host.add_group(UdpPort(host, sock, group=True))


async def _listen_address(config: OverlayConfig, meeting: Meeting) -> tuple[str, int]:
    name, number = parse_host_port(config.node_adapter.listen, key="node_adapter.listen")
    if name == "0.0.0.0" and meeting.v6:
        return "::", number
    return await _resolve("node_adapter.listen", name, number, ":" in name), number


async def _meet(key: str, text: str, v6: bool, use: Use) -> Contact:
    name, number = parse_host_port(text, key=key)
    address = await _resolve(key, name, number, v6)
    return Contact(None, 0, ANY_INDEX, (Endpoint(address, number, use),))


async def _resolve(key: str, name: str, number: int, v6: bool) -> str:
    family = socket.AF_INET6 if v6 else socket.AF_INET
    try:
        found = await trio.socket.getaddrinfo(name, number, family=family, type=socket.SOCK_DGRAM)
    # A name that cannot even be asked for is a UnicodeError.
    except (OSError, UnicodeError) as error:
        kind = "IPv6" if v6 else "IPv4"
        raise ConfigurationError(
            f"{key}: cannot find an {kind} address of {name!r} ({error}); give an address, or "
            "listen in its address family with node_adapter.listen"
        ) from error
    return str(ipaddress.ip_address(str(found[0][4][0]).partition("%")[0]))


def _use(config: OverlayConfig) -> Use:
    """What the endpoint's port number is for."""
    if config.node_adapter.kind == "tcp":
        return Use.TCP
    return Use.BOTH if config.socket_adapter.kind == "tcp" else Use.UDP


async def _advertised(config: OverlayConfig, use: Use) -> tuple[Endpoint, ...]:
    """By which endpoints others reach this one, as far as that is configured."""
    key = "node_adapter.advertise"
    pairs = [parse_host_port(text, key=key) for text in config.node_adapter.advertise]
    return tuple([Endpoint(await _resolve(key, name, n, ":" in name), n, use) for name, n in pairs])


def _found_out(address: str, meeting: Meeting) -> str:
    """Where others reach this process: where it listens, or else the address from which it would
    send to those whom it looks for.
    """
    if not ipaddress.ip_address(address).is_unspecified:
        return address
    return _source_toward(meeting.first_target, meeting.v6)


def _source_toward(target: tuple[str, int], v6: bool) -> str:
    """The address that this machine would send from; nothing is sent."""
    with socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM) as sock:
        try:
            sock.connect(target)
        except OSError:
            return _LOOPBACK[v6]
        return str(sock.getsockname()[0]).partition("%")[0]


def _bind_both(
    address: str, number: int, with_udp: bool, with_tcp: bool
) -> tuple[socket.socket | None, socket.socket | None]:
    """UDP and TCP on one port number; the system's choice must suit both."""
    for _ in range(_PORT_TRIES - 1):
        try:
            return _bind_once(address, number, with_udp, with_tcp)
        except OSError as error:
            if number or error.errno != errno.EADDRINUSE:
                raise
    return _bind_once(address, number, with_udp, with_tcp)


def _bind_once(
    address: str, number: int, with_udp: bool, with_tcp: bool
) -> tuple[socket.socket | None, socket.socket | None]:
    if not with_tcp:
        return (bind(address, number) if with_udp else None), None
    with closed_on_failure(listen(address, number)) as tcp:
        return (bind(address, tcp.getsockname()[1]) if with_udp else None), tcp


def _interface(config: OverlayConfig, address: str, group: tuple[str, int]) -> str:
    """The interface of the multicast group: as configured, else the one that is listened at,
    else the one on the way to the group.
    """
    given = config.node_adapter.multicast_interface
    if given:
        return given
    listened = ipaddress.ip_address(address)
    if listened.version == 4:
        return _source_toward(group, False) if listened.is_unspecified else address
    return "lo" if listened.is_loopback else ""


def _refused(key: str, value: str, error: OSError) -> ConfigurationError:
    remedy = _REMEDIES.get(error.errno or 0, error.strerror or str(error))
    return ConfigurationError(f"{key} = {value!r} cannot be used: {remedy}")
