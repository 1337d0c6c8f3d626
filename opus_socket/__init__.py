"""Overlay sockets for Trio: join a named overlay, send to all, send to one, receive.

The one rule: every protocol is a machine without I/O, clock or chance of its own, and only a
driver holds machines. The rooms, from the bottom up:

- `errors`: the whole error tree.
- `core`: the machines' common ground: addresses, messages, wire, nodes, engine.
- `config`, `registry`, `logs`: hypercast.toml as typed values; protocols found by entry point;
  logging.
- `services`: machines that ride on a socket, such as network coding.
- `adapters`, `loop` and `driver`: Trio; what carries packets, who waits for them, and the host that
  runs machines.
- `member`, `links`, `opening`: what a host knows of each socket; its ways to its neighbors; how a
  configuration becomes sockets.
- `overlay_socket` on `membership`, `overlay_host`, `service_handle`, `subscription`: what
  applications hold; `pace`, `train`: what makes its calls cheap.
- `rendezvous`: the server where members find each other.
- `simulator`: the same machines on a virtual clock and a modelled network.
- `cli`: the command `opus-socket`.
"""

from __future__ import annotations

from opus_socket.config import OverlayConfig
from opus_socket.core.addresses import Contact, Endpoint, LogicalAddress, OverlayID
from opus_socket.core.buckets import Direction, Limit
from opus_socket.core.dispatch import ForService
from opus_socket.core.effects import Quantity
from opus_socket.core.events import (
    AddressChanged,
    ContactFailed,
    Event,
    EventsLost,
    MessageLost,
    MessagesDropped,
    NeighborAdded,
    NeighborRemoved,
    SourceBroken,
    SourceRestored,
    Stable,
    Unstable,
)
from opus_socket.core.hold import HoldSettings, Merge
from opus_socket.core.message import OverlayMessage
from opus_socket.core.node import Measurement, Mode
from opus_socket.core.service import (
    Originate,
    Publish,
    Release,
    Scope,
    Service,
    ServiceEffects,
    to_neighbor,
)
from opus_socket.errors import (
    AddressInUseError,
    ConfigurationError,
    JoinError,
    LocalProtocolError,
    NotJoinedError,
    OverlayError,
    RemoteProtocolError,
)
from opus_socket.member import SocketStatistics
from opus_socket.overlay_host import OverlayHost, open_host, open_overlay_socket
from opus_socket.overlay_socket import OverlaySocket
from opus_socket.service_handle import ServiceHandle
from opus_socket.subscription import EventSubscription, Subscription

__all__ = [
    "AddressChanged",
    "AddressInUseError",
    "ConfigurationError",
    "Contact",
    "ContactFailed",
    "Direction",
    "Endpoint",
    "Event",
    "EventSubscription",
    "EventsLost",
    "ForService",
    "HoldSettings",
    "JoinError",
    "Limit",
    "LocalProtocolError",
    "LogicalAddress",
    "Measurement",
    "Merge",
    "MessageLost",
    "MessagesDropped",
    "Mode",
    "NeighborAdded",
    "NeighborRemoved",
    "NotJoinedError",
    "Originate",
    "OverlayConfig",
    "OverlayError",
    "OverlayHost",
    "OverlayID",
    "OverlayMessage",
    "OverlaySocket",
    "Publish",
    "Quantity",
    "Release",
    "RemoteProtocolError",
    "Scope",
    "Service",
    "ServiceEffects",
    "ServiceHandle",
    "SocketStatistics",
    "SourceBroken",
    "SourceRestored",
    "Stable",
    "Subscription",
    "Unstable",
    "open_host",
    "open_overlay_socket",
    "to_neighbor",
]
