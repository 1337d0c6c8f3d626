"""GF(2^8) bit by bit: an oracle that shares nothing with the tables that it judges."""

from __future__ import annotations


def carryless(a: int, b: int, polynomial: int = 0x11D) -> int:
    """The product of two polynomials over GF(2), and its remainder."""
    product = 0
    for bit in range(8):
        if b >> bit & 1:
            product ^= a << bit
    for bit in range(14, 7, -1):
        if product >> bit & 1:
            product ^= polynomial << bit - 8
    return product
