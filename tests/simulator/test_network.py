"""Network models: repeatable delays, honest distributions, errors that can be mended."""

from __future__ import annotations

import os
import subprocess
import sys
from math import hypot, inf, nan, sqrt
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_socket.errors import ConfigurationError
from opus_socket.simulator.network import (
    ConstantNetwork,
    EuclideanNetwork,
    LinkQuality,
    MatrixNetwork,
    RandomNetwork,
    parse_network,
)

MEMBERS = st.integers(0, 20_000)
PAIRS = st.lists(st.tuples(MEMBERS, MEMBERS), max_size=30)
SEEDS = st.integers(-(2**70), 2**70)
PROBABILITIES = st.floats(0.0, 1.0)
QUALITIES = st.builds(
    LinkQuality,
    jitter=st.floats(0.0, 1e3),
    loss=PROBABILITIES,
    duplication=PROBABILITIES,
    reordering=PROBABILITIES,
)


@pytest.mark.parametrize("text", ["constant:20", "random:20-150", "euclidean:5-120"])
@given(seed=SEEDS, pairs=PAIRS)
def test_delays_are_symmetric_and_do_not_depend_on_the_order_of_questions(
    text: str, seed: int, pairs: list[tuple[int, int]]
) -> None:
    """Two networks of one seed agree on every pair, asked forward here and backward there."""
    one, other = parse_network(text, seed), parse_network(text, seed)
    forward = [one.delay_ms(a, b) for a, b in pairs]
    backward = [other.delay_ms(b, a) for a, b in reversed(pairs)]
    assert forward == backward[::-1]
    assert one == other


def test_delays_do_not_depend_on_the_hash_seed() -> None:
    """Fresh interpreters with different hash seeds print what is pinned here for good."""
    program = (
        "from opus_socket.simulator.network import parse_network\n"
        "for text in ('random:20-150', 'euclidean:5-120'):\n"
        "    print(parse_network(text, 7).delay_ms(3, 1_000))\n"
    )
    printed = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            check=True,
            capture_output=True,
            text=True,
            timeout=60,
        ).stdout
        for hash_seed in ("1", "2")
    }
    assert printed == {"82.66624438204046\n57.86132732692471\n"}


@pytest.mark.parametrize("text", ["constant:20", "random:20-150", "euclidean:5-120"])
@given(seed=SEEDS, member=MEMBERS)
def test_a_member_is_at_no_distance_from_itself(text: str, seed: int, member: int) -> None:
    """The delay from a member to itself is 0, whatever the floor."""
    assert parse_network(text, seed).delay_ms(member, member) == 0.0


def test_constant_delay() -> None:
    assert ConstantNetwork(20.0).delay_ms(3, 8) == 20.0


def test_random_delays_fill_the_whole_range_evenly() -> None:
    """79,800 pairs, so that the tolerance is more than five standard deviations."""
    network = RandomNetwork(20.0, 150.0, seed=3)
    delays = [network.delay_ms(a, b) for b in range(400) for a in range(b)]
    assert all(20.0 <= delay < 150.0 for delay in delays)
    for decile in range(1, 10):
        below = sum(delay < 20.0 + 13.0 * decile for delay in delays)
        assert below / len(delays) == pytest.approx(decile / 10, abs=0.01)


def test_another_seed_is_another_network() -> None:
    for text in ("random:20-150", "euclidean:5-120"):
        assert parse_network(text, 1).delay_ms(3, 4) != parse_network(text, 2).delay_ms(3, 4)


@given(seed=SEEDS, a=MEMBERS, b=MEMBERS)
def test_euclidean_delay_is_the_floor_plus_the_share_of_the_diagonal(
    seed: int, a: int, b: int
) -> None:
    """Positions lie in the unit square and explain each delay."""
    network = EuclideanNetwork(5.0, 120.0, seed)
    ax, ay = network.position(a)
    bx, by = network.position(b)
    assert all(0.0 <= coordinate < 1.0 for coordinate in (ax, ay, bx, by))
    expected = 5.0 + 115.0 * hypot(ax - bx, ay - by) / sqrt(2.0) if a != b else 0.0
    assert network.delay_ms(a, b) == pytest.approx(expected)


