"""Whole Delaunay overlays: from any state, through any faults, to exactly DT* and to stay there.

The oracle is the slow twin in `delaunay_oracle`, which shares no code with the protocol.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from delaunay_oracle import LIMIT, Point, delaunay, point_sets
from delaunay_world import World
from hypothesis import example, given, settings
from hypothesis import strategies as st

from opus_delaunay.messages import Hello, NewNode
from opus_delaunay.states import State
from opus_socket.core.addresses import Contact, Endpoint, LogicalAddress

IN_TIME = 60.0
"""Seconds in which every overlay of these tests, of a dozen members, has to be legitimate."""

HOLDS = 3.0
"""Seconds for which it has to stay so."""

MANY = settings(max_examples=max(150, settings.default.max_examples if settings.default else 0))
"""More examples than the default; a dozen members live through a minute in a few milliseconds."""

seeds = st.integers(0, 2**16)
losses = st.sampled_from([0.0, 0.0, 0.1])
gaps = st.sampled_from([0.0, 0.001, 0.3, 1.5])


def places(smallest: int = 1, largest: int = 12) -> st.SearchStrategy[list[Point]]:
    """Distinct coordinates that members may have, half of the time from a tiny grid."""
    inside = point_sets(smallest, largest).map(
        lambda points: [point for point in points if max(point) < LIMIT - 1]
    )
    return inside.filter(lambda points: len(points) >= smallest)


def legitimate(world: World) -> Callable[[], bool]:
    """Whether everybody is stable and the tables are DT*, for those who live now."""
    everybody = world.alive
    expected = delaunay([member.at for member in everybody])  # type: ignore[misc]

    def check() -> bool:
        return all(member.node.stable for member in everybody) and world.tables() == expected

    return check


def settle(world: World, limit: float = IN_TIME) -> float:
    """Run until the overlay is legitimate and stays so; returns how long it took.

    Where packets are lost, one time in many thousand all probes of a neighbor are; so it may be
    legitimate a little while before.
    """
    check = legitimate(world)
    start = since = world.now
    while world.now - since < HOLDS:
        world.run(0.25)
        if not check():
            since = world.now
            assert since - start < limit, f"not legitimate after {limit} s"
    return since - start


def joined(points: list[Point], gap: float, loss: float, seed: int) -> World:
    world = World(seed=seed, loss=loss)
    for number, point in enumerate(points):
        world.add(point, at=number * gap)
    world.run(gap * len(points))
    settle(world)
    return world


@MANY
@given(places(largest=12), gaps, losses, seeds)
def test_members_that_join_form_the_triangulation(
    points: list[Point], gap: float, loss: float, seed: int
) -> None:
    """Whoever joins, in whatever order, at once or one by one, also when packets are lost: the
    neighbors are those of DT*, everybody is stable, and one member is the leader.
    """
    world = joined(points, gap, loss, seed)
    leaders = [member for member in world.alive if member.node.state is not State.NOT_LEADER]
    assert [leader.at for leader in leaders] == [max(points, key=lambda p: (p[1], p[0]))]


@MANY
@given(
    places(smallest=4, largest=12),
    losses,
    seeds,
    st.lists(
        st.sampled_from(["crash", "leave", "cut", "pause", "restart", "join"]),
        min_size=1,
        max_size=3,
    ),
)
@example([(0, 0), (1, 0), (2, 0), (3, 0)], 0.0, 1, ["crash", "cut", "restart"])
def test_faults_are_repaired(
    points: list[Point], loss: float, seed: int, faults: list[str]
) -> None:
    """Crashes of a third, goodbyes of a third, partitions, pauses, restarts and late joiners."""
    world = joined(points, 0.0, loss, seed)
    rng = Random(seed)
    for fault in faults:
        some = rng.sample(world.alive, max(1, len(world.alive) // 3))
        match fault:
            case "crash":
                world.crash(some)
            case "leave":
                world.leave(some)
            case "cut":
                world.part(rng.sample(world.alive, len(world.alive) // 2))
                world.run(rng.choice([2.0, 5.0, 12.0]))
                world.heal()
            case "pause":
                for member in some:
                    world.pause(member, rng.choice([1.5, 3.0, 10.0]))
                world.run(10.5)
            case "restart":
                world.crash(some[:1])
                world.run(rng.choice([0.0, 1.0, 5.0]))
                place = some[0].at
                world.add((place[0], place[1]), restart_of=some[0])
            case _:
                world.add((rng.randrange(40), 50 + rng.randrange(2**31)))
        settle(world)


def test_a_killed_member_is_forgotten_in_time() -> None:
    """The others are legitimate within the neighbor timeout and three seconds."""
    points = [(37 * k % 101, 53 * k % 97) for k in range(30)]
    for victim in range(0, 30, 3):
        world = World(seed=victim)
        for point in points:
            world.add(point)
        settle_fast(world)
        world.crash([world.members[victim]])
        assert settle_fast(world) <= 3.5 + 3.0


def settle_fast(world: World) -> float:
    return world.run_until(legitimate(world), IN_TIME)


def corrupt(world: World, rng: Random, ghosts: list[Contact], forgeries: int) -> None:
    """Let members hear Hellos that nobody sent, with columns that nobody ever had."""
    everybody = [member.node.contact for member in world.alive]
    for _ in range(forgeries):
        victim = rng.choice(world.alive)
        source = rng.choice(everybody + ghosts)
        if source.address == victim.at:
            continue
        known = rng.choice([victim.node.contact.incarnation, 7])
        one, other = [rng.choice([None, *everybody, *ghosts]) for _ in range(2)]
        forged = Hello(source, victim.node.address, known, one, other, rng.random() < 0.5)
        world.perform(victim, victim.node.receive(forged, source.at(None), world.now))


def strangers(points: list[Point]) -> list[Contact]:
    """Members that do not exist, at places where nobody is."""
    places = [(x, y) for x in (3, 1000, 2**31) for y in (5, 2**30)]
    return [
        Contact(LogicalAddress(place), 9, 0, (Endpoint(f"192.0.2.{n + 1}", 9),))
        for n, place in enumerate(places)
        if place not in points
    ]


@MANY
@given(places(smallest=2, largest=12), losses, seeds)
def test_any_tables_converge(points: list[Point], loss: float, seed: int) -> None:
    """From arbitrary rings, with ghosts and wrong or missing edges and columns, the overlay
    becomes DT* as long as there is a rendezvous.
    """
    rng = Random(seed)
    world = World(seed=seed, loss=loss)
    for point in points:
        world.add(point)
    world.run(0.01)
    corrupt(world, rng, strangers(points), 6 * len(points))
    settle(world)


@MANY
@given(places(smallest=2, largest=12), losses, seeds)
def test_connected_tables_converge_without_rendezvous(
    points: list[Point], loss: float, seed: int
) -> None:
    """No reference gets lost: members that are connected by what they know find DT* alone."""
    rng = Random(seed)
    world = World(seed=seed, loss=loss, rendezvous_up=False)
    for point in points:
        world.add(point)
    world.run(0.01)
    corrupt(world, rng, [], 3 * len(points))
    for number, member in enumerate(world.alive[1:]):
        known = world.members[rng.randrange(number + 1)]
        message = NewNode(known.node.contact, 0, 0)
        effects = member.node.receive(message, known.contact, world.now)
        world.perform(member, effects)
    settle(world)


@given(places(smallest=2, largest=12), seeds)
def test_a_legitimate_overlay_is_left_alone(points: list[Point], seed: int) -> None:
    """Closure: undisturbed, nothing is sent but one Hello for each direction of an edge and
    heartbeat, always the same bytes, and the leader's look around.
    """
    world = joined(points, 0.0, 0.0, seed)
    world.run(2.0)
    versions = [member.node.version for member in world.alive]
    world.log = []
    world.run(20.0)
    hellos: dict[tuple[int, Contact], list[bytes | None]] = {}
    for sent in world.log:
        if isinstance(sent.message, Hello):
            key = (sent.sender.number, sent.to)
            hellos.setdefault(key, []).append(sent.message.encoded)
            assert sent.by_timer
        elif isinstance(sent.message, NewNode):
            assert sent.message.joiner.address == max(points, key=lambda p: (p[1], p[0]))
    edges = sum(map(len, world.tables().values()))
    assert len(hellos) == edges
    for encoded in hellos.values():
        assert len(set(encoded)) == 1
        assert 20 / 1.1 - 1 <= len(encoded) <= 20 / 0.9 + 1
    assert [member.node.version for member in world.alive] == versions


@given(places(smallest=2, largest=10), losses, seeds)
def test_the_same_seed_gives_the_same_messages(points: list[Point], loss: float, seed: int) -> None:
    """Same inputs, same outputs, byte for byte."""

    def record() -> list[tuple[float, int, Contact, bytes | None]]:
        world = World(seed=seed, loss=loss)
        world.log = []
        for point in points:
            world.add(point)
        world.run(5.0)
        return [(s.at, s.sender.number, s.to, s.message.encoded) for s in world.log]

    assert record() == record()
