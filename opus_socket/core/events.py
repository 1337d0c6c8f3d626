"""What an application can be told: the events of an overlay socket.

Its one rule: an event is a frozen value that says what happened, never what to do.
"""

from __future__ import annotations

from attrs import frozen

from opus_socket.core.addresses import Contact, Endpoint, LogicalAddress


@frozen
class Stable:
    """The node found its place: its table holds every neighbor that its neighbors report."""

    address: LogicalAddress


@frozen
class Unstable:
    """The node is looking for neighbors again."""

    address: LogicalAddress


@frozen
class NeighborAdded:
    """A member became a neighbor."""

    contact: Contact


@frozen
class NeighborRemoved:
    """A member is a neighbor no more: it left, failed, or others came between."""

    contact: Contact


@frozen
class AddressChanged:
    """The node has another logical address now."""

    old: LogicalAddress
    new: LogicalAddress


@frozen
class MessageLost:
    """A message that this socket sent was dropped on its way (`unroutable`, `hop_limit`), or here,
    because it has no neighbor any more and has not settled since (`unroutable`); or one that others
    sent in fragments came in part only (`incomplete`), or is longer than `socket.max_message`
    (`too_long`).

    Attributes:
        id: its identity: incarnation and sequence. Of a message in fragments, that of the first.
        destination: whom it was for; None when it was for all.
        reason: one short identifier, as above.
        at: the member that dropped it.
    """

    id: tuple[int, int]
    destination: LogicalAddress | None
    reason: str
    at: LogicalAddress


@frozen
class MessagesDropped:
    """Messages were dropped here because a queue was full or a receiver stalled.

    Attributes:
        count: how many since the last such event.
        reason: `overflow`, `stalled`, or `evicted`.
        neighbor: for whom they were; None for the application's own receive buffer.
    """

    count: int
    reason: str
    neighbor: LogicalAddress | None


@frozen
class SourceBroken:
    """What a member sends to all does not come here any more: a member on the way is lost, and
    there is no other way yet. It may mend itself; what is sent meanwhile is missed.

    Attributes:
        source: who sends.
        via: the neighbor that brought it: it is lost itself, or said that it is cut off.
    """

    source: LogicalAddress
    via: LogicalAddress


@frozen
class SourceRestored:
    """What a member sends to all comes here again.

    Attributes:
        source: who sends.
        via: the neighbor that brings it; None when it is no neighbor (any more).
    """

    source: LogicalAddress
    via: LogicalAddress | None


@frozen
class ContactFailed:
    """An endpoint could not be reached: a rendezvous server, a buddy, or a neighbor's adapter."""

    endpoint: Endpoint
    reason: str


@frozen
class ServiceResult:
    """A service has a result for the application, which reads it from the service's handle.

    Attributes:
        service: its name.
        result: of one of the classes that the service documents.
    """

    service: str
    result: object


@frozen
class EventsLost:
    """A subscription was read too slowly: this many events were not kept for it."""

    count: int


Event = (
    Stable
    | Unstable
    | NeighborAdded
    | NeighborRemoved
    | AddressChanged
    | MessageLost
    | MessagesDropped
    | SourceBroken
    | SourceRestored
    | ContactFailed
    | ServiceResult
    | EventsLost
)
