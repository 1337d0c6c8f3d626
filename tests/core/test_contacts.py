"""The contact finder against servers, buddies and groups on a fake wire.

What the node of a member would do is in `rendezvous.conversation.Joiner`.
"""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from opus_socket.core.addresses import Contact
from opus_socket.core.contacts import ContactFinder, FinderSettings, Found
from opus_socket.core.effects import Role, TransmitGroup
from opus_socket.core.events import ContactFailed
from opus_socket.core.key_attributes import KeyAttributes
from opus_socket.core.rendezvous_messages import (
    MAX_ANNOUNCEMENT,
    Announcement,
    CachePing,
    Challenge,
    Purpose,
    Refusal,
    Reply,
    Request,
    Verdict,
    encode,
)
from opus_socket.errors import LocalProtocolError, RemoteProtocolError
from rendezvous.conversation import (
    ATTRIBUTES,
    LAB,
    Host,
    Joiner,
    Wire,
    likely,
    place,
    seen,
)

SERVER = FinderSettings(servers=(likely(1),))
GROUP = FinderSettings(multicast=True)
OTHERS = KeyAttributes([("node", "hypercube"), ("socket", "plain")])
WHY = "'hypercube' here and 'delaunay' there"


def wire(seed: int = 1) -> Wire:
    return Wire(Random(seed))


def buddies(*numbers: int) -> FinderSettings:
    return FinderSettings(buddies=tuple(map(likely, numbers)))


def founders(joiners: list[Joiner]) -> int:
    return sum(joiner.is_founder for joiner in joiners)


def failures(joiner: Joiner) -> list[ContactFailed]:
    return [event for _, event in joiner.events if isinstance(event, ContactFailed)]


# Alone


def test_without_any_method_a_member_founds_at_once() -> None:
    w = wire()
    joiner = Joiner(w, 2, FinderSettings()).join()
    w.run(0.0)
    assert joiner.found == [(0.0, ())]


def test_looking_before_the_contact_is_known_is_the_callers_mistake() -> None:
    finder = ContactFinder(LAB, ATTRIBUTES, SERVER, Random(1))
    with pytest.raises(LocalProtocolError, match="begin"):
        finder.find(Role.NEW, 0.0)
    with pytest.raises(LocalProtocolError, match="begin"):
        finder.announce(b"hello", 0.0)


def test_an_announcement_that_is_too_long_is_the_callers_mistake() -> None:
    finder = ContactFinder(LAB, ATTRIBUTES, GROUP, Random(1))
    finder.begin(Contact(None, 1, 0, (place(2),)), 0.0)
    with pytest.raises(LocalProtocolError, match=str(MAX_ANNOUNCEMENT)):
        finder.announce(bytes(MAX_ANNOUNCEMENT + 1), 0.0)


# Servers


def test_by_a_server_the_first_founds_and_the_second_finds_it() -> None:
    w = wire()
    Host(w, place(1))
    first = Joiner(w, 2, SERVER).join()
    second = Joiner(w, 3, SERVER).join(at=1.0)
    w.run(2.0)
    assert [contacts for _, contacts in first.found] == [()]
    assert [contacts for _, contacts in second.found] == [(first.contact,)]
    # A cookie and an answer: two round trips of at most 30 ms each.
    assert second.found[0][0] < 1.06


@given(
    seed=st.integers(0, 2**32),
    delay=st.floats(0.0001, 0.2),
    join_time=st.floats(0.0, 0.5),
    spread=st.floats(0.0, 0.5),
)
def test_of_twenty_joiners_at_once_exactly_one_founds(
    seed: int, delay: float, join_time: float, spread: float
) -> None:
    """Founder race: whatever the order of packets, one joiner is told that nobody is there, and
    every other is told members that were stable by then.
    """
    w = Wire(Random(seed), delay=delay)
    Host(w, place(1))
    joiners = [
        Joiner(w, 2 + i, SERVER, join_time=join_time).join(at=w.rng.uniform(0.0, spread))
        for i in range(20)
    ]
    w.run(30.0)
    assert founders(joiners) == 1
    by_contact = {joiner.contact: joiner for joiner in joiners}
    for joiner in joiners:
        assert len(joiner.found) == 1
        when, contacts = joiner.found[0]
        for contact in contacts:
            stable_at = by_contact[contact].stable_at
            assert stable_at is not None
            assert stable_at < when


