"""Zenoh as a peer: sessions in peer mode over TCP, a publisher in one, a subscriber in each other.

Its one rule: nothing is lost, and nobody is found by chance: reliable, congestion control that
waits, no scouting. A message is an object when a subscriber's callback has its payload as bytes.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import zenoh
from _peer import TIMEOUT

_KEY = "opus/benchmark"
_LOOK_EVERY = 0.01


class Sender:
    """A publisher.

    Args:
        session: whose publisher it is.
        endpoint: where the session listens.
    """

    def __init__(self, session: zenoh.Session, endpoint: str) -> None:
        self.endpoint = endpoint
        self._publisher = session.declare_publisher(
            _KEY,
            congestion_control=zenoh.CongestionControl.BLOCK,
            reliability=zenoh.Reliability.RELIABLE,
        )

    def wait_ready(self) -> None:
        """Wait until it knows of a subscriber."""
        give_up = time.monotonic() + TIMEOUT
        while not self._publisher.matching_status.matching:
            if time.monotonic() > give_up:
                raise TimeoutError("the subscriber was not found")
            time.sleep(_LOOK_EVERY)

    def probe(self) -> None:
        """Send a message that does not count."""
        self._publisher.put(b"")

    def send_all(self, batches: Sequence[Sequence[bytes]]) -> None:
        """Send all messages."""
        put = self._publisher.put
        for batch in batches:
            for payload in batch:
                put(payload)


class Receiver:
    """A subscriber, which counts in Zenoh's own thread what it gets.

    Args:
        session: whose subscriber it is.
    """

    def __init__(self, session: zenoh.Session) -> None:
        self.heard = threading.Event()
        self._got = 0
        self._goal = 0
        self._reached = threading.Event()
        self._subscriber = session.declare_subscriber(_KEY, self._take)

    def _take(self, sample: zenoh.Sample) -> None:
        if not sample.payload.to_bytes():
            self.heard.set()
            return
        self._got += 1
        if self._got == self._goal:
            self._reached.set()

    def receive(self, count: int) -> None:
        """Wait until so many more messages have come than were waited for before."""
        self._reached.clear()
        self._goal += count
        # The last one may have come before the goal was set.
        while self._got < self._goal:
            before = self._got
            if not self._reached.wait(TIMEOUT) and self._got == before:
                raise TimeoutError(f"{self._goal - before} messages have not come")


class Group:
    """A publisher and its subscribers."""

    def __init__(self, sender: Sender, receivers: Sequence[Receiver]) -> None:
        self._sender = sender
        self._receivers = receivers

    def exchange(self, batches: Sequence[Sequence[bytes]]) -> None:
        """Send all messages, and wait for them."""
        self._sender.send_all(batches)
        count = sum(map(len, batches))
        for receiver in self._receivers:
            receiver.receive(count)


@contextmanager
def open_group(receivers: int) -> Iterator[Group]:
    """A publisher, and subscribers that have heard from it."""
    with ExitStack() as stack:
        sender = stack.enter_context(open_sender())
        below = [stack.enter_context(open_receiver(sender.endpoint)) for _ in range(receivers)]
        give_up = time.monotonic() + TIMEOUT
        while not all(receiver.heard.is_set() for receiver in below):
            if time.monotonic() > give_up:
                raise TimeoutError("a subscriber was not found")
            sender.probe()
            time.sleep(_LOOK_EVERY)
        yield Group(sender, below)


@contextmanager
def open_sender() -> Iterator[Sender]:
    """A session that listens, with a publisher."""
    endpoint = f"tcp/127.0.0.1:{_free_port()}"
    with zenoh.open(_config("listen", endpoint)) as session:
        yield Sender(session, endpoint)


@contextmanager
def open_receiver(endpoint: str) -> Iterator[Receiver]:
    """A session that is connected to the publisher's, with a subscriber."""
    with zenoh.open(_config("connect", endpoint)) as session:
        yield Receiver(session)


def _config(how: str, endpoint: str) -> zenoh.Config:
    settings: dict[str, object] = {
        "mode": "peer",
        "scouting/multicast/enabled": False,
        "scouting/gossip/enabled": False,
        "listen/endpoints": [],
        "connect/endpoints": [],
        f"{how}/endpoints": [endpoint],
    }
    config = zenoh.Config()
    for key, value in settings.items():
        config.insert_json5(key, json.dumps(value))
    return config


def _free_port() -> int:
    """A port that was free a moment ago: a session does not tell which one it was given."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
    return port
