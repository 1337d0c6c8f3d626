"""The options that make an overlay configuration, the same for every verb that opens sockets.

Its one rule: an option is a key of the configuration by another name, so it is read, checked and
refused exactly as in a file. Options override the file, and `--set` overrides them all.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Iterable, Mapping
from typing import ParamSpec, TypeVar

import click
from attrs import frozen

from opus_socket.cli import ORIGINS
from opus_socket.config import Layer, OverlayConfig, file_layer, find_setting
from opus_socket.core.settings import Origins
from opus_socket.errors import ConfigurationError
from opus_socket.logs import configure_logging

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


@frozen
class _Option:
    """An option that stands for a key.

    Attributes:
        flag: how it is written.
        key: the dotted key of the configuration.
        metavar: its value in the help.
        meaning: its help.
        repeatable: whether it may be given several times; then the key is a list.
    """

    flag: str
    key: str
    metavar: str
    meaning: str
    repeatable: bool = False

    @property
    def argument(self) -> str:
        """The name under which click delivers it."""
        return self.key.replace(".", "_")


_OPTIONS = (
    _Option("--overlay", "overlay_id", "ID", "The overlay's name."),
    _Option("--protocol", "node.protocol", "NAME", "The protocol that builds the topology."),
    _Option("--listen", "node_adapter.listen", "HOST:PORT", "Where to listen; port 0: any."),
    _Option("--server", "rendezvous.server", "HOST:PORT", "The rendezvous server."),
    _Option("--buddy", "rendezvous.buddies", "HOST:PORT", "A likely member; repeatable.", True),
    _Option("--multicast", "rendezvous.multicast", "GROUP:PORT", "Announce to this UDP group."),
    _Option("--log-level", "logging.level", "LEVEL", "debug, info, warning or error."),
)


def overlay_options(
    function: Callable[Arguments, Result],
) -> Callable[..., Result]:
    """Decorate a verb with `--config`, `--overlay`, ..., `--set`, and give it their outcome.

    The verb takes a keyword argument `config`, an `OverlayConfig`; logging is set up by then. A
    bad value is the `ConfigurationError` that ends the command with exit status 2.
    """

    @functools.wraps(function)
    def with_config(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
        config, _ = layered(take_layers(kwargs))
        configure_logging(config.logging)
        kwargs["config"] = config
        return function(*args, **kwargs)

    file_option = click.option(
        "--config", "config_file", metavar="FILE", help="The configuration file (TOML)."
    )
    return file_option(layer_options(with_config))


def layer_options(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
    """Decorate a verb with the options other than `--config`; `take_layers` reads them."""
    decorated = click.option(
        "--set",
        "settings",
        metavar="KEY=VALUE",
        multiple=True,
        callback=_parse_settings,
        help="Set any key, such as socket.hop_limit=64; repeatable.",
    )(function)
    for option in reversed(_OPTIONS):
        decorated = click.option(
            option.flag,
            option.argument,
            metavar=option.metavar,
            multiple=option.repeatable,
            help=option.meaning,
        )(decorated)
    return decorated


def take_layers(arguments: dict[str, object]) -> list[Layer]:
    """Take the options of this module out of a verb's arguments; their layers, weakest first.

    Raises:
        ConfigurationError: the file cannot be read, is not UTF-8 or not TOML.
    """
    file = arguments.pop("config_file", None)
    layers = [file_layer(str(file))] if file is not None else []
    for option in _OPTIONS:
        value = arguments.pop(option.argument)
        if value not in (None, ()):
            layers.append(Layer(option.flag, {option.key: value}))
    settings = arguments.pop("settings")
    assert isinstance(settings, Mapping)
    if settings:
        layers.append(Layer("--set", settings))
    return layers


def layered(layers: Iterable[Layer]) -> tuple[OverlayConfig, Origins]:
    """The configuration of these layers, and where each of its values was given.

    What the system refuses later, such as a port in use, is told with that origin as well.

    Raises:
        ConfigurationError: a value that is not allowed, or one that is missing.
    """
    layers = list(layers)
    try:
        config, origins = OverlayConfig.layered(*layers)
    except ConfigurationError as error:
        for option in _OPTIONS:
            _, missing, rest = str(error).partition(f"{option.key} is missing")
            if missing:
                # A file may be to blame for what it lacks; an option for another is not.
                files = (e.origin for e in layers if not e.origin.startswith("--"))
                where = "".join(f"{file}: " for file in files)
                said = f"{where}{missing}{rest}; give it with {option.flag} {option.metavar}"
                raise ConfigurationError(said) from error
        raise
    click.get_current_context().meta[ORIGINS] = origins
    return config, origins


def _parse_settings(
    ctx: click.Context, parameter: click.Parameter, texts: tuple[str, ...]
) -> Mapping[str, object]:
    settings: dict[str, object] = {}
    for text in texts:
        key, equals, value = (part.strip() for part in text.partition("="))
        if not equals or not key:
            raise click.BadParameter(f"{text!r}; KEY=VALUE is allowed")
        settings[key] = _parse_value(key, value)
    return settings


def _parse_value(key: str, text: str) -> object:
    """A value as TOML has it; a text needs no quotes."""
    try:
        value: object = tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, ValueError):
        return text
    setting = find_setting(key)
    return text if setting is not None and setting.type is str and type(value) is not str else value
