"""Who sends from where, and where datagrams for a contact go.

Its one rule: what is here saves time and may be forgotten at any time. All UDP sockets of a host
share it, because with ten thousand members nearly everything that one of them learns others know.
"""

from __future__ import annotations

from typing import TypeVar

from attrs import define, field

from opus_socket.core.addresses import Contact, Endpoint, Use
from opus_socket.errors import RemoteProtocolError

Source = tuple[str, int] | tuple[str, int, int, int]
"""An address as the system has it: host and port, with IPv6 flow and interface as well."""

MAX_KNOWN = 1 << 16

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


@define(eq=False, repr=False)
class AddressCache:
    """What the UDP sockets of a host have learned."""

    _senders: dict[tuple[Source, int], Contact] = field(factory=dict, init=False)
    _targets: tuple[dict[Contact, Source | None], ...] = field(factory=lambda: ({}, {}), init=False)

    def __len__(self) -> int:
        return len(self._senders) + sum(map(len, self._targets))

    def sender_at(self, source: Source, index: int) -> Contact:
        """Who sends from there; no logical address, no incarnation.

        Raises:
            RemoteProtocolError: nobody can.
        """
        sender = self._senders.get((source, index))
        if sender is None:
            if source[1] == 0:
                raise RemoteProtocolError("bad_source", "port 0")
            endpoint = Endpoint(source[0], source[1], Use.UDP)
            sender = Contact(None, 0, index, (endpoint,))
            _remember(self._senders, (source, index), sender)
            # An address of one link is reached by its interface, which no endpoint says.
            _remember(self._targets[len(source) > 2], sender, source)
        return sender

    def target_of(self, to: Contact, v6: bool) -> Source | None:
        """Where datagrams for a contact go; None when none of its endpoints is for such a socket.

        Args:
            to: the contact.
            v6: whether the socket is one for IPv6.
        """
        targets = self._targets[v6]
        try:
            return targets[to]
        except KeyError:
            pass
        target = None
        for endpoint in to.endpoints:
            if endpoint.use in (Use.BOTH, Use.UDP) and (":" in endpoint.host) == v6:
                target = endpoint[:2]
                break
        _remember(targets, to, target)
        return target


def _remember(table: dict[_Key, _Value], key: _Key, value: _Value) -> None:
    if len(table) >= MAX_KNOWN:
        table.clear()
    table[key] = value
