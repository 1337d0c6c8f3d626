"""Names of members: logical addresses, endpoints, contacts and overlay IDs.

Its one rule: a name has exactly one form on the wire, so equal bytes mean equal names. Contacts
are therefore interned by their bytes and carry them along; nothing is encoded twice.

A logical address is a place in a topology and a run of one to four 32-bit words, as many as the
header's LAS field says (plus one). An endpoint is where packets go. A contact is both, with the
incarnation of the member that holds them.
"""

from __future__ import annotations

import hashlib
import ipaddress
import struct
from collections.abc import Iterable
from enum import IntEnum
from functools import cached_property, lru_cache
from typing import NamedTuple, Self

from opus_socket.core.requests import shown
from opus_socket.core.texts import host_port, words
from opus_socket.errors import LocalProtocolError, RemoteProtocolError

WORD_MAX = 0xFFFF_FFFF
ANY_INDEX = WORD_MAX
"""The index that stands for any member of the overlay at an endpoint (asked of a buddy)."""

MAX_ENDPOINTS = 4
MAX_OVERLAY_ID = 255
_WORDS = [struct.Struct(f">{count}I") for count in range(1, 5)]
_ALL_ONES = [(WORD_MAX,) * count for count in range(1, 5)]
_NO_ADDRESS = 0xFF


class LogicalAddress(tuple[int, ...]):
    """A member's place in a topology: one to four unsigned 32-bit words.

    `LogicalAddress((x, y))` for Delaunay. A plain tuple underneath, so that it hashes, compares
    and sorts at the speed of one. All ones is reserved: it addresses everybody.

    Raises:
        LocalProtocolError: no words, more than four, or a word outside 0..2^32-1.
    """

    __slots__ = ()

    def __new__(cls, words: Iterable[int]) -> Self:
        """An address of these words, checked."""
        address = super().__new__(cls, words)
        if not 1 <= len(address) <= 4 or not all(
            type(word) is int and 0 <= word <= WORD_MAX for word in address
        ):
            raise LocalProtocolError(
                f"not a logical address: {tuple(address)!r}; "
                "one to four whole numbers from 0 to 4294967295 are allowed"
            )
        return address

    @classmethod
    def parse(cls, text: str) -> Self:
        """The address that is written as `x,y`, as `str` writes it.

        Raises:
            LocalProtocolError: no such text, or no such address.
        """
        try:
            return cls(words(text))
        except (ValueError, AttributeError):
            raise LocalProtocolError(
                f"not a logical address: {shown(text)}; whole numbers separated by commas are "
                "allowed, such as '12,40'"
            ) from None

    @classmethod
    def everybody(cls, las: int) -> Self:
        """The reserved address, all ones, of `las + 1` words."""
        return tuple.__new__(cls, _ALL_ONES[las])

    @classmethod
    def from_wire(cls, data: bytes) -> Self:
        """The address in 4, 8, 12 or 16 bytes of network order.

        Raises:
            RemoteProtocolError: any other length.
        """
        if len(data) not in (4, 8, 12, 16):
            raise RemoteProtocolError("bad_address", f"{len(data)} bytes")
        return tuple.__new__(cls, _WORDS[len(data) // 4 - 1].unpack(data))

    def check_destination(self, here: LogicalAddress) -> None:
        """See that a member may send to this address.

        Args:
            here: the member's own.

        Raises:
            LocalProtocolError: it has more or fewer words, or it is everybody's.
        """
        if len(self) != len(here) or self == _ALL_ONES[here.las]:
            raise LocalProtocolError(
                f"{self} is no destination here: {len(here)} whole numbers from 0 to 4294967295, "
                "not all of them the largest, are allowed"
            )

    @property
    def las(self) -> int:
        """The header's LAS field: words less one."""
        return len(self) - 1

    @property
    def wire(self) -> bytes:
        """The address in network byte order."""
        return _WORDS[len(self) - 1].pack(*self)

    def __str__(self) -> str:
        return ",".join(map(str, self))


_ENDPOINT = "an IP address (no name) and a port from 1 to 65535"


class Use(IntEnum):
    """What an endpoint's port is for."""

    BOTH = 0
    UDP = 1
    TCP = 2


# Hosts repeat, and the library's parser takes as long as the rest of a contact.
@lru_cache(maxsize=1 << 12)
def _packed(host: str) -> bytes:
    return ipaddress.ip_address(host).packed


@lru_cache(maxsize=1 << 12)
def _host(packed: bytes) -> str:
    return str(ipaddress.ip_address(packed))


class Endpoint(NamedTuple):
    """An IP address and port where a member can be reached.

    Attributes:
        host: an IPv4 or IPv6 address in its canonical text form, never a name.
        port: 1..65535, of UDP, TCP or both.
        use: which adapters may use it.
    """

    host: str
    port: int
    use: Use = Use.BOTH

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """The endpoint that is written as `192.0.2.1:8081` or `[2001:db8::1]:8081`, as `str` writes
        it; for whatever adapters there are.

        Raises:
            LocalProtocolError: no such text; a name, which nobody resolves here; port 0.
        """
        try:
            host, port = host_port(text)
            return cls(host, port).checked()
        except (ValueError, TypeError):
            raise LocalProtocolError(
                f"not an endpoint: {shown(text)}; {_ENDPOINT} are allowed, such as "
                "'192.0.2.1:8081' or '[2001:db8::1]:8081'"
            ) from None

    def checked(self) -> Endpoint:
        """This very endpoint, if it is one.

        Raises:
            LocalProtocolError: its host is no IP address in its canonical form, or its port none.
        """
        try:
            good = Endpoint.from_wire(self.wire) == self
        except (ValueError, TypeError, AttributeError, OverflowError, RemoteProtocolError):
            good = False
        if not good:
            place = shown(tuple(self[:2]))
            raise LocalProtocolError(f"{place} is no endpoint; {_ENDPOINT} are allowed")
        return self

    @property
    def wire(self) -> bytes:
        """use u8, length u8 (4 or 16), address bytes, port u16."""
        packed = _packed(self.host)
        return bytes((self.use, len(packed))) + packed + self.port.to_bytes(2)

    @classmethod
    def from_wire(cls, data: bytes) -> Endpoint:
        """The endpoint in exactly these bytes.

        Raises:
            RemoteProtocolError: truncated, trailing or impossible bytes.
        """
        try:
            use, length = Use(data[0]), data[1]
            host = _host(data[2 : 2 + length])
            endpoint = cls(host, int.from_bytes(data[2 + length :]), use)
            if endpoint.port == 0 or endpoint.wire != data:
                raise RemoteProtocolError("bad_endpoint", "not in its one form, or port 0")
        except (IndexError, ValueError, OverflowError) as error:
            raise RemoteProtocolError("bad_endpoint", str(error)) from error
        return endpoint

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class Contact:
    """How a member is reached: its logical address, incarnation, index and endpoints.

    Contacts are values: two are equal when their wire bytes are. The index names the virtual
    node at its endpoints; the incarnation tells a restarted member from its former self (unix
    milliseconds << 20 | 20 random bits). The address is None for somebody of whom only the
    whereabouts are known.

    Attributes:
        wire: address length in words u8 (255: none), the words, incarnation u64, index u32,
            endpoint count u8, the endpoints.
    """

    __slots__ = ("__weakref__", "_hash", "address", "endpoints", "incarnation", "index", "wire")

    address: LogicalAddress | None
    incarnation: int
    index: int
    endpoints: tuple[Endpoint, ...]
    wire: bytes

    def __init__(
        self,
        address: LogicalAddress | None,
        incarnation: int,
        index: int,
        endpoints: tuple[Endpoint, ...],
    ) -> None:
        if not 1 <= len(endpoints) <= MAX_ENDPOINTS:
            raise LocalProtocolError(f"a contact has 1 to 4 endpoints, not {len(endpoints)}")
        self.address = address
        self.incarnation = incarnation
        self.index = index
        self.endpoints = endpoints
        head = b"\xff" if address is None else bytes((len(address),)) + address.wire
        self.wire = b"".join(
            (
                head,
                incarnation.to_bytes(8),
                index.to_bytes(4),
                bytes((len(endpoints),)),
                *(endpoint.wire for endpoint in endpoints),
            )
        )
        self._hash = hash(self.wire)

    def at(self, address: LogicalAddress | None) -> Contact:
        """The same member at another logical address; interned, as those that come by wire."""
        moved = Contact(address, self.incarnation, self.index, self.endpoints)
        return contact_from_wire(moved.wire)

    def same_member(self, other: Contact) -> bool:
        """Whether both name one virtual node, in whatever incarnation."""
        return self.index == other.index and self.endpoints[0] == other.endpoints[0]

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Contact) and self.wire == other.wire)

    def __hash__(self) -> int:
        return self._hash

    def __repr__(self) -> str:
        place = "nowhere" if self.address is None else str(self.address)
        return f"<Contact {place} at {self.endpoints[0]}/{self.index} #{self.incarnation}>"


