"""Emulated bandwidth: links and gates under a clock that is moved by hand, on real connections."""

from __future__ import annotations

from collections import defaultdict
from contextlib import closing

import pytest
from attrs import define
from hypothesis import given
from hypothesis import strategies as st

from board import ROUTE, Board, contact, frame, turn_until
from emulated_board import (
    BOUNDS,
    DEPTH,
    FRAME,
    NEIGHBORS,
    OUT,
    PART,
    RATE,
    TOTAL,
    EmulatedBoard,
    bring,
    feed,
    local,
    numbers,
    over_tcp,
    push,
    taken,
)
from opus_socket.adapters.emulation import Held
from opus_socket.adapters.flow import Intake, Output, Overflow
from opus_socket.adapters.pool import TcpLink
from opus_socket.adapters.udp import UdpLink, UdpPort, bind
from opus_socket.core.addresses import Endpoint
from opus_socket.core.buckets import Limit
from opus_socket.core.effects import Kind
from opus_socket.core.shaper import QUANTUM

# On its way out


def test_what_crosses_a_connection_is_what_the_bucket_paid_for(here: EmulatedBoard) -> None:
    """At every instant the other end has what the bucket has let go, to a message; the rest waits
    here, and counts as queued.
    """
    here.limit(Limit(OUT, RATE))
    with closing(Board()) as there:
        link = over_tcp(here, there)
        total = push(link, 100)
        for _ in range(21):
            here.work()
            allowed = min(total, DEPTH + RATE * here.clock)
            assert allowed - PART < total - link.held.size <= allowed
            turn_until(lambda: taken(there) == total - link.held.size, here, there)
            assert link.output.queued == link.held.size
            here.advance(0.05)
        assert numbers(there) == list(range(100))


def test_datagrams_are_held_back_like_anything_else(here: EmulatedBoard) -> None:
    emulation = here.limit(Limit(OUT, RATE))
    with closing(Board()) as there:
        heard = UdpPort(there, bind("127.0.0.1", 0))
        port = UdpPort(here, bind("127.0.0.1", 0))
        place = Endpoint(*heard.sock.getsockname()[:2])
        output = Output(NEIGHBORS[0], BOUNDS, here._attend)
        link = emulation.hold(UdpLink(port, contact(place), ROUTE, output, 8_192), NEIGHBORS[0])
        total = push(link, 30)
        here.work()
        assert DEPTH - PART < total - output.queued <= DEPTH
        turn_until(lambda: taken(there) == total - output.queued, there)
        while output.queued:
            here.pass_time(0.05)
        assert here.clock <= total / RATE
        turn_until(lambda: numbers(there) == list(range(30)), there)
        assert (output.taken, output.dropped) == (30, 0)
        for each in (heard, port):
            each.close()


def test_a_lone_message_goes_at_once_and_unchanged(here: EmulatedBoard) -> None:
    """What can be paid for is handed on as it came, without a copy and without a turn."""
    here.limit(Limit(OUT, RATE))
    link = local(here, here)
    push(link, 2)
    assert link.held.size == 0
    assert here.timers == 0


def test_a_full_link_closes_and_opens_like_any_other(here: EmulatedBoard) -> None:
    here.limit(Limit(OUT, RATE))
    with closing(Board()) as there:
        link = local(here, there, limit=20_000)
        push(link, 40)
        here.work()
        assert link.output.closed
        opened: list[float] = []
        Intake(lambda: opened.append(here.clock)).wait_for([link.output])
        while not opened:
            here.pass_time(0.01)
            feed(there)
        # It has drained to half: what was pushed, less a burst, less half of its bound.
        assert opened[0] == pytest.approx(
            (40 * FRAME - DEPTH - 10_000) / RATE, abs=0.01 + PART / RATE
        )


