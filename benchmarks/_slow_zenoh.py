"""Zenoh with a receiver that takes nothing: its callback does not return.

Its one rule: messages are dropped when a link is congested, as Zenoh does unless it is told to
wait; sessions are those of `_zenoh`, over TCP.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import zenoh
from _peer import TIMEOUT
from _tools import free_port
from _zenoh import make_config

_KEY = "opus/benchmark"
_LOOK_EVERY = 0.0005
_SETTLE = 0.5


class Dropping:
    """A publisher, and what its subscribers have counted."""

    def __init__(self, publisher: zenoh.Publisher, counts: list[int]) -> None:
        self._publisher = publisher
        self._counts = counts

    def send(self, payload: bytes) -> None:
        """Send to all."""
        self._publisher.put(payload)

    def receive(self, got: list[int]) -> None:
        """Count what has come: Zenoh's own threads take it."""
        if got == self._counts:
            time.sleep(_LOOK_EVERY)
        got[:] = self._counts


@contextmanager
def open_dropping(receivers: int, healthy: int) -> Iterator[Dropping]:
    """So many receivers, of which so many take messages."""
    endpoint = f"tcp/127.0.0.1:{free_port()}"
    counts, heard = [0] * healthy, set[int]()
    over = threading.Event()

    def counter(number: int) -> Callable[[zenoh.Sample], None]:
        def take(sample: zenoh.Sample) -> None:
            if not sample.payload.to_bytes():
                heard.add(number)
            elif number < healthy:
                counts[number] += 1
            else:
                over.wait()

        return take

    with ExitStack() as stack:
        session = stack.enter_context(zenoh.open(make_config(listen=[endpoint])))
        publisher = session.declare_publisher(_KEY, congestion_control=zenoh.CongestionControl.DROP)
        below = [
            stack.enter_context(zenoh.open(make_config(connect=[endpoint])))
            for _ in range(receivers)
        ]
        subscribers = [
            each.declare_subscriber(_KEY, counter(number)) for number, each in enumerate(below)
        ]
        give_up = time.monotonic() + TIMEOUT
        while len(heard) < len(subscribers):
            if time.monotonic() > give_up:
                raise TimeoutError("a subscriber was not found")
            publisher.put(b"")
            time.sleep(0.02)
        time.sleep(_SETTLE)
        # Sessions end only when their callbacks do.
        stack.callback(over.set)
        yield Dropping(publisher, counts)
