"""Who learns that a source is cut off, and who does not (iOverlay, Middleware 2004, section 2)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from opus_socket.core.events import SourceBroken, SourceRestored
from opus_socket.core.node import Mode
from opus_socket.core.sessions import GRACE, LIFETIME, SESSIONS, BrokenSource
from opus_socket.core.wire import Codec
from overlay_of_sessions import World
from still_overlay import Neighbors, graphs, member

LINE: Neighbors = {0: [1], 1: [0, 2], 2: [1, 3], 3: [2]}


def subtree(world: World, root: int, top: int) -> set[int]:
    """The members below one in the tree of a root, found upward from each of them."""
    below = set()
    for index in world.members:
        at = index
        while at != root:
            at = world.members[at].node.trees[member(root)][0]  # type: ignore[index]
            if at == top:
                below.add(index)
                break
    return below


@given(graphs(), st.data())
def test_exactly_those_below_a_crash_learn_of_it(graph: Neighbors, data: st.DataObject) -> None:
    """Of each source that multicasts, the members whose way leads through the crashed one get one
    event, and nobody else gets any; a source that has said nothing concerns nobody.
    """
    world = World(graph)
    sources = data.draw(st.lists(st.sampled_from(sorted(graph)), unique=True, max_size=4))
    crashed = data.draw(st.sampled_from(sorted(graph)))
    for source in sources:
        world.send(source)
    world.crash(crashed)
    world.advance(world.now + GRACE)
    expected: dict[int, set[int]] = {}
    for source in sources:
        for index in subtree(world, source, crashed):
            expected.setdefault(index, set()).add(source)
    got = world.events()
    assert {index: {e.source[0] for e in events} for index, events in got.items()} == expected  # type: ignore[union-attr]
    for index, events in got.items():
        assert all(isinstance(event, SourceBroken) for event in events)
        assert len(events) == len(expected[index])
        for event in events:
            assert isinstance(event, SourceBroken)
            assert event.via == world.members[index].node.trees[event.source]


@given(graphs(), st.data())
def test_a_flood_breaks_only_where_nobody_else_brings_it(
    graph: Neighbors, data: st.DataObject
) -> None:
    """After a crash the graph falls apart; who is still connected to the source hears nothing but
    what its neighbors, cut off in good faith, tell it, and that it ignores.
    """
    world = World(graph)
    source = data.draw(st.sampled_from(sorted(graph)))
    world.send(source, Mode.FLOOD)
    world.send(source, Mode.FLOOD)
    crashed = data.draw(st.sampled_from(sorted(graph)))
    world.crash(crashed)
    world.advance(world.now + GRACE)
    reached, waiting = {source}, [source]
    while waiting and source != crashed:
        for other in graph[waiting.pop()]:
            if other not in reached and other != crashed:
                reached.add(other)
                waiting.append(other)
    told = set(world.events())
    assert told.isdisjoint(reached)
    # A member with one neighbor left or none to hear it from must know.
    for index in set(graph) - reached - {crashed}:
        if set(graph[index]) <= {crashed}:
            assert index in told


def test_whoever_has_another_parent_says_nothing() -> None:
    """Its downstream never hears of it either."""
    world = World({0: [1, 2], 1: [0, 3], 2: [0, 3], 3: [1, 2, 4], 4: [3]})
    world.send(0)
    assert world.members[3].node.trees[member(0)] == member(1)
    world.members[3].node.trees[member(0)] = member(2)
    world.crash(1)
    world.advance(1.0)
    assert world.events() == {}
    # From now on the other parent's word counts.
    world.crash(2)
    world.advance(2.0)
    assert set(world.events()) == {3, 4}


def test_other_classes_and_modes_of_a_source_are_sessions_of_their_own_and_one_event() -> None:
    world = World(LINE)
    for mode, traffic_class in ((Mode.MULTICAST, 0), (Mode.MULTICAST, 7), (Mode.FLOOD, 7)):
        world.send(0, mode, traffic_class)
    world.crash(1)
    world.advance(1.0)
    assert world.events()[2] == [SourceBroken(member(0), member(1))]
    # One message for each class: it follows what is queued in that class.
    assert world.events()[3] == [SourceBroken(member(0), member(2))] * 2


def test_a_unicast_is_no_session() -> None:
    world = World(LINE)
    engine = world.members[0].engine
    world._forward(0, engine.originate([b"x"], Mode.UNICAST, member(3), 0.0))
    world.run()
    world.crash(1)
    world.advance(1.0)
    assert world.events() == {}
    [figures] = world.members[3].attendant.sessions.statistics()
    assert (figures.mode, figures.messages, figures.missing) == (Mode.UNICAST, 1, None)


def test_a_source_that_is_heard_again_is_restored_once() -> None:
    world = World(LINE)
    world.send(0)
    world.crash(1)
    world.advance(1.0)
    world.dead.remove(1)
    for second in (2.0, 3.0, 4.0):
        world.send(0)
        world.advance(second)
    assert world.events()[2][1:] == [SourceRestored(member(0), member(1))]
    assert world.events()[3][1:] == [SourceRestored(member(0), member(2))]


def test_an_upstream_that_brings_more_after_its_link_failed_is_not_lost() -> None:
    """Its connection was replaced by another."""
    world = World(LINE)
    world.send(0)
    world.members[2].attendant.link_failed(member(1), world.now)
    world.now = GRACE / 2
    world.send(0)
    world.advance(1.0)
    assert world.events() == {}


def test_who_said_goodbye_is_gone_and_not_lost_while_there_is_another_parent() -> None:
    world = World({0: [1, 2], 1: [0, 2], 2: [0, 1, 3], 3: [2]})
    world.members[2].node.trees[member(0)] = member(1)
    world.members[2].engine.switch(memoryview(bytearray(_frame(world))), member(1), 0.0)
    world.members[2].attendant.link_failed(member(1), 0.0)
    world.members[2].node.trees[member(0)] = member(0)
    world.members[2].attendant.gone(member(1), 0.1)
    world.advance(1.0)
    assert world.events() == {}


def _frame(world: World) -> bytes:
    [output, *_] = world.members[0].engine.originate([b"x"], Mode.MULTICAST, None, 0.0).outputs
    return b"".join(output.pieces)


def test_a_session_of_long_ago_is_over() -> None:
    world = World(LINE)
    world.send(0)
    world.now = LIFETIME + 1.0
    world.crash(1)
    world.advance(world.now + 1.0)
    assert world.events() == {}


def test_it_is_said_three_times_and_believed_once() -> None:
    world = World(LINE)
    world.send(0)
    world.crash(1)
    for second in range(1, 9):
        world.advance(float(second))
    lanes = [s for s in world.members[3].attendant.sessions.statistics() if s.mode is Mode.UNICAST]
    assert [lane.messages for lane in lanes] == [3]
    assert len(world.events()[3]) == 1
    assert world.members[3].refused == []
    assert not world.members[2].attendant.sessions.busy


def test_who_leaves_tells_nobody() -> None:
    world = World(LINE)
    world.send(0)
    world.members[2].attendant.end()
    world.crash(1)
    world.members[2].attendant.gone(member(1), 0.0)
    assert world.members[2].attendant.next_deadline == float("inf")
    world.advance(1.0)
    assert world.events() == {}


def forge(world: World, sender: int, receiver: int, lanes: list[tuple[int, int]]) -> None:
    """Let a member say that these lanes are broken."""
    body = Codec((BrokenSource,)).encode(BrokenSource(tuple(lanes)))
    engine = world.members[sender].engine
    dispatch = engine.originate_service(
        SESSIONS, [body], Mode.UNICAST, member(receiver), world.now, hop_limit=1
    )
    world._forward(sender, dispatch)
    world.run()


def test_whoever_is_not_the_upstream_is_not_believed() -> None:
    world = World(LINE)
    world.send(0)
    forge(world, 3, 2, [(1000, 0)])
    forge(world, 1, 2, [(9999, 0)])
    assert world.events() == {}
    assert world.members[2].refused == ["not_upstream"] * 2
    forge(world, 1, 2, [(9999, 0), (1000, 0)])
    forge(world, 1, 2, [(1000, 0)])
    assert world.events() == {2: [SourceBroken(member(0), member(1))], 3: world.events()[3]}
    assert world.members[2].refused == ["not_upstream"] * 2


def test_news_from_afar_is_not_believed() -> None:
    """A member that is no neighbor cannot speak for one."""
    world = World(LINE)
    world.send(0)
    body = Codec((BrokenSource,)).encode(BrokenSource(((1000, 0),)))
    dispatch = world.members[0].engine.originate_service(
        SESSIONS, [body], Mode.UNICAST, member(2), 0.0
    )
    world._forward(0, dispatch)
    world.run()
    assert world.events() == {}
    assert world.members[2].refused == ["not_upstream"]


@given(st.lists(st.tuples(st.integers(0, 2**64 - 1), st.integers(0, 2**16 - 1)), max_size=40))
def test_any_lanes_are_refused_and_never_raised(lanes: list[tuple[int, int]]) -> None:
    world = World(LINE)
    world.send(0)
    forge(world, 1, 2, lanes)
    world.advance(1.0)
    assert world.events() == {} or (1000, 0) in lanes


@given(st.integers(0, 2**16 - 1))
def test_a_lane_that_no_member_makes_breaks_nothing(lane: int) -> None:
    """A remote chooses its sequence numbers, and so the lane, freely."""
    world = World(LINE)
    frame = bytearray(_frame(world))
    at = frame.index((1000).to_bytes(8)) + 8
    frame[at : at + 8] = (lane << 48).to_bytes(8)
    world._forward(1, world.members[1].engine.switch(memoryview(frame), member(0), 0.0))
    world.run()
    world.crash(0)
    world.advance(1.0)
    assert set(world.events()) == ({1, 2, 3} if lane & 3 < 2 and lane >> 2 < 256 else set())


def test_figures_say_what_came_and_what_is_missing() -> None:
    world = World(LINE)
    engine = world.members[0].engine
    dispatches = [engine.originate([b"12345"], Mode.MULTICAST, None, 0.0) for _ in range(10)]
    size = sum(output.size for output in dispatches[0].outputs)
    for number, dispatch in enumerate(dispatches):
        if number not in (0, 4, 5):
            world._forward(0, dispatch)
    world.run()
    [figures] = world.members[3].attendant.sessions.statistics()
    assert (figures.source, figures.upstream) == (member(0), member(2))
    assert (figures.messages, figures.size, figures.missing) == (7, 7 * size, 2)
    world.advance(1.0)
    for dispatch in dispatches[4:6]:
        world._forward(0, dispatch)
    world.run()
    world.advance(3.0)
    [figures] = world.members[3].attendant.sessions.statistics()
    assert (figures.messages, figures.missing) == (9, 0)
    assert figures.messages_per_second == 1.0
    assert figures.bytes_per_second == size
    world.crash(1)
    world.advance(4.0)
    [figures, *_] = world.members[2].attendant.sessions.statistics()
    assert (figures.upstream, figures.messages_per_second) == (None, 0.0)
