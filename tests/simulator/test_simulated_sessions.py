"""Members that die while their neighbors' messages pass, in whole overlays."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulations import CONFIG, NETWORK, overlay, settle

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.events import ContactFailed, SourceBroken, SourceRestored
from opus_socket.simulator import LinkQuality, SimulatedSocket, Simulator


def broken(member: SimulatedSocket) -> list[LogicalAddress]:
    return [event.source for event in member.events if isinstance(event, SourceBroken)]


def restored(member: SimulatedSocket) -> list[LogicalAddress]:
    return [event.source for event in member.events if isinstance(event, SourceRestored)]


def stream(simulator: Simulator, source: SimulatedSocket, count: int, rate: float) -> None:
    """Let a member send so many messages, so many a second."""

    def send() -> None:
        source.send_to_all(bytes(500))

    for step in range(count):
        simulator.call_at(simulator.now + step / rate, send)


def told(simulator: Simulator) -> dict[int, list[LogicalAddress]]:
    """Which sources each living member that was told anything was told to be broken."""
    return {m.number: broken(m) for m in simulator.members if m.alive and broken(m)}


@settings(max_examples=10)
@given(size=st.integers(3, 12), data=st.data())
def test_exactly_those_cut_off_learn_of_it_and_of_the_mending(
    size: int, data: st.DataObject
) -> None:
    """On a line, when a member's process dies, of each source those beyond it are told once, within
    half a second, and nobody else; when the overlay has mended itself and the source speaks again,
    they are told that, too.
    """
    simulator = Simulator(1, NETWORK)
    for number in range(size):
        simulator.add(CONFIG, LogicalAddress((1000 * number, 0)), at=number / 100)
    assert simulator.run_until_legitimate() is not None
    numbers = st.integers(0, size - 1)
    sources = data.draw(st.lists(numbers, unique=True, min_size=1, max_size=3))
    killed = data.draw(numbers)
    for source in sources:
        simulator.members[source].send_to_all(b"before")
    settle(simulator, 0.5)
    expected: dict[int, set[LogicalAddress]] = {}
    for source in sources:
        for number in range(size):
            # Beyond, seen from the source; of a killed source everybody.
            beyond = (source - killed) * (number - killed) < 0
            if number != killed and (beyond or source == killed):
                expected.setdefault(number, set()).add(LogicalAddress((1000 * source, 0)))
    simulator.kill(simulator.members[killed])
    settle(simulator, 0.5)
    assert {number: set(which) for number, which in told(simulator).items()} == expected
    assert all(len(set(which)) == len(which) for which in told(simulator).values())

    simulator.run_until_legitimate()
    alive = [simulator.members[source] for source in sources if source != killed]
    for member in alive:
        member.send_to_all(b"after")
    settle(simulator, 2.0)
    here = {member.address for member in alive}
    for member in simulator.members:
        if member.alive:
            assert set(restored(member)) == expected.get(member.number, set()) & here


@settings(max_examples=10)
@given(seed=st.integers(0, 50), data=st.data())
def test_where_the_protocol_knows_another_parent_nobody_is_told_of_a_relay(
    seed: int, data: st.DataObject
) -> None:
    """In a plane members have neighbors on other ways. Of a source that dies everybody learns."""
    simulator = overlay(15, seed=seed)
    for member in simulator.members:
        member.send_to_all(b"before")
    settle(simulator, 0.5)
    killed = data.draw(st.sampled_from(simulator.members))
    address = killed.address
    simulator.kill(killed)
    settle(simulator, 0.5)
    others = [member.number for member in simulator.members if member is not killed]
    assert told(simulator) == {number: [address] for number in others}


def test_a_silent_crash_is_mended_before_anybody_need_be_told() -> None:
    """The protocol finds it out by itself within seconds, and knows another parent then."""
    simulator = overlay(20, seed=2)
    for member in simulator.members:
        member.send_to_all(b"before")
    settle(simulator, 0.5)
    simulator.crash(simulator.members[7])
    settle(simulator, 20.0)
    assert not any(broken(member) for member in simulator.members)


def test_nobody_is_doubted_where_sources_fall_silent() -> None:
    """One ping decides about each link that carried something, and then nothing is sent any more
    but what the protocol sends.
    """
    simulator = overlay(20, seed=3)
    for member in simulator.members:
        member.send_to_all(b"once")
    settle(simulator, 20.0)
    before = simulator.traffic()
    links = sum(len(member.neighbors) for member in simulator.members)
    # For each end of a link at most two pings with their pongs.
    assert 0 < before.measurement <= 4 * links
    settle(simulator, 60.0)
    after = simulator.traffic()
    assert (after.measurement, after.overlay) == (before.measurement, before.overlay)
    for member in simulator.members:
        assert not broken(member)
        assert not any(isinstance(event, ContactFailed) for event in member.events)


def test_losses_break_nothing() -> None:
    """Every fiftieth packet is lost, and the sources go on."""
    simulator = overlay(8, seed=4)
    simulator.quality = LinkQuality(loss=0.02, jitter=5.0)
    stream(simulator, simulator.members[0], 300, 10.0)
    settle(simulator, 31.0)
    assert not any(broken(member) for member in simulator.members)


def rates(simulator: Simulator, receiver: SimulatedSocket, source: SimulatedSocket) -> float:
    """Messages a second of a source, as a receiver sees them."""
    [session] = [s for s in receiver.statistics().sessions if s.source == source.address]
    return session.messages_per_second


def test_flows_and_links_are_measured_as_they_are_sent() -> None:
    """Twenty messages a second, seen by everybody, and by each link that they take."""
    simulator = overlay(10, seed=5)
    source, *others = simulator.members
    stream(simulator, source, 200, 20.0)
    settle(simulator, 9.0)
    for receiver in others:
        assert rates(simulator, receiver, source) == pytest.approx(20.0, abs=1.1)
        [session] = [s for s in receiver.statistics().sessions if s.source == source.address]
        assert session.missing == 0
        assert session.upstream == receiver.parent(source.address)
        frame = session.size / session.messages
        assert session.bytes_per_second == pytest.approx(frame * session.messages_per_second)
        links = {link.neighbor: link for link in receiver.statistics().links}
        upstream = links[receiver.parent(source.address)]  # type: ignore[index]
        assert upstream.received_per_second == pytest.approx(20.0, abs=1.1)
        neighbor = next(m for m in simulator.members if m.address == upstream.neighbor)
        assert upstream.rtt == pytest.approx(2 * simulator.delay_ms(receiver, neighbor) / 1000)
        for child in receiver.children(source.address):
            assert links[child].sent_per_second == pytest.approx(20.0, abs=1.1)
    settle(simulator, 20.0)
    assert rates(simulator, others[0], source) == 0.0


def test_what_the_network_loses_is_missing() -> None:
    """Of 1,000 messages over one link that loses a tenth, about a tenth is missing."""
    simulator = overlay(2, seed=6)
    source, receiver = simulator.members
    simulator.quality = LinkQuality(loss=0.1)
    stream(simulator, source, 1000, 500.0)
    settle(simulator, 2.5)
    [session] = receiver.statistics().sessions
    assert session.messages == len(receiver.received)
    # At the ends nobody knows of any.
    assert session.messages + session.missing <= 1000  # type: ignore[operator]
    assert session.missing == pytest.approx(100, abs=40)


def test_the_tables_are_bounded() -> None:
    """However many sources there are, no more lanes are remembered than the engine has."""
    simulator = overlay(30, seed=7)
    for member in simulator.members:
        for _ in range(3):
            member.send_to_all(b"x")
            member.send_flood(b"x")
    settle(simulator)
    for member in simulator.members:
        statistics = member.statistics()
        assert len(statistics.links) <= len(member.neighbors)
        assert len(statistics.sessions) == statistics.engine.lanes <= 1024
