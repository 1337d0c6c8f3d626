"""The server's process on real loopback sockets, IPv4 and IPv6."""

from __future__ import annotations

import errno
import socket
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from random import Random

import attrs
import pytest
import trio
from structlog.testing import capture_logs

from opus_socket.adapters.udp import bind
from opus_socket.core import datagram
from opus_socket.core.addresses import ANY_INDEX, Contact, Endpoint, LogicalAddress, Use
from opus_socket.core.contacts import ContactFinder, FinderEffects, FinderSettings, Found
from opus_socket.core.effects import Kind, Role, Transmit
from opus_socket.core.rendezvous_messages import (
    CachePing,
    Challenge,
    Purpose,
    Request,
    decode,
    encode,
)
from opus_socket.errors import ConfigurationError
from opus_socket.rendezvous import serve as serve_module
from opus_socket.rendezvous.serve import ProcessStatistics, ServerProcess, serve
from opus_socket.rendezvous.server import RendezvousServer, ServerSettings
from rendezvous.conversation import ATTRIBUTES, LAB

LOOPBACKS = ["127.0.0.1", "::1"]


def text(host: str, port: int = 0) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@asynccontextmanager
async def serving(listen: str, settings: ServerSettings | None = None) -> AsyncIterator[Endpoint]:
    """A server, and where it listens."""

    async def run(task_status: trio.TaskStatus[Endpoint]) -> None:
        await serve(listen, settings=settings, task_status=task_status)

    async with trio.open_nursery() as nursery:
        yield await nursery.start(run)
        nursery.cancel_scope.cancel()


class Member:
    """A contact finder on a real socket, driven until something happens."""

    def __init__(self, server: Endpoint, number: int) -> None:
        self.sock = bind(server.host, 0)
        endpoint = Endpoint(server.host, self.sock.getsockname()[1], Use.BOTH)
        self.contact = Contact(LogicalAddress((number, 7)), 1, number, (endpoint,))
        settings = FinderSettings(servers=(Contact(None, 0, ANY_INDEX, (server,)),))
        self.finder = ContactFinder(LAB, ATTRIBUTES, settings, Random(number))
        self.found: tuple[Contact, ...] | None = None
        self.received: list[datagram.Header] = []

    async def join(self) -> tuple[Contact, ...]:
        """What it found; it is stable at once, and known to the server on return."""
        now = trio.current_time()
        self._perform([*self.finder.begin(self.contact, now), *self.finder.find(Role.NEW, now)])
        while self.found is None:
            await self.turn()
        self._perform(self.finder.update(self.contact, (), True, trio.current_time()))
        # Confirmed when the server has noted it, so that nothing is waited for any more.
        while self.finder.next_deadline < float("inf"):
            await self.turn()
        return self.found

    async def turn(self) -> bytes:
        """Wait for one datagram; its body."""
        with trio.move_on_at(self.finder.next_deadline):
            await trio.lowlevel.wait_readable(self.sock)
            data, (host, port, *_) = self.sock.recvfrom(65_535)
            self.received.append(datagram.unpack(data))
            sender = Contact(None, 0, self.received[-1].from_index, (Endpoint(host, port),))
            body = data[datagram.HEADER_LENGTH :]
            self._perform(self.finder.receive(body, sender, trio.current_time()))
            return body
        self._perform(self.finder.wake(trio.current_time()))
        return b""

    def close(self) -> None:
        self.sock.close()

    def _perform(self, effects: FinderEffects) -> None:
        for effect in effects:
            if isinstance(effect, Found):
                self.found = effect.contacts
            else:
                assert isinstance(effect, Transmit)
                host, port, _ = effect.to.endpoints[0]
                packet = datagram.pack(
                    effect.kind, 0, LAB.tag, effect.to.index, self.contact.index, effect.body
                )
                self.sock.sendto(packet, (host, port))


