"""Data flows: which packets of an application a member sends to which neighbor, and coded how.

Its one rule: a flow is a value, told to each member by whoever designs the flow; together they make
a graph of streams, such as the butterfly. Through a branch goes only what tells the neighbor
something new: of a generation never more packets than it has blocks, however often they come. So a
graph that closes circles does no harm. A packet goes one hop at a time, and 32 at most.

The butterfly (iOverlay, Figure 4; the edges are inferred from its throughputs): the source A splits
what it sends into the streams a and b, D joins them, and F and G have both from one half each::

    A: Branch(B, Rule.STREAM, 0), Branch(C, Rule.STREAM, 1)
    B: Branch(D), Branch(F)       C: Branch(D), Branch(G)
    D: Branch(E, Rule.ADD)        E: Branch(F), Branch(G)        D, F, G: decode
    without coding, D: Branch(E, Rule.HALF)
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from random import Random

from attrs import define, field, frozen

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.hold import HoldSettings, HoldTable
from opus_socket.core.requests import check_whole, iterated, shown, whole
from opus_socket.errors import LocalProtocolError
from opus_socket.services.generations import MAX_BLOCKS, Packet, Told, combine, is_innovative

MAX_TOLD = 1024
"""Generations of which a branch remembers what it has sent."""


class Rule(Enum):
    """What goes through a branch.

    Attributes:
        FORWARD: every packet that tells the neighbor something new, as it is.
        STREAM: of `parts` streams into which the blocks of each generation are dealt, the one with
            the number `part`.
        HALF: of each stream one packet in `parts`, each stream's turn shifted by one: with two
            parts and streams, half of each.
        ADD: for every `parts` independent packets of a generation, their sum.
        MIX: the same, with factors drawn at random.
    """

    FORWARD = "forward"
    STREAM = "stream"
    HALF = "half"
    ADD = "add"
    MIX = "mix"


@frozen
class Branch:
    """What one neighbor is sent.

    Attributes:
        to: the neighbor; while it is none nothing goes there, and is counted as `astray`.
        rule: what goes through.
        part: which part, from 0; for STREAM and HALF.
        parts: how many parts there are, or how many packets make one, 1 to 64. No more packets of
            a generation are independent than it has blocks, so ADD and MIX want no more.
    """

    to: LogicalAddress
    rule: Rule = Rule.FORWARD
    part: int = 0
    parts: int = 2


@frozen
class Flow:
    """A request of `coding`: what this member does with packets of an application from now on, in
    place of what it did before.

    Attributes:
        app: the application, a number that its members agree on, 0..4,294,967,295.
        branches: what is sent on; nothing where there are none.
        decode: whether the blocks are wanted here.
    """

    app: int
    branches: tuple[Branch, ...] = ()
    decode: bool = False


def check_app(app: object) -> int:
    """The number of an application.

    Raises:
        LocalProtocolError: it is none.
    """
    return check_whole("app", app, 0, (1 << 32) - 1)


def check_flow(flow: Flow, here: LogicalAddress) -> Flow:
    """The flow, if a member can do as it says.

    Args:
        flow: as an application has made it.
        here: the member's address.

    Raises:
        LocalProtocolError: it cannot.
    """
    branches = [*iterated("branches", flow.branches, "a tuple of branches")]
    if type(flow.decode) is not bool:
        raise LocalProtocolError(f"decode {shown(flow.decode)}: True or False is allowed")
    checked = tuple([_check_branch(branch, here) for branch in branches])
    return Flow(check_app(flow.app), checked, flow.decode)


def _check_branch(branch: object, here: LogicalAddress) -> Branch:
    if not isinstance(branch, Branch):
        raise LocalProtocolError(f"{shown(branch)} is no branch; a Branch is allowed")
    to: object = branch.to
    nobody = (here, here.everybody(here.las))
    if not isinstance(to, LogicalAddress) or to.las != here.las or to in nobody:
        raise LocalProtocolError(
            f"a branch to {shown(to)}: the address of another member is allowed"
        )
    if not isinstance(branch.rule, Rule):
        rules = ", ".join(map(str, Rule))
        raise LocalProtocolError(f"rule {shown(branch.rule)}: {rules} are allowed")
    part, parts = whole(branch.part), whole(branch.parts)
    if part is None or parts is None or not 0 <= part < parts <= MAX_BLOCKS:
        raise LocalProtocolError(
            f"part {shown(branch.part)} of {shown(branch.parts)}: 1 to {MAX_BLOCKS} parts are "
            "allowed, numbered from 0"
        )
    return Branch(to, branch.rule, part, parts)


@define(eq=False, repr=False)
class Outlet:
    """A branch at work: it passes packets on, or holds them for others of their generation.

    Args:
        branch: what it does.
        hold: limits of what is held; what they release is passed on as it came.
        rng: draws factors.
    """

    branch: Branch
    _hold: HoldSettings
    _rng: Random
    table: HoldTable[Packet] = field(init=False)
    _told: Told = field(factory=lambda: Told(MAX_TOLD), init=False)

    def __attrs_post_init__(self) -> None:
        self.table = HoldTable(self._hold)

    @property
    def joins(self) -> bool:
        """Whether packets wait for others here."""
        return self.branch.rule in (Rule.ADD, Rule.MIX)

    def select(self, packets: Sequence[Packet]) -> list[Packet]:
        """Those of them that tell the neighbor something new; they count as sent."""
        return [packet for packet in packets if self._told.add(packet)]

    def take(self, packet: Packet, upstream: LogicalAddress | None, now: float) -> Sequence[Packet]:
        """What would go through because this packet came.

        Args:
            packet: of a generation that others are held of, perhaps.
            upstream: the neighbor it came from; None for one of this member.
            now: seconds.
        """
        branch = self.branch
        match branch.rule:
            case Rule.FORWARD:
                return (packet,)
            case Rule.STREAM:
                return (packet,) if packet.stream % branch.parts == branch.part else ()
            case Rule.HALF:
                turn = packet.stream + packet.generation
                return (packet,) if turn % branch.parts == branch.part else ()
            case Rule.ADD | Rule.MIX:
                return self._join(packet, upstream, now)

    def _join(
        self, packet: Packet, upstream: LogicalAddress | None, now: float
    ) -> Sequence[Packet]:
        key = packet.key
        if not is_innovative(packet, self.table.held(key)):
            return ()
        size = len(packet.coefficients) + len(packet.payload)
        out = self.table.hold(key, packet, size, upstream, now)
        if len(self.table.held(key)) == self.branch.parts:
            packets = self.table.take(key)
            factors = [1] * len(packets)
            if self.branch.rule is Rule.MIX:
                factors = [self._rng.randrange(1, 256) for _ in packets]
            made = combine(packets, factors)
            if made is not None:
                out.append(made)
        return out
