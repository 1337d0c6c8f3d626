"""GF(2^8) against carry-less multiplication bit by bit (algorithm notes, section 21)."""

from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carryless import carryless
from opus_socket.services.galois import (
    EXP,
    GENERATOR,
    LOG,
    POLYNOMIAL,
    Row,
    add_scaled,
    inverse,
    multiply,
    scaled,
)

elements = st.integers(0, 255)


def order(generator: int, polynomial: int) -> int:
    value, steps = generator, 1
    while value != 1:
        value, steps = carryless(value, generator, polynomial), steps + 1
    return steps


def test_every_product_is_that_of_the_polynomials() -> None:
    assert POLYNOMIAL == 0x11D
    for a in range(256):
        assert [multiply(a, b) for b in range(256)] == [carryless(a, b) for b in range(256)]


def test_the_generator_makes_every_element_but_zero() -> None:
    """Which 2 does under 0x11D and not under 0x11B."""
    assert order(GENERATOR, POLYNOMIAL) == 255
    assert order(2, 0x11B) == 51
    assert sorted(map(int, EXP[:255])) == list(range(1, 256))
    assert list(EXP[255:]) == list(EXP[:255])
    assert all(EXP[LOG[value]] == value for value in range(1, 256))


@given(elements, elements, elements)
def test_it_is_a_field(a: int, b: int, c: int) -> None:
    """Products associate, commute and distribute over exclusive or; 1 is neutral; all but 0 have
    inverses.
    """
    assert multiply(multiply(a, b), c) == multiply(a, multiply(b, c))
    assert multiply(a, b) == multiply(b, a)
    assert multiply(a, b ^ c) == multiply(a, b) ^ multiply(a, c)
    assert multiply(a, 1) == a
    if a:
        assert carryless(a, inverse(a)) == 1
    else:
        with pytest.raises(ZeroDivisionError, match="no inverse"):
            inverse(a)


@given(st.binary(max_size=40), st.binary(max_size=40), elements)
def test_rows_are_worked_on_element_by_element(target: bytes, row: bytes, factor: int) -> None:
    """And the shorter row counts as followed by zeros."""
    longer, shorter = sorted((target, row), key=len, reverse=True)
    there, added = _row(longer), _row(shorter)
    add_scaled(there, added, factor)
    assert added.tobytes() == shorter
    expected = [carryless(x, factor) for x in shorter] + [0] * (len(longer) - len(shorter))
    assert there.tobytes() == bytes(x ^ y for x, y in zip(longer, expected, strict=True))
    assert scaled(added, factor).tobytes() == bytes(expected[: len(shorter)])
    assert added.tobytes() == shorter


def _row(data: bytes) -> Row:
    return np.array(list(data), np.uint8)


def test_random_rows_are_seeded_alike() -> None:
    """Whole rows of 16 KiB, all bytes in it."""
    data = random.Random(1).randbytes(16_384)
    for factor in (1, 2, 0x8E, 255):
        assert scaled(_row(data), factor).tobytes() == bytes(carryless(x, factor) for x in data)
