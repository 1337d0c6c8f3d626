"""Network coding as a service: blocks go through a graph of streams that members combine.

Its one rule: a member does with packets what its flow says, and no more; of an application for
which it has none it drops them, counted. The source deals what it is given into generations; every
block travels as a packet that others may combine, and wherever a member decodes, a block is there
as soon as the packets at hand determine it. So a lost generation blocks only itself. In use::

    coding = sock.service("coding")
    await coding.ask(Flow(7, (Branch(left), Branch(right)), decode=True))
    await coding.ask(Send(7, [b"...", b"..."]))
    async for block in coding.results(Block):
        print(block.generation, block.index, block.data)

Packets go to neighbors, one hop each, best effort; those of a branch to somebody else are counted
(`astray`) and go nowhere. What is held waits for two seconds at most;
then it goes on uncombined, which wherever it arrives is as good as any other packet.

Source: iOverlay, section 3.1; generations and limits are ours.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import inf

from attrs import asdict, define, evolve, field, frozen

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.dispatch import ForService
from opus_socket.core.hold import HoldSettings, HoldStatistics
from opus_socket.core.requests import Payload, check_payloads
from opus_socket.core.service import (
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
from opus_socket.services.data_flow import Branch, Flow, Outlet, Rule, check_app, check_flow
from opus_socket.services.generations import (
    LONGEST_BLOCK,
    MAX_BLOCKS,
    MAX_HOPS,
    OVERHEAD,
    Decoder,
    Packet,
)

__all__ = ["SPEC", "Block", "Branch", "CodingSettings", "Flow", "Rule", "Send"]

MAX_FINISHED = 1024
"""Generations that an application is remembered to be through with."""


@frozen
class CodingSettings:
    """`[services.coding]`."""

    generation: int = setting(
        2,
        unit="blocks",
        minimum=1,
        maximum=MAX_BLOCKS,
        meaning="how many blocks of what this member sends are coded together",
    )
    window: int = setting(
        64,
        unit="generations",
        minimum=1,
        meaning="how many generations of an application are solved for at a time",
    )
    decode_buffer: int = setting(
        16 * 1024 * 1024,
        unit="bytes",
        minimum=1,
        meaning="what is kept of them; above it, the oldest generation is given up",
    )
    hold_timeout: float = setting(
        2.0,
        unit="seconds",
        minimum=0.001,
        meaning="how long a packet waits for others to be combined with",
    )
    hold_messages: int = setting(
        64,
        unit="packets",
        minimum=1,
        meaning="how many packets of a generation wait for others",
    )
    hold_buffer: int = setting(
        4 * 1024 * 1024,
        unit="bytes",
        minimum=1,
        meaning="how much waits for others, for each neighbor that is sent combinations",
    )


@frozen
class Send:
    """A request: send these blocks through the application's flow.

    Attributes:
        app: an application of which this member has a flow.
        blocks: a list, or whatever can be gone through once, of any length that fits into a frame
            with what stands before them.
    """

    app: int
    blocks: Iterable[Payload]


@frozen
class Block:
    """A result: a block that was sent, as it was put in.

    Attributes:
        app: of which application.
        generation: numbers of one source grow.
        index: which block of its generation, from 0.
        data: its bytes.
    """

    app: int
    generation: int
    index: int
    data: bytes


@frozen
class FlowStatistics:
    """Figures of one application at one member.

    Attributes:
        received: packets that came.
        received_bytes: their payloads.
        innovative: packets that told a decoder something new.
        innovative_bytes: their payloads; over time, the throughput here.
        redundant: packets that told a decoder nothing new, or came after their generation.
        blocks: blocks that were solved.
        complete: generations of which every block was solved.
        lost: generations that were given up before that.
        sent: packets sent, once for each neighbor.
        repeated: packets not sent to a neighbor, which they would have told nothing new.
        astray: packets not sent because their branch leads to nobody who is a neighbor now.
        held: what waits to be combined, for each neighbor that is sent combinations.
    """

    received: int
    received_bytes: int
    innovative: int
    innovative_bytes: int
    redundant: int
    blocks: int
    complete: int
    lost: int
    sent: int
    repeated: int
    astray: int
    held: Mapping[LogicalAddress, HoldStatistics]


@frozen
class CodingStatistics:
    """Figures of the service.

    Attributes:
        flows: by application.
        refused: packets of remotes that were dropped, by what was wrong with them.
    """

    flows: Mapping[int, FlowStatistics]
    refused: Mapping[str, int]


@define(eq=False)
class _Counts:
    """The counters behind `FlowStatistics`, under the same names."""

    received: int = 0
    received_bytes: int = 0
    innovative: int = 0
    innovative_bytes: int = 0
    redundant: int = 0
    blocks: int = 0
    complete: int = 0
    lost: int = 0
    sent: int = 0
    repeated: int = 0
    astray: int = 0


@define(eq=False)
class _Work:
    """A flow at work.

    Attributes:
        outlets: its branches.
        next_block: the number of the next block that is sent from here, from 0.
        decoders: by generation, the oldest first.
        finished: generations that are through, the oldest first.
    """

    flow: Flow
    outlets: tuple[Outlet, ...]
    next_block: int = 0
    decoders: dict[int, Decoder] = field(factory=dict)
    finished: dict[int, None] = field(factory=dict)
    counts: _Counts = field(factory=_Counts)

    def finish(self, generation: int) -> None:
        """Forget a generation, but for its number."""
        del self.decoders[generation]
        self.finished[generation] = None
        if len(self.finished) > MAX_FINISHED:
            del self.finished[next(iter(self.finished))]

    def statistics(self) -> FlowStatistics:
        """Figures so far."""
        held = {each.branch.to: each.table.statistics() for each in self.outlets if each.joins}
        return FlowStatistics(**asdict(self.counts), held=held)


@define(eq=False, repr=False)
class Coding(Service):
    """The machine of `coding`: a source, a relay and a decoder.

    Args:
        settings: limits.
        context: of this member. What it sends is counted from its incarnation upward, so that
            generations have higher numbers when it has restarted.
    """

    settings: CodingSettings
    context: ServiceContext
    _works: dict[int, _Work] = field(factory=dict, init=False)
    _refused: Counter[str] = field(factory=Counter, init=False)

    @property
    def next_deadline(self) -> float:
        """When something that is held goes on; inf when nothing is."""
        return min((outlet.table.next_deadline for outlet in self._outlets()), default=inf)

    def ask(self, request: object, now: float) -> ServiceEffects:
        """Take a flow, or blocks to send.

        Raises:
            LocalProtocolError: a value that is not allowed, or blocks of an application without a
                flow. Nothing has changed.
        """
        match request:
            case Flow():
                return self._use(check_flow(request, self.context.place.address), now)
            case Send(app=app, blocks=blocks):
                return self._send(self._work(check_app(app)), check_payloads(blocks), now)
            case _:
                return super().ask(request, now)

    def receive(self, message: ForService, now: float) -> ServiceEffects:
        """A packet came."""
        try:
            packet = Packet.from_wire(message.message.payload)
            work = self._works.get(packet.app)
            if work is None:
                raise RemoteProtocolError("unknown_app", f"{packet.app}")
        except RemoteProtocolError as error:
            self._refused[error.kind] += 1
            return ()
        work.counts.received += 1
        work.counts.received_bytes += len(packet.payload)
        out: list[ServiceEffect] = []
        if work.flow.decode:
            self._decode(work, packet, out)
        if packet.hops > 1:
            passed = evolve(packet, hops=packet.hops - 1)
            self._pass(work, passed, message.arrived_from, now, out)
        elif work.outlets:
            self._refused["hops"] += 1
        return out

    def link_failed(self, neighbor: LogicalAddress, now: float) -> ServiceEffects:
        """Let go on what may wait for that neighbor."""
        return self._let_go(lambda outlet: outlet.table.upstream_failed(neighbor))

    def wake(self, now: float) -> ServiceEffects:
        """Let go on what has waited too long."""
        return self._let_go(lambda outlet: outlet.table.expire(now))

    def leave(self, now: float) -> ServiceEffects:
        """Let go on what is held, and end every flow."""
        out = self._let_go(lambda outlet: outlet.table.end())
        self._works.clear()
        return out

    def statistics(self) -> CodingStatistics:
        """Figures so far."""
        flows = {app: work.statistics() for app, work in self._works.items()}
        return CodingStatistics(flows, dict(self._refused))

    def _use(self, flow: Flow, now: float) -> ServiceEffects:
        hold = HoldSettings(
            self.settings.hold_timeout, self.settings.hold_messages, self.settings.hold_buffer
        )
        outlets = tuple([Outlet(each, hold, self.context.rng) for each in flow.branches])
        out: list[ServiceEffect] = []
        former = self._works.get(flow.app)
        if former is None:
            self._works[flow.app] = _Work(flow, outlets)
        else:
            self._let_out(former, lambda outlet: outlet.table.end(), out)
            former.flow, former.outlets = flow, outlets
            if not flow.decode:
                former.decoders.clear()
        return out

    def _work(self, app: int) -> _Work:
        if app not in self._works:
            known = ", ".join(map(str, self._works)) or "none"
            raise LocalProtocolError(f"app {app} has no flow here; those that have: {known}")
        return self._works[app]

    def _send(self, work: _Work, blocks: Sequence[bytes], now: float) -> ServiceEffects:
        size = self.settings.generation
        limit = min(LONGEST_BLOCK, self.context.longest_body - OVERHEAD - size)
        longest = max(map(len, blocks), default=0)
        if longest > limit:
            raise LocalProtocolError(f"a block of {longest} bytes; at most {limit} are allowed")
        out: list[ServiceEffect] = []
        for block in blocks:
            number, index = divmod(work.next_block, size)
            work.next_block += 1
            # Wraps around after the number that the wire can hold.
            generation = (self.context.contact.incarnation + number) & (1 << 64) - 1
            packet = Packet.of_block(work.flow.app, generation, MAX_HOPS, size, index, block)
            self._pass(work, packet, None, now, out)
        return out

    def _pass(
        self,
        work: _Work,
        packet: Packet,
        upstream: LogicalAddress | None,
        now: float,
        out: list[ServiceEffect],
    ) -> None:
        """Put a packet into every branch, and send what comes out and is new there."""
        for outlet in work.outlets:
            self._emit(work, outlet, outlet.take(packet, upstream, now), out)

    def _emit(
        self, work: _Work, outlet: Outlet, packets: Sequence[Packet], out: list[ServiceEffect]
    ) -> None:
        to = outlet.branch.to
        if not any(each.address == to for each in self.context.place.neighbors):
            work.counts.astray += len(packets)
            return
        new = outlet.select(packets)
        work.counts.repeated += len(packets) - len(new)
        if new:
            work.counts.sent += len(new)
            out.append(to_neighbor([packet.wire for packet in new], to))

    def _let_go(self, release: Callable[[Outlet], Sequence[Packet]]) -> ServiceEffects:
        """Send on what the tables release, uncombined."""
        out: list[ServiceEffect] = []
        for work in self._works.values():
            self._let_out(work, release, out)
        return out

    def _let_out(
        self,
        work: _Work,
        release: Callable[[Outlet], Sequence[Packet]],
        out: list[ServiceEffect],
    ) -> None:
        for outlet in work.outlets:
            self._emit(work, outlet, release(outlet), out)

    def _outlets(self) -> list[Outlet]:
        return [outlet for work in self._works.values() for outlet in work.outlets]

    def _decode(self, work: _Work, packet: Packet, out: list[ServiceEffect]) -> None:
        generation, counts = packet.generation, work.counts
        if generation in work.finished:
            counts.redundant += 1
            return
        decoder = work.decoders.get(generation)
        if decoder is None:
            decoder = work.decoders[generation] = Decoder(len(packet.coefficients))
        if decoder.blocks != len(packet.coefficients):
            self._refused["generation_size"] += 1
            return
        broken = decoder.broken
        solved = decoder.add(packet.coefficients, packet.payload)
        if decoder.broken > broken:
            self._refused["block_length"] += decoder.broken - broken
        if solved is None:
            counts.redundant += 1
            return
        counts.innovative += 1
        counts.innovative_bytes += len(packet.payload)
        counts.blocks += len(solved)
        out += [Publish(Block(packet.app, generation, *each)) for each in solved]
        if decoder.complete:
            counts.complete += 1
            work.finish(generation)
        self._give_up(work)

    def _give_up(self, work: _Work) -> None:
        """Forget the oldest generations above the limits."""
        limit = self.settings.decode_buffer
        while work.decoders and (
            len(work.decoders) > self.settings.window
            or sum(decoder.size for decoder in work.decoders.values()) > limit
        ):
            work.counts.lost += 1
            work.finish(next(iter(work.decoders)))


def _create(context: ServiceContext, settings: CodingSettings) -> Coding:
    return Coding(settings, context)


SPEC = ServiceSpec(
    "coding",
    "Network coding: blocks go through a graph of streams that members combine",
    CodingSettings,
    _create,
    requests=(Flow, Send),
)
