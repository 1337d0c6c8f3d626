"""Holding messages until others come that belong to them: n inputs, m outputs.

Its one rule: nothing is held for ever. A `HoldTable` keeps what waits in groups, each under a key
(a generation, a round, whatever belongs together). A group leaves the table whole, in one of two
ways: its owner *takes* it, to make something of it; or it is *released*, and what becomes of it
then is the owner's to say (mostly, that it goes on its way as it came). It is released

- `timeout` seconds after its first message came,
- when it has `messages` of them and was not taken,
- the oldest group first, when all together have more than `size` bytes,
- when an upstream fails, or is cut off from a source, of which the group has nothing yet: what it
  waits for may never come. An upstream is a neighbor that has fed the table before,
- when the owner ends.

`Merge` is a handler that is made of such a table and two functions of the application.

Source: the `hold` type of iOverlay, section 2.3 ("the most generic n-to-m mapping"); the limits
are ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from math import inf
from typing import Generic, TypeVar

from attrs import define, field, frozen

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.dispatch import ForService
from opus_socket.core.service import Originate, Release, Service, ServiceEffects

Held = TypeVar("Held")

ENTRY = 512
"""Bytes that are counted for a message besides its own: many short ones take room, too."""


@frozen
class HoldSettings:
    """How long and how much is held.

    Attributes:
        timeout: seconds.
        messages: how many a group holds.
        size: bytes that all groups hold together, of which each message counts 512 (`ENTRY`) more
            than it has.
    """

    timeout: float = 2.0
    messages: int = 64
    size: int = 4 * 1024 * 1024


@frozen
class HoldStatistics:
    """What a table has held.

    Attributes:
        messages, size: what it holds now; `size` in bytes, counted as the limit is.
        taken: messages that were merged.
        released: messages that were not, by why: `timeout`, `crowded`, `full`, `upstream`, `ended`.
    """

    messages: int
    size: int
    taken: int
    released: Mapping[str, int]


@define(eq=False)
class _Group(Generic[Held]):
    deadline: float
    items: list[Held] = field(factory=list)
    size: int = 0
    upstreams: dict[LogicalAddress | None, None] = field(factory=dict)


@define(eq=False, repr=False)
class HoldTable(Generic[Held]):
    """Messages, or what was made of them, in groups by key; the oldest group first.

    Args:
        settings: limits.
    """

    settings: HoldSettings = field(factory=HoldSettings)
    _groups: dict[Hashable, _Group[Held]] = field(factory=dict, init=False)
    _upstreams: dict[LogicalAddress, None] = field(factory=dict, init=False)
    _messages: int = field(default=0, init=False)
    _size: int = field(default=0, init=False)
    _taken: int = field(default=0, init=False)
    _released: Counter[str] = field(factory=Counter, init=False)

    def hold(
        self, key: Hashable, item: Held, size: int, upstream: LogicalAddress | None, now: float
    ) -> list[Held]:
        """Hold an item.

        Args:
            key: of its group.
            item: what is held.
            size: how many bytes it has.
            upstream: the neighbor it came from; None for this member's own.
            now: seconds.

        Returns:
            What is released to make room, in order; perhaps this item, too.
        """
        if upstream is not None:
            self._upstreams[upstream] = None
        group = self._groups.get(key)
        if group is None:
            group = self._groups[key] = _Group(now + self.settings.timeout)
        size += ENTRY
        group.items.append(item)
        group.size += size
        group.upstreams[upstream] = None
        self._messages += 1
        self._size += size
        out: list[Held] = []
        if len(group.items) > self.settings.messages:
            out += self._release([key], "crowded")
        while self._size > self.settings.size:
            out += self._release([next(iter(self._groups))], "full")
        return out

    def held(self, key: Hashable) -> Sequence[Held]:
        """What is held under a key, in the order in which it came."""
        group = self._groups.get(key)
        return () if group is None else group.items

    def take(self, key: Hashable) -> list[Held]:
        """What was held under a key, and is no more."""
        items = self._remove(key)
        self._taken += len(items)
        return items

    def expire(self, now: float) -> list[Held]:
        """What is released because its time is over."""
        due = []
        for key, group in self._groups.items():
            if group.deadline > now:
                break
            due.append(key)
        return self._release(due, "timeout")

    def upstream_failed(self, neighbor: LogicalAddress) -> list[Held]:
        """What is released because this neighbor fails: the groups that may wait for it."""
        if neighbor not in self._upstreams:
            return []
        del self._upstreams[neighbor]
        waiting = [key for key, group in self._groups.items() if neighbor not in group.upstreams]
        return self._release(waiting, "upstream")

    def end(self) -> list[Held]:
        """Everything: the owner ends."""
        return self._release(list(self._groups), "ended")

    @property
    def next_deadline(self) -> float:
        """When `expire` is due; inf while nothing is held."""
        return next(iter(self._groups.values())).deadline if self._groups else inf

    def statistics(self) -> HoldStatistics:
        """Figures so far."""
        return HoldStatistics(self._messages, self._size, self._taken, dict(self._released))

    def _release(self, keys: Sequence[Hashable], why: str) -> list[Held]:
        items = [item for key in keys for item in self._remove(key)]
        if items:
            self._released[why] += len(items)
        return items

    def _remove(self, key: Hashable) -> list[Held]:
        group = self._groups.pop(key, None)
        if group is None:
            return []
        self._messages -= len(group.items)
        self._size -= group.size
        return group.items


@define(eq=False, repr=False)
class Merge(Service):
    """A handler that merges messages of one key into others.

    What it sends in their place is a message of the member where they were merged, which is its
    source; who sent the parts is for the payload to say.

    Args:
        key: of a message that arrives; None for one that is to pass untouched.
        merge: asked whenever a message joined its group; given the group in the order of
            arrival, it returns what is sent in its place, perhaps nothing; None to wait for more.
        settings: limits; what they release goes on its way as it came.
    """

    key: Callable[[ForService], Hashable | None]
    merge: Callable[[Sequence[ForService]], Sequence[Originate] | None]
    settings: HoldSettings = field(factory=HoldSettings)
    _table: HoldTable[ForService] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._table = HoldTable(self.settings)

    @property
    def next_deadline(self) -> float:
        """When something is released; inf while nothing is held."""
        return self._table.next_deadline

    def receive(self, message: ForService, now: float) -> ServiceEffects:
        """Hold, merge, or let pass."""
        key = self.key(message)
        if key is None:
            return [Release(message)]
        size = message.message.size
        released = self._table.hold(key, message, size, message.arrived_from, now)
        group = self._table.held(key)
        merged = self.merge(group) if group else None
        if merged is not None:
            self._table.take(key)
        return [*map(Release, released), *(merged or ())]

    def link_failed(self, neighbor: LogicalAddress, now: float) -> ServiceEffects:
        """Let go what may wait for that neighbor."""
        return [*map(Release, self._table.upstream_failed(neighbor))]

    def source_broken(
        self, source: LogicalAddress, via: LogicalAddress, now: float
    ) -> ServiceEffects:
        """Let go what may wait for that source: what its neighbor has brought nothing of yet."""
        return self.link_failed(via, now)

    def wake(self, now: float) -> ServiceEffects:
        """Let go what has waited too long."""
        return [*map(Release, self._table.expire(now))]

    def leave(self, now: float) -> ServiceEffects:
        """Let everything go."""
        return [*map(Release, self._table.end())]

    def statistics(self) -> HoldStatistics:
        """What was held."""
        return self._table.statistics()
