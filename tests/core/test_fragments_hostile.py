"""Fragments that lie, contradict each other or never end: all are counted, memory is bounded, and
honest messages arrive beside them.
"""

from __future__ import annotations

import tracemalloc
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_socket.core.engine import EngineSettings, ForwardingEngine
from opus_socket.core.events import MessageLost
from opus_socket.core.extensions import Code, Extension, Flags
from opus_socket.core.message import OverlayMessage
from opus_socket.core.node import Mode
from opus_socket.core.reassembly import MAX_FINISHED, PATIENCE
from still_overlay import lone, member, relay

LONGEST = 20_000
SETTINGS = EngineSettings(maximum_frame=600, max_message=LONGEST)
ROOM = 2 * LONGEST + (1 << 16)
ROOM_OF_ALL = 8 * LONGEST + (1 << 16)


def receiver() -> ForwardingEngine:
    return ForwardingEngine(lone(3), SETTINGS, 1003)


def fragment(
    index: int,
    count: int,
    body: bytes,
    *,
    first: int = 0,
    sequence: int | None = None,
    incarnation: int = 7,
    source: int = 2,
    mode: Mode = Mode.MULTICAST,
    traffic_class: int = 0,
    service: int | None = None,
    more: tuple[Extension, ...] = (),
) -> bytes:
    """A frame that says it is such a fragment."""
    number = first + index if sequence is None else sequence
    identity = incarnation.to_bytes(8) + number.to_bytes(8)
    last = Extension(Code.RAW, body)
    if service is not None:
        last = Extension(Code.SERVICE, service.to_bytes(4) + body)
    chain = [
        *more,
        Extension(Code.MESSAGE_ID, identity),
        Extension(Code.FRAGMENT, index.to_bytes(2) + count.to_bytes(2)),
        last,
    ]
    key = None if mode in (Mode.MULTICAST, Mode.FLOOD) else member(3)
    return OverlayMessage.build(
        member(source), key, mode, chain, hop_limit=9, traffic_class=traffic_class
    ).frame


LIES = {
    "an index that is the count": fragment(3, 3, b"x"),
    "an index above the count": fragment(9, 3, b"x"),
    "no fragments": fragment(0, 0, b"x"),
    "one fragment": fragment(0, 1, b"x"),
    "a message that begins before its lane": fragment(5, 9, b"x", sequence=3),
    "a message that begins in another lane": fragment(5, 9, b"x", sequence=(1 << 48) + 3),
    "a message that ends in another lane": fragment(0, 9, b"x", sequence=(1 << 48) - 3),
    "a message that ends nowhere": fragment(0, 9, b"x", sequence=(1 << 64) - 3),
    "a part of nothing": fragment(0, 3, b""),
    "a last part of nothing": fragment(2, 3, b""),
}


@pytest.mark.parametrize("lie", LIES.values(), ids=list(LIES))
def test_a_fragment_that_contradicts_itself_is_counted(lie: bytes) -> None:
    here = receiver()
    dispatch = relay(here, lie)
    assert (dispatch.dropped, dispatch.events) == ({"bad_fragment": 1}, [])
    assert (dispatch.broken, dispatch.consumed) == (None, len(lie))
    assert here.next_deadline == float("inf")
    assert here.statistics().gathered_bytes == 0


@pytest.mark.parametrize("lie", LIES.values(), ids=list(LIES))
def test_a_relay_does_not_judge_fragments(lie: bytes) -> None:
    """It passes them on as they are, and when it cannot, its report is in order."""
    engine = ForwardingEngine(lone(3, 1, 4), SETTINGS, 1003)
    unicast = bytearray(lie)
    unicast[0] = 4 | Mode.UNICAST
    unicast[16:24] = member(9).wire
    [output] = relay(engine, bytes(unicast)).outputs
    assert b"".join(output.pieces) == bytes(unicast[:7]) + b"\x08" + bytes(unicast[8:])
    unicast[7] = 1
    tired = ForwardingEngine(lone(3, 1, 4), SETTINGS, 1003)
    assert relay(tired, bytes(unicast)).dropped == {"hop_limit": 1}
    assert tired.statistics().reports_sent == 1


