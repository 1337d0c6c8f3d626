"""The two small interfaces between a host and its adapters.

Its one rule: an adapter never waits and never decides. It is called when its sockets are ready,
hands what came to its `Switchboard`, and is told what to send. Every send is best effort: what
cannot go is counted, and the machines above repeat what must not get lost.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from opus_socket.adapters.flow import Output
from opus_socket.adapters.poller import Poller
from opus_socket.core.addresses import Contact, Endpoint
from opus_socket.core.dispatch import Piece
from opus_socket.core.effects import Kind

READ_SIZE = 1 << 16
"""Bytes of one read."""

EVERY_INDEX = -1
"""In a route: every member of the overlay, for what came from the multicast group. Never sent."""


class Route(NamedTuple):
    """From which virtual node to which, in which overlay: what `select` and a datagram's header
    say.

    Attributes:
        tag: the overlay's tag.
        to_index, from_index: virtual nodes at their endpoints.
    """

    tag: int
    to_index: int
    from_index: int


class Writer(Protocol):
    """Something that writes what is queued when it is told to."""

    def flush(self) -> None:
        """Write what can be written now."""


class Switchboard(Protocol):
    """What an adapter sees of its host."""

    poller: Poller
    buffer: bytearray
    """Where every read goes; its content is gone with the next read."""

    def now(self) -> float:
        """Seconds, monotonic."""

    def call_at(self, when: float, call: Callable[[], None]) -> None:
        """Call once, not before `when`."""

    def message(self, route: Route, kind: Kind, body: bytes, sender: Contact) -> None:
        """A protocol, rendezvous or measurement message came."""

    def frames(
        self, route: Route, frames: memoryview, sender: Contact, blockers: list[Output]
    ) -> tuple[int, str | None]:
        """Overlay messages came.

        Args:
            route: whom they are for and from.
            frames: zero or more whole frames and perhaps a part of one; writable.
            sender: where they came from.
            blockers: outputs that are closed now are added to it.

        Returns:
            the bytes of whole frames that were handled, and what was wrong with the next one.
        """

    def digest(self, tag: int) -> bytes | None:
        """The digest of the key attributes of an overlay that has members here."""

    def refuse(self, kind: str, tag: int | None = None) -> None:
        """Count bytes that break the protocol."""

    def flush_later(self, writer: Writer) -> None:
        """It has something to write at the next flush; to be said once until then."""

    def flush(self) -> None:
        """Write what was queued while the frames of the buffer were handled."""


class Link(Protocol):
    """The way from one member here to one neighbor."""

    output: Output

    def push(self, pieces: Sequence[Piece], size: int, frames: int) -> None:
        """Queue whole frames, or drop and count them. Views are copied or written before the
        next read.
        """

    def close(self) -> None:
        """The neighbor is none any more."""


def choose_endpoint(contact: Contact, use: int, family_v6: bool | None) -> Endpoint | None:
    """The contact's first endpoint for UDP or TCP in an address family (None: any)."""
    for endpoint in contact.endpoints:
        if endpoint.use in (0, use) and (family_v6 is None or (":" in endpoint.host) == family_v6):
            return endpoint
    return None
