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
    """A member is a neighbor no more.

    It said goodbye; or it failed, which the protocol knows once it has probed it in vain (often a
    `ContactFailed` with its address comes first); or it is there and others have come between; or
    it has restarted or moved, and comes back as a new neighbor. Which of these is not told.
    """

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

    Of messages of one sender each member that drops some tells ten a second at most; all of them
    are counted there, in `statistics().core.engine.dropped`.

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
    """Messages that waited here, or were to wait, went no further.

    The reason is one of these:

    - `overflow`: the queue was full, and whoever fed it does not wait.
    - `stalled`: it was full and nothing was taken of it for `socket.stall_timeout`.
    - `evicted`: the same for `socket.evict_timeout`, with the policy *evict*.
    - `connection`: the connection that they waited for was lost.
    - `unreachable`: there was no connection and none could be made, or no socket for datagrams to
      where the neighbor is.
    - `unsent`: the system did not take the datagram.

    Attributes:
        count: how many since the last such event; of messages in fragments, each frame.
        reason: why the last of them was lost; `statistics().dropped` has each reason's figures.
        neighbor: for whom they were, or, where bandwidth is emulated, from whom they came; None for
            the application's own receive buffer.
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
    """An endpoint could not be reached, or not any more.

    It is that of a rendezvous server, of a buddy, or of a neighbor whose connection was lost or who
    does not answer. It is tried again; a neighbor that does not come back is removed.

    Attributes:
        endpoint: where it is.
        reason: why, in words.
        neighbor: the neighbor's logical address; None for servers and buddies.
    """

    endpoint: Endpoint
    reason: str
    neighbor: LogicalAddress | None = None


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
