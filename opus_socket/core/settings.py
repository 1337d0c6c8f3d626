"""Settings: configuration values that carry their own unit, meaning and bounds.

Its one rule: what is allowed is declared once, beside the default, and holds wherever the value
comes from: a file, an argument, or a class made directly. Values that break it raise
`ConfigurationError` with the origin, the dotted key, the value seen and what is allowed.

A table of a configuration is a frozen attrs class. Its fields are made by `setting(...)`, or by
`attrs.field` with the same metadata: `unit`, `meaning`, `minimum`, `maximum`, `choices`,
`entries`, `key`, `follows`. The model is the HyperCast property file (HyperCast talk, "Property
File"), whose attributes had neither units nor bounds.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, Self, TypeVar

import attrs
from attrs import field, frozen

from opus_socket.core.requests import shown
from opus_socket.core.setting_types import in_words, structured
from opus_socket.errors import ConfigurationError

T = TypeVar("T")
Number = int | float
Origins = Mapping[str, str]
"""Dotted keys, and where each was given: a file's name, an option. Nothing is said of defaults."""


def setting(
    default: T,
    *,
    meaning: str,
    unit: str = "",
    minimum: Number | None = None,
    maximum: Number | None = None,
    choices: tuple[str, ...] = (),
    entries: int | None = None,
    key: bool = False,
    follows: str = "",
    form: Callable[[str], object] | None = None,
) -> T:
    """A field of a settings class; its type is the annotation beside it.

    Args:
        default: the value where none is given, or an `attrs.Factory`.
        meaning: one sentence without its full stop.
        unit: of the number, in the plural ("seconds").
        minimum, maximum: inclusive bounds of a number, or of each number of a list.
        choices: the only texts that are allowed; () allows all.
        entries: how many entries a list has at most; None for any number.
        key: whether the members of an overlay must agree on it.
        follows: the attribute of the published property file that it descends from.
        form: parses a text, or each text of a list, and raises `ValueError` with what is allowed.
            Not asked about the default, so that an empty text can stand for none.
    """
    given = {
        "meaning": meaning,
        "unit": unit,
        "minimum": minimum,
        "maximum": maximum,
        "choices": choices,
        "entries": entries,
        "key": key,
        "follows": follows,
        "form": form,
    }
    made: T = field(
        default=default,
        converter=attrs.Converter(_settle_own, takes_self=True, takes_field=True),
        metadata={name: value for name, value in given.items() if value not in (None, "", ())},
    )
    return made


@frozen
class Setting:
    """What one field of a settings class allows, read from its annotation and metadata.

    Attributes are those of `setting`, and `name` and `type`; `required` says that there is no
    default.
    """

    name: str
    type: Any
    default: object
    meaning: str = ""
    unit: str = ""
    minimum: Number | None = None
    maximum: Number | None = None
    choices: tuple[str, ...] = ()
    entries: int | None = None
    key: bool = False
    follows: str = ""
    form: Callable[[str], object] | None = None

    @property
    def required(self) -> bool:
        """Whether a value must be given."""
        return self.default is attrs.NOTHING

    def default_for(self, owner: object) -> object:
        """The default in a table whose earlier fields are those of `owner`."""
        default: Any = self.default
        if not isinstance(default, _FACTORY):
            return self.default
        made: object = default.factory(owner) if default.takes_self else default.factory()
        return made

    @property
    def allowed(self) -> str:
        """What is allowed, for people who did something else."""
        both = self.minimum is not None and self.maximum is not None
        return self._in_words(f"from {self.minimum} to {self.maximum}" if both else "")

    @property
    def brief(self) -> str:
        """What is allowed, for a listing."""
        both = self.minimum is not None and self.maximum is not None
        return self._in_words(self.range if both else "")

    @property
    def range(self) -> str:
        """The bounds of a number, such as "0.1\N{EN DASH}5.0" or "at least 1"; empty for none."""
        if self.minimum is not None and self.maximum is not None:
            return f"{self.minimum}\N{EN DASH}{self.maximum}"
        if self.minimum is not None:
            return f"at least {self.minimum}"
        return "" if self.maximum is None else f"at most {self.maximum}"

    def _in_words(self, between: str) -> str:
        """With words for two bounds; a single one has the same everywhere."""
        bounds = between or (f"of {self.range}" if self.range else "")
        most = "" if self.entries is None else f", at most {self.entries} entries"
        unit = f" ({self.unit})" if self.unit else ""
        bounds = f" {bounds}" if bounds else ""
        return in_words(self.type, bounds, self.choices) + most + unit

    def settle(self, value: object, key: str, origins: Origins | None = None) -> object:
        """The value in its one form: a list is a tuple, a whole number for a float is a float.

        Raises:
            ConfigurationError: the type, a bound or the form is broken.
        """
        try:
            settled = structured(value, self.type)
        except ValueError:
            raise refused(key, value, self.allowed, origins) from None
        if settled == self.default:
            return settled
        items = settled if isinstance(settled, tuple) else (settled,)
        if self.entries is not None and len(items) > self.entries:
            raise refused(key, value, self.allowed, origins)
        # Of a list, the error names the entry that is wrong, and as it was given.
        given = value if isinstance(value, list | tuple) else (value,)
        for item, as_given in zip(items, given, strict=True):
            if not self._within(item):
                raise refused(key, as_given, self.allowed, origins)
            if self.form is not None:
                try:
                    self.form(str(item))
                except ValueError as error:
                    raise refused(key, as_given, str(error), origins) from None
        return settled

    def _within(self, item: object) -> bool:
        if self.choices and item not in self.choices:
            return False
        if not isinstance(item, int | float) or isinstance(item, bool):
            return True
        return (self.minimum is None or item >= self.minimum) and (
            self.maximum is None or item <= self.maximum
        )