CONTRADICTIONS = {
    "another count": fragment(1, 4, b"bb"),
    "another length": fragment(1, 3, b"b"),
    "a longer one": fragment(1, 3, b"bbb"),
    "a last one that is longer": fragment(2, 3, b"ccc"),
    "another source": fragment(1, 3, b"bb", source=4),
    "another destination": fragment(1, 3, b"bb", mode=Mode.UNICAST),
    "another mode": fragment(1, 3, b"bb", mode=Mode.FLOOD),
    "another class": fragment(1, 3, b"bb", traffic_class=1),
    "a service's": fragment(1, 3, b"bb", service=5),
}


@pytest.mark.parametrize("lie", CONTRADICTIONS.values(), ids=list(CONTRADICTIONS))
def test_a_fragment_that_contradicts_another_is_counted(lie: bytes) -> None:
    """The one that came first is believed; the lie has taken the identity of the true one, whose
    message is lost.
    """
    here = receiver()
    true = [fragment(0, 3, b"aa"), fragment(1, 3, b"bb"), fragment(2, 3, b"c")]
    relay(here, true[0])
    assert relay(here, lie).dropped == {"bad_fragment": 1}
    for part in true[1:]:
        assert relay(here, part).delivered == []
    assert here.wake(10.0) == [MessageLost((7, 0), None, "incomplete", member(3))]


def test_a_last_fragment_that_is_too_long_is_found_out_later() -> None:
    here = receiver()
    relay(here, fragment(2, 3, b"ccc"))
    assert relay(here, fragment(0, 3, b"aa")).dropped == {"bad_fragment": 1}
    assert here.wake(10.0) == [MessageLost((7, 0), None, "incomplete", member(3))]


