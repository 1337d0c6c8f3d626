"""What Delaunay nodes bear: hostile messages, floods of hearsay, settings that cannot be."""

from __future__ import annotations

from collections import Counter
from math import cos, pi, sin
from random import Random

import pytest
from delaunay_world import CODEC
from hypothesis import given
from hypothesis import strategies as st
from lone_delaunay import contact, founder, hear, hello, meet, ring, sends, sent, wake_until

from opus_delaunay import SPEC, DelaunaySettings, upkeep
from opus_delaunay.candidates import MOST_CANDIDATES, MOST_TOMBSTONES, Tombstones
from opus_delaunay.handover import (
    FAR,
    MOST_HANDOVERS,
    MOST_HOPS,
    MOST_PASSED,
    MOST_RECEIVED,
    PASSES,
    Handovers,
    Passed,
    Received,
)
from opus_delaunay.messages import (
    MESSAGES,
    Announce,
    Goodbye,
    Hello,
    NewNode,
    NewNodeAck,
    Reject,
    Taken,
)
from opus_delaunay.settings import choose_address
from opus_socket.core.addresses import Contact, Endpoint, LogicalAddress
from opus_socket.core.effects import Send
from opus_socket.core.wire import ProtocolMessage
from opus_socket.errors import ConfigurationError, LocalProtocolError

words = st.integers(0, 3) | st.integers(2**32 - 2, 2**32 - 1)
addresses = st.lists(words, min_size=1, max_size=4).map(LogicalAddress) | st.tuples(
    words, words
).map(LogicalAddress)
contacts = st.builds(
    Contact,
    st.none() | addresses,
    st.sampled_from([0, 5, 50, 2**64 - 1]),
    st.integers(0, 1),
    st.integers(1, 3).map(lambda port: (Endpoint("10.1.0.1", port),)),
)
numbers = st.sampled_from([0, 1, 50, 2**32 - 1])
messages: st.SearchStrategy[ProtocolMessage] = st.one_of(
    st.builds(
        Hello,
        contacts,
        addresses,
        numbers,
        st.none() | contacts,
        st.none() | contacts,
        st.booleans(),
    ),
    st.builds(Reject, contacts, addresses, numbers, st.none() | contacts, st.none() | contacts),
    st.builds(NewNode, contacts, numbers, numbers),
    st.builds(NewNodeAck, numbers),
    st.builds(Goodbye, contacts),
    st.builds(Taken, contacts),
    st.builds(Announce, contacts),
)


@given(st.lists(st.tuples(messages, contacts, st.floats(0, 2)), max_size=40))
def test_no_message_breaks_a_node(
    conversation: list[tuple[ProtocolMessage, Contact, float]],
) -> None:
    """Whatever well-formed messages say, a node goes on, and its table stays what it has to be:
    the ring is its own star, without itself and without anybody at no Delaunay address.
    """
    node = founder(1, 1)
    now = 0.0
    for message, sender, pause in conversation:
        now += pause
        wake_until(node, now)
        for effect in hear(node, message, sender, now):
            if isinstance(effect, Send):
                CODEC.decode(CODEC.encode(effect.message), Counter())
        for neighbor in ring(node):
            assert len(neighbor) == 2
            assert neighbor != node.address
            assert neighbor != (2**32 - 1, 2**32 - 1)
        node.statistics()


@given(messages)
def test_messages_come_back_from_the_wire_as_they_were(message: ProtocolMessage) -> None:
    data = CODEC.encode(message)
    again = CODEC.decode(data, Counter())
    again.encoded = None
    assert type(again) is type(message)
    assert CODEC.encode(again) == data


def test_every_class_of_message_is_declared() -> None:
    assert set(SPEC.messages) == set(MESSAGES)
    assert [cls.code for cls in MESSAGES] == list(range(1, len(MESSAGES) + 1))
    assert [cls for cls in MESSAGES if cls.repeats] == [Hello]


@pytest.mark.parametrize("words", [(1,), (1, 2, 3), (2**32 - 1, 2**32 - 1)])
def test_a_contact_without_delaunay_coordinates_is_counted(words: tuple[int, ...]) -> None:
    node = founder(1, 1)
    stranger = contact(3, 3).at(LogicalAddress(words))
    for message in (
        hello(stranger, node),
        Reject(stranger, node.address, 50, None, None),
        NewNode(stranger, 0, 0),
        Goodbye(stranger),
    ):
        assert hear(node, message, stranger) == ()
    assert node.statistics().malformed == 4


