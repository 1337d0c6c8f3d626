"""The overlay message's bytes: the layout, what is refused, and that nothing else happens."""

from __future__ import annotations

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_socket.core.addresses import WORD_MAX, LogicalAddress
from opus_socket.core.extensions import (
    MAX_EXTENSIONS,
    Code,
    Control,
    Extension,
    Flags,
    LossReport,
    record_route,
)
from opus_socket.core.message import HEADER, SHAPES, OverlayMessage, fixed_size
from opus_socket.core.node import Mode
from opus_socket.errors import LocalProtocolError, RemoteProtocolError

VECTOR = bytes.fromhex(
    "06000005 000900ff 00000008 00000004 00000004 00000009 00000005 68656c6c6f".replace(" ", "")
)
"""LAS 1, unicast, (8, 4) to (4, 9), raw "hello", hop limit 255, as the design writes it down."""

IDENTITY = Extension(Code.MESSAGE_ID, bytes(range(16)))


@st.composite
def chains(draw: st.DrawFn, las: int) -> list[Extension]:
    """Chains that every receiver accepts."""
    flags = st.integers(0, 255)
    codes = draw(st.lists(st.integers(1, 255), max_size=MAX_EXTENSIONS - 1, unique=True))
    chain = []
    for code in codes:
        if code in (Code.RAW, Code.SERVICE):
            continue
        body = draw(st.binary(max_size=40))
        if code == Code.MESSAGE_ID:
            body = draw(st.binary(min_size=16, max_size=16))
        elif code == Code.ROUTE_RECORD:
            body = b"\2" + bytes(2 * 4 * (las + 1))
        elif code == Code.CONTROL:
            body = b"\1" + body
        elif code == Code.FRAGMENT:
            body = draw(st.binary(min_size=4, max_size=4))
        chain.append(Extension(code, body, draw(flags)))
    last = draw(st.sampled_from([None, Code.RAW, Code.SERVICE]))
    if last is not None:
        body = draw(st.binary(min_size=4, max_size=200))
        chain.append(Extension(last, body, draw(flags)))
    return chain


@st.composite
def messages(draw: st.DrawFn) -> OverlayMessage:
    las = draw(st.integers(0, 3))
    words = st.lists(st.integers(0, WORD_MAX), min_size=las + 1, max_size=las + 1)
    return OverlayMessage.build(
        LogicalAddress(draw(words)),
        draw(st.none() | words.map(LogicalAddress)),
        draw(st.sampled_from(Mode)),
        draw(chains(las)),
        hop_limit=draw(st.integers(0, 65_535)),
        traffic_class=draw(st.integers(0, 255)),
        flow_label=draw(st.integers(0, 255)),
    )


KINDS = dict.fromkeys(["truncated", "version", "bad_length", "bad_extension"])


def parsed(frame: bytes) -> OverlayMessage | None:
    """The message, or None when it is refused with a typed error of a known kind."""
    try:
        return OverlayMessage.parse(frame)
    except RemoteProtocolError as error:
        return KINDS[error.kind]


def test_the_published_vector() -> None:
    raw = [Extension(Code.RAW, b"hello")]
    source, destination = LogicalAddress((8, 4)), LogicalAddress((4, 9))
    message = OverlayMessage.build(source, destination, Mode.UNICAST, raw, hop_limit=255)
    assert message.frame == VECTOR
    assert len(VECTOR) == 33
    again = OverlayMessage.parse(VECTOR)
    assert (again.source, again.destination, again.mode) == (source, destination, Mode.UNICAST)
    assert (again.payload, again.hop_limit, again.id) == (b"hello", 255, None)


def test_the_table_fills_eight_bytes() -> None:
    assert sum(width for _, width in HEADER) == 64
    assert [fixed_size(las) for las in range(4)] == [16, 24, 32, 40]
    assert [shape.size for shape in SHAPES] == [40, 48, 56, 64]


@given(messages())
def test_parsing_gives_back_what_was_built(message: OverlayMessage) -> None:
    """parse(build(...)) == build(...), and building from the parts gives the same bytes."""
    again = OverlayMessage.parse(message.frame)
    assert again == message
    assert hash(again) == hash(message)
    rebuilt = OverlayMessage.build(
        again.source,
        again.destination,
        again.mode,
        again.extensions,
        hop_limit=again.hop_limit,
        traffic_class=again.traffic_class,
        flow_label=again.flow_label,
    )
    assert rebuilt.frame == message.frame
    assert str(again.source) in repr(again)


