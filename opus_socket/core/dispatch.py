"""What a forwarding engine is given and returns: settings, dispatches, statistics.

Its one rule: whatever goes to one neighbor in one traffic class stays in the order in which it
came.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from attrs import asdict, define, field, frozen

from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.events import Event
from opus_socket.core.message import OverlayMessage

Piece = bytes | memoryview
"""Bytes for a wire. A memoryview dies when its receive buffer is filled again: what is not
written at once must be copied. Bytes may be kept."""

MAX_WEIGHT = 100
"""The largest weight of a traffic class, in whose ratio classes share a link; the least is 1."""


@frozen
class EngineSettings:
    """How a forwarding engine is set up.

    Attributes:
        hop_limit: hops of a message that asks for no other number, 1..65,535.
        maximum_frame: the longest frame, sent or received, in bytes.
        max_message: the longest payload of a message, sent or put together here, in bytes; one
            that is longer than a frame goes in fragments.
        reports_per_second: control messages about losses, for each source.
        routes: route decisions that are kept.
        lanes: duplicate windows that are kept (see `duplicates`).
        lane_lifetime: seconds after which an unused window is forgotten.
    """

    hop_limit: int = 1024
    maximum_frame: int = 16_384
    max_message: int = 16 << 20
    reports_per_second: int = 10
    routes: int = 4096
    lanes: int = 16_384
    lane_lifetime: float = 60.0


@define(eq=False)
class Output:
    """What one neighbor is to be sent in one traffic class.

    Attributes:
        contact: the neighbor.
        traffic_class: the queue to use, 0..255.
        pieces: in order, and together whole frames; a `Parcel`, which may be kept, or a list.
        frames: how many.
        size: how many bytes.
    """

    contact: Contact
    traffic_class: int
    pieces: Sequence[Piece] = field(repr=False)
    frames: int
    size: int


@define(eq=False)
class ForService:
    """A message for a service of this member, or one that a service or a handler intercepts.

    Attributes:
        service: the service's id; None for the application's handler.
        message: the message as it arrived.
        arrived_from: the neighbor it came from; None for this member's own.
        addressed: whether it is for this member (perhaps among others).
        held: whether it was on its way to others and waits here for the service's verdict;
            `ForwardingEngine.resume` sends it on.
    """

    service: int | None
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
        delivered_size: bytes that they take of a receive buffer.
        for_services: messages for services, in order.
        events: what to tell the application.
        received: messages that were handled, whatever came of them.
        duplicates: messages that had been here before.
        dropped: messages that were lost here, by reason.
        broken: why the bytes at `consumed` cannot be a frame (`version`, `oversize`), which
            means that a stream has lost its place; None when they can.
        gathering: whether fragments are kept, which may have moved the engine's deadline.
        first_id: the identity of the first message that was originated; the others of the batch
            have the sequence numbers that follow, of which each takes as many as it has frames.
    """

    consumed: int = 0
    outputs: list[Output] = field(factory=list, init=False)
    delivered: list[OverlayMessage] = field(factory=list, init=False)
    delivered_size: int = 0
    for_services: list[ForService] = field(factory=list, init=False)
    events: list[Event] = field(factory=list, init=False)
    received: int = 0
    duplicates: int = 0
    dropped: dict[str, int] = field(factory=dict, init=False)
    broken: str | None = None
    gathering: bool = False
    first_id: tuple[int, int] | None = None

    def drop(self, reason: str, count: int) -> None:
        """Count messages that were lost here."""
        self.dropped[reason] = self.dropped.get(reason, 0) + count


@define(eq=False)
class Tally:
    """The counters behind `EngineStatistics`, under the same names."""

    originated_frames: int = 0
    originated_bytes: int = 0
    relayed_frames: int = 0
    relayed_bytes: int = 0
    transmitted_frames: int = 0
    transmitted_bytes: int = 0
    delivered_frames: int = 0
    delivered_bytes: int = 0
    service_frames: int = 0
    duplicates: int = 0
    dropped: Counter[str] = field(factory=Counter)
    reports_sent: int = 0
    reports_received: int = 0

    def statistics(
        self, *, route_hits: int, route_misses: int, routes: int, lanes: int, gathered_bytes: int
    ) -> EngineStatistics:
        """The figures so far, with those that the tables hold."""
        counted = asdict(self) | {"dropped": dict(self.dropped)}
        return EngineStatistics(
            **counted,
            route_hits=route_hits,
            route_misses=route_misses,
            routes=routes,
            lanes=lanes,
            gathered_bytes=gathered_bytes,
        )


@frozen
class EngineStatistics:
    """What a forwarding engine has done since it was made."""

    originated_frames: int
    """Frames that this member sent: one a message, or as many as a longer one has fragments."""
    originated_bytes: int
    """The same in bytes."""
    relayed_frames: int
    """Frames of others that were passed on, each counted once."""
    relayed_bytes: int
    """The same in bytes."""
    transmitted_frames: int
    """Frames handed to neighbors: own and others', once for each neighbor."""
    transmitted_bytes: int
    """The same in bytes."""
    delivered_frames: int
    """Messages handed to the application, however many frames each came in."""
    delivered_bytes: int
    """The same in bytes, headers included."""
    service_frames: int
    """Messages handed to services."""
    duplicates: int
    """Frames that had been here before."""
    dropped: Mapping[str, int]
    """Frames that were lost here, by reason; `incomplete` and `too_long` count messages."""
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
    gathered_bytes: int
    """What is held now of messages of which fragments are missing."""
