"""The 16 bytes before every datagram's body.

Its one rule: the header says who and for whom, and nothing of what: version u8 = 1, kind u8, seal
u16, overlay tag u32, to-index u32, from-index u32, in network byte order. A seal covers the body
with these bytes as associated data.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from opus_socket.core.effects import Kind
from opus_socket.core.wire import MAX_BODY
from opus_socket.errors import LocalProtocolError, RemoteProtocolError

VERSION = 1
HEADER = struct.Struct(">BBHIII")
HEADER_LENGTH = HEADER.size


class Header(NamedTuple):
    """What the header says.

    Attributes:
        kind: a `Kind`, or a number that this version does not know (count it and skip it).
        seal: 0 for the plaintext seal.
        tag: the overlay's tag.
        to_index: the virtual node it is for; `ANY_INDEX` for any member of the overlay.
        from_index: the virtual node that sent it.
    """

    kind: int
    seal: int
    tag: int
    to_index: int
    from_index: int


def pack(kind: Kind, seal: int, tag: int, to_index: int, from_index: int, body: bytes) -> bytes:
    """The whole datagram.

    Raises:
        LocalProtocolError: the body is too long.
    """
    if len(body) > MAX_BODY:
        raise LocalProtocolError(
            f"a body of {len(body)} bytes does not fit into a datagram; {MAX_BODY} are allowed"
        )
    return HEADER.pack(VERSION, kind, seal, tag, to_index, from_index) + body


def unpack(datagram: bytes | bytearray | memoryview) -> Header:
    """The header; the body is what follows at `HEADER_LENGTH`.

    Raises:
        RemoteProtocolError: too short, too long, or of another version.
    """
    if not HEADER_LENGTH <= len(datagram) <= HEADER_LENGTH + MAX_BODY:
        raise RemoteProtocolError("bad_length", f"{len(datagram)} bytes")
    fields = HEADER.unpack_from(datagram)
    if fields[0] != VERSION:
        raise RemoteProtocolError("bad_version", f"{fields[0]}, not {VERSION}")
    return Header._make(fields[1:])
