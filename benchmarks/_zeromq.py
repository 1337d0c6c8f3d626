"""ZeroMQ as a peer: PUSH to PULL for one receiver, XPUB to SUB for many, REQ to REP for an echo.

Its one rule: nothing is lost. PUSH waits while the receiver's queue is full, and so does XPUB with
`XPUB_NODROP`; queues have ZeroMQ's usual length. Every message is one `recv()`, over TCP.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress

import zmq
from _peer import TIMEOUT
from attrs import frozen

_LOOK_EVERY = 1  # millisecond
_LOOPBACK = "tcp://127.0.0.1"


@frozen
class Socket:
    """One ZeroMQ socket.

    Attributes:
        socket: the socket.
        endpoint: where it is bound, or connected to.
    """

    socket: zmq.Socket[bytes]
    endpoint: str

    def wait_ready(self) -> None:
        """A sender waits for its receiver by itself."""

    def send_all(self, batches: Sequence[Sequence[bytes]]) -> None:
        """Send all messages."""
        send = self.socket.send
        for batch in batches:
            for payload in batch:
                send(payload)

    def receive(self, count: int) -> None:
        """Receive so many messages."""
        recv = self.socket.recv
        for _ in range(count):
            recv()

    def ask(self, payload: bytes) -> None:
        """Send a request, and wait for its answer."""
        self.socket.send(payload)
        self.socket.recv()

    def answer(self, count: int) -> None:
        """Send so many requests back."""
        for _ in range(count):
            self.socket.send(self.socket.recv())


@frozen
class Group:
    """A sender and receivers that one thread serves in turn."""

    sender: zmq.Socket[bytes]
    receivers: Sequence[zmq.Socket[bytes]]
    poller: zmq.Poller

    def exchange(self, batches: Sequence[Sequence[bytes]]) -> None:
        """Send while queues have room, and else receive what has come."""
        missing = [sum(map(len, batches))] * len(self.receivers)
        send, again, no_wait = self.sender.send, zmq.Again, zmq.NOBLOCK
        for batch in batches:
            for payload in batch:
                while True:
                    try:
                        send(payload, no_wait)
                        break
                    except again:
                        self._receive(missing)
        left, give_up = sum(missing), time.monotonic() + TIMEOUT
        while left:
            self._receive(missing)
            if sum(missing) < left:
                left, give_up = sum(missing), time.monotonic() + TIMEOUT
            elif time.monotonic() > give_up:
                raise TimeoutError(f"{left} messages have not come")

    def _receive(self, missing: list[int]) -> None:
        """Take all that has come, and wait a little when nothing has: it may be on its way, and so
        may be the word that the sender's queue has room again.
        """
        before = sum(missing)
        for number in range(len(missing)):
            self._take(missing, number)
        if sum(missing) == before:
            self.poller.poll(_LOOK_EVERY)

    def _take(self, missing: list[int], number: int) -> None:
        recv, no_wait = self.receivers[number].recv, zmq.NOBLOCK
        with suppress(zmq.Again):
            while missing[number]:
                recv(no_wait)
                missing[number] -= 1


@contextmanager
def open_group(receivers: int) -> Iterator[Group]:
    """A PUSH with its PULL, or an XPUB with its SUBs, all of which have subscribed."""
    with _context() as context:
        if receivers == 1:
            sender, kind = _bound(context, zmq.PUSH), zmq.PULL
        else:
            sender, kind = _bound(context, zmq.XPUB), zmq.SUB
            sender.socket.setsockopt(zmq.XPUB_NODROP, 1)
            # Every subscription is told, not only the first to a topic.
            sender.socket.setsockopt(zmq.XPUB_VERBOSE, 1)
        below = [_connected(context, kind, sender.endpoint) for _ in range(receivers)]
        if receivers > 1:
            for receiver in below:
                receiver.socket.setsockopt(zmq.SUBSCRIBE, b"")
            sender.receive(receivers)
        else:
            sender.socket.poll(TIMEOUT * 1000, zmq.POLLOUT)
        poller = zmq.Poller()
        for receiver in below:
            poller.register(receiver.socket, zmq.POLLIN)
        yield Group(sender.socket, [each.socket for each in below], poller)


def open_sender() -> AbstractContextManager[Socket]:
    """A PUSH."""
    return _open(zmq.PUSH)


def open_receiver(endpoint: str) -> AbstractContextManager[Socket]:
    """A PULL."""
    return _open(zmq.PULL, endpoint)


def open_asking() -> AbstractContextManager[Socket]:
    """A REQ."""
    return _open(zmq.REQ)


def open_answering(endpoint: str) -> AbstractContextManager[Socket]:
    """A REP."""
    return _open(zmq.REP, endpoint)


@contextmanager
def _open(kind: int, endpoint: str = "") -> Iterator[Socket]:
    """A socket that is connected to an endpoint, or bound where none is given."""
    with _context() as context:
        yield _connected(context, kind, endpoint) if endpoint else _bound(context, kind)


@contextmanager
def _context() -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        yield context
    finally:
        context.destroy(linger=0)


def _bound(context: zmq.Context[zmq.Socket[bytes]], kind: int) -> Socket:
    sock = _impatient(context, kind)
    sock.bind(f"{_LOOPBACK}:*")
    return Socket(sock, sock.getsockopt_string(zmq.LAST_ENDPOINT))


def _connected(context: zmq.Context[zmq.Socket[bytes]], kind: int, endpoint: str) -> Socket:
    sock = _impatient(context, kind)
    sock.connect(endpoint)
    return Socket(sock, endpoint)


def _impatient(context: zmq.Context[zmq.Socket[bytes]], kind: int) -> zmq.Socket[bytes]:
    sock = context.socket(kind)
    sock.setsockopt(zmq.SNDTIMEO, int(TIMEOUT * 1000))
    sock.setsockopt(zmq.RCVTIMEO, int(TIMEOUT * 1000))
    return sock
