"""What waits on a connection: lanes take turns by weight, and to pause one costs nothing."""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Callable

from hypothesis import example, given
from hypothesis import strategies as st

from board import TAG, frame
from opus_socket.adapters.base import Lane, Route
from opus_socket.adapters.flow import FlowSettings, Output, attended_by_nobody
from opus_socket.adapters.outgoing import CONTESTED_SIZE, RECORD_SIZE, Chunk, Outgoing
from opus_socket.adapters.turns import CLASS_TURN, ROUTE_TURN
from opus_socket.core.effects import Kind

ROUTES = [Route(TAG, number, 9) for number in range(3)]
LANES = [Lane(route, traffic_class) for route in ROUTES[:2] for traffic_class in (0, 255)]
STEPS = st.tuples(
    st.sampled_from(["add", "add view", "control", "pause", "resume", "take", "own", "discard"]),
    st.sampled_from(LANES),
    st.sampled_from([1, 1000, RECORD_SIZE]),
)
SIZES = st.one_of(st.integers(2000, 20_000), st.integers(2000, 200_000))
WEIGHTS = st.integers(1, 20)


def output(weight: int = 1) -> Output:
    return Output(None, FlowSettings(1 << 40), attended_by_nobody, weight=weight)


def chunk(
    lane: Lane, number: int, size: int, view: bool = False, into: Output | None = None
) -> Chunk:
    piece = number.to_bytes(4)
    pieces = [memoryview(bytearray(piece))] if view else (piece,)
    return Chunk(lane, Kind.OVERLAY, pieces, size, into, 1)


@given(st.lists(STEPS, max_size=80))
def test_each_lane_is_a_queue_of_its_own(steps: list[tuple[str, Lane, int]]) -> None:
    """Against one queue a lane: in order, paused ones left out, control first, nothing lost."""
    outgoing = Outgoing()
    queues: dict[Lane, deque[Chunk]] = defaultdict(deque)
    control: deque[bytes] = deque()
    paused: set[Lane] = set()
    for number, (what, lane, size) in enumerate(steps):
        if what.startswith("add"):
            new = chunk(lane, number, size, view=what == "add view")
            queues[lane].append(new)
            outgoing.add_data(new)
        elif what == "control":
            control.append(number.to_bytes(4))
            assert outgoing.add_control(lane.route, Kind.PROTOCOL, control[-1])
        elif what == "pause":
            paused.add(lane)
            outgoing.pause(lane)
        elif what == "resume":
            paused.discard(lane)
            outgoing.resume(lane)
        elif what == "discard":
            gone = queues[lane] if lane in paused else deque()
            assert outgoing.discard(lane) == list(gone)
            gone.clear()
        elif what == "own":
            outgoing.own_pieces()
            for queue in queues.values():
                assert all(type(each.pieces) is tuple for each in queue)
        else:
            _take_one(outgoing, queues, control, paused)
        free = [queue for each, queue in queues.items() if each not in paused]
        assert outgoing.is_paused(lane) is (lane in paused)
        assert outgoing.empty is not (bool(control) or any(queues.values()))
        assert outgoing.ready(data=True) is (bool(control) or any(free))
        assert outgoing.ready(data=False) is bool(control)
    rest = [each for each in outgoing.take_all() if each.kind is Kind.OVERLAY]
    assert sorted(rest, key=id) == sorted([each for q in queues.values() for each in q], key=id)
    assert outgoing.empty
    assert not outgoing.ready(data=True)


def _take_one(
    outgoing: Outgoing,
    queues: dict[Lane, deque[Chunk]],
    control: deque[bytes],
    paused: set[Lane],
) -> None:
    free = [queue for lane, queue in queues.items() if queue and lane not in paused]
    taken = outgoing.take(data=True)
    limit = CONTESTED_SIZE if len(free) > 1 else RECORD_SIZE
    assert outgoing.contested or control or len(free) < 2
    if control:
        assert [bytes(each.pieces[0]) for each in taken] == [control.popleft()]
    elif taken:
        assert taken[0].lane not in paused
        assert taken == [queues[taken[0].lane].popleft() for _ in taken]
        assert sum(each.size for each in taken[:-1]) < limit
    else:
        assert not any(queue for each, queue in queues.items() if each not in paused)


