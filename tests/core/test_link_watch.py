"""What is known of links once a second, and how a broken one is told from an idle one."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from core_world import World
from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.effects import Measure, Quantity
from opus_socket.core.events import ContactFailed, SourceBroken
from opus_socket.core.link_watch import (
    RTT_PERIOD,
    SILENT_LOOKS,
    AskLinks,
    LinkFigures,
    LinkWatch,
    Silent,
)
from opus_socket.core.measurement import Measured
from opus_socket.core.node import Measurement
from still_overlay import contact_of, member

INF = float("inf")
NEAR = contact_of(member(1))
FAR = contact_of(member(2))


@define(eq=False)
class Upstreams:
    """Sessions, as far as a watch asks: who brings any."""

    those: set[LogicalAddress] = field(factory=set)
    busy: bool = False

    def brought_by(self, neighbor: LogicalAddress, now: float) -> bool:
        return neighbor in self.those


@define(eq=False)
class Watching:
    """A watch that is given figures when it asks."""

    upstreams: Upstreams = field(factory=Upstreams)
    neighbors: dict[LogicalAddress, Contact] = field(factory=lambda: {member(1): NEAR})
    figures: list[LinkFigures] = field(factory=list)
    reported: list[tuple[Contact, Quantity, float | None]] = field(factory=list)
    pinged: list[tuple[float, Contact]] = field(factory=list)
    silent: list[Contact] = field(factory=list)
    answers: bool = True
    watch: LinkWatch = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.watch = LinkWatch(self.upstreams)  # type: ignore[arg-type]

    def hear(self, messages: int, size: int, now: float, contact: Contact = NEAR) -> None:
        assert contact.address is not None
        heard = self.watch.heard.get(contact.address) or self.watch.hear(contact, now)
        heard.messages += messages
        heard.size += size

    def advance(self, until: float) -> None:
        while (now := self.watch.due) <= until:
            [ask] = self.watch.wake(now)
            assert isinstance(ask, AskLinks)
            self.perform(self.watch.look(self.figures, self.neighbors, now), now)

    def perform(self, effects: Sequence[object], now: float) -> None:
        for effect in effects:
            match effect:
                case Measured(contact=contact, measurement=measurement):
                    self.reported.append((contact, measurement.quantity, measurement.value))
                case Measure(to=to, quantity=Quantity.RTT):
                    self.pinged.append((now, to))
                    value = 0.125 if self.answers else None
                    answer = self.watch.measured(to, Measurement(Quantity.RTT, value))
                    self.perform(answer, now)
                case Silent(contact=contact):
                    self.silent.append(contact)
                case _:
                    raise AssertionError(effect)


def sent(messages: int, size: int, queued: int = 0, lost: int = 0) -> list[LinkFigures]:
    return [LinkFigures(NEAR, messages, size, queued, lost, 10 * lost)]


@given(
    heard=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5000)), min_size=1, max_size=8),
    taken=st.lists(st.tuples(st.integers(0, 50), st.integers(0, 5000)), min_size=8, max_size=8),
)
def test_rates_are_what_came_and_went_in_a_second(
    heard: list[tuple[int, int]], taken: list[tuple[int, int]]
) -> None:
    """The node is told the same rates that the statistics show, and sums are kept."""
    watching = Watching()
    watching.watch.begin(0.0)
    messages = size = out = out_size = 0
    for second, ((more, bytes_more), (went, bytes_went)) in enumerate(
        zip(heard, taken, strict=False)
    ):
        if more:
            watching.hear(more, bytes_more, second + 0.25)
        watching.watch.begin(second + 0.5)
        messages += more
        size += bytes_more if more else 0
        out += went
        out_size += bytes_went
        watching.figures = sent(out, out_size)
        watching.reported.clear()
        elapsed = watching.watch.due - watching.watch._since
        watching.advance(watching.watch.due)
        [link] = watching.watch.statistics()
        assert (link.sent, link.sent_size) == (out, out_size)
        assert (link.received, link.received_size) == (messages, size)
        assert link.received_per_second == pytest.approx(more / elapsed)
        assert link.sent_bytes_per_second == pytest.approx(bytes_went / elapsed)
        rates = {quantity: value for _, quantity, value in watching.reported}
        if rates:
            assert rates[Quantity.SENT] == link.sent_bytes_per_second
            assert rates[Quantity.RECEIVED] == link.received_bytes_per_second
            assert rates[Quantity.LOST] == 0.0
        else:
            assert not any((more, went, bytes_went))


def test_what_waits_is_not_sent_and_what_is_dropped_is_lost() -> None:
    watching = Watching()
    watching.watch.begin(0.0)
    watching.figures = sent(10, 1000, queued=400, lost=3)
    watching.advance(1.0)
    [link] = watching.watch.statistics()
    assert (link.sent_size, link.lost, link.lost_size) == (600, 3, 30)
    assert (link.sent_bytes_per_second, link.lost_per_second) == (600.0, 3.0)
    assert (NEAR, Quantity.LOST, 3.0) in watching.reported


def test_an_idle_member_has_no_deadline() -> None:
    """The looks end with the traffic; nothing is sent but the one ping for the round trip."""
    watching = Watching()
    assert watching.watch.due == INF
    watching.hear(1, 100, 0.5)
    assert watching.watch.due == 1.5
    watching.advance(100.0)
    assert watching.watch.due == INF
    assert watching.pinged == [(1.5, NEAR)]
    [link] = watching.watch.statistics()
    assert (link.rtt, link.received_per_second) == (0.125, 0.0)
    # The next message is heard again.
    watching.hear(1, 100, 200.0)
    watching.advance(201.0)
    assert watching.watch.statistics()[0].received_per_second == 1.0
    assert watching.watch.statistics()[0].received == 2


def test_a_busy_link_is_pinged_once_in_ten_seconds() -> None:
    watching = Watching()
    for tenth in range(1000):
        watching.hear(1, 100, tenth / 10)
        watching.advance(tenth / 10)
    pinged = [now for now, _ in watching.pinged]
    assert len(pinged) == 100 // RTT_PERIOD
    assert all(later - earlier >= RTT_PERIOD for earlier, later in zip(pinged, pinged[1:]))  # noqa: B905, RUF007


@pytest.mark.parametrize("answers", [True, False])
def test_after_five_silent_seconds_one_ping_decides(answers: bool) -> None:
    """Where a session came from there, and nowhere else; who answers is asked no more."""
    watching = Watching(Upstreams({member(1)}), {member(1): NEAR, member(2): FAR})
    watching.hear(1, 100, 0.0)
    watching.hear(1, 100, 0.0, FAR)
    watching.advance(1.0)
    watching.pinged.clear()
    watching.answers = answers
    watching.advance(100.0)
    assert watching.pinged == [(1.0 + SILENT_LOOKS, NEAR)]
    assert watching.silent == ([] if answers else [NEAR])
    assert watching.watch.due == INF


def test_who_brings_something_while_a_ping_is_under_way_is_not_lost() -> None:
    watching = Watching(Upstreams({member(1)}))
    watching.hear(1, 100, 0.0)
    watching.advance(4.0)
    effects: list[object] = []
    now = 4.0
    while not effects or not isinstance(effects[-1], Measure):
        now = watching.watch.due
        watching.watch.wake(now)
        effects = list(watching.watch.look((), watching.neighbors, now))
    watching.hear(1, 100, now + 0.5)
    assert watching.watch.measured(NEAR, Measurement(Quantity.RTT, None)) == ()


@pytest.mark.parametrize("answers", [True, False])
def test_who_takes_nothing_of_its_queue_is_asked(answers: bool) -> None:
    watching = Watching()
    watching.watch.begin(0.0)
    watching.figures = sent(10, 1000, queued=1000)
    watching.answers = answers
    watching.advance(1.0)
    watching.pinged.clear()
    watching.advance(2.0 + SILENT_LOOKS)
    assert len(watching.pinged) == 1
    assert watching.silent == ([] if answers else [NEAR])
    # As long as something waits it is looked at, and asked in turn.
    watching.advance(20.0)
    assert watching.watch.due < INF
    assert 3 <= len(watching.pinged) <= 5


def test_a_late_driver_is_no_silence_of_others() -> None:
    """One look after a minute of standstill is one silent look."""
    watching = Watching(Upstreams({member(1)}))
    watching.hear(1, 100, 0.0)
    watching.advance(1.0)
    watching.watch.look((), watching.neighbors, 61.0)
    assert watching.pinged == [(1.0, NEAR)]
    assert watching.watch.due == 62.0


def test_who_is_no_neighbor_is_forgotten_and_who_came_back_begins_anew() -> None:
    watching = Watching()
    watching.hear(5, 100, 0.0)
    watching.advance(1.0)
    restarted = Contact(NEAR.address, 99, 0, NEAR.endpoints)
    watching.neighbors = {member(1): restarted}
    watching.advance(2.0)
    watching.watch.heard.clear()
    watching.hear(2, 50, 2.5, restarted)
    watching.advance(4.0)
    assert [link.received for link in watching.watch.statistics()] == [2]
    assert watching.watch.measured(NEAR, Measurement(Quantity.RTT, 0.5)) == ()
    watching.neighbors = {}
    watching.watch.begin(50.0)
    watching.advance(51.0)
    assert watching.watch.statistics() == ()


def test_who_leaves_looks_no_more() -> None:
    watching = Watching()
    watching.hear(1, 100, 0.0)
    watching.watch.end()
    watching.watch.begin(1.0)
    assert watching.watch.due == INF


# In a core


def test_a_neighbor_that_falls_silent_is_reported_to_everybody_whom_it_concerns() -> None:
    """To the node, as a failed link; to the application, as a contact that failed and as a source
    that broke off. Whoever is only idle is not.
    """
    world = World()
    source, receiver = world.join(1), world.join(2, 1)
    for second in range(3):
        world.advance(float(second))
        world.send(1, b"x")
    world.advance(30.0)
    assert receiver.node.failed == []
    world.send(1, b"y")
    del world.members[1]
    receiver.events.clear()
    world.advance(60.0)
    assert receiver.node.failed == [source.node.address]
    failed, broken = receiver.events
    assert isinstance(failed, ContactFailed)
    assert failed.endpoint == source.core.contact.endpoints[0]
    assert failed.neighbor == source.node.address
    assert broken == SourceBroken(source.node.address, source.node.address)
    assert receiver.core.next_deadline == INF


def test_a_node_is_told_what_its_links_carry() -> None:
    world = World()
    source, receiver = world.join(1), world.join(2, 1)
    for tenth in range(40):
        world.advance(tenth / 10)
        world.send(1, bytes(100))
    world.advance(3.95)
    [link] = source.core.statistics().links
    frame = link.sent_size / link.sent
    for member_, quantity in ((source, Quantity.SENT), (receiver, Quantity.RECEIVED)):
        told = [m.value for _, m in member_.node.measurements if m.quantity is quantity]
        assert len(told) == 3
        assert told[1:] == [pytest.approx(10 * frame)] * 2
    [session] = receiver.core.statistics().sessions
    assert (session.source, session.upstream) == (source.node.address, source.node.address)
    assert (session.messages, session.missing) == (40, 0)
