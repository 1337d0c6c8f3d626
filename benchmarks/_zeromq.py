"""ZeroMQ as a peer: PUSH to PULL for one receiver, XPUB to SUB for many, REQ to REP for an echo.

Its one rule: nothing is lost. PUSH waits while the receiver's queue is full, and so does XPUB with
`XPUB_NODROP`; queues have ZeroMQ's usual length. Every message is one `recv()`, over TCP. A chain
has a proxy of ZeroMQ's own in a thread for each relay, or, where each receives, a loop of ours. A
pair has one I/O thread in each process, more sockets have two: as many as are of use on two cores.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from threading import Thread

import zmq
from _peer import TIMEOUT
from attrs import evolve, frozen

_LOOK_EVERY = 1  # millisecond
_MOST_SOCKETS = 8192
_THREADS = 2
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
    receivers: int = 1

    def probe(self) -> None:
        """Not needed: a sender knows its receivers."""

    def wait_ready(self) -> None:
        """A PUSH waits for its receiver by itself; an XPUB is told of each subscription."""
        if self.receivers > 1:
            self.receive(self.receivers)

    def send_all(self, batches: Sequence[Sequence[bytes]]) -> None:
        """Send all messages.

        Raises:
            TimeoutError: a queue stayed full.
        """
        send = self.socket.send
        try:
            for batch in batches:
                for payload in batch:
                    send(payload)
        except zmq.Again:
            raise TimeoutError("a queue stayed full") from None

    def receive(self, count: int) -> None:
        """Receive so many messages.

        Raises:
            TimeoutError: one did not come.
        """
        recv = self.socket.recv
        try:
            for _ in range(count):
                recv()
        except zmq.Again:
            raise TimeoutError("a message has not come") from None

    def ask(self, payload: bytes) -> None:
        """Send a request, and wait for its answer."""
        self.socket.send(payload)
        self.socket.recv()

    def answer(self, count: int) -> None:
        """Send so many requests back."""
        for _ in range(count):
            self.socket.send(self.socket.recv())


@frozen
class Receivers:
    """Receivers that one thread serves in turn."""

    sockets: Sequence[zmq.Socket[bytes]]
    poller: zmq.Poller

    @classmethod
    def of(cls, sockets: Sequence[zmq.Socket[bytes]]) -> Receivers:
        """Some receivers."""
        poller = zmq.Poller()
        for sock in sockets:
            poller.register(sock, zmq.POLLIN)
        return cls(sockets, poller)

    def receive(self, count: int) -> None:
        """Return when each of them has received so many messages."""
        self.finish([count] * len(self.sockets))

    def finish(self, missing: list[int]) -> None:
        """Return when each of them has received what it misses.

        Raises:
            TimeoutError: nothing came any more.
        """
        left, give_up = sum(missing), time.monotonic() + TIMEOUT
        while left:
            self.take(missing)
            if sum(missing) < left:
                left, give_up = sum(missing), time.monotonic() + TIMEOUT
            elif time.monotonic() > give_up:
                raise TimeoutError(f"{left} messages have not come")

    def take(self, missing: list[int]) -> None:
        """Take all that has come, and wait a little when nothing has: it may be on its way, and so
        may be the word that the sender's queue has room again.
        """
        before = sum(missing)
        for number in range(len(missing)):
            self._take_from(missing, number)
        if sum(missing) == before:
            self.poller.poll(_LOOK_EVERY)

    def _take_from(self, missing: list[int], number: int) -> None:
        recv, no_wait = self.sockets[number].recv, zmq.NOBLOCK
        with suppress(zmq.Again):
            while missing[number]:
                recv(no_wait)
                missing[number] -= 1


@frozen
class Group:
    """A sender and receivers that one thread serves in turn."""

    sender: zmq.Socket[bytes]
    receivers: Receivers

    def exchange(self, batches: Sequence[Sequence[bytes]]) -> None:
        """Send while queues have room, and else receive what has come."""
        missing = [sum(map(len, batches))] * len(self.receivers.sockets)
        send, again, no_wait = self.sender.send, zmq.Again, zmq.NOBLOCK
        for batch in batches:
            for payload in batch:
                while True:
                    try:
                        send(payload, no_wait)
                        break
                    except again:
                        self.receivers.take(missing)
        self.receivers.finish(missing)


@contextmanager
def open_group(receivers: int) -> Iterator[Group]:
    """A PUSH with its PULL, or an XPUB with its SUBs, all of which have subscribed."""
    with _context(receivers) as context:
        sender = _bound_sender(context, receivers)
        kind = zmq.PULL if receivers == 1 else zmq.SUB
        below = _connect_many(context, kind, sender.endpoint, receivers)
        if receivers > 1:
            sender.receive(receivers)
        else:
            sender.socket.poll(TIMEOUT * 1000, zmq.POLLOUT)
        yield Group(sender.socket, Receivers.of(below))


@contextmanager
def open_sender(receivers: int) -> Iterator[Socket]:
    """A PUSH to one receiver, or an XPUB to many."""
    with _context(receivers) as context:
        yield _bound_sender(context, receivers)


@contextmanager
def open_receiver(endpoint: str, receivers: int) -> Iterator[Receivers]:
    """A PULL, or SUBs, all of which have subscribed."""
    with _context(receivers) as context:
        kind = zmq.PULL if receivers == 1 else zmq.SUB
        yield Receivers.of(_connect_many(context, kind, endpoint, receivers))


@contextmanager
def open_head(nodes: int, everywhere: bool) -> Iterator[Socket]:
    """A PUSH, and relays of PULL and PUSH behind it."""
    with _context(nodes + 1) as context:
        first = _bound(context, zmq.PUSH)
        with _relays(context, first.endpoint, nodes - 1, everywhere) as endpoint:
            try:
                yield evolve(first, endpoint=endpoint)
            finally:
                first.socket.close(0)


@contextmanager
def open_tail(endpoint: str, nodes: int, everywhere: bool) -> Iterator[Socket]:
    """Relays, and a PULL behind them."""
    with (
        _context(nodes + 1) as context,
        _relays(context, endpoint, nodes - 1, everywhere) as upper,
    ):
        last = _connected(context, zmq.PULL, upper)
        try:
            yield last
        finally:
            last.socket.close(0)


@contextmanager
def _relays(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, count: int, everywhere: bool
) -> Iterator[str]:
    """So many relays, each in a thread; where the last of them is bound."""
    threads: list[Thread] = []
    for _ in range(count):
        source = context.socket(zmq.PULL)
        source.connect(endpoint)
        # It waits for ever, as its own thread does.
        target = context.socket(zmq.PUSH)
        target.bind(f"{_LOOPBACK}:*")
        endpoint = target.getsockopt_string(zmq.LAST_ENDPOINT)
        threads.append(Thread(target=_relay, args=(source, target, everywhere)))
    for thread in threads:
        thread.start()
    try:
        yield endpoint
    finally:
        # Tells the relays to end, and waits until they have closed their sockets.
        context.term()


def _relay(source: zmq.Socket[bytes], target: zmq.Socket[bytes], receives: bool) -> None:
    """Pass on until the context ends: message by message, or as ZeroMQ does by itself."""
    try:
        if receives:
            recv, send = source.recv, target.send
            while True:
                send(recv())
        else:
            zmq.proxy(source, target)
    except zmq.ContextTerminated:
        pass
    finally:
        source.close(0)
        target.close(0)


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
def _context(receivers: int = 1) -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context(1 if receivers == 1 else _THREADS)
    context.set(zmq.MAX_SOCKETS, _MOST_SOCKETS)
    try:
        yield context
    finally:
        context.destroy(linger=0)


def _bound_sender(context: zmq.Context[zmq.Socket[bytes]], receivers: int) -> Socket:
    if receivers == 1:
        return _bound(context, zmq.PUSH)
    sender = evolve(_bound(context, zmq.XPUB), receivers=receivers)
    sender.socket.setsockopt(zmq.XPUB_NODROP, 1)
    # Every subscription is told, not only the first to a topic.
    sender.socket.setsockopt(zmq.XPUB_VERBOSE, 1)
    return sender


def _connect_many(
    context: zmq.Context[zmq.Socket[bytes]], kind: int, endpoint: str, count: int
) -> list[zmq.Socket[bytes]]:
    sockets = [_connected(context, kind, endpoint).socket for _ in range(count)]
    if kind == zmq.SUB:
        for sock in sockets:
            sock.setsockopt(zmq.SUBSCRIBE, b"")
    return sockets


def _bound(context: zmq.Context[zmq.Socket[bytes]], kind: int, *, patient: bool = False) -> Socket:
    sock = context.socket(kind) if patient else _impatient(context, kind)
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
