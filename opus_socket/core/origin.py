"""The frames that a member sends of its own.

Its one rule: nothing is taken before everything was checked, so that a refused call has changed
nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.dispatch import EngineSettings, Piece
from opus_socket.core.duplicates import LANE_SHIFT
from opus_socket.core.extensions import MAX_LENGTH, MESSAGE_ID, Code, Extension, LossReport
from opus_socket.core.message import MASK, SHAPES, OverlayMessage, Shape
from opus_socket.core.node import Mode
from opus_socket.core.runs import RAW_ID_HEAD, SERVICE_ID_HEAD, make_frames
from opus_socket.errors import LocalProtocolError, NotJoinedError

FOR_ALL = (Mode.MULTICAST, Mode.FLOOD)
"""The modes without a destination."""


@define(eq=False)
class Order:
    """What a member wants to send.

    Attributes:
        payloads: one for each message.
        mode: how they are delivered.
        key: the destination; None for multicast and flood.
        hop_limit: 1..65,535; None for the settings' own.
        traffic_class: 0..255.
        service: the id of the service that sends; None for the application.
    """

    payloads: Sequence[bytes]
    mode: Mode
    key: LogicalAddress | None
    hop_limit: int | None
    traffic_class: int
    service: int | None = None

    @property
    def prefix(self) -> bytes:
        """What stands before each payload."""
        return b"" if self.service is None else self.service.to_bytes(4)


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
    _next: dict[int, int] = field(factory=dict, init=False)

    def move(self, here: LogicalAddress | None) -> None:
        """The member's address is another now."""
        self.here = here
        if here is not None:
            self.wire = here.wire
            self.shape = SHAPES[here.las]

    def make(self, order: Order) -> tuple[int, list[Piece], int]:
        """The first sequence number, the frames in pieces, and their size in bytes.

        Raises:
            LocalProtocolError: a value out of range. Nothing was taken.
            NotJoinedError: this member has no address yet.
        """
        hop_limit = self.settings.hop_limit if order.hop_limit is None else order.hop_limit
        self._check(order, hop_limit)
        count = len(order.payloads)
        first = self._take(order.mode, order.traffic_class, count)
        key = b"\xff" * len(self.wire) if order.key is None else order.key.wire
        head = RAW_ID_HEAD if order.service is None else SERVICE_ID_HEAD
        middle = self.shape.middle.pack(hop_limit, self.wire, key, head, self.incarnation)
        word = self.shape.word(order.mode, order.traffic_class)
        pieces = make_frames(self.shape, word, middle, first, order.prefix, order.payloads)
        return first, pieces, sum(map(len, pieces))

    def make_report(self, report: LossReport, to: LogicalAddress) -> bytes:
        """The frame of a control message about a loss here."""
        if self.here is None:
            raise NotJoinedError("this member has no logical address yet; join first")
        identity = MESSAGE_ID.pack(self.incarnation, self._take(Mode.UNICAST, 0, 1))
        return OverlayMessage.build(
            self.here,
            to,
            Mode.UNICAST,
            (Extension(Code.MESSAGE_ID, identity), Extension(Code.CONTROL, report.wire)),
            hop_limit=self.settings.hop_limit,
        ).frame

    def _take(self, mode: int, traffic_class: int, count: int) -> int:
        """The first of so many sequence numbers in the lane of a mode and class."""
        lane = traffic_class << 2 | mode
        first = self._next.get(lane, lane << LANE_SHIFT)
        self._next[lane] = first + count
        return first

    def _check(self, order: Order, hop_limit: int) -> None:
        here, key = self.here, order.key
        if here is None:
            raise NotJoinedError("this member has no logical address yet; join first")
        longest_frame = min(self.settings.maximum_frame, self.shape.fixed + MAX_LENGTH)
        limit = longest_frame - self.shape.size - len(order.prefix)
        longest = max(map(len, order.payloads), default=0)
        if longest > limit:
            raise LocalProtocolError(
                f"a message of {longest} bytes; at most {limit} are allowed "
                f"(a frame of {longest_frame} bytes less its header)"
            )
        for name, value, least in (
            ("hop_limit", hop_limit, 1),
            ("traffic_class", order.traffic_class, 0),
        ):
            if not least <= value <= MASK[name]:
                raise LocalProtocolError(f"{name} {value}: {least} to {MASK[name]} are allowed")
        if (key is None) != (order.mode in FOR_ALL):
            raise LocalProtocolError(
                f"{order.mode.name.lower()} to {key}: unicast and anycast need a destination, "
                "multicast and flood have none"
            )
        if key is not None and (key.las != here.las or key == here.everybody(here.las)):
            raise LocalProtocolError(
                f"{key} is no destination here: {len(here)} whole numbers from 0 to 4294967295, "
                "not all of them the largest, are allowed"
            )
