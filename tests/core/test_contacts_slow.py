"""The contact finder and a server that is far away, or lets it wait: late answers count, and who
waits is told why.
"""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from opus_socket.core.addresses import Contact
from opus_socket.core.contacts import ContactFinder, FinderEffects, FinderSettings, Found
from opus_socket.core.correspondence import LATEST, MAX_LATE
from opus_socket.core.effects import Abort, Role, Transmit
from opus_socket.core.rendezvous_messages import (
    Challenge,
    Purpose,
    Refusal,
    Reply,
    Request,
    Verdict,
    decode,
    encode,
)
from opus_socket.rendezvous.server import ServerSettings
from rendezvous.conversation import (
    ATTRIBUTES,
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

OTHER = Contact(None, 3, 0, (place(3),))
COOKIE = bytes(range(16))


def leading() -> ContactFinder:
    """A stable member that has told the server, at 0 s."""
    finder = ContactFinder(LAB, ATTRIBUTES, SERVER, Random(1))
    own = Contact(None, 1, 0, (place(2),))
    finder.begin(own, 0.0)
    finder.update(own, (), True, 0.0)
    return finder


def lead(finder: ContactFinder, now: float) -> Request:
    """Look as a leader; the request to the server, which is given up a moment later."""
    (request,) = requests(finder.find(Role.LEADER, now))
    assert request.purpose == Purpose.LEAD
    finder.wake(now + 1.2)
    return request


def requests(effects: FinderEffects) -> list[Request]:
    bodies = [effect.body for effect in effects if isinstance(effect, Transmit)]
    return [m for body in bodies if isinstance(m := decode(body, Counter()), Request)]


def answer(
    finder: ContactFinder, message: Reply | Refusal | Challenge, now: float
) -> FinderEffects:
    return finder.receive(encode(message), seen(place(1)), now)


def members(nonce: int) -> Reply:
    return Reply(nonce, Verdict.MEMBERS, 0, 0, (OTHER,), 0)


@pytest.mark.parametrize("round_trip", [0.5, 1.8, LATEST - 0.01])
def test_a_leader_hears_what_a_server_far_away_answers(round_trip: float) -> None:
    finder = leading()
    open_requests: list[tuple[float, Request]] = []
    for when in (0.0, 2.0, 4.0, 6.0):
        while open_requests and open_requests[0][0] + round_trip <= when:
            since, request = open_requests.pop(0)
            (found,) = answer(finder, members(request.nonce), since + round_trip)
            assert isinstance(found, Found)
            assert found.contacts == (OTHER,)
            # Only once.
            assert answer(finder, members(request.nonce), since + round_trip) == ()
        (request,) = requests(finder.find(Role.LEADER, when))
        open_requests.append((when, request))
        finder.wake(min(finder.next_deadline, when + 1.9))
    assert len(open_requests) == (1 if round_trip <= 2 else 3)


def test_an_answer_that_is_older_than_five_seconds_counts_no_more() -> None:
    finder = leading()
    request = lead(finder, 0.0)
    assert answer(finder, members(request.nonce), LATEST + 0.01) == ()


def test_a_late_challenge_gives_the_next_request_its_cookie_and_sends_nothing() -> None:
    finder = leading()
    request = lead(finder, 0.0)
    assert request.cookie == b""
    assert answer(finder, Challenge(request.nonce, COOKIE), 1.8) == ()
    assert lead(finder, 2.0).cookie == COOKIE


def test_what_a_leader_asked_tells_nothing_to_who_joins_again() -> None:
    finder = leading()
    request = lead(finder, 0.0)
    finder.find(Role.NEW, 2.0)
    assert answer(finder, members(request.nonce), 2.1) == ()


def test_a_joiner_that_has_joined_is_not_aborted_by_a_late_refusal() -> None:
    """A buddy that was given up refuses; by then the member is one of another fragment."""
    finder = ContactFinder(LAB, ATTRIBUTES, FinderSettings((), (likely(1),)), Random(1))
    own = Contact(None, 1, 0, (place(2),))
    finder.begin(own, 0.0)
    (request,) = requests(finder.find(Role.NEW, 0.0))
    now = 0.0
    effects: FinderEffects = ()
    while finder.next_deadline < float("inf"):
        now = finder.next_deadline
        effects = finder.wake(now)
    assert [effect.contacts for effect in effects if isinstance(effect, Found)] == [()]
    finder.update(own, (), True, now)
    refusal = Refusal(request.nonce, OTHERS.pairs)
    assert not any(isinstance(effect, Abort) for effect in answer(finder, refusal, now + 0.1))


def test_only_so_many_requests_are_remembered() -> None:
    finder = leading()
    first, *rest = [
        requests(finder.find(Role.LEADER, 0.001 * number))[0] for number in range(MAX_LATE + 2)
    ]
    assert answer(finder, members(first.nonce), 1.0) == ()
    assert all(answer(finder, members(request.nonce), 1.0) for request in rest)


@pytest.mark.parametrize("delay", [0.45, 0.9, 2.0])
@pytest.mark.parametrize("seed", range(3))
def test_leaders_meet_through_a_server_far_away_when_cookies_have_gone_stale(
    delay: float, seed: int
) -> None:
    """Each was cut off from the other, as after a partition that lasted for minutes."""
    w = Wire(Random(seed), delay=delay)
    Host(w, place(1))
    one = Joiner(w, 2, SERVER, leads=True).join()
    w.run(100.0)
    other = Joiner(w, 3, SERVER, leads=True)
    # It founded a fragment of its own when there was nobody else.
    w.at(100.0, lambda: other.perform(other.finder.begin(other.contact, w.now)))
    w.at(100.0, other._become_stable)
    w.run(200.0)
    assert (other.contact,) in [contacts for when, contacts in one.found if when > 190.0]
    assert (one.contact,) in [contacts for when, contacts in other.found if when > 190.0]


def test_buddies_far_away_find_each_other() -> None:
    w = Wire(Random(1), delay=0.9)
    one = Joiner(w, 2, buddies(3), leads=True).join()
    other = Joiner(w, 3, buddies(2), leads=True).join()
    w.run(60.0)
    assert founders([one, other]) >= 1
    assert any(one.contact in contacts for _, contacts in other.found)
    assert any(other.contact in contacts for _, contacts in one.found)


def test_who_has_to_wait_is_told_so_ever_more_seldom() -> None:
    w = Wire(Random(1))
    # It waits for a founder that never comes to be one.
    Host(w, place(1), ServerSettings(admission_expiry=1e9))
    Joiner(w, 2, SERVER, founding_time=1e9).join()
    waits = Joiner(w, 3, SERVER).join(at=0.1)
    w.run(280.0)
    told = [when - 0.1 for when, event in waits.events if event in failures(waits)]
    assert not waits.found
    assert all(3.0 * 2**i <= when < 3.0 * 2**i + 5.0 for i, when in enumerate(told))
    assert len(told) == 7
    assert "answers, but has let this member wait for" in failures(waits)[0].reason
    assert failures(waits)[0].endpoint == place(1)
