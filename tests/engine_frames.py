"""Frames for engines: bursts of one source, what may change in them, and what neighbors bring.

The one rule: bytes are put together here by hand, so that nothing is taken for granted of them.
"""

from __future__ import annotations

from typing import Any

from attrs import define, evolve, field
from hypothesis import strategies as st

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.node import Mode
from still_overlay import StillNode

OWN_INCARNATION = 77
MAXIMUM = 600
SERVICE = 0x01020304


def address(index: int, las: int) -> LogicalAddress:
    return LogicalAddress((index + 1, *(10 * word + index for word in range(las))))


def scattered_hops(las: int) -> StillNode:
    """A node between three neighbors, 1 to 3, whose tables send every key somewhere else."""
    neighbors = [address(index, las) for index in (1, 2, 3)]

    def hops(
        mode: Mode, key: LogicalAddress, arrived_from: LogicalAddress | None
    ) -> list[LogicalAddress]:
        choice = (3 * key[0] + mode + 1) % 5
        if mode in (Mode.UNICAST, Mode.ANYCAST):
            return [[], neighbors[:1], neighbors[1:2], neighbors[2:], [address(9, las)]][choice]
        return [[], neighbors[:1], neighbors[:2], neighbors[1:], neighbors][choice]

    return StillNode(address(0, las), neighbors, hops, lambda key: key[0] % 2 == 0)


def chain_bytes(chain: list[tuple[int, int, bytes]]) -> tuple[int, bytes]:
    data = b""
    for index, (_, flags, body) in enumerate(chain):
        following = chain[index + 1][0] if index + 1 < len(chain) else 0
        data += bytes((following, flags)) + len(body).to_bytes(2) + body
    return (chain[0][0] if chain else 0), data


@define
class Burst:
    """Messages of one source that follow one another, until a twist."""

    las: int
    mode: int
    source: int
    destination: int
    incarnation: int
    first: int
    lengths: list[int]
    hop_limit: int
    traffic_class: int
    before: list[tuple[int, int, bytes]]
    last: tuple[int, int, bytes] | None
    twist_at: int = 1000
    twist: dict[str, Any] = field(factory=dict)
    following: int = 0
    index: int = 0
    count: int = 0

    def frames(self) -> list[bytes]:
        frames = []
        for index, length in enumerate(self.lengths):
            frame = self if index < self.twist_at else evolve(self, **self.twist)
            frames.append(frame.frame(self.first + index, length))
        return frames

    def frame(self, sequence: int, length: int) -> bytes:
        destination = address(self.destination, self.las)
        if self.mode in (0, 1):
            destination = LogicalAddress.everybody(self.las)
        identity = self.incarnation.to_bytes(8) + sequence.to_bytes(8)
        chain = [*self.before, (0x10, 0, identity)]
        if self.count or self.index:
            index = (self.index + sequence - self.first) % 65_536
            chain.append((0x14, 0, index.to_bytes(2) + self.count.to_bytes(2)))
        if self.last is not None:
            code, flags, body = self.last
            chain.append((code, flags, body + bytes(length)))
        first, data = chain_bytes(chain)
        if self.following:
            at = len(data) - len(chain[-1][2]) - 4
            data = data[:at] + bytes((self.following,)) + data[at + 1 :]
        head = bytes((self.las << 2 | self.mode, self.traffic_class, 0, first))
        head += len(data).to_bytes(2) + self.hop_limit.to_bytes(2)
        return head + self.sender.wire + destination.wire + data

    @property
    def sender(self) -> LogicalAddress:
        """Number -1 says that it is everybody."""
        if self.source < 0:
            return LogicalAddress.everybody(self.las)
        return address(self.source, self.las)