def test_euclidean_positions_fill_the_square_evenly() -> None:
    network = EuclideanNetwork(0.0, 100.0, seed=5)
    cells = [[0] * 4 for _ in range(4)]
    for member in range(16_000):
        x, y = network.position(member)
        cells[int(4 * x)][int(4 * y)] += 1
    assert all(count == pytest.approx(1_000, rel=0.12) for row in cells for count in row)


MATRIX = "rtt,oslo,rome,cairo\noslo,0.5,30,80\nrome,32,0.4,40\n\ncairo,81,41,0.6\n"


def matrix_file(folder: Path, text: str) -> Path:
    path = folder / "rtt.csv"
    path.write_text(text, encoding="utf-8")
    return path


def test_matrix_halves_round_trips_and_maps_members_in_turn(tmp_path: Path) -> None:
    network = MatrixNetwork.read(matrix_file(tmp_path, MATRIX))
    assert network.places == ("oslo", "rome", "cairo")
    assert network.delay_ms(0, 1) == 15.0
    assert network.delay_ms(1, 0) == 16.0
    assert network.delay_ms(4, 8) == 20.0
    assert network.delay_ms(2, 5) == 0.3
    assert network.delay_ms(5, 5) == 0.0


def test_matrix_with_a_byte_order_mark_and_padded_names(tmp_path: Path) -> None:
    path = matrix_file(tmp_path, "\ufeff, a , b\n a ,0, 6\nb,8 ,0\n")
    assert MatrixNetwork.read(path).delay_ms(0, 1) == 3.0


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", r"row 1: the header is '', but must hold .* name of each place"),
        ("rtt\n", r"row 1: the header is 'rtt', but must hold"),
        ("rtt,a,a\na,0,1\na,1,0\n", r"row 1: the header is 'rtt,a,a'.* each place once"),
        ("rtt,a,\na,0,1\n,1,0\n", r"row 1: the header is 'rtt,a,'"),
        ("rtt,a,b\na,0,1\n", r"row 1: the header names 2 places but 1 rows follow"),
        ("rtt,a,b\na,0,1\nb,1,0\nc,1,2\n", r"names 2 places but 3 rows follow"),
        ("rtt,a,b\n\nb,0,1\na,1,0\n", r"row 3: is named 'b', but must be 'a'"),
        ("rtt,a,b\na,0,1\nb,1\n", r"row 3: has 1 values, but must have 2"),
        ("rtt,a,b\na,0,1\nb,x,0\n", r"row 3, column 'a': is 'x', but must be .* at least 0"),
        ("rtt,a,b\na,0,\nb,1,0\n", r"row 2, column 'b': is ''"),
        ("rtt,a,b\na,0,-1\nb,1,0\n", r"row 2, column 'b': is '-1'"),
        ("rtt,a,b\na,0,nan\nb,1,0\n", r"row 2, column 'b': is 'nan'"),
        ("rtt,a,b\na,0,inf\nb,1,0\n", r"row 2, column 'b': is 'inf'"),
    ],
)
def test_a_bad_matrix_is_told_with_file_and_row(tmp_path: Path, text: str, complaint: str) -> None:
    path = matrix_file(tmp_path, text)
    with pytest.raises(ConfigurationError, match=complaint) as caught:
        MatrixNetwork.read(path)
    assert str(caught.value).startswith(str(path))


def test_a_matrix_that_cannot_be_read_is_told_with_its_cause(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"nowhere\.csv: cannot be read.*No such file"):
        MatrixNetwork.read(tmp_path / "nowhere.csv")
    latin = tmp_path / "latin.csv"
    latin.write_bytes("rtt,Zürich\nZürich,0\n".encode("latin-1"))
    with pytest.raises(ConfigurationError, match=r"latin\.csv: cannot be read.*UTF-8"):
        MatrixNetwork.read(latin)


def test_networks_are_read_from_a_command_lines_words(tmp_path: Path) -> None:
    assert parse_network("constant:20") == ConstantNetwork(20.0)
    assert parse_network("random:0.5-150", seed=9) == RandomNetwork(0.5, 150.0, seed=9)
    assert parse_network("euclidean:5-120", seed=9) == EuclideanNetwork(5.0, 120.0, seed=9)
    matrix = parse_network(f"matrix:{matrix_file(tmp_path, MATRIX)}")
    assert isinstance(matrix, MatrixNetwork)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "constant",
        "constant:",
        "constant:x",
        "constant:-5",
        "constant:nan",
        "constant:1-2",
        "random:20",
        "random:1-2-3",
        "euclidean:5",
        "matrix:",
        "torus:5",
        "constant:20\n",
        "constant:٣",
    ],
)
def test_other_words_are_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        parse_network(text)
    assert repr(text) in str(caught.value)
    for allowed in ("constant:MS", "random:MS-MS", "euclidean:MS-MS", "matrix:FILE"):
        assert allowed in str(caught.value)


