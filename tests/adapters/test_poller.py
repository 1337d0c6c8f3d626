"""Both ways to wait for sockets behave alike."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator

import pytest
import trio

from opus_socket.adapters.poller import READ, WRITE, Bell, EpollPoller, Poller, SelectorPoller

MAKERS: list[Callable[[], Poller]] = [EpollPoller, SelectorPoller]


@pytest.fixture(params=MAKERS)
def poller(request: pytest.FixtureRequest) -> Iterator[Poller]:
    made: Poller = request.param()
    yield made
    made.close()


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        here.setblocking(False)
        yield here, there


def test_what_is_ready_is_told_with_its_call(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    here, there = pair
    calls: list[int] = []
    poller.add(here, READ, calls.append)
    assert poller.poll() == []
    there.send(b"x")
    assert poller.poll() == [(calls.append, READ)]
    poller.change(here, READ | WRITE, calls.append)
    assert poller.poll() == [(calls.append, READ | WRITE)]
    poller.change(here, WRITE, calls.append)
    assert poller.poll() == [(calls.append, WRITE)]
    poller.change(here, 0, calls.append)
    assert poller.poll() == []
    poller.change(here, 0, calls.append)
    poller.change(here, READ, calls.append)
    assert poller.poll() == [(calls.append, READ)]
    poller.remove(here)
    poller.remove(here)
    assert poller.poll() == []


def test_the_end_of_the_other_side_concerns_both_directions(
    poller: Poller, pair: tuple[socket.socket, socket.socket]
) -> None:
    here, there = pair
    poller.add(here, READ | WRITE, print)
    there.close()
    assert poller.poll() == [(print, READ | WRITE)]


async def test_a_bell_ends_a_wait_once(poller: Poller) -> None:
    bell = Bell(poller)
    bell.ring()
    bell.ring()
    with trio.fail_after(5):
        await trio.lowlevel.wait_readable(poller.fileno())
    [(hear, mask)] = poller.poll()
    hear(mask)
    assert poller.poll() == []
    bell.ring()
    assert len(poller.poll()) == 1
    bell.close()
