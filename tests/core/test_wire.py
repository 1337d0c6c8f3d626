"""The codec: one encoding for each message, and nothing but a typed error for anything else."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from typing import Annotated, ClassVar

import cbor2
import pytest
from attrs import define
from hypothesis import example, given
from hypothesis import strategies as st

from opus_socket.core.addresses import Contact, Endpoint, LogicalAddress
from opus_socket.core.wire import (
    MAX_BODY,
    MAX_DEPTH,
    MAX_LIST,
    U8,
    U16,
    U32,
    U64,
    Codec,
    ProtocolMessage,
    decode_plain,
    encode_plain,
)
from opus_socket.errors import LocalProtocolError, RemoteProtocolError

KINDS = {"malformed", "tag", "oversize", "unknown_message", "bad_field"}
KINDS |= {"bad_contact", "bad_address", "bad_endpoint"}


@define(eq=False)
class Everything(ProtocolMessage):
    """A message with a field of every kind."""

    code: ClassVar[int] = 7
    u8: U8
    u16: U16
    u32: U32
    u64: U64
    flag: bool
    text: str
    data: bytes
    place: LogicalAddress
    who: Contact | None
    pairs: tuple[tuple[U8, str], ...]
    near: tuple[LogicalAddress, ...]


@define(eq=False)
class Little(ProtocolMessage):
    """A message with one field."""

    code: ClassVar[int] = 1
    number: U16


CODEC = Codec((Everything, Little))

addresses = st.lists(st.integers(0, 2**32 - 1), min_size=1, max_size=4).map(LogicalAddress)
endpoints = st.builds(Endpoint, st.ip_addresses().map(str), st.integers(1, 65_535))
contacts = st.builds(
    Contact,
    st.none() | addresses,
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**32 - 1),
    st.lists(endpoints, min_size=1, max_size=4).map(tuple),
)
everything = st.builds(
    Everything,
    st.integers(0, 2**8 - 1),
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**64 - 1),
    st.booleans(),
    st.text(max_size=40),
    st.binary(max_size=300),
    addresses,
    st.none() | contacts,
    st.lists(st.tuples(st.integers(0, 255), st.text(max_size=5)), max_size=5).map(tuple),
    st.lists(addresses, max_size=30).map(tuple),
)
whole = st.integers(-(2**64), 2**64 - 1)
keys = st.text(max_size=5) | st.binary(max_size=5)
plain = st.recursive(
    st.none() | st.booleans() | whole | st.text(max_size=30) | st.binary(max_size=300),
    lambda inner: st.lists(inner, max_size=30) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=20,
)


def depth_of(value: object) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


def kind_of(data: bytes) -> str | None:
    """Under which kind the bytes are refused; None when they are a value."""
    try:
        decode_plain(data)
    except RemoteProtocolError as error:
        return error.kind
    return None


@given(everything)
def test_a_message_comes_back_whole(message: Everything) -> None:
    """decode(encode(m)) has m's fields, is encoded already, and nothing was counted."""
    counts: Counter[str] = Counter()
    data = CODEC.encode(message)
    again = CODEC.decode(data, counts)
    assert isinstance(again, Everything)
    for name in (
        "u8",
        "u16",
        "u32",
        "u64",
        "flag",
        "text",
        "data",
        "place",
        "who",
        "pairs",
        "near",
    ):
        assert getattr(again, name) == getattr(message, name)
    assert again.encoded == data
    assert not counts


@given(plain)
def test_a_plain_value_comes_back(value: object) -> None:
    """What a foreign encoder writes is read, unless it is nested too deeply."""
    data = cbor2.dumps(value)
    assert encode_plain(value) == data
    if depth_of(value) > MAX_DEPTH:
        assert kind_of(data) == "malformed"
    else:
        again = decode_plain(data)
        assert again == value
        assert encode_plain(again) == data


@given(st.binary(max_size=60))
@example(b"\xf9\x7e\x00")
@example(b"\xf7")
@example(b"\xa2\x61a\x00\x61a\x00")
def test_arbitrary_bytes_have_one_meaning_or_none(data: bytes) -> None:
    """Bytes that are read are what a foreign encoder writes for their value."""
    try:
        value = decode_plain(data)
    except RemoteProtocolError as error:
        assert error.kind in KINDS  # noqa: PT017
    else:
        assert cbor2.dumps(value) == data


