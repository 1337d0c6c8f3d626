"""What is installed: protocols and services, found by the entry points of their distributions.

Its one rule: a plug-in that is broken harms only those who ask for it. Our own protocols register
themselves exactly as a third party's do, under the group `opus_socket.protocols`; services under
`opus_socket.services`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Generic, TypeVar

import attrs
from attrs import frozen

from opus_socket.core.node import ProtocolSpec
from opus_socket.core.service import ServiceSpec
from opus_socket.errors import ConfigurationError

Spec = TypeVar("Spec")

PROTOCOLS = "opus_socket.protocols"
SERVICES = "opus_socket.services"


@frozen
class Found(Generic[Spec]):
    """One entry point, loaded or not.

    Attributes:
        name: what a configuration calls it.
        distribution: the installed distribution that declares it, with its version.
        spec: what the entry point names; None when it is broken.
        problem: why it cannot be used; empty when it can.
    """

    name: str
    distribution: str
    spec: Spec | None
    problem: str = ""


def protocols() -> Mapping[str, ProtocolSpec]:
    """The installed protocols that work, by name, sorted."""
    return _working(PROTOCOLS, ProtocolSpec)


def protocol(name: str) -> ProtocolSpec:
    """The installed protocol of that name.

    Raises:
        ConfigurationError: it is not installed (the text names those that are), or it is broken
            (the text names the distribution and the cause).
    """
    return lookup(PROTOCOLS, ProtocolSpec, name)


def found_protocols() -> tuple[Found[ProtocolSpec], ...]:
    """Every declared protocol, broken ones too, sorted by name."""
    return tuple(load(PROTOCOLS, ProtocolSpec, name) for name in names(PROTOCOLS))


def services() -> Mapping[str, ServiceSpec]:
    """The installed services that work, by name, sorted."""
    return _working(SERVICES, ServiceSpec)


def service(name: str) -> ServiceSpec:
    """The installed service of that name.

    Raises:
        ConfigurationError: it is not installed or it is broken, as for `protocol`.
    """
    return lookup(SERVICES, ServiceSpec, name)


def names(group: str) -> tuple[str, ...]:
    """The names declared under a group, sorted. Nothing is loaded."""
    return tuple(sorted(_declared(group, tuple(sys.path))))


def lookup(group: str, kind: type[Spec], name: str) -> Spec:
    """What the entry point `name` of a group stands for.

    Raises:
        ConfigurationError: it is not installed, or it is broken.
    """
    what = group.rpartition(".")[2].removesuffix("s")
    if name not in names(group):
        raise ConfigurationError(
            f"no {what} {name!r} is installed; installed: {', '.join(names(group)) or 'none'}"
        )
    found = load(group, kind, name)
    if found.spec is None:
        raise ConfigurationError(
            f"the {what} {name!r} of {found.distribution} cannot be used: {found.problem}"
        )
    return found.spec


def load(group: str, kind: type[Spec], name: str) -> Found[Spec]:
    """Load one declared entry point; what is wrong with it is in the answer."""
    declared = _declared(group, tuple(sys.path))[name]
    owners = " and ".join(distribution for _, distribution in declared)
    if len(declared) > 1:
        return Found(name, owners, None, "more than one distribution declares it; remove one")
    ((entry, _),) = declared
    try:
        spec: object = entry.load()
    except Exception as error:  # noqa: BLE001 - importing a third party's code can raise anything
        return Found(name, owners, None, f"{entry.value} raises {type(error).__name__}: {error}")
    problem = _problem(name, entry, kind, spec)
    if problem or not isinstance(spec, kind):
        return Found(name, owners, None, problem)
    return Found(name, owners, spec)


def _working(group: str, kind: type[Spec]) -> Mapping[str, Spec]:
    found = (load(group, kind, name) for name in names(group))
    return MappingProxyType({one.name: one.spec for one in found if one.spec is not None})


def _problem(name: str, entry: EntryPoint, kind: type[object], spec: object) -> str:
    if not isinstance(spec, kind):
        return f"{entry.value} is a {type(spec).__name__}, not a {kind.__name__}"
    if isinstance(spec, ProtocolSpec | ServiceSpec):
        if spec.name != name:
            return f"{entry.value} calls itself {spec.name!r}"
        if not attrs.has(spec.settings):
            return f"its settings {spec.settings!r} are not an attrs class"
        for attribute in attrs.fields(spec.settings):
            if attribute.default is attrs.NOTHING:
                return f"its setting {attribute.name!r} has no default"
    return ""


def _distribution(entry: EntryPoint) -> str:
    return f"{entry.dist.name} {entry.dist.version}" if entry.dist else "an unknown distribution"


@lru_cache(maxsize=8)
def _declared(
    group: str, path: tuple[str, ...]
) -> Mapping[str, tuple[tuple[EntryPoint, str], ...]]:
    """Entry points by name, each with the name and version of its distribution.

    Searching reads many files, so it is done once for each path.
    """
    declared: dict[str, tuple[tuple[EntryPoint, str], ...]] = {}
    for entry in entry_points(group=group):
        declared[entry.name] = (*declared.get(entry.name, ()), (entry, _distribution(entry)))
    return MappingProxyType(declared)
