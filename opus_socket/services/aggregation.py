"""Aggregation: sums, means, extremes and histograms over all members, merged on the way to a root.

Its one rule: a member says its value once a round, and to one other. A round goes like this:

1. The root sends `Round` to all, along its tree. Every member notes its children in that tree, and
   by how many hops it is below the root.
2. A member without children reports its own value to the neighbor that the round came from. Others
   merge their children's reports with their own value, and report when all children have.
3. Nobody waits for ever: a member gives up children that are silent for `hop_time` for each level
   that the tree has below it. Who is nearer to the root waits longer, so a silent child costs what
   is below it and nothing else, and the result says how many are missing.
4. The root publishes an `Aggregate`, and sends it to all if that is wanted.

All members are to run it: one that does not costs what is below it, and the time for which it is
waited for. The tree is soft state: each round takes children as the node has them then, and as deep
as the last round found it. A member whose parent fails within a round reports to the next one.
In use::

    load = sock.service("aggregation")
    await load.ask(Contribute("load", 0.7))                     # everywhere
    await load.ask(Collect("load", period=5.0))                 # at the root
    async for total in load.results(Aggregate):
        print(total.mean, total.members)

Source: the demonstration of data aggregation of the HyperCast talk; the protocol is ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from math import inf

from attrs import define, field, frozen

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.dispatch import ForService
from opus_socket.core.node import Mode
from opus_socket.core.requests import finite, iterated, shown
from opus_socket.core.service import (
    Originate,
    Publish,
    Service,
    ServiceContext,
    ServiceEffect,
    ServiceEffects,
    ServiceSpec,
    to_neighbor,
)
from opus_socket.core.settings import setting
from opus_socket.errors import LocalProtocolError, RemoteProtocolError
from opus_socket.services.aggregates import MAX_DEPTH, MAX_VALUE, Aggregate, Partial
from opus_socket.services.collecting import (
    MAX_NAME,
    Outcome,
    Report,
    Round,
    are_edges,
    is_name,
    read,
)
from opus_socket.services.gathering import Gathering

__all__ = ["SPEC", "Aggregate", "AggregationSettings", "Collect", "Contribute", "Stop"]

LIFETIME = 60.0
"""Seconds without a round after which a query of another member is forgotten."""


@frozen
class AggregationSettings:
    """`[services.aggregation]`."""

    hop_time: float = setting(
        0.25,
        unit="seconds",
        minimum=0.001,
        meaning=(
            "how long a member waits for silent children, for each level of the tree below it; "
            "more than the round-trip time between neighbors"
        ),
    )
    levels: int = setting(
        64,
        unit="levels",
        minimum=1,
        maximum=MAX_DEPTH,
        meaning="how deep a root thinks that its tree is, until a round has told it",
    )
    queries: int = setting(
        64,
        unit="queries",
        minimum=1,
        meaning="how many queries of other members are served at a time",
    )


@frozen
class Contribute:
    """A request: this is my value of that name from now on, in every round.

    Attributes:
        name: of 1 to 64 bytes in UTF-8.
        value: a number of at most 1e290 either way; None for none any more.
    """

    name: str
    value: float | None


@frozen
class Collect:
    """A request: be the root, and collect what all members contribute to a name. What was collected
    by that name before ends; a round of it that is on is published as far as it is.

    Attributes:
        name: as of `Contribute`.
        period: seconds from one round to the next, 0.001 at least; None for one round only. A round
            that is not over then ends with what is there.
        edges: of a histogram, ascending, at most 256; none for no histogram.
        broadcast: whether the other members are to have the results, too.
    """

    name: str
    period: float | None = None
    edges: tuple[float, ...] = ()
    broadcast: bool = False


@frozen
class Stop:
    """A request: collect that name no more; a round that is on is given up."""

    name: str


@frozen
class AggregationStatistics:
    """Figures of the service.

    Attributes:
        queries: how many are served now, one's own among them.
        rounds: rounds that this member took part in.
        reports: reports that it merged.
        late: reports that came when their round was over here.
        given_up: children that it waited for in vain.
        refused: messages that were dropped, by what was wrong with them.
    """

    queries: int
    rounds: int
    reports: int
    late: int
    given_up: int
    refused: Mapping[str, int]


@define(eq=False)
class _Query:
    """A query and what becomes of it.

    Attributes:
        gathering: the round that is on.
        wanted: what the application asked for, at the root; None at others.
        due: when the next round begins, at the root; when it is forgotten, at others.
    """

    gathering: Gathering
    wanted: Collect | None = None
    due: float = inf


@define(eq=False, repr=False)
class Aggregation(Service):
    """The machine of `aggregation`: a member of others' trees, and the root of its own.

    Args:
        settings: times and limits.
        context: of this member.
    """

    settings: AggregationSettings
    context: ServiceContext
    # How deep the tree of this root was the last time, and a little more.
    _levels: int = field(init=False)
    _values: dict[str, float] = field(factory=dict, init=False)
    # Of roots: members below each child when it reported last. The latest root is the last one.
    _sizes: dict[LogicalAddress, dict[LogicalAddress, int]] = field(factory=dict, init=False)
    _queries: dict[int, _Query] = field(factory=dict, init=False)
    _made: int = field(default=0, init=False)
    _rounds: int = field(default=0, init=False)
    _reports: int = field(default=0, init=False)
    _late: int = field(default=0, init=False)
    _given_up: int = field(default=0, init=False)
    _refused: Counter[str] = field(factory=Counter, init=False)

    def __attrs_post_init__(self) -> None:
        self._levels = self.settings.levels

    @property
    def next_deadline(self) -> float:
        """When somebody is given up, a round begins, or a query is forgotten."""
        queries = self._queries.values()
        return min([min(each.gathering.deadline, each.due) for each in queries], default=inf)

    def ask(self, request: object, now: float) -> ServiceEffects:
        """Take a value, or begin or stop to collect.

        Raises:
            LocalProtocolError: a name, a number, a period or edges that are not allowed.
        """
        match request:
            case Contribute(name=name, value=value):
                return self._contribute(name, value)
            case Collect():
                return self._collect(request, now)
            case Stop(name=name):
                del self._queries[self._own(name).gathering.id]
                return ()
            case _:
                return super().ask(request, now)

    def receive(self, message: ForService, now: float) -> ServiceEffects:
        """A round, a report or an outcome came."""
        out: list[ServiceEffect] = []
        try:
            said = read(message.message.payload)
            match said:
                case Round():
                    self._join_round(said, message, now, out)
                case Report():
                    self._take_report(said, message, now, out)
                case Outcome():
                    out.append(Publish(said.aggregate(message.message.source)))
        except RemoteProtocolError as error:
            self._refused[error.kind] += 1
        return out

    def link_failed(self, neighbor: LogicalAddress, now: float) -> ServiceEffects:
        """Wait for it no more."""
        out: list[ServiceEffect] = []
        for query in list(self._queries.values()):
            if query.gathering.is_open:
                self._given_up += query.gathering.lose(neighbor)
                self._close_if_complete(query, now, out)
        return out

    def wake(self, now: float) -> ServiceEffects:
        """Give up who is silent, begin rounds, forget queries."""
        out: list[ServiceEffect] = []
        for query in list(self._queries.values()):
            if query.gathering.deadline <= now:
                self._close(query, now, out)
            if query.due <= now:
                if query.wanted is None:
                    del self._queries[query.gathering.id]
                else:
                    self._begin_round(query, now, out)
        return out

    def leave(self, now: float) -> ServiceEffects:
        """Report what is there, and collect nothing any more."""
        out: list[ServiceEffect] = []
        for query in self._queries.values():
            if query.gathering.is_open and query.wanted is None:
                self._close(query, now, out)
        self._queries.clear()
        return out

    def statistics(self) -> AggregationStatistics:
        """Figures so far."""
        return AggregationStatistics(
            len(self._queries),
            self._rounds,
            self._reports,
            self._late,
            self._given_up,
            dict(self._refused),
        )

    # The application

    def _contribute(self, name: str, value: float | None) -> ServiceEffects:
        _check_name(name)
        if value is None:
            self._values.pop(name, None)
            return ()
        number = finite(value)
        if number is None or abs(number) > MAX_VALUE:
            raise LocalProtocolError(f"a value of {shown(value)}: -1e290 to 1e290 are allowed")
        self._values[name] = number
        return ()

    def _collect(self, wanted: Collect, now: float) -> ServiceEffects:
        _check_name(wanted.name)
        wanted = _check(wanted)
        edges = wanted.edges
        root = self.context.place.address
        # Incarnations differ, of members as of the lives of one.
        number = (self.context.contact.incarnation + self._made) & (1 << 64) - 1
        gathering = Gathering(number, wanted.name, edges, root, self._sizes_below(root))
        longest = len(_outcome(gathering, Partial.of(0.0, edges, 0)).wire)
        if longest > self.context.longest_body:
            raise LocalProtocolError(
                f"{len(edges)} edges make a message of {longest} bytes; "
                f"at most {self.context.longest_body} are allowed"
            )
        self._made += 1
        out: list[ServiceEffect] = []
        for former in [each for each in self._queries.values() if _is_own(each, wanted.name)]:
            if former.gathering.is_open:
                self._close(former, now, out)
            self._queries.pop(former.gathering.id, None)
        query = self._queries[number] = _Query(gathering, wanted)
        self._begin_round(query, now, out)
        return out

    def _own(self, name: str) -> _Query:
        for query in self._queries.values():
            if _is_own(query, name):
                return query
        raise LocalProtocolError(f"{name!r} is not collected here")

    # The root

    def _begin_round(self, query: _Query, now: float, out: list[ServiceEffect]) -> None:
        if query.gathering.is_open:
            self._close(query, now, out)
        gathering, wanted = query.gathering, query.wanted
        query.due = inf if wanted is None or wanted.period is None else now + wanted.period
        gathering.root = self.context.place.address
        gathering.number += 1
        asked = Round(
            gathering.id,
            gathering.number,
            MAX_DEPTH,
            self._levels,
            gathering.name,
            gathering.edges,
        )
        out.append(Originate([asked.wire], Mode.MULTICAST, hop_limit=MAX_DEPTH))
        self._open(query, 0, None, self._levels, now, out)

    # A member of the tree

    def _join_round(
        self, asked: Round, message: ForService, now: float, out: list[ServiceEffect]
    ) -> None:
        root, depth = message.message.source, asked.hops - message.message.hop_limit + 1
        if message.arrived_from is None or depth < 1:
            raise RemoteProtocolError("bad_round", f"depth {depth}")
        query = self._queries.get(asked.query)
        if query is None:
            if sum(each.wanted is None for each in self._queries.values()) >= self.settings.queries:
                raise RemoteProtocolError("queries", "too many are served already")
            sizes = self._sizes_below(root)
            gathering = Gathering(asked.query, asked.name, asked.edges, root, sizes)
            query = self._queries[asked.query] = _Query(gathering)
        gathering = query.gathering
        if query.wanted is not None or gathering.number >= asked.number:
            raise RemoteProtocolError("old_round", f"{asked.number}")
        if (gathering.name, gathering.edges) != (asked.name, asked.edges):
            raise RemoteProtocolError("bad_round", "of another name")
        # A report that is still open here would come too late for the round that it is of.
        gathering.root, gathering.number = root, asked.number
        self._open(query, depth, message.arrived_from, asked.levels, now, out)
        query.due = LIFETIME + (gathering.deadline if gathering.is_open else now)

    def _sizes_below(self, root: LogicalAddress) -> dict[LogicalAddress, int]:
        """Members below each child in the tree of a root, as far as that is remembered."""
        sizes = self._sizes[root] = self._sizes.pop(root, {})
        # One more than the queries of others: the own root.
        if len(self._sizes) > self.settings.queries + 1:
            del self._sizes[next(iter(self._sizes))]
        return sizes

    def _open(
        self,
        query: _Query,
        depth: int,
        parent: LogicalAddress | None,
        levels: int,
        now: float,
        out: list[ServiceEffect],
    ) -> None:
        """Take part in a round."""
        self._rounds += 1
        gathering = query.gathering
        own = Partial.of(self._values.get(gathering.name), gathering.edges, depth)
        children = self.context.place.children(gathering.root)
        wait = max(1, levels - depth) * self.settings.hop_time
        gathering.open(own, parent, children, now + wait)
        self._close_if_complete(query, now, out)

    def _take_report(
        self, report: Report, message: ForService, now: float, out: list[ServiceEffect]
    ) -> None:
        child, query = message.message.source, self._queries.get(report.query)
        if message.arrived_from != child:
            raise RemoteProtocolError("not_a_neighbor", f"{child}")
        if query is None:
            raise RemoteProtocolError("unknown_query", f"{report.query}")
        gathering = query.gathering
        partial = Partial.from_wire(report.partial, gathering.edges)
        if not gathering.is_open or report.number != gathering.number:
            self._late += 1
            return
        gathering.take(child, partial)
        self._reports += 1
        self._close_if_complete(query, now, out)

    def _close_if_complete(self, query: _Query, now: float, out: list[ServiceEffect]) -> None:
        if query.gathering.is_complete:
            self._close(query, now, out)

    def _close(self, query: _Query, now: float, out: list[ServiceEffect]) -> None:
        """The round is over here: report, or publish."""
        gathering, wanted = query.gathering, query.wanted
        self._given_up += gathering.close()
        partial = gathering.partial
        if wanted is None:
            parent = self._parent(gathering)
            if parent is None:
                self._refused["no_parent"] += 1
                return
            report = Report(gathering.id, gathering.number, partial.wire)
            out.append(to_neighbor([report.wire], parent))
            return
        # The next round may find it deeper.
        self._levels = min(MAX_DEPTH, partial.deepest + 2)
        told = _outcome(gathering, partial)
        out.append(Publish(told.aggregate(gathering.root)))
        if wanted.broadcast:
            out.append(Originate([told.wire], Mode.MULTICAST))
        if wanted.period is None:
            self._queries.pop(gathering.id, None)

    def _parent(self, gathering: Gathering) -> LogicalAddress | None:
        """Where the round came from, or if that is a neighbor no more, who is the parent now."""
        place = self.context.place
        if any(contact.address == gathering.parent for contact in place.neighbors):
            return gathering.parent
        return place.parent(gathering.root)


def _is_own(query: _Query, name: str) -> bool:
    return query.wanted is not None and query.wanted.name == name


def _outcome(gathering: Gathering, partial: Partial) -> Outcome:
    return Outcome(gathering.id, gathering.number, gathering.name, gathering.edges, partial)


def _check(wanted: Collect) -> Collect:
    """The request, if it can be met."""
    given = [*iterated("edges", wanted.edges, "a tuple of numbers")]
    edges = tuple([number for number in map(finite, given) if number is not None])
    if len(edges) < len(given) or not are_edges(edges):
        raise LocalProtocolError(
            f"edges {shown(wanted.edges)}: at most 256 ascending numbers of at most 1e290 are "
            "allowed"
        )
    period = None if wanted.period is None else finite(wanted.period)
    if wanted.period is not None and (period is None or period < 0.001):
        raise LocalProtocolError(
            f"a period of {shown(wanted.period)}: 0.001 seconds and more are allowed"
        )
    if type(wanted.broadcast) is not bool:
        raise LocalProtocolError(f"broadcast {shown(wanted.broadcast)}: True or False is allowed")
    return Collect(wanted.name, period, edges, wanted.broadcast)


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not is_name(name):
        raise LocalProtocolError(
            f"the name {shown(name)}: 1 to {MAX_NAME} bytes of UTF-8 are allowed"
        )


def _create(context: ServiceContext, settings: AggregationSettings) -> Aggregation:
    return Aggregation(settings, context)


SPEC = ServiceSpec(
    "aggregation",
    "Aggregation: sums, means, extremes and histograms over all members, merged on their way",
    AggregationSettings,
    _create,
    requests=(Contribute, Collect, Stop),
)
