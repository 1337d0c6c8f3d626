"""What an `OverlayCore` is given, and what it tells of itself.

Its one rule: values only; whoever configures members or shows figures needs no machine for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

from attrs import field, frozen

from opus_socket.core.addresses import OverlayID
from opus_socket.core.contacts import FinderSettings
from opus_socket.core.dispatch import EngineSettings, EngineStatistics
from opus_socket.core.key_attributes import KeyAttributes
from opus_socket.core.link_watch import LinkStatistics
from opus_socket.core.node import ProtocolSpec
from opus_socket.core.service import ServiceSpec
from opus_socket.core.sessions import SessionStatistics
from opus_socket.core.wire import Codec, ProtocolMessage


@cache
def _codec(types: tuple[type[ProtocolMessage], ...]) -> Codec:
    """The codec of a protocol, made once for all of its members."""
    return Codec(types)


@frozen
class CoreSettings:
    """What the members of one overlay share, and how this one behaves.

    Attributes:
        overlay_id: the overlay's name.
        spec: the protocol.
        node: the protocol's settings, of the class that `spec.settings` names.
        attributes: the key attributes that all members must agree on.
        finder: how members are found.
        engine: how messages are forwarded.
        services: what rides on the socket, each with its settings.
    """

    overlay_id: OverlayID
    spec: ProtocolSpec
    node: Any
    attributes: KeyAttributes
    finder: FinderSettings
    engine: EngineSettings
    services: tuple[tuple[ServiceSpec, Any], ...] = ()
    codec: Codec = field(init=False, repr=False)

    @codec.default
    def _make_codec(self) -> Codec:
        return _codec(self.spec.messages)


@frozen
class CoreStatistics:
    """Counters and gauges of one membership.

    Attributes:
        node: the protocol's own figures.
        engine: what was originated, relayed, delivered and dropped.
        sent: messages sent, by kind.
        received: messages received, by kind.
        refused: messages of remotes that were dropped, by what was wrong with them.
        services: the figures of each service, and of the application's handler, by name.
        links: of the link to each neighbor that has carried anything, by address.
        sessions: of each lane that passes here (a source, a mode, a traffic class), as long as it
            is remembered: at most as many as the engine has lanes; the one used latest first.
    """

    node: object
    engine: EngineStatistics
    sent: Mapping[str, int]
    received: Mapping[str, int]
    refused: Mapping[str, int]
    services: Mapping[str, object]
    links: tuple[LinkStatistics, ...]
    sessions: tuple[SessionStatistics, ...]