@given(seed=st.integers(0, 2**32), loss=st.floats(0.0, 0.4))
@settings(max_examples=25)
def test_all_join_whatever_is_lost(seed: int, loss: float) -> None:
    """Every request is repeated until it is answered, and every answer is only an answer."""
    w = Wire(Random(seed))
    w.lost = lambda _from, _to, _now: w.rng.random() < loss
    Host(w, place(1))
    joiners = [Joiner(w, 2 + i, SERVER).join() for i in range(10)]
    w.run(200.0)
    assert all(joiner.stable_at is not None for joiner in joiners)
    assert founders(joiners) >= 1


def test_a_server_that_is_down_is_asked_ever_more_seldom_and_reported_once() -> None:
    w = wire()
    joiner = Joiner(w, 2, SERVER).join()
    w.run(300.0)
    sent = w.sent[place(2), place(1)]
    gaps = [after - before for before, after in pairwise(sent)]
    for gap, expected in zip(gaps, [1, 2, 4, 8] + [16] * len(gaps), strict=False):
        assert 0.9 * expected <= gap <= 1.1 * expected
    assert len(sent) > 15
    assert joiner.found == []
    (failed,) = failures(joiner)
    assert failed.endpoint == place(1)
    assert "rendezvous server did not answer" in failed.reason
    assert joiner.events[0][0] < 3.4


def test_a_joiner_waits_for_a_server_that_comes_back() -> None:
    w = wire()
    server = Host(w, place(1))
    server.stop()
    joiner = Joiner(w, 2, SERVER).join()
    w.run(100.0)
    assert joiner.found == []
    server.restart()
    w.run(118.0)
    assert joiner.is_founder
    server.stop()
    again = Joiner(w, 3, SERVER).join(at=118.0)
    w.run(140.0)
    assert len(failures(joiner)) == len(failures(again)) == 1


def test_each_outage_is_reported() -> None:
    w = wire()
    server = Host(w, place(1))
    leader = Joiner(w, 2, SERVER, leads=True).join()
    for outage in range(1, 4):
        w.run(w.now + 20.0)
        server.stop()
        w.run(w.now + 20.0)
        assert len(failures(leader)) == outage
        server.restart()


def test_a_restarted_server_learns_leaders_again_and_goes_on() -> None:
    """Within one rendezvous period after its restart it hands out the overlay's leader."""
    w = wire()
    server = Host(w, place(1))
    leader = Joiner(w, 2, SERVER, leads=True).join()
    w.run(10.0)
    server.restart()
    w.run(12.1)
    joiner = Joiner(w, 3, SERVER).join(at=12.1)
    w.run(13.0)
    assert [contacts for _, contacts in joiner.found] == [(leader.contact,)]


def test_a_founder_by_mistake_meets_the_other_leader_through_the_server() -> None:
    """A joiner that asks right after a restart founds, and both leaders find each other."""
    w = wire()
    server = Host(w, place(1))
    leader = Joiner(w, 2, SERVER, leads=True).join()
    w.run(10.5)
    server.restart()
    joiner = Joiner(w, 3, SERVER, leads=True).join(at=10.5)
    w.run(15.0)
    assert joiner.is_founder
    assert (leader.contact,) in [contacts for _, contacts in joiner.found]
    assert (joiner.contact,) in [contacts for _, contacts in leader.found]


def test_a_leader_asks_again_whenever_the_node_does() -> None:
    w = wire()
    server = Host(w, place(1))
    leader = Joiner(w, 2, SERVER, leads=True).join()
    w.run(30.0)
    server.stop()
    before = len(w.sent[place(2), place(1)])
    w.run(50.0)
    # Every two seconds, however long the server has been away.
    assert len(w.sent[place(2), place(1)]) - before == 10
    assert leader.errors == []


def test_who_was_never_stable_is_no_leader_to_a_server() -> None:
    w = wire()
    server = Host(w, place(1))
    Joiner(w, 2, SERVER).join()
    w.run(1.0)
    hasty = Joiner(w, 3, SERVER, join_time=1e9)
    w.at(1.0, lambda: hasty.perform(hasty.finder.begin(hasty.contact, w.now)))
    w.at(1.0, lambda: hasty.perform(hasty.finder.find(Role.LEADER, w.now)))
    w.run(2.0)
    assert server.machine.statistics().members == 1
    assert server.machine.statistics().joining == 1


