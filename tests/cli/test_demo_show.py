"""The lines that tell how a demonstration goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from opus_socket.cli.demo.run import Plan
from opus_socket.cli.demo.show import Stages


@pytest.mark.parametrize(
    ("size", "first", "last"),
    [
        (1, "1 of 3 bytes", "3 of 3 bytes"),
        (6_000, "1 of 18 kB", "18 of 18 kB"),
        (30_000_000, "9 of 90 MB", "90 of 90 MB"),
    ],
)
def test_what_has_arrived_is_told_in_a_fitting_unit(size: int, first: str, last: str) -> None:
    said: list[str] = []
    stages = Stages(Plan(Path("file"), 4, 1, "delaunay"), said.append)
    stages.agreed(size, 1.0)
    said.clear()
    for percent in range(101):
        stages.received(3 * size * percent // 100)
    assert (said[0], said[-1]) == (f"arrived: {first}", f"arrived: {last}")
    assert len(set(said)) == len(said) <= 10
