"""The contact finder against malformed, forged and unproven messages."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opus_socket.core.addresses import Contact
from opus_socket.core.contacts import ContactFinder, FinderSettings, Found
from opus_socket.core.effects import Role, Transmit
from opus_socket.core.rendezvous_messages import (
    Announcement,
    CachePing,
    Challenge,
    Purpose,
    Refusal,
    Reply,
    Request,
    Verdict,
    decode,
    encode,
)
from opus_socket.errors import RemoteProtocolError
from rendezvous.conversation import (
    ATTRIBUTES,
    LAB,
    OTHERS,
    SERVER,
    likely,
    place,
    seen,
)


def a_finder() -> ContactFinder:
    finder = ContactFinder(LAB, ATTRIBUTES, FinderSettings((likely(1),), (likely(9),)), Random(1))
    own = Contact(None, 1, 0, (place(2),))
    finder.begin(own, 0.0)
    finder.update(own, (), True, 0.0)
    finder.find(Role.LEADER, 0.0)
    return finder


ASKER = Contact(None, 3, 0, (place(3),))
MESSAGES = [
    encode(message)
    for message in (
        Request(1, b"", LAB, ATTRIBUTES.digest, ASKER, Purpose.JOIN, 0, (), b""),
        Challenge(1, bytes(16)),
        Reply(1, Verdict.MEMBERS, 0, 0, (ASKER,), 1),
        Refusal(1, OTHERS.pairs),
        Announcement(LAB, ATTRIBUTES.digest, ASKER, True, b"hello"),
        CachePing(1),
    )
]


@given(
    body=st.sampled_from(MESSAGES),
    changes=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=4),
    keep=st.integers(0, 300),
)
@settings(max_examples=300)
def test_mangled_messages_are_refused_or_harmless(
    body: bytes, changes: list[tuple[int, int]], keep: int
) -> None:
    """Whatever comes, the only error is RemoteProtocolError; and as nothing that is open is
    answered, nobody is found.
    """
    mangled = bytearray(body)
    for at, value in changes:
        mangled[at % len(mangled)] = value
    finder = a_finder()
    try:
        effects = finder.receive(bytes(mangled[:keep]), seen(place(3)), 1.0)
    except RemoteProtocolError:
        return
    assert not any(isinstance(effect, Found) for effect in effects)


@given(body=st.binary(max_size=200))
def test_random_bytes_are_refused(body: bytes) -> None:
    """Random bytes are no message."""
    with pytest.raises(RemoteProtocolError):
        a_finder().receive(body, seen(place(3)), 1.0)


@given(
    purpose=st.sampled_from(Purpose),
    cookie=st.sampled_from([b"", bytes(16)]),
    digest=st.sampled_from([ATTRIBUTES.digest, OTHERS.digest]),
    nonce=st.sampled_from([0, 23, 24, 2**32 - 1]),
)
def test_a_member_sends_no_more_to_an_unproven_asker_than_came(
    purpose: Purpose, cookie: bytes, digest: bytes, nonce: int
) -> None:
    """No amplification: without a valid cookie one challenge at most, shorter than the request,
    and never contacts or key attributes.
    """
    request = encode(Request(nonce, cookie, LAB, digest, ASKER, purpose, 0, (), b""))
    finder = a_finder()
    try:
        effects = finder.receive(request, seen(place(3)), 1.0)
    except RemoteProtocolError:
        assert purpose not in (Purpose.JOIN, Purpose.LEAD)
        return
    (effect,) = effects
    assert isinstance(effect, Transmit)
    assert len(effect.body) <= len(request)
    assert isinstance(decode(effect.body, Counter()), Challenge)


def test_messages_of_another_overlay_with_the_same_tag_are_refused() -> None:
    other = Request(1, b"", "other", ATTRIBUTES.digest, ASKER, Purpose.JOIN, 0, (), b"")
    for message in (other, Announcement("other", ATTRIBUTES.digest, ASKER, True, b"hello")):
        with pytest.raises(RemoteProtocolError, match="other_overlay"):
            a_finder().receive(encode(message), seen(place(3)), 1.0)


def joining() -> tuple[ContactFinder, int]:
    """A finder that asks a server, and the nonce of its request."""
    finder = ContactFinder(LAB, ATTRIBUTES, SERVER, Random(1))
    finder.begin(Contact(None, 1, 0, (place(2),)), 0.0)
    (effect,) = finder.find(Role.NEW, 0.0)
    assert isinstance(effect, Transmit)
    request = decode(effect.body, Counter())
    assert isinstance(request, Request)
    return finder, request.nonce


def test_an_answer_counts_only_while_its_request_is_open() -> None:
    finder, nonce = joining()
    reply = Reply(nonce, Verdict.MEMBERS, 0, 0, (ASKER,), 0)
    forged = Reply(nonce ^ 1, Verdict.MEMBERS, 0, 0, (ASKER,), 0)
    assert finder.receive(encode(forged), seen(place(1)), 0.0) == ()
    (found,) = finder.receive(encode(reply), seen(place(1)), 0.0)
    assert isinstance(found, Found)
    assert finder.receive(encode(reply), seen(place(1)), 0.0) == ()


def test_a_request_follows_only_so_many_cookies() -> None:
    finder, nonce = joining()
    challenge = encode(Challenge(nonce, bytes(16)))
    answers = [finder.receive(challenge, seen(place(1)), 0.0) for _ in range(10)]
    assert sum(map(len, answers)) == 3


def test_a_refusal_that_names_no_difference_is_a_lie() -> None:
    finder, nonce = joining()
    with pytest.raises(RemoteProtocolError, match="same"):
        finder.receive(encode(Refusal(nonce, ATTRIBUTES.pairs)), seen(place(1)), 0.0)
    (found,) = finder.receive(encode(Reply(nonce, Verdict.NOBODY, 0, 0, (), 0)), ASKER, 0.0)
    assert isinstance(found, Found)


def test_a_refusal_that_could_be_no_key_attributes_is_a_lie() -> None:
    finder, nonce = joining()
    for pairs in ((("b", "1"), ("a", "1")), (("a", "1"), ("a", "2")), (("a", "x" * 3000),)):
        with pytest.raises(RemoteProtocolError, match="bad_attributes"):
            finder.receive(encode(Refusal(nonce, pairs)), seen(place(1)), 0.0)


def test_whoever_leaves_is_silent() -> None:
    finder = a_finder()
    finder.leave(1.0)
    assert all(finder.receive(body, seen(place(3)), 1.0) == () for body in MESSAGES)
    assert finder.announce(b"hello", 1.0) == finder.find(Role.NEW, 1.0) == ()
    assert finder.next_deadline == float("inf")