def test_several_servers_with_founders_of_their_own_do_not_wait_for_each_other() -> None:
    w = wire()
    Host(w, place(1))
    Host(w, place(9))
    both = FinderSettings(servers=(likely(1), likely(9)))
    only = [FinderSettings(servers=(likely(n),)) for n in (1, 9)]
    Joiner(w, 2, only[0], join_time=1e9).join()
    joiner = Joiner(w, 3, both, join_time=1e9)
    joiner.join(at=0.1)
    w.run(4.0)
    # One server has a founder that never confirms, the other nobody.
    assert joiner.is_founder


def test_leaving_unregisters() -> None:
    w = wire()
    server = Host(w, place(1))
    member = Joiner(w, 2, SERVER).join()
    w.run(1.0)
    assert server.machine.statistics().members == 1
    member.perform(member.finder.leave(w.now))
    w.run(1.1)
    assert server.machine.statistics().members == 0
    assert member.finder.next_deadline == float("inf")
    assert member.finder.find(Role.LEADER, w.now) == ()


def test_leaving_unregisters_even_when_the_cookie_has_gone_stale() -> None:
    w = wire()
    server = Host(w, place(1))
    member = Joiner(w, 2, SERVER).join()
    w.run(1000.0)
    member.perform(member.finder.leave(w.now))
    w.run(1001.0)
    assert server.machine.statistics().members == 0


def test_a_joiner_that_gives_up_makes_room_for_the_next() -> None:
    w = wire()
    Host(w, place(1))
    founder = Joiner(w, 2, SERVER, join_time=1e9)
    founder.join()
    w.at(0.5, lambda: founder.perform(founder.finder.leave(w.now)))
    second = Joiner(w, 3, SERVER).join(at=1.0)
    w.run(1.5)
    assert second.is_founder


def test_a_member_that_moves_tells_the_server_its_new_address() -> None:
    w = wire()
    Host(w, place(1))
    member = Joiner(w, 2, SERVER).join()
    w.run(1.0)
    moved = member.contact.at(Joiner(w, 77, SERVER).contact.address)
    member.perform(member.finder.update(moved, (), True, w.now))
    joiner = Joiner(w, 3, SERVER).join(at=2.0)
    w.run(3.0)
    assert joiner.found[0][1] == (moved,)


# Key attributes


def test_a_server_tells_a_joiner_in_which_attributes_it_differs() -> None:
    w = wire()
    Host(w, place(1))
    Joiner(w, 2, SERVER).join()
    joiner = Joiner(w, 3, SERVER, OTHERS).join(at=1.0)
    w.run(20.0)
    assert joiner.found == []
    assert len(joiner.errors) == 1
    assert f"node is {WHY}" in joiner.errors[0]
    assert "socket" not in joiner.errors[0]
    assert joiner.finder.next_deadline == float("inf")


def test_a_joiner_with_other_attributes_waits_until_the_founder_can_tell_them() -> None:
    w = wire()
    Host(w, place(1))
    Joiner(w, 2, SERVER, join_time=0.0).join()
    joiner = Joiner(w, 3, SERVER, OTHERS).join()
    w.run(5.0)
    assert founders([joiner]) + len(joiner.errors) == 1


def test_a_buddy_tells_a_joiner_in_which_attributes_it_differs() -> None:
    w = wire()
    Joiner(w, 2, FinderSettings()).join()
    joiner = Joiner(w, 3, buddies(2), OTHERS).join(at=1.0)
    w.run(2.0)
    assert len(joiner.errors) == 1
    assert f"node is {WHY}" in joiner.errors[0]


def test_an_announcer_with_other_attributes_is_asked_in_which() -> None:
    w = wire()
    member = Joiner(w, 2, GROUP).join()
    w.run(9.0)
    joiner = Joiner(w, 3, GROUP, OTHERS).join(at=9.0)
    w.at(9.2, lambda: member.perform(member.finder.announce(b"hello", w.now)))
    w.run(12.0)
    assert len(joiner.errors) == 1
    assert f"node is {WHY}" in joiner.errors[0]
    assert joiner.heard == []


