"""The rendezvous server: admission, memory, leaders, key attributes, announcements."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_socket.core.addresses import Contact
from opus_socket.core.rendezvous_messages import (
    Announcement,
    Purpose,
    Refusal,
    Verdict,
)
from opus_socket.errors import RemoteProtocolError
from rendezvous.conversation import ATTRIBUTES, LAB, OTHERS, place, seen
from rendezvous.desk import desk, numbers


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
