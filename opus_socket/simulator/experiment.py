"""One experiment: members join, faults befall them, and the overlay is judged.

Its one rule: a scenario and its seed decide the result, but for the wall clock's share of it.

    join                 all members, one each `join_interval`, until legitimate
    crash, partition     once legitimate, both at the same instant; after `partition` seconds heal
    judge                until legitimate again; then the tree of a seeded root
"""

from __future__ import annotations

from collections.abc import Callable
from math import isfinite
from pathlib import Path
from time import perf_counter

import attrs
from attrs import Attribute, define, field, frozen

from opus_socket.config import OverlayConfig
from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.node import ProtocolSpec
from opus_socket.core.settings import table_leaves
from opus_socket.errors import ConfigurationError, LocalProtocolError
from opus_socket.simulator.chance import generator
from opus_socket.simulator.checkers.trees import RoutingTree, Summary
from opus_socket.simulator.legitimacy import topology
from opus_socket.simulator.network import LinkQuality, Network
from opus_socket.simulator.simulated_socket import SimulatedSocket
from opus_socket.simulator.simulator import Simulator
from opus_socket.simulator.underlay import PERFECT, Traffic

MAX_MATRIX = 2000
"""Members up to which a dump holds the delay of every pair."""


def _check(allowed: str, holds: Callable[[float], bool]) -> Callable[..., None]:
    def validate(scenario: object, attribute: Attribute[float], value: float) -> None:
        if not (isfinite(value) and holds(value)):
            raise ConfigurationError(f"{attribute.name} = {value} is refused; allowed: {allowed}")

    return validate


_seconds = _check("a number of seconds of at least 0", lambda value: value >= 0)


@frozen(kw_only=True)
class Scenario:
    """What happens in an experiment.

    Attributes:
        config: of every member.
        nodes: how many join.
        seed: decides everything that is left to chance.
        network: the delays between members.
        quality: jitter, loss, duplication and reordering.
        join_interval: seconds from one join to the next; 0: all at once.
        crash: the share of the members that dies once the overlay is legitimate.
        partition: for how many seconds half of the members is cut off then; 0: not at all.
        addresses: the logical addresses of the first members; the others' are as configured.

    Raises:
        ConfigurationError: a value is out of its range, or there are more addresses than members.
    """

    config: OverlayConfig
    nodes: int = field(validator=_check("a whole number of at least 1", lambda value: value >= 1))
    seed: int
    network: Network
    quality: LinkQuality = PERFECT
    join_interval: float = field(default=0.001, validator=_seconds)
    crash: float = field(
        default=0.0, validator=_check("a share from 0 to below 1", lambda value: 0 <= value < 1)
    )
    partition: float = field(default=0.0, validator=_seconds)
    addresses: tuple[LogicalAddress, ...] = field(default=())

    @addresses.validator
    def _check_addresses(
        self, _: Attribute[tuple[LogicalAddress, ...]], addresses: tuple[LogicalAddress, ...]
    ) -> None:
        if len(addresses) > self.nodes:
            raise ConfigurationError(
                f"{len(addresses)} addresses for {self.nodes} members; at most one each is allowed"
            )