@given(messages(), st.data())
def test_every_truncation_is_refused(message: OverlayMessage, data: st.DataObject) -> None:
    """No beginning of a message is a message, and nothing may follow one."""
    cut = data.draw(st.integers(0, len(message.frame) - 1))
    assert parsed(message.frame[:cut]) is None
    with pytest.raises(RemoteProtocolError, match="bad_length"):
        OverlayMessage.parse(message.frame + b"\0")


@given(messages(), st.data())
def test_spoiled_bytes_are_refused_or_read(message: OverlayMessage, data: st.DataObject) -> None:
    """Any spoiled byte gives a typed error or another message whose every part can be read."""
    frame = bytearray(message.frame)
    frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    spoiled = parsed(bytes(frame))
    if spoiled is not None:
        _ = (spoiled.id, spoiled.payload, spoiled.route, spoiled.service, repr(spoiled))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_are_refused_or_read(data: bytes) -> None:
    """Whatever comes, nothing but RemoteProtocolError is raised."""
    message = parsed(data)
    if message is not None:
        _ = (message.id, message.payload, message.route, message.service, repr(message))


@given(st.binary(max_size=120), st.integers(0, 3), st.integers(0, 255))
def test_arbitrary_chains_are_refused_or_read(data: bytes, las: int, code: int) -> None:
    """As above, with a right header in front, so that the chain is reached."""
    head = bytes((las << 2 | 2, 0, 0, code)) + len(data).to_bytes(2) + b"\0\7"
    message = parsed(head + bytes(8 * (las + 1)) + data)
    if message is not None:
        _ = (message.id, message.payload, message.route, message.service, repr(message))


def build(*chain: Extension) -> OverlayMessage:
    return OverlayMessage.build(LogicalAddress((1, 2)), None, Mode.MULTICAST, chain, hop_limit=9)


def frame_with(*parts: tuple[int, int, bytes]) -> bytes:
    """A frame of extensions given as (code, flags, body), right or wrong."""
    data = b""
    for index, (_, flags, body) in enumerate(parts):
        following = parts[index + 1][0] if index + 1 < len(parts) else 0
        data += bytes((following, flags)) + len(body).to_bytes(2) + body
    head = bytes((4, 0, 0, parts[0][0])) + len(data).to_bytes(2) + b"\0\7"
    return head + bytes(16) + data


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ([(code, 0, b"") for code in range(0x20, 0x29)], "more than 8"),
        ([(0x20, 0, b""), (0x20, 0, b"")], "0x20 twice"),
        ([(0x10, 0, bytes(16)), (0x10, 0, bytes(16))], "0x10 twice"),
        ([(0x05, 0, b""), (0x20, 0, b"")], "0x05 is not the last"),
        ([(0x06, 0, bytes(4)), (0x05, 0, b"")], "0x06 is not the last"),
        ([(0x10, 0, bytes(15))], "0x10 of 15 bytes"),
        ([(0x06, 0, bytes(3))], "0x06 of 3 bytes"),
        ([(0x11, 0, b"\2" + bytes(15))], "0x11 of 16 bytes"),
        ([(0x11, 0, b"")], "0x11 of 0 bytes"),
        ([(0x12, 0, b"")], "0x12 of 0 bytes"),
    ],
)
def test_a_bad_chain_is_refused_both_ways(parts: list[tuple[int, int, bytes]], said: str) -> None:
    with pytest.raises(RemoteProtocolError, match=said) as refused:
        OverlayMessage.parse(frame_with(*parts))
    assert refused.value.kind == "bad_extension"
    with pytest.raises(LocalProtocolError, match=said):
        build(*[Extension(code, body, flags) for code, flags, body in parts])


def test_a_chain_ends_where_its_message_ends() -> None:
    whole = frame_with((0x05, 0, b"hello"))
    longer = bytearray(whole + b"!")
    longer[5] += 1
    with pytest.raises(RemoteProtocolError, match="1 bytes after the last"):
        OverlayMessage.parse(bytes(longer))
    shorter = bytearray(whole[:-1])
    shorter[5] -= 1
    with pytest.raises(RemoteProtocolError, match="cut off in a body"):
        OverlayMessage.parse(bytes(shorter))
    stump = bytearray(whole[:27])
    stump[5] = 3
    with pytest.raises(RemoteProtocolError, match="cut off in a header"):
        OverlayMessage.parse(bytes(stump))


