"""Arithmetic in GF(2^8), the field in which packets are combined.

Its one rule: an element is a byte, a row is a numpy array of bytes, and whole rows are worked on at
once. Elements are polynomials over GF(2) modulo 0x11D = x^8 + x^4 + x^3 + x^2 + 1, whose powers of
2 are all 255 others than 0; addition is exclusive or. Needs numpy: `opus-socket[coding]`; the other
modules of coding take it from here, where its absence is told.

Source: network coding in iOverlay, section 3.1; the polynomial is ours (that paper names none).
"""

from __future__ import annotations

from opus_socket.errors import ConfigurationError

try:
    import numpy as np
    import numpy.typing as npt
except ImportError as error:
    raise ConfigurationError(
        "network coding needs numpy, which is not installed; install opus-socket[coding]"
    ) from error

__all__ = [
    "EXP",
    "GENERATOR",
    "LOG",
    "POLYNOMIAL",
    "Row",
    "add_scaled",
    "inverse",
    "multiply",
    "np",
    "scaled",
]

POLYNOMIAL = 0x11D
GENERATOR = 2

Row = npt.NDArray[np.uint8]


def _powers() -> tuple[Row, npt.NDArray[np.uint16]]:
    exp = np.zeros(510, np.uint8)
    log = np.zeros(256, np.uint16)
    value = 1
    for power in range(255):
        # Doubled, so that a sum of two logarithms needs no remainder.
        exp[power] = exp[power + 255] = value
        log[value] = power
        value <<= 1
        if value & 0x100:
            value ^= POLYNOMIAL
    return exp, log


EXP, LOG = _powers()
"""Powers of the generator, twice over; and of what power a byte is (0 has none)."""


def _products() -> Row:
    table: Row = EXP[LOG[:, None] + LOG[None, :]]
    table[0, :] = table[:, 0] = 0
    return table


# Looking bytes up in one row of all products is twice as fast by `bytes.translate` as by numpy.
_TIMES = tuple(row.tobytes() for row in _products())


def multiply(a: int, b: int) -> int:
    """The product of two elements."""
    product: int = _TIMES[a][b]
    return product


def inverse(a: int) -> int:
    """The element by which this one gives 1.

    Raises:
        ZeroDivisionError: it is 0.
    """
    if a == 0:
        raise ZeroDivisionError("0 has no inverse in GF(256)")
    return int(EXP[255 - int(LOG[a])])


def scaled(row: Row, factor: int) -> Row:
    """The row with each of its elements multiplied; a new one."""
    return np.frombuffer(row.tobytes().translate(_TIMES[factor]), np.uint8).copy()


def add_scaled(target: Row, row: Row, factor: int) -> None:
    """Add a multiple of a row to the beginning of another that is at least as long, in place."""
    part = target[: len(row)]
    if factor == 1:
        np.bitwise_xor(part, row, out=part)
    elif factor:
        times = np.frombuffer(row.tobytes().translate(_TIMES[factor]), np.uint8)
        np.bitwise_xor(part, times, out=part)
