"""The 16 bytes before every datagram's body."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_socket.core import datagram
from opus_socket.core.effects import Kind
from opus_socket.core.wire import MAX_BODY
from opus_socket.errors import LocalProtocolError, RemoteProtocolError

U32 = st.integers(0, 2**32 - 1)


def test_the_header_is_as_documented() -> None:
    packed = datagram.pack(Kind.RENDEZVOUS, 0x0203, 0x04050607, 0x08090A0B, 0x0C0D0E0F, b"body")
    assert packed.hex(" ", 4) == "01040203 04050607 08090a0b 0c0d0e0f 626f6479"


@given(st.sampled_from(Kind), st.integers(0, 2**16 - 1), U32, U32, U32, st.binary(max_size=100))
def test_what_is_packed_is_unpacked(
    kind: Kind, seal: int, tag: int, to_index: int, from_index: int, body: bytes
) -> None:
    """unpack(pack(header, body)) == header, and the body follows."""
    packed = datagram.pack(kind, seal, tag, to_index, from_index, body)
    assert datagram.unpack(packed) == (kind, seal, tag, to_index, from_index)
    assert packed[datagram.HEADER_LENGTH :] == body


@given(st.binary(max_size=15))
def test_short_datagrams_are_refused(data: bytes) -> None:
    """Fewer bytes than a header are no datagram of ours."""
    with pytest.raises(RemoteProtocolError, match="bad_length"):
        datagram.unpack(data)


@given(st.integers(0, 255).filter(lambda version: version != 1))
def test_other_versions_are_refused(version: int) -> None:
    """Only version 1 is known."""
    with pytest.raises(RemoteProtocolError, match="bad_version"):
        datagram.unpack(bytes([version]) + bytes(20))


def test_long_datagrams_are_refused_on_both_sides() -> None:
    longest = datagram.pack(Kind.OVERLAY, 0, 0, 0, 0, bytes(MAX_BODY))
    assert datagram.unpack(longest).kind == Kind.OVERLAY
    with pytest.raises(RemoteProtocolError, match="bad_length"):
        datagram.unpack(longest + b"x")
    with pytest.raises(LocalProtocolError, match=str(MAX_BODY)):
        datagram.pack(Kind.OVERLAY, 0, 0, 0, 0, bytes(MAX_BODY + 1))
