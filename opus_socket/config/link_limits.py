"""Limits of links as people write them: `ADDRESS DIRECTION RATE`, such as `12,40 out 100000`.

Its one rule: a text is taken apart here and nowhere else. What is wrong with it is a `ValueError`
that says what is allowed, as every form of a setting raises it; only the protocol knows what an
address is, so its part is read when the protocol is known.
"""

from __future__ import annotations

from collections.abc import Callable

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.buckets import MAX_RATE, Direction, Limit
from opus_socket.errors import LocalProtocolError

_FORM = "ADDRESS DIRECTION RATE such as '12,40 out 100000': the neighbor, in or out, bytes/s"


def link_limit(text: str) -> tuple[str, Direction, int]:
    """Form of a link's limit: the address as it is written, the direction, bytes a second."""
    words = text.split()
    if len(words) != 3 or words[1] not in (Direction.IN, Direction.OUT):
        raise ValueError(_FORM)
    address, direction, rate = words
    if not (rate.isascii() and rate.isdigit() and len(rate) < 20 and 1 <= int(rate) <= MAX_RATE):
        raise ValueError(f"{_FORM} as a whole number from 1 to {MAX_RATE}")
    return address, Direction(direction), int(rate)


def parse_limit(text: str, parse_address: Callable[[str], LogicalAddress]) -> Limit:
    """The limit in a text of that form, read as the protocol writes its addresses.

    Raises:
        ValueError: it is no address of the protocol.
    """
    address, direction, rate = link_limit(text)
    try:
        return Limit(direction, rate, parse_address(address))
    except LocalProtocolError as error:
        raise ValueError(f"{_FORM}; {error}") from error
