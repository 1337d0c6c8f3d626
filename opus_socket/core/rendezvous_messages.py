"""The messages by which members find each other (kind 4), and their codec.

Its one rule: whoever asks says who it is and shows its cookie, always in the same `Request`; so
there is one place where a cookie is checked, and every answer to an asker without one is a
`Challenge`, the shortest message of all. The same messages go to a rendezvous server and to a
buddy. Source: the rendezvous methods of HyperCast (Liebeherr, Nahas, Si, JSAC 2002).

    joiner                         server or buddy
      | Request(JOIN)                 |
      |------------------------------>|
      |          Challenge(cookie)    |
      |<------------------------------|
      | Request(JOIN, cookie)         |
      |------------------------------>|
      |   Reply(MEMBERS | NOBODY | WAIT) or Refusal(attributes)
      |<------------------------------|
"""

from __future__ import annotations

from collections import Counter
from enum import IntEnum
from typing import ClassVar

from attrs import define

from opus_socket.core.addresses import MAX_OVERLAY_ID, Contact
from opus_socket.core.cookies import COOKIE_LENGTH
from opus_socket.core.key_attributes import DIGEST_LENGTH, Pairs
from opus_socket.core.wire import U8, U16, U32, U64, Codec, ProtocolMessage
from opus_socket.errors import RemoteProtocolError

MAX_MEMBERS = 16
"""How many contacts one reply carries."""

MAX_ANNOUNCEMENT = 2048
"""The longest protocol message that may be announced, in bytes: a server sends it on many times."""


class Purpose(IntEnum):
    """What a request is for."""

    JOIN = 0
    LEAD = 1
    CONFIRM = 2
    LEAVE = 3
    ANNOUNCE = 4


class Verdict(IntEnum):
    """What a reply says: here are members, there is nobody, ask again later, noted."""

    MEMBERS = 0
    NOBODY = 1
    WAIT = 2
    NOTED = 3


@define(eq=False)
class Request(ProtocolMessage):
    """Asks a server or a buddy for something.

    Attributes:
        nonce: drawn by the asker; the answer carries it back.
        cookie: empty when the asker has none yet.
        overlay: the whole overlay ID.
        digest: of the asker's key attributes.
        source: the asker's own contact, as others are to use it.
        purpose: a `Purpose`.
        ticket: the asker's place among those who wait, as the last reply gave it; 0 for none.
        attributes: the key attributes, when the asker is a confirmed member and asks a server.
        body: the protocol message to be announced, for `ANNOUNCE`.
    """

    code: ClassVar[int] = 1
    nonce: U32
    cookie: bytes
    overlay: str
    digest: bytes
    source: Contact
    purpose: U8
    ticket: U64
    attributes: Pairs
    body: bytes


@define(eq=False)
class Challenge(ProtocolMessage):
    """The answer to a request without a valid cookie: ask again, with this one."""

    code: ClassVar[int] = 2
    nonce: U32
    cookie: bytes


@define(eq=False)
class Reply(ProtocolMessage):
    """The answer to a request with a valid cookie.

    Attributes:
        nonce: that of the request.
        verdict: a `Verdict`.
        wait_ms: for `WAIT`, when to ask again, in milliseconds.
        ticket: for `WAIT`, the asker's place among those who wait.
        members: at most 16 confirmed members.
        leaders: bit i is set when the member i is a leader.
    """

    code: ClassVar[int] = 3
    nonce: U32
    verdict: U8
    wait_ms: U32
    ticket: U64
    members: tuple[Contact, ...]
    leaders: U16


@define(eq=False)
class Refusal(ProtocolMessage):
    """The answer to a request with a valid cookie and another digest: the key attributes that
    the overlay's members agree on.
    """

    code: ClassVar[int] = 4
    nonce: U32
    attributes: Pairs


@define(eq=False)
class Announcement(ProtocolMessage):
    """Makes a member known: to the multicast group, or sent on by a server.

    Attributes:
        overlay: the whole overlay ID.
        digest: of the announcer's key attributes.
        source: the announcer's own contact.
        member: whether it is a confirmed member that can be asked for contacts.
        body: one protocol message; empty when a joiner only asks who is there, and in the
            answer to that.
    """

    code: ClassVar[int] = 5
    overlay: str
    digest: bytes
    source: Contact
    member: bool
    body: bytes


@define(eq=False)
class CachePing(ProtocolMessage):
    """A server asks whether a member that it remembers is still there."""

    code: ClassVar[int] = 6
    nonce: U32


@define(eq=False)
class CachePong(ProtocolMessage):
    """It is."""

    code: ClassVar[int] = 7
    nonce: U32


Message = Request | Challenge | Reply | Refusal | Announcement | CachePing | CachePong
_CODEC = Codec((Request, Challenge, Reply, Refusal, Announcement, CachePing, CachePong))


def encode(message: Message) -> bytes:
    """The message's bytes."""
    return _CODEC.encode(message)


def decode(body: bytes, counts: Counter[str]) -> Message:
    """The message in these bytes, within its bounds.

    Args:
        body: of one datagram of kind 4.
        counts: where ignored trailing elements are counted.

    Raises:
        RemoteProtocolError: malformed, unknown, or a field out of its bounds.
    """
    message = _CODEC.decode(body, counts)
    match message:
        case Request(cookie=cookie, purpose=purpose):
            _require(len(cookie) in (0, COOKIE_LENGTH), "cookie")
            _require(purpose <= max(Purpose), "purpose")
            _check_announcer(message)
        case Challenge(cookie=cookie):
            _require(len(cookie) == COOKIE_LENGTH, "cookie")
        case Reply(verdict=verdict, members=members):
            _require(verdict <= max(Verdict), "verdict")
            _require(len(members) <= MAX_MEMBERS, "too many members")
        case Announcement():
            _check_announcer(message)
        case Refusal() | CachePing() | CachePong():
            pass
        case _:
            raise RemoteProtocolError("unknown_message", type(message).__name__)
    return message


def goes_first(one: Contact, other: Contact) -> bool:
    """Of two who look for members at the same time, whether the first is to be the founder: the
    one that was started earlier.
    """
    return (one.incarnation, one.endpoints, one.index) < (
        other.incarnation,
        other.endpoints,
        other.index,
    )


def _check_announcer(message: Request | Announcement) -> None:
    _require(1 <= len(message.overlay.encode()) <= MAX_OVERLAY_ID, "overlay ID")
    _require(len(message.digest) == DIGEST_LENGTH, "digest")
    _require(len(message.body) <= MAX_ANNOUNCEMENT, "announced message too long")
    _require(
        all(end.host not in ("0.0.0.0", "::") for end in message.source.endpoints),
        "the source's endpoint names no place",
    )


def _require(condition: bool, what: str) -> None:
    if not condition:
        raise RemoteProtocolError("bad_field", what)