@pytest.mark.parametrize("kind", ["random", "euclidean"])
def test_bounds_the_wrong_way_round_are_refused(kind: str) -> None:
    with pytest.raises(ConfigurationError, match="low is 150 and high is 20"):
        parse_network(f"{kind}:150-20")


@pytest.mark.parametrize("bad", [-1.0, nan, inf])
def test_delays_that_are_no_delays_are_refused(bad: float) -> None:
    for make in (lambda: ConstantNetwork(bad), lambda: RandomNetwork(0.0, bad)):
        with pytest.raises(ConfigurationError, match="must be a finite number of at least 0"):
            make()


@pytest.mark.parametrize("name", ["loss", "duplication", "reordering"])
@pytest.mark.parametrize("bad", [-0.1, 1.1, nan])
def test_shares_that_are_no_probabilities_are_refused(name: str, bad: float) -> None:
    with pytest.raises(
        ConfigurationError, match=rf"LinkQuality: {name} is {bad}, but .* from 0 to 1"
    ):
        LinkQuality(**{name: bad})


def test_negative_jitter_is_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"jitter is -1\.0, but .* at least 0"):
        LinkQuality(jitter=-1.0)


@given(QUALITIES, st.floats(0.0, 1e3), st.integers(0, 2**32))
def test_every_transmission_takes_eight_draws_and_keeps_its_bounds(
    quality: LinkQuality, base: float, seed: int
) -> None:
    """Whatever happens to a packet, the generator stands where it would have stood anyway."""
    rng, twin = Random(seed), Random(seed)
    arrivals = quality.transmit(base, rng)
    for _ in range(8):
        twin.random()
    assert rng.getstate() == twin.getstate()
    assert len(arrivals) <= 2
    latest = base + quality.jitter + (max(base, 1.0) if quality.reordering else 0.0)
    assert all(base <= arrival <= latest for arrival in arrivals)


@given(QUALITIES, PROBABILITIES, st.integers(0, 2**32))
def test_more_loss_takes_more_packets_and_leaves_the_others_alone(
    quality: LinkQuality, loss: float, seed: int
) -> None:
    """Of two qualities that differ in loss, the worse loses what the other does and more."""
    low, high = sorted((quality.loss, loss))
    few = LinkQuality(quality.jitter, low, quality.duplication, quality.reordering)
    many = LinkQuality(quality.jitter, high, quality.duplication, quality.reordering)
    one, other = Random(seed), Random(seed)
    for _ in range(20):
        kept, perhaps = few.transmit(30.0, one), many.transmit(30.0, other)
        assert perhaps in ((), kept)


def test_a_perfect_link_adds_nothing() -> None:
    assert LinkQuality().transmit(17.0, Random(1)) == (17.0,)


def test_losses_and_duplicates_come_as_often_as_told() -> None:
    rng, quality = Random(2), LinkQuality(loss=0.2, duplication=0.3)
    copies = [len(quality.transmit(10.0, rng)) for _ in range(10_000)]
    assert copies.count(0) / 10_000 == pytest.approx(0.2, abs=0.015)
    assert copies.count(2) / 10_000 == pytest.approx(0.8 * 0.3, abs=0.015)


def test_jitter_is_spread_evenly() -> None:
    rng, quality = Random(3), LinkQuality(jitter=40.0)
    delays = [quality.transmit(10.0, rng)[0] for _ in range(10_000)]
    for share in (0.25, 0.5, 0.75):
        below = sum(delay < 10.0 + 40.0 * share for delay in delays)
        assert below / 10_000 == pytest.approx(share, abs=0.02)


def test_reordered_packets_are_overtaken() -> None:
    """Packets sent every millisecond arrive in order without reordering and only then."""
    for reordering, in_order in ((0.0, True), (0.1, False)):
        rng, quality = Random(4), LinkQuality(reordering=reordering)
        arrivals = [sent + quality.transmit(30.0, rng)[0] for sent in range(100)]
        assert (arrivals == sorted(arrivals)) is in_order
