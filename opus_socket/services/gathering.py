"""One thing that is collected, as one member sees it: who has reported, and who is waited for.

Its one rule: each child counts once a round. Who sends and when is decided elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import inf

from attrs import define, field

from opus_socket.core.addresses import LogicalAddress
from opus_socket.errors import RemoteProtocolError
from opus_socket.services.aggregates import Partial


@define(eq=False)
class Gathering:
    """A query, and the round of it that is on.

    Attributes:
        id: the root's number for it.
        name: of the values.
        edges: of the histogram.
        root: who collects.
        sizes: members below each child in the tree of that root, when it reported last; gatherings
            of one root share it.
        number: the last round; 0 before the first.
        is_open: whether that is still on here.
        parent: the neighbor that it came from; None at the root.
        partial: what is merged so far.
        deadline: when silent children are given up; inf when nobody is waited for.
    """

    id: int
    name: str
    edges: tuple[float, ...]
    root: LogicalAddress
    sizes: dict[LogicalAddress, int]
    number: int = 0
    is_open: bool = field(default=False, init=False)
    parent: LogicalAddress | None = field(default=None, init=False)
    partial: Partial = field(factory=Partial, init=False)
    deadline: float = field(default=inf, init=False)
    # Children who are waited for, each with the members that it is expected to tell of.
    _waiting: dict[LogicalAddress, int] = field(factory=dict, init=False)
    _heard: dict[LogicalAddress, None] = field(factory=dict, init=False)

    def open(
        self,
        own: Partial,
        parent: LogicalAddress | None,
        children: Iterable[LogicalAddress],
        deadline: float,
    ) -> None:
        """A round begins here.

        Args:
            own: what this member has to say.
            parent: the neighbor that the round came from; None at the root.
            children: as the node has them now.
            deadline: seconds.
        """
        self._waiting = {each: self.sizes.get(each, 1) for each in children if each != parent}
        self._heard = {}
        # Who is no child any more is expected by somebody else now.
        self.sizes.clear()
        self.sizes.update(self._waiting)
        self.is_open, self.parent, self.partial, self.deadline = True, parent, own, deadline

    @property
    def is_complete(self) -> bool:
        """Whether nobody is waited for."""
        return not self._waiting

    def take(self, child: LogicalAddress, partial: Partial) -> None:
        """A report came, perhaps of a member that lost its own parent.

        Raises:
            RemoteProtocolError: it has reported already, or cannot be a child.
        """
        if child in self._heard or child == self.parent:
            raise RemoteProtocolError("repeated", f"{child}")
        self._heard[child] = None
        self._waiting.pop(child, None)
        self.sizes[child] = max(1, partial.members + partial.idle + partial.missing)
        self.partial = self.partial.merge(partial)

    def lose(self, child: LogicalAddress) -> int:
        """Wait for a child no more; returns how many were waited for, 0 or 1."""
        lost = self._waiting.pop(child, 0)
        self.partial = self.partial.without(lost)
        return int(lost > 0)

    def close(self) -> int:
        """The round is over here; returns how many children are given up."""
        given_up = sum([self.lose(child) for child in list(self._waiting)])
        self.is_open, self.deadline = False, inf
        return given_up
