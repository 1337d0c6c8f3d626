"""Fragments on their way, and what is made of them besides the application's messages: relays,
reports, services, handlers and cores.
"""

from __future__ import annotations

import tracemalloc

import pytest

from core_world import ECHO, World
from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.dispatch import Dispatch
from opus_socket.core.engine import EngineSettings, ForwardingEngine
from opus_socket.core.events import MessageLost
from opus_socket.core.node import Mode
from opus_socket.core.parcel import Parcel
from still_overlay import contact_of, lone, member, relay

USUAL = EngineSettings()
FRAME = 16_384
SERVICE = 5


def engine(index: int, *near: int) -> ForwardingEngine:
    return ForwardingEngine(lone(index, *near), USUAL, 1000 + index)


def pattern(length: int) -> bytes:
    return b"".join([number.to_bytes(4) for number in range(-(-length // 4))])[:length]


def parcel_of(data: bytes | memoryview) -> Parcel:
    return Parcel(len(data), [bytes(data)])


def joined(dispatch: Dispatch) -> bytes:
    return b"".join(dispatch.outputs[0].pieces)


# Relays


@pytest.mark.parametrize("in_parcel", [False, True])
def test_a_relay_passes_fragments_on_as_a_run(in_parcel: bool) -> None:
    """Only the hop limits change; what lies together goes as one piece; nothing is gathered."""
    data = joined(engine(2, 1).originate([pattern(100_000)], Mode.UNICAST, member(9), 0.0))
    middle = engine(3, 1, 4)
    frames = parcel_of(data) if in_parcel else memoryview(bytearray(data))
    dispatch = middle.switch(frames, member(1), 0.0)
    [output] = dispatch.outputs
    [piece] = output.pieces
    assert (output.contact, output.frames, output.size) == (contact_of(member(4)), 7, len(data))
    assert dispatch.consumed == len(data)
    expected, at = bytearray(data), 0
    while at < len(expected):
        expected[at + 6 : at + 8] = (1023).to_bytes(2)
        at += 24 + int.from_bytes(expected[at + 4 : at + 6])
    assert bytes(piece) == expected
    statistics = middle.statistics()
    assert (statistics.relayed_frames, statistics.route_misses, statistics.route_hits) == (7, 1, 0)
    assert (statistics.gathered_bytes, middle.next_deadline) == (0, float("inf"))


@pytest.mark.parametrize("cut", [1, 55, 56, FRAME - 1, FRAME, FRAME + 1, 2 * FRAME + 30])
def test_a_read_may_end_anywhere(cut: int) -> None:
    payload = pattern(40_000)
    data = joined(engine(2, 1).originate([payload], Mode.MULTICAST, None, 0.0))
    here = engine(3)
    first = relay(here, data[:cut])
    second = relay(here, data[first.consumed :])
    assert first.consumed == cut // FRAME * FRAME
    assert [message.payload for message in second.delivered] == [payload]


def test_a_message_costs_its_own_size_at_each_end() -> None:
    """One copy is made when it is sent, and one when it is put together."""
    payload = bytes(8 << 20)
    source, here = engine(2, 1), engine(3)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        [output] = source.originate([payload], Mode.MULTICAST, None, 0.0).outputs
        sent, peak = tracemalloc.get_traced_memory()
        assert peak - before < 1.05 * len(payload)
        tracemalloc.reset_peak()
        delivered = [
            message
            for piece in output.pieces
            for message in here.switch(parcel_of(piece), member(1), 0.0).delivered
        ]
        _, peak = tracemalloc.get_traced_memory()
        # The buffer grows by an eighth at a time.
        assert peak - sent < 1.2 * len(payload)
    finally:
        tracemalloc.stop()
    assert [message.payload for message in delivered] == [payload]


# Reports


def test_the_loss_of_a_message_is_reported_once_by_its_own_identity() -> None:
    source = engine(2, 1)
    dispatch = source.originate([b"x", pattern(100_000)], Mode.MULTICAST, None, 0.0, hop_limit=1)
    middle = ForwardingEngine(lone(3, 1, 4), USUAL, 1003)
    lost = relay(middle, joined(dispatch))
    assert lost.dropped == {"hop_limit": 8}
    assert middle.statistics().reports_sent == 2
    events = relay(source, joined(lost)).events
    assert events == [
        MessageLost((1002, sequence), None, "hop_limit", member(3)) for sequence in (0, 1)
    ]


def test_own_messages_without_a_way_are_told_by_their_identities() -> None:
    source = engine(2)
    batch = [b"x", pattern(40_000), b"y"]
    dispatch = source.originate(batch, Mode.UNICAST, member(9), 0.0)
    assert dispatch.dropped == {"unroutable": 5}
    first = 2 << 48
    assert dispatch.events == [
        MessageLost((1002, first + more), member(9), "unroutable", member(2)) for more in (0, 1, 4)
    ]


# Services and handlers


@pytest.mark.parametrize("intercepts", [False, True])
def test_a_service_gets_long_bodies_whole(intercepts: bool) -> None:
    """At its addressees; where they are relayed they pass unseen, held by nobody."""
    source, middle, end = engine(2, 3), engine(3, 2, 4), engine(4, 3)
    for each in (source, middle, end):
        each.register_service(SERVICE, intercepts)
    body = pattern(50_000)
    sent = source.originate_service(SERVICE, [b"x", body], Mode.UNICAST, member(4), 0.0)
    passed = relay(middle, joined(sent), came=2)
    held = [message.message.payload for message in passed.for_services]
    assert held == ([b"x"] if intercepts else [])
    got = relay(end, joined(passed), came=3).for_services
    assert [each.message.payload for each in got] == ([body] if intercepts else [b"x", body])
    last = got[-1]
    assert (last.service, last.addressed, last.held, last.message.service) == (5, True, False, 5)
    assert last.message.id == (1002, (2 << 48) + 1)
    everybody = source.originate_service(SERVICE, [body], Mode.MULTICAST, None, 0.0)
    passed = relay(middle, joined(everybody), came=2)
    assert [(each.addressed, each.held) for each in passed.for_services] == [(True, False)]
    assert passed.outputs[0].frames == 4


def test_a_service_that_nobody_runs_is_counted_once_for_each_message() -> None:
    sent = engine(2, 3).originate_service(SERVICE, [pattern(50_000)], Mode.FLOOD, None, 0.0)
    assert relay(engine(3), joined(sent)).dropped == {"unknown_service": 1}


def test_a_handler_gets_whole_messages_and_lets_them_go() -> None:
    here, payload = engine(3, 4), pattern(50_000)
    here.watch(delivered=True, relayed=True)
    sent = engine(2, 3).originate([payload], Mode.MULTICAST, None, 0.0)
    dispatch = relay(here, joined(sent), came=2)
    assert (dispatch.delivered, dispatch.outputs[0].frames) == ([], 4)
    [seen] = dispatch.for_services
    assert (seen.service, seen.addressed, seen.held) == (None, True, False)
    released = here.resume(seen, 1.0)
    assert [message.payload for message in released.delivered] == [payload]
    assert released.delivered_size == released.delivered[0].size
    assert released.outputs == []


# Cores


def test_a_core_is_woken_for_what_does_not_come() -> None:
    world = World()
    founder, joiner = world.join(1), world.join(2, 1)
    dispatch = joiner.core.originate([pattern(40_000)], Mode.MULTICAST, None, 3.0)
    assert dispatch.first_id is not None
    # The first fragment is lost.
    data = joined(dispatch)[FRAME : 2 * FRAME]
    got = founder.core.switch(parcel_of(data), LogicalAddress((2,)), 3.0)
    assert got.gathering
    assert founder.core.engine.next_deadline == 13.0
    founder.events.clear()
    world.advance(12.9)
    assert founder.events == []
    world.advance(13.0)
    lost = MessageLost(dispatch.first_id, None, "incomplete", LogicalAddress((1,)))
    assert founder.events == [lost]
    assert founder.core.next_deadline == float("inf")


def test_a_core_that_leaves_does_not_wait_for_fragments() -> None:
    world = World()
    founder, joiner = world.join(1), world.join(2, 1)
    data = joined(joiner.core.originate([pattern(40_000)], Mode.MULTICAST, None, 3.0))
    founder.core.switch(parcel_of(data[:FRAME]), LogicalAddress((2,)), 3.0)
    world.perform(1, founder.core.leave(4.0))
    founder.core.switch(parcel_of(data[FRAME:]), LogicalAddress((2,)), 4.0)
    assert founder.core.next_deadline == float("inf")


def test_services_of_cores_talk_in_long_bodies() -> None:
    world = World()
    founder, joiner = world.join(1, services=[ECHO]), world.join(2, 1, services=[ECHO])
    body = b"hello " * 10_000
    key = LogicalAddress((1,))
    world.forward(2, joiner.core.engine.originate_service(ECHO.id, [body], Mode.UNICAST, key, 0.0))
    world.run()
    assert founder.echo.heard == [body]
    assert joiner.echo.heard == [body.upper()]
