"""The only place where bytes become protocol messages and back.

Its one rule: a message has exactly one encoding. A protocol message is a CBOR array
`[code, field, ...]`, and its decoder is our own, because it reads less than CBOR: lists, maps,
text, bytes, whole numbers, booleans and null, with definite and shortest lengths, to a depth of
8. There is no path through it to tags (a general decoder would compile a remote's regular
expressions or build cycles), floats or trailing bytes, and what a length promises is believed
only when the bytes are there. Elements after the known fields are counted and ignored, so that a
later version may add some. Overlay messages have their own binary header: `message.py`.

A message class says what it carries by its annotations:

    @define(eq=False)
    class Hello(ProtocolMessage):
        code: ClassVar[int] = 1
        source: Contact
        clockwise: Contact | None
        heard: U64
"""

from __future__ import annotations

import types
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Annotated, Any, ClassVar, Union, get_args, get_origin, get_type_hints

import attrs
import cbor2
from attrs import define, field, frozen

from opus_socket.core.addresses import Contact, LogicalAddress, contact_from_wire
from opus_socket.errors import LocalProtocolError, RemoteProtocolError

MAX_BODY = 8192 - 16
"""The longest body of one datagram, in bytes."""

MAX_DEPTH = 8
MAX_LIST = 1024


@frozen
class Whole:
    """Annotation of a whole number: the largest value that is allowed."""

    maximum: int


U8 = Annotated[int, Whole(2**8 - 1)]
U16 = Annotated[int, Whole(2**16 - 1)]
U32 = Annotated[int, Whole(2**32 - 1)]
U64 = Annotated[int, Whole(2**64 - 1)]


@define(eq=False)
class ProtocolMessage:
    """One message of a protocol, immutable once sent.

    Attributes:
        code: the first element on the wire, one for each class of a protocol.
        repeats: whether equal bytes come again and again, as Hellos do. The receiver then
            recognizes them undecoded and is handed the very same object.
        encoded: the message's bytes once they are known.
    """

    code: ClassVar[int]
    repeats: ClassVar[bool] = False
    encoded: bytes | None = field(default=None, init=False, repr=False)


_Convert = Callable[[Any], Any]

_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _LIST, _MAP, _TAG = range(7)
_BYTES_U8 = _BYTES << 5 | 24
_MAX_REPEATED = 256
_NAMED = {0xF4: False, 0xF5: True, 0xF6: None}
# A number is written in the head itself below 24, else in 1, 2, 4 or 8 bytes: the fewest that do.
_LEAST = {24: 24, 25: 1 << 8, 26: 1 << 16, 27: 1 << 32}


def decode_plain(data: bytes) -> object:
    """Decode strict CBOR: lists, text, bytes, whole numbers, booleans and null; maps with unique
    keys of text or bytes; depth at most 8; in the shortest form.

    Raises:
        RemoteProtocolError: anything else.
    """
    if len(data) > MAX_BODY:
        raise RemoteProtocolError("oversize", f"{len(data)} bytes")
    try:
        value, end = _decode_item(data, 0, MAX_DEPTH)
    except (IndexError, UnicodeDecodeError) as error:
        raise RemoteProtocolError("malformed", str(error)) from error
    if end != len(data):
        raise RemoteProtocolError("malformed", f"{len(data) - end} trailing bytes")
    return value


