"""Datagrams: what may come is handed over, whatever else comes is counted."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from board import ROUTE, TAG, Board, contact, frame, turn_until
from opus_socket.adapters import address_cache, udp
from opus_socket.adapters.base import EVERY_INDEX, Route, split_frames
from opus_socket.adapters.flow import Overflow
from opus_socket.adapters.udp import UdpLink, UdpPort, bind, join_group, send_to_group_from
from opus_socket.core import datagram
from opus_socket.core.addresses import Contact, Endpoint, Use
from opus_socket.core.effects import Kind
from opus_socket.core.wire import MAX_BODY

Boards = Callable[[], Board]


class Port:
    """A board with a UDP port, and how others reach it."""

    def __init__(self, board: Board, host: str = "127.0.0.1") -> None:
        self.board = board
        self.udp = UdpPort(board, bind(host, 0))
        self.endpoint = Endpoint(host, self.udp.sock.getsockname()[1], Use.UDP)

    def link(self, to: Port, maximum: int = 8192) -> UdpLink:
        return UdpLink(self.udp, contact(to.endpoint), ROUTE, self.board.output(), maximum)


class Ports:
    """Ports that are closed when their test ends."""

    def __init__(self, make_board: Boards) -> None:
        self.make_board = make_board
        self.made: list[Port] = []

    def __call__(self, host: str = "127.0.0.1") -> Port:
        self.made.append(Port(self.make_board(), host))
        return self.made[-1]

    def close(self) -> None:
        for port in self.made:
            port.udp.close()


@pytest.fixture
def make_port(make_board: Boards) -> Iterator[Ports]:
    ports = Ports(make_board)
    yield ports
    ports.close()


def raw(to: Port, *datagrams: bytes) -> tuple[str, int]:
    """Send datagrams from a socket of somebody who may break every rule; where that was."""
    family = socket.AF_INET6 if ":" in to.endpoint.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.bind((to.endpoint.host, 0))
        for data in datagrams:
            sock.sendto(data, to.endpoint[:2])
        host, port = sock.getsockname()[:2]
    return host, port


def packed(kind: int, body: bytes, version: int = 1, seal: int = 0) -> bytes:
    return datagram.HEADER.pack(version, kind, seal, *ROUTE) + body


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_messages_of_every_kind_arrive(make_port: Ports, host: str) -> None:
    a, b = make_port(host), make_port(host)
    kinds = [Kind.PROTOCOL, Kind.RENDEZVOUS, Kind.MEASUREMENT]
    for kind in kinds:
        assert a.udp.send(contact(b.endpoint), ROUTE, kind, kind.name.encode())
    turn_until(lambda: len(b.board.messages) == 3, b.board)
    sender = Contact(None, 0, ROUTE.from_index, (a.endpoint,))
    assert b.board.messages == [(ROUTE, kind, kind.name.encode(), sender) for kind in kinds]
    assert (a.udp.statistics().sent, b.udp.statistics().received) == (3, 3)
    assert a.udp.statistics().sent_bytes == b.udp.statistics().received_bytes


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "bad_length"),
        (packed(Kind.PROTOCOL, b"")[:-1], "bad_length"),
        (packed(Kind.PROTOCOL, b"x" * (MAX_BODY + 1)), "bad_length"),
        (packed(Kind.RENDEZVOUS, b"x" * 60_000), "bad_length"),
        (packed(Kind.PROTOCOL, b"", version=2), "bad_version"),
        (packed(Kind.OVERLAY, frame(b"x"), version=0), "bad_version"),
        (packed(Kind.PROTOCOL, b"x", seal=1), "sealed"),
        (packed(Kind.OPEN, b""), "unknown_kind"),
        (packed(Kind.SELECT, b"x" * 12), "unknown_kind"),
        (packed(200, b""), "unknown_kind"),
        (packed(Kind.OVERLAY, b"\xf0" * 40), "version"),
        (packed(Kind.OVERLAY, frame(b"x")[:-1]), "partial_frame"),
        (packed(Kind.OVERLAY, b"\0" * 7), "partial_frame"),
        (packed(Kind.OVERLAY, frame(b"x") + b"\0"), "partial_frame"),
    ],
)
def test_malformed_datagrams_are_counted_and_dropped(
    data: bytes, kind: str, make_port: Ports
) -> None:
    port = make_port()
    raw(port, data, packed(Kind.PROTOCOL, b"good"))
    turn_until(lambda: bool(port.board.messages), port.board)
    assert port.board.refused == {kind: 1}
    assert [body for _, _, body, _ in port.board.messages] == [b"good"]


def test_frames_before_a_broken_one_are_handed_over(make_port: Ports) -> None:
    port = make_port()
    raw(port, packed(Kind.OVERLAY, frame(b"good") + b"\xf0" * 40))
    turn_until(lambda: bool(port.board.refused), port.board)
    assert port.board.payloads == [b"good"]


@given(st.lists(st.binary(max_size=100), max_size=10), st.integers(0, 5))
def test_garbage_is_never_raised(bodies: list[bytes], kind: int) -> None:
    board = Board()
    port = Port(board)
    raw(port, *bodies, *[packed(kind, body) for body in bodies], packed(Kind.PROTOCOL, b"end"))
    turn_until(
        lambda: bool(board.messages) and board.messages[-1][2] == b"end" and not board.turn(), board
    )
    port.udp.close()
    board.close()
    assert port.udp.statistics().received == 2 * len(bodies) + 1


def test_several_overlay_messages_share_a_datagram(make_port: Ports) -> None:
    a, b = make_port(), make_port()
    way = a.link(b, maximum=1000)
    frames = [frame(bytes((n,)) * size, n) for n, size in enumerate([0, 10, 400, 400, 400, 950, 1])]
    way.push(frames, sum(map(len, frames)), len(frames))
    turn_until(lambda: len(b.board.frames_in) == len(frames), b.board)
    assert [data for _, data, _ in b.board.frames_in] == frames
    assert b.board.frames_in[0][0] == ROUTE
    assert a.udp.statistics().sent == 4
    assert (way.output.taken, way.output.dropped) == (len(frames), 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_longest_overlay_message_arrives(make_port: Ports, host: str) -> None:
    """A frame may be longer than the body of any other datagram."""
    a, b = make_port(host), make_port(host)
    empty = len(frame(b""))
    for size in (MAX_BODY, MAX_BODY + 1, 8192, 60_000, 65_491):
        data = frame(b"x" * (size - empty))
        a.link(b, maximum=65_491).push([data], len(data), 1)
    turn_until(lambda: len(b.board.frames_in) == 5, b.board)
    assert b.board.refused == {}
    assert max(len(data) for _, data, _ in b.board.frames_in) == 65_491


@given(st.lists(st.integers(0, 300), min_size=1, max_size=30), st.integers(1, 1000))
def test_frames_are_split_into_parts_as_full_as_they_may_be(sizes: list[int], maximum: int) -> None:
    frames = [frame(b"x" * size, index) for index, size in enumerate(sizes)]
    parts = [(bytes(part), n) for part, n in split_frames(memoryview(b"".join(frames)), maximum)]
    assert b"".join(part for part, _ in parts) == b"".join(frames)
    index = 0
    for part, count in parts:
        assert part == b"".join(frames[index : index + count])
        assert len(part) <= maximum or count == 1
        index += count
        if index < len(frames):
            assert len(part) + len(frames[index]) > maximum
    assert index == len(frames)


def test_what_the_system_does_not_take_is_counted_as_lost(make_port: Ports) -> None:
    a, b = make_port(), make_port()
    way = a.link(b, maximum=100_000)
    data, large = frame(b"x" * 40_000), frame(b"y" * 65_000)
    way.push([data, data, large], 2 * len(data) + len(large), 3)
    assert a.udp.statistics().unsent == 1
    assert (way.output.taken, way.output.dropped, way.output.reason) == (1, 2, "unsent")
    assert a.udp.send(contact(b.endpoint), ROUTE, Kind.PROTOCOL, b"x" * 65_500)
    assert a.udp.statistics().unsent == 2


def test_an_endpoint_of_another_family_or_use_is_no_way(make_port: Ports) -> None:
    port = make_port()
    nowhere = contact(Endpoint("::1", 9), Endpoint("127.0.0.1", 9, Use.TCP))
    assert not port.udp.send(nowhere, ROUTE, Kind.PROTOCOL, b"x")
    way = UdpLink(port.udp, nowhere, ROUTE, port.board.output(), 8192)
    way.push([frame(b"x")], len(frame(b"x")), 1)
    assert (way.output.dropped, way.output.reason) == (1, "unreachable")
    third = contact(*nowhere.endpoints, Endpoint("127.0.0.1", 9))
    assert port.udp.target_of(third) == ("127.0.0.1", 9)


def test_datagrams_cannot_wait_for_a_closed_gate(make_port: Ports) -> None:
    """Whoever takes a datagram is told that nobody waits, and drops what is too much."""
    port = make_port()
    gate = port.board.output(1, overflow=Overflow.BLOCK)
    gate.admit(1, 1, 0.0)
    port.board.blockers.append(gate)
    raw(port, *[packed(Kind.OVERLAY, frame(b"x", n)) for n in range(50)])
    turn_until(lambda: len(port.board.frames_in) == 50, port.board)


def test_a_wake_up_is_bounded(make_port: Ports) -> None:
    """A flood does not keep the loop from everything else."""
    port = make_port()
    raw(port, *[packed(Kind.PROTOCOL, b"x")] * (2 * udp.DATAGRAMS_PER_WAKE + 1))
    port.board.turn()
    assert len(port.board.messages) == udp.DATAGRAMS_PER_WAKE


class SlowBoard(Board):
    """Members that take half a millisecond for each message."""

    def message(self, route: Route, kind: Kind, body: bytes, sender: Contact) -> None:
        super().message(route, kind, body, sender)
        self.clock += 0.0005


def test_a_wake_up_ends_when_its_time_is_over() -> None:
    """Members that are slow leave the loop its turns; the rest is there at the next."""
    port = Port(SlowBoard())
    raw(port, *[packed(Kind.PROTOCOL, bytes((n,))) for n in range(100)])
    turns = 0
    while len(port.board.messages) < 100:
        assert port.board.turn()
        turns += 1
        taken = len(port.board.messages)
        assert taken <= turns * 16
    assert [body[0] for _, _, body, _ in port.board.messages] == list(range(100))
    port.udp.close()
    port.board.close()


class BrokenSocket:
    """A socket on which the first receive fails."""

    def __init__(self, real: socket.socket) -> None:
        self.real = real
        self.family = real.family
        self.failed = False

    def recvfrom(self, size: int) -> tuple[bytes, object]:
        if not self.failed:
            self.failed = True
            raise ConnectionRefusedError(errno.ECONNREFUSED, "an earlier datagram found nobody")
        return self.real.recvfrom(size)

    def fileno(self) -> int:
        return self.real.fileno()

    def close(self) -> None:
        self.real.close()


def test_the_error_of_an_earlier_datagram_is_passed_over(board: Board) -> None:
    real = bind("127.0.0.1", 0)
    broken = BrokenSocket(real)
    port = UdpPort(board, broken)  # type: ignore[arg-type]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.sendto(packed(Kind.PROTOCOL, b"x"), real.getsockname())
    turn_until(lambda: bool(board.messages), board)
    assert broken.failed
    port.close()


def test_a_flood_of_senders_is_bounded(make_port: Ports, monkeypatch: pytest.MonkeyPatch) -> None:
    """Senders and targets are remembered for speed only, and no more of them than fit."""
    monkeypatch.setattr(address_cache, "MAX_KNOWN", 100)
    port = make_port()
    for index in range(1000):
        data = datagram.HEADER.pack(1, Kind.PROTOCOL, 0, TAG, 1, index)
        raw(port, data)
        port.board.turn()
        port.udp.send(contact(port.endpoint, index=index), ROUTE, Kind.PROTOCOL, b"")
    assert len(port.board.address_cache) <= 200


def interface_of_groups() -> str:
    """An interface that carries IPv6 groups of this machine; the loopback seldom does."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        for index, name in socket.if_nameindex():
            try:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
                probe.connect(("ff11::7777", 9))
            except OSError:
                continue
            return name
    return ""


