"""Types of settings: what a TOML value must be for an annotation, and the annotation in words.

Its one rule: a value is taken at its word. `"3"` is no number, `1` is no boolean and `true` no
number; only a whole number stands for a float, and a list for a tuple, because TOML has no other
way to say it. Numbers are finite. Annotations are bool, int, float, str, enumerations, `Literal`,
tuples and unions of these; None in a union is the value of a key that was not given.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from enum import Enum
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin

from opus_socket.errors import LocalProtocolError

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a text",
}


def structured(value: object, annotation: Any) -> object:
    """The value as the annotation has it.

    Raises:
        ValueError: the value is not of that type.
        LocalProtocolError: a settings class has an annotation that configurations cannot hold.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is tuple:
        return _structured_tuple(value, arguments)
    if origin is Literal:
        # By type as well, because True == 1.
        return _require(value, any(value == a and type(value) is type(a) for a in arguments))
    if origin in (Union, UnionType):
        for argument in arguments:
            try:
                return structured(value, argument)
            except ValueError:
                continue
        raise ValueError("none of the union's types")
    if annotation is NoneType:
        return _require(value, value is None)
    if annotation is float:
        return _structured_float(value)
    if annotation in _WORDS:
        # A boolean is an int for Python, not for people.
        exact = isinstance(value, bool) is (annotation is bool)
        return _require(value, exact and isinstance(value, annotation))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return annotation(value)
    raise LocalProtocolError(f"a setting cannot be of type {annotation!r}")


def in_words(annotation: Any, bounds: str = "", choices: tuple[str, ...] = ()) -> str:
    """What the annotation allows, for people.

    Args:
        bounds: what numbers are held to besides, such as " from 1 to 9".
        choices: the only texts that are allowed; () allows all.
    """
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is tuple:
        count = "" if ... in arguments else f" of {len(arguments)} entries"
        return f"a list{count}, each {in_words(arguments[0], bounds, choices)}"
    if origin is Literal:
        return _one_of(arguments)
    if arguments:
        return " or ".join(in_words(a, bounds, choices) for a in arguments if a is not NoneType)
    if annotation is str and choices:
        return _one_of(choices)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return _one_of(member.value for member in annotation)
    return _WORDS[annotation] + (bounds if annotation in (int, float) else "")


def plain(value: object) -> object:
    """The value that TOML and JSON have in place of an enumeration's member."""
    return value.value if isinstance(value, Enum) else value


def toml_value(value: object) -> str:
    """A setting's value as TOML has it; not for None, for which TOML has no word."""
    match plain(value):
        case bool():
            return "true" if value else "false"
        case str() as text:
            return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
        case tuple() | list() as entries:
            return f"[{', '.join(map(toml_value, entries))}]"
        case number:
            return str(number)


def _structured_tuple(value: object, arguments: tuple[Any, ...]) -> tuple[object, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError("not a list")
    if ... in arguments:
        arguments = arguments[:1] * len(value)
    return tuple(structured(item, kind) for item, kind in zip(value, arguments, strict=True))


def _structured_float(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError("not a number")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise ValueError("not a finite number")
    return number


def _require(value: object, condition: bool) -> object:
    if not condition:
        raise ValueError("of another type")
    return value


def _one_of(values: Iterable[object]) -> str:
    return "one of " + ", ".join(map(toml_value, values))
