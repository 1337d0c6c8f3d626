"""What a server remembers of one overlay, and the admission window in a storm of joiners."""

from __future__ import annotations

from math import dist
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.rendezvous.admission import LONGEST_WAIT, SHORTEST_WAIT, Admission
from opus_socket.rendezvous.cache import Cache
from rendezvous.conversation import SERVER, Host, Joiner, Wire, founders, place, seen

SAMPLE = 6
LEADERS = 4
RECENT = 5


class CacheMachine(RuleBasedStateMachine):
    """Members join, lead, leave and fail in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = Cache(0, Admission(5.0, 100), SAMPLE, LEADERS, Random(1))
        self.alive: set[int] = set()
        self.now = 0.0

    @rule(number=st.integers(0, 20), leads=st.booleans(), seconds=st.floats(0, 3))
    def tells_of_itself(self, number: int, leads: bool, seconds: float) -> None:
        self.now += seconds
        address = LogicalAddress((number, 7)) if number % 3 else None
        sender, contact = seen(place(number)), Contact(address, 1, 0, (place(number),))
        until = self.now + 10.0 if leads else 0.0
        joined = number not in self.alive
        member = self.cache.note(sender, contact, until, self.now, joined=joined)
        assert member is None or self.cache.members[sender] is member
        self.cache.register(sender, RECENT, self.now)
        self.alive.add(number)

    @rule(number=st.integers(0, 20))
    def leaves(self, number: int) -> None:
        if number in self.alive:
            self.cache.left(seen(place(number)))
            self.alive.discard(number)

    @rule(choice=st.integers(0, 20))
    def fails(self, choice: int) -> None:
        members = list(self.cache.members.values())
        if members:
            self.cache.failed(members[choice % len(members)])

    @rule(asker=st.integers(0, 20), leads=st.booleans(), at=st.none() | st.integers(0, 20))
    def is_told(self, asker: int, leads: bool, at: int | None) -> None:
        who = seen(place(asker))
        address = None if at is None else LogicalAddress((at, at))
        cache = self.cache
        told = cache.tell_leader(who, self.now) if leads else cache.tell_joiner(who, address)
        others = len(self.cache.members) - (seen(place(asker)) in self.cache.members)
        assert len({member.sender for member in told}) == len(told) == min(16, others)
        assert seen(place(asker)) not in [member.sender for member in told]

    @invariant()
    def is_bounded(self) -> None:
        sampled = sum(member.sampled for member in self.cache.members.values())
        assert sampled <= SAMPLE
        assert len(self.cache.members) - sampled <= LEADERS
        assert len(self.cache.recent) <= RECENT

    @invariant()
    def knows_how_many(self) -> None:
        """None when none is remembered, and never fewer than are."""
        assert self.cache.size >= len(self.cache.members)
        assert (self.cache.size == 0) == (not self.cache.members)


TestCache = CacheMachine.TestCase


@given(
    st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), max_size=60, unique=True),
    st.tuples(st.integers(0, 50), st.integers(0, 50)),
)
def test_half_of_those_told_to_a_joiner_are_the_nearest(
    places: list[tuple[int, int]], wanted: tuple[int, int]
) -> None:
    cache = Cache(0, Admission(5.0, 100), 100, LEADERS, Random(1))
    for number, at in enumerate(places, 1):
        contact = Contact(LogicalAddress(at), 1, 0, (place(number),))
        cache.note(seen(place(number)), contact, 0.0, 0.0, joined=True)
    told = cache.tell_joiner(seen(place(999)), LogicalAddress(wanted))
    assert len({member.sender for member in told}) == len(told) == min(16, len(places))
    told_at = sorted(
        dist(wanted, member.contact.address) for member in told if member.contact.address
    )
    assert told_at[:8] == sorted(dist(wanted, at) for at in places)[:8]


def test_the_size_is_exact_as_long_as_all_are_remembered() -> None:
    cache = Cache(0, Admission(5.0, 100), 100, LEADERS, Random(1))
    for number in range(50):
        sender = seen(place(number))
        for _ in range(3):
            cache.note(sender, sender, 0.0, 0.0, joined=False)
    for number in range(20):
        for _ in range(3):
            cache.left(seen(place(number)))
    cache.failed(cache.members[seen(place(30))])
    assert cache.size == len(cache.members) == 29


def test_a_thousand_at_once_join_fast_and_ask_seldom() -> None:
    """Without a window all would be given the founder; with one, nobody waits much longer than
    the rounds of joins that it takes, and nobody asks more than a few times.
    """
    w = Wire(Random(1), delay=0.005)
    server = Host(w, place(1))
    joiners = [Joiner(w, 2 + number, SERVER, join_time=0.1).join() for number in range(1000)]
    w.run(30.0)
    assert founders(joiners) == 1
    times = [joiner.stable_at for joiner in joiners if joiner.stable_at is not None]
    assert len(times) == 1000
    # From 1 to 1,000 members by max(8, a quarter) a round takes 20 rounds of 0.1 seconds.
    assert 2.0 < max(times) < 20 * 0.1 * 1.75
    assert server.machine.statistics().waiting < 6 * 1000


def test_waits_follow_the_measured_duration_of_joins() -> None:
    slow, fast = Admission(60.0, 100), Admission(60.0, 100)
    for admission, duration in ((slow, 2.0), (fast, 0.1)):
        for number in range(100):
            admission.admit(seen(place(number)), 0, 100, float(number))
            admission.confirm(seen(place(number)), number + duration)
        for number in range(25):
            admission.admit(seen(place(number)), 0, 100, 200.0)
    _, long = slow.wait(0, 100, Random(1), 200.0)
    _, short = fast.wait(0, 100, Random(1), 200.0)
    assert SHORTEST_WAIT <= short < long / 5 <= LONGEST_WAIT


def test_those_who_wait_no_more_are_forgotten() -> None:
    admission = Admission(60.0, 100)
    admission.admit(seen(place(1)), 0, 0, 0.0)
    for _ in range(10_000):
        admission.wait(0, 0, Random(1), 0.0)
    _, crowded = admission.wait(0, 0, Random(1), 1.0)
    admission.expire(100.0)
    _, alone = admission.wait(0, 0, Random(1), 100.0)
    assert alone < crowded
