"""The rendezvous server against forged, unproven, malformed and too many requests."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.rendezvous_messages import (
    MAX_ANNOUNCEMENT,
    Announcement,
    CachePing,
    CachePong,
    Challenge,
    Purpose,
    Refusal,
    Reply,
    Request,
    Verdict,
    encode,
)
from opus_socket.errors import RemoteProtocolError
from rendezvous.conversation import ATTRIBUTES, LAB, place, seen
from rendezvous.desk import desk, messages

LONGEST = bytes(MAX_ANNOUNCEMENT)


@given(
    purpose=st.sampled_from(Purpose),
    cookie=st.sampled_from([b"", bytes(16), b"\xff" * 16]),
    overlay=st.sampled_from(["a", "lab", "x" * 255]),
    nonce=st.sampled_from([0, 255, 2**32 - 1]),
    address=st.sampled_from([None, LogicalAddress((1,)), LogicalAddress((1, 2, 3, 4))]),
    body=st.sampled_from([b"", b"hello", LONGEST]),
)
def test_an_unproven_asker_gets_a_challenge_no_longer_than_its_request(
    purpose: Purpose,
    cookie: bytes,
    overlay: str,
    nonce: int,
    address: LogicalAddress | None,
    body: bytes,
) -> None:
    """No amplification: for every kind of request, even the shortest, one challenge and nothing
    else, of at most as many bytes; and nothing is kept.
    """
    d = desk()
    d.confirm(2, 3, 4)
    before = d.machine.statistics()
    source = Contact(address, 0, 0, (place(9),))
    request = Request(nonce, cookie, overlay, bytes(8), source, purpose, 0, (), body)
    effects = d.send(request, seen(place(9)))
    ((to, challenge),) = messages(effects)
    assert to == seen(place(9))
    assert isinstance(challenge, Challenge)
    assert len(effects[0].body) <= len(encode(request))
    after = d.machine.statistics()
    assert (after.overlays, after.members, after.joining) == (
        before.overlays,
        before.members,
        before.joining,
    )


def test_forged_requests_leave_nothing_behind() -> None:
    """A flood from endpoints that never show a cookie changes no state and sets no timer."""
    d = desk()
    for number in range(5000):
        d.send(d.request(number, Purpose(number % 5), overlay=f"lab {number}"), seen(place(number)))
    statistics = d.machine.statistics()
    assert statistics.challenges == statistics.requests == 5000
    assert statistics.overlays == statistics.members == statistics.joining == 0
    assert d.machine.next_deadline == float("inf")


@given(body=st.binary(max_size=100))
def test_what_is_no_request_is_refused(body: bytes) -> None:
    """Random bytes are refused by one kind of error."""
    with pytest.raises(RemoteProtocolError):
        desk().machine.receive(body, seen(place(2)), 0.0)


def test_messages_that_servers_send_are_refused_by_one() -> None:
    source = Contact(None, 1, 0, (place(2),))
    for message in (
        Challenge(1, bytes(16)),
        Reply(1, Verdict.NOBODY, 0, 0, (), 0),
        Refusal(1, ()),
        Announcement(LAB, ATTRIBUTES.digest, source, False, b"hello"),
        CachePing(1),
    ):
        with pytest.raises(RemoteProtocolError, match="unexpected"):
            desk().send(message, seen(place(2)))


@pytest.mark.parametrize(
    "changes",
    [
        {"overlay": ""},
        {"overlay": "x" * 256},
        {"digest": b"short"},
        {"cookie": b"short"},
        {"body": bytes(MAX_ANNOUNCEMENT + 1)},
        {"source": Contact(None, 1, 0, (place(2)._replace(host="0.0.0.0"),))},
    ],
)
def test_requests_out_of_bounds_are_refused(changes: dict[str, object]) -> None:
    d = desk()
    with pytest.raises(RemoteProtocolError, match="bad_field"):
        d.send(d.request(2, Purpose.JOIN, **changes), seen(place(2)))


def test_a_purpose_that_is_none_is_refused() -> None:
    d = desk()
    request = d.request(2, Purpose.JOIN)
    request.purpose = len(Purpose)
    with pytest.raises(RemoteProtocolError, match="purpose"):
        d.send(request, seen(place(2)))


def test_proven_floods_meet_bounds() -> None:
    """Whoever shows cookies may fill the tables, but not exceed them, nor disturb who is in."""
    d = desk(overlays=8, members=40, sample=4, leaders=4, recent=4)
    d.confirm(2)
    for number in range(100, 600):
        overlay = f"lab {number % 50}"
        d.ask(number, Purpose(number % 2), overlay=overlay)
        d.ask(number, Purpose.CONFIRM, overlay=overlay)
    statistics = d.machine.statistics()
    assert statistics.overlays <= 8
    assert statistics.members <= 40
    assert statistics.overflows > 0
    assert d.reply(3, Purpose.JOIN).verdict == Verdict.MEMBERS
    late = d.reply(4, Purpose.JOIN, overlay="one too many")
    assert (late.verdict, late.wait_ms) == (Verdict.WAIT, 4000)
    # When the flood is over and nobody answers, there is room again.
    d.pass_time(60.0)
    assert d.machine.statistics().overlays == 0
    assert d.reply(4, Purpose.JOIN, overlay="one too many").verdict == Verdict.NOBODY


def test_room_is_found_within_a_second_after_a_flood() -> None:
    """Overlays that were only asked for are forgotten once their founders are late."""
    d = desk(overlays=8)
    for number in range(100, 108):
        assert d.reply(number, Purpose.JOIN, overlay=f"{number}").verdict == Verdict.NOBODY
    d.now = 5.0
    assert d.reply(2, Purpose.JOIN).verdict == Verdict.WAIT
    d.pass_time(6.0)
    assert d.reply(2, Purpose.JOIN).verdict == Verdict.NOBODY


def test_a_pong_proves_nothing_for_others() -> None:
    d = desk()
    d.confirm(2)
    d.now = d.machine.next_deadline
    ((_, ping),) = messages(d.machine.wake(d.now))
    assert isinstance(ping, CachePing)
    d.send(CachePong(ping.nonce), seen(place(3)))
    d.send(CachePong(ping.nonce ^ 1), seen(place(2)))
    d.pass_time(11.0)
    assert d.machine.statistics().members == 0
