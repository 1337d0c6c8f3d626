"""Messages in fragments: cut up, mixed up, and whole again, or their loss told. The twin of the
forwarding engine knows fragments, too (`test_engine`).
"""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.dispatch import Dispatch
from opus_socket.core.engine import EngineSettings, ForwardingEngine
from opus_socket.core.events import MessageLost
from opus_socket.core.extensions import Code
from opus_socket.core.message import OverlayMessage
from opus_socket.core.node import Mode
from opus_socket.core.reassembly import LIFETIME, PATIENCE
from opus_socket.core.runs import split_pieces
from opus_socket.errors import LocalProtocolError
from still_overlay import contact_of, lone, member, relay

FRAME = 512
PART = FRAME - 56
"""Bytes of payload in a fragment: a frame less its header, message id, index and count, and head
of the payload.
"""

SMALL = EngineSettings(maximum_frame=FRAME, max_message=100_000)
SERVICE = 0x01020304

Id = tuple[int, int]


def source(index: int = 2, incarnation: int = 0) -> ForwardingEngine:
    return ForwardingEngine(lone(index, 1), SMALL, incarnation or 1000 + index)


def receiver(settings: EngineSettings = SMALL) -> ForwardingEngine:
    return ForwardingEngine(lone(3), settings, 1003)