def test_a_leader_is_not_aborted_by_a_buddy_of_another_overlay() -> None:
    w = wire()
    Joiner(w, 2, FinderSettings()).join(at=5.0)
    leader = Joiner(w, 3, buddies(2), OTHERS, leads=True).join()
    w.run(10.0)
    assert leader.errors == []
    assert any(WHY in failed.reason for failed in failures(leader))


def test_a_refusal_that_names_no_difference_is_a_lie() -> None:
    w = wire()
    joiner = Joiner(w, 2, SERVER).join()
    w.run(0.0)
    (request,) = joiner.finder._asking.open(Purpose.JOIN)
    body = encode(Refusal(request.nonce, ATTRIBUTES.pairs))
    with pytest.raises(RemoteProtocolError, match="same"):
        joiner.finder.receive(body, seen(place(1)), 0.0)
    assert joiner.errors == []


# Buddies


def test_a_joiner_finds_a_buddy_and_its_neighbors() -> None:
    w = wire()
    neighbors = tuple(Contact(None, 7, 0, (place(50 + i),)) for i in range(40))
    member = Joiner(w, 2, FinderSettings(), neighbors=neighbors).join()
    joiner = Joiner(w, 3, buddies(9, 2)).join(at=1.0)
    w.run(2.0)
    ((_, contacts),) = joiner.found
    assert contacts[0] == member.contact
    assert len(contacts) == 16
    assert all(contact in neighbors for contact in contacts[1:])


def test_silent_buddies_are_asked_three_times_and_then_there_is_nobody() -> None:
    w = wire()
    joiner = Joiner(w, 2, buddies(3, 4)).join()
    w.run(10.0)
    assert len(w.sent[place(2), place(3)]) == len(w.sent[place(2), place(4)]) == 3
    ((when, contacts),) = joiner.found
    assert contacts == ()
    assert 1.35 <= when <= 1.65
    assert {failed.endpoint for failed in failures(joiner)} == {place(3), place(4)}


def test_a_member_that_is_its_own_only_buddy_founds_at_once() -> None:
    w = wire()
    joiner = Joiner(w, 2, buddies(2)).join()
    w.run(0.1)
    assert joiner.is_founder


@given(seed=st.integers(0, 2**32), members=st.integers(2, 12), known=st.integers(1, 4))
def test_of_joiners_with_the_same_buddies_one_founds(seed: int, members: int, known: int) -> None:
    """All start at once and know the same few of themselves: one of those becomes the founder,
    and the others find it.
    """
    w = Wire(Random(seed))
    numbers = [2 + i for i in range(min(known, members))]
    joiners = [
        Joiner(w, 2 + i, buddies(*numbers), incarnation=w.rng.getrandbits(40)).join()
        for i in range(members)
    ]
    w.run(10.0)
    assert founders(joiners) == 1
    assert all(joiner.stable_at is not None for joiner in joiners)


def test_buddies_in_a_ring_do_not_wait_for_each_other_for_ever() -> None:
    w = wire()
    joiners = [Joiner(w, 2 + i, buddies(2 + (i + 1) % 5)).join() for i in range(5)]
    w.run(10.0)
    assert all(joiner.stable_at is not None for joiner in joiners)


def test_leaders_try_their_buddies_again_both_ways() -> None:
    """Two fragments that each founded alone, of which only one knows the other as a buddy."""
    w = wire()
    w.lost = lambda _from, _to, now: now < 5.0
    knows = Joiner(w, 2, buddies(3), leads=True).join()
    known = Joiner(w, 3, FinderSettings(), leads=True).join()
    w.run(8.0)
    assert knows.is_founder
    assert known.is_founder
    assert (known.contact,) in [contacts for _, contacts in knows.found]


def test_a_member_that_lost_its_place_gives_no_contacts() -> None:
    w = wire()
    member = Joiner(w, 2, FinderSettings(buddies=(likely(9),))).join()
    w.run(5.0)
    member.perform(member.finder.find(Role.NEW, w.now))
    joiner = Joiner(w, 3, buddies(2)).join(at=5.0)
    w.run(6.0)
    assert joiner.found == []


# The multicast group


def test_in_a_silent_group_three_calls_are_made() -> None:
    w = wire()
    joiner = Joiner(w, 2, GROUP).join()
    w.run(10.0)
    assert len(w.sent[place(2), place(2)]) == 3
    ((when, contacts),) = joiner.found
    assert contacts == ()
    assert 1.35 <= when <= 1.65


