"""The connections of one endpoint: one for each other endpoint, whoever opened it.

Its one rule: of two connections that cross, the one opened by the smaller endpoint stays. The
other is retired: its opener writes out what it had queued there and then uses the one that
stays, which the other side does not read before the retired one has ended, so that no message
overtakes another.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from functools import partial

from attrs import define, field, frozen

from opus_socket.adapters.base import Route, Switchboard
from opus_socket.adapters.flow import Output
from opus_socket.adapters.poller import READ
from opus_socket.adapters.tcp import Connection
from opus_socket.core.addresses import Contact, Endpoint, Use
from opus_socket.core.dispatch import Piece

ACCEPTS_PER_WAKE = 64
MAX_CONNECTIONS = 4096
DIAL_TIMEOUT = 5.0
OPEN_TIMEOUT = 10.0
RETRY_AFTER = 0.5

Place = tuple[str, int]


@frozen
class TcpStatistics:
    """Figures of one endpoint's connections.

    Attributes:
        connections: open now.
        dialed, accepted: opened so far, from here and from elsewhere.
        failed: ended by an error or by the other end.
    """

    connections: int
    dialed: int
    accepted: int
    failed: int


@define(eq=False)
class TcpPort:
    """A listener, and the connections of its endpoint.

    Args:
        host: whom connections hand records to.
        listener: bound, listening and non-blocking; owned from now on.
        local: the endpoint that others know it by.
        lost: called with the place and the reason when a connection has failed.
    """

    host: Switchboard
    listener: socket.socket
    local: Endpoint
    lost: Callable[[Place, str], None]
    _by_place: dict[Place, Connection] = field(factory=dict, init=False)
    _connections: dict[int, Connection] = field(factory=dict, init=False)
    _held_for: dict[int, Connection] = field(factory=dict, init=False)
    _failed_at: dict[Place, float] = field(factory=dict, init=False)
    _dialed: int = 0
    _accepted: int = 0
    _failed: int = 0

    def __attrs_post_init__(self) -> None:
        self.host.poller.add(self.listener, READ, self._accept)

    def connection_to(self, contact: Contact) -> Connection | None:
        """The connection to a contact, dialed if need be; None while there is no way."""
        places = [e[:2] for e in contact.endpoints if e.use in (Use.BOTH, Use.TCP)]
        for place in places:
            connection = self._by_place.get(place)
            if connection is not None and not connection.retiring:
                return connection
        now = self.host.now()
        for endpoint in contact.endpoints:
            place = endpoint[:2]
            if place in places and now - self._failed_at.get(place, -RETRY_AFTER) >= RETRY_AFTER:
                connection = self._dial(endpoint)
                if connection is not None:
                    return connection
        return None

    @property
    def idle(self) -> bool:
        """Whether everything queued has been handed to the system."""
        return all(connection.idle for connection in self._connections.values())

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
        for connection in list(self._connections.values()):
            connection.fail("closed here")

    def statistics(self) -> TcpStatistics:
        """Figures so far."""
        return TcpStatistics(len(self._connections), self._dialed, self._accepted, self._failed)

    # What connections report

    def opened(self, connection: Connection) -> None:
        """The other end has said which endpoint it is: settle which connection stays."""
        remote = connection.remote
        if remote is None or connection.dialed or not self._claims_truly(connection, remote):
            return
        place = remote[:2]
        other = self._by_place.get(place)
        if other is None or not other.dialed:
            self._by_place[place] = connection
        elif place < self.local[:2]:
            self._by_place[place] = connection
            if other.established:
                other.retire()
            else:
                connection.adopt(other.take_back())
                other.fail("crossed")
        else:
            other.held = True
            self._held_for[id(connection)] = other

    def closed(self, connection: Connection, reason: str) -> None:
        """It ended."""
        self._connections.pop(id(connection), None)
        held = self._held_for.pop(id(connection), None)
        if held is not None:
            held.let_read()
        if connection.remote is None:
            return
        place = connection.remote[:2]
        if self._by_place.get(place) is connection:
            del self._by_place[place]
            self._failed += 1
            if not connection.established:
                self._note_failure(place)
            self.lost(place, reason)

    # Opening

    def _dial(self, endpoint: Endpoint) -> Connection | None:
        place = endpoint[:2]
        family = socket.AF_INET6 if ":" in endpoint.host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setblocking(False)
        try:
            sock.connect(place)
            established = True
        except BlockingIOError:
            established = False
        except OSError as error:
            sock.close()
            self._note_failure(place)
            self.lost(place, str(error))
            return None
        self._dialed += 1
        connection = Connection(
            self.host, self, sock, self.local, endpoint, dialed=True, established=established
        )
        self._connections[id(connection)] = self._by_place[place] = connection
        self.host.call_at(self.host.now() + DIAL_TIMEOUT, partial(_end_unless_up, connection))
        return connection

    def _accept(self, _mask: int) -> None:
        for _ in range(ACCEPTS_PER_WAKE):
            if self.listener.fileno() < 0:
                return
            try:
                sock, _source = self.listener.accept()
            except BlockingIOError:
                return
            except OSError:
                # Out of descriptors, most likely: leave them waiting and look again later.
                self.host.refuse("unaccepted")
                self.host.poller.change(self.listener, 0, self._accept)
                self.host.call_at(self.host.now() + RETRY_AFTER, self._listen_again)
                return
            if len(self._connections) >= MAX_CONNECTIONS:
                self.host.refuse("too_many_connections")
                sock.close()
                continue
            self._accepted += 1
            connection = Connection(
                self.host, self, sock, self.local, None, dialed=False, established=True
            )
            self._connections[id(connection)] = connection
            self.host.call_at(
                self.host.now() + OPEN_TIMEOUT, partial(_end_unless_introduced, connection)
            )

    def _listen_again(self) -> None:
        if self.listener.fileno() >= 0:
            self.host.poller.change(self.listener, READ, self._accept)

    def _stop_listening(self) -> None:
        if self.listener.fileno() >= 0:
            self.host.poller.remove(self.listener)
            self.listener.close()

    def _claims_truly(self, connection: Connection, remote: Endpoint) -> bool:
        """Whether the endpoint that was claimed has the address that the bytes come from."""
        try:
            source: str = connection.sock.getpeername()[0]
        except OSError:
            return False
        return source.partition("%")[0] == remote.host

    def _note_failure(self, place: Place) -> None:
        if len(self._failed_at) >= MAX_CONNECTIONS:
            self._failed_at.clear()
        self._failed_at[place] = self.host.now()


@define(eq=False)
class TcpLink:
    """Overlay messages to one neighbor over the connection of its endpoint."""

    host: Switchboard
    port: TcpPort
    contact: Contact
    route: Route
    output: Output
    _connection: Connection | None = None

    def push(self, pieces: Sequence[Piece], size: int, frames: int) -> None:
        """Queue whole frames, or drop and count them."""
        connection = self._connection
        if connection is None or connection.retiring or not connection.open:
            self._connection = connection = self.port.connection_to(self.contact)
        if connection is None:
            self.output.lose(frames, "unreachable")
        elif self.output.admit(size, frames, self.host.now()):
            connection.send_frames(self.route, pieces, size, self.output, frames)

    def evict(self) -> None:
        """Give up on a neighbor that takes nothing."""
        if self._connection is not None:
            self._connection.fail("evicted: it took no byte for too long")

    def close(self) -> None:
        """The connection stays for whoever else uses it."""
        self._connection = None


def listen(host: str, port: int) -> socket.socket:
    """A listening, non-blocking TCP socket.

    Raises:
        OSError: as the system says it.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind((host, port))
        sock.listen(1024)
    except BaseException:
        sock.close()
        raise
    return sock


def _end_unless_up(connection: Connection) -> None:
    if connection.open and not connection.established:
        connection.fail("no answer")


def _end_unless_introduced(connection: Connection) -> None:
    if connection.open and not connection.introduced:
        connection.fail("said nothing")
