"""Addresses, endpoints, contacts and overlay IDs: one form on the wire, and no other is read."""

from __future__ import annotations

import hashlib
import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_socket.core.addresses import (
    WORD_MAX,
    Contact,
    Endpoint,
    LogicalAddress,
    OverlayID,
    Use,
    contact_from_wire,
)
from opus_socket.errors import LocalProtocolError, RemoteProtocolError

words = st.lists(st.integers(0, WORD_MAX), min_size=1, max_size=4)
endpoints = st.builds(
    Endpoint, st.ip_addresses().map(str), st.integers(1, 65_535), st.sampled_from(Use)
)
contacts = st.builds(
    Contact,
    st.none() | words.map(LogicalAddress),
    st.integers(0, 2**64 - 1),
    st.integers(0, WORD_MAX),
    st.lists(endpoints, min_size=1, max_size=4).map(tuple),
)


def read_contact(data: bytes) -> Contact | None:
    """The contact, or None when it is refused with a typed error and no other."""
    try:
        return contact_from_wire(data)
    except RemoteProtocolError as error:
        return {"bad_contact": None, "bad_address": None, "bad_endpoint": None}[error.kind]


@given(words, endpoints)
def test_what_is_printed_is_read(values: list[int], endpoint: Endpoint) -> None:
    address = LogicalAddress(values)
    assert LogicalAddress.parse(str(address)) == address
    assert LogicalAddress.parse(" , ".join(map(str, values))) == address
    assert Endpoint.parse(str(endpoint)) == endpoint._replace(use=Use.BOTH)
    assert endpoint.checked() is endpoint


@pytest.mark.parametrize(
    "text", ["", "a", "1,", "-1", "1.5", "1_0", "1,2,3,4,5", "4294967296", "9" * 5000, "²", None]
)
def test_a_text_that_is_no_logical_address_is_refused(text: str) -> None:
    with pytest.raises(LocalProtocolError, match=r"not a logical address.*whole numbers"):
        LogicalAddress.parse(text)


@pytest.mark.parametrize(
    "text", ["", "localhost:9", "1.2.3.4", "1.2.3.4:0", "1.2.3.4:65536", "::1:9", "[::1]", None]
)
def test_a_text_that_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(LocalProtocolError, match=r"no endpoint|not an endpoint"):
        Endpoint.parse(text)


@pytest.mark.parametrize(
    "endpoint",
    [
        Endpoint("localhost", 9),
        Endpoint("::01", 9),
        Endpoint("1.2.3.4", 0),
        Endpoint("1.2.3.4", 1 << 16),
        Endpoint(1, 2),  # type: ignore[arg-type]
        Endpoint("1.2.3.4", "2"),  # type: ignore[arg-type]
    ],
)
def test_an_endpoint_that_cannot_be_one_is_refused(endpoint: Endpoint) -> None:
    with pytest.raises(LocalProtocolError, match=r"an IP address .no name. and a port"):
        endpoint.checked()


@given(words)
def test_logical_addresses_come_back(values: list[int]) -> None:
    """from_wire(wire) is the address; on the wire it is its words in network order."""
    address = LogicalAddress(values)
    assert address == tuple(values)
    assert address.las == len(values) - 1
    assert address.wire == b"".join(word.to_bytes(4) for word in values)
    again = LogicalAddress.from_wire(address.wire)
    assert again == address
    assert type(again) is LogicalAddress
    assert str(address) == ",".join(map(str, values))


@pytest.mark.parametrize(
    "values", [[], [1] * 5, [-1], [WORD_MAX + 1], [1.0], ["1"], [True], [None]]
)
def test_impossible_words_are_refused(values: list[int]) -> None:
    with pytest.raises(LocalProtocolError, match="one to four whole numbers"):
        LogicalAddress(values)


@pytest.mark.parametrize("size", [*range(4), 5, 7, 9, 13, 15, 17, 20, 32])
def test_addresses_of_another_length_are_refused(size: int) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        LogicalAddress.from_wire(bytes(size))
    assert refused.value.kind == "bad_address"


def test_everybody_is_all_ones() -> None:
    for las in range(4):
        assert LogicalAddress.everybody(las).wire == b"\xff" * 4 * (las + 1)