@frozen
class Leaf:
    """One value of a configuration.

    Attributes:
        key: its dotted key, such as `socket.hop_limit`.
        value: what is in force.
        setting: what is allowed.
        default: what would be in force if nothing had been given.
    """

    key: str
    value: object
    setting: Setting
    default: object


class Table:
    """Base of the tables of a configuration."""

    __slots__ = ()
    TABLE: ClassVar[str] = ""
    """The dotted key of the table; empty for the configuration as a whole."""

    @classmethod
    def of(cls, given: Self | Mapping[str, object]) -> Self:
        """The table itself, or one made from a mapping of its keys.

        Raises:
            ConfigurationError: an unknown key, or a value that is not allowed.
        """
        return cls.read(given, {})

    @classmethod
    def read(cls, given: object, origins: Origins) -> Self:
        """Like `of`; errors name the origin of each key."""
        return read_table(cls, given, cls.TABLE, origins)

    def leaves(self) -> Iterator[Leaf]:
        """Every value of the table and of the tables in it, in the order of their declaration."""
        return table_leaves(self, self.TABLE)

    def given(self) -> dict[str, object]:
        """What it has besides its defaults, as `read` takes it."""
        return table_given(self)


def settings_of(cls: type[Any]) -> Mapping[str, Setting]:
    """The settings of an attrs class by name, in the order of their declaration."""
    if cls not in _SETTINGS:
        attrs.resolve_types(cls)
        _SETTINGS[cls] = MappingProxyType(
            {
                attribute.alias or attribute.name: _declared(attribute)
                for attribute in attrs.fields(cls)
                if attribute.init
            }
        )
    return _SETTINGS[cls]


def read_table(cls: type[T], given: object, table: str, origins: Origins | None = None) -> T:
    """An object of the settings class `cls` from a mapping.

    Args:
        given: values by key, or an object of the class, which is returned as it is.
        table: the dotted key of the table; empty for the configuration as a whole.
        origins: where each dotted key was given.

    Raises:
        ConfigurationError: not a table, an unknown or missing key, a value that is not allowed.
    """
    if isinstance(given, cls):
        return given
    if not isinstance(given, Mapping):
        raise refused(table, given, "a table", origins)
    known = settings_of(cls)
    values: dict[str, object] = {}
    for name, value in given.items():
        if name not in known:
            raise unknown_key(dotted(table, name), value, known, origins)
        values[name] = _read_value(known[name], value, dotted(table, name), origins)
    for setting in known.values():
        if setting.required and setting.name not in values:
            raise ConfigurationError(
                f"{prefix_of(table, origins)}{dotted(table, setting.name)} is missing; "
                f"needed: {setting.allowed}, {setting.meaning}"
            )
    try:
        return cls(**values)
    except ConfigurationError as error:
        raise ConfigurationError(f"{prefix_of(table, origins)}{error}") from error


