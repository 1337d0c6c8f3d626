"""`OverlayCore`: what it passes on to which machine, and what it asks of a driver."""

from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core_world import (
    ECHO,
    Echo,
    EchoSettings,
    Hi,
    World,
    endpoint,
    whereabouts,
)
from opus_socket.core.addresses import Contact, Endpoint, LogicalAddress
from opus_socket.core.effects import Abort, Kind, Measure, Quantity
from opus_socket.core.events import (
    AddressChanged,
    ContactFailed,
    NeighborAdded,
    NeighborRemoved,
    Stable,
    Unstable,
)
from opus_socket.core.node import Measurement, Mode
from opus_socket.core.service import ServiceEffects, ServiceSpec
from opus_socket.errors import AddressInUseError, ConfigurationError, LocalProtocolError


def test_a_founder_without_anybody_to_ask_is_stable_at_once() -> None:
    world = World()
    founder = world.join(1)
    assert founder.core.stable
    assert founder.events == [Stable(LogicalAddress((1,)))]
    assert founder.core.next_deadline == inf


def test_a_member_finds_its_buddy_and_both_are_told() -> None:
    world = World()
    founder = world.join(1)
    joiner = world.join(2, 1)
    assert list(joiner.core.neighbors) == [LogicalAddress((1,))]
    assert joiner.events == [NeighborAdded(founder.core.contact), Stable(LogicalAddress((2,)))]
    assert founder.events[1:] == [NeighborAdded(joiner.core.contact)]
    statistics = joiner.core.statistics()
    assert statistics.sent["rendezvous"] >= 2
    assert (statistics.sent["protocol"], statistics.received["protocol"]) == (2, 1)
    assert statistics.refused == {}


def test_members_find_each_other_by_the_group() -> None:
    """And a leader's announcement reaches the nodes of others."""
    world = World()
    world.join(1, multicast=True)
    world.advance(5.0)
    world.join(2, multicast=True)
    world.advance(10.0)
    for number, other in ((1, 2), (2, 1)):
        assert list(world.members[number].core.neighbors) == [LogicalAddress((other,))]


def test_messages_go_where_the_node_says_and_know_whom_they_came_from() -> None:
    world = World()
    a, b, c = world.join(1), world.join(2, 1), world.join(3, 1)
    assert [list(m.core.neighbors) for m in (a, c)] == [
        [LogicalAddress((2,)), LogicalAddress((3,))],
        [LogicalAddress((1,))],
    ]
    world.send(1, b"to all")
    world.send(2, b"through the first", Mode.UNICAST, to=3)
    assert [message.payload for message in b.delivered] == [b"to all"]
    assert [message.payload for message in c.delivered] == [b"to all", b"through the first"]
    assert c.core.neighbor_at(Contact(None, 0, 1, (endpoint(1),))) == LogicalAddress((1,))
    assert c.core.neighbor_at(Contact(None, 0, 2, (endpoint(2),))) is None
    assert c.core.neighbor_at(Contact(None, 0, 9, (endpoint(1),))) is None


def test_a_neighbor_that_leaves_is_gone_for_both() -> None:
    world = World()
    founder, joiner = world.join(1), world.join(2, 1)
    joiner.events.clear()
    founder.events.clear()
    world.perform(2, joiner.core.leave(world.now))
    world.run()
    assert founder.events == [NeighborRemoved(joiner.core.contact)]
    assert joiner.events == [
        NeighborRemoved(founder.core.contact),
        Unstable(LogicalAddress((2,))),
    ]
    assert founder.core.neighbors == {}
    world.advance(100.0)
    assert joiner.core.next_deadline == inf


def test_a_restarted_member_is_another_neighbor_at_the_same_address() -> None:
    """Whoever kept something for the former one is told to drop it."""
    world = World()
    founder, before = world.join(1), world.join(2, 1)
    former = before.core.contact
    founder.events.clear()
    after = world.join(2, 1, incarnation=2)
    assert founder.events == [NeighborRemoved(former), NeighborAdded(after.core.contact)]
    assert list(founder.core.neighbors.values()) == [after.core.contact]


def test_an_address_that_changes_is_told() -> None:
    world = World()
    founder = world.join(1)
    founder.events.clear()
    world.perform(1, founder.core.set("number", 7, 0.0))
    assert founder.events == [AddressChanged(LogicalAddress((1,)), LogicalAddress((7,)))]
    assert founder.core.contact.address == LogicalAddress((7,))
    with pytest.raises(LocalProtocolError, match="no knob"):
        founder.core.set("alpha", 7, 0.0)


def test_a_connection_that_failed_is_a_hint_about_neighbors_only() -> None:
    world = World()
    founder, joiner = world.join(1), world.join(2, 1)
    world.perform(1, founder.core.link_failed(joiner.core.contact, 0.0))
    world.perform(1, founder.core.link_failed(whereabouts(2), 0.0))
    world.perform(1, founder.core.link_failed(joiner.core.contact.at(LogicalAddress((9,))), 0.0))
    assert founder.node.failed == [LogicalAddress((2,))]


def test_a_node_learns_how_far_a_contact_is() -> None:
    world = World()
    founder, joiner = world.join(1), world.join(2, 1)
    world.perform(1, founder.core.measure(joiner.core.contact, Quantity.RTT, 0.0))
    world.now = 0.25
    world.run()
    ((contact, measurement),) = founder.node.measurements
    assert (contact, measurement.value) == (joiner.core.contact, 0.25)
    nobody = whereabouts(9)
    founder.node.asks.append(Measure(nobody))
    world.perform(1, founder.core.join(world.now))
    world.advance(60.0)
    assert founder.node.measurements[-1] == (nobody, Measurement(Quantity.RTT, None))


