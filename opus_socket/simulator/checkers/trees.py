"""What a legitimate routing tree is, and what it costs: depth, delay, stretch, stress, cost.

Its one rule: it believes nothing but the members' own answers to "who is your parent for this
root?", collected in one table. A table first passes `tree_faults`; only a faultless one becomes
a `RoutingTree`, so that no figure is ever taken from something that is not a tree.

The figures are those of the overlay literature (Chu, Rao, Zhang 2000, "A case for end system
multicast", section 5): stretch, also called relative delay penalty, stress and network cost.
Nothing here recurses: a tree may be a chain of ten thousand members.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from math import ceil, fsum
from typing import Generic, TypeVar

from attrs import frozen

Member = TypeVar("Member", bound=Hashable)


@frozen
class Summary:
    """A distribution in four figures; all are 0 when there was nothing to summarize."""

    count: int
    """How many values there were."""
    mean: float
    """Arithmetic mean; `count * mean` is the total."""
    p90: float
    """90th percentile by nearest rank: the least value that nine tenths do not exceed."""
    maximum: float
    """The largest value."""

    @classmethod
    def of(cls, values: Iterable[float]) -> Summary:
        """Summarize the values, independently of their order."""
        ordered = sorted(values)
        count = len(ordered)
        if count == 0:
            return cls(count=0, mean=0.0, p90=0.0, maximum=0.0)
        rank = ceil(count * 9 / 10)
        return cls(count, fsum(ordered) / count, ordered[rank - 1], ordered[-1])


@frozen
class TreeFault(Generic[Member]):
    """One reason why a parent table is no spanning tree of the members."""

    member: Member
    """The member whose entry is wrong."""
    reason: str
    """What is wrong with it, in words."""


@frozen
class RoutingTree(Generic[Member]):
    """A spanning tree of the members for one root; made by `RoutingTree.of`."""

    root: Member
    """The member from which multicast messages come."""
    parent: Mapping[Member, Member]
    """The parent of every member except the root; parents stand before their children."""

    @classmethod
    def of(
        cls, members: Sequence[Member], root: Member, parent_of: Mapping[Member, Member | None]
    ) -> RoutingTree[Member]:
        """Read a parent table; raises ValueError that names its first fault when it has any."""
        faults = tree_faults(members, root, parent_of)
        if faults:
            first, others = faults[0], len(faults) - 1
            raise ValueError(
                f"no spanning tree for root {root}: member {first.member} {first.reason}"
                f" (and {others} more faults)"
            )
        children: dict[Member, list[Member]] = {member: [] for member in members}
        for member in children:
            above = parent_of[member]
            if above is not None:
                children[above].append(member)
        downward: dict[Member, Member] = {}
        reached = [root]
        for member in reached:
            for child in children[member]:
                downward[child] = member
                reached.append(child)
        return cls(root, downward)

    def depths(self) -> dict[Member, int]:
        """Return each member's distance from the root in hops; the root's is 0."""
        depths = {self.root: 0}
        for member, above in self.parent.items():
            depths[member] = depths[above] + 1
        return depths

    def depth(self) -> int:
        """Return the largest distance from the root in hops."""
        return max(self.depths().values())

    def delays(self, delay_ms: Callable[[Member, Member], float]) -> dict[Member, float]:
        """Return each member's delay from the root along the tree, in milliseconds.

        `delay_ms(sender, receiver)` is the direct one-way delay of the underlay.
        """
        delays = {self.root: 0.0}
        for member, above in self.parent.items():
            delays[member] = delays[above] + delay_ms(above, member)
        return delays

    def stretch(self, delay_ms: Callable[[Member, Member], float]) -> Summary:
        """Summarize, over all members but the root, tree delay divided by direct delay.

        Members at a direct delay of 0 from the root are left out.
        """
        direct = {member: delay_ms(self.root, member) for member in self.parent}
        along = self.delays(delay_ms)
        return Summary.of(along[member] / apart for member, apart in direct.items() if apart > 0)

    def stress(self) -> Summary:
        """Summarize over all access links how many copies of one multicast cross them.

        An underlay without routers has two sorts of physical links: the direct path of each
        pair of members, and one access link a member, which all its paths share. A tree uses
        the path of a pair at most once, so those all have stress 1 and are left out. The
        access link of a member carries the copy that it receives (none for the root) and one
        for each of its children.
        """
        copies = {self.root: 0} | dict.fromkeys(self.parent, 1)
        for above in self.parent.values():
            copies[above] += 1
        return Summary.of(copies.values())

    def cost(self, delay_ms: Callable[[Member, Member], float]) -> Summary:
        """Summarize the direct delays of the tree's edges, parent to child, in milliseconds.

        The network cost of the literature is their total, `count * mean`.
        """
        return Summary.of(delay_ms(above, member) for member, above in self.parent.items())


def tree_faults(
    members: Sequence[Member], root: Member, parent_of: Mapping[Member, Member | None]
) -> tuple[TreeFault[Member], ...]:
    """Say why the table is not one tree that spans all members; empty when it is.

    `parent_of` maps every member to its parent for this root, None for the root itself. Only
    the causes are named: members that merely hang below a faulty one are not faults.
    """
    known = dict.fromkeys(members)
    faults: list[TreeFault[Member]] = []
    if root not in known:
        faults.append(TreeFault(root, "is the root but no member"))
    for member in known:
        reason = _entry_fault(member, root, parent_of, known)
        if reason is not None:
            faults.append(TreeFault(member, reason))
    faults.extend(
        TreeFault(child, "has a parent but is no member")
        for child in parent_of
        if child not in known
    )
    faults.extend(TreeFault(member, "is on a cycle") for member in _on_cycles(parent_of))
    return tuple(faults)


def _entry_fault(
    member: Member,
    root: Member,
    parent_of: Mapping[Member, Member | None],
    known: Mapping[Member, None],
) -> str | None:
    above = parent_of.get(member)
    if member == root:
        return None if above is None else f"is the root but has parent {above}"
    if above is None:
        return "has no parent"
    return None if above in known else f"has parent {above}, which is no member"


def _on_cycles(parent_of: Mapping[Member, Member | None]) -> list[Member]:
    """Return the members on cycles, each once: every walk upward stops where one has been."""
    walk_of: dict[Member, Member] = {}
    cyclic: list[Member] = []
    for start in parent_of:
        path: list[Member] = []
        at: Member | None = start
        while at is not None and at not in walk_of:
            walk_of[at] = start
            path.append(at)
            at = parent_of.get(at)
        if at is not None and walk_of[at] == start:
            cyclic.extend(path[path.index(at) :])
    return cyclic
