"""The rendezvous server: bounds, cookies, admission, memory, announcements."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.key_attributes import KeyAttributes
from opus_socket.core.rendezvous_messages import (
    MAX_ANNOUNCEMENT,
    Announcement,
    CachePing,
    CachePong,
    Challenge,
    Message,
    Purpose,
    Refusal,
    Reply,
    Request,
    Verdict,
    decode,
    encode,
)
from opus_socket.errors import RemoteProtocolError
from opus_socket.rendezvous.server import RendezvousServer, ServerEffects, ServerSettings
from rendezvous.conversation import ATTRIBUTES, LAB, OTHERS, place, seen

LONGEST = bytes(MAX_ANNOUNCEMENT)


def messages(effects: ServerEffects) -> list[tuple[Contact, Message]]:
    return [(effect.to, decode(effect.body, Counter())) for effect in effects]


@define(eq=False)
class Desk:
    """A server, and somebody who asks it in the name of any member, with its cookie."""

    machine: RendezvousServer
    now: float = 0.0
    cookies: dict[tuple[int, float], bytes] = field(factory=dict)

    def request(self, number: int, purpose: Purpose, **changes: object) -> Request:
        source = Contact(LogicalAddress((number, 7)), 1, 0, (place(number),))
        states = purpose in (Purpose.LEAD, Purpose.CONFIRM)
        attributes = changes.pop("attributes", ATTRIBUTES)
        assert isinstance(attributes, KeyAttributes)
        fields: dict[str, object] = {
            "nonce": number,
            "cookie": b"",
            "overlay": LAB,
            "digest": attributes.digest,
            "source": source,
            "purpose": purpose,
            "ticket": 0,
            "attributes": attributes.pairs if states else (),
            "body": b"",
            **changes,
        }
        return Request(**fields)  # type: ignore[arg-type]

    def prove(self, number: int) -> bytes:
        sender = seen(place(number))
        ((to, challenge),) = messages(self.send(self.request(number, Purpose.JOIN), sender))
        assert to == sender
        assert isinstance(challenge, Challenge)
        return challenge.cookie

    def send(self, message: Message, sender: Contact) -> ServerEffects:
        return self.machine.receive(encode(message), sender, self.now)

    def ask(
        self, number: int, purpose: Purpose, **changes: object
    ) -> list[tuple[Contact, Message]]:
        """What the server sends upon a request with a valid cookie."""
        valid = (number, self.now // 30)
        if valid not in self.cookies:
            self.cookies[valid] = self.prove(number)
        request = self.request(number, purpose, cookie=self.cookies[valid], **changes)
        return messages(self.send(request, seen(place(number))))

    def reply(self, number: int, purpose: Purpose, **changes: object) -> Reply:
        ((to, reply),) = self.ask(number, purpose, **changes)
        assert to == seen(place(number))
        assert isinstance(reply, Reply)
        assert reply.nonce == number
        return reply

    def confirm(self, *numbers: int) -> None:
        for number in numbers:
            assert self.reply(number, Purpose.CONFIRM).verdict == Verdict.NOTED

    def pass_time(self, until: float, answering: frozenset[int] = frozenset()) -> int:
        """Wake the server whenever it wants; these members answer. The number of pings."""
        pings = 0
        while self.machine.next_deadline <= until:
            self.now = max(self.now, self.machine.next_deadline)
            for to, ping in messages(self.machine.wake(self.now)):
                assert isinstance(ping, CachePing)
                pings += 1
                if any(seen(place(number)) == to for number in answering):
                    self.send(CachePong(ping.nonce), to)
        self.now = until
        return pings


def desk(**changes: float) -> Desk:
    settings_ = ServerSettings(**changes)  # type: ignore[arg-type]
    return Desk(RendezvousServer(Random(1), b"secret", settings_))


def numbers(reply: Reply) -> list[int]:
    """Which members a reply names."""
    return [contact.address[0] for contact in reply.members if contact.address is not None]


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


def test_the_first_is_told_nobody_and_others_wait_until_it_confirms() -> None:
    d = desk()
    assert d.reply(2, Purpose.JOIN).verdict == Verdict.NOBODY
    assert d.reply(3, Purpose.JOIN).verdict == Verdict.WAIT
    assert d.reply(2, Purpose.JOIN).verdict == Verdict.NOBODY
    d.confirm(2)
    reply = d.reply(3, Purpose.JOIN)
    assert (reply.verdict, numbers(reply)) == (Verdict.MEMBERS, [2])


def test_a_founder_that_never_confirms_is_followed_by_the_next() -> None:
    d = desk()
    d.ask(2, Purpose.JOIN)
    d.now = 4.9
    assert d.reply(3, Purpose.JOIN).verdict == Verdict.WAIT
    d.now = 5.0
    assert d.reply(3, Purpose.JOIN).verdict == Verdict.NOBODY
    assert d.reply(2, Purpose.JOIN).verdict == Verdict.WAIT


@given(
    confirmed=st.integers(0, 120),
    asking=st.lists(st.integers(1000, 1100), min_size=1, max_size=150),
)
@settings(max_examples=25)
def test_the_admission_window(confirmed: int, asking: list[int]) -> None:
    """At most max(8, a quarter of the confirmed) join at a time, a founder alone; whoever was
    admitted stays so; everybody else is told when to ask again, soon.
    """
    d = desk()
    d.confirm(*range(2, 2 + confirmed))
    admitted = set()
    for number in asking:
        reply = d.reply(number, Purpose.JOIN)
        if reply.verdict == Verdict.WAIT:
            assert number not in admitted
            assert 20 <= reply.wait_ms <= 4000
            assert reply.ticket > 0
        else:
            admitted.add(number)
    window = max(8, confirmed // 4) if confirmed else 1
    assert len(admitted) == min(window, len(set(asking)))
    assert d.machine.statistics().joining == len(admitted)


def test_whoever_waits_keeps_its_place() -> None:
    d = desk()
    d.ask(2, Purpose.JOIN)
    first = d.reply(100, Purpose.JOIN)
    last = [d.reply(number, Purpose.JOIN) for number in range(200, 400)][-1]
    again = d.reply(100, Purpose.JOIN, ticket=first.ticket)
    assert again.ticket == first.ticket
    assert again.wait_ms < last.wait_ms


def test_a_reply_names_sixteen_random_members_and_never_the_asker() -> None:
    d = desk()
    d.confirm(*range(2, 42))
    named: Counter[int] = Counter()
    for _ in range(100):
        reply = d.reply(2, Purpose.LEAD)
        assert len(set(numbers(reply))) == 16
        named.update(numbers(reply))
    assert sorted(named) == list(range(3, 42))
    # 1,600 places for 39 members: 41 each, with a standard deviation of about 5.
    assert max(named.values()) < 41 + 6 * 5
    assert min(named.values()) > 41 - 6 * 5


def test_leaders_are_marked_and_told_to_leaders_first() -> None:
    d = desk()
    d.confirm(*range(2, 202))
    for number in range(2, 6):
        d.ask(number, Purpose.LEAD)
    reply = d.reply(6, Purpose.LEAD)
    assert set(numbers(reply)[:4]) == {2, 3, 4, 5}
    assert reply.leaders == 0b1111
    d.confirm(*range(6, 60))
    d.pass_time(10.0)
    # Who leads no more is marked no more.
    d.confirm(*range(2, 202))
    assert d.reply(6, Purpose.LEAD).leaders == 0


def test_leaders_are_confirmed_members_at_once() -> None:
    d = desk()
    assert d.reply(2, Purpose.LEAD).verdict == Verdict.NOBODY
    reply = d.reply(3, Purpose.JOIN)
    assert (reply.verdict, numbers(reply), reply.leaders) == (Verdict.MEMBERS, [2], 1)


def test_a_member_that_looks_again_is_told_at_once() -> None:
    d = desk()
    d.confirm(*range(2, 12))
    for number in range(100, 150):
        d.ask(number, Purpose.JOIN)
    # The window is full, but it is a member.
    assert d.reply(2, Purpose.JOIN).verdict == Verdict.MEMBERS
    source = Contact(None, 2, 0, (place(2),))
    assert d.reply(2, Purpose.JOIN, source=source).verdict == Verdict.WAIT


def test_members_that_answer_are_kept_and_others_forgotten() -> None:
    """Five rendezvous periods without a word, and a member is handed out no more."""
    d = desk()
    d.confirm(2, 3)
    assert d.pass_time(3.9) == 0
    d.pass_time(9.9, frozenset({2}))
    assert d.machine.statistics().members == 2
    d.pass_time(10.1, frozenset({2}))
    statistics = d.machine.statistics()
    assert (statistics.members, statistics.failed) == (1, 1)
    assert numbers(d.reply(4, Purpose.JOIN)) == [2]
    d.pass_time(1000.0, frozenset({2}))
    assert d.machine.statistics().members == 1


def test_an_overlay_that_everybody_left_is_forgotten() -> None:
    d = desk()
    d.confirm(2, 3)
    assert d.ask(2, Purpose.LEAVE) == d.ask(3, Purpose.LEAVE) == []
    d.pass_time(30.0)
    assert d.machine.statistics().overlays == 0
    assert d.machine.next_deadline == float("inf")
    assert d.reply(4, Purpose.JOIN).verdict == Verdict.NOBODY


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


def test_a_server_that_slept_forgets_nobody() -> None:
    """Lateness of the server's own process is not the failure of its members."""
    d = desk()
    d.confirm(2, 3)
    d.now = 600.0
    d.pass_time(601.0, frozenset({2, 3}))
    assert d.machine.statistics().members == 2


