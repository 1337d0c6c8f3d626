"""Bounded outputs: whatever feeders and time do, bounds hold and nobody waits for ever."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from board import frame
from opus_socket.adapters.flow import (
    NEWS,
    Dropped,
    FlowSettings,
    Intake,
    Losses,
    Output,
    Overflow,
    spread,
)
from opus_socket.adapters.inbox import Inbox
from opus_socket.adapters.tcp import HEARSAY
from opus_socket.core.message import OverlayMessage

LIMIT = 100
STALL = 2.0
EVICT = 10.0
OUTPUTS = 3
FEEDERS = 3
SIZES = st.integers(1, 80)


def _nobody() -> None:
    """Nobody looks at this output."""


def output(overflow: Overflow = Overflow.BLOCK, limit: int = LIMIT) -> Output:
    return Output(None, FlowSettings(limit, overflow, STALL, EVICT), _nobody)


@define(eq=False)
class Feeder:
    """Something that feeds outputs, and how often it was told to go on."""

    intake: Intake = field(init=False)
    resumed: int = 0
    waits: int = 0

    def __attrs_post_init__(self) -> None:
        self.intake = Intake(self._resume)

    def wait_for(self, outputs: list[Output]) -> None:
        was_blocked = self.intake.blocked
        self.intake.wait_for(outputs)
        self.waits += self.intake.blocked and not was_blocked

    def _resume(self) -> None:
        self.resumed += 1


@define(eq=False)
class Queue:
    """What an output should hold, kept beside it."""

    output: Output
    held: deque[tuple[int, int]] = field(factory=deque)
    taken: int = 0
    refused: int = 0
    lost: int = 0


class Flow(RuleBasedStateMachine):
    """Feeders that obey their gates, outputs of every policy, a clock that looks seldom."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.queues = [Queue(output(policy)) for policy in Overflow]
        self.feeders = [Feeder() for _ in range(FEEDERS)]

    @rule(
        feeder=st.integers(0, FEEDERS - 1),
        chosen=st.lists(st.integers(0, OUTPUTS - 1), min_size=1, max_size=4),
        size=SIZES,
        messages=st.integers(1, 5),
    )
    def feed(self, feeder: int, chosen: list[int], size: int, messages: int) -> None:
        if self.feeders[feeder].intake.blocked:
            return
        closed = []
        for index in chosen:
            queue = self.queues[index]
            if queue.output.admit(size, messages, self.now):
                queue.held.append((size, messages))
                queue.taken += messages
            else:
                queue.refused += messages
            if queue.output.closed:
                closed.append(queue.output)
        self.feeders[feeder].wait_for(closed)

    @rule(index=st.integers(0, OUTPUTS - 1))
    def drain_one(self, index: int) -> None:
        queue = self.queues[index]
        if queue.held:
            size, _ = queue.held.popleft()
            queue.output.release(size, self.now)

    @rule(index=st.integers(0, OUTPUTS - 1), part=st.integers(1, 40))
    def drain_a_part(self, index: int, part: int) -> None:
        queue = self.queues[index]
        if queue.held and queue.held[0][0] > part:
            size, messages = queue.held.popleft()
            queue.held.appendleft((size - part, messages))
            queue.output.release(part, self.now)

    @rule(index=st.integers(0, OUTPUTS - 1))
    def lose_everything(self, index: int) -> None:
        queue = self.queues[index]
        while queue.held:
            size, messages = queue.held.popleft()
            queue.output.release(size, self.now)
            queue.output.lose(messages, size, "connection")
            queue.lost += messages

    @rule(index=st.integers(0, OUTPUTS - 1))
    def look_no_more(self, index: int) -> None:
        self.queues[index].output.open()

    @rule(seconds=st.sampled_from([0.25, 1.0, STALL, EVICT]))
    def let_time_pass(self, seconds: float) -> None:
        self.now += seconds
        for queue in self.queues:
            queue.output.overdue(self.now)

    @precondition(lambda self: any(feeder.intake.blocked for feeder in self.feeders))
    @rule()
    def nobody_waits_longer_than_a_stall(self) -> None:
        """An output that moves no byte lets its feeders go within the stall timeout."""
        self.now += STALL
        for queue in self.queues:
            queue.output.overdue(self.now)
        assert not any(feeder.intake.blocked for feeder in self.feeders)

    @invariant()
    def bounds_hold(self) -> None:
        """Each feeder puts in once more at most before it knows that an output is closed."""
        for queue in self.queues:
            feeders = FEEDERS if queue.output.settings.overflow is Overflow.BLOCK else 1
            # One feeder may name the same output four times in what it puts in.
            assert queue.output.queued < LIMIT + 4 * feeders * 80

    @invariant()
    def counts_add_up(self) -> None:
        for queue in self.queues:
            statistics = queue.output.statistics()
            assert statistics.queued == sum(size for size, _ in queue.held)
            assert statistics.taken == queue.taken
            assert statistics.dropped == queue.refused + queue.lost

    @invariant()
    def waiting_ends_when_gates_open(self) -> None:
        """Whoever waits, waits for an output that is closed; and each wait ends once."""
        closed = any(queue.output.closed for queue in self.queues)
        for feeder in self.feeders:
            assert not feeder.intake.blocked or closed
            assert feeder.resumed == feeder.waits - feeder.intake.blocked

    @invariant()
    def what_needs_a_look_is_seen(self) -> None:
        for queue in self.queues:
            if queue.output.closed or queue.output.stalled:
                assert queue.output.needs_look