def table_leaves(table: object, key: str) -> Iterator[Leaf]:
    """Every value of an object of a settings class, whose dotted key is `key`."""
    for name, setting in settings_of(type(table)).items():
        value: object = getattr(table, setting.name)
        if isinstance(value, Table):
            yield from value.leaves()
        else:
            yield Leaf(dotted(key, name), value, setting, setting.default_for(table))


def given_of(table: object) -> dict[str, object]:
    """What any table has besides its defaults, as its reader takes it."""
    return table.given() if isinstance(table, Table) else table_given(table)


def table_given(table: object) -> dict[str, object]:
    """What an object of a settings class has besides its defaults, as `read_table` takes it."""
    given: dict[str, object] = {}
    for name, setting in settings_of(type(table)).items():
        value: object = getattr(table, setting.name)
        if isinstance(value, Table):
            given[name] = value.given()
        elif setting.required or value != setting.default_for(table):
            given[name] = value
    return given


def origin_of(key: str, origins: Origins) -> str:
    """Where a key, or else the table that it stands in, was given; empty if nowhere."""
    while key not in origins and key:
        key = key.rpartition(".")[0]
    return origins.get(key, "")


def prefix_of(key: str, origins: Origins | None) -> str:
    """What an error begins with: the origin of the key that it names, if that is known."""
    origin = origin_of(key, origins or {})
    return f"{origin}: " if origin else ""


def dotted(table: str, name: str) -> str:
    """The dotted key of a name in a table."""
    return f"{table}.{name}" if table else name


def refused(
    key: str, value: object, allowed: str, origins: Origins | None = None
) -> ConfigurationError:
    """The error for a value that is not allowed."""
    return ConfigurationError(
        f"{prefix_of(key, origins)}{key} = {shown(value)} is refused; allowed: {allowed}"
    )


class UnknownKeyError(ConfigurationError):
    """A table has no such key.

    Attributes:
        name: the key, without its table.
    """

    def __init__(self, text: str, name: str) -> None:
        super().__init__(text)
        self.name = name


def unknown_key(
    key: str, value: object, known: Iterable[str], origins: Origins | None = None
) -> UnknownKeyError:
    """The error for a key that its table does not have, with the closest that it has."""
    table, _, name = key.rpartition(".")
    known = tuple(known)
    close = difflib.get_close_matches(name, known, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    place = f"[{table}]" if table else "the top level"
    return UnknownKeyError(
        f"{prefix_of(key, origins)}unknown key {key} = {shown(value)}{hint}; "
        f"allowed in {place}: {', '.join(known)}",
        name,
    )


def _settle_own(value: object, owner: object, attribute: attrs.Attribute[Any]) -> object:
    """The converter of every `setting`: a class made directly obeys the bounds as well."""
    table = owner.TABLE if isinstance(owner, Table) else type(owner).__name__
    setting = settings_of(type(owner))[attribute.alias or attribute.name]
    return setting.settle(value, dotted(table, attribute.name))


def _declared(attribute: attrs.Attribute[Any]) -> Setting:
    return Setting(
        name=attribute.name,
        type=attribute.type,
        default=attribute.default,
        **{name: value for name, value in attribute.metadata.items() if name in _DECLARED},
    )


def _read_value(setting: Setting, value: object, key: str, origins: Origins | None) -> object:
    if isinstance(setting.type, type) and issubclass(setting.type, Table):
        return setting.type.read(value, origins or {})
    return setting.settle(value, key, origins)


_DECLARED = {attribute.name for attribute in attrs.fields(Setting)} - {"name", "type", "default"}
# Classes do not change, and a host makes a configuration for each of its members.
_SETTINGS: dict[type[Any], Mapping[str, Setting]] = {}
# A class for Python, a function for type checkers.
_FACTORY: Any = attrs.Factory
