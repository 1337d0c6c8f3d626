"""Layers of values: a file, options, arguments, of which a later one overrides an earlier one.

Its one rule: a value never loses its origin, so that an error and a listing can name it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from os import PathLike
from pathlib import Path

import attrs
from attrs import frozen

from opus_socket.core.settings import dotted, given_of, refused
from opus_socket.errors import ConfigurationError


@frozen
class Layer:
    """Values from one place.

    Attributes:
        origin: the place, for errors and listings: a file's name, an option; empty for nowhere.
        values: nested mappings, objects of settings classes, and values; keys may be dotted.
    """

    origin: str
    values: Mapping[str, object]


def file_layer(path: str | PathLike[str]) -> Layer:
    """The values in a TOML file.

    Raises:
        ConfigurationError: it cannot be read, is not UTF-8 or not TOML.
    """
    name = str(path)
    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ConfigurationError(f"{name}: not UTF-8 at byte {error.start}") from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(f"{name}: cannot be read: {reason}") from None
    try:
        return Layer(name, tomllib.loads(text))
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{name}: not TOML: {error}") from None


def merge(
    tree: dict[str, object],
    values: Mapping[str, object],
    origin: str,
    origins: dict[str, str],
    table: str = "",
) -> None:
    """Put one layer's values over those of earlier layers, which `tree` holds."""
    earlier = [place for place in origins.get(table, "").split(", ") if place != origin]
    origins[table] = ", ".join(place for place in (*earlier, origin) if place)
    for key, value in values.items():
        name, _, rest = key.partition(".")
        path = dotted(table, name)
        if rest:
            value = {rest: value}
        if not isinstance(value, Mapping):
            tree[name] = value
            origins[path] = origin
            continue
        below = tree.get(name, {})
        if attrs.has(type(below)):
            below = given_of(below)
        if not isinstance(below, dict):
            raise refused(path, below, "a table", origins)
        tree[name] = below
        merge(below, value, origin, origins, path)