def test_a_joiner_calls_and_a_leader_answers() -> None:
    w = wire()
    leader = Joiner(w, 2, GROUP, leads=True).join()
    other = Joiner(w, 4, GROUP).join(at=3.0)
    w.run(20.0)
    joiner = Joiner(w, 3, GROUP).join(at=20.0)
    w.run(21.0)
    assert joiner.found[0][1] == (leader.contact,)
    # Those who do not lead are silent, or a call would be answered by everybody.
    assert (place(4), place(3)) not in w.sent
    assert not other.is_founder


@given(seed=st.integers(0, 2**32), members=st.integers(2, 10))
def test_of_joiners_in_a_group_the_earliest_founds(seed: int, members: int) -> None:
    """The one with the smallest incarnation goes first; everybody else finds it."""
    w = Wire(Random(seed))
    joiners = [
        Joiner(w, 2 + i, GROUP, incarnation=w.rng.getrandbits(40)).join() for i in range(members)
    ]
    w.run(10.0)
    assert founders(joiners) == 1
    assert min(joiners, key=lambda joiner: joiner.incarnation).is_founder


# Combinations


def test_a_buddy_helps_when_the_server_is_down() -> None:
    w = wire()
    member = Joiner(w, 2, FinderSettings()).join()
    joiner = Joiner(w, 3, FinderSettings(servers=(likely(1),), buddies=(likely(2),))).join(at=1.0)
    w.run(1.2)
    assert joiner.found[0][1] == (member.contact,)


def test_a_buddy_that_comes_late_helps_while_the_server_stays_down() -> None:
    w = wire()
    joiner = Joiner(w, 3, FinderSettings(servers=(likely(1),), buddies=(likely(2),))).join()
    member = Joiner(w, 2, FinderSettings()).join(at=60.0)
    w.run(80.0)
    assert [contacts for _, contacts in joiner.found] == [(member.contact,)]


def test_the_group_helps_when_the_server_is_down() -> None:
    w = wire()
    member = Joiner(w, 2, GROUP, leads=True).join()
    w.run(5.0)
    joiner = Joiner(w, 3, FinderSettings(servers=(likely(1),), multicast=True)).join(at=5.0)
    w.run(5.2)
    assert joiner.found[0][1] == (member.contact,)


def test_with_a_server_silence_of_all_others_says_nothing() -> None:
    w = wire()
    settings_ = FinderSettings(servers=(likely(1),), buddies=(likely(9),), multicast=True)
    joiner = Joiner(w, 2, settings_).join()
    w.run(60.0)
    assert joiner.found == []
    Host(w, place(1))
    w.run(80.0)
    assert joiner.is_founder


def test_a_buddy_outweighs_a_server_that_knows_nobody() -> None:
    w = wire()
    Host(w, place(1))
    w.delay = 0.1
    member = Joiner(w, 2, FinderSettings()).join()
    joiner = Joiner(w, 3, FinderSettings(servers=(likely(1),), buddies=(likely(2),))).join(at=1.0)
    w.run(3.0)
    assert [contacts for _, contacts in joiner.found] == [(member.contact,)]


# Announcements


def test_announcements_reach_the_group_once_each() -> None:
    w = wire()
    announcer = Joiner(w, 2, GROUP, leads=True).join()
    w.run(3.0)
    listener = Joiner(w, 3, GROUP).join(at=3.0)
    stranger = Joiner(w, 4, GROUP, OTHERS)
    w.run(6.0)
    announcer.perform(announcer.finder.announce(b"here I am", w.now))
    w.run(7.0)
    assert listener.heard == [(b"here I am", announcer.contact)]
    assert announcer.heard == stranger.heard == []


def test_announcements_reach_joiners_and_leaders_through_the_server() -> None:
    w = wire()
    Host(w, place(1))
    leaders = [Joiner(w, 2 + i, SERVER, leads=True).join() for i in range(2)]
    follower = Joiner(w, 4, SERVER).join(at=1.0)
    w.run(20.0)
    joiner = Joiner(w, 5, SERVER, join_time=3.0).join(at=20.0)
    w.run(21.0)
    leaders[0].perform(leaders[0].finder.announce(b"here I am", w.now))
    w.run(22.0)
    expected = [(b"here I am", leaders[0].contact)]
    assert leaders[1].heard == joiner.heard == expected
    # Neither itself nor a member that asked long ago.
    assert leaders[0].heard == follower.heard == []


