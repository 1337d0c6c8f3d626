"""The contact finder against servers, buddies and groups on a fake wire.

What the node of a member would do is in `rendezvous.conversation.Joiner`.
"""

from __future__ import annotations

from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_socket.core.addresses import Contact
from opus_socket.core.contacts import ContactFinder, FinderSettings
from opus_socket.core.effects import Role
from opus_socket.core.rendezvous_messages import (
    MAX_ANNOUNCEMENT,
)
from opus_socket.errors import LocalProtocolError
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
)

WHY = "'hypercube' here and 'delaunay' there"


def test_without_any_method_a_member_founds_at_once() -> None:
    w = Wire(Random(1))
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


def test_by_a_server_the_first_founds_and_the_second_finds_it() -> None:
    w = Wire(Random(1))
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


@given(seed=st.integers(0, 2**32), loss=st.floats(0.0, 0.3))
def test_all_join_whatever_is_lost(seed: int, loss: float) -> None:
    """Every request is repeated until it is answered, and every answer is only an answer."""
    w = Wire(Random(seed))
    w.lost = lambda _from, _to, _now: w.rng.random() < loss
    Host(w, place(1))
    joiners = [Joiner(w, 2 + i, SERVER).join() for i in range(10)]
    w.run(600.0)
    assert all(joiner.stable_at is not None for joiner in joiners)
    assert founders(joiners) >= 1


def test_a_server_that_is_down_is_asked_and_reported_ever_more_seldom() -> None:
    w = Wire(Random(1))
    joiner = Joiner(w, 2, SERVER).join()
    w.run(300.0)
    sent = w.sent[place(2), place(1)]
    gaps = [after - before for before, after in pairwise(sent)]
    for gap, expected in zip(gaps, [1, 2, 4, 8] + [16] * len(gaps), strict=False):
        assert 0.9 * expected <= gap <= 1.1 * expected
    assert len(sent) > 15
    assert joiner.found == []
    assert {failed.endpoint for failed in failures(joiner)} == {place(1)}
    told = [when for when, event in joiner.events if event in failures(joiner)]
    # Each at the first silence after twice the time: it is asked every 16 s at last.
    assert told[0] < 3.4
    assert all(3.0 * 2**i <= when < 3.0 * 2**i + 17.6 for i, when in enumerate(told[1:], 1))
    assert len(told) == 7
    for when, failed in zip(told, failures(joiner), strict=True):
        assert f"rendezvous server has not answered for {when:.1f} s" in failed.reason


@pytest.mark.parametrize("lost", [2, 3])
def test_what_is_lost_on_the_way_to_a_fast_server_is_soon_sent_again(lost: int) -> None:
    """Once it has answered, its silence means a loss rather than an outage."""
    w = Wire(Random(1))
    Host(w, place(1))
    member = Joiner(w, 2, SERVER).join()
    w.run(1.0)
    sent = w.sent.setdefault((place(3), place(1)), [])
    w.lost = lambda source, _to, _now: source == place(3) and len(sent) == lost
    joiner = Joiner(w, 3, SERVER).join(at=1.0)
    w.run(1.6)
    # The second request carries the cookie, the third confirms.
    assert [contacts for _, contacts in joiner.found] == [(member.contact,)]
    assert len(sent) == 4
    assert failures(joiner) == []


def test_a_joiner_waits_for_a_server_that_comes_back() -> None:
    w = Wire(Random(1))
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
    # After some 3, 7, 15, 31, 63 and 109 s.
    assert len(failures(joiner)) == 6
    assert len(failures(again)) == 3


def test_each_outage_is_reported() -> None:
    w = Wire(Random(1))
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
    w = Wire(Random(1))
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
    w = Wire(Random(1))
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
    w = Wire(Random(1))
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
    w = Wire(Random(1))
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
    w = Wire(Random(1))
    Host(w, place(1))
    Host(w, place(9))
    both = FinderSettings(servers=(likely(1), likely(9)))
    other = Joiner(w, 2, SERVER, founding_time=1e9).join()
    joiner = Joiner(w, 3, both).join(at=0.1)
    w.run(1.0)
    # One server lets it wait for a founder that takes its time, the other knows nobody.
    assert other.is_founder
    assert joiner.is_founder


def test_leaving_unregisters() -> None:
    w = Wire(Random(1))
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
    w = Wire(Random(1))
    server = Host(w, place(1))
    member = Joiner(w, 2, SERVER).join()
    w.run(1000.0)
    member.perform(member.finder.leave(w.now))
    w.run(1001.0)
    assert server.machine.statistics().members == 0


def test_a_joiner_that_gives_up_makes_room_for_the_next() -> None:
    w = Wire(Random(1))
    Host(w, place(1))
    founder = Joiner(w, 2, SERVER, founding_time=1e9).join()
    w.at(0.5, lambda: founder.perform(founder.finder.leave(w.now)))
    second = Joiner(w, 3, SERVER).join(at=0.2)
    w.run(1.5)
    assert second.is_founder
    assert second.found[0][0] > 0.5


def test_a_member_that_moves_tells_the_server_its_new_address() -> None:
    w = Wire(Random(1))
    Host(w, place(1))
    member = Joiner(w, 2, SERVER).join()
    w.run(1.0)
    moved = member.contact.at(Joiner(w, 77, SERVER).contact.address)
    member.perform(member.finder.update(moved, (), True, w.now))
    joiner = Joiner(w, 3, SERVER).join(at=2.0)
    w.run(3.0)
    assert joiner.found[0][1] == (moved,)


def test_a_server_tells_a_joiner_in_which_attributes_it_differs() -> None:
    w = Wire(Random(1))
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
    w = Wire(Random(1))
    Host(w, place(1))
    Joiner(w, 2, SERVER, join_time=0.0).join()
    joiner = Joiner(w, 3, SERVER, OTHERS).join()
    w.run(5.0)
    assert founders([joiner]) + len(joiner.errors) == 1


def test_a_buddy_tells_a_joiner_in_which_attributes_it_differs() -> None:
    w = Wire(Random(1))
    Joiner(w, 2, FinderSettings()).join()
    joiner = Joiner(w, 3, buddies(2), OTHERS).join(at=1.0)
    w.run(2.0)
    assert len(joiner.errors) == 1
    assert f"node is {WHY}" in joiner.errors[0]


def test_an_announcer_with_other_attributes_is_asked_in_which() -> None:
    w = Wire(Random(1))
    member = Joiner(w, 2, GROUP).join()
    w.run(9.0)
    joiner = Joiner(w, 3, GROUP, OTHERS).join(at=9.0)
    w.at(9.2, lambda: member.perform(member.finder.announce(b"hello", w.now)))
    w.run(12.0)
    assert len(joiner.errors) == 1
    assert f"node is {WHY}" in joiner.errors[0]
    assert joiner.heard == []


def test_a_leader_is_not_aborted_by_a_buddy_of_another_overlay() -> None:
    w = Wire(Random(1))
    Joiner(w, 2, FinderSettings()).join(at=5.0)
    leader = Joiner(w, 3, buddies(2), OTHERS, leads=True).join()
    w.run(10.0)
    assert leader.errors == []
    # Asked every two seconds, reported once.
    assert sum(WHY in failed.reason for failed in failures(leader)) == 1
