"""Round-trip times between two meters on a virtual clock."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_socket.core.addresses import Contact, Endpoint
from opus_socket.core.effects import Quantity, Transmit
from opus_socket.core.measurement import MAX_OPEN, TRIES, Measured, Meter
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


def test_only_round_trips_can_be_measured() -> None:
    with pytest.raises(LocalProtocolError, match="rtt"):
        Meter(Random(1)).measure(HERE, "loss", 0.0)  # type: ignore[arg-type]
