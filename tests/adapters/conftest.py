"""Boards that are closed when their test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest

from board import Board
from emulated_board import EmulatedBoard


@pytest.fixture
def make_board() -> Iterator[Callable[[], Board]]:
    boards: list[Board] = []

    def make() -> Board:
        boards.append(Board())
        return boards[-1]

    yield make
    for board in boards:
        board.close()


@pytest.fixture
def board(make_board: Callable[[], Board]) -> Board:
    return make_board()


@pytest.fixture
def here() -> Iterator[EmulatedBoard]:
    with closing(EmulatedBoard()) as board:
        yield board
