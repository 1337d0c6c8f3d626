"""Processes that end with their test, one rendezvous server, and an overlay for each test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest

from end_to_end.processes import COMMAND, Running

Start = Callable[..., Running]


@pytest.fixture
def launch(tmp_path: Path) -> Iterator[Start]:
    """Start a program with its arguments, in an empty folder."""
    running: list[Running] = []

    def launch_one(*arguments: str) -> Running:
        running.append(Running(arguments, tmp_path))
        return running[-1]

    yield launch_one
    for process in running:
        process.discard()


@pytest.fixture
def start(launch: Start) -> Start:
    """Start `opus-socket` with these arguments."""
    return partial(launch, *COMMAND)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The endpoint of a rendezvous server."""
    command = [*COMMAND, "rendezvous", "--listen", "127.0.0.1:0", "--json"]
    process = Running(command, tmp_path_factory.mktemp("server"))
    yield str(process.json()["listen"])
    process.discard()


@pytest.fixture
def overlay(request: pytest.FixtureRequest) -> str:
    """An overlay of the test's own."""
    return str(request.node.nodeid)[-200:]


@pytest.fixture
def cat(start: Start, server: str, overlay: str) -> Start:
    """Start a `cat` in the test's overlay that meets others through the server."""

    def start_cat(*arguments: str) -> Running:
        return start("cat", "--overlay", overlay, "--server", server, *arguments)

    return start_cat
