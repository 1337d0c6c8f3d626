"""The settings of the Delaunay protocol and the three ways to choose coordinates.

Its one rule: periods are given in seconds, everything that follows from them in heartbeats.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from random import Random
from typing import Any

from attrs import Attribute, field, frozen

from opus_socket.core.addresses import WORD_MAX, LogicalAddress
from opus_socket.errors import ConfigurationError, LocalProtocolError

LAS = 1
RANDOM = "random"
NAME = "name:"
_ALLOWED = "whole numbers 'x,y' from 0 to 4294967294 are allowed"


def parse_address(text: str) -> LogicalAddress:
    """The logical address that a person writes as `x,y`.

    Raises:
        LocalProtocolError: not two whole numbers from 0 to 4294967294.
    """
    words = text.split(",")
    if len(words) != 2 or not all(w.strip().isascii() and w.strip().isdigit() for w in words):
        raise LocalProtocolError(f"not Delaunay coordinates: {text!r}; {_ALLOWED}")
    x, y = map(int, words)
    if max(x, y) >= WORD_MAX:
        raise LocalProtocolError(f"Delaunay coordinates out of range: {text!r}; {_ALLOWED}")
    return LogicalAddress((x, y))


def is_drawn(coordinates: str) -> bool:
    """Whether the coordinates are drawn at random, so that others may be drawn instead."""
    return coordinates == RANDOM


def choose_address(coordinates: str, rng: Random) -> LogicalAddress:
    """The logical address that the setting asks for.

    Args:
        coordinates: `random`, `x,y` or `name:TEXT`.
        rng: the source of chance.
    """
    if coordinates == RANDOM:
        return LogicalAddress((rng.randrange(WORD_MAX), rng.randrange(WORD_MAX)))
    if coordinates.startswith(NAME):
        return _from_name(coordinates.removeprefix(NAME).encode())
    return parse_address(coordinates)


def _from_name(digest: bytes) -> LogicalAddress:
    while True:
        digest = hashlib.blake2s(digest).digest()
        x, y = int.from_bytes(digest[:4]), int.from_bytes(digest[4:8])
        # A word of all ones is no coordinate; then the digest of the digest names the place.
        if max(x, y) < WORD_MAX:
            return LogicalAddress((x, y))


def _within(least: float, most: float) -> Callable[[Any, Attribute[float], object], None]:
    def check(_: Any, attribute: Attribute[float], value: object) -> None:
        if isinstance(value, bool) or not (
            isinstance(value, int | float) and least <= value <= most
        ):
            raise ConfigurationError(
                f"node.delaunay.{attribute.name} = {value!r}; {least} to {most} is allowed"
            )

    return check


def _check_coordinates(_: Any, attribute: Attribute[str], value: object) -> None:
    text = str(value)
    if text != RANDOM and not (text.startswith(NAME) and len(text) > len(NAME)):
        try:
            parse_address(text)
        except LocalProtocolError as error:
            raise ConfigurationError(
                f"node.delaunay.{attribute.name} = {value!r}; "
                "'random', 'x,y' (0 to 4294967294 each) or 'name:TEXT' is allowed"
            ) from error


@frozen
class DelaunaySettings:
    """The table `[node.delaunay]`.

    Raises:
        ConfigurationError: a value is out of its range.
    """

    coordinates: str = field(
        default=RANDOM,
        validator=_check_coordinates,
        metadata={
            "unit": "random | x,y | name:TEXT",
            "meaning": "where this member stands in the plane: drawn, given, or from its name",
        },
    )
    heartbeat: float = field(
        default=1.0,
        validator=_within(0.1, 5.0),
        metadata={
            "unit": "seconds",
            "meaning": "how often each neighbor is told hello",
            "key": True,
        },
    )
    neighbor_timeout: float = field(
        default=3.5,
        validator=_within(3.0, 60.0),
        metadata={
            "unit": "heartbeats",
            "meaning": "how long a neighbor may be silent before it counts as gone",
            "key": True,
        },
    )
    rendezvous_period: float = field(
        default=2.0,
        validator=_within(0.1, 3600.0),
        metadata={
            "unit": "seconds",
            "meaning": "how often a leader looks for other fragments of the overlay",
        },
    )
    join_retry: float = field(
        default=2.0,
        validator=_within(0.1, 60.0),
        metadata={
            "unit": "seconds",
            "meaning": "how soon a join that nobody answered is tried again; doubles each time",
        },
    )
    join_retry_limit: float = field(
        default=16.0,
        validator=_within(0.1, 3600.0),
        metadata={"unit": "seconds", "meaning": "where the doubling of join_retry ends"},
    )