def test_a_large_overlay_is_remembered_as_a_uniform_sample() -> None:
    """Memory and pings do not grow with the overlay, and no age of members is preferred."""
    d = desk()
    for number in range(2, 2002):
        d.ask(number, Purpose.JOIN)
        d.confirm(number)
    statistics = d.machine.statistics()
    assert statistics.members == 256
    assert statistics.confirmed == 2000
    told: set[int] = set()
    for _ in range(200):
        told.update(numbers(d.reply(2, Purpose.JOIN)))
    # The mean of 256 uniform ones has a standard deviation of 2000 / sqrt(12 * 256) = 36.
    assert abs(sum(told) / len(told) - 1002) < 5 * 36
    # 12 seconds, in which each of the sample that answers is asked every four.
    pings = d.pass_time(d.now + 12.0, frozenset(range(2, 2002)))
    assert pings <= 3 * 257
    assert d.machine.statistics().members == 256
    window = 0
    while d.reply(10_000 + window, Purpose.JOIN).verdict == Verdict.MEMBERS:
        window += 1
    assert window == 500


def test_the_estimate_of_members_shrinks_with_the_sample() -> None:
    """Half of the remembered members fail, so probably half of all did."""
    d = desk(sample=64)
    for number in range(2, 1002):
        d.ask(number, Purpose.JOIN)
        d.confirm(number)
    d.pass_time(20.0, frozenset(range(2, 502)))
    window = 0
    while d.reply(10_000 + window, Purpose.JOIN).verdict == Verdict.MEMBERS:
        window += 1
    assert 125 * 0.6 < window < 125 * 1.4


