"""What callers hand in: numbers, payloads and lists of things.

Its one rule: it is looked at as a whole before anything is done with it, so that a refused call has
changed nothing. Whatever is wrong is a `LocalProtocolError` that says what is allowed.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable
from operator import index

from opus_socket.errors import LocalProtocolError

Payload = bytes | bytearray | memoryview


def check_payloads(payloads: Iterable[Payload]) -> list[bytes]:
    """The payloads as bytes that nobody can change any more.

    Raises:
        LocalProtocolError: they are no list or the like, or one of them is something else.
    """
    each_of = iterated("payloads", payloads, "a list of bytes")
    return [each if type(each) is bytes else check_payload(each) for each in each_of]


def check_payload(payload: object) -> bytes:
    """The payload as bytes that nobody can change any more.

    Raises:
        LocalProtocolError: it is something else, or a memoryview that was released.
    """
    if type(payload) is bytes:
        return payload
    if not isinstance(payload, (bytes, bytearray, memoryview)):
        raise LocalProtocolError(
            f"a payload of type {type(payload).__name__}; "
            "bytes, a bytearray or a memoryview is allowed"
        )
    try:
        return bytes(payload)
    except ValueError:
        raise LocalProtocolError(
            "a memoryview that was released; send it before that, or a copy"
        ) from None


def iterated(name: str, given: object, allowed: str) -> Iterable[object]:
    """What there is one by one, a list or whatever can be gone through.

    Args:
        name: of the argument.
        given: by the caller.
        allowed: in words.

    Raises:
        LocalProtocolError: it cannot be gone through.
    """
    try:
        return iter(given)  # type: ignore[call-overload, no-any-return]
    except TypeError:
        raise LocalProtocolError(f"{name} {shown(given)}: {allowed} is allowed") from None


def check_whole(name: str, given: object, least: int, most: int) -> int:
    """A whole number within bounds.

    Raises:
        LocalProtocolError: it is none, or out of them.
    """
    number = given if type(given) is int else whole(given)
    if number is None or not least <= number <= most:
        raise LocalProtocolError(f"{name} {shown(given)}: {least} to {most} are allowed")
    return number


def whole(given: object) -> int | None:
    """The number, if it is a whole one, such as numpy's."""
    try:
        return None if isinstance(given, bool) else index(given)  # type: ignore[arg-type]
    except TypeError:
        return None


def finite(given: object) -> float | None:
    """The number, if it is one that a float can hold; None for whatever else."""
    if isinstance(given, bool) or not isinstance(given, int | float):
        given = whole(given)
    try:
        number = float("nan") if given is None else float(given)
    except OverflowError:
        return None
    return number if abs(number) < float("inf") else None


class _Short(reprlib.Repr):
    """Values as errors show them: whatever the input, of bounded length."""

    def __init__(self) -> None:
        super().__init__()
        self.maxstring = self.maxother = 80

    def repr_int(self, x: int, level: int) -> str:
        # Python refuses to write a number of thousands of digits.
        return super().repr_int(x, level) if x.bit_length() < 256 else "(a huge number)"


_SHORT = _Short()


def shown(given: object) -> str:
    """A value as errors show it: whatever it is, of bounded length."""
    return _SHORT.repr(given)
