"""Emulated bandwidth on the way in: gates under a clock that is moved by hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing

import pytest

from board import LANE, TAG, Board, contact, frame, turn_until
from emulated_board import (
    DEPTH,
    FRAME,
    IN,
    NEIGHBORS,
    PART,
    RATE,
    SENDER,
    TOTAL,
    EmulatedBoard,
    bring,
    feed,
    local,
    numbers,
    push,
    taken,
)
from opus_socket.adapters.base import Lane, Route
from opus_socket.adapters.flow import FlowSettings, Intake
from opus_socket.adapters.pool import TcpLink
from opus_socket.core.addresses import Endpoint, LogicalAddress
from opus_socket.core.buckets import Limit
from opus_socket.core.message import OverlayMessage
from opus_socket.core.shaper import QUANTUM


def test_what_comes_in_waits_behind_a_gate(here: EmulatedBoard) -> None:
    """Over a connection: the member is given what its bandwidth lets in; the gate fills, the route
    is paused, and the sender's own output fills; in the end everything is there, in order.
    """
    here.limit(Limit(IN, RATE), flow=FlowSettings(50_000))
    with closing(Board()) as there:
        source, target = there.listen(), here.listen()
        output = there.output()
        link = TcpLink(there, source, contact(target.local), LANE, output)
        pieces = [frame(b"x" * 1_000, number) for number in range(2_000)]
        link.push(pieces, sum(map(len, pieces)), len(pieces))
        turn_until(lambda: is_closed(here), here, there)
        turn_until(lambda: there_is_paused(link), here, there)
        assert output.queued > 1_000_000
        while here.taken < 500_000:
            here.work()
            allowed = DEPTH + RATE * here.clock
            assert here.taken <= allowed
            here.advance(0.05)
            here.turn()
            there.turn()
        assert numbers(here) == list(range(len(here.frames_in)))
        here.change(IN, None)
        turn_until(lambda: len(here.frames_in) == 2_000, here, there)
        assert numbers(here) == list(range(2_000))


def is_closed(board: EmulatedBoard, link: LogicalAddress | None = None) -> bool:
    """Whether the gate for a neighbor is full."""
    assert board.emulation is not None
    inlet = board.emulation.inlets.get(link)
    return inlet is not None and any(gate.output.closed for gate in inlet.gates.values())


def there_is_paused(link: TcpLink) -> bool:
    connection = link.port.connection_to(link.contact)
    assert connection is not None
    return connection._outgoing.is_paused(LANE)


def test_gates_of_a_member_share_its_bandwidth(here: EmulatedBoard) -> None:
    """What comes from two neighbors at once is let in alike, and what goes out besides."""
    emulation = here.limit(Limit(TOTAL, RATE))
    here.neighbors = dict(enumerate(NEIGHBORS))
    with closing(Board()) as there:
        push(local(here, there, 2), 200)
        for index in range(2):
            bring(here, 200, index=index)
        here.work()
        for _ in range(20):
            here.pass_time(0.05)
            feed(there)
        shares = [FRAME * len(numbers(here, index)) for index in range(2)] + [taken(there)]
        assert sum(shares) == pytest.approx(DEPTH + RATE * here.clock, abs=PART)
        assert max(shares) - min(shares) <= QUANTUM + FRAME
    assert set(emulation.inlets) == set(NEIGHBORS[:2])


def test_a_full_member_blocks_its_gate(here: EmulatedBoard) -> None:
    """What was let in and finds the next output full waits for it, and so does what follows."""
    here.limit(Limit(IN, RATE), flow=FlowSettings(20_000))
    full = here.output(1)
    full.admit(1, 1, 0.0)
    here.blockers.append(full)
    bring(here, 50)
    for _ in range(10):
        here.pass_time(0.05)
    assert FRAME * len(here.frames_in) <= PART
    bring(here, 1, first=50)
    gate = here.gate()
    assert gate.output.closed
    assert not gate.output.overdue(here.clock + 1e9)
    assert not gate.output.stalled
    full.release(1, here.clock)
    for _ in range(10):
        here.pass_time(0.05)
    assert numbers(here) == list(range(51))


def test_a_class_that_is_blocked_stops_no_other(here: EmulatedBoard) -> None:
    """Others of the same neighbor go in past it, in the order in which they came."""
    here.limit(Limit(IN, RATE), flow=FlowSettings(1 << 18))
    full = here.output(1)
    full.admit(1, 1, 0.0)
    blocked = Lane(Route(TAG, 1, 9), 7)
    here.gates[blocked] = full
    bring_mixed(here, [0, 7, 1] * 60)
    for _ in range(40):
        here.pass_time(0.05)
    came = [OverlayMessage.parse(data).traffic_class for _, data, _ in here.frames_in]
    # One part of the blocked class went in and found the output full.
    assert Counter(came)[0] == Counter(came)[1] == 60
    assert Counter(came)[7] < 60
    others = [number for number, what in zip(numbers(here), came, strict=True) if what != 7]
    assert others == sorted(others)
    assert here.gate(traffic_class=7).output.queued
    full.release(1, here.clock)
    for _ in range(40):
        here.pass_time(0.05)
    assert sorted(numbers(here)) == list(range(180))
    assert not here.emulation or not any(out.queued for out in here.emulation.outputs())


def bring_mixed(board: EmulatedBoard, classes: Sequence[int]) -> None:
    """Bring one message of each of these classes, all at once."""
    frames = [frame(b"x" * 1_000, number, what) for number, what in enumerate(classes)]
    route = Route(TAG, 1, 9)
    sender = contact(Endpoint("127.0.0.1", 9), index=9)
    assert board.frames(route, memoryview(bytearray(b"".join(frames))), sender, [])[1] is None


def test_datagrams_that_find_a_gate_full_are_lost_and_counted(here: EmulatedBoard) -> None:
    here.limit(Limit(IN, RATE), flow=FlowSettings(30_000))
    for _ in range(10):
        bring(here, 10, can_wait=False)
    gate = here.gate()
    assert gate.output.closed
    assert gate.output.dropped > 0
    while gate.output.queued:
        here.pass_time(0.05)
    assert len(here.frames_in) + gate.output.dropped == 100


def test_a_member_that_is_gone_keeps_nobody_waiting(here: EmulatedBoard) -> None:
    emulation = here.limit(Limit(IN, RATE), flow=FlowSettings(30_000))
    bring(here, 100)
    gate = here.gate()
    opened: list[bool] = []
    Intake(lambda: opened.append(True)).wait_for([gate.output])
    emulation.close()
    here.pass_time(10.0)
    assert opened
    assert here.frames_in == []


def test_a_neighbor_that_is_forgotten_is_still_let_in(here: EmulatedBoard) -> None:
    emulation = here.limit(Limit(IN, RATE))
    bring(here, 40)
    gate = here.gate()
    assert emulation.forget(None) == [gate.output]
    assert emulation.forget(None) == []
    while gate.output.queued:
        here.pass_time(0.05)
    assert numbers(here) == list(range(40))


def test_frames_that_cannot_be_read_are_refused_where_they_come_in(here: EmulatedBoard) -> None:
    emulation = here.limit(Limit(IN, 1_000))
    data = frame(b"x" * 1_000)
    bad = bytearray(data + b"\xff" * 64)
    assert emulation.take(memoryview(bad), SENDER, None, []) == (len(data), "version")
    part = bytearray(data + data[:100])
    assert emulation.take(memoryview(part), SENDER, None, []) == (len(data), None)