@given(everything, st.data())
def test_spoiled_messages_are_refused_or_read(message: Everything, data: st.DataObject) -> None:
    """A message with spoiled, missing or added bytes gives a message or a typed error."""
    spoiled = bytearray(CODEC.encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        spoiled[data.draw(st.integers(0, len(spoiled) - 1))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(spoiled)))
    for bad in (bytes(spoiled), bytes(spoiled[:cut]), bytes(spoiled) + b"\0"):
        try:
            CODEC.decode(bad, Counter())
        except RemoteProtocolError as error:
            assert error.kind in KINDS  # noqa: PT017


def head(kind: int, number: int) -> bytes:
    """The shortest head of an item."""
    if number < 24:
        return bytes((kind << 5 | number,))
    size = next(size for size in (1, 2, 4, 8) if number < 1 << 8 * size)
    return bytes((kind << 5 | 23 + size.bit_length(),)) + number.to_bytes(size)


def test_every_tag_is_refused() -> None:
    tags = [*range(65_536), 2**16, 2**20, 2**32 - 1, 2**32, 55_799, 2**63, 2**64 - 1]
    contents = [b"\x00", b"\x80", b"\x41\x00", b"\x61a", b"\x82\x01\x02", b"\xa0", b"\xf6"]
    for tag in tags:
        content = contents[tag % len(contents)]
        assert kind_of(head(6, tag) + content) == "tag", tag
    for tag in (0, 1, 2, 3, 4, 5, 25, 28, 29, 30, 35, 36, 37, 43000, 256, 258, 260, 261, 100, 1004):
        for content in contents:
            assert kind_of(head(6, tag) + content) == "tag"
            assert kind_of(b"\x82\x07" + head(6, tag) + content) == "tag"
            assert kind_of(b"\xa1" + head(6, tag) + content + b"\x00") == "tag"
            assert kind_of(b"\xa1\x61a" + head(6, tag) + content) == "tag"


@pytest.mark.parametrize(
    "data",
    [
        *(b"\x81" * count + b"\x01" for count in (9, 10, 100, 8000)),
        *(b"\xa1\x61a" * count + b"\x01" for count in (9, 2700)),
        *(head(kind, n) + b"\0" * 9 for kind in (2, 3, 4, 5) for n in (10, 2**8, 2**16, 2**32)),
        *(head(kind, 2**64 - 1) for kind in (2, 3, 4, 5)),
        b"\x9f\x01\xff",
        b"\xbf\x61a\x01\xff",
        b"\x5f\x41a\xff",
        b"\x7f\x61a\xff",
        b"\xff",
        b"\xf9\x3e\x00",
        b"\xfa\x3f\xc0\x00\x00",
        b"\xfb\x3f\xf8" + bytes(6),
        b"\xfb\x7f\xf8" + bytes(6),
        b"\x81\xfb\x3f\xf8" + bytes(6),
        b"\xf7",
        b"\xe0",
        b"\xf8\xff",
        b"\xf8\x18",
        b"\xfc",
        *(bytes((kind << 5 | info,)) for kind in range(6) for info in (28, 29, 30, 31)),
        b"\x18\x17",
        b"\x19\x00\xff",
        b"\x1a\x00\x00\xff\xff",
        b"\x1b" + bytes(4) + b"\xff" * 4,
        b"\x38\x17",
        b"\x58\x01a",
        b"\x81\x58\x01a",
        b"\x98\x01\x01",
        b"\xb8\x01\x61a\x01",
        b"\x18",
        b"\x1b\xff\xff",
        b"",
        b"\x82\x01",
        b"\x81\x58",
        b"\x81\x58\x20",
        b"\x01\x01",
        b"\x81\x01\x00",
        b"\x62\xc3\x28",
        b"\x63\xed\xa0\x80",
        b"\xa2\x61a\x01\x61a\x02",
        b"\xa1\x01\x02",
        b"\xa1\x80\x02",
        b"\xa1\xf6\x02",
        b"\xa1\x61a",
    ],
)
def test_what_is_no_plain_value_is_malformed(data: bytes) -> None:
    assert kind_of(data) == "malformed"


def test_the_longest_and_the_deepest_are_read() -> None:
    assert decode_plain(b"\x81" * 8 + b"\x01") == [[[[[[[[1]]]]]]]]
    longest = head(2, MAX_BODY - 3) + bytes(MAX_BODY - 3)
    assert decode_plain(longest) == bytes(MAX_BODY - 3)
    assert kind_of(longest + b"\0") == "oversize"


