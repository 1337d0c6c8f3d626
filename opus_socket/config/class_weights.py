"""Weights of traffic classes as people write them: `CLASS:WEIGHT`, such as `7:3`.

Its one rule: a text is taken apart here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from opus_socket.core.dispatch import MAX_WEIGHT
from opus_socket.core.message import MASK

_FORM = (
    f"CLASS:WEIGHT such as 7:3, a class from 0 to {MASK['traffic_class']} and a weight from 1 to "
    f"{MAX_WEIGHT}, no class twice"
)
_PARTS = re.compile(r"([0-9]{1,3}):([0-9]{1,3})")


def class_weight(text: str) -> tuple[int, int]:
    """Form of a class's weight: the class and the weight."""
    parts = _PARTS.fullmatch(text)
    if parts is not None:
        number, weight = int(parts[1]), int(parts[2])
        if number <= MASK["traffic_class"] and 1 <= weight <= MAX_WEIGHT:
            return number, weight
    raise ValueError(_FORM)


def class_weights(texts: Iterable[str]) -> dict[int, int]:
    """Weights by class.

    Raises:
        ValueError: a class has two.
    """
    weights: dict[int, int] = {}
    for text in texts:
        number, weight = class_weight(text)
        if number in weights:
            raise ValueError(_FORM)
        weights[number] = weight
    return weights