def _decode_item(data: bytes, at: int, depth: int) -> tuple[object, int]:
    """The item at an offset, and where it ends; `depth` is how many containers it may be."""
    head = data[at]
    at += 1
    if head in _NAMED:
        return _NAMED[head], at
    kind, number = head >> 5, head & 31
    if kind == _TAG:
        raise RemoteProtocolError("tag", "tags are not allowed")
    if kind > _TAG or number > 27:
        raise RemoteProtocolError("malformed", f"0x{head:02x} is not allowed")
    if number >= 24:
        least, start = _LEAST[number], at
        at += 1 << number - 24
        number = int.from_bytes(data[start:at])
        if at > len(data) or number < least:
            raise RemoteProtocolError("malformed", "a number cut off, or not in its shortest form")
    if kind == _UNSIGNED:
        return number, at
    if kind == _NEGATIVE:
        return -1 - number, at
    if number > len(data) - at:
        raise RemoteProtocolError("malformed", f"{number} promised, {len(data) - at} bytes left")
    if kind == _BYTES:
        return data[at : at + number], at + number
    if kind == _TEXT:
        return data[at : at + number].decode(), at + number
    if not depth:
        raise RemoteProtocolError("malformed", f"nested deeper than {MAX_DEPTH}")
    if kind == _MAP:
        return _decode_map(data, at, number, depth - 1)
    values: list[object] = []
    for _ in range(number):
        # Small numbers and contacts make up nearly every list: worth a shorter way.
        head = data[at]
        if head < 24:
            values.append(head)
            at += 1
        elif head == _BYTES_U8 and data[at + 1] >= 24 and at + 2 + data[at + 1] <= len(data):
            start, at = at + 2, at + 2 + data[at + 1]
            values.append(data[start:at])
        else:
            value, at = _decode_item(data, at, depth - 1)
            values.append(value)
    return values, at


def _decode_map(data: bytes, at: int, count: int, depth: int) -> tuple[object, int]:
    values: dict[str | bytes, object] = {}
    for _ in range(count):
        key, at = _decode_item(data, at, depth)
        if not isinstance(key, (str, bytes)) or key in values:
            raise RemoteProtocolError("malformed", "a key twice, or neither text nor bytes")
        values[key], at = _decode_item(data, at, depth)
    return values, at


def encode_plain(value: object) -> bytes:
    """The one encoding of a value that `decode_plain` reads."""
    return cbor2.dumps(value)


@define(eq=False)
class Codec:
    """Encodes and decodes the messages of one protocol.

    Args:
        types: the protocol's message classes.

    Raises:
        LocalProtocolError: two classes share a code, or a field has no wire form.
    """

    types: tuple[type[ProtocolMessage], ...]
    _by_code: dict[int, tuple[type[ProtocolMessage], tuple[_Convert, ...]]] = field(
        factory=dict, init=False
    )
    _packers: dict[type[ProtocolMessage], tuple[tuple[str, _Convert | None], ...]] = field(
        factory=dict, init=False
    )

    def __attrs_post_init__(self) -> None:
        for cls in self.types:
            if cls.code in self._by_code:
                raise LocalProtocolError(f"message code {cls.code} is used twice: {cls.__name__}")
            hints = get_type_hints(cls, include_extras=True)
            names = [f.name for f in attrs.fields(cls) if f.init]
            pairs = [_converters(hints[name]) for name in names]
            self._by_code[cls.code] = (cls, tuple(unpack for _, unpack in pairs))
            self._packers[cls] = tuple(
                (name, pack) for name, (pack, _) in zip(names, pairs, strict=True)
            )

    def encode(self, message: ProtocolMessage) -> bytes:
        """The message's bytes; computed once and kept on the message."""
        if message.encoded is None:
            values: list[object] = [message.code]
            for name, pack in self._packers[type(message)]:
                value = getattr(message, name)
                values.append(value if pack is None else pack(value))
            message.encoded = cbor2.dumps(values)
        return message.encoded

    def decode(self, data: bytes, counts: Counter[str]) -> ProtocolMessage:
        """The message in these bytes.

        Args:
            data: one whole body.
            counts: where ignored trailing elements are counted, under `extra_fields`.

        Raises:
            RemoteProtocolError: malformed, unknown, or a field out of its bounds.
        """
        values = decode_plain(data)
        if type(values) is not list or not values or type(values[0]) is not int:
            raise RemoteProtocolError("malformed", "not an array that starts with a code")
        known = self._by_code.get(values[0])
        if known is None:
            raise RemoteProtocolError("unknown_message", f"code {values[0]}")
        cls, unpackers = known
        extra = len(values) - 1 - len(unpackers)
        if extra < 0:
            raise RemoteProtocolError("malformed", f"{cls.__name__} lacks fields")
        if extra:
            counts["extra_fields"] += extra
        message = cls(
            *[unpack(value) for unpack, value in zip(unpackers, values[1:], strict=False)]
        )
        if not extra:
            message.encoded = data
        return message


