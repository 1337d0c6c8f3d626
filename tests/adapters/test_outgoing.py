"""What waits on a connection: routes take turns, and to pause one costs nothing."""

from __future__ import annotations

from collections import defaultdict, deque

from hypothesis import given
from hypothesis import strategies as st

from board import TAG
from opus_socket.adapters.base import Route
from opus_socket.adapters.outgoing import RECORD_SIZE, Chunk, Outgoing
from opus_socket.core.effects import Kind

ROUTES = [Route(TAG, number, 9) for number in range(4)]
STEPS = st.tuples(
    st.sampled_from(["add", "add view", "control", "pause", "resume", "take", "own", "discard"]),
    st.sampled_from(ROUTES),
    st.sampled_from([1, 1000, RECORD_SIZE]),
)


def chunk(route: Route, number: int, size: int, view: bool = False) -> Chunk:
    piece = number.to_bytes(4)
    pieces = [memoryview(bytearray(piece))] if view else (piece,)
    return Chunk(route, Kind.OVERLAY, pieces, size, None, 1)


@given(st.lists(STEPS, max_size=80))
def test_each_route_is_a_queue_of_its_own(steps: list[tuple[str, Route, int]]) -> None:
    """Against one queue a route: in order, paused ones left out, control first, nothing lost."""
    outgoing = Outgoing()
    queues: dict[Route, deque[Chunk]] = defaultdict(deque)
    control: deque[bytes] = deque()
    paused: set[Route] = set()
    for number, (what, route, size) in enumerate(steps):
        if what.startswith("add"):
            new = chunk(route, number, size, view=what == "add view")
            queues[route].append(new)
            outgoing.add_data(new)
        elif what == "control":
            control.append(number.to_bytes(4))
            assert outgoing.add_control(route, Kind.PROTOCOL, control[-1])
        elif what == "pause":
            paused.add(route)
            outgoing.pause(route)
        elif what == "resume":
            paused.discard(route)
            outgoing.resume(route)
        elif what == "discard":
            gone = queues[route] if route in paused else deque()
            assert outgoing.discard(route) == list(gone)
            gone.clear()
        elif what == "own":
            outgoing.own_pieces()
            for queue in queues.values():
                assert all(type(each.pieces) is tuple for each in queue)
        else:
            taken = outgoing.take(data=True)
            if control:
                assert [bytes(each.pieces[0]) for each in taken] == [control.popleft()]
            elif taken:
                assert taken[0].route not in paused
                assert taken == [queues[taken[0].route].popleft() for _ in taken]
                assert sum(each.size for each in taken[:-1]) < RECORD_SIZE
            else:
                assert not any(queue for each, queue in queues.items() if each not in paused)
        assert outgoing.is_paused(route) is (route in paused)
        assert outgoing.empty is not (bool(control) or any(queues.values()))
    rest = [each for each in outgoing.take_all() if each.kind is Kind.OVERLAY]
    assert sorted(rest, key=id) == sorted([each for q in queues.values() for each in q], key=id)
    assert outgoing.empty


def test_routes_take_turns() -> None:
    outgoing = Outgoing()
    for number in range(6):
        for route in ROUTES[: 1 if number >= 3 else 3]:
            outgoing.add_data(chunk(route, number, RECORD_SIZE))
    taken = [outgoing.take(data=True)[0].route for _ in range(12)]
    assert taken == [*ROUTES[:3] * 3, *ROUTES[:1] * 3]
    assert outgoing.take(data=True) == []


def test_what_may_not_be_written_is_not_taken() -> None:
    outgoing = Outgoing()
    outgoing.add_data(chunk(ROUTES[0], 0, 10))
    assert outgoing.take(data=False) == []
    assert not outgoing.ready(data=False)
    assert outgoing.ready(data=True)
    outgoing.pause(ROUTES[0])
    assert not outgoing.ready(data=True)
