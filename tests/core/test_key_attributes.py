"""Key attributes and cookies."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_socket.core.addresses import Contact, Endpoint
from opus_socket.core.cookies import COOKIE_LENGTH, EPOCH, Cookies
from opus_socket.core.key_attributes import MAX_PAIRS, MAX_PAIRS_LENGTH, Difference, KeyAttributes
from opus_socket.errors import LocalProtocolError, RemoteProtocolError

NAMES = st.text("ab\0", max_size=3)
PAIRS = st.dictionaries(NAMES, NAMES, max_size=4)


@given(PAIRS, PAIRS)
def test_digests_are_equal_exactly_when_the_attributes_are(
    one: dict[str, str], other: dict[str, str]
) -> None:
    """Whatever the order, and however texts could run into each other."""
    first, second = KeyAttributes(one.items()), KeyAttributes(reversed(other.items()))
    assert (first.digest == second.digest) == (one == other)
    assert len(first.digest) == 8


@given(PAIRS, PAIRS)
def test_differences_are_what_must_change_to_agree(
    one: dict[str, str], other: dict[str, str]
) -> None:
    """Applying the differences to ours gives theirs; each is one."""
    ours, theirs = KeyAttributes(one.items()), KeyAttributes(other.items())
    mended = dict(one)
    for difference in ours.differences(theirs):
        assert difference.ours != difference.theirs
        assert mended.pop(difference.name, None) == difference.ours
        if difference.theirs is not None:
            mended[difference.name] = difference.theirs
    assert mended == other


def test_a_difference_reads_as_a_sentence() -> None:
    assert str(Difference("node", "delaunay", None)) == (
        "node is 'delaunay' here and no key attribute there"
    )


def test_a_name_is_given_once() -> None:
    with pytest.raises(LocalProtocolError, match="'node'"):
        KeyAttributes([("node", "a"), ("other", "b"), ("node", "c")])


@pytest.mark.parametrize(
    "pairs",
    [
        [(str(number), "") for number in range(MAX_PAIRS + 1)],
        [("name", "x" * MAX_PAIRS_LENGTH)],
        [("name", "x" * 100_000)],
    ],
)
def test_attributes_are_bounded(pairs: list[tuple[str, str]]) -> None:
    with pytest.raises(LocalProtocolError, match="allowed"):
        KeyAttributes(pairs)


@given(PAIRS)
def test_what_a_remote_states_is_taken_in_its_one_form(pairs: dict[str, str]) -> None:
    """Sorted pairs are taken, others are refused."""
    ordered = tuple(sorted(pairs.items()))
    assert KeyAttributes.from_wire(ordered).pairs == ordered
    if len(ordered) > 1:
        with pytest.raises(RemoteProtocolError, match="not sorted"):
            KeyAttributes.from_wire(ordered[::-1])


def contact(port: int, index: int) -> Contact:
    return Contact(None, 0, index, (Endpoint("10.0.0.1", port),))


@given(baked=st.floats(0, 1e7), later=st.floats(0, 100))
def test_a_cookie_is_known_for_one_epoch_at_least_and_two_at_most(
    baked: float, later: float
) -> None:
    """Valid during the epoch it was baked in and the next one."""
    cookies = Cookies(b"secret")
    cookie = cookies.bake(contact(1, 0), baked)
    assert len(cookie) == COOKIE_LENGTH
    epochs = int((baked + later) // EPOCH) - int(baked // EPOCH)
    assert cookies.know(cookie, contact(1, 0), baked + later) == (epochs <= 1)


@given(
    port=st.integers(1, 3),
    index=st.integers(0, 2),
    secret=st.sampled_from([b"secret", b"other"]),
    bit=st.integers(-1, 8 * COOKIE_LENGTH - 1),
)
def test_a_cookie_is_known_from_its_owner_only(
    port: int, index: int, secret: bytes, bit: int
) -> None:
    """Another endpoint, index, secret or any changed bit, and it proves nothing."""
    cookie = Cookies(b"secret").bake(contact(1, 0), 50.0)
    if bit >= 0:
        cookie = (int.from_bytes(cookie) ^ (1 << bit)).to_bytes(COOKIE_LENGTH)
    expected = (port, index, secret, bit) == (1, 0, b"secret", -1)
    assert Cookies(secret).know(cookie, contact(port, index), 50.0) == expected


def test_a_missing_cookie_proves_nothing() -> None:
    assert not Cookies(b"secret").know(b"", contact(1, 0), 0.0)
