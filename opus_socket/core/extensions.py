"""Extension headers of an overlay message: a chain behind the common header.

Its one rule: a chain is bounded and ends exactly where its message ends. Each extension starts
`next_header u8, flags u8, length u16` (bytes of its body, no padding); at most 8, none twice
except route records, and raw payload and service come last. A code that is not known here is
carried along; only its flags say whether it may be.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from enum import IntEnum, IntFlag

from attrs import frozen

from opus_socket.core.addresses import LogicalAddress
from opus_socket.errors import LocalProtocolError, RemoteProtocolError

MAX_EXTENSIONS = 8
MAX_LENGTH = 0xFFFF
"""The longest body of one extension, and of all that follows a common header, in bytes."""

EXTENSION_HEAD = struct.Struct(">BBH")
MESSAGE_ID = struct.Struct(">QQ")
FRAGMENT = struct.Struct(">HH")
_REPORT = struct.Struct(">BQQ")
_SERVICE_ID_SIZE = 4
_MAX_RECORDED = 255


class Code(IntEnum):
    """The extension headers that are known here; 0x01-0x04, 0x13, 0x15 and 0x16 are reserved."""

    END = 0x00
    RAW = 0x05
    SERVICE = 0x06
    MESSAGE_ID = 0x10
    ROUTE_RECORD = 0x11
    CONTROL = 0x12
    FRAGMENT = 0x14


class Flags(IntFlag):
    """What is to be done about an extension."""

    NONE = 0
    DROP_IF_UNKNOWN = 1
    HOP_BY_HOP = 2


class Control(IntEnum):
    """Why a message was dropped on its way, as a control message says it."""

    HOP_LIMIT = 1
    UNROUTABLE = 2

    @property
    def reason(self) -> str:
        """The identifier that counters and `MessageLost` carry."""
        return self.name.lower()


_KNOWN = frozenset(int(code) for code in Code)
_LAST = frozenset((int(Code.RAW), int(Code.SERVICE)))


@frozen
class Extension:
    """One extension header and its body.

    Attributes:
        code: what it is; one of `Code` or an unknown number, 1..255.
        body: at most 65,531 bytes.
        flags: see `Flags`; further bits are carried along.
    """

    code: int
    body: bytes
    flags: int = Flags.NONE

    @property
    def unknown_mandatory(self) -> bool:
        """Whether whoever looks at it must drop its message."""
        return bool(self.flags & Flags.DROP_IF_UNKNOWN) and self.code not in _KNOWN

    @property
    def hop_by_hop(self) -> bool:
        """Whether members that forward the message look at it, too."""
        return bool(self.flags & Flags.HOP_BY_HOP)


@frozen
class LossReport:
    """The body of a control message: which message was dropped, and why.

    On the wire: code u8, incarnation u64, sequence u64, and the common header and addresses of
    the message as they were when it was dropped.

    Attributes:
        code: one of `Control`, or a number that is unknown here.
        id: incarnation and sequence of the message that was dropped.
        quoted: its common header and addresses.
    """

    code: int
    id: tuple[int, int]
    quoted: bytes

    @property
    def wire(self) -> bytes:
        """The body of the extension."""
        return _REPORT.pack(self.code, *self.id) + self.quoted

    @property
    def reason(self) -> str:
        """Why, as one short identifier."""
        known = self.code in Control.__members__.values()
        return Control(self.code).reason if known else f"code_{self.code}"

    @classmethod
    def from_wire(cls, body: bytes, las: int) -> LossReport:
        """The report in the body of a control extension.

        Raises:
            RemoteProtocolError: the body has another length.
        """
        if len(body) != _REPORT.size + 8 + 8 * (las + 1):
            raise RemoteProtocolError("bad_extension", f"control of {len(body)} bytes")
        code, incarnation, sequence = _REPORT.unpack_from(body)
        return cls(code, (incarnation, sequence), body[_REPORT.size :])


def parse_chain(frame: bytes, offset: int, code: int, las: int) -> tuple[Extension, ...]:
    """The extensions from `offset` to the end of the frame.

    Args:
        frame: one whole overlay message.
        offset: where its first extension starts.
        code: the Next Header field of its common header.
        las: its LAS field.

    Raises:
        RemoteProtocolError: `bad_extension`, with what is wrong about the chain.
    """
    chain: list[Extension] = []
    seen: set[int] = set()
    end = len(frame)
    while code != Code.END:
        if len(chain) == MAX_EXTENSIONS:
            raise RemoteProtocolError("bad_extension", f"more than {MAX_EXTENSIONS}")
        body_at = offset + EXTENSION_HEAD.size
        if body_at > end:
            raise RemoteProtocolError("bad_extension", "cut off in a header")
        following, flags, length = EXTENSION_HEAD.unpack_from(frame, offset)
        offset = body_at + length
        if offset > end:
            raise RemoteProtocolError("bad_extension", "cut off in a body")
        if code in seen and code != Code.ROUTE_RECORD:
            raise RemoteProtocolError("bad_extension", f"0x{code:02x} twice")
        if code in _LAST and following != Code.END:
            raise RemoteProtocolError("bad_extension", f"0x{code:02x} is not the last")
        seen.add(code)
        body = frame[body_at:offset]
        _check_body(code, body, las)
        chain.append(Extension(code, body, flags))
        code = following
    if offset != end:
        raise RemoteProtocolError("bad_extension", f"{end - offset} bytes after the last")
    return tuple(chain)


def serialize_chain(chain: Sequence[Extension], las: int) -> tuple[int, bytes]:
    """The first code of a chain and its bytes.

    Raises:
        LocalProtocolError: a chain that `parse_chain` would refuse.
    """
    pieces = []
    for index, extension in enumerate(chain):
        if not 0 < extension.code <= 0xFF or not 0 <= extension.flags <= 0xFF:
            raise LocalProtocolError(
                f"extension code {extension.code} with flags {extension.flags}: "
                "1 to 255 and 0 to 255 are allowed"
            )
        if len(extension.body) > MAX_LENGTH - EXTENSION_HEAD.size:
            raise LocalProtocolError(
                f"an extension of {len(extension.body)} bytes; "
                f"at most {MAX_LENGTH - EXTENSION_HEAD.size} are allowed"
            )
        following = chain[index + 1].code if index + 1 < len(chain) else int(Code.END)
        pieces.append(EXTENSION_HEAD.pack(following, extension.flags, len(extension.body)))
        pieces.append(extension.body)
    first = chain[0].code if chain else int(Code.END)
    data = b"".join(pieces)
    try:
        parse_chain(data, 0, first, las)
    except RemoteProtocolError as error:
        raise LocalProtocolError(f"not a chain of extensions: {error}") from None
    return first, data


def recorded_route(body: bytes) -> tuple[LogicalAddress, ...]:
    """The members in the (checked) body of a route record, in the order they forwarded it."""
    if not body[0]:
        return ()
    size = (len(body) - 1) // body[0]
    return tuple(LogicalAddress.from_wire(body[at : at + size]) for at in range(1, len(body), size))


def record_route(
    chain: Sequence[Extension], here: LogicalAddress, room: int
) -> tuple[Extension, ...] | None:
    """The chain with this member appended to its last route record that asks for it hop by hop.

    Args:
        chain: as it was parsed.
        here: this member's address.
        room: by how many bytes the message may grow.

    Returns:
        None when no route record asks, or when it is full.
    """
    for index in reversed(range(len(chain))):
        extension = chain[index]
        if extension.code == Code.ROUTE_RECORD and extension.hop_by_hop:
            count = extension.body[0]
            if count == _MAX_RECORDED or len(here.wire) > room:
                return None
            body = bytes((count + 1,)) + extension.body[1:] + here.wire
            grown = Extension(extension.code, body, extension.flags)
            return (*chain[:index], grown, *chain[index + 1 :])
    return None


def _check_body(code: int, body: bytes, las: int) -> None:
    size = len(body)
    if code == Code.MESSAGE_ID:
        right = size == MESSAGE_ID.size
    elif code == Code.SERVICE:
        right = size >= _SERVICE_ID_SIZE
    elif code == Code.ROUTE_RECORD:
        right = size >= 1 and size == 1 + body[0] * 4 * (las + 1)
    elif code == Code.CONTROL:
        right = size >= 1
    elif code == Code.FRAGMENT:
        right = size == FRAGMENT.size
    else:
        right = True
    if not right:
        raise RemoteProtocolError("bad_extension", f"0x{code:02x} of {size} bytes")