@given(endpoints)
def test_endpoints_come_back(endpoint: Endpoint) -> None:
    """from_wire(wire) is the endpoint, and its bytes are what the design says."""
    packed = ipaddress.ip_address(endpoint.host).packed
    port = endpoint.port.to_bytes(2)
    assert endpoint.wire == bytes((endpoint.use, len(packed))) + packed + port
    assert Endpoint.from_wire(endpoint.wire) == endpoint
    assert str(endpoint).endswith(f":{endpoint.port}")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"\0\4\x7f\0\0\1\0",
        b"\0\4\x7f\0\0\1\0\0",
        b"\0\4\x7f\0\0\1\0\7\0",
        b"\3\4\x7f\0\0\1\0\7",
        b"\0\5\x7f\0\0\1\0\0\7",
        b"\0\x10\x7f\0\0\1\0\7",
        b"\0\0\0\7",
    ],
)
def test_impossible_endpoints_are_refused(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        Endpoint.from_wire(data)
    assert refused.value.kind == "bad_endpoint"


@given(contacts)
def test_contacts_come_back_and_are_interned(contact: Contact) -> None:
    """Reading a contact's bytes gives an equal contact, and the same object each time."""
    again = contact_from_wire(contact.wire)
    assert again == contact
    assert hash(again) == hash(contact)
    assert (again.address, again.incarnation, again.index, again.endpoints) == (
        contact.address,
        contact.incarnation,
        contact.index,
        contact.endpoints,
    )
    assert contact_from_wire(bytes(bytearray(contact.wire))) is again
    assert str(contact.endpoints[0]) in repr(contact)


@given(contacts, st.data())
def test_spoiled_contacts_are_refused_or_others(contact: Contact, data: st.DataObject) -> None:
    """No beginning of a contact is one; spoiled bytes are refused or are another contact's."""
    wire = contact.wire
    assert read_contact(wire[: data.draw(st.integers(0, len(wire) - 1))]) is None
    assert read_contact(wire + b"\0") is None
    spoiled = bytearray(wire)
    at = data.draw(st.integers(0, len(wire) - 1))
    spoiled[at] ^= data.draw(st.integers(1, 255))
    other = read_contact(bytes(spoiled))
    if other is not None:
        assert other.wire == spoiled
        assert other != contact


@given(st.binary(max_size=80))
def test_arbitrary_bytes_have_one_contact_or_none(data: bytes) -> None:
    """Whatever bytes are read as a contact are that contact's bytes."""
    contact = read_contact(data)
    assert contact is None or contact.wire == data


HERE = Endpoint("127.0.0.1", 7)


@given(contacts, contacts)
def test_contacts_are_values(left: Contact, right: Contact) -> None:
    """Equal bytes, equal contacts; nothing else equals a contact."""
    assert (left == right) == (left.wire == right.wire)
    assert left != left.wire
    assert left == Contact(left.address, left.incarnation, left.index, left.endpoints)


def test_a_contact_moves_and_restarts() -> None:
    contact = Contact(LogicalAddress((1, 2)), 5, 0, (HERE,))
    moved = contact.at(LogicalAddress((3, 4)))
    assert (moved.address, moved.incarnation, moved.endpoints) == ((3, 4), 5, (HERE,))
    assert contact.at(None).address is None
    assert contact.same_member(Contact(None, 6, 0, (HERE,)))
    assert not contact.same_member(Contact(None, 5, 1, (HERE,)))
    assert not contact.same_member(Contact(None, 5, 0, (Endpoint("127.0.0.1", 8),)))


@pytest.mark.parametrize("count", [0, 5])
def test_contacts_have_one_to_four_endpoints(count: int) -> None:
    with pytest.raises(LocalProtocolError, match=f"not {count}"):
        Contact(None, 0, 0, (HERE,) * count)
    data = b"\xff" + bytes(12) + bytes((count,)) + HERE.wire * count
    assert read_contact(data) is None


@given(st.text(min_size=1, max_size=60))
def test_overlay_ids_have_a_tag(name: str) -> None:
    """The tag is the first four bytes of BLAKE2s of the name."""
    overlay = OverlayID(name)
    assert overlay == name
    assert overlay.tag.to_bytes(4) == hashlib.blake2s(name.encode()).digest()[:4]


@pytest.mark.parametrize("name", ["", "x" * 256, "é" * 128])
def test_overlay_ids_are_bounded(name: str) -> None:
    with pytest.raises(LocalProtocolError, match="1 to 255 bytes"):
        OverlayID(name)
    assert OverlayID("x" * 255)


def test_an_overlay_id_is_utf8() -> None:
    with pytest.raises(LocalProtocolError, match="UTF-8"):
        OverlayID("\ud800")
