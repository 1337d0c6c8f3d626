"""The tables of a configuration: what each setting is called, means and allows.

Its one rule: a setting is declared in one place, here, with its default, unit, meaning and bounds,
and the published attribute that it descends from (HyperCast talk, "Property File"). The reader,
the errors, `hypercast.toml.example` and `opus-socket config` are all made from these classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import ClassVar, Self

import attrs
from attrs import field, frozen

from opus_socket import registry
from opus_socket.config.class_weights import class_weight, class_weights
from opus_socket.config.endpoints import multicast_group, reachable
from opus_socket.config.link_limits import link_limit, parse_limit
from opus_socket.core.addresses import MAX_ENDPOINTS, LogicalAddress
from opus_socket.core.buckets import INTERVAL, MAX_RATE, Bandwidth, Direction, Limit
from opus_socket.core.settings import (
    Leaf,
    Origins,
    Table,
    dotted,
    prefix_of,
    read_table,
    refused,
    setting,
    settings_of,
    table_given,
    table_leaves,
    unknown_key,
)
from opus_socket.core.texts import host_port
from opus_socket.errors import ConfigurationError

MAX_DATAGRAM = 65_507 - 16
"""Bytes that fit into a UDP datagram over IPv4 behind the 16 bytes of its own header."""

_FRAME_LIMIT = {"tcp": 16_384, "udp": 8_192}


def _installed(name: str) -> None:
    names = registry.names(registry.PROTOCOLS)
    if name not in names:
        raise ValueError(f"an installed protocol, which is one of {', '.join(names) or 'none'}")


def _protocol_settings(name: str, given: object, origins: Origins | None = None) -> object:
    try:
        spec = registry.protocol(name)
    except ConfigurationError as error:
        raise ConfigurationError(f"{prefix_of(f'node.{name}', origins)}{error}") from error
    return read_table(spec.settings, {} if given is None else given, f"node.{name}", origins)


def _chosen_field() -> object:
    """The field of the chosen protocol's settings, which hang on the protocol's name."""

    def chosen(given: object, node: attrs.AttrsInstance) -> object:
        assert isinstance(node, NodeConfig)
        return _protocol_settings(node.protocol, given)

    return field(default=None, converter=attrs.Converter(chosen, takes_self=True))


def _other_settings(
    given: Mapping[str, object] | tuple[tuple[str, object], ...],
) -> tuple[tuple[str, object], ...]:
    return tuple((name, _protocol_settings(name, value)) for name, value in dict(given).items())


@frozen(kw_only=True)
class SocketConfig(Table):
    """`[socket]`: the forwarding engine, its buffers and what the application sees of them."""

    TABLE: ClassVar[str] = "socket"

    hop_limit: int = setting(
        1024,
        unit="hops",
        minimum=1,
        maximum=65_535,
        meaning="how many overlay hops a message may travel",
        follows="HCAST2-0.TTL = 255",
    )
    receive_buffer: int = setting(
        4 * 1024 * 1024,
        unit="bytes",
        minimum=0,
        meaning="received messages that wait for the application; 0 discards every message",
        follows="HCAST2-0.ReceiveBufferSize = 200 (messages)",
    )
    send_buffer: int = setting(
        256 * 1024,
        unit="bytes",
        minimum=1,
        meaning="messages that wait for one neighbor in one traffic class",
        follows="SocketAdapter.UDP.MessageBufferSize = 100 (messages)",
    )
    read_timeout: float = setting(
        0.0,
        unit="seconds",
        minimum=0,
        meaning="how long a receive waits; 0 waits for ever",
        follows="HCAST2-0.ReadTimeout = 0",
    )
    overflow: str = setting(
        "block",
        choices=("block", "drop", "evict"),
        meaning=(
            "what a full output does: block pauses the lanes that feed it, back to the sender; "
            "drop discards what does not fit; evict does, too, and gives up a neighbor that takes "
            "nothing for evict_timeout"
        ),
    )
    stall_timeout: float = setting(
        2.0,
        unit="seconds",
        minimum=0.001,
        meaning=(
            "with block: an output that takes no byte for so long drops its newest messages "
            "until it has drained to half"
        ),
    )
    evict_timeout: float = setting(
        10.0,
        unit="seconds",
        minimum=0.001,
        meaning=(
            "with evict: a neighbor whose full output takes no byte for so long is given up: its "
            "lane, if the other end has paused that, or else its connection"
        ),
    )
    local_handover: bool = setting(
        True,
        meaning="whether neighbors in one process hand messages over without a connection",
    )
    max_message: int = setting(
        16 * 1024 * 1024,
        unit="bytes",
        minimum=1,
        maximum=1 << 30,
        meaning=(
            "the longest message, headers not included; one that is longer than a frame goes in "
            "fragments, for which a receiver has room for eight of the longest messages"
        ),
    )
    class_weights: tuple[str, ...] = setting(
        (),
        unit="CLASS:WEIGHT",
        form=class_weight,
        meaning=(
            "in what ratio traffic classes share the way to a neighbor while each has more to "
            "send; a class that is not named has the weight 1"
        ),
    )

    def __attrs_post_init__(self) -> None:
        self.weights()

    def weights(self) -> dict[int, int]:
        """The weights of the traffic classes that have another one than 1.

        Raises:
            ConfigurationError: a class is named twice.
        """
        try:
            return class_weights(self.class_weights)
        except ValueError as error:
            raise refused("socket.class_weights", self.class_weights, str(error)) from None


@frozen(kw_only=True)
class NodeConfig(Table):
    """`[node]`: which protocol builds the topology, and in `[node.NAME]` its own settings.

    Attributes:
        settings: the chosen protocol's settings, an object of the class that its SPEC names.
            May be given as such an object, as a mapping, or not at all.
        others: the settings of other installed protocols that were given, by name: they take
            effect when `protocol` changes.
    """

    TABLE: ClassVar[str] = "node"

    protocol: str = setting(
        "delaunay",
        key=True,
        form=_installed,
        meaning="the topology; `opus-socket protocols` lists those that are installed",
        follows="Node = HC2-0",
    )
    settings: object = _chosen_field()
    others: tuple[tuple[str, object], ...] = field(default=(), converter=_other_settings)

    @classmethod
    def read(cls, given: object, origins: Origins) -> Self:
        """Every key but `protocol` is the table of an installed protocol."""
        if isinstance(given, cls) or not isinstance(given, Mapping):
            return read_table(cls, given, cls.TABLE, origins)
        key, setting = dotted(cls.TABLE, "protocol"), settings_of(cls)["protocol"]
        protocol = str(setting.settle(given.get("protocol", setting.default), key, origins))
        installed = registry.names(registry.PROTOCOLS)
        tables: dict[str, object] = {}
        for name, value in given.items():
            if name in installed:
                tables[name] = _protocol_settings(name, value, origins)
            elif name != "protocol":
                known = ("protocol", *installed)
                raise unknown_key(dotted(cls.TABLE, name), value, known, origins)
        chosen = tables.pop(protocol, {})
        settings = _protocol_settings(protocol, chosen, origins)
        return cls(protocol=protocol, settings=settings, others=tuple(tables.items()))

    def leaves(self) -> Iterator[Leaf]:
        """The protocol's name, and its settings under `node.NAME`."""
        yield next(table_leaves(self, self.TABLE))
        yield from table_leaves(self.settings, dotted(self.TABLE, self.protocol))

    def given(self) -> dict[str, object]:
        """As `read` takes it."""
        tables = ((self.protocol, self.settings), *self.others)
        return {"protocol": self.protocol, **{name: table_given(given) for name, given in tables}}