GROUPS = {"127.0.0.1": ("239.255.77.77", "127.0.0.1")}
if interface_of_groups():
    # Of all groups only these never leave the machine.
    GROUPS["::"] = ("ff11::7777", interface_of_groups())


@pytest.mark.parametrize("host", GROUPS)
def test_the_group_hears_what_is_sent_to_it(make_port: Ports, board: Board, host: str) -> None:
    """Every listener of this machine hears it, the sender's own included, and can answer."""
    group, interface = GROUPS[host]
    sender = make_port(host)
    send_to_group_from(sender.udp.sock, interface)
    number = sender.endpoint.port
    listeners = [
        UdpPort(each, join_group(group, number, interface), group=True)
        for each in (board, sender.board)
    ]
    sender.udp.send_to((group, number), Route(TAG, 5, 6), Kind.RENDEZVOUS, b"who is there?")
    turn_until(lambda: bool(board.messages) and bool(sender.board.messages), board, sender.board)
    for each in (board, sender.board):
        ((route, kind, body, source),) = each.messages
        assert (route, kind) == (Route(TAG, EVERY_INDEX, 6), Kind.RENDEZVOUS)
        assert body == b"who is there?"
        assert (source.index, source.endpoints[0].port) == (6, number)
    (_, _, _, asker) = board.messages[0]
    answering = make_port(host)
    target = listeners[0].target_of(asker)
    assert target is not None
    answering.udp.send_to(target, ROUTE, Kind.RENDEZVOUS, b"I am")
    turn_until(lambda: len(sender.board.messages) == 2, sender.board)
    assert sender.board.messages[1][2] == b"I am"
    for listener in listeners:
        listener.close()


def test_a_group_that_no_interface_carries_is_counted(make_port: Ports) -> None:
    """Announcements that cannot leave are lost, as on any wire."""
    port = make_port()
    assert not port.udp.send_to(("ff15::1", 9), ROUTE, Kind.RENDEZVOUS, b"x")
    assert port.udp.statistics().unsent == 1


@pytest.mark.parametrize("group", ["127.0.0.1", "10.0.0.1"])
def test_what_is_no_group_cannot_be_joined(group: str) -> None:
    with pytest.raises(OSError, match=r".+"):
        join_group(group, 0, "127.0.0.1")