def test_of_announcements_in_a_hurry_the_newest_is_made() -> None:
    w = wire()
    finder = ContactFinder(LAB, ATTRIBUTES, GROUP, Random(1))
    finder.begin(Contact(None, 1, 0, (place(2),)), 0.0)
    assert len(finder.announce(b"0", 0.0)) == 1
    for number in range(1, 100):
        assert finder.announce(b"%d" % number, number / 1000) == ()
    assert finder.next_deadline == 0.25
    (effect,) = finder.wake(0.25)
    assert isinstance(effect, TransmitGroup)
    listener = Joiner(w, 3, GROUP)
    listener.finder.begin(listener.contact, 0.0)
    listener.perform(listener.finder.receive(effect.body, seen(place(2)), 0.25))
    assert [body for body, _ in listener.heard] == [b"99"]
    assert finder.next_deadline == float("inf")


def test_a_flood_of_announcements_is_not_all_given_to_the_node() -> None:
    w = wire()
    listener = Joiner(w, 3, GROUP)
    listener.finder.begin(listener.contact, 0.0)
    for number in range(1000):
        source = Contact(None, 1, 0, (place(100 + number),))
        body = encode(Announcement(LAB, ATTRIBUTES.digest, source, True, b"hello"))
        listener.perform(listener.finder.receive(body, seen(place(100 + number)), 10.0))
    assert len(listener.heard) == 50
    statistics = listener.finder.statistics()
    assert (statistics.heard, statistics.unheard) == (50, 950)


# Hostile bytes


def a_finder() -> ContactFinder:
    finder = ContactFinder(LAB, ATTRIBUTES, FinderSettings((likely(1),), (likely(9),)), Random(1))
    own = Contact(None, 1, 0, (place(2),))
    finder.begin(own, 0.0)
    finder.update(own, (), True, 0.0)
    finder.find(Role.LEADER, 0.0)
    return finder


ASKER = Contact(None, 3, 0, (place(3),))
MESSAGES = [
    Request(1, b"", LAB, ATTRIBUTES.digest, ASKER, Purpose.JOIN, 0, (), b""),
    Challenge(1, bytes(16)),
    Reply(1, Verdict.MEMBERS, 0, 0, (ASKER,), 1),
    Refusal(1, OTHERS.pairs),
    Announcement(LAB, ATTRIBUTES.digest, ASKER, True, b"hello"),
    CachePing(1),
]


@given(
    body=st.sampled_from(MESSAGES).map(encode),
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
    assert len(effect.body) <= len(request)  # type: ignore[union-attr]


def test_messages_of_another_overlay_with_the_same_tag_are_refused() -> None:
    other = Request(1, b"", "other", ATTRIBUTES.digest, ASKER, Purpose.JOIN, 0, (), b"")
    for message in (other, Announcement("other", ATTRIBUTES.digest, ASKER, True, b"hello")):
        with pytest.raises(RemoteProtocolError, match="other_overlay"):
            a_finder().receive(encode(message), seen(place(3)), 1.0)


def test_an_answer_counts_only_while_its_request_is_open() -> None:
    w = wire()
    Host(w, place(1))
    joiner = Joiner(w, 2, SERVER).join()
    w.run(0.0)
    (exchange,) = joiner.finder._asking.open(Purpose.JOIN)
    reply = Reply(exchange.nonce, Verdict.MEMBERS, 0, 0, (ASKER,), 0)
    forged = Reply(exchange.nonce ^ 1, Verdict.MEMBERS, 0, 0, (ASKER,), 0)
    assert joiner.finder.receive(encode(forged), seen(place(1)), 0.0) == ()
    (found,) = joiner.finder.receive(encode(reply), seen(place(1)), 0.0)
    assert isinstance(found, Found)
    assert joiner.finder.receive(encode(reply), seen(place(1)), 0.0) == ()


def test_a_request_follows_only_so_many_cookies() -> None:
    w = wire()
    joiner = Joiner(w, 2, SERVER).join()
    w.run(0.0)
    (exchange,) = joiner.finder._asking.open(Purpose.JOIN)
    challenge = encode(Challenge(exchange.nonce, bytes(16)))
    answers = [joiner.finder.receive(challenge, seen(place(1)), 0.0) for _ in range(10)]
    assert sum(map(len, answers)) == 3
