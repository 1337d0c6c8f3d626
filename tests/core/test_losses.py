"""Lost messages: who is told, how often, and about what nobody is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.engine import EngineSettings, ForwardingEngine
from opus_socket.core.events import MessageLost
from opus_socket.core.extensions import Code, Extension, LossReport
from opus_socket.core.limiter import SourceLimiter
from opus_socket.core.message import OverlayMessage
from opus_socket.core.node import Mode
from still_overlay import (
    Neighbors,
    StillOverlay,
    contact_of,
    frames_of,
    graphs,
    lone,
    member,
    relay,
)


def test_reports_are_limited_to_ten_a_second_and_source() -> None:
    engine = ForwardingEngine(lone(3, 1, 4), EngineSettings(), 1003)
    for now, expected in ((0.0, 10), (0.9, 0), (1.0, 10)):
        payloads = [b"x"] * 25
        source = ForwardingEngine(lone(2, 1), EngineSettings(), int(1000 + 10 * now))
        [output] = source.originate(payloads, Mode.UNICAST, member(7), 0.0, hop_limit=1).outputs
        dispatch = relay(engine, b"".join(output.pieces), now=now)
        assert dispatch.dropped == {"hop_limit": 25}
        sent = {each.contact: each.frames for each in dispatch.outputs}
        assert sent.get(contact_of(member(4)), 0) == expected
    assert engine.statistics().reports_sent == 20
    [other] = relay(engine, frames_of(5, Mode.UNICAST, 7, b"x", hops=1), now=1.0).outputs[:1]
    assert other.frames == 1


def test_nothing_is_reported_about_reports_services_and_floods() -> None:
    engine = ForwardingEngine(lone(3, 1, 4), EngineSettings(), 1003)
    [lost, _] = relay(engine, frames_of(2, Mode.UNICAST, 7, b"x", hops=1)).outputs
    report = bytearray(b"".join(lost.pieces))
    report[7] = 1
    report[6] = 0
    again = ForwardingEngine(lone(8, 1, 4), EngineSettings(), 1008)
    assert relay(again, bytes(report)).dropped == {"hop_limit": 1}
    source = ForwardingEngine(lone(2, 1), EngineSettings(), 1002)
    [service] = source.originate_service(
        5, [b"x"], Mode.UNICAST, member(7), 0.0, hop_limit=1
    ).outputs
    assert relay(again, b"".join(service.pieces)).dropped == {"hop_limit": 1}
    assert relay(again, frames_of(6, Mode.FLOOD, None, b"x", hops=1)).dropped == {"hop_limit": 1}
    assert again.statistics().reports_sent == 0


def test_own_loss_is_told_at_once_and_seldom() -> None:
    engine = ForwardingEngine(lone(3), EngineSettings(), 1003)
    dispatch = engine.originate([b"x"] * 12, Mode.UNICAST, member(7), 0.0)
    assert dispatch.dropped == {"unroutable": 12}
    assert dispatch.events == [
        MessageLost((1003, (2 << 48) + index), member(7), "unroutable", member(3))
        for index in range(10)
    ]
    assert dispatch.first_id == (1003, 2 << 48)


@given(graphs(), st.integers(0, 11))
def test_loss_is_reported_to_the_source(neighbors: Neighbors, source: int) -> None:
    """A unicast to nobody becomes MessageLost at its source, wherever it was lost."""
    overlay = StillOverlay(neighbors)
    source %= len(neighbors)
    last, nobody = len(neighbors) - 1, 99
    # The way leads to somebody whom the last member does not have as a neighbor.
    overlay.neighbors[nobody] = [last]
    overlay.neighbors[last] = [*neighbors[last], nobody]
    overlay.send(source, Mode.UNICAST, nobody, [b"a", b"b"])
    lane = 2 << 48
    assert overlay.events[source] == [
        MessageLost((1000 + source, lane + index), member(nobody), "unroutable", member(last))
        for index in range(2)
    ]


def report_about(incarnation: int, mode: Mode = Mode.UNICAST, body: bytes | None = None) -> bytes:
    """A control message from member 2 to member 3."""
    quoted = bytes(8) + member(3).wire + member(7).wire
    wire = LossReport(2, (incarnation, 5), quoted).wire if body is None else body
    chain = [Extension(Code.MESSAGE_ID, bytes(16)), Extension(Code.CONTROL, wire)]
    to = member(3) if mode is Mode.UNICAST else None
    return OverlayMessage.build(member(2), to, mode, chain, hop_limit=9).frame


def test_a_report_becomes_an_event() -> None:
    engine = ForwardingEngine(lone(3), EngineSettings(), 1003)
    dispatch = relay(engine, report_about(1003))
    assert dispatch.events == [MessageLost((1003, 5), member(7), "unroutable", member(2))]
    assert dispatch.delivered == []
    assert engine.statistics().reports_received == 1


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (report_about(1004), "bad_report"),
        (report_about(1003, Mode.MULTICAST), "bad_report"),
        (report_about(1003, body=b"\2" + bytes(50)), "bad_extension"),
    ],
)
def test_what_is_no_report_about_this_member_is_dropped(frame: bytes, reason: str) -> None:
    engine = ForwardingEngine(lone(3), EngineSettings(), 1003)
    dispatch = relay(engine, frame)
    assert (dispatch.events, dispatch.dropped) == ([], {reason: 1})


def test_a_lost_multicast_was_for_everybody() -> None:
    """A multicast whose hops run out is reported once, as lost for nobody in particular."""
    source = ForwardingEngine(lone(2, 3), EngineSettings(), 1002)
    [sent] = source.originate([b"x"], Mode.MULTICAST, None, 0.0, hop_limit=1).outputs
    report = relay(
        ForwardingEngine(lone(3, 2), EngineSettings(), 1003), b"".join(sent.pieces), came=1
    )
    [back] = report.outputs
    [event] = relay(source, b"".join(back.pieces), came=3).events
    assert event == MessageLost((1002, 0), None, "hop_limit", member(3))


def test_reports_name_what_was_lost_and_not_its_duplicates() -> None:
    frames = frames_of(2, Mode.UNICAST, 7, b"0", b"1", b"2", b"3", hops=1)
    engine = ForwardingEngine(lone(3, 2), EngineSettings(), 1003)
    relay(engine, frames[:98])
    [back] = relay(engine, frames).outputs
    told = relay(ForwardingEngine(lone(2, 3), EngineSettings(), 1002), b"".join(back.pieces))
    lost = [event.id for event in told.events if isinstance(event, MessageLost)]
    assert lost == [(1002, (2 << 48) + 2), (1002, (2 << 48) + 3)]


def test_the_memory_of_sources_is_bounded() -> None:
    limiter = SourceLimiter(10)
    sources = [LogicalAddress((index,)).wire for index in range(1025)]
    for source in sources:
        assert limiter.take(source, 25, 0.0) == 10
    assert limiter.take(sources[-1], 1, 0.0) == 0
    assert limiter.take(sources[0], 25, 0.0) == 10
    assert limiter.take(sources[1], 25, 0.0) == 10