@pytest.mark.parametrize("host", LOOPBACKS)
async def test_members_find_each_other_through_a_real_server(host: str) -> None:
    with trio.fail_after(10):
        async with serving(text(host)) as endpoint:
            assert endpoint.host == host
            members = [Member(endpoint, number) for number in range(2, 5)]
            assert await members[0].join() == ()
            assert await members[1].join() == (members[0].contact,)
            assert set(await members[2].join()) == {members[0].contact, members[1].contact}
            for member in members:
                for header in member.received:
                    assert header.kind == Kind.RENDEZVOUS
                    assert header.tag == LAB.tag
                    assert header.to_index == member.contact.index
                member.close()


async def test_a_real_server_asks_whether_members_are_still_there() -> None:
    quick = ServerSettings(rendezvous_period=0.01)
    with trio.fail_after(10):
        async with serving("127.0.0.1:0", quick) as endpoint:
            member = Member(endpoint, 2)
            await member.join()
            asked = decode(await member.turn(), Counter())
            assert isinstance(asked, CachePing)
            asked_again = decode(await member.turn(), Counter())
            assert isinstance(asked_again, CachePing)
            member.close()


async def test_a_name_may_be_listened_at() -> None:
    with trio.fail_after(10):
        async with serving("localhost:0") as endpoint:
            assert endpoint.host in LOOPBACKS
            assert endpoint.port > 0


async def test_the_port_is_free_again_after_the_end() -> None:
    async with serving("127.0.0.1:0") as endpoint:
        with pytest.raises(OSError, match="in use"):
            bind(endpoint.host, endpoint.port)
    bind(endpoint.host, endpoint.port).close()


async def test_the_log_says_where_it_listens_and_what_it_did() -> None:
    with capture_logs() as lines:
        async with serving("127.0.0.1:0") as endpoint:
            pass
    assert [line["event"] for line in lines] == [
        "rendezvous server listens",
        "rendezvous server stops",
    ]
    assert lines[0]["endpoint"] == str(endpoint)
    assert (lines[1]["received"], lines[1]["requests"]) == (0, 0)


def test_the_figures_stand_side_by_side() -> None:
    """A line of a log has numbers only, each by its own name."""
    server = RendezvousServer(Random(1), b"secret").statistics()
    refused = {"too_short": 2, "bad_source": 1}
    figures = ProcessStatistics(9, 8, 7, refused, 5, server).figures()
    assert all(type(value) is int for value in figures.values())
    assert list(figures) == [
        *("received", "sent", "unsent", "malformed", "malformed_bad_source", "malformed_too_short"),
        *("senders", *(attribute.name for attribute in attrs.fields(type(server)))),
    ]
    assert (figures["malformed"], figures["malformed_too_short"], figures["refused"]) == (3, 2, 0)


async def test_a_port_in_use_is_named_with_a_remedy() -> None:
    async with serving("127.0.0.1:0") as endpoint:
        with pytest.raises(ConfigurationError, match="in use; choose another port") as error:
            await serve(str(endpoint))
        assert str(endpoint) in str(error.value)


@pytest.mark.parametrize(
    ("listen", "why"),
    [
        ("nonsense", "listen = 'nonsense'"),
        ("127.0.0.1:70000", "65535"),
        ("::1", "brackets"),
        ("203.0.113.1:0", "no such address on this machine"),
        ("[2001:db8::1]:0", "no such address on this machine"),
    ],
)
async def test_where_nobody_can_listen(listen: str, why: str) -> None:
    with pytest.raises(ConfigurationError, match=why) as error:
        await serve(listen)
    assert listen in str(error.value)


async def test_a_forbidden_port_is_named_with_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    def forbid(_host: str, _port: int) -> socket.socket:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(serve_module, "bind", forbid)
    with pytest.raises(ConfigurationError, match=r"127\.0\.0\.1:80.*permission denied.*above 1023"):
        await serve("127.0.0.1:80")


