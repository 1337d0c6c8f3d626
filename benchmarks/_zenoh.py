"""Zenoh as a peer: sessions in peer mode over TCP, a publisher in one, a subscriber in each other.

Its one rule: nothing is lost, and nobody is found by chance: reliable, congestion control that
waits, no scouting. A message is an object when a subscriber's callback has its payload as bytes.
Shared memory, which Zenoh takes by itself for messages of 3 KiB and more between processes of one
machine, is off here (`_zenoh_shared` has it on). A chain is one of routers, for peers do not relay.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager

import zenoh
from _peer import TIMEOUT
from _tools import free_port

_KEY = "opus/benchmark"
_LOOK_EVERY = 0.01
_SETTLE = 2.0
_AT_ONCE = 16
_USUAL_SESSIONS = 100


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


class Receivers:
    """Subscribers.

    Args:
        receivers: each of them.
    """

    def __init__(self, receivers: Sequence[Receiver]) -> None:
        self._receivers = receivers

    def receive(self, count: int) -> None:
        """Return when each of them has received so many messages."""
        for receiver in self._receivers:
            receiver.receive(count)

    def wait_heard(self, probe: Callable[[], None]) -> None:
        """Wait until each has heard from the publisher.

        Args:
            probe: lets it say something, if it is here.
        """
        give_up = time.monotonic() + TIMEOUT
        while not all(receiver.heard.is_set() for receiver in self._receivers):
            if time.monotonic() > give_up:
                raise TimeoutError("a subscriber was not found")
            probe()
            time.sleep(_LOOK_EVERY)


class Group:
    """A publisher and its subscribers."""

    def __init__(self, sender: Sender, receivers: Receivers) -> None:
        self._sender = sender
        self._receivers = receivers

    def exchange(self, batches: Sequence[Sequence[bytes]]) -> None:
        """Send all messages, and wait for them."""
        self._sender.send_all(batches)
        self._receivers.receive(sum(map(len, batches)))


@contextmanager
def open_group(receivers: int) -> Iterator[Group]:
    """A publisher, and subscribers that have heard from it."""
    with ExitStack() as stack:
        sender = stack.enter_context(open_sender(receivers))
        below = Receivers(_open_receivers(stack, sender.endpoint, receivers))
        below.wait_heard(sender.probe)
        yield Group(sender, below)


@contextmanager
def open_sender(receivers: int, *, shared_memory: bool = False) -> Iterator[Sender]:
    """A session that listens, with a publisher."""
    endpoint = f"tcp/127.0.0.1:{free_port()}"
    config = make_config(listen=[endpoint], sessions=receivers, shared_memory=shared_memory)
    with zenoh.open(config) as session:
        yield Sender(session, endpoint)


@contextmanager
def open_receiver(
    endpoint: str, receivers: int, *, shared_memory: bool = False
) -> Iterator[Receivers]:
    """Sessions that are connected to the publisher's, each with a subscriber that has heard it."""
    with ExitStack() as stack:
        below = Receivers(_open_receivers(stack, endpoint, receivers, shared_memory=shared_memory))
        below.wait_heard(lambda: None)
        yield below


def _open_receivers(
    stack: ExitStack, endpoint: str, count: int, *, shared_memory: bool = False
) -> list[Receiver]:
    config = make_config(connect=[endpoint], shared_memory=shared_memory)

    def open_one(_: int) -> zenoh.Session:
        return zenoh.open(config)

    # Opening one waits for its connection; they need not wait for each other.
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        sessions = list(pool.map(open_one, range(count)))
    return [Receiver(stack.enter_context(session)) for session in sessions]


class Head(Sender):
    """A publisher, and routers behind it that have subscribers.

    Args:
        session: whose publisher it is.
        endpoint: where the last of the routers listens.
        receivers: the subscribers.
    """

    def __init__(self, session: zenoh.Session, endpoint: str, receivers: Receivers) -> None:
        super().__init__(session, endpoint)
        self._receivers = receivers

    def wait_ready(self) -> None:
        """Routers go on agreeing about their trees for a while, and lose messages meanwhile."""
        self._receivers.wait_heard(self.probe)
        time.sleep(_SETTLE)

    def send_all(self, batches: Sequence[Sequence[bytes]]) -> None:
        """Send all messages, and return when the subscribers here have them."""
        super().send_all(batches)
        self._receivers.receive(sum(map(len, batches)))


@contextmanager
def open_head(nodes: int, everywhere: bool) -> Iterator[Head]:
    """Routers on a line, the first with a publisher, the others with subscribers."""
    with ExitStack() as stack:
        sessions, endpoint = _open_routers(stack, "", nodes)
        below = [Receiver(session) for session in sessions[1:]] if everywhere else []
        yield Head(sessions[0], endpoint, Receivers(below))


@contextmanager
def open_tail(endpoint: str, nodes: int, everywhere: bool) -> Iterator[Receivers]:
    """Routers on a line, all or the last with a subscriber that has heard the publisher."""
    with ExitStack() as stack:
        sessions, _ = _open_routers(stack, endpoint, nodes)
        below = Receivers([Receiver(each) for each in (sessions if everywhere else sessions[-1:])])
        below.wait_heard(lambda: None)
        yield below


def _open_routers(stack: ExitStack, upper: str, count: int) -> tuple[list[zenoh.Session], str]:
    """So many routers, each connected to the one before, and where the last of them listens."""
    sessions: list[zenoh.Session] = []
    for _ in range(count):
        endpoint = f"tcp/127.0.0.1:{free_port()}"
        config = make_config(mode="router", listen=[endpoint], connect=[upper] if upper else [])
        sessions.append(stack.enter_context(zenoh.open(config)))
        upper = endpoint
    return sessions, upper


def make_config(
    *,
    mode: str = "peer",
    listen: Sequence[str] = (),
    connect: Sequence[str] = (),
    sessions: int = 0,
    shared_memory: bool = False,
) -> zenoh.Config:
    """A session's settings.

    Args:
        mode: what it is to others.
        listen, connect: endpoints.
        sessions: how many others connect to it.
        shared_memory: whether Zenoh may use it.
    """
    settings: dict[str, object] = {
        "mode": mode,
        "scouting/multicast/enabled": False,
        "scouting/gossip/enabled": False,
        "listen/endpoints": listen,
        "connect/endpoints": connect,
        "transport/shared_memory/enabled": shared_memory,
    }
    if sessions > _USUAL_SESSIONS:
        settings["transport/unicast/max_sessions"] = sessions + 1
        settings["transport/unicast/accept_pending"] = sessions + 1
    config = zenoh.Config()
    for key, value in settings.items():
        config.insert_json5(key, json.dumps(value))
    return config