class Feed:
    """Lanes with chunks of given sizes, refilled as soon as they are taken: all stay backlogged."""

    def __init__(self, weights: dict[Lane, int], size: Callable[[Lane], int]) -> None:
        self.outgoing = Outgoing()
        self.outputs = {lane: output(weight) for lane, weight in weights.items()}
        self.size = size
        self.longest = 0
        self.got: Counter[Lane] = Counter()
        for lane in weights:
            self._fill(lane)

    def take(self) -> None:
        taken = self.outgoing.take(data=True)
        lane = taken[0].lane
        assert {each.lane for each in taken} == {lane}
        self.got[lane] += sum(each.size for each in taken)
        self._fill(lane, sum(each.size for each in taken))

    def _fill(self, lane: Lane, room: int = 2 * CONTESTED_SIZE) -> None:
        """As many bytes as were taken, so that a lane never runs out."""
        while room > 0:
            size = self.size(lane)
            self.longest = max(self.longest, size)
            room -= size
            self.outgoing.add_data(chunk(lane, 0, size, into=self.outputs[lane]))

    def excess(self, one: Lane, other: Lane, since: Counter[Lane]) -> float:
        """Bytes that a lane has had above its share, against another one, for unit weights."""
        had = {lane: self.got[lane] - since[lane] for lane in (one, other)}
        return had[one] / self.outputs[one].weight - had[other] / self.outputs[other].weight


@given(
    weights=st.lists(WEIGHTS, min_size=2, max_size=4),
    later=st.lists(WEIGHTS, min_size=4, max_size=4),
    sizes=st.lists(st.lists(SIZES, min_size=1, max_size=4), min_size=4, max_size=4),
    rounds=st.integers(1, 60),
)
@example(weights=[1, 3], later=[3, 1, 1, 1], sizes=[[200_000], [2000], [1], [1]], rounds=60)
def test_classes_share_by_weight(
    weights: list[int], later: list[int], sizes: list[list[int]], rounds: int
) -> None:
    """While two classes stay backlogged, what each has had for its weight differs by no more than
    one turn and one chunk, whatever the sizes. When the weights are changed, turns that have
    begun go on.
    """
    lanes = [Lane(ROUTES[0], number) for number in range(len(weights))]
    counts: Counter[Lane] = Counter()

    def size(lane: Lane) -> int:
        counts[lane] += 1
        mine = sizes[lane.traffic_class]
        return mine[counts[lane] % len(mine)]

    feed = Feed(dict(zip(lanes, weights, strict=True)), size)
    _check_shares(feed, lanes, rounds, 0)
    for lane, weight in zip(lanes, later, strict=False):
        feed.outputs[lane].weight = weight
    _check_shares(feed, lanes, rounds, CLASS_TURN + feed.longest)


def _check_shares(feed: Feed, lanes: list[Lane], rounds: int, begun: int) -> None:
    since = feed.got.copy()
    for _ in range(rounds):
        feed.take()
        heaviest = max(feed.outputs[lane].weight for lane in lanes)
        bound = CLASS_TURN / heaviest + feed.longest + rounds + begun
        for one in lanes:
            for other in lanes:
                assert abs(feed.excess(one, other, since)) <= bound


@given(sizes=st.tuples(SIZES, SIZES), classes=st.integers(1, 3), weight=WEIGHTS)
def test_routes_share_alike_whatever_their_classes(
    sizes: tuple[int, int], classes: int, weight: int
) -> None:
    """A member gains nothing by using more classes, or by giving them more weight."""
    alone = Lane(ROUTES[0], 0)
    many = [Lane(ROUTES[1], number) for number in range(classes)]
    feed = Feed({alone: 1, **dict.fromkeys(many, weight)}, lambda lane: sizes[lane != alone])
    for _ in range(80):
        feed.take()
        difference = feed.got[alone] - sum(feed.got[lane] for lane in many)
        assert abs(difference) <= ROUTE_TURN + max(sizes)