def test_candidates_are_bounded_and_nothing_is_taken_that_cannot_be_kept() -> None:
    """A NewNode for which there is no room is not acknowledged, so its sender keeps it."""
    node = founder(2**31, 2**31)
    via = contact(1, 1)
    asked = refused = 0
    rng = Random(1)
    for nonce in range(1, MOST_CANDIDATES + 101):
        newcomer = contact(rng.randrange(2**32 - 1), rng.randrange(2**32 - 1))
        done = sends(hear(node, NewNode(newcomer, 1, nonce), via))
        if done:
            asked += 1
            assert [name for name, _ in done] == ["Hello", "NewNodeAck"]
        else:
            refused += 1
    assert (asked, refused) == (MOST_CANDIDATES, 100)
    assert node.statistics().candidates == MOST_CANDIDATES
    assert node.statistics().overflows == 100
    wake_until(node, 5.0)
    assert node.statistics().candidates == 0


def test_whoever_is_no_neighbor_makes_room_for_those_that_it_names() -> None:
    """However many are asked at once, the way to the true neighbors stays open."""
    node = founder(2**31, 2**31)
    asked = [contact(1000 + 3 * n, n * n, host=n) for n in range(MOST_CANDIDATES)]
    for nonce, each in enumerate(asked, 1):
        hear(node, NewNode(each, 1, nonce), contact(1, 1))
    assert node.statistics().candidates == MOST_CANDIDATES
    nearer = contact(2**31 + 5, 2**31 + 5)
    done = hear(node, Reject(asked[7], node.address, 50, nearer, None), asked[7])
    assert sends(done) == [("Hello", nearer)]
    assert node.statistics().candidates == MOST_CANDIDATES
    late = contact(7, 7)
    assert sends(hear(node, NewNode(late, 1, 999), contact(1, 1))) == []
    hear(node, Reject(asked[8], node.address, 50, None, None), asked[8])
    done = hear(node, NewNode(late, 1, 999), contact(1, 1))
    assert sends(done) == [("Hello", late), ("NewNodeAck", contact(1, 1).at(None))]


def test_handovers_are_bounded() -> None:
    node = founder(0, 0)
    meet(node, contact(5, 5))
    for nonce in range(1, 2 * MOST_HANDOVERS):
        hear(node, NewNode(contact(6 + nonce, 6 + nonce), 1, nonce), contact(9, 9))
    assert node.statistics().handovers == MOST_HANDOVERS


def test_what_is_remembered_of_others_is_bounded() -> None:
    stones, received = Tombstones(3.5), Received()
    for number in range(2 * MOST_TOMBSTONES):
        gone = contact(number, 0)
        assert gone.address is not None
        stones.bury(gone.address, gone, False, number / 1000)
        received.note(gone, number, number / 1000)
    assert len(stones) == MOST_TOMBSTONES
    assert len(received) <= MOST_RECEIVED


def test_tombstones_and_nonces_are_forgotten_in_time() -> None:
    stones, received = Tombstones(3.5), Received()
    gone = contact(1, 1)
    assert gone.address is not None
    stones.bury(gone.address, gone, True, 0.0)
    received.note(gone, 7, 0.0)
    assert received.knows(gone, 7, 7.9)
    assert not received.knows(gone, 7, 8.0)
    assert stones.find(gone.address, gone, 3.4) is not None
    assert stones.find(gone.address, contact(1, 1, incarnation=6), 3.4) is None
    assert stones.find(gone.address, contact(1, 1, host=9), 3.4) is None
    assert stones.find(gone.address, gone, 3.5) is None
    assert stones.expire(3.5)
    assert not stones.expire(3.5)


def test_a_new_node_goes_no_further_than_its_limit() -> None:
    node = founder(0, 0)
    meet(node, contact(5, 5))
    for hops, expected in ((FAR, [FAR + 1]), (MOST_HOPS - 1, [MOST_HOPS]), (MOST_HOPS, [])):
        done = hear(node, NewNode(contact(9, 9), hops, 0), contact(50, 50))
        assert [message.hops for message in sent(done, NewNode)] == expected
    assert node.statistics().dead_ends == 1


def test_a_new_node_that_goes_in_a_circle_is_dropped() -> None:
    """Whoever comes by again and again from far is let through again after a while."""
    node = founder(0, 0)
    meet(node, contact(5, 5))

    def passed(joiner: Contact, hops: int, now: float) -> int:
        return len(sent(hear(node, NewNode(joiner, hops, 0), contact(50, 50), now), NewNode))

    assert sum(passed(contact(9, 9), FAR + n, 0.1) for n in range(100)) == PASSES
    assert sum(passed(contact(8, 8), FAR - 1, 0.1) for _ in range(100)) == 100
    assert passed(contact(7, 7), FAR, 0.1) == 1
    assert passed(contact(9, 9), FAR, 1.0) == 0
    assert passed(contact(9, 9), FAR, 1.2) == 1