def test_what_is_held_back_on_purpose_is_no_stall(here: EmulatedBoard) -> None:
    """A message that waits for its bandwidth for longer than `stall_timeout` is not dropped, and
    neither is what comes after it; a receiver that takes nothing stalls all the same.
    """
    here.limit(Limit(OUT, 1_000))
    with closing(Board()) as there:
        link = local(here, there, limit=2_000, stall_timeout=0.5)
        push(link, 5)
        here.work()
        assert link.output.closed
        for _ in range(40):
            here.pass_time(0.25)
            feed(there)
            assert not link.output.overdue(here.clock)
            assert not link.output.stalled
        assert len(there.frames_in) == 5
        gate = there.output(1)
        gate.admit(1, 1, 0.0)
        there.blockers.append(gate)
        push(link, 10)
        for _ in range(80):
            here.pass_time(0.25)
            feed(there)
        link.output.overdue(here.clock)
        assert link.output.stalled
        assert link.held.size == 0


def test_a_neighbor_that_is_given_up_loses_what_was_held(here: EmulatedBoard) -> None:
    here.limit(Limit(OUT, RATE))
    with closing(Board()) as there:
        link = local(here, there, overflow=Overflow.EVICT)
        push(link, 40)
        here.work()
        link.evict()
        assert link.output.queued == 0
        assert link.output.dropped + len(there.frames_in) == 40
        here.pass_time(10.0)
        assert len(there.frames_in) == 0


def test_what_is_held_for_a_dropped_neighbor_still_goes(here: EmulatedBoard) -> None:
    here.limit(Limit(OUT, RATE))
    with closing(Board()) as there:
        link = local(here, there)
        push(link, 40)
        link.close()
        for _ in range(8):
            here.work()
            here.pass_time(0.05)
            feed(there)
        assert numbers(there) == list(range(40))


def test_control_passes_a_saturated_link(here: EmulatedBoard) -> None:
    """A control message is on the wire before anything that waits for bandwidth, and is paid
    for: what waits has to wait for it, too.
    """
    emulation = here.limit(Limit(OUT, RATE))
    with closing(Board()) as there:
        link = over_tcp(here, there)
        total = push(link, 100)
        here.work()
        gone = total - link.held.size
        assert isinstance(link.inner, TcpLink)
        connection = link.inner.port.connection_to(link.inner.contact)
        assert connection is not None
        emulation.charge(OUT, NEIGHBORS[0], 5_000)
        connection.send_control(ROUTE, Kind.PROTOCOL, b"hello")
        turn_until(lambda: bool(there.messages), here, there)
        assert here.clock == 0.0
        here.pass_time(0.5)
        assert total - link.held.size <= gone + RATE * 0.5 - 5_000 + FRAME


def test_links_share_the_bandwidth_of_their_node(here: EmulatedBoard) -> None:
    """Three links with messages of different lengths get the same share, to a turn."""
    here.limit(Limit(OUT, RATE))
    with closing(Board()) as there:
        links = [local(here, there, number) for number in range(3)]
        held = [push(link, 200, 1_000 // (number + 1)) for number, link in enumerate(links)]
        here.work()
        for _ in range(20):
            here.pass_time(0.05)
            feed(there)
        shares = [total - link.held.size for total, link in zip(held, links, strict=True)]
        assert sum(shares) == pytest.approx(DEPTH + RATE * here.clock, abs=PART)
        assert max(shares) - min(shares) <= QUANTUM + FRAME


# At run time


def test_a_member_that_nothing_limits_is_free_once_all_has_gone(here: EmulatedBoard) -> None:
    emulation = here.limit(Limit(TOTAL, RATE))
    with closing(Board()) as there:
        link = local(here, there)
        push(link, 100)
        bring(here, 100)
        here.work()
        assert here.freed == 0
        here.change(TOTAL, None)
        feed(there)
        assert here.freed == 1
        assert (len(there.frames_in), len(here.frames_in)) == (100, 100)
    assert not emulation.buckets


def test_what_takes_long_gives_way_and_goes_on(here: EmulatedBoard) -> None:
    """What can go is handed on in parts of a turn, until all of it has gone."""
    here.limit(Limit(OUT, 1_000))
    with closing(Board()) as there:
        link = local(here, there)
        push(link, 200)
        here.work()
        here.pace, turns = 0.001, 0
        assert here.emulation is not None
        here.emulation.buckets.limit(OUT, None, 1 << 30, here.clock)
        here.advance(0.2)
        here.emulation.changed()
        while link.held.size:
            turns += 1
            assert here.run_feeders()
        assert 1 < turns < 200


@define
class Step:
    """Something that happens: messages that leave or come, time that passes, another rate."""

    what: str
    number: int
    seconds: float
    rate: int


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(["out", "in", "time", "time", "limit"]),
        st.integers(0, 2),
        st.floats(0.001, 0.3),
        st.integers(5_000, 1_000_000),
    ),
    max_size=40,
)


