"""The host's loop, with the small protocol of `core_world` in place of a topology."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from random import Random

import pytest
import trio
from attrs import define, field

from core_world import GREETER, GreeterSettings, Hi
from opus_socket import loop
from opus_socket.adapters import local
from opus_socket.adapters.base import EVERY_INDEX, Route
from opus_socket.adapters.flow import Dropped, FlowSettings, Output
from opus_socket.adapters.inbox import Inbox
from opus_socket.adapters.pool import TcpPort
from opus_socket.adapters.udp import UdpPort
from opus_socket.core import datagram
from opus_socket.core.addresses import ANY_INDEX, Contact, Endpoint, LogicalAddress, OverlayID
from opus_socket.core.contacts import FinderSettings
from opus_socket.core.effects import Effects, Kind, Send, Transmit
from opus_socket.core.engine import EngineSettings
from opus_socket.core.events import (
    ContactFailed,
    Event,
    MessageLost,
    MessagesDropped,
    NeighborRemoved,
)
from opus_socket.core.key_attributes import KeyAttributes
from opus_socket.core.node import Mode
from opus_socket.core.origin import Origin
from opus_socket.core.overlay import CoreSettings, OverlayCore
from opus_socket.core.wire import ProtocolMessage
from opus_socket.driver import Host
from opus_socket.member import Member, Port
from opus_socket.opening import _bind_both

PATIENCE = 10.0
LAB = OverlayID("lab")


@define(eq=False)
class Bench:
    """A running host, and members on it that were made by hand."""

    host: Host = field(factory=Host)
    events: dict[int, list[Event]] = field(factory=dict)

    def port(self) -> Port:
        udp_socket, tcp = _bind_both("127.0.0.1", 0, True, True)
        assert udp_socket is not None
        assert tcp is not None
        endpoint = Endpoint("127.0.0.1", tcp.getsockname()[1])
        udp = UdpPort(self.host, udp_socket)
        port = Port(endpoint, (endpoint,), udp, TcpPort(self.host, tcp, endpoint, self.host.lost))
        self.host.add_port(port)
        return port

    def member(
        self,
        port: Port,
        *buddies: Port,
        local: bool = True,
        flow: FlowSettings | None = None,
        receive: FlowSettings | None = None,
    ) -> Member:
        """A member that joins by these buddies; its number is its index."""
        number = self.host.next_index()
        met = [Contact(None, 0, ANY_INDEX, (buddy.endpoint,)) for buddy in buddies]
        settings = CoreSettings(
            LAB,
            GREETER,
            GreeterSettings(number),
            KeyAttributes([("node", "greeter")]),
            FinderSettings(buddies=tuple(met)),
            EngineSettings(),
        )
        contact = Contact(None, number + 1, number, port.endpoints)
        limits = receive or FlowSettings(1 << 20)
        member = Member(
            core=OverlayCore(settings, contact, Random(number)),
            tag=LAB.tag,
            port=port,
            flow=flow or FlowSettings(1 << 20),
            local_handover=local,
            maximum_packet=16_384,
            group=None,
            inbox=Inbox(Output(None, limits, self.host.links.look_soon), self.host.now),
            place=Contact(None, 0, number, (port.endpoint,)),
        )
        self.events[number] = []
        member.publish = self.events[number].append
        self.host.admit(member)
        self.host.perform(member, member.core.join(self.host.now()))
        return member

    def send(self, member: Member, payload: bytes, blockers: list[Output] | None) -> None:
        now = self.host.now()
        dispatch = member.core.originate([payload], Mode.MULTICAST, None, now)
        self.host.forward(member, dispatch, blockers)
        self.host.flush_lone()

    async def until(self, condition: Callable[[], bool]) -> None:
        with trio.fail_after(PATIENCE):
            while not condition():
                await self.host.wait_turn()


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with _running() as running:
        yield running


@asynccontextmanager
async def _running() -> AsyncIterator[Bench]:
    bench = Bench()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bench.host.run)
        try:
            yield bench
        finally:
            bench.host.close()
            nursery.cancel_scope.cancel()
    bench.host.release()


async def test_calls_are_made_in_the_order_of_their_times(bench: Bench) -> None:
    made: list[str] = []
    start = bench.host.now()
    bench.host.call_at(start + 0.03, lambda: made.append("late"))
    bench.host.call_at(start + 0.01, lambda: made.append("first"))
    bench.host.call_at(start + 0.01, lambda: made.append("second"))
    bench.host.call_at(start - 1.0, lambda: made.append("overdue"))

    def call_again() -> None:
        made.append("calls")
        bench.host.call_at(start, lambda: made.append("called"))

    bench.host.call_at(start + 0.02, call_again)
    await bench.until(lambda: len(made) == 6)
    assert made == ["overdue", "first", "second", "calls", "called", "late"]
    assert bench.host.now() >= start + 0.03


async def test_a_call_that_is_due_earlier_shortens_the_wait(bench: Bench) -> None:
    made: list[str] = []
    bench.host.call_at(bench.host.now() + 3600, lambda: made.append("in an hour"))
    await trio.testing.wait_all_tasks_blocked()
    bench.host.call_at(bench.host.now() + 0.01, lambda: made.append("soon"))
    await bench.until(lambda: made == ["soon"])


async def test_packets_in_hand_come_before_deadlines(bench: Bench) -> None:
    """A loop that is late hears its neighbors before it judges them."""
    port = bench.port()
    member = bench.member(port)
    order: list[str] = []
    heard = member.core.receive

    def receive(kind: Kind, body: bytes, sender: Contact, now: float) -> object:
        order.append("packet")
        return heard(kind, body, sender, now)

    object.__setattr__(member, "core", _Watched(member.core, receive))
    bench.host.call_at(bench.host.now() + 0.02, lambda: order.append("deadline"))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        head = datagram.pack(Kind.PROTOCOL, 0, LAB.tag, member.index, 0, b"x")
        for _ in range(600):
            sock.sendto(head, port.endpoint[:2])
    stop = bench.host.now() + 0.1
    while bench.host.now() < stop:
        pass
    await bench.until(lambda: "deadline" in order)
    assert order == ["packet"] * 600 + ["deadline"]


class _Watched:
    """A core whose `receive` is another one."""

    def __init__(self, core: OverlayCore, receive: Callable[..., object]) -> None:
        self._core = core
        self.receive = receive

    def __getattr__(self, name: str) -> object:
        return getattr(self._core, name)


async def test_deadlines_are_not_starved_by_packets(bench: Bench) -> None:
    """A socket that is always ready postpones them, but not for long."""
    ours, theirs = socket.socketpair()
    reads = 0

    def read(mask: int) -> None:
        nonlocal reads
        reads += 1

    bench.host.poller.add(ours, 1, read)
    theirs.send(b"x")
    made: list[float] = []
    due = bench.host.now() + 0.01
    bench.host.call_at(due, lambda: made.append(bench.host.now()))
    await bench.until(lambda: bool(made))
    assert made[0] - due < loop.LATEST_WAKE + 0.5
    assert reads > 10
    bench.host.poller.remove(ours)
    ours.close()
    theirs.close()


async def test_messages_for_nobody_are_counted(bench: Bench) -> None:
    port = bench.port()
    member = bench.member(port)
    routes = [
        Route(LAB.tag, 99, 5),
        Route(LAB.tag + 1, member.index, 5),
        Route(LAB.tag + 1, ANY_INDEX, 5),
    ]
    sender = Contact(None, 0, 5, (Endpoint("127.0.0.1", 9),))
    for route in routes:
        bench.host.message(route, Kind.PROTOCOL, b"x", sender)
        used, broken = bench.host.frames(route, memoryview(b"anything"), sender, [])
        assert (used, broken) == (8, None)
    assert bench.host.statistics().refused == {"nobody": 6}


async def test_a_question_to_anybody_is_answered_by_one_and_the_group_is_heard_by_all(
    bench: Bench,
) -> None:
    port = bench.port()
    members = [bench.member(port), bench.member(port), bench.member(port)]
    sender = Contact(None, 0, 5, (Endpoint("127.0.0.1", 9),))

    def heard() -> list[int]:
        return [member.core.statistics().received.get("measurement", 0) for member in members]

    bench.host.message(Route(LAB.tag, ANY_INDEX, 5), Kind.MEASUREMENT, b"?", sender)
    assert heard() == [1, 0, 0]
    bench.host.message(Route(LAB.tag, EVERY_INDEX, 5), Kind.MEASUREMENT, b"?", sender)
    assert heard() == [2, 1, 1]


@pytest.mark.parametrize("local", [True, False])
async def test_members_meet_and_talk(bench: Bench, local: bool) -> None:
    a_port, b_port = bench.port(), bench.port()
    a = bench.member(a_port, local=local)
    b = bench.member(b_port, a_port, local=local)
    await bench.until(lambda: bool(a.core.neighbors) and bool(b.core.neighbors))
    for number in range(10):
        bench.send(a, str(number).encode(), [])
    await bench.until(lambda: len(b.inbox) == 10)
    assert [m.payload for m in b.inbox.take(100)] == [str(n).encode() for n in range(10)]
    assert (a_port.tcp is not None and a_port.tcp.quiet) is local


async def test_a_core_is_woken_for_fragments_that_do_not_come(
    autojump_clock: trio.testing.MockClock, bench: Bench
) -> None:
    """Nothing but frames that came has set its deadline."""
    port = bench.port()
    source, member = bench.member(port), bench.member(port)
    await bench.until(lambda: source.core.stable and member.core.stable)
    origin = Origin(EngineSettings(), source.core.contact.incarnation)
    origin.move(source.core.node.address)
    plan = origin.plan(Mode.MULTICAST, None, None, 0, None)
    first, _, pieces, _ = origin.make(plan, [bytes(40_000)])
    _, _, later, _ = origin.make(plan, [b"later"])
    told = bench.events[member.index]
    told.clear()
    route, sender = Route(LAB.tag, member.index, source.index), source.core.contact
    bench.host.frames(route, memoryview(b"".join(pieces))[:20_000], sender, [])
    bench.host.frames(route, memoryview(b"".join(later)), sender, [])
    await trio.sleep(9.9)
    assert told == []
    await trio.sleep(0.2)
    identity = source.core.contact.incarnation, first
    assert told == [MessageLost(identity, None, "incomplete", member.core.node.address)]


async def test_the_first_message_goes_at_once_and_more_in_a_turn_together(bench: Bench) -> None:
    a_port, b_port = bench.port(), bench.port()
    a = bench.member(a_port, local=False)
    b = bench.member(b_port, a_port, local=False)
    await bench.until(lambda: bool(a.core.neighbors) and bool(b.core.neighbors))
    bench.send(a, b"opens the connection", [])
    await bench.until(lambda: len(b.inbox) == 1)
    await trio.testing.wait_all_tasks_blocked()
    assert a_port.tcp is not None
    (connection,) = a_port.tcp._connections.values()
    before = connection.sent
    bench.send(a, b"first", [])
    after = connection.sent
    assert after > before
    for _ in range(5):
        bench.send(a, b"more", [])
    assert connection.sent == after
    await bench.until(lambda: len(b.inbox) == 7)


async def test_whoever_cannot_wait_finds_a_closed_output_full(bench: Bench) -> None:
    """What a service or a datagram brings is dropped and counted, for neighbors and here."""
    small = FlowSettings(1000, stall_timeout=60.0)
    a_port, b_port = bench.port(), bench.port()
    a = bench.member(a_port, flow=small)
    b = bench.member(b_port, a_port, receive=small)
    await bench.until(lambda: bool(a.core.neighbors) and bool(b.core.neighbors))
    for _ in range(4):
        bench.send(a, bytes(1500), [])
        await bench.host.wait_turn()
    (link,) = a.links.values()
    assert link.output.closed
    queued = link.output.queued
    for _ in range(10):
        bench.send(a, bytes(1500), None)
    assert (link.output.queued, link.output.dropped) == (queued, 10)
    own = a.core.originate([bytes(1500)], Mode.UNICAST, a.core.node.address, bench.host.now())
    delivered = list(own.delivered)
    a.inbox.output.closed = True
    own.delivered = delivered * 3
    bench.host.forward(a, own, None)
    assert (len(a.inbox), a.inbox.output.dropped) == (0, 3)
    await bench.until(lambda: len(_dropped(bench, a)) == 2)
    assert {(each.count, each.reason, each.neighbor) for each in _dropped(bench, a)} == {
        (10, "overflow", LogicalAddress((b.index,))),
        (3, "overflow", None),
    }


def _dropped(bench: Bench, member: Member) -> list[MessagesDropped]:
    return [each for each in bench.events[member.index] if isinstance(each, MessagesDropped)]


async def test_what_a_former_neighbor_does_not_get_is_told(bench: Bench) -> None:
    """Its link is gone; what was queued for it and is lost is counted all the same."""
    a_port, b_port = bench.port(), bench.port()
    a = bench.member(a_port, local=False)
    b = bench.member(b_port, a_port, local=False)
    await bench.until(lambda: bool(a.core.neighbors) and bool(b.core.neighbors))
    assert b_port.tcp is not None
    b_port.tcp.close()
    for _ in range(3):
        bench.send(a, b"x", [])
    (link,) = a.links.values()
    assert link.output.queued > 0
    bench.host.perform(b, b.core.leave(bench.host.now()))
    await bench.until(lambda: a.links == {})
    await bench.until(lambda: bool(_dropped(bench, a)))
    removed = [each for each in bench.events[a.index] if isinstance(each, NeighborRemoved)]
    assert [each.contact.index for each in removed] == [b.index]
    assert sum(each.count for each in _dropped(bench, a)) == 3
    assert link.output.queued == 0
    size = link.output.dropped_size
    assert size > 0
    assert a.losses == {_dropped(bench, a)[-1].reason: Dropped(3, size)}


async def test_a_lost_connection_is_told_to_those_who_used_it(bench: Bench) -> None:
    """Members at other endpoints of this process have connections of their own."""
    ports = [bench.port() for _ in range(3)]
    there = bench.member(ports[0], local=False)
    here = bench.member(ports[1], ports[0], local=False)
    other = bench.member(ports[2], ports[0], local=False)
    await bench.until(lambda: len(there.core.neighbors) == 2 and other.core.stable)
    await bench.until(lambda: bool(here.core.neighbors))
    bench.host.lost(ports[1].endpoint, ports[0].endpoint[:2], "for a test")
    place = Endpoint(*ports[0].endpoint[:2])
    failed = ContactFailed(place, "for a test", there.core.node.address)
    assert failed in bench.events[here.index]
    assert failed not in bench.events[other.index]


async def test_hand_over_of_control_is_bounded(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local, "MAX_MESSAGES", 5)
    port = bench.port()
    a, b = bench.member(port), bench.member(port)
    ping = Transmit(b.core.contact, Kind.MEASUREMENT, b"x")
    bench.host.perform(a, [ping] * 20)
    assert bench.host.statistics().refused["local_overflow"] >= 15
    await bench.until(lambda: b.core.statistics().received.get("measurement", 0) >= 5)
    assert b.core.statistics().received["measurement"] == 5


async def test_control_is_handed_over_however_many_feed_others(bench: Bench) -> None:
    """It has its turn after each of those who have always something to hand over."""
    port = bench.port()
    a, b = bench.member(port), bench.member(port)
    await bench.until(lambda: a.core.stable and b.core.stable)
    heard_after: list[int] = []
    runs = 0

    @define(eq=False)
    class Busy:
        def run(self) -> None:
            nonlocal runs
            runs += 1
            if not heard_after and b.core.statistics().received.get("measurement"):
                heard_after.append(runs)
            if runs < 1000:
                bench.host.run_later(self)

    for _ in range(100):
        bench.host.run_later(Busy())
    bench.host.perform(a, [Transmit(b.core.contact, Kind.MEASUREMENT, b"x")] * 3)
    await bench.until(lambda: runs >= 1000)
    assert heard_after == [2]


async def test_a_protocol_message_is_handed_over_as_it_is(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Bytes are made of it only where it leaves the process, or where its size counts."""
    port = bench.port()
    a, b = bench.member(port), bench.member(port)
    heard: list[ProtocolMessage] = []

    def receive(message: ProtocolMessage, sender: Contact, now: float) -> Effects:
        heard.append(message)
        return ()

    monkeypatch.setattr(b.core.node, "receive", receive)
    message = Hi(a.core.contact)
    bench.host.perform(a, [Send(b.core.contact, message)])
    await bench.until(lambda: any(each is message for each in heard))
    assert message.encoded is None


async def test_a_member_that_left_lingers_until_it_has_nothing_to_do(bench: Bench) -> None:
    port = bench.port()
    member = bench.member(port)
    member.leaving = True
    bench.host.perform(member, member.core.leave(bench.host.now()))
    member.core.node.next_deadline = bench.host.now() + 0.05  # type: ignore[misc]
    bench.host.perform(member, ())
    assert bench.host.statistics().members == 1
    await bench.until(lambda: bench.host.statistics().members == 0)
    assert bench.host.digest(LAB.tag) is None