TestFlow = Flow.TestCase


@pytest.mark.parametrize("overflow", [Overflow.DROP, Overflow.EVICT])
def test_a_full_output_that_does_not_block_drops_at_once(overflow: Overflow) -> None:
    full = output(overflow)
    assert full.admit(LIMIT, 1, 0.0)
    assert not full.admit(1, 3, 0.0)
    assert (full.closed, full.queued, full.dropped, full.reason) == (False, LIMIT, 3, "overflow")
    full.release(1, 0.0)
    assert full.admit(1, 1, 0.0)


def test_a_blocking_output_opens_at_half() -> None:
    gate = output()
    feeder = Feeder()
    gate.admit(LIMIT, 1, 0.0)
    feeder.wait_for([gate])
    gate.release(LIMIT // 2 - 1, 0.0)
    assert gate.closed
    assert feeder.intake.blocked
    gate.release(1, 0.0)
    assert not gate.closed
    assert not feeder.intake.blocked


def test_a_stalled_output_drops_until_it_has_drained_to_half() -> None:
    gate = output()
    feeder = Feeder()
    gate.admit(LIMIT, 1, 0.0)
    feeder.wait_for([gate])
    gate.overdue(STALL - 0.01)
    assert feeder.intake.blocked
    gate.overdue(STALL)
    assert not feeder.intake.blocked
    assert not gate.admit(1, 2, STALL)
    assert (gate.dropped, gate.reason) == (2, "stalled")
    gate.release(LIMIT // 2 - 1, STALL)
    assert not gate.admit(1, 1, STALL)
    gate.release(1, STALL)
    assert gate.admit(1, 1, STALL)


def test_a_slow_output_is_not_a_stalled_one() -> None:
    """A byte now and then is progress: pressure travels to the source, nothing is dropped."""
    gate = output()
    gate.admit(2 * LIMIT, 1, 0.0)
    for second in range(1, LIMIT):
        gate.release(1, float(second))
        gate.overdue(second + STALL - 0.01)
        assert (gate.closed, gate.stalled) == (True, False)


def test_progress_is_measured_from_the_first_byte_that_waits() -> None:
    gate = output()
    gate.admit(1, 1, 0.0)
    gate.release(1, 0.0)
    gate.admit(LIMIT, 1, 100.0)
    gate.overdue(100.0 + STALL - 0.01)
    assert not gate.stalled


def test_an_evicting_output_is_given_up_after_its_timeout() -> None:
    full = output(Overflow.EVICT)
    full.admit(LIMIT, 1, 0.0)
    assert not full.overdue(EVICT - 0.01)
    assert full.overdue(EVICT)
    full.release(1, EVICT)
    assert not full.overdue(3 * EVICT)


def test_an_output_asks_to_be_looked_at_when_it_closes_and_when_it_loses() -> None:
    calls: list[str] = []
    for overflow in Overflow:
        limits = FlowSettings(LIMIT, overflow, STALL, EVICT)
        watched = Output(None, limits, lambda: calls.append("look"))
        watched.admit(LIMIT, 1, 0.0)
        assert len(calls) == 1
        assert watched.needs_look == (overflow is not Overflow.DROP)
        watched.lose(3, 30, "connection")
        watched.lose(2, 20, "connection")
        assert len(calls) == 2
        assert watched.unreported() == 5
        assert watched.unreported() == 0
        watched.lose(1, 10, "connection")
        assert len(calls) == 3
        calls.clear()


@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 9), st.integers(0, 99), st.sampled_from("abc"))
    )
)
def test_outputs_count_together_what_they_lose(
    lost: list[tuple[int, int, int, str]],
) -> None:
    losses: Losses = {}
    outputs = [Output(None, FlowSettings(LIMIT), _nobody, losses=losses) for _ in range(3)]
    for number, messages, size, reason in lost:
        outputs[number].lose(messages, size, reason)
    for reason in "abc":
        counted = [each for each in lost if each[3] == reason and each[1]]
        total = Dropped(sum(each[1] for each in counted), sum(each[2] for each in counted))
        assert losses.get(reason, Dropped()) == total
    assert sum(output.dropped for output in outputs) == sum(d.messages for d in losses.values())


