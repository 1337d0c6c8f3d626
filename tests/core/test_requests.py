"""What callers hand in is taken as it is meant, or refused with what is allowed."""

from __future__ import annotations

from math import inf, isfinite

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_socket.core.requests import (
    check_payload,
    check_payloads,
    check_whole,
    finite,
    iterated,
    shown,
    whole,
)
from opus_socket.errors import LocalProtocolError

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(min_value=10**300, max_value=10**5000),
    st.floats(),
    st.complex_numbers(),
    st.text(max_size=9),
    st.binary(max_size=9),
    st.lists(st.integers(), max_size=3),
    st.just(object()),
)


@given(ANYTHING, st.integers(-5, 0), st.integers(0, 2**40))
def test_whole_numbers_within_bounds_and_nothing_else(value: object, least: int, most: int) -> None:
    is_one = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
    if is_one:
        assert check_whole("number", value, least, most) == value
        return
    with pytest.raises(LocalProtocolError, match=rf"^number .*: {least} to {most} are allowed"):
        check_whole("number", value, least, most)


@given(ANYTHING)
def test_numbers_that_a_float_holds(value: object) -> None:
    number = finite(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        assert number is None
    elif isinstance(value, float):
        assert (number == value) if isfinite(value) else (number is None)
    else:
        assert (number is None) == (abs(value) >= 2**1024 - 2**970)
        assert number is None or abs(number) < inf


@pytest.mark.parametrize("seven", [np.int64(7), np.uint8(7), np.int32(7)])
def test_numbers_of_other_libraries_count(seven: object) -> None:
    number = whole(seven)
    assert (type(number), number, finite(seven)) == (int, 7, 7.0)


@given(ANYTHING)
def test_any_value_is_shown_in_few_words(value: object) -> None:
    assert len(shown(value)) < 400


@given(st.lists(ANYTHING, max_size=4))
def test_payloads_are_bytes_that_nobody_can_change(values: list[object]) -> None:
    if all(isinstance(value, bytes) for value in values):
        assert check_payloads(iter(values)) == values  # type: ignore[arg-type]
        return
    with pytest.raises(LocalProtocolError, match=r"^a payload of type .*bytearray or a memoryview"):
        check_payloads(values)  # type: ignore[arg-type]


def test_payloads_are_copied_unless_they_are_bytes() -> None:
    given, plain = bytearray(b"abc"), b"plain"
    [copied, viewed, same] = check_payloads([given, memoryview(given)[1:], plain])
    given[:] = b"xyz"
    assert (copied, viewed) == (b"abc", b"bc")
    assert same is plain


def test_a_view_that_was_released_is_refused() -> None:
    view = memoryview(b"abc")
    view.release()
    with pytest.raises(LocalProtocolError, match="a memoryview that was released"):
        check_payload(view)


@pytest.mark.parametrize("nothing", [None, 5, 1.5, object()])
def test_what_cannot_be_gone_through_is_refused(nothing: object) -> None:
    with pytest.raises(LocalProtocolError, match=r"^payloads .*: a list of bytes is allowed"):
        check_payloads(nothing)  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError, match=r"^names .*: a list is allowed"):
        iterated("names", nothing, "a list")


def test_an_error_of_the_callers_own_is_not_hidden() -> None:
    def broken() -> object:
        yield b"first"
        raise TypeError("of the caller")

    with pytest.raises(TypeError, match="of the caller"):
        check_payloads(broken())  # type: ignore[arg-type]