async def test_an_unknown_name_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    async def know_nothing(*_args: object, **_options: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(trio.socket, "getaddrinfo", know_nothing)
    with pytest.raises(ConfigurationError, match=r"'nowhere'.*not known"):
        await serve("nowhere:8081")


class Bench:
    """A server's process without its loop, and somebody who sends to it."""

    def __init__(self) -> None:
        self.sock, self.client = bind("127.0.0.1", 0), bind("127.0.0.1", 0)
        self.process = ServerProcess(self.sock, RendezvousServer(Random(1), b"secret"))

    def send(self, data: bytes) -> None:
        self.client.sendto(data, self.sock.getsockname())


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.sock.close()
    made.client.close()


def request(index: int = 0) -> bytes:
    """A datagram that is answered by a challenge."""
    source = Contact(None, 1, index, (Endpoint("127.0.0.1", 9),))
    asked = Request(1, b"", LAB, ATTRIBUTES.digest, source, Purpose.JOIN, 0, (), b"")
    return datagram.pack(Kind.RENDEZVOUS, 0, LAB.tag, ANY_INDEX, index, encode(asked))


def test_bad_datagrams_are_counted_and_the_next_is_served(bench: Bench) -> None:
    good = request()
    for bad in (
        b"",
        b"short",
        b"\x02" + good[1:],
        good[:2] + b"\0\1" + good[4:],
        good[:1] + bytes([Kind.OVERLAY]) + good[2:],
        good[:1] + b"\xff" + good[2:],
        good[:-1],
        good + b"\0",
        good[:16] + encode(CachePing(1)),
        good + bytes(9000),
        good,
    ):
        bench.send(bad)
    bench.process.drain(0.0)
    statistics = bench.process.statistics()
    assert statistics.refused == {
        "bad_length": 3,
        "bad_version": 1,
        "unknown_seal": 1,
        "unexpected": 3,
        "malformed": 2,
    }
    assert (statistics.received, statistics.sent) == (11, 1)
    answer = bench.client.recv(9000)
    assert isinstance(decode(answer[datagram.HEADER_LENGTH :], Counter()), Challenge)
    assert len(answer) <= len(good)


def test_virtual_nodes_of_one_endpoint_are_told_apart(bench: Bench) -> None:
    for index in (1, 2):
        bench.send(request(index))
    bench.process.drain(0.0)
    answers = [bench.client.recv(9000) for _ in range(2)]
    assert [datagram.unpack(answer).to_index for answer in answers] == [1, 2]
    first, second = (decode(answer[datagram.HEADER_LENGTH :], Counter()) for answer in answers)
    assert isinstance(first, Challenge)
    assert isinstance(second, Challenge)
    assert first.cookie != second.cookie


def test_senders_are_remembered_in_bounds(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serve_module, "MAX_SENDERS", 4)
    for index in range(20):
        bench.send(request(index))
    bench.process.drain(0.0)
    assert bench.process.statistics().senders == 4
    assert bench.process.statistics().sent == 20


def test_one_drain_is_bounded(bench: Bench) -> None:
    for _ in range(serve_module.DATAGRAMS_A_TURN + 10):
        bench.send(request())
    bench.process.drain(0.0)
    assert bench.process.statistics().received == serve_module.DATAGRAMS_A_TURN
    bench.process.drain(0.0)
    assert bench.process.statistics().received == serve_module.DATAGRAMS_A_TURN + 10


def test_what_cannot_be_sent_is_counted(bench: Bench) -> None:
    class Unsendable(socket.socket):
        def sendto(self, *_args: object) -> int:
            raise OSError(errno.ENETUNREACH, "Network is unreachable")

    with Unsendable(fileno=bench.sock.detach()) as sock:
        process = ServerProcess(sock, RendezvousServer(Random(1), b"secret"))
        bench.client.sendto(request(), sock.getsockname())
        process.drain(0.0)
        assert (process.statistics().sent, process.statistics().unsent) == (0, 1)