def test_an_output_that_opened_meanwhile_is_not_waited_for() -> None:
    gate = output()
    gate.admit(LIMIT, 1, 0.0)
    gate.release(LIMIT, 0.0)
    feeder = Feeder()
    feeder.wait_for([gate])
    assert not feeder.intake.blocked


def test_a_feeder_of_several_outputs_goes_on_when_the_last_one_opens() -> None:
    gates = [output(), output()]
    feeder = Feeder()
    for gate in gates:
        gate.admit(LIMIT, 1, 0.0)
    feeder.wait_for([*gates, gates[0]])
    gates[0].release(LIMIT, 0.0)
    assert feeder.resumed == 0
    gates[1].release(LIMIT, 0.0)
    assert feeder.resumed == 1


@given(
    st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=30),
    st.lists(st.tuples(st.integers(0, 7), st.floats(0.0, 20.0)), min_size=1, max_size=8),
)
def test_progress_reaches_all_who_wait(
    waits: list[tuple[int, int]], moves: list[tuple[int, float]]
) -> None:
    """Whoever waits for an output that takes something, directly or through others, in circles too,
    knows of it, but for what is too little to tell; nobody hears of what did not happen.
    """
    outputs = [output() for _ in range(8)]
    for gate in outputs:
        gate.admit(LIMIT + 50, 1, 0.0)
    for waiting, blocker in waits:
        fed = outputs[waiting]
        Intake(_nobody, lambda when, fed=fed: (fed,)).wait_for([outputs[blocker]])  # type: ignore[misc]
    latest = [0.0] * 8
    for index, when in moves:
        outputs[index].release(1, max(when, latest[index]))
        latest[index] = max(when, latest[index])
    for gate in outputs:
        spread(gate, 20.0)
    reached = [*latest]
    for _ in outputs:
        for waiting, blocker in waits:
            reached[waiting] = max(reached[waiting], reached[blocker])
    for gate, at_most in zip(outputs, reached, strict=True):
        assert at_most - 8 * NEWS <= gate.progress(20.0) <= at_most


def test_what_is_said_of_progress_goes_in_no_circle_for_ever() -> None:
    """Outputs that wait for each other over connections whose ways take long: what once was
    progress keeps none of them from stalling.
    """
    circle = [output() for _ in range(3)]
    on_the_way: list[tuple[float, Output, float]] = []
    now = 0.0

    def heard_of(fed: Output) -> Callable[[float], list[Output]]:
        def heard(when: float) -> list[Output]:
            on_the_way.append((now + 0.3, fed, now - when + HEARSAY))
            return []

        return heard

    for gate, fed in zip(circle, circle[1:] + circle[:1], strict=True):
        gate.admit(2 * LIMIT, 1, 0.0)
        Intake(_nobody, heard_of(fed)).wait_for([gate])
    circle[0].release(1, 1.0)
    while not all(gate.stalled for gate in circle):
        now += 0.05
        assert now < 1.0 + 10 * STALL
        for news in [each for each in on_the_way if each[0] <= now]:
            on_the_way.remove(news)
            _, fed, age = news
            if fed.closed and fed.hear(now - age):
                spread(fed, now)
        for gate in circle:
            gate.overdue(now)
            if gate.closed and round(now * 20) % 5 == 0:
                spread(gate, now)
    assert now > 1.0 + STALL


@pytest.mark.parametrize("pause", [STALL / 2, 0.99 * STALL])
def test_one_that_takes_a_message_now_and_then_does_not_stall(pause: float) -> None:
    """Also while the batch from which it takes them keeps its room."""
    clock = 0.0
    inbox = Inbox(output(limit=1000), lambda: clock)
    inbox.push([OverlayMessage.parse(frame(b"", number)) for number in range(20)], 1000)
    assert inbox.output.closed
    for _ in range(19):
        clock += pause
        inbox.pop()
        assert not inbox.output.overdue(clock)
        assert inbox.output.closed
    clock += STALL - 0.01
    inbox.output.overdue(clock)
    assert not inbox.output.stalled
    clock += 0.01
    inbox.output.overdue(clock)
    assert inbox.output.stalled
