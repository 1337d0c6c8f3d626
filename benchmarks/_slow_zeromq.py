"""ZeroMQ with a receiver that takes nothing: a PUB, which drops what does not fit, and SUBs.

Its one rule: as its makers made it: a queue holds a thousand messages at either end, and what finds
it full is dropped for that receiver only.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

import zmq
from attrs import frozen

_LOOK_EVERY = 1  # millisecond
_SETTLE = 0.5
_LOOPBACK = "tcp://127.0.0.1"


@frozen
class Dropping:
    """A PUB, and the SUBs that take messages."""

    sender: zmq.Socket[bytes]
    receivers: Sequence[zmq.Socket[bytes]]
    poller: zmq.Poller

    def send(self, payload: bytes) -> None:
        """Send to all."""
        self.sender.send(payload)

    def receive(self, got: list[int]) -> None:
        """Take what has come, and count it."""
        before = sum(got)
        for number, receiver in enumerate(self.receivers):
            with suppress(zmq.Again):
                while True:
                    receiver.recv(zmq.NOBLOCK)
                    got[number] += 1
        if sum(got) == before:
            self.poller.poll(_LOOK_EVERY)


@contextmanager
def open_dropping(receivers: int, healthy: int) -> Iterator[Dropping]:
    """So many receivers, of which so many take messages."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        sender = context.socket(zmq.XPUB)
        sender.setsockopt(zmq.XPUB_VERBOSE, 1)
        sender.bind(f"{_LOOPBACK}:*")
        endpoint = sender.getsockopt_string(zmq.LAST_ENDPOINT)
        below = [context.socket(zmq.SUB) for _ in range(receivers)]
        poller = zmq.Poller()
        for receiver in below:
            receiver.connect(endpoint)
            receiver.setsockopt(zmq.SUBSCRIBE, b"")
        for receiver in below[:healthy]:
            poller.register(receiver, zmq.POLLIN)
        for _ in below:
            sender.recv()
        time.sleep(_SETTLE)
        yield Dropping(sender, below[:healthy], poller)
    finally:
        context.destroy(linger=0)