def test_a_leader_beside_the_sample_is_forgotten_when_it_leads_no_more() -> None:
    d = desk(sample=4)
    d.confirm(2, 3, 4, 5)
    for number in range(100, 300):
        d.ask(number, Purpose.LEAD)
    assert d.machine.statistics().members > 100
    d.pass_time(30.0, frozenset(range(2, 300)))
    assert d.machine.statistics().members == 4


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


def test_a_joiner_with_other_attributes_is_told_those_of_the_overlay() -> None:
    d = desk()
    d.ask(2, Purpose.JOIN)
    # The founder has not stated them yet.
    assert d.reply(3, Purpose.JOIN, attributes=OTHERS).verdict == Verdict.WAIT
    d.confirm(2)
    ((to, refusal),) = d.ask(3, Purpose.JOIN, attributes=OTHERS)
    assert to == seen(place(3))
    assert isinstance(refusal, Refusal)
    assert refusal.attributes == ATTRIBUTES.pairs


def test_whoever_came_first_after_a_restart_cannot_shut_the_others_out() -> None:
    d = desk()
    d.ask(2, Purpose.JOIN, attributes=OTHERS)
    d.ask(2, Purpose.CONFIRM, attributes=OTHERS)
    d.ask(3, Purpose.LEAD)
    assert numbers(d.reply(4, Purpose.JOIN)) == [3]
    assert numbers(d.reply(5, Purpose.JOIN, attributes=OTHERS)) == [2]