@lru_cache(maxsize=1 << 16)
def contact_from_wire(data: bytes) -> Contact:
    """The interned contact with these wire bytes.

    Raises:
        RemoteProtocolError: truncated, trailing or impossible bytes.
    """
    try:
        words = data[0]
        offset = 1
        address = None
        if words != _NO_ADDRESS:
            offset += 4 * words
            address = LogicalAddress.from_wire(data[1:offset])
        incarnation = int.from_bytes(data[offset : offset + 8])
        index = int.from_bytes(data[offset + 8 : offset + 12])
        count = data[offset + 12]
        offset += 13
        endpoints = []
        for _ in range(count):
            end = offset + 4 + data[offset + 1]
            endpoints.append(Endpoint.from_wire(data[offset:end]))
            offset = end
        contact = Contact(address, incarnation, index, tuple(endpoints))
    except (IndexError, ValueError, LocalProtocolError) as error:
        raise RemoteProtocolError("bad_contact", str(error)) from error
    if contact.wire != data:
        raise RemoteProtocolError("bad_contact", "not in its one form")
    return contact


class OverlayID(str):
    """The name that the members of one overlay share: 1 to 255 bytes of UTF-8.

    Raises:
        LocalProtocolError: empty or too long.
    """

    def __new__(cls, name: str) -> Self:
        """The name, checked."""
        try:
            length = len(name.encode())
        except UnicodeEncodeError:
            length = 0
        if not 1 <= length <= MAX_OVERLAY_ID:
            raise LocalProtocolError(
                f"not an overlay ID: {name!r}; 1 to {MAX_OVERLAY_ID} bytes of UTF-8 are allowed"
            )
        return super().__new__(cls, name)

    @cached_property
    def tag(self) -> int:
        """The first 4 bytes of BLAKE2s(overlay ID), which every datagram carries."""
        return int.from_bytes(hashlib.blake2s(self.encode()).digest()[:4])
