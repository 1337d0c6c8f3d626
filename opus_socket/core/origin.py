"""The frames that a member sends of its own.

Its one rule: nothing is taken before everything was checked, so that a refused call has changed
nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from attrs import define, field

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.dispatch import EngineSettings
from opus_socket.core.duplicates import LANE_SHIFT
from opus_socket.core.extensions import (
    MAX_LENGTH,
    MESSAGE_ID,
    Code,
    Extension,
    LossReport,
    record_route,
)
from opus_socket.core.fragments import (
    FRAGMENT_ID_HEAD,
    FRAGMENT_SHAPES,
    MAX_FRAGMENTS,
    count_fragments,
    make_fragments,
)
from opus_socket.core.message import MASK, SHAPES, OverlayMessage, Shape
from opus_socket.core.node import Mode
from opus_socket.core.runs import RAW_ID_HEAD, SERVICE_ID_HEAD, make_frames
from opus_socket.errors import LocalProtocolError, NotJoinedError

FOR_ALL = (Mode.MULTICAST, Mode.FLOOD)
"""The modes without a destination."""


Made = tuple[int, int, list[bytes], int]
"""Frames that were made: the first sequence number, how many they are, themselves, and their size
in bytes. The sequence numbers count up.
"""


_MAX_PLANS = 1024
"""Kinds of orders of which is kept what their frames have in common."""


@define(eq=False)
class Plan:
    """What the frames of orders of one kind have in common, kept until the address is another.

    Attributes:
        mode: how they are delivered.
        key: the destination; None for multicast and flood.
        traffic_class: 0..255.
        root: whose tree they take: this member's address on the wire, or the destination's.
        word, middle: of usual frames; `of_fragments`: the middle of fragments.
        prefix: what stands before each payload.
        before: bytes of a frame besides its payload.
        lane: whose sequence numbers they take.
        longest: bytes of the longest payload that fits one frame.
    """

    mode: Mode
    key: LogicalAddress | None
    traffic_class: int
    root: bytes
    word: int
    middle: bytes
    of_fragments: bytes
    prefix: bytes
    before: int
    lane: int
    longest: int


@define(eq=False)
class Origin:
    """Makes frames in a member's name.

    Args:
        settings: the limits.
        incarnation: the first half of every message's identity.

    Attributes:
        here: this member's address; None as long as it has none.
        wire: the same on the wire.
        shape: of frames with such addresses.
    """

    settings: EngineSettings
    incarnation: int
    here: LogicalAddress | None = field(default=None, init=False)
    wire: bytes = field(default=b"", init=False)
    shape: Shape = field(default=SHAPES[0], init=False)
    _room: int = field(default=0, init=False)
    _part: int = field(default=0, init=False)
    _next: dict[int, int] = field(factory=dict, init=False)
    _plans: dict[tuple[object, ...], Plan] = field(factory=dict, init=False)

    def move(self, here: LogicalAddress | None) -> None:
        """The member's address may be another now."""
        if here != self.here:
            self._plans.clear()
        self.here = here
        if here is not None:
            self.wire = here.wire
            self.shape = SHAPES[here.las]
            longest = min(self.settings.maximum_frame, self.shape.fixed + MAX_LENGTH)
            self._room = longest - self.shape.size
            self._part = longest - FRAGMENT_SHAPES[here.las].size

    def plan(
        self,
        mode: Mode,
        key: LogicalAddress | None,
        hop_limit: int | None,
        traffic_class: int,
        service: int | None,
    ) -> Plan:
        """What orders of a kind have in common.

        Args:
            mode: how they are delivered.
            key: the destination; None for multicast and flood.
            hop_limit: 1..65,535; None for the settings' own.
            traffic_class: 0..255.
            service: the id of the service that sends; None for the application.

        Raises:
            LocalProtocolError: a value out of range.
            NotJoinedError: this member has no address yet.
        """
        what = (mode, key, hop_limit, traffic_class, service)
        return self._plans.get(what) or self._plan(*what)

    def make(self, plan: Plan, payloads: Sequence[bytes]) -> Made:
        """The frames of an order, one or more for each payload.

        Raises:
            LocalProtocolError: a payload is too long. Nothing was taken.
        """
        count, size = len(payloads), sum(map(len, payloads))
        if size > plan.longest and (longest := max(map(len, payloads))) > plan.longest:
            self._check_length(longest, self._part - len(plan.prefix))
            return self._make_long(plan, payloads)
        first = self._take(plan.lane, count)
        pieces = make_frames(self.shape, plan.word, plan.middle, first, plan.prefix, payloads)
        return first, count, pieces, size + count * plan.before

    def _plan(
        self,
        mode: Mode,
        key: LogicalAddress | None,
        hop_limit: int | None,
        traffic_class: int,
        service: int | None,
    ) -> Plan:
        hops = self.settings.hop_limit if hop_limit is None else hop_limit
        self._check(mode, key, hops, traffic_class)
        prefix = b"" if service is None else service.to_bytes(4)
        usual = RAW_ID_HEAD if service is None else SERVICE_ID_HEAD
        head = hops, self.wire, b"\xff" * len(self.wire) if key is None else key.wire
        plan = Plan(
            mode,
            key,
            traffic_class,
            self.wire if key is None else key.wire,
            self.shape.word(mode, traffic_class),
            self.shape.middle.pack(*head, usual, self.incarnation),
            self.shape.middle.pack(*head, FRAGMENT_ID_HEAD, self.incarnation),
            prefix,
            self.shape.size + len(prefix),
            traffic_class << 2 | mode,
            min(self._room - len(prefix), self.settings.max_message),
        )
        while len(self._plans) >= _MAX_PLANS:
            del self._plans[next(iter(self._plans))]
        self._plans[mode, key, hop_limit, traffic_class, service] = plan
        return plan

    def sequences(self, plan: Plan, payloads: Sequence[bytes], first: int) -> Iterator[int]:
        """The sequence number of each message of an order that begins with `first`."""
        for payload in payloads:
            yield first
            first += self._count_frames(plan, payload)

    def make_report(self, report: LossReport, to: LogicalAddress, traffic_class: int) -> bytes:
        """The frame of a control message about a loss here, in the class of what was lost: so that
        no class waits for another one's queue.
        """
        if self.here is None:
            raise NotJoinedError("this member has no logical address yet; join first")
        identity = MESSAGE_ID.pack(
            self.incarnation, self._take(traffic_class << 2 | Mode.UNICAST, 1)
        )
        return OverlayMessage.build(
            self.here,
            to,
            Mode.UNICAST,
            (Extension(Code.MESSAGE_ID, identity), Extension(Code.CONTROL, report.wire)),
            hop_limit=self.settings.hop_limit,
            traffic_class=traffic_class,
        ).frame

    def extend_route(self, message: OverlayMessage, left: int) -> bytes | None:
        """A relayed frame with this member in its route record; None if it does not ask for that
        or has no room.

        Args:
            message: as it arrived.
            left: its hop limit from here on.
        """
        room = self.settings.maximum_frame - len(message.frame)
        chain = None if self.here is None else record_route(message.extensions, self.here, room)
        if chain is None:
            return None
        return OverlayMessage.build(
            message.source,
            message.destination,
            message.mode,
            chain,
            hop_limit=left,
            traffic_class=message.traffic_class,
            flow_label=message.flow_label,
        ).frame

    def _make_long(self, plan: Plan, payloads: Sequence[bytes]) -> Made:
        """Frames of which some are fragments."""
        shape, prefix = FRAGMENT_SHAPES[self.shape.las], plan.prefix
        room, part = self._room - len(prefix), self._part - len(prefix)
        frames = sum([self._count_frames(plan, payload) for payload in payloads])
        first = self._take(plan.lane, frames)
        pieces: list[bytes] = []
        short: list[bytes] = []
        sequences = self.sequences(plan, payloads, first)
        for sequence, payload in zip(sequences, payloads, strict=True):
            if len(payload) <= room:
                short.append(payload)
                continue
            begin = sequence - len(short)
            pieces += make_frames(self.shape, plan.word, plan.middle, begin, prefix, short)
            short.clear()
            pieces += make_fragments(
                shape, plan.word, plan.of_fragments, sequence, prefix, payload, part
            )
        begin = first + frames - len(short)
        pieces += make_frames(self.shape, plan.word, plan.middle, begin, prefix, short)
        return first, frames, pieces, sum(map(len, pieces))

    def _count_frames(self, plan: Plan, payload: bytes) -> int:
        """How many frames a payload takes."""
        taken = len(plan.prefix)
        if len(payload) <= self._room - taken:
            return 1
        return count_fragments(len(payload), self._part - taken)

    def _take(self, lane: int, count: int) -> int:
        """The first of so many sequence numbers in a lane."""
        first = self._next.get(lane, lane << LANE_SHIFT)
        self._next[lane] = first + count
        return first

    @property
    def longest(self) -> int:
        """Bytes of the longest payload of the application that fits one frame."""
        return min(self._room, self.settings.max_message)

    def _check(
        self, mode: Mode, key: LogicalAddress | None, hop_limit: int, traffic_class: int
    ) -> None:
        """Look at everything but the payloads."""
        here = self.here
        if here is None:
            raise NotJoinedError("this member has no logical address yet; join first")
        for name, value, least in (
            ("hop_limit", hop_limit, 1),
            ("traffic_class", traffic_class, 0),
        ):
            if not least <= value <= MASK[name]:
                raise LocalProtocolError(f"{name} {value}: {least} to {MASK[name]} are allowed")
        if (key is None) != (mode in FOR_ALL):
            raise LocalProtocolError(
                f"{mode.name.lower()} to {key}: unicast and anycast need a destination, "
                "multicast and flood have none"
            )
        if key is not None:
            key.check_destination(here)

    def _check_length(self, longest: int, part: int) -> None:
        most, why = self.settings.max_message, "socket.max_message"
        if most > MAX_FRAGMENTS * part:
            most, why = MAX_FRAGMENTS * part, f"{MAX_FRAGMENTS} fragments of {part} bytes"
        if longest > most:
            raise LocalProtocolError(
                f"a message of {longest} bytes; at most {most} bytes are allowed ({why})"
            )