@frozen(kw_only=True)
class NodeAdapterConfig(Table):
    """`[node_adapter]`: how protocol messages travel, and where this process can be reached."""

    TABLE: ClassVar[str] = "node_adapter"

    kind: str = setting(
        "udp",
        choices=("udp", "tcp"),
        meaning=(
            "what carries protocol messages: datagrams, or, where UDP is shut, "
            "the connections of the socket adapter"
        ),
        follows="NodeAdapter = UDPMulticast",
    )
    listen: str = setting(
        "0.0.0.0:0",
        unit="HOST:PORT",
        form=host_port,
        meaning="where this process listens, UDP and TCP alike; port 0 lets the system choose",
    )
    advertise: tuple[str, ...] = setting(
        (),
        unit="HOST:PORT",
        form=reachable,
        entries=MAX_ENDPOINTS,
        meaning=(
            "where other members reach this process, in the order in which they try; "
            "empty finds out by itself"
        ),
    )
    socket_per_node: bool = setting(
        False,
        meaning="whether each virtual node has a UDP socket of its own rather than a shared one",
    )
    multicast_interface: str = setting(
        "",
        unit="name or address",
        meaning="the interface of multicast announcements; empty lets the system choose",
    )


@frozen(kw_only=True)
class SocketAdapterConfig(Table):
    """`[socket_adapter]`: how overlay messages travel."""

    TABLE: ClassVar[str] = "socket_adapter"

    kind: str = setting(
        "tcp",
        choices=("tcp", "udp"),
        key=True,
        meaning="what carries overlay messages: connections or datagrams",
        follows="SocketAdapter = TCP",
    )
    maximum_packet_length: int = setting(
        attrs.Factory(lambda adapter: _FRAME_LIMIT[adapter.kind], takes_self=True),
        unit="bytes",
        minimum=512,
        maximum=65_535,
        key=True,
        meaning=(
            "the longest frame, headers included; longer messages go in fragments. "
            f"The default is {_FRAME_LIMIT['tcp']} with tcp, {_FRAME_LIMIT['udp']} with udp, "
            f"which allows {MAX_DATAGRAM} at most"
        ),
        follows="SocketAdapter.TCP.MaximumPacketLength = 16384",
    )

    def __attrs_post_init__(self) -> None:
        if self.kind == "udp" and self.maximum_packet_length > MAX_DATAGRAM:
            raise refused(
                "socket_adapter.maximum_packet_length",
                self.maximum_packet_length,
                f"with kind udp at most {MAX_DATAGRAM} (bytes)",
            )


