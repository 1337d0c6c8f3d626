"""Network coding: how fast packets are combined, and blocks solved for.

Its one rule: every decoded block is compared with what was put in. One process, no sockets; each
packet is a random combination of all blocks of its generation, the worst case for a decoder.

    python benchmarks/coding.py [--json] [--quick] [--runs 5] [--size 16384] [--blocks 2 8 32]

- `encode`, `decode`: MB/s of blocks that go in, and come out; `members` is how many blocks a
  generation has. Beside them, nothing but the products: one table look-up a byte for each block of
  its generation, by `bytes.translate`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from random import Random

from _common import Measurement, MeasurementError, Printer

from opus_socket.services.generations import Decoder, Packet, combine

BYTES_A_RUN = 4_000_000


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--blocks", nargs="+", type=int, default=(2, 8, 32), help="a generation")
    parser.add_argument("--size", type=int, default=16_384, help="bytes of a block (16384)")
    parser.add_argument("--runs", type=int, default=5, help="of each (5)")
    parser.add_argument("--quick", action="store_true", help="one run of each")
    parser.add_argument("--json", action="store_true", help="one object a measurement")
    given = parser.parse_args()
    printer = Printer(given.json)
    rng = Random(1)
    for blocks in given.blocks:
        rates = [measure(rng, blocks, given.size) for _ in range(1 if given.quick else given.runs)]
        for number, name in enumerate(("encode", "decode")):
            achieved = [rate[number] for rate in rates]
            products = [rate[2] for rate in rates]
            printer.add(
                Measurement(name, given.size, blocks, "MB/s", achieved, "products", products)
            )
    printer.finish()


def measure(rng: Random, count: int, size: int) -> tuple[float, float, float]:
    """MB/s of encoding, of decoding, and of products alone."""
    encoding = decoding = multiplying = 0.0
    table = bytes(reversed(range(256)))
    generations = max(1, BYTES_A_RUN // (count * count * size))
    for _ in range(generations):
        blocks = [rng.randbytes(size) for _ in range(count)]
        plain = [Packet.of_block(1, 1, 1, count, index, each) for index, each in enumerate(blocks)]
        # One more than needed: a random matrix may be singular.
        factors = [[rng.randrange(1, 256) for _ in blocks] for _ in range(count + 1)]
        started = time.perf_counter()
        coded = [combine(plain, row) for row in factors]
        encoding += (time.perf_counter() - started) * count / (count + 1)
        started = time.perf_counter()
        found = solve([each for each in coded if each is not None], count)
        decoding += time.perf_counter() - started
        if found != blocks:
            raise SystemExit("failed: what came out is not what was put in")
        started = time.perf_counter()
        for each in blocks * count:
            each.translate(table)
        multiplying += time.perf_counter() - started
    megabytes = generations * count * size / 1e6
    return megabytes / encoding, megabytes / decoding, megabytes / multiplying


def solve(packets: Sequence[Packet], count: int) -> list[bytes]:
    """The blocks in these packets."""
    decoder = Decoder(count)
    found: dict[int, bytes] = {}
    for packet in packets:
        found |= dict(decoder.add(packet.coefficients, packet.payload) or ())
        if decoder.complete:
            return [found[index] for index in range(count)]
    raise MeasurementError("the packets are not independent")


if __name__ == "__main__":
    main()
