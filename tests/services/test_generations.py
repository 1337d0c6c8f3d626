"""Packets and decoders: whatever full-rank set of packets comes, the blocks are those put in."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from carryless import carryless
from opus_socket.errors import RemoteProtocolError
from opus_socket.services.galois import Row
from opus_socket.services.generations import MAX_BLOCKS, Decoder, Packet, combine, is_innovative

blocks_of = st.lists(st.binary(max_size=20), min_size=1, max_size=6)


def plain(blocks: Sequence[bytes]) -> list[Packet]:
    return [
        Packet.of_block(7, 3, 9, len(blocks), index, block) for index, block in enumerate(blocks)
    ]


def rank(matrix: list[list[int]]) -> int:
    """By elimination, row by row, with products of polynomials."""
    rows, found = [list(row) for row in matrix], 0
    for column in range(len(rows[0]) if rows else 0):
        pivot = next((i for i in range(found, len(rows)) if rows[i][column]), None)
        if pivot is None:
            continue
        rows[found], rows[pivot] = rows[pivot], rows[found]
        one = next(x for x in range(256) if carryless(x, rows[found][column]) == 1)
        rows[found] = [carryless(one, x) for x in rows[found]]
        for i in range(len(rows)):
            if i != found and rows[i][column]:
                factor = rows[i][column]
                rows[i] = [
                    x ^ carryless(factor, y) for x, y in zip(rows[i], rows[found], strict=True)
                ]
        found += 1
    return found


@given(blocks_of, st.data())
def test_decoding_undoes_encoding(blocks: list[bytes], data: st.DataObject) -> None:
    """The rank grows as linear algebra says, each block is told once, when it is determined, and
    is as it was put in; when the rank is full, every block has been told.
    """
    size = len(blocks)
    rows = st.lists(st.integers(0, 255), min_size=size, max_size=size)
    chosen = data.draw(st.lists(rows, max_size=2 * size))
    decoder = Decoder(size)
    told: dict[int, bytes] = {}
    seen: list[list[int]] = []
    for factors in chosen:
        packet = combine(plain(blocks), factors)
        if packet is None:
            assert not any(factors)
            continue
        assert list(packet.coefficients) == factors
        packet = Packet.from_wire(packet.wire)
        before = rank(seen)
        seen.append(factors)
        solved = decoder.add(packet.coefficients, packet.payload)
        assert decoder.rank == rank(seen)
        assert (solved is not None) == (rank(seen) > before)
        for index, block in solved or ():
            assert index not in told
            told[index] = block
        for index in range(size):
            unit = [int(i == index) for i in range(size)]
            assert (index in told) == (rank([*seen, unit]) == rank(seen) > 0)
    assert all(block == blocks[index] for index, block in told.items())
    assert decoder.complete == (decoder.rank == size)
    if decoder.complete:
        assert len(told) == size
    assert decoder.broken == 0


@given(blocks_of, st.integers(0, 1 << 32))
def test_combinations_of_combinations_decode_too(blocks: list[bytes], seed: int) -> None:
    """A relay that mixes what others mixed needs no blocks: the rank of what it passes on is that
    of what it has, once it has passed on a few more.
    """
    rng, size = random.Random(seed), len(blocks)
    once = [combine(plain(blocks), [rng.randrange(1, 256) for _ in blocks]) for _ in range(size)]
    mixed = [packet for packet in once if packet is not None]
    decoder = Decoder(size)
    told: dict[int, bytes] = {}
    for _ in range(size + 6):
        twice = combine(mixed, [rng.randrange(256) for _ in mixed])
        if twice is not None:
            told |= dict(decoder.add(twice.coefficients, twice.payload) or ())
    assert decoder.rank == rank([list(map(int, packet.coefficients)) for packet in mixed])
    if decoder.complete:
        assert told == dict(enumerate(blocks))


def test_a_random_square_matrix_is_nearly_always_invertible() -> None:
    """With probability 0.996 (algorithm notes, section 21)."""
    rng = np.random.default_rng(21)
    nothing: Row = np.zeros(0, np.uint8)
    full = 0
    for _ in range(2000):
        decoder = Decoder(6)
        for row in rng.integers(0, 256, (6, 6), dtype=np.uint8):
            decoder.add(row, nothing)
        full += decoder.complete
    exact = np.prod([1 - 256.0**-power for power in range(1, 7)])
    assert abs(full / 2000 - exact) < 3 * np.sqrt(exact * (1 - exact) / 2000)
    assert round(exact, 3) == 0.996


@given(blocks_of)
def test_a_packet_is_innovative_when_it_is_independent(blocks: list[bytes]) -> None:
    packets = plain(blocks)
    assert all(is_innovative(each, packets[:index]) for index, each in enumerate(packets))
    whole = combine(packets, [3] * len(packets))
    assert whole is not None
    assert not is_innovative(whole, packets)
    assert is_innovative(whole, packets[1:])


def test_what_annihilates_itself_is_no_packet() -> None:
    [packet] = plain([b"x"])
    assert combine([packet, packet], [5, 5]) is None


@given(st.binary(max_size=60) | st.binary(max_size=20).map(lambda tail: bytes(13) + b"\x03" + tail))
def test_any_bytes_are_a_packet_or_refused(body: bytes) -> None:
    """Whatever is accepted is written back as it came."""
    with suppress(RemoteProtocolError):
        packet = Packet.from_wire(body)
        assert packet.wire == body
        assert 0 <= packet.stream < len(packet.coefficients) <= MAX_BLOCKS


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (bytes(13), "truncated"),
        (bytes(13) + b"\x00" + bytes(9), "generation_size"),
        (bytes(13) + b"\x41" + bytes(90), "generation_size"),
        (bytes(13) + b"\x02\x01\x00\x00", "truncated"),
        (bytes(13) + b"\x02\x00\x00\x00\x00", "no_blocks"),
        (bytes(13) + b"\x02\x01\x00\x00\x00", "hops"),
        (bytes(12) + b"\x21\x02\x01\x00\x00\x00", "hops"),
    ],
)
def test_what_is_no_packet_is_refused_by_name(body: bytes, kind: str) -> None:
    with pytest.raises(RemoteProtocolError) as refused:
        Packet.from_wire(body)
    assert refused.value.kind == kind


def test_a_block_that_nobody_put_in_is_counted_and_no_other_lost() -> None:
    decoder = Decoder(2)
    longer_than_it_is = np.array([0, 200, 1], np.uint8)
    assert decoder.add(np.array([1, 0], np.uint8), longer_than_it_is) == []
    good = Packet.of_block(1, 1, 1, 2, 1, b"good")
    assert decoder.add(good.coefficients, good.payload) == [(1, b"good")]
    assert (decoder.broken, decoder.complete) == (1, True)
