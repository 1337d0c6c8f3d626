"""What the forwarding engine answers: outputs, deliveries, losses, and its statistics.

Its one rule: whatever goes to one neighbor in one traffic class stays in the order in which it
came, and a piece always holds whole frames.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from attrs import define, field, frozen

from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.events import Event
from opus_socket.core.message import OverlayMessage

Piece = bytes | bytearray | memoryview
"""Whole frames for a wire. A memoryview dies when its receive buffer is filled again: what is
not written at once must be copied. Others may be kept, and are never changed."""


@define(eq=False)
class Output:
    """What one neighbor is to be sent in one traffic class.

    Attributes:
        contact: the neighbor.
        traffic_class: the queue to use, 0..255.
        pieces: whole frames, in order.
        frames: how many.
        size: how many bytes.
    """

    contact: Contact
    traffic_class: int
    pieces: list[Piece] = field(repr=False)
    frames: int
    size: int


@define(eq=False)
class ForService:
    """A message for a service of this member, or one that a service intercepts.

    Attributes:
        service: the service's id.
        message: the message as it arrived.
        arrived_from: the neighbor it came from; None for this member's own.
        addressed: whether it is for this member (perhaps among others).
        held: whether it was on its way to others and waits here for the service's verdict;
            `ForwardingEngine.resume` sends it on.
    """

    service: int
    message: OverlayMessage
    arrived_from: LogicalAddress | None
    addressed: bool
    held: bool


@define(eq=False)
class Dispatch:
    """What came of one batch.

    Attributes:
        consumed: bytes of the buffer that were handled: whole frames.
        outputs: what to send, at most one entry for each neighbor and traffic class.
        delivered: messages for the application, in order.
        for_services: messages for services, in order.
        events: what to tell the application.
        duplicates: messages that had been here before.
        dropped: messages that were lost here, by reason.
        broken: why the bytes at `consumed` cannot be a frame (`version`, `oversize`), which
            means that a stream has lost its place; None when they can.
        first_id: the identity of the first message that was originated; the others of the batch
            have the sequence numbers that follow.
    """

    consumed: int = 0
    outputs: list[Output] = field(factory=list)
    delivered: list[OverlayMessage] = field(factory=list)
    for_services: list[ForService] = field(factory=list)
    events: list[Event] = field(factory=list)
    duplicates: int = 0
    dropped: dict[str, int] = field(factory=dict)
    broken: str | None = None
    first_id: tuple[int, int] | None = None

    def drop(self, reason: str, count: int) -> None:
        """Count messages that were lost here."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count


@define(eq=False)
class OutputBuilder:
    """Collects what is sent, joining neighboring parts of one buffer that share their outputs.

    Args:
        buffer: what views are taken of.
    """

    buffer: memoryview
    frames: int = 0
    """Frames put so far, whatever the number of their outputs."""
    size: int = 0
    _outputs: dict[tuple[Contact, int], Output] = field(factory=dict, init=False)
    _contacts: Sequence[Contact] = field(default=(), init=False)
    _class: int = field(default=0, init=False)
    _start: int = field(default=0, init=False)
    _stop: int = field(default=0, init=False)
    _count: int = field(default=0, init=False)

    def put_view(
        self, contacts: Sequence[Contact], traffic_class: int, start: int, stop: int, frames: int
    ) -> None:
        """Send a part of the buffer to these contacts."""
        if start == self._stop and contacts == self._contacts and traffic_class == self._class:
            self._stop = stop
            self._count += frames
            return
        self._flush()
        self._contacts, self._class = contacts, traffic_class
        self._start, self._stop, self._count = start, stop, frames

    def put_piece(
        self, contacts: Sequence[Contact], traffic_class: int, piece: Piece, frames: int
    ) -> None:
        """Send a piece that is not a part of the buffer."""
        self._flush()
        self._put(contacts, traffic_class, piece, frames)

    def finish(self) -> list[Output]:
        """Everything that was put."""
        self._flush()
        return list(self._outputs.values())

    def _flush(self) -> None:
        if self._count:
            piece = self.buffer[self._start : self._stop]
            count, self._count = self._count, 0
            self._put(self._contacts, self._class, piece, count)
        self._stop = 0
        self._contacts = ()

    def _put(
        self, contacts: Sequence[Contact], traffic_class: int, piece: Piece, frames: int
    ) -> None:
        size = len(piece)
        self.frames += frames
        self.size += size
        for contact in contacts:
            output = self._outputs.get((contact, traffic_class))
            if output is None:
                output = Output(contact, traffic_class, [piece], frames, size)
                self._outputs[contact, traffic_class] = output
            else:
                output.pieces.append(piece)
                output.frames += frames
                output.size += size


@frozen
class EngineStatistics:
    """What a forwarding engine has done since it was made."""

    originated_frames: int
    """Messages that this member sent."""
    originated_bytes: int
    """Their frames, in bytes."""
    relayed_frames: int
    """Messages of others that were passed on, each counted once."""
    relayed_bytes: int
    """Their frames, in bytes."""
    transmitted_frames: int
    """Frames handed to neighbors: own and others', once for each neighbor."""
    transmitted_bytes: int
    """The same in bytes."""
    delivered_frames: int
    """Messages handed to the application."""
    delivered_bytes: int
    """Their frames, in bytes."""
    service_frames: int
    """Messages handed to services."""
    duplicates: int
    """Messages that had been here before."""
    dropped: Mapping[str, int]
    """Messages that were lost here, by reason."""
    reports_sent: int
    """Control messages sent about losses here."""
    reports_received: int
    """Control messages received about losses of own messages."""
    route_hits: int
    """Route decisions that were known."""
    route_misses: int
    """Route decisions that the node was asked for."""
    routes: int
    """Route decisions that are known now."""
    lanes: int
    """Duplicate windows that are kept now."""
