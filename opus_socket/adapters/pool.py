"""The connections of one endpoint: one for each other endpoint, whoever opened it.

Its one rule: of two connections that cross, the one opened by the smaller endpoint stays. The
larger endpoint retires its own: it writes out what it had queued there and ends it, and writes
data on the one that stays when the other end has read all of that, so that no message overtakes
another. A connection that is not yet established gives way to one that brings an introduction; one
that has been answered, or is older than a few seconds, cannot have crossed another and stays.

A contact's endpoints are dialed in order, a little apart, until one of them answers. What was
queued meanwhile goes where it answers.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress

from attrs import define, field, frozen

from opus_socket.adapters.base import Lane, Switchboard, closed_on_failure
from opus_socket.adapters.capacity import Capacity, descriptor_share
from opus_socket.adapters.flow import FlowSettings, Output, attended_by_nobody
from opus_socket.adapters.poller import READ
from opus_socket.adapters.tcp import Connection, tune
from opus_socket.core.addresses import Contact, Endpoint, Use
from opus_socket.core.dispatch import Piece

ACCEPTS_PER_WAKE = 64
_MAX_FAILURES = 4096

Place = tuple[str, int]


@frozen
class PoolSettings:
    """How patient the connections of an endpoint are. Times are in seconds.

    Attributes:
        connections: how many there may be, or half as many as the process may have descriptors;
            when they are as many, new ones take the place of useless ones or are closed at once.
        useless_after: so long after its last message a connection may have to make room.
        dial_apart: after so long without an answer the contact's next endpoint is dialed, too.
        dial_timeout: after so long an endpoint that does not answer is given up.
        open_timeout: after so long a connection that says nothing is closed.
        kept: bytes that all of them together may keep for lanes that are paused.
        retry_after: how long an endpoint that failed is not dialed; doubles with each failure.
        longest_retry: where the doubling ends.
    """

    connections: int = 4096
    useless_after: float = 10.0
    dial_apart: float = 0.25
    dial_timeout: float = 5.0
    open_timeout: float = 10.0
    kept: int = 1 << 26
    retry_after: float = 0.5
    longest_retry: float = 4.0


@frozen
class TcpStatistics:
    """Figures of one endpoint's connections.

    Attributes:
        connections: open now.
        dialed, accepted: opened so far, from here and from elsewhere.
        failed: ended by an error or by the other end.
        kept: bytes that were read for lanes that are paused.
    """

    connections: int
    dialed: int
    accepted: int
    failed: int
    kept: int


@define(eq=False)
class _Dial:
    """One attempt to reach a contact.

    Attributes:
        left: its endpoints that were not tried yet.
        racing: connections that are not established yet, the one that holds the queue first.
        failed: endpoints that did not answer, and why.
        next_at: when the next endpoint is tried, too.
    """

    left: deque[Endpoint]
    racing: list[Connection] = field(factory=list)
    failed: list[tuple[Place, str]] = field(factory=list)
    next_at: float = 0.0


@define(eq=False, repr=False)
class TcpPort:
    """A listener, and the connections of its endpoint.

    Args:
        host: whom connections hand records to.
        listener: bound, listening and non-blocking; owned from now on.
        local: the endpoint that others know it by.
        lost: called when an endpoint cannot be reached (any more), with `local`, the place that
            is lost, and the reason.
        settings: limits.
    """

    host: Switchboard
    listener: socket.socket
    local: Endpoint
    lost: Callable[[Endpoint, Place, str], None]
    settings: PoolSettings = field(factory=PoolSettings)
    _by_place: dict[Place, Connection] = field(factory=dict, init=False)
    _connections: dict[int, Connection] = field(factory=dict, init=False)
    _dials: dict[int, _Dial] = field(factory=dict, init=False)
    _held: dict[int, Connection] = field(factory=dict, init=False)
    _failures: dict[Place, tuple[float, float]] = field(factory=dict, init=False)
    _kept: Output = field(init=False)
    _capacity: Capacity = field(init=False)
    _finished: bool = field(default=False, init=False)
    _ticking: bool = field(default=False, init=False)
    _dialed: int = field(default=0, init=False)
    _accepted: int = field(default=0, init=False)
    _failed: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self._kept = Output(None, FlowSettings(self.settings.kept), attended_by_nobody)
        limit = min(self.settings.connections, descriptor_share())
        self._capacity = Capacity(self.host, limit, self.settings.useless_after)
        self.host.poller.add(self.listener, READ, self._accept)

    def connection_to(self, contact: Contact) -> Connection | None:
        """The connection to a contact, dialed if need be; None while there is no way."""
        endpoints = [each for each in contact.endpoints if each.use in (Use.BOTH, Use.TCP)]
        for endpoint in endpoints:
            connection = self._by_place.get(endpoint[:2])
            if connection is not None and not connection.retiring:
                return connection
        if self._finished:
            return None
        now = self.host.now()
        dial = _Dial(deque(each for each in endpoints if self._may_dial(each[:2], now)))
        connection = self._dial_next(dial)
        if connection is None:
            self._report(dial)
        return connection

    @property
    def quiet(self) -> bool:
        """Whether no connection is left."""
        return not self._connections

    def finish(self) -> None:
        """Take no more connections and end each one when its queue is written."""
        self._stop_listening()
        for connection in list(self._connections.values()):
            connection.retire()
        self.host.flush()

    def close(self) -> None:
        """End everything at once."""
        self._stop_listening()
        for dial in self._dials.values():
            dial.left.clear()
        for connection in list(self._connections.values()):
            connection.fail("closed here")

    def statistics(self) -> TcpStatistics:
        """Figures so far."""
        return TcpStatistics(
            len(self._connections), self._dialed, self._accepted, self._failed, self._kept.queued
        )

    # What connections report

    def established(self, connection: Connection) -> None:
        """An endpoint answered: the others of its contact are not needed."""
        dial = self._dials.get(id(connection))
        if dial is not None:
            self._settle(dial, connection)
        if connection.place is not None:
            self._failures.pop(connection.place, None)

    def opened(self, connection: Connection) -> None:
        """The other end has said which endpoint it is: settle which connection stays."""
        remote = connection.remote
        if remote is None or connection.place is not None or not _comes_from(connection, remote):
            # A false claim, or a machine of several addresses: good for reading only.
            return
        place = connection.place = remote[:2]
        other = self._by_place.get(place)
        if other is None or not other.dialed:
            self._by_place[place] = connection
        elif not other.established:
            self._settle(self._dials[id(other)], connection)
            self._by_place[place] = connection
        elif place < self.local[:2] and self._may_cross(other, connection):
            self._by_place[place] = self._held[id(other)] = connection
            connection.hold()
            other.retire()

    def _may_cross(self, other: Connection, connection: Connection) -> bool:
        """Whether the other end may have dialed before it knew of the connection that was opened
        from here. Else that stays: whoever answers there is who was dialed, not who says so.
        """
        apart = connection.since - other.since
        return other.received == 0 and apart < self.settings.dial_timeout

    def heir(self, connection: Connection, reason: str) -> Connection | None:
        """Who sends what a failed connection had not begun to write."""
        self._forget(connection)
        dial = self._dials.get(id(connection))
        if dial is None or connection.place is None:
            return None
        self._note_failure(connection.place)
        dial.failed.append((connection.place, reason))
        dial.racing.remove(connection)
        heir = dial.racing[0] if dial.racing else self._dial_next(dial)
        if heir is not None:
            del self._dials[id(connection)]
        return heir

    def closed(self, connection: Connection, reason: str) -> None:
        """It ended."""
        held = self._held.pop(id(connection), None)
        if held is not None:
            held.let_write()
        dial = self._dials.pop(id(connection), None)
        if dial is not None:
            self._failed += 1
            self._report(dial)
        elif connection.established and connection.place is not None and not connection.retiring:
            self._failed += 1
            if connection.place not in self._by_place:
                self._tell_lost(connection.place, reason)

    def _forget(self, connection: Connection) -> None:
        """It carries nothing any more; another one to the same place may take its part."""
        self._connections.pop(id(connection), None)
        place = connection.place
        if place is None or self._by_place.get(place) is not connection:
            return
        del self._by_place[place]
        if not self._finished:
            for other in self._connections.values():
                if other.place == place and not other.retiring:
                    self._by_place[place] = other

    def _settle(self, dial: _Dial, winner: Connection) -> None:
        """Let every other connection of a dial give way to one that carries its queue."""
        for other in dial.racing:
            del self._dials[id(other)]
            if other is not winner:
                self._forget(other)
                other.abort()
                winner.adopt(other.take_back())

    def _report(self, dial: _Dial) -> None:
        for place, reason in dial.failed:
            self._tell_lost(place, reason)

    def _tell_lost(self, place: Place, reason: str) -> None:
        if not self._finished:
            self.lost(self.local, place, reason)

    # Opening

    def _dial_next(self, dial: _Dial) -> Connection | None:
        """Dial the next of its endpoints that can be dialed."""
        while dial.left:
            endpoint = dial.left.popleft()
            try:
                sock = _connect(endpoint)
            except OSError as error:
                self._note_failure(endpoint[:2])
                dial.failed.append((endpoint[:2], str(error)))
                continue
            self._dialed += 1
            now = self.host.now()
            connection = Connection(
                self.host,
                self,
                sock,
                self.local,
                dialed=True,
                since=now,
                endpoint_kept=self._kept,
                remote=endpoint,
            )
            self._connections[id(connection)] = self._by_place[endpoint[:2]] = connection
            self._dials[id(connection)] = dial
            dial.racing.append(connection)
            dial.next_at = now + self.settings.dial_apart
            if self._finished:
                connection.retire()
            self._keep_watch()
            return connection
        return None

    def _accept(self, _mask: int) -> None:
        for _ in range(ACCEPTS_PER_WAKE):
            if self.listener.fileno() < 0:
                return
            try:
                with closed_on_failure(self.listener.accept()[0]) as sock:
                    tune(sock)
            except BlockingIOError:
                return
            except ConnectionError:
                continue
            except OSError:
                # Out of descriptors, most likely.
                self.host.refuse("unaccepted")
                if not self._capacity.make_room(self._connections.values()):
                    self._listen_later()
                return
            if not self._has_room():
                self.host.refuse("too_many_connections")
                sock.close()
                continue
            self._accepted += 1
            connection = Connection(
                self.host,
                self,
                sock,
                self.local,
                dialed=False,
                since=self.host.now(),
                endpoint_kept=self._kept,
            )
            self._connections[id(connection)] = connection
            self._keep_watch()

    def _has_room(self) -> bool:
        if len(self._connections) < self._capacity.limit:
            return True
        self._capacity.make_room(self._connections.values())
        return len(self._connections) < self._capacity.limit and not self._finished

    def _listen_later(self) -> None:
        """Leave those waiting who connect, and look at them again in a while."""
        self.host.poller.change(self.listener, 0, self._accept)
        self.host.call_at(self.host.now() + self.settings.retry_after, self._listen_again)

    def _listen_again(self) -> None:
        if self.listener.fileno() >= 0:
            self.host.poller.change(self.listener, READ, self._accept)

    def _stop_listening(self) -> None:
        self._finished = True
        if self.listener.fileno() >= 0:
            self.host.poller.remove(self.listener)
            self.listener.close()

    def _keep_watch(self) -> None:
        """Look after connections that are not settled yet from time to time."""
        if not self._ticking:
            self._ticking = True
            self.host.call_at(self.host.now() + self.settings.dial_apart, self._tick)

    def _tick(self) -> None:
        self._ticking = False
        now = self.host.now()
        for connection in list(self._connections.values()):
            age = now - connection.since
            if not connection.established and age >= self.settings.dial_timeout:
                connection.fail("no answer")
            elif connection.remote is None and age >= self.settings.open_timeout:
                connection.fail("said nothing")
            elif not connection.established or connection.remote is None:
                self._keep_watch()
        for dial in list(self._dials.values()):
            if dial.left and now >= dial.next_at:
                self._dial_next(dial)

    def _may_dial(self, place: Place, now: float) -> bool:
        failure = self._failures.get(place)
        return failure is None or now >= failure[0]

    def _note_failure(self, place: Place) -> None:
        if len(self._failures) >= _MAX_FAILURES:
            self._failures.clear()
        _, before = self._failures.get(place, (0.0, 0.0))
        wait = min(2 * before or self.settings.retry_after, self.settings.longest_retry)
        self._failures[place] = (self.host.now() + wait, wait)


@define(eq=False, repr=False)
class TcpLink:
    """Overlay messages to one neighbor in one class, over the connection of its endpoint."""

    host: Switchboard
    port: TcpPort
    contact: Contact
    lane: Lane
    output: Output
    _connection: Connection | None = None

    def push(self, pieces: Sequence[Piece], size: int, frames: int) -> None:
        """Queue whole frames, or drop and count them."""
        connection = self._connection
        if connection is None or connection.retiring or not connection.open:
            self._connection = connection = self.port.connection_to(self.contact)
        if connection is None:
            self.output.lose(frames, size, "unreachable")
        elif self.output.admit(size, frames, self.host.now()):
            connection.send_frames(self.lane, pieces, size, self.output, frames)

    def hand_on(self, pieces: Sequence[Piece], size: int, frames: int) -> None:
        """Queue whole frames that the output has admitted."""
        connection = self._connection
        if connection is None or connection.retiring or not connection.open:
            self._connection = connection = self.port.connection_to(self.contact)
        if connection is None:
            self.output.release(size, self.host.now())
            self.output.lose(frames, size, "unreachable")
        else:
            connection.send_frames(self.lane, pieces, size, self.output, frames)

    def evict(self) -> None:
        """Give up on a neighbor that takes nothing."""
        if self._connection is not None:
            self._connection.evict(self.lane)

    def close(self) -> None:
        """The connection stays for whoever else uses it."""
        self._connection = None


def listen(host: str, port: int) -> socket.socket:
    """A listening, non-blocking TCP socket.

    Raises:
        OSError: as the system says it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with closed_on_failure(socket.socket(family, socket.SOCK_STREAM)) as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(1024)
        return sock


def _connect(endpoint: Endpoint) -> socket.socket:
    """A socket that connects to an endpoint, and will be writable when it has.

    Raises:
        OSError: as the system says it.
    """
    family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
    with closed_on_failure(socket.socket(family, socket.SOCK_STREAM)) as sock:
        tune(sock)
        with suppress(BlockingIOError):
            sock.connect(endpoint[:2])
        return sock


def _comes_from(connection: Connection, remote: Endpoint) -> bool:
    """Whether the endpoint that was claimed has the address that the bytes come from."""
    try:
        source: str = connection.sock.getpeername()[0]
    except OSError:
        return False
    return source.partition("%")[0] == remote.host