def test_what_is_remembered_of_those_passed_on_is_bounded() -> None:
    passed = Passed()
    for number in range(2 * MOST_PASSED):
        assert passed.once_more(contact(number, 0), FAR, 0.0)
        assert passed.once_more(contact(number, 1), FAR - 1, 0.0)
    assert len(passed) == MOST_PASSED


def test_nobody_is_a_neighbor_of_itself() -> None:
    """Neither by its own word nor by that of others, wherever they say that it is."""
    node = founder(10, 10)
    elsewhere = Contact(LogicalAddress((20, 10)), 99, 0, node.contact.endpoints)
    assert hear(node, hello(elsewhere, node), elsewhere) == ()
    assert node.statistics().malformed == 1
    other = contact(10, 40)
    done = hear(node, hello(other, node, elsewhere, elsewhere), other)
    assert sends(done) == []
    assert ring(node) == [(10, 40)]
    assert hear(node, Reject(other, node.address, 50, elsewhere, elsewhere), other) == ()
    assert node.statistics().candidates == 0


@pytest.mark.parametrize(("incarnation", "expected"), [(4, (20, 10)), (5, (10, 40)), (6, (10, 40))])
def test_a_neighbor_is_at_one_place(incarnation: int, expected: tuple[int, int]) -> None:
    """One that comes elsewhere has moved, unless it is of an earlier incarnation."""
    node = founder(10, 10)
    meet(node, contact(20, 10, 5, host=7), contact(10, 40, incarnation, host=7))
    assert ring(node) == [expected]


def test_neighbors_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Points on a circle are all neighbors of its middle."""
    monkeypatch.setattr(upkeep, "MOST_NEIGHBORS", 30)
    node = founder(1 << 31, 1 << 31)
    for number in range(50):
        angle = 2 * pi * number / 50
        x, y = ((1 << 31) + round(1e9 * turn) for turn in (cos(angle), sin(angle)))
        meet(node, contact(x, y, host=number))
    statistics = node.statistics()
    assert (statistics.neighbors, statistics.overflows) == (30, 20)


def test_nonces_are_never_zero() -> None:
    handovers = Handovers(2**32 - 3)
    nonces = [handovers.begin(contact(1, 1), 0, contact(2, 2), 0.0).nonce for _ in range(4)]
    assert nonces == [2**32 - 2, 2**32 - 1, 1, 2]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("coordinates", "here"),
        ("coordinates", "1,2,3"),
        ("coordinates", "1,4294967295"),
        ("coordinates", "-1,2"),
        ("coordinates", "name:"),
        ("coordinates", 7),
        ("heartbeat", 0.05),
        ("heartbeat", 5.1),
        ("heartbeat", "1"),
        ("heartbeat", True),
        ("heartbeat", float("nan")),
        ("neighbor_timeout", 2.0),
        ("rendezvous_period", 0),
        ("join_retry", -1.0),
        ("join_retry_limit", float("inf")),
    ],
)
def test_settings_that_cannot_be_are_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        DelaunaySettings(**{field: value})  # type: ignore[arg-type]
    assert field in str(caught.value)
    assert repr(value) in str(caught.value)
    assert "allowed" in str(caught.value)


def test_every_setting_is_documented() -> None:
    for attribute in DelaunaySettings.__attrs_attrs__:
        assert attribute.metadata["unit"]
        assert attribute.metadata["meaning"]
    keys = [a.name for a in DelaunaySettings.__attrs_attrs__ if a.metadata.get("key")]
    assert keys == ["heartbeat", "neighbor_timeout"]


@given(st.text(min_size=1))
def test_a_name_is_always_the_same_place(name: str) -> None:
    one = choose_address(f"name:{name}", Random(1))
    assert one == choose_address(f"name:{name}", Random(2))
    assert max(one) < 2**32 - 1


@given(st.integers(0, 2**32 - 2), st.integers(0, 2**32 - 2))
def test_addresses_are_written_as_they_are_read(x: int, y: int) -> None:
    address = LogicalAddress((x, y))
    assert SPEC.parse_address(SPEC.format_address(address)) == address
    assert choose_address(f"{x},{y}", Random(1)) == address


@pytest.mark.parametrize("text", ["", "1", "1,2,3", "a,b", "1,-2", "4294967295,0", "1.5,2", "²,1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(LocalProtocolError, match="coordinates"):
        SPEC.parse_address(text)


@given(st.integers())
def test_random_coordinates_are_anywhere_but_reserved(seed: int) -> None:
    assert max(choose_address("random", Random(seed))) < 2**32 - 1
