"""Round-trip times between two meters on a virtual clock."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opus_socket.core.addresses import Contact, Endpoint
from opus_socket.core.effects import Quantity, Transmit
from opus_socket.core.measurement import (
    ANSWERED_BYTES,
    MAX_OPEN,
    PROBE_SIZE,
    TRAIN,
    TRIES,
    Measured,
    Meter,
)
from opus_socket.core.wire import encode_plain
from opus_socket.errors import LocalProtocolError, RemoteProtocolError

ME = Contact(None, 1, 0, (Endpoint("10.0.0.1", 7000),))
HERE = Contact(None, 2, 0, (Endpoint("10.0.0.2", 7000),))


def sent(effects: object) -> Transmit:
    """The only effect, which is a message."""
    assert isinstance(effects, tuple | list)
    (effect,) = effects
    assert isinstance(effect, Transmit)
    return effect


def result(effects: object) -> float | None:
    """The only effect, which is a result."""
    assert isinstance(effects, tuple | list)
    (effect,) = effects
    assert isinstance(effect, Measured)
    assert effect.contact == HERE
    return effect.measurement.value


@given(start=st.floats(0, 1e6), there=st.floats(0, 0.4), back=st.floats(0, 0.4))
def test_what_is_measured_is_the_round_trip(start: float, there: float, back: float) -> None:
    """The value is the time from ping to pong, and the pong is as long as the ping."""
    mine, other = Meter(Random(1)), Meter(Random(2))
    ping = sent(mine.measure(HERE, Quantity.RTT, start))
    assert ping.to == HERE
    pong = sent(other.receive(ping.body, ME, start + there))
    assert pong.to == ME
    assert len(pong.body) == len(ping.body)
    value = result(mine.receive(pong.body, HERE, start + there + back))
    assert value == pytest.approx(there + back, abs=1e-6)
    assert mine.next_deadline == float("inf")


@given(lost=st.integers(0, TRIES - 1), delay=st.floats(0.001, 0.9))
def test_each_pong_answers_its_own_ping(lost: int, delay: float) -> None:
    """After lost pings the value is still the time of the one that was answered."""
    mine, other = Meter(Random(1)), Meter(Random(2))
    ping = sent(mine.measure(HERE, Quantity.RTT, 0.0))
    for _ in range(lost):
        ping = sent(mine.wake(mine.next_deadline))
    now = float(lost)
    pong = sent(other.receive(ping.body, ME, now))
    assert result(mine.receive(pong.body, HERE, now + delay)) == pytest.approx(delay)


def test_a_late_pong_of_an_earlier_ping_counts_from_that_ping() -> None:
    mine, other = Meter(Random(1)), Meter(Random(2))
    first = sent(mine.measure(HERE, Quantity.RTT, 0.0))
    mine.wake(1.0)
    pong = sent(other.receive(first.body, ME, 1.1))
    assert result(mine.receive(pong.body, HERE, 1.2)) == pytest.approx(1.2)
    assert mine.receive(pong.body, HERE, 1.3) == ()


def test_after_three_pings_without_a_pong_there_is_no_value() -> None:
    mine = Meter(Random(1))
    mine.measure(HERE, Quantity.RTT, 0.0)
    assert [mine.next_deadline, sent(mine.wake(1.0)).to] == [1.0, HERE]
    assert [mine.next_deadline, sent(mine.wake(2.0)).to] == [2.0, HERE]
    assert result(mine.wake(3.0)) is None
    assert mine.next_deadline == float("inf")
    assert mine.statistics().failures == 1


def test_a_contact_is_measured_once_at_a_time() -> None:
    mine = Meter(Random(1))
    mine.measure(HERE, Quantity.RTT, 0.0)
    assert mine.measure(HERE, Quantity.RTT, 0.5) == ()


def test_the_table_is_bounded() -> None:
    mine = Meter(Random(1))
    for number in range(MAX_OPEN):
        contact = Contact(None, number, 0, ME.endpoints)
        assert sent(mine.measure(contact, Quantity.RTT, 0.0)).to == contact
    assert result(mine.measure(HERE, Quantity.RTT, 0.0)) is None
    for _ in range(TRIES):
        mine.wake(mine.next_deadline)
    assert mine.statistics().failures == MAX_OPEN + 1
    assert sent(mine.measure(HERE, Quantity.RTT, 9.0)).to == HERE


@given(body=st.binary(max_size=64))
def test_what_is_no_message_is_refused(body: bytes) -> None:
    """Random bytes are refused, and no measurement ends by them."""
    mine = Meter(Random(1))
    mine.measure(HERE, Quantity.RTT, 0.0)
    with pytest.raises(RemoteProtocolError):
        mine.receive(body, HERE, 0.1)
    assert mine.next_deadline == 1.0


def test_forged_pongs_measure_nothing() -> None:
    mine, other = Meter(Random(1)), Meter(Random(2))
    mine.measure(HERE, Quantity.RTT, 0.0)
    # Another meter's ping has another nonce.
    ping = sent(Meter(Random(3)).measure(HERE, Quantity.RTT, 0.0))
    pong = sent(other.receive(ping.body, ME, 0.1))
    assert mine.receive(pong.body, HERE, 0.2) == ()
    assert mine.next_deadline == 1.0


def test_only_what_is_measured_on_request_can_be_asked_for() -> None:
    with pytest.raises(LocalProtocolError, match="rtt"):
        Meter(Random(1)).measure(HERE, "loss", 0.0)  # type: ignore[arg-type]


def train(effects: object) -> list[Transmit]:
    """All of the effects, which are probes."""
    assert isinstance(effects, list)
    assert all(isinstance(effect, Transmit) for effect in effects)
    return effects


@given(
    rate=st.floats(1e3, 1e8),
    delay=st.floats(0, 0.1),
    clock=st.floats(0, 1e6),
    lost=st.sets(st.integers(0, TRAIN - 1), max_size=TRAIN - 2),
)
@example(rate=1e6, delay=0.02, clock=1e6, lost={0, TRAIN - 1})
def test_a_train_measures_the_narrowest_part(
    rate: float, delay: float, clock: float, lost: set[int]
) -> None:
    """Behind a queue that serves `rate` bytes a second the value is that rate, whatever the delay,
    the other end's clock, and whatever is lost before the queue. Answers are shorter than probes.
    """
    mine, other = Meter(Random(1)), Meter(Random(2))
    effects: object = ()
    for number, probe in enumerate(train(mine.measure(HERE, Quantity.BANDWIDTH, 0.0))):
        if number not in lost:
            clock += len(probe.body) / rate
            answer = sent(other.receive(probe.body, ME, clock))
            assert len(answer.body) < len(probe.body)
            effects = mine.receive(answer.body, HERE, delay)
    if lost:
        assert effects == ()
        effects = mine.wake(1.0)
    value = result(effects)
    # Stamps are whole microseconds, and a nonce may be some bytes shorter.
    passed = (TRAIN - len(lost) - 1) * PROBE_SIZE
    rounding = 2e-6 / (passed / rate)
    assert value == pytest.approx(rate, rel=0.01 + 2 * rounding) or rounding > 0.3
    assert mine.next_deadline == float("inf")


def test_a_train_of_which_hardly_anything_comes_is_sent_again() -> None:
    mine, other = Meter(Random(1)), Meter(Random(2))
    probes = train(mine.measure(HERE, Quantity.BANDWIDTH, 0.0))
    early = sent(other.receive(probes[0].body, ME, 0.5))
    assert mine.receive(early.body, HERE, 0.6) == ()
    again = train(mine.wake(1.0))
    assert [len(again), mine.next_deadline] == [TRAIN, 2.0]
    assert mine.receive(early.body, HERE, 1.1) == ()
    assert len(train(mine.wake(2.0))) == TRAIN
    assert result(mine.wake(3.0)) is None
    assert mine.next_deadline == float("inf")


def test_a_way_without_any_spread_is_faster_than_clocks_can_tell() -> None:
    mine, other = Meter(Random(1)), Meter(Random(2))
    effects: object = ()
    for probe in train(mine.measure(HERE, Quantity.BANDWIDTH, 0.0)):
        effects = mine.receive(sent(other.receive(probe.body, ME, 1.0)).body, HERE, 0.1)
    assert result(effects) == float("inf")


def test_both_quantities_of_a_contact_are_measured_at_the_same_time() -> None:
    mine, other = Meter(Random(1)), Meter(Random(2))
    probe = train(mine.measure(HERE, Quantity.BANDWIDTH, 0.0))[0]
    ping = sent(mine.measure(HERE, Quantity.RTT, 0.0))
    pong = sent(other.receive(ping.body, ME, 0.1))
    assert result(mine.receive(pong.body, HERE, 0.2)) == pytest.approx(0.2)
    arrival = sent(other.receive(probe.body, ME, 0.1))
    assert mine.receive(arrival.body, HERE, 0.3) == ()
    assert mine.next_deadline == 1.0


@given(sizes=st.lists(st.integers(0, 8000), min_size=1, max_size=80), seconds=st.integers(1, 3))
@example(sizes=[8000] * 80, seconds=2)
def test_a_flood_is_answered_within_its_bound(sizes: list[int], seconds: int) -> None:
    """A source gets never more bytes than it sent, and 64 KiB a second at most; another source is
    answered all the same.
    """
    other = Meter(Random(2))
    stranger = Contact(None, 1, 0, (Endpoint("10.0.0.3", 7000),))
    for second in range(seconds):
        came = went = 0
        for size in sizes:
            body = encode_plain([1, 5, bytes(size)])
            effects = other.receive(body, ME, float(second))
            came += len(body)
            went += sum(len(sent([effect]).body) for effect in effects)
        assert went <= min(came, ANSWERED_BYTES)
        assert went == came or came > ANSWERED_BYTES
        assert sent(other.receive(encode_plain([1, 5, b""]), stranger, second)).to == stranger
    statistics = other.statistics()
    assert statistics.answered + statistics.unanswered == seconds * (len(sizes) + 1)


def test_a_probe_that_is_shorter_than_its_answer_is_refused() -> None:
    """Else its sender could have more bytes sent to somebody than it sent itself."""
    with pytest.raises(RemoteProtocolError, match="short_probe"):
        Meter(Random(2)).receive(b"\x83\x03\x01\x40", ME, 1e6)
