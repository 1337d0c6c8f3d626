"""The contact finder with buddies, groups, combinations of all methods, and announcements.

What the node of a member would do is in `rendezvous.conversation.Joiner`.
"""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from opus_socket.core.addresses import Contact
from opus_socket.core.contacts import ContactFinder, FinderSettings
from opus_socket.core.effects import Role, TransmitGroup
from opus_socket.core.rendezvous_messages import (
    Announcement,
    encode,
)
from rendezvous.conversation import (
    ATTRIBUTES,
    GROUP,
    LAB,
    OTHERS,
    SERVER,
    Host,
    Joiner,
    Wire,
    buddies,
    failures,
    founders,
    likely,
    place,
    seen,
)

WHY = "'hypercube' here and 'delaunay' there"


def test_a_joiner_finds_a_buddy_and_its_neighbors() -> None:
    w = Wire(Random(1))
    neighbors = tuple(Contact(None, 7, 0, (place(50 + i),)) for i in range(40))
    member = Joiner(w, 2, FinderSettings(), neighbors=neighbors).join()
    joiner = Joiner(w, 3, buddies(9, 2)).join(at=1.0)
    w.run(2.0)
    ((_, contacts),) = joiner.found
    assert contacts[0] == member.contact
    assert len(contacts) == 16
    assert all(contact in neighbors for contact in contacts[1:])


def test_silent_buddies_are_asked_three_times_and_then_there_is_nobody() -> None:
    w = Wire(Random(1))
    joiner = Joiner(w, 2, buddies(3, 4)).join()
    w.run(10.0)
    assert len(w.sent[place(2), place(3)]) == len(w.sent[place(2), place(4)]) == 3
    ((when, contacts),) = joiner.found
    assert contacts == ()
    assert 1.35 <= when <= 1.65
    # They may come yet.
    assert failures(joiner) == []


def test_a_founder_whose_buddies_stay_away_is_told_so_after_half_a_minute() -> None:
    w = Wire(Random(1))
    founder = Joiner(w, 2, buddies(3, 4), leads=True).join()
    w.run(120.0)
    told = [when for when, event in founder.events if event in failures(founder)]
    assert all(30.0 <= when < 33.0 for when in told)
    assert [failed.endpoint for failed in failures(founder)] == [place(3), place(4)]
    assert "buddy has not answered for 3" in failures(founder)[0].reason


def test_a_member_that_is_its_own_only_buddy_founds_at_once() -> None:
    w = Wire(Random(1))
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
    w = Wire(Random(1))
    joiners = [Joiner(w, 2 + i, buddies(2 + (i + 1) % 5)).join() for i in range(5)]
    w.run(10.0)
    assert all(joiner.stable_at is not None for joiner in joiners)


def test_leaders_try_their_buddies_again_both_ways() -> None:
    """Two fragments that each founded alone, of which only one knows the other as a buddy."""
    w = Wire(Random(1))
    w.lost = lambda _from, _to, now: now < 5.0
    knows = Joiner(w, 2, buddies(3), leads=True).join()
    known = Joiner(w, 3, FinderSettings(), leads=True).join()
    w.run(8.0)
    assert knows.is_founder
    assert known.is_founder
    assert (known.contact,) in [contacts for _, contacts in knows.found]


def test_a_member_that_lost_its_place_gives_no_contacts() -> None:
    w = Wire(Random(1))
    member = Joiner(w, 2, FinderSettings(buddies=(likely(9),))).join()
    w.run(5.0)
    member.perform(member.finder.find(Role.NEW, w.now))
    joiner = Joiner(w, 3, buddies(2)).join(at=5.0)
    w.run(6.0)
    assert joiner.found == []


def test_in_a_silent_group_three_calls_are_made() -> None:
    w = Wire(Random(1))
    joiner = Joiner(w, 2, GROUP).join()
    w.run(10.0)
    assert len(w.sent[place(2), place(2)]) == 3
    ((when, contacts),) = joiner.found
    assert contacts == ()
    assert 1.35 <= when <= 1.65


def test_a_joiner_calls_and_a_leader_answers() -> None:
    w = Wire(Random(1))
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