def test_equal_bytes_are_decoded_once() -> None:
    world = World()
    founder = world.join(1)
    body = founder.core.settings.codec.encode(
        Hi(Contact(LogicalAddress((5,)), 1, 5, (endpoint(5),)))
    )
    for _ in range(3):
        founder.core.receive(Kind.PROTOCOL, body, whereabouts(5), 0.0)
    first, second, third = founder.node.greeted
    assert first is second is third


def test_what_is_remembered_of_repeated_messages_is_bounded() -> None:
    world = World()
    founder = world.join(1)
    for number in range(2000):
        source = Contact(LogicalAddress((5,)), number, 5, (endpoint(5),))
        body = founder.core.settings.codec.encode(Hi(source))
        founder.core.receive(Kind.PROTOCOL, body, whereabouts(5), 0.0)
    assert len(founder.core._decoder._repeated) <= 256
    assert len(founder.core.neighbors) == 1


@given(st.sampled_from([Kind.PROTOCOL, Kind.RENDEZVOUS, Kind.MEASUREMENT]), st.binary())
def test_any_bytes_are_counted_and_never_raised(kind: Kind, body: bytes) -> None:
    world = World()
    founder = world.join(1)
    before = founder.core.neighbors
    assert founder.core.receive(kind, body, whereabouts(2), 0.0) == []
    statistics = founder.core.statistics()
    assert sum(statistics.refused.values()) == 1
    assert statistics.received == {kind.name.lower(): 1}
    assert founder.core.neighbors == before


def test_a_message_of_another_overlay_is_counted() -> None:
    world = World()
    founder = world.join(1)
    world.perform(2, world.add(2, 1, overlay="other").core.join(0.0))
    world.run()
    assert founder.core.statistics().refused == {"other_overlay": 1}


def test_a_core_is_woken_for_whatever_is_due_first() -> None:
    world = World()
    founder = world.join(1, services=[ECHO])
    founder.node.next_deadline = 3.0
    assert founder.core.next_deadline == 3.0
    world.advance(4.0)
    assert founder.node.woken == [3.0]
    assert founder.core.next_deadline == 5.0
    world.advance(6.0)
    assert founder.core.next_deadline == inf
    assert founder.node.woken == [3.0]


def test_services_talk_to_their_like_and_to_the_application() -> None:
    world = World()
    founder, joiner = world.join(1, services=[ECHO]), world.join(2, 1, services=[ECHO])
    told = ContactFailed(Endpoint("127.0.0.1", 1), "of a service")
    assert told in founder.events
    world.advance(5.0)
    assert joiner.echo.heard == [b"woken", b"WOKEN"]
    assert founder.echo.heard == [b"WOKEN", b"woken"]
    assert (founder.delivered, joiner.delivered) == ([], [])
    world.perform(2, joiner.core.leave(world.now))
    world.run()
    assert joiner.echo.ended
    assert founder.echo.heard[2:] == [b"LEAVING"]


def test_a_service_holds_what_passes_and_lets_it_go() -> None:
    world = World()
    middle = world.join(1, services=[ECHO])
    left, right = world.join(2, 1, services=[ECHO]), world.join(3, 1, services=[ECHO])
    key = LogicalAddress((3,))
    world.forward(2, left.core.engine.originate_service(ECHO.id, [b"X"], Mode.UNICAST, key, 0.0))
    world.run()
    assert (len(middle.echo.held), right.echo.heard) == (1, [])
    world.perform(1, middle.core.wake(5.0))
    world.run()
    assert right.echo.heard == [b"X", b"woken"]
    assert [message.payload for message in right.delivered] == []


def test_members_that_do_not_run_a_service_pass_its_messages_on() -> None:
    world = World()
    middle = world.join(1)
    left, right = world.join(2, 1, services=[ECHO]), world.join(3, 1, services=[ECHO])
    for mode, key in ((Mode.UNICAST, LogicalAddress((3,))), (Mode.FLOOD, None)):
        dispatch = left.core.engine.originate_service(ECHO.id, [b"X"], mode, key, 0.0)
        world.forward(2, dispatch)
        world.run()
    assert right.echo.heard == [b"X", b"X"]
    assert middle.delivered == []
    assert middle.core.statistics().engine.dropped == {"unknown_service": 1}


class Odd(Echo):
    """Asks for something that no service may ask for."""

    def start(self, now: float) -> ServiceEffects:
        return [Measure(whereabouts(1))]  # type: ignore[list-item]


def test_what_is_no_effect_is_a_bug_that_shows() -> None:
    world = World()
    founder = world.add(1)
    founder.node.asks.append("nonsense")
    with pytest.raises(TypeError, match="not an effect: 'nonsense'"):
        founder.core.join(0.0)
    odd = ServiceSpec("odd", "Asks oddly.", EchoSettings, lambda context, settings: Odd())
    other = world.add(2, services=[odd])
    with pytest.raises(TypeError, match="not an effect of a service"):
        other.core.join(0.0)


def test_a_service_runs_once_on_a_socket() -> None:
    with pytest.raises(ConfigurationError, match="echo"):
        World().add(1, services=[ECHO, ServiceSpec("echo", "", EchoSettings, ECHO.create)])


def test_a_join_that_cannot_succeed_is_told() -> None:
    world = World()
    founder = world.add(1)
    error = AddressInUseError("held")
    founder.node.asks.append(Abort(error))
    world.perform(1, founder.core.join(0.0))
    assert founder.aborted == [error]


def test_members_that_disagree_are_told_in_what() -> None:
    world = World()
    world.join(1)
    other = world.add(2, 1, attribute="another")
    world.perform(2, other.core.join(0.0))
    world.run()
    (error,) = other.aborted
    assert "node is 'another' here and 'greeter' there" in str(error)
