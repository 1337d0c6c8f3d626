"""The overlays that a server remembers, and whose they are.

Its one rule: while there is room everybody gets it; when there is none, whoever holds less than
its part gets it from whoever holds the most. So a host may lead hundreds of overlays of which
nobody else wants the places, and a flood of names costs those only who are behind it.

An overlay is counted for whoever made it known here. The parts are those of the hosts first: the
places, divided by the hosts that have or want some. Within a host, they are those of its ports:
there the parties behind one address share, and on a loopback interface that is all of them. Of
the largest holder's overlays the one goes that was asked about least recently. A host is an
address of IPv4, or a network of IPv6 (64 bits), in which anybody may take any address.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sized
from ipaddress import IPv6Address
from typing import TypeVar

from attrs import define, field

from opus_socket.core.addresses import Contact
from opus_socket.rendezvous.cache import Cache

_Name = TypeVar("_Name", bound=Hashable)

Key = tuple[str, bytes]
"""The overlay ID and the digest of the key attributes."""


@define(eq=False)
class _Host:
    """What one host holds: for each of its ports the overlays, in the order of their making."""

    ports: dict[int, dict[Key, Cache]] = field(factory=dict)
    size: int = 0

    def __len__(self) -> int:
        return self.size


@define(eq=False)
class OverlayTable:
    """The overlays of one server.

    Args:
        limit: how many are remembered at most.
    """

    _limit: int
    _overlays: dict[str, dict[bytes, Cache]] = field(factory=dict, init=False)
    _hosts: dict[str, _Host] = field(factory=dict, init=False)
    _makers: dict[Key, tuple[str, int]] = field(factory=dict, init=False)

    def __len__(self) -> int:
        return len(self._makers)

    def __iter__(self) -> Iterator[Cache]:
        return (cache for alike in self._overlays.values() for cache in alike.values())

    def find(self, overlay: str, digest: bytes) -> Cache | None:
        """The overlay with this ID and this digest of key attributes."""
        return self._overlays.get(overlay, {}).get(digest)

    def alike(self, overlay: str) -> Mapping[bytes, Cache]:
        """All overlays with this ID, by the digest of their key attributes."""
        return self._overlays.get(overlay, {})

    def has_room(self, maker: Contact) -> bool:
        """Whether one more may be added for this sender. If so, there is room for it now, if need
        be at the cost of whoever holds the most.
        """
        if len(self) < self._limit:
            return True
        host, port = _place(maker)
        holds = self._hosts.get(host)
        if _is_below_part(self._hosts, host, self._limit):
            holds = self._hosts[_largest(self._hosts)]
        elif holds is None or not _is_below_part(holds.ports, port, holds.size):
            return False
        of = holds.ports[_largest(holds.ports)]
        self._remove(min(of, key=lambda key: of[key].asked))
        return True

    def add(self, overlay: str, digest: bytes, cache: Cache, maker: Contact) -> None:
        """Remember an overlay for which there is room."""
        host, port = place = _place(maker)
        key = (overlay, digest)
        self._overlays.setdefault(overlay, {})[digest] = cache
        self._makers[key] = place
        holds = self._hosts.setdefault(host, _Host())
        holds.ports.setdefault(port, {})[key] = cache
        holds.size += 1

    def discard(self, gone: Callable[[Cache], bool]) -> None:
        """Forget the overlays of which this holds."""
        keys = [
            (overlay, digest)
            for overlay, alike in self._overlays.items()
            for digest, cache in alike.items()
            if gone(cache)
        ]
        for key in keys:
            self._remove(key)

    def _remove(self, key: Key) -> None:
        overlay, digest = key
        host, port = self._makers.pop(key)
        holds = self._hosts[host]
        holds.size -= 1
        del holds.ports[port][key]
        if not holds.ports[port]:
            del holds.ports[port]
        if not holds.ports:
            del self._hosts[host]
        alike = self._overlays[overlay]
        # Checks of its members that are due later find none.
        alike.pop(digest).members.clear()
        if not alike:
            del self._overlays[overlay]


def _is_below_part(holdings: Mapping[_Name, Sized], who: _Name, places: int) -> bool:
    """Whether one place more would leave somebody with its part of the places, or less. Then
    somebody else holds two more than it, at least: places do not go to and fro.
    """
    parties = len(holdings) + (who not in holdings)
    return len(holdings.get(who, ())) + 1 <= places // parties


def _largest(holdings: Mapping[_Name, Sized]) -> _Name:
    return max(holdings, key=lambda who: len(holdings[who]))


def _place(maker: Contact) -> tuple[str, int]:
    host, port, _ = maker.endpoints[0]
    return (IPv6Address(host).packed[:8].hex() if ":" in host else host), port
