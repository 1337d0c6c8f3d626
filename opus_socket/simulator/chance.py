"""Where every random number of a simulation comes from.

Its one rule: each concern has its own generator, and its seed is BLAKE2s of the simulation's
seed and the concern's name. So one member more, or one draw more here, changes nothing there.
"""

from __future__ import annotations

from hashlib import blake2s
from random import Random


def generator(seed: int, *concern: str | int) -> Random:
    """The generator of one concern.

    Args:
        seed: the simulation's.
        concern: its name, such as `"member", 17, 2`; no part may contain a blank.
    """
    text = " ".join(map(str, (seed, *concern)))
    return Random(int.from_bytes(blake2s(text.encode()).digest()))
