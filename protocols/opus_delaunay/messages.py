"""The messages of the Delaunay protocol; all of constant size, however many neighbors there are.

Its one rule: a message tells of its sender's own table only, so nobody believes what nobody saw.
A member that is named by another (`clockwise`, `counterclockwise`, `joiner`) is hearsay: it may
be spoken to, but only its own Hello lets it in.

Source: the Hello with its clockwise and counter-clockwise neighbors, NewNode and Goodbye are
those of Liebeherr, Nahas and Si, "Application-layer multicasting with Delaunay triangulation
overlays" (JSAC 2002), section IV; Reject, NewNodeAck and Taken are ours.
"""

from __future__ import annotations

from typing import ClassVar

from attrs import define

from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.wire import U32, U64, ProtocolMessage


@define(eq=False)
class Hello(ProtocolMessage):
    """I am here, and next to you, as seen from me, are these two.

    Carries no clock and no nonce: as long as nothing changes, its bytes do not.

    Attributes:
        source: who says hello.
        to: the logical address of whom it is for.
        incarnation: the incarnation of whom it is for, as far as the source knows.
        clockwise, counterclockwise: the source's neighbors next to the addressee, clockwise and
            counter-clockwise around the source; None across a gap of 180 degrees or more.
        heard: whether the source has heard that incarnation lately. A Hello without it asks for
            an answer at once: it opens an acquaintance, or tests one that has gone silent.
    """

    code: ClassVar[int] = 1
    repeats: ClassVar[bool] = True
    source: Contact
    to: LogicalAddress
    incarnation: U64
    clockwise: Contact | None
    counterclockwise: Contact | None
    heard: bool

    def says_the_same(self, other: Hello) -> bool:
        """Whether another Hello from the same source to the same member has the same bytes."""
        return (
            self.clockwise is other.clockwise
            and self.counterclockwise is other.counterclockwise
            and self.incarnation == other.incarnation
            and self.heard is other.heard
        )


@define(eq=False)
class Reject(ProtocolMessage):
    """You are not my neighbor: these two stand between us.

    Attributes:
        source: who rejects.
        to, incarnation: whom, as in a Hello.
        clockwise, counterclockwise: the source's neighbors next to the direction of the
            addressee, also one on the very same ray.
    """

    code: ClassVar[int] = 2
    source: Contact
    to: LogicalAddress
    incarnation: U64
    clockwise: Contact | None
    counterclockwise: Contact | None


@define(eq=False)
class NewNode(ProtocolMessage):
    """Somebody is to find its place: it passes from neighbor to nearer neighbor.

    Attributes:
        joiner: who is looking for its place, or is handed over.
        hops: how often it was passed on.
        nonce: to be acknowledged; 0 if the sender does not care.
    """

    code: ClassVar[int] = 3
    joiner: Contact
    hops: U32
    nonce: U32


@define(eq=False)
class NewNodeAck(ProtocolMessage):
    """The NewNode with this nonce is in my hands now."""

    code: ClassVar[int] = 4
    nonce: U32


@define(eq=False)
class Goodbye(ProtocolMessage):
    """The source is no more: it leaves, or nobody of that name lives here."""

    code: ClassVar[int] = 5
    source: Contact


@define(eq=False)
class Taken(ProtocolMessage):
    """Your logical address is mine already, and I am alive."""

    code: ClassVar[int] = 6
    holder: Contact


@define(eq=False)
class Announce(ProtocolMessage):
    """A leader, or somebody who is alone, lets itself be known to whoever listens."""

    code: ClassVar[int] = 7
    leader: Contact


MESSAGES = (Hello, Reject, NewNode, NewNodeAck, Goodbye, Taken, Announce)
