"""Every number that an option of a verb takes."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from opus_socket.cli import VERBS, main
from opus_socket.cli.numbers import Number

NEEDED = {"cat": ["--overlay", "lab"], "host": ["--overlay", "lab", "--members", "1"]}


def options(*kinds: type[object]) -> list[tuple[str, click.Option]]:
    """Each verb's options of these types."""
    context = click.Context(main)
    commands = {verb: main.get_command(context, verb) for verb in VERBS}
    return [
        (verb, option)
        for verb, command in commands.items()
        if command is not None
        for option in command.params
        if isinstance(option, click.Option) and isinstance(option.type, kinds)
    ]


def numbers() -> list[tuple[str, click.Option]]:
    """Those that are numbers, but for whole ones."""
    return options(click.types.FloatParamType, click.FloatRange)


def whole_numbers() -> list[tuple[str, click.Option]]:
    """Those that are whole numbers; a seed may be any."""
    return [
        (verb, option)
        for verb, option in options(click.types.IntParamType, click.IntRange)
        if option.name != "seed"
    ]


def test_there_are_such_options() -> None:
    assert {verb for verb, _ in numbers()} == {"cat", "host", "simulate"}
    assert len(numbers()) == 11


@pytest.mark.parametrize(("verb", "option"), numbers())
@pytest.mark.parametrize("text", ["nan", "-nan", "inf", "-1", "-inf", "soon", ""])
def test_what_is_no_number_of_an_option_is_refused_by_its_name(
    verb: str, option: click.Option, text: str
) -> None:
    assert isinstance(option.type, Number)
    endless = option.type.max is None and not option.type.finite
    if text == "inf" and endless:
        assert option.type.convert(float(text), option, None) == float("inf")
        return
    flag = option.opts[0]
    result = CliRunner().invoke(main, [verb, *NEEDED.get(verb, []), f"{flag}={text}"])
    assert result.exit_code == 2
    assert f"Invalid value for '{flag}'" in result.output
    assert "Traceback" not in result.output


@pytest.mark.parametrize(("verb", "option"), whole_numbers())
@pytest.mark.parametrize("text", ["abc", "0", "-1", "1.5", "inf", ""])
def test_what_is_no_whole_number_is_refused_in_our_own_words(
    verb: str, option: click.Option, text: str
) -> None:
    flag = option.opts[0]
    result = CliRunner().invoke(main, [verb, *NEEDED.get(verb, []), f"{flag}={text}"])
    assert result.exit_code == 2
    said = " ".join(result.output.split())
    assert f"Invalid value for '{flag}': {text!r} is not a whole number of at least 1." in said
