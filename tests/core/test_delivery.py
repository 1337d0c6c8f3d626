"""What the forwarding engine promises, over whole overlays of still nodes and one by one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.engine import EngineSettings, ForwardingEngine
from opus_socket.core.events import MessageLost
from opus_socket.core.extensions import Code, Extension, Flags
from opus_socket.core.message import OverlayMessage
from opus_socket.core.node import Mode
from opus_socket.core.parcel import Parcel
from opus_socket.errors import LocalProtocolError, NotJoinedError
from still_overlay import (
    Neighbors,
    StillNode,
    StillOverlay,
    contact_of,
    frames_of,
    graphs,
    lone,
    member,
    relay,
)

PAYLOADS = [b"first", b"", b"3" * 700, b"4" * 5000]


@given(graphs(), st.integers(0, 11))
def test_multicast_is_exact(neighbors: Neighbors, source: int) -> None:
    """A multicast delivers n-1 copies in order, with n-1 transmissions."""
    overlay = StillOverlay(neighbors)
    source %= len(neighbors)
    overlay.send(source, Mode.MULTICAST, None, PAYLOADS)
    for index, delivered in overlay.delivered.items():
        expected = [] if index == source else PAYLOADS
        assert [message.payload for message in delivered] == expected
    assert overlay.transmitted == len(PAYLOADS) * (len(neighbors) - 1)


@given(graphs(), st.integers(0, 11))
def test_flood_reaches_all_once(neighbors: Neighbors, source: int) -> None:
    """A flood delivers n-1 copies, with at most 2E - (n-1) transmissions."""
    overlay = StillOverlay(neighbors)
    source %= len(neighbors)
    overlay.send(source, Mode.FLOOD, None, PAYLOADS)
    for index, delivered in overlay.delivered.items():
        expected = [] if index == source else PAYLOADS
        assert [message.payload for message in delivered] == expected
    edges = sum(map(len, neighbors.values())) // 2
    assert overlay.transmitted <= len(PAYLOADS) * (2 * edges - (len(neighbors) - 1))


@given(graphs(), st.integers(0, 11), st.integers(0, 11))
def test_unicast_goes_to_one(neighbors: Neighbors, source: int, to: int) -> None:
    """A unicast is delivered to its addressee only, itself included, along the shortest way."""
    overlay = StillOverlay(neighbors)
    source, to = source % len(neighbors), to % len(neighbors)
    overlay.send(source, Mode.UNICAST, to, PAYLOADS)
    for index, delivered in overlay.delivered.items():
        assert [message.payload for message in delivered] == (PAYLOADS if index == to else [])
    hops, at, tree = 0, source, overlay.towards(to)
    while at != to:
        hops, at = hops + 1, tree[at]
    assert overlay.transmitted == len(PAYLOADS) * hops


@given(
    st.lists(st.binary(max_size=50), min_size=1, max_size=9),
    st.sampled_from(Mode),
    st.integers(2, 65_535),
    st.booleans(),
)
def test_relaying_changes_only_the_hop_limit(
    payloads: list[bytes], mode: Mode, hop_limit: int, in_parcel: bool
) -> None:
    """Every byte of a relayed frame is as it was, but for the hop limit, which is one less."""
    key = None if mode in (Mode.MULTICAST, Mode.FLOOD) else 7
    data = frames_of(2, mode, key, *payloads, hops=hop_limit)
    engine = ForwardingEngine(lone(3, 1, 4, 5), EngineSettings(), 1003)
    frames = Parcel(len(data), [data]) if in_parcel else memoryview(bytearray(data))
    dispatch = engine.switch(frames, member(1), 0.0)
    assert [output.contact for output in dispatch.outputs] == [
        contact_of(member(4)),
        contact_of(member(5)),
    ]
    expected, at = bytearray(data), 0
    for payload in payloads:
        expected[at + 6 : at + 8] = (hop_limit - 1).to_bytes(2)
        at += 48 + len(payload)
    for output in dispatch.outputs:
        assert b"".join(output.pieces) == expected


def test_delivered_messages_keep_the_hop_limit_they_came_with() -> None:
    engine = ForwardingEngine(lone(3, 4), EngineSettings(), 1003)
    data = frames_of(2, Mode.MULTICAST, None, b"x", b"y", hops=9)
    buffer = memoryview(bytearray(data))
    delivered = engine.switch(buffer, member(1), 0.0).delivered
    buffer[:] = bytes(len(buffer))
    assert [(each.hop_limit, each.payload) for each in delivered] == [(9, b"x"), (9, b"y")]


def test_hop_limit_one_is_for_the_neighbor_alone() -> None:
    engine = ForwardingEngine(lone(3, 4), EngineSettings(), 1003)
    mine = relay(engine, frames_of(2, Mode.UNICAST, 3, b"x", hops=1))
    assert len(mine.delivered) == 1
    everybody = relay(engine, frames_of(2, Mode.FLOOD, None, b"x", hops=1))
    assert len(everybody.delivered) == 1
    assert everybody.outputs == []
    assert everybody.dropped == {"hop_limit": 1}


def test_sends_to_all_alone_are_no_loss() -> None:
    engine = ForwardingEngine(lone(3), EngineSettings(), 1003)
    for mode in (Mode.MULTICAST, Mode.FLOOD):
        dispatch = engine.originate([b"x"], mode, None, 0.0)
        assert (dispatch.outputs, dispatch.delivered, dispatch.dropped) == ([], [], {})


@pytest.mark.parametrize("mode", [Mode.MULTICAST, Mode.FLOOD])
def test_sends_to_all_are_lost_while_a_member_is_cut_off(mode: Mode) -> None:
    """It had neighbors, has none now, and has not settled: who sends is told."""
    node = lone(3)
    node.stable = False
    dispatch = ForwardingEngine(node, EngineSettings(), 1003).originate([b"x", b"y"], mode, None, 0)
    first = dispatch.first_id
    assert first is not None
    assert dispatch.dropped == {"unroutable": 2}
    assert dispatch.events == [
        MessageLost((1003, first[1] + more), None, "unroutable", member(3)) for more in range(2)
    ]


def test_anycast_ends_where_the_node_accepts() -> None:
    data = frames_of(2, Mode.ANYCAST, 7, b"x")
    taken = relay(ForwardingEngine(lone(3, accepts=True), EngineSettings(), 1003), data)
    assert [message.payload for message in taken.delivered] == [b"x"]
    passed = relay(ForwardingEngine(lone(3, 4, accepts=True), EngineSettings(), 1003), data)
    assert (passed.delivered, len(passed.outputs)) == ([], 1)
    refused = relay(ForwardingEngine(lone(3), EngineSettings(), 1003), data)
    assert (refused.delivered, refused.dropped) == ([], {"unroutable": 1})


def test_anycast_is_never_delivered_to_its_sender() -> None:
    engine = ForwardingEngine(lone(3, accepts=True), EngineSettings(), 1003)
    dispatch = engine.originate([b"x"], Mode.ANYCAST, member(7), 0.0)
    assert (dispatch.delivered, dispatch.dropped) == ([], {"unroutable": 1})


def test_nothing_goes_back_where_it_came_from() -> None:
    engine = ForwardingEngine(lone(3, 1), EngineSettings(), 1003)
    dispatch = relay(engine, frames_of(2, Mode.UNICAST, 7, b"x"), came=1)
    assert dispatch.dropped == {"unroutable": 1}


@pytest.mark.parametrize(
    ("mode", "key", "traffic_class"), [(Mode.UNICAST, member(3), 0), (Mode.MULTICAST, None, 1)]
)
def test_a_burst_does_not_outrun_another_mode_or_class(
    mode: Mode, key: LogicalAddress | None, traffic_class: int
) -> None:
    """5,000 messages that overtake a multicast must not make it look like an old duplicate."""
    source = ForwardingEngine(lone(2, 1), EngineSettings(), 1002)
    receiver = ForwardingEngine(lone(3), EngineSettings(), 1003)
    [late] = source.originate([b"late"], Mode.MULTICAST, None, 0.0).outputs
    [burst] = source.originate([b""] * 5000, mode, key, 0.0, traffic_class=traffic_class).outputs
    assert len(relay(receiver, b"".join(burst.pieces)).delivered) == 5000
    assert [each.payload for each in relay(receiver, b"".join(late.pieces)).delivered] == [b"late"]


def test_routes_are_asked_for_once_a_version() -> None:
    node = lone(3, 4)
    engine = ForwardingEngine(node, EngineSettings(), 1003)
    for index in range(3):
        data = frames_of(20 + index, Mode.UNICAST, 7, b"x")
        [output] = relay(engine, data).outputs
        assert output.contact == contact_of(member(4))
    assert node.asked == 1
    node.table, node.hops = (member(5),), lambda *_: [member(5)]
    node.version += 1
    [output] = relay(engine, frames_of(29, Mode.UNICAST, 7, b"x")).outputs
    assert output.contact == contact_of(member(5))
    assert node.asked == 2
    statistics = engine.statistics()
    assert (statistics.route_hits, statistics.route_misses, statistics.routes) == (2, 2, 1)


def test_known_routes_are_bounded() -> None:
    engine = ForwardingEngine(lone(3, 4), EngineSettings(routes=5), 1003)
    for index in range(20):
        relay(engine, frames_of(20 + index, Mode.MULTICAST, None, b"x"))
    assert engine.statistics().routes == 5


def test_a_moved_member_answers_to_its_new_address() -> None:
    node = lone(3, 4)
    engine = ForwardingEngine(node, EngineSettings(), 1003)
    assert relay(engine, frames_of(2, Mode.UNICAST, 6, b"x")).delivered == []
    node.contact = contact_of(member(6))
    node.version += 1
    assert len(relay(engine, frames_of(5, Mode.UNICAST, 6, b"x")).delivered) == 1
    [output] = engine.originate([b"x"], Mode.MULTICAST, None, 0.0).outputs
    assert OverlayMessage.parse(b"".join(output.pieces)).source == member(6)


def test_without_an_address_frames_are_dropped_and_sending_is_refused() -> None:
    engine = ForwardingEngine(lone(3, joined=False), EngineSettings(), 1003)
    data = frames_of(2, Mode.MULTICAST, None, b"x", b"y")
    dispatch = relay(engine, data)
    assert (dispatch.consumed, dispatch.dropped) == (len(data), {"not_joined": 2})
    with pytest.raises(NotJoinedError):
        engine.originate([b"x"], Mode.MULTICAST, None, 0.0)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            {"payloads": [b"", bytes((16 << 20) + 1)]},
            r"16777217 bytes; at most 16777216 bytes are allowed \(socket.max_message\)",
        ),
        ({"hop_limit": 0}, "hop_limit 0: 1 to 65535"),
        ({"hop_limit": 65_536}, "hop_limit 65536: 1 to 65535"),
        ({"traffic_class": 256}, "traffic_class 256: 0 to 255"),
        ({"traffic_class": -1}, "traffic_class -1: 0 to 255"),
        ({"mode": Mode.UNICAST}, "unicast to None"),
        ({"mode": Mode.FLOOD, "key": member(1)}, "flood to 1,1"),
        ({"mode": Mode.ANYCAST, "key": LogicalAddress((1,))}, "1 is no destination here"),
        ({"mode": Mode.UNICAST, "key": LogicalAddress.everybody(1)}, "is no destination here"),
    ],
)
def test_a_bad_call_says_what_is_allowed(arguments: dict[str, object], said: str) -> None:
    engine = ForwardingEngine(lone(3, 4), EngineSettings(), 1003)
    call: dict[str, object] = {"payloads": [b"x"], "mode": Mode.MULTICAST, "key": None, "now": 0.0}
    with pytest.raises(LocalProtocolError, match=said):
        engine.originate(**(call | arguments))  # type: ignore[arg-type]
    assert engine.statistics().originated_frames == 0
    assert engine.originate([b"x"], Mode.MULTICAST, None, 0.0).first_id == (1003, 0)


@pytest.mark.parametrize(("maximum", "payload"), [(16_384, 16_336), (100_000, 65_511)])
def test_the_largest_frame(maximum: int, payload: int) -> None:
    """What fits into one frame goes in one; one byte more takes two."""
    settings = EngineSettings(maximum_frame=maximum)
    engine = ForwardingEngine(lone(3, 4), settings, 1003)
    [output] = engine.originate([bytes(payload + 1)], Mode.MULTICAST, None, 0.0).outputs
    assert (output.frames, output.size) == (2, payload + 1 + 2 * 56)
    [output] = engine.originate([bytes(payload)], Mode.MULTICAST, None, 0.0).outputs
    assert (output.frames, output.size) == (1, payload + 48)
    receiver = ForwardingEngine(lone(4), settings, 1004)
    assert len(relay(receiver, b"".join(output.pieces)).delivered) == 1


def test_large_payloads_are_sent_by_reference() -> None:
    engine = ForwardingEngine(lone(3, 4, 5), EngineSettings(), 1003)
    payload = b"x" * 10_000
    for output in engine.originate([b"a", payload, b"b"], Mode.MULTICAST, None, 0.0).outputs:
        assert any(piece is payload for piece in output.pieces)


def test_originating_nothing_does_nothing() -> None:
    engine = ForwardingEngine(lone(3, 4), EngineSettings(), 1003)
    dispatch = engine.originate([], Mode.MULTICAST, None, 0.0)
    assert (dispatch.outputs, dispatch.first_id) == ([], None)


@pytest.mark.parametrize("cut", range(1, 100, 7))
def test_a_partial_frame_waits_for_its_rest(cut: int) -> None:
    engine = ForwardingEngine(lone(3), EngineSettings(), 1003)
    data = frames_of(2, Mode.MULTICAST, None, b"first", b"second")
    first = relay(engine, data[:-cut])
    second = relay(engine, data[first.consumed :])
    assert first.consumed + second.consumed == len(data)
    assert [each.payload for each in first.delivered + second.delivered] == [b"first", b"second"]


@pytest.mark.parametrize(
    ("junk", "why"),
    [(b"\x14" + bytes(7), "version"), (b"\x04\0\0\x10\xff\xff\0\0", "oversize")],
)
def test_what_cannot_be_a_frame_breaks_the_stream(junk: bytes, why: str) -> None:
    engine = ForwardingEngine(lone(3), EngineSettings(), 1003)
    data = frames_of(2, Mode.MULTICAST, None, b"x")
    dispatch = relay(engine, data + junk + data)
    assert (dispatch.consumed, dispatch.broken) == (len(data), why)
    assert len(dispatch.delivered) == 1


def test_a_route_record_grows_hop_by_hop() -> None:
    record = Extension(Code.ROUTE_RECORD, b"\0", Flags.HOP_BY_HOP)
    untouched = Extension(Code.ROUTE_RECORD, b"\0")
    identity = Extension(Code.MESSAGE_ID, bytes(16))
    data = OverlayMessage.build(
        member(2),
        member(9),
        Mode.UNICAST,
        [identity, record, untouched, Extension(Code.RAW, b"x")],
        hop_limit=7,
        traffic_class=3,
    ).frame
    for index in (3, 4):
        engine = ForwardingEngine(lone(index, 8), EngineSettings(), 1000 + index)
        [output] = relay(engine, data).outputs
        data = b"".join(output.pieces)
    message = OverlayMessage.parse(data)
    assert message.route == (member(3), member(4))
    assert (message.hop_limit, message.traffic_class, message.payload) == (5, 3, b"x")


def test_a_full_route_record_is_carried_along() -> None:
    record = Extension(Code.ROUTE_RECORD, b"\xff" + bytes(255 * 8), Flags.HOP_BY_HOP)
    extensions = [Extension(Code.MESSAGE_ID, bytes(16)), record, Extension(Code.RAW, b"x")]
    message = OverlayMessage.build(member(2), member(9), Mode.UNICAST, extensions, hop_limit=7)
    [output] = relay(ForwardingEngine(lone(3, 8), EngineSettings(), 1003), message.frame).outputs
    assert OverlayMessage.parse(b"".join(output.pieces)).extensions == message.extensions
    tight = EngineSettings(maximum_frame=len(message.frame) - 8 * 255 + 7)
    short = Extension(Code.ROUTE_RECORD, b"\0", Flags.HOP_BY_HOP)
    message = OverlayMessage.build(
        member(2),
        member(9),
        Mode.UNICAST,
        [extensions[0], short, extensions[2]],
        hop_limit=7,
    )
    [output] = relay(ForwardingEngine(lone(3, 8), tight, 1003), message.frame).outputs
    assert OverlayMessage.parse(b"".join(output.pieces)).route == ()


def test_statistics_count_everything_once() -> None:
    engine = ForwardingEngine(lone(3, 4, 5), EngineSettings(), 1003)
    data = frames_of(2, Mode.MULTICAST, None, b"x", b"y")
    relay(engine, data)
    relay(engine, data)
    engine.originate([b"z"], Mode.MULTICAST, None, 0.0)
    statistics = engine.statistics()
    assert statistics.originated_frames == 1
    assert statistics.originated_bytes == 49
    assert (statistics.relayed_frames, statistics.relayed_bytes) == (2, len(data))
    assert statistics.transmitted_frames == 2 * (2 + 1)
    assert statistics.transmitted_bytes == 2 * (len(data) + 49)
    assert (statistics.delivered_frames, statistics.delivered_bytes) == (2, len(data))
    assert statistics.duplicates == 2
    assert statistics.dropped == {}
    assert statistics.lanes == 1


def test_outputs_to_one_neighbor_keep_the_order_of_arrival() -> None:
    """Messages of several modes through one neighbor leave as they came."""
    source = ForwardingEngine(lone(2, 1), EngineSettings(), 1002)
    data = b""
    for index in range(6):
        mode, key = ((Mode.MULTICAST, None), (Mode.UNICAST, member(9)))[index % 2]
        [output] = source.originate([bytes((index,))], mode, key, 0.0).outputs
        data += b"".join(output.pieces)

    def hops(
        mode: Mode, key: LogicalAddress, arrived_from: LogicalAddress | None
    ) -> list[LogicalAddress]:
        return [member(4), member(5)] if mode is Mode.MULTICAST else [member(4)]

    node = StillNode(member(3), [member(4), member(5)], hops)
    outputs = relay(ForwardingEngine(node, EngineSettings(), 1003), data).outputs
    left: dict[Contact, bytes] = {each.contact: b"".join(each.pieces) for each in outputs}
    assert list(left[contact_of(member(4))][48::49]) == [0, 1, 2, 3, 4, 5]
    assert list(left[contact_of(member(5))][48::49]) == [0, 2, 4]


def test_parts_and_pieces_keep_their_order() -> None:
    """A frame that is sent as a piece of its own does not overtake the one before it."""
    asked = Extension(Code.ROUTE_RECORD, b"\0", Flags.HOP_BY_HOP)
    identity = Extension(Code.MESSAGE_ID, bytes(16))
    chain = [identity, asked, Extension(Code.RAW, b"second")]
    second = OverlayMessage.build(member(2), member(9), Mode.UNICAST, chain, hop_limit=7).frame
    first, third = frames_of(2, Mode.UNICAST, 9, b"1st"), frames_of(5, Mode.UNICAST, 9, b"3rd")
    engine = ForwardingEngine(lone(3, 8), EngineSettings(), 1003)
    [output] = relay(engine, first + second + third).outputs
    data = b"".join(output.pieces)
    assert data.index(b"1st") < data.index(b"second") < data.index(b"3rd")
    assert output.frames == 3


def test_short_messages_are_joined_to_few_pieces() -> None:
    engine = ForwardingEngine(lone(3, 4), EngineSettings(), 1003)
    [output] = engine.originate([bytes(100)] * 1000, Mode.MULTICAST, None, 0.0).outputs
    assert len(output.pieces) == 3
    assert max(map(len, output.pieces)) < 2**16 + 200
