"""Python's collector of cyclic garbage, in verbs whose objects are many and live long.

Its one rule: it is held back, never needed. Machines leave no cycles behind, so each look at
millions of live objects finds nothing, and costs more the more members there are.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

MANY = 1000
"""From so many members in one process on it pays."""

SELDOM = 500_000
"""New objects until the youngest are looked at; Python's own number is some hundreds."""


@contextmanager
def without_collector() -> Iterator[None]:
    """Without any look, for work that ends: it took a sixth of the time of a simulation (measured
    at 4,000 members).
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


@contextmanager
def spared_collector() -> Iterator[None]:
    """With few looks, for work that goes on: they took a fifth of the time in which 10,000 members
    joined (`benchmarks/join.py`).
    """
    before = gc.get_threshold()
    gc.set_threshold(SELDOM, 20, 100)
    try:
        yield
    finally:
        gc.set_threshold(*before)