@given(steps=steps, rate=st.integers(5_000, 1_000_000))
def test_whatever_happens_nothing_overtakes_and_nothing_is_lost(
    steps: list[Step], rate: int
) -> None:
    """Messages of any sizes leave to and come from three neighbors under changing limits: at no
    time have more bytes gone than the limits allowed, each neighbor's messages are in order, what
    waits is accounted for, and in the end all has gone.
    """
    with closing(EmulatedBoard()) as here, closing(Board()) as there:
        here.limit(Limit(TOTAL, rate))
        here.neighbors = dict(enumerate(NEIGHBORS))
        links = [local(here, there, number, limit=1 << 30) for number in range(3)]
        sent: dict[tuple[str, int], int] = defaultdict(int)
        brought, deepest, longest = 0.0, rate * 0.1, 10_000
        for step in steps:
            count, size = 1 + step.number * 7, int(step.seconds * 30_000)
            key = (step.what, step.number)
            if step.what == "out":
                push(links[step.number], count, size, sent[key])
            elif step.what == "in":
                bring(here, count, size, sent[key], index=step.number)
            elif step.what == "limit":
                rate = step.rate
                here.change(TOTAL, rate)
                deepest = max(deepest, rate * 0.1)
            else:
                here.pass_time(step.seconds)
                brought += rate * step.seconds
            if step.what in ("out", "in"):
                sent[key] += count
            here.work()
            assert here.taken + taken(there) <= brought + max(deepest, longest)
            feed(there)
            assert [link.output.queued for link in links] == [link.held.size for link in links]
        here.change(TOTAL, None)
        feed(there)
        for number, link in enumerate(links):
            assert link.output.queued == 0
            assert numbers(there, number) == list(range(sent["out", number]))
            assert numbers(here, number) == list(range(sent["in", number]))


@given(
    runs=st.lists(st.lists(st.integers(0, 3_000), min_size=1, max_size=5), max_size=5),
    mosts=st.lists(st.integers(1, 10_000), min_size=1),
)
def test_held_frames_are_cut_between_frames_only(runs: list[list[int]], mosts: list[int]) -> None:
    """Parts are whole frames, in order, no longer than asked for unless a single one is; asking
    again, or for another length, takes nothing.
    """
    held, expected, parts = Held(), b"", []
    for run in runs:
        data = b"".join(frame(bytes(size)) for size in run)
        held.put(memoryview(data), len(run))
        expected += data
    assert held.size == len(expected)
    turn, frames = 0, 0
    while held.head(mosts[turn % len(mosts)]):
        turn += 1
        most = mosts[turn % len(mosts)]
        size = held.head(most)
        assert held.head(most) == size
        part, count, _ = held.take()
        assert len(part) == size
        assert size <= most or count == 1
        parts.append(bytes(part))
        frames += count
    assert b"".join(parts) == expected
    assert frames == sum(map(len, runs))
    assert held.size == 0
