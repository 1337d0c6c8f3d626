"""Generations: blocks that are coded together, the packets made of them, and how they come back.

Its one rule: a packet says of which combination of its generation's blocks it is, so whoever has as
many independent packets as the generation has blocks can solve for them, whatever way they came.
Blocks may differ in length: a shorter one counts as followed by zeros, and each begins with its
true length.

A packet's body: app u32, generation u64, hops u8, size u8, `size` coefficients, the combination.

Source: random linear network coding in generations; the fields that iOverlay's coding needs.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from attrs import define, field, frozen

from opus_socket.errors import RemoteProtocolError
from opus_socket.services.galois import Row, add_scaled, inverse, np, scaled

MAX_BLOCKS = 64
"""Blocks of a generation, at most."""

MAX_HOPS = 32
"""Hops that a packet goes, at most."""

_HEAD = struct.Struct(">IQBB")
_LENGTH = struct.Struct(">H")
LONGEST_BLOCK = (1 << 16) - 1
_NOTHING: Row = np.zeros(0, np.uint8)
OVERHEAD = _HEAD.size + _LENGTH.size
"""Bytes of a packet besides its coefficients and its block."""


@frozen(eq=False)
class Packet:
    """A combination of the blocks of a generation.

    Attributes:
        app: of which application.
        generation: its number there.
        hops: how many hops it may go, this one included, 1 to 32.
        coefficients: one for each block of the generation.
        payload: the same combination of the blocks, each behind its length.
    """

    app: int
    generation: int
    hops: int
    coefficients: Row
    payload: Row

    @property
    def wire(self) -> bytes:
        """The body of a message."""
        head = _HEAD.pack(self.app, self.generation, self.hops, len(self.coefficients))
        return head + self.coefficients.tobytes() + self.payload.tobytes()

    @property
    def key(self) -> tuple[int, int]:
        """Its generation and the size that it claims for it: others are never of the same."""
        return self.generation, len(self.coefficients)

    @property
    def stream(self) -> int:
        """The number of the first block that has a part in it."""
        return int(np.flatnonzero(self.coefficients)[0])

    @classmethod
    def of_block(
        cls, app: int, generation: int, hops: int, size: int, index: int, block: bytes
    ) -> Packet:
        """The packet that is a block itself, the one at `index` of `size`."""
        coefficients = np.zeros(size, np.uint8)
        coefficients[index] = 1
        payload = np.frombuffer(_LENGTH.pack(len(block)) + block, np.uint8)
        return cls(app, generation, hops, coefficients, payload)

    @classmethod
    def from_wire(cls, body: bytes) -> Packet:
        """The packet in the body of a message.

        Raises:
            RemoteProtocolError: it is none.
        """
        if len(body) < _HEAD.size:
            raise RemoteProtocolError("truncated", f"{len(body)} bytes")
        app, generation, hops, size = _HEAD.unpack_from(body)
        data = np.frombuffer(body, np.uint8, offset=_HEAD.size)
        if not 1 <= size <= MAX_BLOCKS:
            raise RemoteProtocolError("generation_size", f"{size}")
        if len(data) < size + _LENGTH.size:
            raise RemoteProtocolError("truncated", f"{len(body)} bytes for {size} coefficients")
        if not data[:size].any():
            raise RemoteProtocolError("no_blocks", "every coefficient is 0")
        if not 1 <= hops <= MAX_HOPS:
            raise RemoteProtocolError("hops", f"{hops}")
        return cls(app, generation, hops, data[:size], data[size:])


def combine(packets: Sequence[Packet], factors: Sequence[int]) -> Packet | None:
    """The sum of multiples of packets of one generation; None when nothing remains of them."""
    first = packets[0]
    coefficients = np.zeros(len(first.coefficients), np.uint8)
    payload = np.zeros(max(len(packet.payload) for packet in packets), np.uint8)
    for packet, factor in zip(packets, factors, strict=True):
        add_scaled(coefficients, packet.coefficients, factor)
        add_scaled(payload, packet.payload, factor)
    hops = min(packet.hops for packet in packets)
    if not coefficients.any():
        return None
    return Packet(first.app, first.generation, hops, coefficients, payload)


@define(eq=False, repr=False)
class Decoder:
    """Solves for the blocks of one generation, packet by packet.

    Each packet is reduced by those before it and then reduces them (Gauss and Jordan), so that a
    block is there as soon as the packets at hand determine it.

    Args:
        blocks: how many blocks the generation has.

    Attributes:
        rank: how many independent packets came; what makes it grow is *innovative*.
        broken: blocks that were solved and cannot have been put in: somebody sent nonsense.
    """

    blocks: int
    rank: int = field(default=0, init=False)
    broken: int = field(default=0, init=False)
    _rows: list[Row | None] = field(init=False)
    _solved: list[bool] = field(init=False)
    _width: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        # A row is the coefficients and, behind them, the payload; that of number i begins with i
        # zeros and a one, and where others begin it is zero.
        self._rows = [None] * self.blocks
        self._solved = [False] * self.blocks
        self._width = self.blocks

    @property
    def complete(self) -> bool:
        """Whether every block is solved."""
        return self.rank == self.blocks

    @property
    def size(self) -> int:
        """Bytes that it keeps."""
        return self.rank * self._width

    def add(self, coefficients: Row, payload: Row) -> list[tuple[int, bytes]] | None:
        """Take a packet.

        Args:
            coefficients: one for each block.
            payload: bytes of any number; none to look at ranks only.

        Returns:
            The blocks that are solved now and were not before, by number, as they were put in;
            None when the packet is not innovative.
        """
        row = self._make_room(coefficients, payload)
        for number, known in enumerate(self._rows):
            if known is not None and row[number]:
                add_scaled(row, known, int(row[number]))
        leading = np.flatnonzero(row[: self.blocks])
        if not len(leading):
            return None
        lead = int(leading[0])
        if row[lead] != 1:
            row = scaled(row, inverse(int(row[lead])))
        for known in self._rows:
            if known is not None and known[lead]:
                add_scaled(known, row, int(known[lead]))
        self._rows[lead] = row
        self.rank += 1
        return self._newly_solved() if len(payload) else []

    def _make_room(self, coefficients: Row, payload: Row) -> Row:
        width = max(self._width, self.blocks + len(payload))
        if width > self._width:
            self._width = width
            for number, known in enumerate(self._rows):
                if known is not None:
                    self._rows[number] = np.pad(known, (0, width - len(known)))
        row = np.zeros(width, np.uint8)
        row[: self.blocks] = coefficients
        row[self.blocks : self.blocks + len(payload)] = payload
        return row

    def _newly_solved(self) -> list[tuple[int, bytes]]:
        found = []
        for number, row in enumerate(self._rows):
            if row is None or self._solved[number]:
                continue
            if np.count_nonzero(row[: self.blocks]) == 1:
                self._solved[number] = True
                start = self.blocks + _LENGTH.size
                (length,) = _LENGTH.unpack(row[self.blocks : start].tobytes())
                if length > len(row) - start:
                    self.broken += 1
                else:
                    found.append((number, row[start : start + length].tobytes()))
        return found


def is_innovative(packet: Packet, others: Sequence[Packet]) -> bool:
    """Whether a packet is independent of others of its generation."""
    ranks = Decoder(len(packet.coefficients))
    for other in others:
        ranks.add(other.coefficients, _NOTHING)
    return ranks.add(packet.coefficients, _NOTHING) is not None


@define(eq=False, repr=False)
class Told:
    """What somebody has been told of each generation, as far as arithmetic goes.

    Args:
        limit: generations that are remembered, those that were begun last.
    """

    limit: int
    _ranks: dict[tuple[int, int], Decoder | None] = field(factory=dict, init=False)

    def add(self, packet: Packet) -> bool:
        """Whether a packet tells anything new; then it has been told."""
        key = packet.key
        if key not in self._ranks:
            while len(self._ranks) >= self.limit:
                del self._ranks[next(iter(self._ranks))]
            self._ranks[key] = Decoder(len(packet.coefficients))
        ranks = self._ranks[key]
        if ranks is None or ranks.add(packet.coefficients, _NOTHING) is None:
            return False
        if ranks.complete:
            # Whatever comes now is a combination of what was told.
            self._ranks[key] = None
        return True
