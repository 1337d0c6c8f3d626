"""How somebody's question about the way to a member is answered, member by member."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core_world import World, whereabouts
from opus_socket.core.addresses import Contact, Endpoint, LogicalAddress
from opus_socket.core.dispatch import ForService
from opus_socket.core.effects import Measure, Quantity
from opus_socket.core.extensions import MESSAGE_ID, Code, Extension
from opus_socket.core.inquiries import (
    ANSWERS_PER_SECOND,
    INQUIRIES,
    MAX_OPEN,
    TRIES,
    Answered,
    Inquiries,
)
from opus_socket.core.message import OverlayMessage
from opus_socket.core.node import Measurement, Mode
from opus_socket.core.service import Originate
from opus_socket.errors import LocalProtocolError, RemoteProtocolError

RTT, BANDWIDTH = Quantity.RTT, Quantity.BANDWIDTH


def at(number: int) -> LogicalAddress:
    return LogicalAddress((number,))


def contact(number: int) -> Contact:
    return Contact(at(number), 7, 0, (Endpoint("10.0.0.1", 1000 + number),))


def carried(source: int, effect: object, to: int) -> ForService:
    """What an inquiry sent, as it arrives."""
    assert isinstance(effect, Originate)
    assert effect.key == at(to)
    body = INQUIRIES.to_bytes(4) + effect.bodies[0]
    chain = (
        Extension(Code.MESSAGE_ID, MESSAGE_ID.pack(1, 1)),
        Extension(Code.SERVICE, body),
    )
    message = OverlayMessage.build(at(source), at(to), Mode.UNICAST, chain, hop_limit=9)
    return ForService(INQUIRIES, message, None, True, False)


def values(answers: Sequence[object]) -> list[tuple[object, float | None]]:
    assert all(isinstance(each, Answered) for each in answers)
    return [(e.target, e.measurement.value) for e in answers if isinstance(e, Answered)]


def test_an_address_is_asked_for_its_contact_and_that_is_measured() -> None:
    mine, other = Inquiries(Random(1)), Inquiries(Random(2))
    [question] = mine.ask(at(2), None, RTT, 0.0)
    assert mine.ask(at(2), None, BANDWIDTH, 0.1) == ()
    [answer] = other.receive(carried(1, question, 2), contact(2), 0.2)
    measures = mine.receive(carried(2, answer, 1), contact(1), 0.4)
    assert [(m.to, m.quantity) for m in measures if isinstance(m, Measure)] == [
        (contact(2), RTT),
        (contact(2), BANDWIDTH),
    ]
    assert mine.next_deadline == float("inf")
    assert values(mine.measured(contact(2), Measurement(RTT, 0.25))) == [(at(2), 0.25)]
    assert values(mine.measured(contact(2), Measurement(BANDWIDTH, 9.0))) == [(at(2), 9.0)]
    assert mine.measured(contact(2), Measurement(RTT, 0.25)) == []


def test_a_neighbor_is_not_looked_for() -> None:
    mine = Inquiries(Random(1))
    [measure] = mine.ask(at(2), contact(2), RTT, 0.0)
    assert isinstance(measure, Measure)
    [_] = mine.ask(contact(2), None, RTT, 0.0)
    ended = values(mine.measured(contact(2), Measurement(RTT, None)))
    assert ended == [(at(2), None), (contact(2), None)]


def test_whoever_does_not_answer_is_asked_thrice() -> None:
    mine = Inquiries(Random(1))
    [question] = mine.ask(at(2), None, RTT, 0.0)
    for second in range(1, TRIES):
        assert mine.next_deadline == second
        [again] = mine.wake(float(second))
        assert isinstance(again, Originate)
        assert isinstance(question, Originate)
        assert again.bodies == question.bodies
    assert values(mine.wake(3.0)) == [(at(2), None)]
    assert mine.next_deadline == float("inf")


@given(nonce=st.integers(2, 2**64 - 1), claimed=st.integers(1, 4))
def test_nobody_answers_for_another(nonce: int, claimed: int) -> None:
    """Only an answer with the nonce, from the address and with its contact, ends a search."""
    mine, other = Inquiries(Random(1)), Inquiries(Random(2))
    [question] = mine.ask(at(2), None, RTT, 0.0)
    [answer] = other.receive(carried(1, question, 2), contact(claimed), 0.2)
    source = 3 if claimed == 2 else 2
    with pytest.raises(RemoteProtocolError, match="not_asked"):
        mine.receive(carried(source, answer, 1), contact(1), 0.3)
    # Another meter's question has another nonce.
    [other_question] = Inquiries(Random(nonce)).ask(at(2), None, RTT, 0.0)
    [other_answer] = other.receive(carried(1, other_question, 2), contact(2), 0.2)
    with pytest.raises(RemoteProtocolError, match="not_asked"):
        mine.receive(carried(2, other_answer, 1), contact(1), 0.3)
    assert mine.next_deadline == 1.0


def test_a_flood_of_questions_is_answered_within_its_bound() -> None:
    other = Inquiries(Random(2))
    [question] = Inquiries(Random(1)).ask(at(2), None, RTT, 0.0)
    for second in (0.0, 1.0):
        for _ in range(ANSWERS_PER_SECOND):
            assert len(other.receive(carried(1, question, 2), contact(2), second)) == 1
        for _ in range(100):
            with pytest.raises(RemoteProtocolError, match="inquiry_flood"):
                other.receive(carried(1, question, 2), contact(2), second)
        assert len(other.receive(carried(3, question, 2), contact(2), second)) == 1


def test_searches_are_bounded() -> None:
    mine = Inquiries(Random(1))
    for number in range(MAX_OPEN):
        assert isinstance(mine.ask(at(number), None, RTT, 0.0)[0], Originate)
    assert values(mine.ask(at(MAX_OPEN), None, RTT, 0.0)) == [(at(MAX_OPEN), None)]


@given(body=st.binary(max_size=40))
def test_any_bytes_are_refused(body: bytes) -> None:
    mine = Inquiries(Random(1))
    message = carried(1, Originate((body,), Mode.UNICAST, at(2)), 2)
    with pytest.raises(RemoteProtocolError):
        mine.receive(message, contact(2), 0.0)


def test_what_is_not_measured_on_request_is_refused() -> None:
    mine = Inquiries(Random(1))
    with pytest.raises(LocalProtocolError, match="bandwidth"):
        mine.ask(at(2), None, "lost", 0.0)  # type: ignore[arg-type]
    assert mine.next_deadline == float("inf")


def test_a_core_tells_whoever_asked() -> None:
    """Members in a star: the way from one ray to another leads through the middle."""
    world = World()
    for number in (1, 2, 3):
        world.join(number, *([1] if number > 1 else []))
    left = world.members[2]
    assert at(3) not in left.core.neighbors
    world.perform(2, left.core.measure(at(3), RTT, 0.0))
    world.perform(2, left.core.measure(at(9), RTT, 0.0))
    world.perform(2, left.core.measure(whereabouts(3), BANDWIDTH, 0.0))
    world.run()
    assert {a.target for a in left.answers} == {at(3), whereabouts(3)}
    assert all(a.measurement.value is not None for a in left.answers)
    world.advance(10.0)
    assert [(a.target, a.measurement.value) for a in left.answers[2:]] == [(at(9), None)]


def test_who_leaves_waits_for_nobody() -> None:
    world = World()
    member = world.join(1)
    world.perform(1, member.core.measure(at(9), RTT, 0.0))
    world.perform(1, member.core.leave(0.0))
    world.advance(10.0)
    assert member.answers == []
