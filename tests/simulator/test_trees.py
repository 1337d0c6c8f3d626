"""Routing trees: what the checker accepts and what it measures, against networkx."""

from __future__ import annotations

from math import inf

import networkx as nx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opus_socket.simulator.checkers.trees import RoutingTree, Summary, TreeFault, tree_faults

Parents = dict[int, int | None]


@st.composite
def trees(draw: st.DrawFn) -> tuple[int, Parents]:
    """A random recursive tree over shuffled members: its root and its parent table."""
    members = draw(st.permutations(range(draw(st.integers(1, 30)))))
    parents: Parents = {members[0]: None}
    for index in range(1, len(members)):
        parents[members[index]] = members[draw(st.integers(0, index - 1))]
    return members[0], {member: parents[member] for member in sorted(parents)}


@st.composite
def tables(draw: st.DrawFn) -> Parents:
    """Any table over a few members: often no tree, sometimes one."""
    members = range(draw(st.integers(1, 6)))
    parent = st.one_of(st.none(), st.sampled_from(members))
    return {member: draw(parent) for member in members}


def delay_ms(a: int, b: int) -> float:
    """Different both ways, and 0 for pairs of equal remainder."""
    return float((a - b) % 7 * 3)


def graph_of(parents: Parents) -> nx.DiGraph:
    graph = nx.DiGraph()
    graph.add_nodes_from(parents)
    graph.add_edges_from((above, child) for child, above in parents.items() if above is not None)
    return graph


@given(tables())
@example({0: None, 1: 2, 2: 1})
@example({0: 0})
def test_faultless_exactly_when_networkx_finds_an_arborescence(parents: Parents) -> None:
    """No fault is found if and only if all edges form one tree that hangs from the root."""
    graph = graph_of(parents)
    legitimate = nx.is_arborescence(graph) and parents[0] is None
    assert (tree_faults(tuple(parents), 0, parents) == ()) == legitimate


@given(tables())
@example({0: 0, 1: 2, 2: 3, 3: 1, 4: 3, 5: None})
def test_cycles_name_exactly_the_members_on_them(parents: Parents) -> None:
    """Members on a cycle are named once each, those that hang below one are not."""
    named = [
        fault.member
        for fault in tree_faults(tuple(parents), 0, parents)
        if fault.reason == "is on a cycle"
    ]
    expected = [member for cycle in nx.simple_cycles(graph_of(parents)) for member in cycle]
    assert sorted(named) == sorted(expected)


@pytest.mark.parametrize(
    ("parents", "fault"),
    [
        ({0: None, 1: None}, TreeFault(1, "has no parent")),
        ({0: None}, TreeFault(1, "has no parent")),
        ({0: None, 1: 7}, TreeFault(1, "has parent 7, which is no member")),
        ({0: 1, 1: 0}, TreeFault(0, "is the root but has parent 1")),
        ({0: None, 1: 0, 7: 1}, TreeFault(7, "has a parent but is no member")),
    ],
)
def test_faults_say_what_is_wrong(parents: Parents, fault: TreeFault[int]) -> None:
    assert tree_faults((0, 1), 0, parents)[0] == fault


def test_a_root_outside_the_membership_is_a_fault() -> None:
    assert tree_faults((0,), 7, {0: 7})[0] == TreeFault(7, "is the root but no member")


def test_nothing_is_measured_on_a_faulty_table() -> None:
    with pytest.raises(ValueError, match=r"root 0: member 1 has no parent \(and 1 more faults\)"):
        RoutingTree.of((0, 1, 2), 0, {0: None, 1: None, 2: None})


@given(trees())
def test_depths_and_delays_are_those_of_networkx(tree: tuple[int, Parents]) -> None:
    """Hops and delays along the tree equal the shortest paths in the tree as a graph."""
    root, parents = tree
    graph = graph_of(parents)
    for above, child in graph.edges:
        graph.edges[above, child]["ms"] = delay_ms(above, child)
    measured = RoutingTree.of(tuple(parents), root, parents)
    assert measured.depths() == nx.single_source_shortest_path_length(graph, root)
    assert measured.depth() == nx.dag_longest_path_length(graph)
    assert measured.delays(delay_ms) == nx.single_source_dijkstra_path_length(
        graph, root, weight="ms"
    )


