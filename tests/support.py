"""Overlays of real sockets in one process, for tests of what applications see.

The one rule: tests wait for what they assert, turn by turn of the host, and never for time alone.
"""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from random import Random

import trio
from attrs import define, field

from opus_socket import OverlayConfig, OverlayHost, OverlaySocket, open_host

PATIENCE = 20.0
"""Real seconds that a test waits at most, before it fails."""

TRIANGLE = ("0,0", "1000,0", "0,1000")
LINE = ("0,0", "1000,0", "2000,0")
"""Places where each member has the next ones as neighbors."""

Settings = Mapping[str, object]
"""By dotted key."""

SEPARATE: Settings = {"socket.local_handover": False, "node_adapter.socket_per_node": True}
TRANSPORTS: dict[str, Settings] = {
    "hand-over": {},
    "tcp": SEPARATE,
    "udp": {**SEPARATE, "socket_adapter.kind": "udp"},
    "tcp only": {**SEPARATE, "node_adapter.kind": "tcp"},
    "shared tcp": {"socket.local_handover": False},
    "ipv6": {**SEPARATE, "node_adapter.listen": "[::1]:0"},
}
"""Every way in which members of one process can talk."""

FAST: Settings = {"node.delaunay.heartbeat": 0.25, "node_adapter.listen": "127.0.0.1:0"}


def configure(*layers: Settings, buddy: OverlaySocket | None = None) -> OverlayConfig:
    """A configuration of these settings, the later ones over the earlier ones."""
    merged: dict[str, object] = {"overlay_id": "test", **FAST}
    for layer in layers:
        merged |= layer
    if buddy is not None:
        merged["rendezvous.buddies"] = [str(buddy.contact.endpoints[0])]
    return OverlayConfig.from_mapping(merged)


def at(place: str) -> Settings:
    """Coordinates `x,y`."""
    return {"node.delaunay.coordinates": place}


async def until(host: OverlayHost, condition: Callable[[], bool]) -> None:
    """Wait, turn by turn of the host, until something holds."""
    with trio.fail_after(PATIENCE):
        while not condition():
            await host._host.wait_turn()


@asynccontextmanager
async def overlay(
    places: Sequence[str], *layers: Settings
) -> AsyncIterator[tuple[OverlayHost, list[OverlaySocket]]]:
    """Members at these coordinates, joined one after the other, each a stable neighbor of those
    that its place prescribes.
    """
    async with open_host() as host:
        sockets: list[OverlaySocket] = []
        for number, place in enumerate(places):
            buddy = sockets[0] if sockets else None
            config = configure(*layers, at(place), buddy=buddy)
            sock = await host.open_socket(config, rng=Random(number))
            with trio.fail_after(PATIENCE):
                await sock.join()
            sockets.append(sock)
        await until(host, lambda: is_settled(sockets))
        yield host, sockets


def is_settled(sockets: Sequence[OverlaySocket]) -> bool:
    """Whether all are stable, and neighbors of each other alike."""
    tables = {sock.address: sock.neighbors for sock in sockets}
    return all(sock.stable for sock in sockets) and all(
        address in tables[neighbor] for address, table in tables.items() for neighbor in table
    )


@define(eq=False)
class Resolver(trio.abc.HostnameResolver):
    """Names without a network: `here` is at 127.0.0.1, `six` at ::1, `slow` is here once it is
    told to answer; nobody else is known.
    """

    asked: trio.Event = field(factory=trio.Event)
    answer: trio.Event = field(factory=trio.Event)

    async def getaddrinfo(  # type: ignore[override]
        self,
        host: bytes | str | None,
        port: bytes | str | int | None,
        family: int = 0,
        type: int = 0,
        proto: int = 0,
        flags: int = 0,
    ) -> Sequence[tuple[int, int, int, str, tuple[str, int]]]:
        await trio.lowlevel.checkpoint()
        assert isinstance(port, int)
        if host == b"slow.example":
            self.asked.set()
            await self.answer.wait()
        if host in (b"here.example", b"slow.example") and family == socket.AF_INET:
            return [(family, type, proto, "", ("127.0.0.1", port))]
        if host == b"six.example" and family == socket.AF_INET6:
            return [(family, type, proto, "", ("::1", port))]
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    async def getnameinfo(self, sockaddr: object, flags: int) -> tuple[str, str]:
        raise AssertionError("nobody asks for names")
