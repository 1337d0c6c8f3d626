"""The settings of the Delaunay protocol and the three ways to choose coordinates.

Its one rule: periods are given in seconds, everything that follows from them in heartbeats.
"""

from __future__ import annotations

import hashlib
from random import Random
from typing import ClassVar

from attrs import frozen

from opus_socket.core.addresses import WORD_MAX, LogicalAddress
from opus_socket.core.settings import Table, setting
from opus_socket.errors import LocalProtocolError

LAS = 1
RANDOM = "random"
NAME = "name:"
_ALLOWED = "whole numbers 'x,y' from 0 to 4294967294 are allowed"


def parse_address(text: str) -> LogicalAddress:
    """The logical address that a person writes as `x,y`.

    Raises:
        LocalProtocolError: not two whole numbers from 0 to 4294967294.
    """
    try:
        address = LogicalAddress.parse(text)
    except LocalProtocolError:
        raise LocalProtocolError(f"not Delaunay coordinates: {text!r}; {_ALLOWED}") from None
    if len(address) != 2 or WORD_MAX in address:
        raise LocalProtocolError(f"not Delaunay coordinates: {text!r}; {_ALLOWED}")
    return address


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


def _check_coordinates(text: str) -> None:
    """Form of the setting `coordinates`."""
    if text == RANDOM or (text.startswith(NAME) and len(text) > len(NAME)):
        return
    try:
        parse_address(text)
    except LocalProtocolError:
        raise ValueError(
            f"'random', 'x,y' (0 to {WORD_MAX - 1} each) such as '7,12', or 'name:TEXT'"
        ) from None


@frozen
class DelaunaySettings(Table):
    """The table `[node.delaunay]`.

    Raises:
        ConfigurationError: a value is out of its range.
    """

    TABLE: ClassVar[str] = "node.delaunay"

    coordinates: str = setting(
        RANDOM,
        unit="random | x,y | name:TEXT",
        form=_check_coordinates,
        meaning="where this member stands in the plane: drawn, given, or from its name",
    )
    heartbeat: float = setting(
        1.0,
        unit="seconds",
        minimum=0.1,
        maximum=5.0,
        key=True,
        meaning="how often each neighbor is told hello",
    )
    neighbor_timeout: float = setting(
        3.5,
        unit="heartbeats",
        minimum=3.0,
        maximum=60.0,
        key=True,
        meaning="how long a neighbor may be silent before it counts as gone",
    )
    rendezvous_period: float = setting(
        2.0,
        unit="seconds",
        minimum=0.1,
        maximum=3600.0,
        meaning="how often a leader looks for other fragments of the overlay",
    )
    join_retry: float = setting(
        2.0,
        unit="seconds",
        minimum=0.1,
        maximum=60.0,
        meaning="how soon a join that nobody answered is tried again; doubles each time",
    )
    join_retry_limit: float = setting(
        16.0,
        unit="seconds",
        minimum=0.1,
        maximum=3600.0,
        meaning="where the doubling of join_retry ends",
    )
