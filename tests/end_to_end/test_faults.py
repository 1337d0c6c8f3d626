"""Members that die, stop and come back, as real processes do.

Timers are a fifth of the defaults, so that a neighbor that is silent for 0.6 s counts as gone. The
promise is that 3 s later at the latest the overlay is whole again.
"""

from __future__ import annotations

import signal
import time

import pytest

from end_to_end.conftest import Start
from end_to_end.processes import Running, free_port

NEIGHBOR_TIMEOUT = 0.6
QUICK = (
    *("--set", "node.delaunay.heartbeat=0.2", "--set", "node.delaunay.neighbor_timeout=3"),
    *("--set", "node.delaunay.rendezvous_period=0.4", "--log-level", "debug"),
)

WEST, MIDDLE, EAST, NORTH = "1000,1000", "2000,1000", "3000,1000", "3000,2000"


@pytest.fixture
def member(cat: Start) -> Start:
    """Start a `cat` at these coordinates and wait until it has joined."""

    def start_member(coordinates: str, *arguments: str) -> Running:
        process = cat(*QUICK, "--set", f"node.delaunay.coordinates={coordinates}", *arguments)
        assert process.joins().address == coordinates
        return process

    return start_member


def test_survivors_of_a_kill_are_whole_again_and_the_killed_member_comes_back(
    member: Start,
) -> None:
    """The killed member stands on a line between the others: it was all that joined them."""
    listen = f"127.0.0.1:{free_port()}"
    west = member(WEST)
    middle = member(MIDDLE, "--listen", listen)
    east = member(EAST)
    west.type("by the middle")
    east.prints(f"^{WEST}\tby the middle$")

    middle.signal(signal.SIGKILL)
    killed = time.monotonic()
    west.logs(f"{MIDDLE} is no neighbor")
    west.logs(f"{EAST} is a neighbor")
    assert time.monotonic() - killed < NEIGHBOR_TIMEOUT + 3
    west.type("past the middle")
    east.prints(f"^{WEST}\tpast the middle$")

    middle = member(MIDDLE, "--listen", listen)
    west.logs(f"{MIDDLE} is a neighbor")
    east.logs(f"{WEST} is no neighbor")
    west.type("by the middle again")
    east.prints(f"^{WEST}\tby the middle again$")
    middle.prints(f"^{WEST}\tby the middle again$")
    middle.type("back")
    west.prints(f"^{MIDDLE}\tback$")
    east.prints(f"^{MIDDLE}\tback$")


def test_a_member_that_was_stopped_comes_back(member: Start) -> None:
    west, middle, east = (member(place) for place in (WEST, MIDDLE, EAST))
    north = member(NORTH)
    middle.signal(signal.SIGSTOP)
    west.logs(f"{MIDDLE} is no neighbor")
    west.logs(f"({EAST}|{NORTH}) is a neighbor")
    west.type("without the middle")
    for survivor in (east, north):
        survivor.prints(f"^{WEST}\twithout the middle$")

    middle.signal(signal.SIGCONT)
    west.logs(f"{MIDDLE} is a neighbor")
    west.type("with the middle")
    for other in (middle, east, north):
        other.prints(f"^{WEST}\twith the middle$")


def test_those_beyond_a_killed_relay_learn_that_a_flow_broke_and_that_it_is_mended(
    member: Start,
) -> None:
    """A source sends line after line while the member between is killed with SIGKILL."""
    west, middle, east = (member(place) for place in (WEST, MIDDLE, EAST))
    west.type(*(f"before {number}" for number in range(200)))
    east.prints(f"^{WEST}\tbefore 199$")
    west.type(*(f"during {number}" for number in range(200)))
    middle.signal(signal.SIGKILL)
    east.logs(f"{WEST} does not get through any more: it came by {MIDDLE}, which is lost")
    east.logs(f"{WEST} is a neighbor")
    west.type("after")
    east.prints(f"^{WEST}\tafter$")
    east.logs(f"{WEST} gets through again")