@given(trees())
def test_stress_is_the_degree_of_the_tree_as_an_undirected_graph(
    tree: tuple[int, Parents],
) -> None:
    """Each copy of a multicast crosses two access links, so their stress sums to 2 (n - 1)."""
    root, parents = tree
    degrees = [degree for _, degree in graph_of(parents).degree()]
    stress = RoutingTree.of(tuple(parents), root, parents).stress()
    assert stress == Summary.of(degrees)
    assert stress.mean * stress.count == pytest.approx(2 * (len(parents) - 1))


@given(trees())
def test_stretch_and_cost_by_their_definitions(tree: tuple[int, Parents]) -> None:
    """Stretch skips direct delays of 0; cost takes every edge from parent to child."""
    root, parents = tree
    measured = RoutingTree.of(tuple(parents), root, parents)
    delays = measured.delays(delay_ms)
    assert measured.stretch(delay_ms) == Summary.of(
        delays[member] / delay_ms(root, member) for member in parents if delay_ms(root, member) > 0
    )
    assert measured.cost(delay_ms) == Summary.of(
        delay_ms(above, child) for child, above in parents.items() if above is not None
    )


def test_a_star_and_a_chain_by_hand() -> None:
    line = [0.0, 10.0, 20.0, 40.0]

    def apart(a: int, b: int) -> float:
        return abs(line[a] - line[b])

    star = RoutingTree.of(range(4), 0, {0: None, 1: 0, 2: 0, 3: 0})
    assert star.stretch(apart) == Summary(count=3, mean=1.0, p90=1.0, maximum=1.0)
    assert star.stress() == Summary(count=4, mean=1.5, p90=3, maximum=3)
    assert star.cost(apart) == Summary(count=3, mean=70 / 3, p90=40.0, maximum=40.0)
    detour = RoutingTree.of(range(4), 0, {0: None, 2: 0, 1: 2, 3: 1})
    assert detour.delays(apart) == {0: 0.0, 2: 20.0, 1: 30.0, 3: 60.0}
    assert detour.stretch(apart) == Summary(count=3, mean=5.5 / 3, p90=3.0, maximum=3.0)
    assert detour.stress() == Summary(count=4, mean=1.5, p90=2, maximum=2)


def test_a_chain_of_ten_thousand_needs_no_recursion() -> None:
    parents: Parents = {member: member - 1 if member else None for member in range(10_000)}
    chain = RoutingTree.of(range(10_000), 0, parents)
    assert chain.depth() == 9_999
    assert chain.delays(lambda a, b: 1.0)[9_999] == 9_999.0


def test_a_cycle_of_ten_thousand_needs_no_recursion() -> None:
    parents: Parents = {member: (member + 1) % 10_000 for member in range(10_000)}
    assert (
        sum(f.reason == "is on a cycle" for f in tree_faults(range(10_000), 0, parents)) == 10_000
    )


def test_a_lone_root_has_nothing_to_stretch() -> None:
    alone = RoutingTree.of(("a",), "a", {"a": None})
    assert alone.depth() == 0
    assert alone.stretch(lambda a, b: inf) == Summary(count=0, mean=0.0, p90=0.0, maximum=0.0)


@given(st.lists(st.integers(-50, 50), min_size=1, max_size=60))
def test_summaries_by_counting(values: list[int]) -> None:
    """The 90th percentile is the least value that at least nine tenths do not exceed."""
    summary = Summary.of(map(float, values))
    reached = [v for v in values if 10 * sum(other <= v for other in values) >= 9 * len(values)]
    assert summary.p90 == min(reached)
    assert summary.maximum == max(values)
    assert summary.mean == pytest.approx(sum(values) / len(values))
    assert summary.count == len(values)
    assert Summary.of(map(float, reversed(values))) == summary