def read_addresses(path: Path, spec: ProtocolSpec) -> tuple[LogicalAddress, ...]:
    """Read logical addresses from a file, one a line as the protocol writes them.

    Raises:
        ConfigurationError: no such file, not UTF-8, no address in it; a line that is none, or
            one that is there already. The text names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: cannot be read as a text in UTF-8: {error}") from error
    places: dict[LogicalAddress, int] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            address = spec.parse_address(line.strip())
        except LocalProtocolError as error:
            raise ConfigurationError(f"{path}, line {number}: {error}") from error
        if address in places:
            raise ConfigurationError(
                f"{path}, line {number}: {line.strip()} stands in line {places[address]} already; "
                "each member needs an address of its own"
            )
        places[address] = number
    if not places:
        raise ConfigurationError(f"{path}: no address; one a line is needed")
    return tuple(places)


@frozen(kw_only=True)
class Report:
    """What came of an experiment.

    Attributes:
        protocol: its name.
        parameters: the protocol's settings.
        nodes: how many members joined.
        seed: the scenario's.
        legitimate: whether the overlay became legitimate, after the faults if there were any.
        time_to_legitimate_s: virtual seconds from the last join, fault or heal to the first
            instant from which it was legitimate for three heartbeats; None when it was not.
        messages_per_join: protocol messages sent until the overlay of all who joined was
            legitimate, less periodic Hellos, for each of them. A Hello (a message of a class
            that repeats) is periodic when it goes to a neighbor in its sender's table, with the
            same bytes as the last one to that neighbor, and at least 0.8 heartbeats after it.
        rendezvous_messages_per_join: messages to and from the rendezvous server, buddies and
            the multicast group, for each of them, in the same time.
        events: how many events were handled in all.
        events_per_s: of the wall clock.
        wall_s: seconds of the wall clock.
        trace_sha256: see `trace`.
        root: the member whose tree was measured; None when there is no tree.
        stretch, stress, cost: of that tree; see `RoutingTree`. Delays are in milliseconds.
    """

    protocol: str
    parameters: dict[str, object]
    nodes: int
    seed: int
    legitimate: bool
    time_to_legitimate_s: float | None
    messages_per_join: float
    rendezvous_messages_per_join: float
    events: int
    events_per_s: float
    wall_s: float
    trace_sha256: str
    root: int | None
    stretch: Summary | None
    stress: Summary | None
    cost: Summary | None

    def as_json(self) -> dict[str, object]:
        """One object of plain values; distributions as `mean`, `p90` and `max`."""
        return {name: _plain(value) for name, value in attrs.asdict(self, recurse=False).items()}


@frozen
class Progress:
    """How far an experiment is: virtual seconds, members, and those of them that are stable."""

    now: float
    members: int
    stable: int


@define(eq=False)
class Experiment:
    """Runs one scenario.

    Args:
        scenario: what happens.
        progress: told every virtual second how far it is.

    Attributes:
        simulator: where it happens.
        report: what came of it, once it has run.
    """

    scenario: Scenario
    progress: Callable[[Progress], None] | None = None
    simulator: Simulator = field(init=False)
    _root: SimulatedSocket | None = field(default=None, init=False)
    _parents: dict[int, int | None] = field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        scenario = self.scenario
        topology(scenario.config.node.protocol)
        self.simulator = Simulator(scenario.seed, scenario.network, scenario.quality)
        for number in range(scenario.nodes):
            address = scenario.addresses[number] if number < len(scenario.addresses) else None
            self.simulator.add(scenario.config, address, number * scenario.join_interval)
        self.simulator.call_at(1.0, self._tick)

    def run(self) -> Report:
        """Let it happen, and judge it."""
        began = perf_counter()
        simulator = self.simulator
        seconds = simulator.run_until_legitimate()
        traffic = (
            simulator.traffic_until_legitimate() if seconds is not None else simulator.traffic()
        )
        if seconds is not None and (self.scenario.crash or self.scenario.partition):
            self._break()
            seconds = simulator.run_until_legitimate()
        if any(member.error is not None for member in simulator.members):
            seconds = None
        tree = self._measure()
        wall = perf_counter() - began
        return self._report(seconds, traffic, tree, wall)

    def dump(self) -> dict[str, object]:
        """Every member with its place in the overlay, so that anyone may check the graph."""
        simulator = self.simulator
        members = simulator.members
        protocol = self.scenario.config.node.protocol
        ids = {member.address: member.number for member in members if member.alive}
        shown = topology(protocol).shown
        return {
            "protocol": protocol,
            "parameters": _parameters(self.scenario.config),
            "seed": self.scenario.seed,
            "root": None if self._root is None else self._root.number,
            "members": [
                {
                    "id": member.number,
                    "address": None if member.place is None else shown(member.place),
                    "alive": member.alive,
                    "endpoint": str(member.seen_as.endpoints[0]),
                    "stable": member.stable,
                    "neighbors": [ids[a] for a in member.neighbors if a in ids]
                    if member.alive
                    else [],
                    "parent": self._parents.get(member.number),
                }
                for member in members
            ],
            "delay_ms": None
            if len(members) > MAX_MATRIX
            else [[simulator.delay_ms(a, b) for b in members] for a in members],
        }

    def _break(self) -> None:
        """Crash and partition, both at this instant; heal when the time has come."""
        scenario, simulator = self.scenario, self.simulator
        rng = generator(scenario.seed, "faults")
        members = simulator.members
        dead = rng.sample(members, min(round(scenario.crash * len(members)), len(members) - 1))
        for member in sorted(dead, key=lambda member: member.number):
            simulator.crash(member)
        if scenario.partition:
            survivors = [member for member in members if member.alive]
            simulator.partition([rng.sample(survivors, len(survivors) // 2)])
            simulator.run(simulator.now + scenario.partition)
            simulator.heal()

    def _measure(self) -> RoutingTree[int] | None:
        """The tree of a seeded root, if the members' parents make one."""
        members = [member for member in self.simulator.members if member.joined and member.alive]
        if not members:
            return None
        root = generator(self.scenario.seed, "root").choice(members)
        ids: dict[LogicalAddress | None, int] = {m.address: m.number for m in members}
        self._root = root
        self._parents = {m.number: ids.get(m.parent(root.address)) for m in members}
        try:
            return RoutingTree.of(list(self._parents), root.number, self._parents)
        except ValueError:
            return None  # No tree, no figures; `legitimate` tells how the overlay is.

    def _report(
        self,
        seconds: float | None,
        traffic: Traffic,
        tree: RoutingTree[int] | None,
        wall: float,
    ) -> Report:
        scenario, simulator = self.scenario, self.simulator
        delay_ms = scenario.network.delay_ms
        return Report(
            protocol=scenario.config.node.protocol,
            parameters=_parameters(scenario.config),
            nodes=scenario.nodes,
            seed=scenario.seed,
            legitimate=seconds is not None,
            time_to_legitimate_s=None if seconds is None else round(seconds, 6),
            messages_per_join=round((traffic.protocol - traffic.periodic) / scenario.nodes, 3),
            rendezvous_messages_per_join=round(traffic.rendezvous / scenario.nodes, 3),
            events=simulator.events,
            events_per_s=round(simulator.events / wall, 1),
            wall_s=round(wall, 3),
            trace_sha256=simulator.trace_sha256(),
            root=None if self._root is None else self._root.number,
            stretch=None if tree is None else tree.stretch(delay_ms),
            stress=None if tree is None else tree.stress(),
            cost=None if tree is None else tree.cost(delay_ms),
        )

    def _tick(self) -> None:
        simulator = self.simulator
        if self.progress is not None:
            members = [member for member in simulator.members if member.alive]
            stable = sum(member.stable for member in members)
            self.progress(Progress(simulator.now, len(members), stable))
        simulator.call_at(simulator.now + 1.0, self._tick)


def _parameters(config: OverlayConfig) -> dict[str, object]:
    return {leaf.key: leaf.value for leaf in table_leaves(config.node.settings, "")}


def _plain(value: object) -> object:
    if isinstance(value, Summary):
        return {"mean": value.mean, "p90": value.p90, "max": value.maximum}
    return value
