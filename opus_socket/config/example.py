"""`hypercast.toml.example`, written from the settings themselves.

Its one rule: every line that begins with `#` and a letter is a setting with its real default, one
that begins with `#[` is the table of a service, which is off as long as it has no table; prose
begins with `# `. So the file with these marks taken away is exactly the default configuration with
every service on, and cannot grow stale: a test compares it with this text.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator

import attrs

from opus_socket.config.overlay import OverlayConfig
from opus_socket.config.services import ServicesConfig
from opus_socket.config.tables import NodeConfig
from opus_socket.core.node import ProtocolSpec
from opus_socket.core.service import ServiceSpec
from opus_socket.core.setting_types import toml_value
from opus_socket.core.settings import Setting, Table, settings_of

EXAMPLE_OVERLAY = "lab"

_HEAD = """\
hypercast.toml: the configuration of an overlay socket, with every setting.

A line that begins with a number sign and a letter is a setting with its default: take the sign \
away to change it. A sign before a bracket is to be taken away, too, to switch on the service of \
that table. Sizes are bytes and times are seconds unless a setting says otherwise. An \
unknown key is an error. `opus-socket config FILE` checks a file and shows what is in force.

The shape follows the property file of HyperCast 2.0; "Follows" names the published attribute and \
its value there. Not taken over: Socket (there is one kind), ErrorFileName (there is one log), \
OverlayServer (configurations are files), the timers of HC2-0 (each protocol has its own, in its \
table), the rest of NodeAdapter (message count, packet length and transmission time: protocol \
messages have fixed limits).

"Key attribute" marks what key_attributes selects from its table: members that differ in it cannot \
join each other's overlay."""


def example_text(protocols: Iterable[ProtocolSpec], services: Iterable[ServiceSpec]) -> str:
    """The text of the example file, with a table for each of the protocols and services.

    Raises:
        ConfigurationError: the protocol that is the default is not installed.
    """
    config = OverlayConfig(overlay_id=EXAMPLE_OVERLAY)
    lines = [*_prose(_HEAD), *_settings(config)]
    for name, setting in settings_of(OverlayConfig).items():
        if not issubclass(setting.type if attrs.has(setting.type) else object, Table):
            continue
        if setting.type is ServicesConfig:
            for service in services:
                lines += ["", *_prose(f"{service.summary}."), f"#[{name}.{service.name}]"]
                lines += _settings(service.settings())
            continue
        lines += [
            "",
            *_prose(_first_sentence(setting.type)),
            f"[{name}]",
            *_settings(getattr(config, name)),
        ]
        if setting.type is NodeConfig:
            for spec in protocols:
                lines += ["", *_prose(f"{spec.summary}."), f"[node.{spec.name}]"]
                lines += _settings(spec.settings())
    return "\n".join(lines) + "\n"


def _settings(table: object) -> Iterator[str]:
    """The lines of one table, without those of the tables in it."""
    for name, setting in settings_of(type(table)).items():
        value: object = getattr(table, setting.name)
        if isinstance(value, Table) or not setting.meaning:
            continue
        yield ""
        yield from _prose(_explained(setting))
        if setting.required:
            yield f"{name} = {toml_value(value)}"
        elif value is None:
            yield f"# {name} is not set."
        else:
            yield f"#{name} = {toml_value(value)}"


def _explained(setting: Setting) -> str:
    parts = [setting.meaning, setting.brief]
    if setting.key:
        parts.append("key attribute")
    if setting.follows:
        parts.append(f"follows {setting.follows}")
    return " ".join(f"{_capitalized(part)}." for part in parts)


def _first_sentence(table: type[object]) -> str:
    text = " ".join((table.__doc__ or "").split("\n\n")[0].split())
    return _capitalized(text.partition(": ")[2])


def _capitalized(text: str) -> str:
    return text[:1].upper() + text[1:]


def _prose(text: str) -> Iterator[str]:
    for paragraph in text.split("\n"):
        yield from textwrap.wrap(
            paragraph, 98, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
        ) or ["#"]