@frozen(kw_only=True)
class RendezvousConfig(Table):
    """`[rendezvous]`: how members of an overlay find each other; any combination, or none."""

    TABLE: ClassVar[str] = "rendezvous"

    server: str = setting(
        "",
        unit="HOST:PORT",
        form=reachable,
        meaning="the rendezvous server; empty for none",
        follows="NodeAdapter.UDPServer.UdpServer0 = 128.143.71.50:8081",
    )
    buddies: tuple[str, ...] = setting(
        (),
        unit="HOST:PORT",
        form=reachable,
        meaning="the buddy list: where members are likely to be",
    )
    multicast: str = setting(
        "",
        unit="GROUP:PORT",
        form=multicast_group,
        meaning="the UDP multicast group of announcements; empty for none",
        follows="NodeAdapter.UDPMulticastAddress = 224.242.224.243/2424",
    )


@frozen(kw_only=True)
class EmulationConfig(Table):
    """`[emulation]`: bandwidth that the member is held to, for experiments; nothing by default."""

    TABLE: ClassVar[str] = "emulation"

    node_in: int = setting(
        0,
        unit="bytes/s",
        minimum=0,
        maximum=MAX_RATE,
        meaning="what the member takes from all of its neighbors together; 0 is unlimited",
    )
    node_out: int = setting(
        0,
        unit="bytes/s",
        minimum=0,
        maximum=MAX_RATE,
        meaning="what the member sends to all of its neighbors together; 0 is unlimited",
    )
    node_total: int = setting(
        0,
        unit="bytes/s",
        minimum=0,
        maximum=MAX_RATE,
        meaning="what the member takes and sends together; 0 is unlimited",
    )
    links: tuple[str, ...] = setting(
        (),
        unit="ADDRESS DIRECTION RATE",
        form=link_limit,
        meaning=(
            "limits of single links, each the neighbor's logical address, in or out, and bytes/s: "
            '"12,40 out 100000"'
        ),
    )
    interval: float = setting(
        INTERVAL,
        unit="seconds",
        minimum=0.01,
        maximum=60,
        meaning=(
            "bursts are as long as what the rate brings in so much time, or as the longest message"
        ),
    )

    def bandwidth(self, parse_address: Callable[[str], LogicalAddress]) -> Bandwidth:
        """The limits that the member begins with.

        Args:
            parse_address: how the protocol reads logical addresses.

        Raises:
            ConfigurationError: a link has no address of the protocol, or is limited twice.
        """
        node = {
            Direction.IN: self.node_in,
            Direction.OUT: self.node_out,
            Direction.TOTAL: self.node_total,
        }
        limits = [Limit(direction, rate) for direction, rate in node.items() if rate]
        for text in self.links:
            try:
                limit = parse_limit(text, parse_address)
            except ValueError as error:
                raise refused("emulation.links", text, str(error)) from error
            if any(
                limit.link == other.link and limit.direction is other.direction for other in limits
            ):
                raise refused("emulation.links", text, "one limit for a link and direction")
            limits.append(limit)
        return Bandwidth(tuple(limits), self.interval)


@frozen(kw_only=True)
class LoggingConfig(Table):
    """`[logging]`: what the commands log, and where. In a program that is structlog's affair."""

    TABLE: ClassVar[str] = "logging"

    level: str = setting(
        "info",
        choices=("debug", "info", "warning", "error"),
        meaning="the least severe that is logged",
    )
    format: str = setting(
        "console",
        choices=("console", "json"),
        meaning="lines for people, or one JSON object a line",
    )
    file: str = setting(
        "",
        unit="path",
        meaning="the file that log lines are appended to; empty for standard error",
        follows="LogFileName = stderr",
    )