def test_route_records_may_come_twice() -> None:
    record = Extension(Code.ROUTE_RECORD, b"\1" + LogicalAddress((3, 4)).wire)
    message = OverlayMessage.parse(build(IDENTITY, record, record).frame)
    assert message.route == ((3, 4), (3, 4))


@pytest.mark.parametrize("version", range(1, 16))
def test_other_versions_are_refused(version: int) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        OverlayMessage.parse(bytes((VECTOR[0] | version << 4,)) + VECTOR[1:])
    assert refused.value.kind == "version"


def test_unknown_extensions_know_whether_they_may_be() -> None:
    message = build(Extension(0x44, b"a"), Extension(0x45, b"b", Flags.DROP_IF_UNKNOWN))
    assert [each.unknown_mandatory for each in message.extensions] == [False, True]
    assert not Extension(Code.RAW, b"", Flags.DROP_IF_UNKNOWN).unknown_mandatory


def test_a_service_message_tells_its_id() -> None:
    message = OverlayMessage.parse(build(IDENTITY, Extension(Code.SERVICE, b"\1\2\3\4body")).frame)
    assert (message.service, message.payload) == (0x01020304, b"body")
    assert message.id == (0x0001020304050607, 0x08090A0B0C0D0E0F)
    assert build(IDENTITY, Extension(Code.RAW, b"x")).service is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hop_limit": -1}, "hop_limit -1: 0 to 65535"),
        ({"hop_limit": 65_536}, "hop_limit 65536: 0 to 65535"),
        ({"traffic_class": 256}, "traffic_class 256: 0 to 255"),
        ({"flow_label": 256}, "flow_label 256: 0 to 255"),
        ({"destination": LogicalAddress((1,))}, "1 has 1 words; 2 are allowed"),
        ({"extensions": [Extension(5, bytes(65_532))]}, "at most 65531"),
        ({"extensions": [Extension(9, bytes(65_000)), Extension(5, bytes(600))]}, "65535"),
        ({"extensions": [Extension(256, b"")]}, "extension code 256"),
        ({"extensions": [Extension(0, b"")]}, "extension code 0"),
        ({"extensions": [Extension(5, b"", 256)]}, "with flags 256"),
    ],
)
def test_a_bad_part_says_what_is_allowed(changes: dict[str, object], said: str) -> None:
    parts: dict[str, object] = {
        "source": LogicalAddress((1, 2)),
        "destination": None,
        "mode": Mode.FLOOD,
        "extensions": [],
        "hop_limit": 9,
    }
    with pytest.raises(LocalProtocolError, match=said):
        OverlayMessage.build(**(parts | changes))  # type: ignore[arg-type]


@given(st.integers(0, 255), st.tuples(*[st.integers(0, 2**64 - 1)] * 2), st.integers(0, 3))
def test_loss_reports_come_back_whole(code: int, identity: tuple[int, int], las: int) -> None:
    """from_wire(wire) is the report; every code has a reason; no other length is read."""
    report = LossReport(code, identity, bytes(range(fixed_size(las))))
    assert LossReport.from_wire(report.wire, las) == report
    known = {Control.HOP_LIMIT: "hop_limit", Control.UNROUTABLE: "unroutable"}
    assert report.reason == {int(key): each for key, each in known.items()}.get(
        code, f"code_{code}"
    )
    with pytest.raises(RemoteProtocolError):
        LossReport.from_wire(report.wire + b"\0", las)


def test_recording_needs_room_and_a_request() -> None:
    here = LogicalAddress((5, 6))
    asked = Extension(Code.ROUTE_RECORD, b"\0", Flags.HOP_BY_HOP)
    silent = Extension(Code.ROUTE_RECORD, b"\0")
    assert record_route([silent, asked], here, 7) is None
    assert record_route([silent], here, 100) is None
    grown = Extension(Code.ROUTE_RECORD, b"\1" + here.wire, Flags.HOP_BY_HOP)
    assert record_route([asked, silent, asked], here, 8) == (asked, silent, grown)


def test_parsing_allocates_no_more_than_a_few_packets() -> None:
    rng = random.Random(5)
    frames = [rng.randbytes(rng.randrange(8, 2000)) for _ in range(200)]
    frames += [frame_with((0x05, 0, rng.randbytes(8000)))]
    for frame in frames:
        parsed(frame)
    tracemalloc.start()
    for frame in frames:
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        message = parsed(frame)
        _, peak = tracemalloc.get_traced_memory()
        assert peak - before <= 3 * len(frame) + 4000, frame[:40]
        del message
    tracemalloc.stop()