# An empty list takes a byte on the wire and 64 in memory; shared small texts take 2 and 8.
@pytest.mark.parametrize(
    ("body", "growth"),
    [(b"", 2), (b"\x01" * 100, 2), (b"\x81" * 100, 2), (b"a" * 8000, 6), (b"\x80" * 8000, 80)],
)
def test_nothing_is_allocated_on_a_promise(body: bytes, growth: int) -> None:
    """Decoding takes memory in proportion to the bytes that are there, whatever they promise."""
    promises = [2**8, 2**12, 2**16, 2**20, 2**31, 2**32, 2**62, 2**64 - 1]
    packets = [
        before + head(kind, promise) + body
        for kind in (2, 3, 4, 5)
        for promise in promises
        for before in (b"", b"\x82\x07", b"\xa1\x61a")
    ]
    for packet in packets:
        assert kind_of(packet) == "malformed"
    tracemalloc.start()
    for packet in packets:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        kind_of(packet)
        _, peak = tracemalloc.get_traced_memory()
        assert peak - before < growth * len(packet) + 3000, packet[:20]
    tracemalloc.stop()


def test_trailing_fields_are_counted_and_ignored() -> None:
    counts: Counter[str] = Counter()
    message = CODEC.decode(cbor2.dumps([1, 500, "later", [1, None], {"a": 1}]), counts)
    assert isinstance(message, Little)
    assert message.number == 500
    assert counts == {"extra_fields": 3}
    assert message.encoded is None
    assert CODEC.encode(message) == cbor2.dumps([1, 500])
    for strange in (1.5, [1.5], {"a": [float("nan")]}, cbor2.undefined, cbor2.CBORTag(35, "a")):
        with pytest.raises(RemoteProtocolError):
            CODEC.decode(cbor2.dumps([1, 500, strange]), Counter())


RIGHT: list[object] = [7, 1, 2, 3, 4, True, "t", b"d", bytes(8), None, [], []]


@pytest.mark.parametrize(
    ("index", "value", "kind"),
    [
        (0, 8, "unknown_message"),
        (0, -1, "unknown_message"),
        (0, True, "malformed"),
        (0, "7", "malformed"),
        (1, 256, "bad_field"),
        (1, -1, "bad_field"),
        (1, True, "bad_field"),
        (1, None, "bad_field"),
        (2, 2**16, "bad_field"),
        (3, 2**32, "bad_field"),
        (4, -(2**64), "bad_field"),
        (5, 1, "bad_field"),
        (6, b"t", "bad_field"),
        (7, "d", "bad_field"),
        (8, bytes(7), "bad_address"),
        (8, bytes(20), "bad_address"),
        (8, "12345678", "bad_field"),
        (9, b"", "bad_contact"),
        (9, 5, "bad_field"),
        (10, {}, "bad_field"),
        (10, [[1]], "bad_field"),
        (10, [[1, "a", 2]], "bad_field"),
        (10, [[1, 2]], "bad_field"),
        (10, [5], "bad_field"),
        (11, [b""], "bad_address"),
        (11, [bytes(4)] * (MAX_LIST + 1), "bad_field"),
    ],
)
def test_fields_out_of_bounds_are_refused(index: int, value: object, kind: str) -> None:
    assert isinstance(CODEC.decode(cbor2.dumps(RIGHT), Counter()), Everything)
    wrong = [*RIGHT]
    wrong[index] = value
    with pytest.raises(RemoteProtocolError) as refused:
        CODEC.decode(cbor2.dumps(wrong), Counter())
    assert refused.value.kind == kind


@pytest.mark.parametrize("value", [7, "x", None, {}, [], [[7]], RIGHT[:-1], [7]])
def test_what_is_no_message_is_refused(value: object) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        CODEC.decode(cbor2.dumps(value), Counter())
    assert refused.value.kind == "malformed"


def test_a_codec_says_what_it_cannot_carry() -> None:
    @define(eq=False)
    class Another(ProtocolMessage):
        code: ClassVar[int] = 1

    with pytest.raises(LocalProtocolError, match="code 1 is used twice: Another"):
        Codec((Little, Another))

    @define(eq=False)
    class Fractions(ProtocolMessage):
        code: ClassVar[int] = 2
        fraction: float

    with pytest.raises(LocalProtocolError, match="no wire form"):
        Codec((Fractions,))

    @define(eq=False)
    class Noted(ProtocolMessage):
        code: ClassVar[int] = 2
        number: Annotated[int, "no bound"]

    with pytest.raises(LocalProtocolError, match="no wire form"):
        Codec((Noted,))