def test_a_buddy_helps_when_the_server_is_down() -> None:
    w = Wire(Random(1))
    member = Joiner(w, 2, FinderSettings()).join()
    joiner = Joiner(w, 3, FinderSettings(servers=(likely(1),), buddies=(likely(2),))).join(at=1.0)
    w.run(1.2)
    assert joiner.found[0][1] == (member.contact,)


def test_a_buddy_that_comes_late_helps_while_the_server_stays_down() -> None:
    w = Wire(Random(1))
    joiner = Joiner(w, 3, FinderSettings(servers=(likely(1),), buddies=(likely(2),))).join()
    member = Joiner(w, 2, FinderSettings()).join(at=60.0)
    w.run(80.0)
    assert [contacts for _, contacts in joiner.found] == [(member.contact,)]


def test_the_group_helps_when_the_server_is_down() -> None:
    w = Wire(Random(1))
    member = Joiner(w, 2, GROUP, leads=True).join()
    w.run(5.0)
    joiner = Joiner(w, 3, FinderSettings(servers=(likely(1),), multicast=True)).join(at=5.0)
    w.run(5.2)
    assert joiner.found[0][1] == (member.contact,)


def test_with_a_server_silence_of_all_others_says_nothing() -> None:
    w = Wire(Random(1))
    settings_ = FinderSettings(servers=(likely(1),), buddies=(likely(9),), multicast=True)
    joiner = Joiner(w, 2, settings_).join()
    w.run(60.0)
    assert joiner.found == []
    Host(w, place(1))
    w.run(80.0)
    assert joiner.is_founder


def test_a_buddy_outweighs_a_server_that_knows_nobody() -> None:
    w = Wire(Random(1))
    Host(w, place(1))
    w.delay = 0.1
    member = Joiner(w, 2, FinderSettings()).join()
    joiner = Joiner(w, 3, FinderSettings(servers=(likely(1),), buddies=(likely(2),))).join(at=1.0)
    w.run(3.0)
    assert [contacts for _, contacts in joiner.found] == [(member.contact,)]


def test_announcements_reach_the_group_once_each() -> None:
    w = Wire(Random(1))
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
    w = Wire(Random(1))
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


def test_a_joiner_announces_through_no_server_that_lets_it_wait() -> None:
    w = Wire(Random(1))
    Host(w, place(1))
    founder = Joiner(w, 2, SERVER, founding_time=1e9).join()
    w.run(1.0)
    joiner = Joiner(w, 3, SERVER).join(at=1.0)
    w.at(1.0, lambda: joiner.perform(joiner.finder.announce(b"me too", w.now)))
    w.at(2.0, lambda: joiner.perform(joiner.finder.announce(b"me too", w.now)))
    w.run(3.0)
    assert founder.heard == []
    w.at(3.0, lambda: founder.perform(founder.finder.announce(b"here I am", w.now)))
    w.run(3.1)
    assert joiner.heard == [(b"here I am", founder.contact)]


def test_who_is_stable_by_other_means_stops_asking_to_join() -> None:
    w = Wire(Random(1))
    server = Host(w, place(1))
    server.stop()
    joiner = Joiner(w, 3, SERVER).join()
    w.run(5.0)
    joiner.perform(joiner.finder.update(joiner.contact, (), True, w.now))
    server.restart()
    w.run(40.0)
    assert joiner.found == []
    statistics = server.machine.statistics()
    assert (statistics.members, statistics.admitted) == (1, 0)


def test_of_announcements_in_a_hurry_the_newest_is_made() -> None:
    w = Wire(Random(1))
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
    w = Wire(Random(1))
    listener = Joiner(w, 3, GROUP)
    listener.finder.begin(listener.contact, 0.0)
    for number in range(1000):
        source = Contact(None, 1, 0, (place(100 + number),))
        body = encode(Announcement(LAB, ATTRIBUTES.digest, source, True, b"hello"))
        listener.perform(listener.finder.receive(body, seen(place(100 + number)), 10.0))
    assert 49 <= len(listener.heard) <= 51
    statistics = listener.finder.statistics()
    assert (statistics.heard, statistics.unheard) == (len(listener.heard), 1000 - statistics.heard)
