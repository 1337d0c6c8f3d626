"""`[services]`: which services ride on a socket, and the settings of each.

Its one rule: a table switches its service on, an empty one too; a service without a table is off.
What may stand in a table is said by the service itself, in the settings class of its `SPEC`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import ClassVar, Self

from attrs import field, frozen

from opus_socket import registry
from opus_socket.core.service import ServiceSpec
from opus_socket.core.settings import (
    Leaf,
    Origins,
    Table,
    dotted,
    prefix_of,
    read_table,
    refused,
    table_given,
    table_leaves,
    unknown_key,
)
from opus_socket.errors import ConfigurationError


def _service_settings(name: str, given: object, origins: Origins | None = None) -> object:
    key = dotted(ServicesConfig.TABLE, name)
    try:
        spec = registry.service(name)
    except ConfigurationError as error:
        raise ConfigurationError(f"{prefix_of(key, origins)}{key}: {error}") from error
    return read_table(spec.settings, given, key, origins)


def _switched_on(
    given: Mapping[str, object] | tuple[tuple[str, object], ...],
) -> tuple[tuple[str, object], ...]:
    try:
        pairs = dict(given).items()
    except (TypeError, ValueError):
        raise refused(ServicesConfig.TABLE, given, "tables of services, by name") from None
    return tuple(sorted([(name, _service_settings(name, value)) for name, value in pairs]))


@frozen(kw_only=True)
class ServicesConfig(Table):
    """`[services]`: in `[services.NAME]`, a service that rides on the socket.

    Attributes:
        on: the services that are on, by name, each with its settings: an object of the class that
            its SPEC names. Sorted by name.
    """

    TABLE: ClassVar[str] = "services"

    on: tuple[tuple[str, object], ...] = field(default=(), converter=_switched_on)

    @classmethod
    def read(cls, given: object, origins: Origins) -> Self:
        """Every key is the table of an installed service."""
        if isinstance(given, cls):
            return given
        if not isinstance(given, Mapping):
            raise refused(cls.TABLE, given, "tables of services", origins)
        installed = registry.names(registry.SERVICES)
        for name, value in given.items():
            if name not in installed:
                raise unknown_key(dotted(cls.TABLE, name), value, installed, origins)
        made = [(name, _service_settings(name, value, origins)) for name, value in given.items()]
        return cls(on=tuple(made))

    def leaves(self) -> Iterator[Leaf]:
        """The settings of each service that is on, under `services.NAME`."""
        for name, settings in self.on:
            yield from table_leaves(settings, dotted(self.TABLE, name))

    def given(self) -> dict[str, object]:
        """As `read` takes it."""
        return {name: table_given(settings) for name, settings in self.on}

    def specs(self) -> tuple[tuple[ServiceSpec, object], ...]:
        """The services that are on, as cores take them."""
        return tuple((registry.service(name), settings) for name, settings in self.on)