LENGTHS = [0, 0, 1, 30, 30, 30, 30, 300, 540, 552, 560]
LASTS: list[tuple[int, int, bytes] | None] = [
    (5, 0, b""),
    (5, 0, b"text"),
    (5, 2, b"flagged"),
    (6, 0, SERVICE.to_bytes(4)),
    (6, 0, b"\0\0\0\x09other"),
    (6, 0, b"abc"),
    (0x15, 0, b"unknown"),
    (0x16, 1, b"mandatory"),
    (0x13, 3, b"mandatory, hop by hop"),
    (0x12, 0, b"\x02" + OWN_INCARNATION.to_bytes(8) + bytes(32)),
    (0x12, 0, b"\x07" + OWN_INCARNATION.to_bytes(8) + bytes(8) + b"\xff" * 24),
    (0x12, 0, b"\x02" + bytes(40)),
    (0x12, 0, b"\x01" + bytes(40)),
    None,
]
# What may change in the middle of a run: each alone must end it.
TWISTS: list[dict[str, Any]] = [
    {"mode": 0},
    {"mode": 2},
    {"source": 4},
    {"source": -1},
    {"destination": 4},
    {"incarnation": 4},
    {"hop_limit": 3},
    {"hop_limit": 2},
    {"traffic_class": 1},
    {"las": 2},
    {"following": 5},
    {"last": (5, 4, b"")},
    {"last": (5, 0, b"longer")},
    {"last": (6, 0, b"")},
    {"last": (6, 0, b"abc")},
    {"last": (6, 0, SERVICE.to_bytes(4))},
    {"last": None},
    {"before": [(0x44, 0, b"")]},
    {"index": 1, "count": 5},
    {"index": 3, "count": 6},
    {"count": 0},
    {"count": 1},
    {"count": 7},
]
BEFORES = [[], [], [], [(0x11, 0, b"\0")], [(0x44, 1, b"")], [(0x44, 3, b"")], [(0x10, 0, b"")]]


@st.composite
def bursts(draw: st.DrawFn, las: int) -> Burst:
    usual = draw(st.integers(0, 3)) > 0
    lengths = draw(st.lists(st.sampled_from(LENGTHS), min_size=1, max_size=12))
    return Burst(
        las if draw(st.integers(0, 19)) else (las + 1) % 4,
        draw(st.integers(0, 3)),
        draw(st.sampled_from([0, 1, 2, 3, 4, 5, -1])),
        draw(st.integers(0, 5)),
        draw(st.sampled_from([5, 6, OWN_INCARNATION])),
        draw(st.sampled_from([0, 1, 3, 10, 5000, 2**48 - 2, 2**64 - 20])),
        lengths,
        draw(st.sampled_from([0, 1, 2, 256, 1024, 65_535])),
        draw(st.sampled_from([0, 0, 9])),
        [] if usual else draw(st.sampled_from(BEFORES)),
        LASTS[draw(st.integers(0, 3))] if usual else draw(st.sampled_from(LASTS)),
        draw(st.integers(1, 2 * len(lengths))),
        draw(st.sampled_from(TWISTS)),
    )


@st.composite
def long_messages(draw: st.DrawFn, las: int) -> Burst:
    """Fragments of a message, most often all of them, and alike."""
    count = draw(st.integers(2, 8))
    size = draw(st.sampled_from([1, 30, 500]))
    lengths = [size] * (count - 1) + [draw(st.sampled_from([1, size, 0, 501]))]
    index = draw(st.sampled_from([0, 0, 0, 0, 1, count - 1, count]))
    burst = draw(bursts(las))
    return evolve(
        burst,
        lengths=lengths[index:] or [size],
        last=LASTS[draw(st.sampled_from([0, 0, 1, 3, 4]))],
        index=index,
        count=draw(st.sampled_from([count] * 8 + [0, 1, 65_535])),
        twist_at=draw(st.sampled_from([1000, 1000, 1, 2])),
    )


@st.composite
def batches(draw: st.DrawFn, las: int) -> list[bytes]:
    """What comes from a neighbor, read by read: some of it again, some of it spoiled."""
    batches = []
    for _ in range(draw(st.integers(1, 4))):
        frames = [
            frame
            for burst in draw(st.lists(bursts(las) | long_messages(las), min_size=1, max_size=5))
            for frame in burst.frames()
        ]
        if draw(st.booleans()):
            frames = [*frames, *frames[: draw(st.integers(0, len(frames)))]]
        data = bytearray(b"".join(frames))
        if draw(st.booleans()):
            for _ in range(draw(st.integers(0, 3))):
                data[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
        if draw(st.booleans()):
            del data[draw(st.integers(0, len(data))) :]
        batches.append(bytes(data))
    return batches