@pytest.mark.parametrize("index", [0, 40, 64])
def test_a_promise_above_the_limit_is_refused_at_once(index: int) -> None:
    """At the first fragment, if that is not the last; and nothing more of it is kept."""
    here = receiver()
    body = bytes(LONGEST // 64 + 1)
    dispatch = relay(here, fragment(index, 65, body))
    assert dispatch.dropped == {"too_long": 1}
    assert dispatch.events == [MessageLost((7, 0), None, "too_long", member(3))]
    for other in (1, 2, 64 - index):
        dispatch = relay(here, fragment(other, 65, body))
        assert (dispatch.dropped, dispatch.events) == ({}, [])
    assert here.next_deadline == float("inf")
    assert here.statistics().gathered_bytes == 0


def test_the_longest_message_is_taken_and_no_longer_one() -> None:
    for length, expected in ((LONGEST, 1), (LONGEST + 1, 0)):
        generous = EngineSettings(maximum_frame=600, max_message=LONGEST + 1)
        sender = ForwardingEngine(lone(2, 1), generous, 7)
        [output] = sender.originate([bytes(length)], Mode.MULTICAST, None, 0.0).outputs
        dispatch = relay(receiver(), b"".join(output.pieces))
        assert len(dispatch.delivered) == expected
        assert dispatch.dropped == ({} if expected else {"too_long": 1})


def test_unknown_mandatory_extensions_hold_for_fragments() -> None:
    more = (Extension(0x44, b"", Flags.DROP_IF_UNKNOWN),)
    dispatch = relay(receiver(), fragment(0, 2, b"x", more=more))
    assert dispatch.dropped == {"unknown_extension": 1}


def test_other_extensions_of_the_first_fragment_are_those_of_the_message() -> None:
    """Fragments need not have the usual shape."""
    more = (Extension(Code.ROUTE_RECORD, b"\1" + member(8).wire), Extension(0x44, b"!"))
    here = receiver()
    relay(here, fragment(1, 2, b"de", first=50))
    [message] = relay(here, fragment(0, 2, b"abc", first=50, more=more)).delivered
    assert (message.payload, message.route, message.id) == (b"abcde", (member(8),), (7, 50))
    assert message.extension(0x44) == Extension(0x44, b"!")


def test_a_flood_of_beginnings_is_bounded_and_the_oldest_goes_first() -> None:
    """Many sources begin messages and never end them. One that goes on is not hurt."""
    here = receiver()
    told: list[object] = []
    delivered: list[OverlayMessage] = []
    body = bytes(500)
    for number in range(2000):
        data = fragment(0, 30, body, incarnation=5000 + number)
        if number % 50 == 0 and number < 30 * 50:
            data += fragment(number // 50, 30, body, incarnation=7)
        dispatch = relay(here, data, now=number / 1000)
        told += dispatch.events
        delivered += dispatch.delivered
        assert here.statistics().gathered_bytes <= ROOM_OF_ALL
    assert [message.payload for message in delivered] == [bytes(30 * 500)]
    assert 2000 - len(told) == ROOM_OF_ALL // (500 + 48 + 2048)
    told += here.wake(2.0 + PATIENCE)
    expected = [MessageLost((5000 + n, 0), None, "incomplete", member(3)) for n in range(2000)]
    assert told == expected
    assert here.statistics().gathered_bytes == 0
    assert here.statistics().dropped == {"incomplete": 2000}


def test_one_source_does_not_take_the_room_of_others() -> None:
    here = receiver()
    relay(here, fragment(0, 2, b"xx", incarnation=8))
    told: list[object] = []
    for number in count():
        told += relay(here, fragment(0, 30, bytes(500), first=100 * number)).events
        assert here.statistics().gathered_bytes <= ROOM + 3000
        if told:
            break
    assert told == [MessageLost((7, 0), None, "incomplete", member(3))]
    assert len(relay(here, fragment(1, 2, b"y", incarnation=8)).delivered) == 1


def test_tiny_fragments_count_for_what_they_cost() -> None:
    """A message of 65,535 fragments of a byte each, the first of which never comes."""
    tracemalloc.start()
    try:
        here = receiver()
        before, _ = tracemalloc.get_traced_memory()
        told = [
            event
            for index in range(1, 3000)
            for event in relay(here, fragment(index, 15_000, b"x")).events
        ]
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert told == [MessageLost((7, 0), None, "incomplete", member(3))]
    assert peak - before < 3 * ROOM


def test_what_is_remembered_of_lost_messages_is_bounded() -> None:
    here = receiver()
    for number in range(2 * MAX_FINISHED):
        relay(here, fragment(0, 2, b"x", incarnation=5000 + number))
        here.wake(here.next_deadline)
    assert len(here._delivery._reassembly._finished) == MAX_FINISHED


@given(
    st.lists(
        st.tuples(
            st.integers(0, 6),
            st.integers(0, 6),
            st.sampled_from([b"", b"x", b"yy"]),
            st.integers(0, 3),
            st.sampled_from([7, 8]),
            st.sampled_from([None, 5]),
        ),
        max_size=40,
    )
)
def test_whatever_comes_nothing_is_raised_and_everything_is_told(
    parts: list[tuple[int, int, bytes, int, int, int | None]],
) -> None:
    """And what is held comes to nothing in the end."""
    here = receiver()
    ended: list[tuple[int, int]] = []
    for index, number, body, first, incarnation, service in parts:
        data = fragment(index, number, body, first=first, incarnation=incarnation, service=service)
        dispatch = relay(here, data)
        assert dispatch.consumed == len(data)
        ended += [message.id for message in dispatch.delivered if message.id is not None]
        ended += [event.id for event in dispatch.events if isinstance(event, MessageLost)]
    ended += [event.id for event in here.wake(PATIENCE)]
    assert len(set(ended)) == len(ended)
    assert here.statistics().gathered_bytes == 0
    assert here._delivery._reassembly._sources == {}