def pattern(length: int, salt: int = 0) -> bytes:
    """Bytes of which every part is told from every other."""
    words = [(salt << 24 | number).to_bytes(4) for number in range(-(-length // 4))]
    return b"".join(words)[:length]


def frames_of(dispatch: Dispatch) -> list[bytes]:
    """Each frame that the first neighbor gets."""
    parts = split_pieces(dispatch.outputs[0].pieces, 1)
    return [b"".join(part) for part, _, _ in parts]


def sent(
    engine: ForwardingEngine, *payloads: bytes, mode: Mode = Mode.MULTICAST, hops: int = 9
) -> list[bytes]:
    key = None if mode in (Mode.MULTICAST, Mode.FLOOD) else member(3)
    return frames_of(engine.originate(payloads, mode, key, 0.0, hop_limit=hops))


def payloads(dispatch: Dispatch) -> list[bytes]:
    return [message.payload for message in dispatch.delivered]


# On the wire


def test_the_wire() -> None:
    """The layout byte by byte: message id, fragment with index and count, payload."""
    tight = EngineSettings(maximum_frame=56 + 6)
    engine = ForwardingEngine(lone(8, 1), tight, 0x0102030405060708)
    dispatch = engine.originate([b"hello, overlays"], Mode.UNICAST, member(9), 0.0)
    first, second, third = frames_of(dispatch)
    addresses = "00000008 00000008 00000009 00000009"
    assert first == bytes.fromhex(
        f"06000010 00260400 {addresses} 14000010 01020304 05060708 00020000 00000000"
        " 05000004 00000003 00000006 68656c6c 6f2c"
    )
    assert second[-18:] == bytes.fromhex("05000004 00010003 00000006 206f7665 726c")
    assert third == bytes.fromhex(
        f"06000010 00230400 {addresses} 14000010 01020304 05060708 00020000 00000002"
        " 05000004 00020003 00000003 617973"
    )
    service = engine.originate_service(SERVICE, [b"hello, world"], Mode.FLOOD, None, 0.0)
    assert frames_of(service)[-1] == bytes.fromhex(
        "05000010 00260400 00000008 00000008 ffffffff ffffffff"
        " 14000010 01020304 05060708 00010000 00000005"
        " 06000004 00050006 00000006 01020304 6c64"
    )


@pytest.mark.parametrize("las", range(4))
def test_every_fragment_but_the_last_fills_its_frame(las: int) -> None:
    """Whatever the width of the addresses; and none is longer than a frame."""
    here = LogicalAddress(range(1, las + 2))
    near = LogicalAddress(range(2, las + 3))
    node = lone(2, 1)
    node.contact, node.table = contact_of(here), (near,)
    node.hops = lambda *_: [near]
    engine = ForwardingEngine(node, SMALL, 5)
    for length in (FRAME, 2000, 4321):
        frames = frames_of(engine.originate([bytes(length)], Mode.MULTICAST, None, 0.0))
        assert [len(frame) for frame in frames[:-1]] == [FRAME] * (len(frames) - 1)
        assert len(frames[-1]) <= FRAME
        assert all(OverlayMessage.parse(frame).extension(Code.FRAGMENT) for frame in frames)


def test_a_message_has_65535_fragments_at_most() -> None:
    huge = EngineSettings(maximum_frame=FRAME, max_message=1 << 30)
    engine = ForwardingEngine(lone(2, 1), huge, 5)
    longest = 65_535 * PART
    with pytest.raises(LocalProtocolError, match=f"at most {longest} bytes are allowed"):
        engine.originate([bytes(longest + 1)], Mode.MULTICAST, None, 0.0)
    [output] = engine.originate([bytes(longest)], Mode.MULTICAST, None, 0.0).outputs
    assert output.frames == 65_535


@given(
    st.lists(st.sampled_from([0, 1, 30, 400, PART, FRAME, 900, 5000, 70_000]), max_size=6),
    st.integers(1, 3000),
)
def test_pieces_are_split_between_frames(lengths: list[int], maximum: int) -> None:
    """Parts hold whole frames, as many as fit, and are the same bytes."""
    dispatch = source().originate([bytes(each) for each in lengths], Mode.MULTICAST, None, 0.0)
    for output in dispatch.outputs:
        parts = list(split_pieces(output.pieces, maximum))
        assert sum(frames for _, _, frames in parts) == output.frames
        joined = [b"".join(part) for part, _, _ in parts]
        assert b"".join(joined) == b"".join(output.pieces)
        assert [len(part) for part in joined] == [size for _, size, _ in parts]
        for part, (_, _, frames) in zip(joined, parts, strict=True):
            assert len(part) <= maximum or frames == 1
            assert len(frames_at(part)) == frames
        for before, after in pairwise(joined):
            assert len(before) + len(frames_at(after)[0]) > maximum


def frames_at(data: bytes) -> list[bytes]:
    """The frames in some bytes, found by their Length field alone."""
    frames = []
    while data:
        size = 24 + int.from_bytes(data[4:6])
        frames.append(data[:size])
        data = data[size:]
    return frames


# Whole again, or told


@given(st.data())
def test_what_comes_is_exact_and_what_does_not_is_told(data: st.DataObject) -> None:
    """Of messages of several sources and lanes, in any order, some of it twice and some not at all:
    those of which everything came are delivered once and exactly, those of which something came
    are told once, and nothing else is.
    """
    expected: dict[Id, bytes] = {}
    parts: list[tuple[Id, bytes]] = []
    for index in (4, 5):
        engine = source(index)
        for number in range(data.draw(st.integers(0, 3))):
            mode = data.draw(st.sampled_from([Mode.MULTICAST, Mode.UNICAST]))
            payload = pattern(data.draw(st.integers(0, 8 * PART)), 10 * index + number)
            key = None if mode is Mode.MULTICAST else member(3)
            dispatch = engine.originate([payload], mode, key, 0.0)
            assert dispatch.first_id is not None
            expected[dispatch.first_id] = payload
            parts += [(dispatch.first_id, frame) for frame in frames_of(dispatch)]
    lost = data.draw(st.sets(st.sampled_from(range(len(parts))), max_size=4)) if parts else set()
    arriving = [part for number, part in enumerate(parts) if number not in lost]
    arriving += data.draw(st.lists(st.sampled_from(arriving))) if arriving else []
    arriving = data.draw(st.permutations(arriving))

    here = receiver()
    delivered: dict[Id, bytes] = {}
    told: list[MessageLost] = []
    while arriving:
        count = data.draw(st.integers(1, 5))
        read, arriving = arriving[:count], arriving[count:]
        dispatch = relay(here, b"".join(frame for _, frame in read))
        assert dispatch.dropped == {}
        for message in dispatch.delivered:
            assert message.id is not None
            assert message.id not in delivered
            delivered[message.id] = message.payload
    while here.next_deadline < 2 * PATIENCE:
        told += here.wake(here.next_deadline)

    missing = [parts[number][0] for number in lost]
    begun = {identity for number, (identity, _) in enumerate(parts) if number not in lost}
    assert delivered == {key: value for key, value in expected.items() if key not in missing}
    assert sorted(event.id for event in told) == sorted(begun.intersection(missing))
    assert {(event.reason, event.at) for event in told} <= {("incomplete", member(3))}
    statistics = here.statistics()
    assert statistics.gathered_bytes == 0
    assert statistics.dropped == ({"incomplete": len(told)} if told else {})


@pytest.mark.parametrize("mode", Mode)
def test_a_long_message_is_one_message(mode: Mode) -> None:
    """Whoever gets it sees who sent it, to whom, how, and its identity: that of its beginning."""
    engine = ForwardingEngine(lone(2, 1), SMALL, 1002)
    key = None if mode in (Mode.MULTICAST, Mode.FLOOD) else member(3)
    payload = pattern(5000)
    dispatch = engine.originate([b"x", payload], mode, key, 0.0, hop_limit=7, traffic_class=9)
    here = ForwardingEngine(lone(3, accepts=True), SMALL, 1003)
    _, message = relay(here, b"".join(dispatch.outputs[0].pieces)).delivered
    assert dispatch.first_id is not None
    assert message.id == (1002, dispatch.first_id[1] + 1)
    assert (message.source, message.mode) == (member(2), mode)
    assert message.destination == (LogicalAddress.everybody(1) if key is None else key)
    assert (message.traffic_class, message.hop_limit, message.service) == (9, 7, None)
    assert message.payload == payload
    assert message.payload is message.payload
    assert message.size == len(payload) + 48
    assert message.route == ()
    assert [each.code for each in message.extensions] == [Code.MESSAGE_ID, Code.RAW]


@given(st.lists(st.integers(0, 4 * PART), min_size=1, max_size=8), st.sampled_from(Mode))
def test_short_and_long_ones_keep_their_order(lengths: list[int], mode: Mode) -> None:
    """A batch may mix them; sequence numbers count the frames; to oneself is no other way."""
    batch = [pattern(length, number) for number, length in enumerate(lengths)]
    engine = source()
    key = None if mode in (Mode.MULTICAST, Mode.FLOOD) else member(3)
    first = engine.originate(batch, mode, key, 0.0)
    [output] = first.outputs
    here = ForwardingEngine(lone(3, accepts=True), SMALL, 1003)
    assert payloads(relay(here, b"".join(output.pieces))) == batch
    assert engine.statistics().originated_frames == output.frames
    assert engine.statistics().originated_bytes == output.size
    second = engine.originate([b"next"], mode, key, 0.0)
    assert first.first_id is not None
    assert second.first_id == (1002, first.first_id[1] + output.frames)
    mine = engine.originate(batch, Mode.UNICAST, member(2), 0.0)
    assert (payloads(mine), mine.outputs) == (batch, [])
    assert mine.delivered_size == sum(message.size for message in mine.delivered)


def test_equal_messages_are_equal() -> None:
    frames = sent(source(), pattern(2000))
    here, there = receiver(), receiver()
    [left] = relay(here, b"".join(frames)).delivered
    [right] = relay(there, b"".join(reversed(frames))).delivered
    assert left == right
    assert hash(left) == hash(right)
    [other] = relay(receiver(), b"".join(sent(source(), pattern(2000, 1)))).delivered
    assert left != other
    empty = OverlayMessage.parse(left.frame)
    assert left != empty
    assert empty != left


# When it is given up


def test_ten_seconds_without_a_new_fragment() -> None:
    """Each new fragment is another ten seconds; one that was here before is not."""
    here, frames = receiver(), sent(source(), pattern(4 * PART))
    assert here.next_deadline == float("inf")
    relay(here, frames[0], now=1.0)
    assert here.next_deadline == 11.0
    relay(here, frames[2], now=6.0)
    relay(here, frames[2], now=7.0)
    assert here.next_deadline == 16.0
    assert here.wake(15.9) == []
    assert here.wake(16.0) == [MessageLost((1002, 0), None, "incomplete", member(3))]
    assert here.next_deadline == float("inf")
    late = relay(here, frames[1] + frames[3], now=17.0)
    assert (late.delivered, late.events, late.dropped) == ([], [], {})
    assert here.next_deadline == float("inf")
    assert here.statistics().dropped == {"incomplete": 1}


@given(st.lists(st.floats(0.0, PATIENCE - 1.0), min_size=3, max_size=3), st.booleans())
def test_what_nothing_has_overtaken_is_waited_for(pauses: list[float], overtaken: bool) -> None:
    """Its link may be slow, or its lane be held up. When a later message of its lane has come, it
    is given up ten seconds after its last fragment, or when the next look finds it.
    """
    engine, here, now = source(), receiver(), 0.0
    frames, later = sent(engine, pattern(4 * PART)), sent(engine, b"later")
    told: list[MessageLost] = []
    delivered: list[OverlayMessage] = []
    for frame, pause in zip(frames, [0.0, *pauses], strict=True):
        while here.next_deadline <= now + pause:
            told += here.wake(here.next_deadline)
        now += pause
        delivered += relay(here, frame, now=now).delivered
        if overtaken and frame is frames[1]:
            delivered += relay(here, later[0], now=now).delivered
    given_up = overtaken and max(pauses[1:]) >= 10.0
    assert bool(told) is given_up
    assert pattern(4 * PART) in [message.payload for message in delivered] or given_up
    assert here.next_deadline == float("inf")


def test_a_message_whose_source_is_gone_is_not_waited_for_for_ever() -> None:
    here, frames = receiver(), sent(source(), pattern(4 * PART))
    relay(here, frames[0] + frames[1], now=1.0)
    told: list[MessageLost] = []
    deadline = 0.0
    while not told:
        deadline = here.next_deadline
        told += here.wake(deadline)
    assert 1.0 + PATIENCE <= deadline < 1.0 + PATIENCE + LIFETIME
    assert told == [MessageLost((1002, 0), None, "incomplete", member(3))]
    assert here.statistics().gathered_bytes == 0


def test_a_unicast_is_told_with_its_destination() -> None:
    here, frames = receiver(), sent(source(), pattern(1000), mode=Mode.UNICAST)
    relay(here, frames[1])
    assert here.wake(10.0) == [MessageLost((1002, 2 << 48), member(3), "incomplete", member(3))]


def test_stragglers_of_a_delivered_message_begin_nothing() -> None:
    """Also when duplicate windows have forgotten its source."""
    forgetful = EngineSettings(maximum_frame=FRAME, lanes=1)
    here, frames = receiver(forgetful), sent(source(), pattern(1000))
    assert len(relay(here, b"".join(frames)).delivered) == 1
    relay(here, sent(source(7), b"x")[0], now=60.0)
    again = relay(here, frames[1], now=120.0)
    assert (again.delivered, again.duplicates, here.next_deadline) == ([], 1, float("inf"))


def test_who_leaves_waits_for_nothing() -> None:
    here, frames = receiver(), sent(source(), pattern(1000))
    relay(here, frames[0])
    here.leave()
    assert here.next_deadline == float("inf")
    assert relay(here, frames[1]).dropped == {"not_joined": 1}
    assert here.statistics().gathered_bytes == 0