@define(eq=False)
class Decoder:
    """Decodes what one member hears. What repeats is known by its bytes, and not decoded again.

    Args:
        codec: of the protocol.
        counts: where ignored trailing elements are counted, under `extra_fields`.
    """

    codec: Codec
    counts: Counter[str]
    _repeated: dict[bytes, ProtocolMessage] = field(factory=dict, init=False)

    def decode(self, data: bytes) -> ProtocolMessage:
        """The message in these bytes; see `Codec.decode`."""
        message = self._repeated.get(data)
        if message is None:
            message = self.codec.decode(data, self.counts)
            if message.repeats:
                if len(self._repeated) >= _MAX_REPEATED:
                    self._repeated.clear()
                self._repeated[data] = message
        return message


def _converters(hint: Any) -> tuple[_Convert | None, _Convert]:
    """How a value of this type goes on the wire (None: as it is) and comes back."""
    if get_origin(hint) is Annotated:
        bound = get_args(hint)[1]
        if isinstance(bound, Whole):
            return None, _whole(bound.maximum)
    if hint is bool:
        return None, _exactly(bool)
    if hint is bytes:
        return None, _exactly(bytes)
    if hint is str:
        return None, _exactly(str)
    if hint is LogicalAddress:
        return _pack_wire, _unpack_address
    if hint is Contact:
        return _pack_wire, _unpack_contact
    if get_origin(hint) in (types.UnionType, Union):
        inner = [arg for arg in get_args(hint) if arg is not types.NoneType]
        if len(inner) == 1:
            return _optional(*_converters(inner[0]))
    if get_origin(hint) is tuple:
        arguments = get_args(hint)
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return _many(*_converters(arguments[0]))
        return _few([_converters(argument) for argument in arguments])
    raise LocalProtocolError(f"no wire form for a field of type {hint!r}")


def _pack_wire(value: Any) -> bytes:
    wire: bytes = value.wire
    return wire


def _unpack_contact(value: Any) -> Contact:
    if type(value) is not bytes:
        raise RemoteProtocolError("bad_field", "a contact is a byte string")
    return contact_from_wire(value)


def _unpack_address(value: Any) -> LogicalAddress:
    if type(value) is not bytes:
        raise RemoteProtocolError("bad_field", "a logical address is a byte string")
    return LogicalAddress.from_wire(value)


def _whole(maximum: int) -> _Convert:
    def unpack(value: Any) -> int:
        if type(value) is not int or not 0 <= value <= maximum:
            raise RemoteProtocolError("bad_field", f"not a whole number up to {maximum}")
        return value

    return unpack


def _exactly(wanted: type) -> _Convert:
    def unpack(value: Any) -> Any:
        if type(value) is not wanted:
            raise RemoteProtocolError("bad_field", f"not of type {wanted.__name__}")
        return value

    return unpack


def _optional(pack: _Convert | None, unpack: _Convert) -> tuple[_Convert | None, _Convert]:
    return (
        None if pack is None else lambda value: None if value is None else pack(value),
        lambda value: None if value is None else unpack(value),
    )


def _many(pack: _Convert | None, unpack: _Convert) -> tuple[_Convert, _Convert]:
    def unpack_all(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) > MAX_LIST:
            raise RemoteProtocolError("bad_field", f"not a list of at most {MAX_LIST}")
        return tuple(map(unpack, value))

    return (list if pack is None else lambda values: list(map(pack, values))), unpack_all


def _few(pairs: Iterable[tuple[_Convert | None, _Convert]]) -> tuple[_Convert, _Convert]:
    pairs = list(pairs)

    def pack_each(values: Any) -> list[Any]:
        return [v if pack is None else pack(v) for v, (pack, _) in zip(values, pairs, strict=True)]

    def unpack_each(value: Any) -> tuple[Any, ...]:
        if type(value) is not list or len(value) != len(pairs):
            raise RemoteProtocolError("bad_field", f"not a list of {len(pairs)}")
        return tuple(unpack(v) for v, (_, unpack) in zip(value, pairs, strict=True))

    return pack_each, unpack_each
