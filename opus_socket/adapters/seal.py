"""What protects bytes on their way: the seam for keys and handshakes.

Its one rule: a seal covers a datagram's body, with the 16 bytes of header before it as associated
data, and machines never know. The header's seal field says which one was used, so members can
tell a packet that they cannot open from a broken one.
"""

from __future__ import annotations

from typing import Protocol

from opus_socket.errors import RemoteProtocolError


class Seal(Protocol):
    """Protects and opens the bodies of datagrams."""

    code: int

    def protect(self, header: bytes, body: bytes) -> bytes:
        """The protected body."""

    def open(self, code: int, header: bytes, body: bytes) -> bytes:
        """The body, unless it was changed on the way.

        Raises:
            RemoteProtocolError: it was sealed otherwise, or is not what was sealed.
        """


class PlaintextSeal:
    """Protects nothing: what is sent is what is seen. For networks that are trusted."""

    code = 0

    def protect(self, header: bytes, body: bytes) -> bytes:
        """The body as it is."""
        return body

    def open(self, code: int, header: bytes, body: bytes) -> bytes:
        """The body as it is; sealed ones cannot be opened."""
        if code != self.code:
            raise RemoteProtocolError("sealed", f"seal {code} is not known here")
        return body
