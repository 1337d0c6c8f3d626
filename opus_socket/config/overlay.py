"""`OverlayConfig`: everything that an overlay socket is told when it is made.

Its one rule: arguments override the file, the file overrides the defaults, and a configuration
that exists is a valid one: whatever is not allowed was one `ConfigurationError`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from os import PathLike
from typing import Self

import attrs
from attrs import field, frozen

from opus_socket import registry
from opus_socket.config.layers import Layer, file_layer, merge
from opus_socket.config.services import ServicesConfig
from opus_socket.config.tables import (
    EmulationConfig,
    LoggingConfig,
    NodeAdapterConfig,
    NodeConfig,
    RendezvousConfig,
    SocketAdapterConfig,
    SocketConfig,
)
from opus_socket.core.addresses import OverlayID
from opus_socket.core.buckets import Bandwidth
from opus_socket.core.key_attributes import KeyAttributes
from opus_socket.core.setting_types import toml_value
from opus_socket.core.settings import (
    Origins,
    Setting,
    Table,
    UnknownKeyError,
    read_table,
    refused,
    setting,
    settings_of,
)
from opus_socket.errors import ConfigurationError, LocalProtocolError


def _overlay_name(text: str) -> None:
    try:
        OverlayID(text)
    except (LocalProtocolError, UnicodeEncodeError):
        raise ValueError("1 to 255 bytes of UTF-8") from None


def _overlay_id(value: str) -> str:
    """The converter of a field without default, which `setting` cannot make."""
    settled = settings_of(OverlayConfig)["overlay_id"].settle(value, "overlay_id")
    return str(settled)


# A function a table, because a type checker reads from it what the argument may be.
def _socket(given: SocketConfig | Mapping[str, object]) -> SocketConfig:
    return SocketConfig.of(given)


def _node(given: NodeConfig | Mapping[str, object]) -> NodeConfig:
    return NodeConfig.of(given)


def _node_adapter(given: NodeAdapterConfig | Mapping[str, object]) -> NodeAdapterConfig:
    return NodeAdapterConfig.of(given)


def _socket_adapter(given: SocketAdapterConfig | Mapping[str, object]) -> SocketAdapterConfig:
    return SocketAdapterConfig.of(given)


def _rendezvous(given: RendezvousConfig | Mapping[str, object]) -> RendezvousConfig:
    return RendezvousConfig.of(given)


def _services(given: ServicesConfig | Mapping[str, object]) -> ServicesConfig:
    return ServicesConfig.of(given)


def _emulation(given: EmulationConfig | Mapping[str, object]) -> EmulationConfig:
    return EmulationConfig.of(given)


def _logging(given: LoggingConfig | Mapping[str, object]) -> LoggingConfig:
    return LoggingConfig.of(given)


@frozen(kw_only=True)
class OverlayConfig(Table):
    """Everything that an overlay socket is told when it is made.

    Tables may be given as objects of their classes or as mappings:

        OverlayConfig(overlay_id="lab", rendezvous={"server": "127.0.0.1:8081"})

    Raises:
        ConfigurationError: a wrong type, a value out of range, an unknown key in a table.
        TypeError: an argument that is none of these, as with any class; `from_mapping` takes names
            from outside, and raises `ConfigurationError` for an unknown one.
    """

    overlay_id: str = field(
        converter=_overlay_id,
        metadata={
            "meaning": "the name that the members of the overlay share; it has no default",
            "follows": "OverlayID = 224.228.19.78/9472",
            "form": _overlay_name,
        },
    )
    key_attributes: tuple[str, ...] = setting(
        ("socket", "node", "socket_adapter"),
        unit="tables or dotted keys",
        meaning=(
            "what members must agree on to join: of a table, its key attributes; "
            "of a single key, its value"
        ),
        follows="KeyAttributes = Socket,Node,SocketAdapter",
    )
    socket: SocketConfig = field(factory=SocketConfig, converter=_socket)
    node: NodeConfig = field(factory=NodeConfig, converter=_node)
    node_adapter: NodeAdapterConfig = field(factory=NodeAdapterConfig, converter=_node_adapter)
    socket_adapter: SocketAdapterConfig = field(
        factory=SocketAdapterConfig, converter=_socket_adapter
    )
    rendezvous: RendezvousConfig = field(factory=RendezvousConfig, converter=_rendezvous)
    services: ServicesConfig = field(factory=ServicesConfig, converter=_services)
    emulation: EmulationConfig = field(factory=EmulationConfig, converter=_emulation)
    logging: LoggingConfig = field(factory=LoggingConfig, converter=_logging)

    def __attrs_post_init__(self) -> None:
        if self.node_adapter.kind == "tcp" and self.socket_adapter.kind != "tcp":
            raise refused("node_adapter.kind", "tcp", "udp, or tcp with socket_adapter.kind tcp")
        if self.emulation.links:
            self.bandwidth()
        try:
            KeyAttributes(self.key_pairs())
        except LocalProtocolError as error:
            raise refused("key_attributes", self.key_attributes, str(error)) from error

    @classmethod
    def load(cls, path: str | PathLike[str], overrides: Mapping[str, object] | None = None) -> Self:
        """The configuration in a TOML file.

        Args:
            overrides: values that override the file's, by dotted key: `{"node.protocol": ...}`.

        Raises:
            ConfigurationError: no such file, not TOML, not UTF-8, or a value not allowed.
        """
        arguments = [Layer("argument", overrides)] if overrides else []
        return cls.layered(file_layer(path), *arguments)[0]

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> Self:
        """The configuration in nested mappings, as TOML or JSON give them; dotted keys too.

        Raises:
            ConfigurationError: an unknown or missing key, or a value that is not allowed.
        """
        return cls.layered(Layer("", values))[0]

    @classmethod
    def layered(cls, *layers: Layer) -> tuple[Self, Origins]:
        """The configuration of several layers, of which a later one overrides an earlier one.

        Returns:
            The configuration, and for each dotted key that was given the origin of its value.
        """
        tree: dict[str, object] = {}
        origins: dict[str, str] = {}
        for layer in layers:
            merge(tree, layer.values, layer.origin, origins)
        try:
            return read_table(cls, tree, cls.TABLE, origins), origins
        except UnknownKeyError as error:
            tables = [f"[{table}]" for table in _tables_with(error.name)]
            if not tables:
                raise
            # Whoever takes the sign from a key in the example easily forgets that of its table.
            hint = f"{error}; did you mean {' or '.join(tables)} {error.name}?"
            raise ConfigurationError(hint) from error

    def evolve(self, **changes: object) -> Self:
        """A copy with other values, by key: `config.evolve(**{"rendezvous.server": "h:1"})`.

        A default that hangs on another key follows it: with `socket_adapter.kind` changes
        `maximum_packet_length`, unless it is one of its own.

        Raises:
            ConfigurationError: an unknown key, or a value that is not allowed.
        """
        return self.layered(Layer("", self.given()), Layer("", changes))[0]

    def bandwidth(self) -> Bandwidth:
        """The bandwidth that the member is held to at first.

        Raises:
            ConfigurationError: the protocol has no such address as a limited link names.
        """
        return self.emulation.bandwidth(registry.protocol(self.node.protocol).parse_address)

    def key_pairs(self) -> tuple[tuple[str, str], ...]:
        """The key attributes, on which all members must agree: dotted keys and values as text.

        Sorted by key, so that equal configurations give equal pairs whatever the order of
        `key_attributes` (HyperCast talk, "Property File"; a join that differs is refused).

        Raises:
            ConfigurationError: `key_attributes` names neither a table nor a key.
        """
        leaves = tuple(self.leaves())
        pairs: dict[str, str] = {}
        for entry in self.key_attributes:
            named = [leaf for leaf in leaves if f"{leaf.key}.".startswith(f"{entry}.")]
            if not named:
                tables = sorted({leaf.key.rpartition(".")[0] for leaf in leaves} - {""})
                allowed = f"tables ({', '.join(tables)}) and keys such as {leaves[-1].key}"
                raise refused("key_attributes", entry, allowed)
            for leaf in named:
                if leaf.setting.key or leaf.key == entry:
                    value = leaf.value
                    pairs[leaf.key] = value if isinstance(value, str) else toml_value(value)
        return tuple(sorted(pairs.items()))


def _tables_with(name: str) -> Iterator[str]:
    """The tables that have a setting of this name, those of protocols and services among them."""
    tables = [table for table, of in settings_of(OverlayConfig).items() if attrs.has(of.type)]
    tables += [f"node.{each}" for each in registry.names(registry.PROTOCOLS)]
    tables += [f"services.{each}" for each in registry.names(registry.SERVICES)]
    for table in tables:
        with suppress(ConfigurationError):  # a broken one has no settings that anybody could mean
            found = find_setting(f"{table}.{name}")
            if found is not None and found.meaning:
                yield table


def find_setting(key: str) -> Setting | None:
    """What a dotted key allows; None when there is no such key.

    Raises:
        ConfigurationError: the key is a setting of a protocol or a service that is broken.
    """
    table, _, name = key.rpartition(".")
    owner: type[object] | None = OverlayConfig
    for part in table.split(".") if table else ():
        if owner is NodeConfig and part in registry.names(registry.PROTOCOLS):
            owner = registry.protocol(part).settings
        elif owner is ServicesConfig and part in registry.names(registry.SERVICES):
            owner = registry.service(part).settings
        else:
            below = settings_of(owner).get(part) if owner else None
            owner = below.type if below and attrs.has(below.type) else None
    return settings_of(owner).get(name) if owner else None