def test_attributes_are_those_of_the_digest() -> None:
    d = desk()
    with pytest.raises(RemoteProtocolError, match="bad_attributes"):
        d.ask(2, Purpose.CONFIRM, digest=OTHERS.digest)
    assert d.machine.statistics().members == 0


def test_announcements_reach_at_most_64_that_asked_lately() -> None:
    d = desk()
    d.confirm(*range(2, 12))
    for number in range(100, 300):
        d.ask(number, Purpose.JOIN)
    told = d.ask(2, Purpose.ANNOUNCE, body=b"hello")
    assert len({to for to, _ in told}) == 64
    for to, announcement in told:
        assert to != seen(place(2))
        assert isinstance(announcement, Announcement)
        assert (announcement.body, announcement.member) == (b"hello", False)
    d.now = 10.1
    assert d.ask(2, Purpose.ANNOUNCE, body=b"hello") == []


def test_announcements_are_rate_limited_in_each_overlay() -> None:
    d = desk()
    for overlay in ("one", "two"):
        d.ask(2, Purpose.LEAD, overlay=overlay)
        d.ask(3, Purpose.LEAD, overlay=overlay)
    sent = {
        overlay: sum(
            len(d.ask(2, Purpose.ANNOUNCE, overlay=overlay, body=b"hello")) for _ in range(100)
        )
        for overlay in ("one", "two")
    }
    assert all(19 <= count <= 21 for count in sent.values())
    d.now = 1.0
    assert len(d.ask(2, Purpose.ANNOUNCE, overlay="one", body=b"hello")) == 1


def test_overlays_do_not_mix() -> None:
    d = desk()
    d.confirm(2)
    assert d.reply(3, Purpose.JOIN, overlay="other").verdict == Verdict.NOBODY


def test_effects_carry_the_tag_of_their_overlay() -> None:
    d = desk()
    for number in (2, 3):
        d.ask(number, Purpose.LEAD)
    cookie = d.prove(2)
    effects = [
        *d.send(d.request(9, Purpose.JOIN), seen(place(9))),
        *d.send(d.request(2, Purpose.JOIN, cookie=cookie), seen(place(2))),
        *d.send(d.request(2, Purpose.ANNOUNCE, cookie=cookie, body=b"hello"), seen(place(2))),
        *d.machine.wake(d.machine.next_deadline),
    ]
    assert len(effects) == 5
    assert {effect.tag for effect in effects} == {LAB.tag}


def test_the_same_seed_and_inputs_give_the_same_bytes() -> None:
    def talk() -> list[bytes]:
        d = desk()
        d.confirm(*range(2, 60))
        bodies = []
        for number in range(100, 140):
            d.now += 0.1
            cookie = d.prove(number)
            request = d.request(number, Purpose(number % 2), cookie=cookie)
            bodies += [effect.body for effect in d.send(request, seen(place(number)))]
            bodies += [effect.body for effect in d.machine.wake(d.now)]
        return bodies

    assert talk() == talk()