def test_a_class_that_comes_one_piece_at_a_time_gains_nothing() -> None:
    """What it took in advance it owes, also after it had nothing more for a moment."""
    small, large = Lane(ROUTES[0], 0), Lane(ROUTES[0], 1)
    outgoing = Outgoing()
    into = output()
    got: Counter[Lane] = Counter()
    for _ in range(100):
        outgoing.add_data(chunk(small, 0, 16_000, into=into))
    outgoing.add_data(chunk(large, 0, 160_000, into=into))
    while got[small] < 1_000_000:
        taken = outgoing.take(data=True)
        got[taken[0].lane] += sum(each.size for each in taken)
        if taken[0].lane == large:
            outgoing.add_data(chunk(large, 0, 160_000, into=into))
    assert abs(got[small] - got[large]) <= 160_000 + CLASS_TURN


def test_a_lone_lane_is_written_in_large_records() -> None:
    """Also while other routes are paused, and right after others have gone."""
    outgoing = Outgoing()
    alone, gone, paused = LANES[:3]
    for lane, count in ((paused, 1000), (alone, 3000), (gone, 500)):
        for number in range(count):
            outgoing.add_data(chunk(lane, number, 1000))
    outgoing.pause(paused)
    while outgoing._waiting > 1:
        assert sum(each.size for each in outgoing.take(data=True)) < CONTESTED_SIZE + 1000
    left = [len(taken) * 1000 for taken in iter(lambda: outgoing.take(data=True), [])]
    assert len(left) > 5
    assert all(size >= RECORD_SIZE for size in left[:-1])


def test_a_class_that_was_paused_catches_up() -> None:
    """What another class of its route had meanwhile counts, up to a bound."""
    into = {lane: output() for lane in LANES[:2]}
    one, other = into
    outgoing = Outgoing()
    got: Counter[Lane] = Counter()

    def take(count: int) -> None:
        for _ in range(count):
            taken = outgoing.take(data=True)
            got[taken[0].lane] += sum(each.size for each in taken)

    for lane in into:
        for number in range(3000):
            outgoing.add_data(chunk(lane, number, 1000, into=into[lane]))
    outgoing.pause(one)
    take(20)
    outgoing.resume(one)
    assert got[one] == 0
    assert got[other] >= 20 * CLASS_TURN
    while got[one] < got[other] - CLASS_TURN - 1000:
        before = got[other]
        take(1)
        assert got[other] == before
    take(60)
    assert abs(got[one] - got[other]) <= CLASS_TURN + 1000
    assert got[one] > 20 * CLASS_TURN


def test_a_long_batch_is_parted_where_others_wait() -> None:
    """At the ends of its messages, and nowhere else; a lone lane writes it as it is."""
    frames = [frame(b"x" * 3000, number, 255) for number in range(50)]
    size = sum(map(len, frames))
    outgoing = Outgoing()
    whole = Chunk(LANES[1], Kind.OVERLAY, tuple(frames), size, output(), len(frames))
    outgoing.add_data(whole)
    assert outgoing.take(data=True) == [whole]
    outgoing.add_data(whole)
    for number in range(100):
        outgoing.add_data(chunk(LANES[0], number, 3000))
    taken = [outgoing.take(data=True) for _ in range(40)]
    parts = [each for chunks in taken for each in chunks if each.lane == LANES[1]]
    assert b"".join(bytes(piece) for each in parts for piece in each.pieces) == b"".join(frames)
    assert sum(each.frames for each in parts) == 50
    assert all(each.size <= 1 << 14 for each in parts)
    assert outgoing.empty


def test_what_may_not_be_written_is_not_taken() -> None:
    outgoing = Outgoing()
    outgoing.add_data(chunk(LANES[0], 0, 10))
    assert outgoing.take(data=False) == []
    assert not outgoing.ready(data=False)
    assert outgoing.ready(data=True)
    outgoing.pause(LANES[0])
    assert not outgoing.ready(data=True)


def test_lanes_that_are_not_used_any_more_are_forgotten() -> None:
    """All but those that are paused, of which the other end may speak again."""
    outgoing = Outgoing()
    for number in range(5000):
        lane = Lane(Route(TAG, number, 9), number % 256)
        outgoing.add_data(chunk(lane, number, 10))
        assert len(outgoing.take(data=True)) == 1
        assert not outgoing.goes_on(data=True)
        if number % 1000 == 0:
            outgoing.pause(lane)
    assert len(outgoing._queues) <= 1024 + 1
    assert len(outgoing._rows) <= 1024 + 1
    assert all(outgoing.is_paused(Lane(Route(TAG, n, 9), n % 256)) for n in range(0, 5000, 1000))
