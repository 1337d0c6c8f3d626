"""Everything that a step of a machine may ask for or report: the whole seam on one screen.

Its one rule: a machine never acts, it returns what it wants done. A node speaks of protocol
messages and contacts; `OverlayCore` hands the driver the few effects of the second group. A
protocol message becomes bytes only where it leaves the process. "Nothing to do" is the shared `()`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, StrEnum
from typing import Literal

from attrs import define

from opus_socket.core.addresses import Contact
from opus_socket.core.events import Event
from opus_socket.core.wire import ProtocolMessage
from opus_socket.errors import JoinError


class Kind(IntEnum):
    """What a datagram or a record carries (its kind byte)."""

    OPEN = 0
    SELECT = 1
    PROTOCOL = 2
    OVERLAY = 3
    RENDEZVOUS = 4
    MEASUREMENT = 5
    PAUSE = 6
    RESUME = 7
    PROGRESS = 8


class Role(StrEnum):
    """Why contacts are wanted: to join, or to look for other fragments as a leader."""

    NEW = "new"
    LEADER = "leader"


class Quantity(StrEnum):
    """What can be measured on the way to a contact.

    On request: `RTT`, the round-trip time in seconds, and `BANDWIDTH`, an estimate of the bytes a
    second that the way there carries (inf when it is faster than clocks can tell).

    Of neighbors, once a second while anything passes: `SENT` and `RECEIVED`, bytes of overlay
    messages a second; `LOST`, messages a second that were queued for it or would have been, and
    dropped.
    """

    RTT = "rtt"
    BANDWIDTH = "bandwidth"
    SENT = "sent"
    RECEIVED = "received"
    LOST = "lost"


QuantityName = Literal["rtt", "bandwidth"]
"""What is measured on request, as callers may write it."""


@define(eq=False)
class Send:
    """Send one protocol message, best effort. A driver encodes it (`OverlayCore.encode`) unless it
    hands it over to a member of its own.
    """

    to: Contact
    message: ProtocolMessage


@define(eq=False)
class Announce:
    """Make a protocol message known to whoever listens for members of this overlay: the
    multicast group, and through the rendezvous server members that are new or leaders.
    """

    message: ProtocolMessage


@define(eq=False)
class FindContacts:
    """Look for members; they come back as the node's input `contacts`."""

    role: Role


@define(eq=False)
class Measure:
    """Measure the way to a contact; the result comes back as the input `measured`."""

    to: Contact
    quantity: Quantity = Quantity.RTT


@define(eq=False)
class Emit:
    """Tell the application."""

    event: Event


@define(eq=False)
class Abort:
    """The join cannot succeed, whatever one waits for: `join()` raises this error."""

    error: JoinError


@define(eq=False)
class Transmit:
    """For the driver: send these bytes to a contact through its node adapter, best effort."""

    to: Contact
    kind: Kind
    body: bytes


@define(eq=False)
class TransmitGroup:
    """For the driver: send these bytes to the multicast group, if one is configured."""

    kind: Kind
    body: bytes


NodeEffect = Send | Announce | FindContacts | Measure | Emit | Abort
DriverEffect = Transmit | TransmitGroup | Emit | Abort
Effects = Sequence[NodeEffect]
DriverEffects = Sequence[DriverEffect]
