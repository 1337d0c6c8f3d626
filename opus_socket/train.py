"""Messages that an application sends one by one, framed together.

Its one rule: a lone message goes at once, and no timer delays any. Whoever sends a second one
before the loop has taken another turn may send many more: these are gathered, and all of them are
framed and written like a batch at the loop's next turn, or as soon as they are long enough. So
sending one by one costs little more than sending a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from attrs import define, field

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.node import Mode
from opus_socket.loop import Loop

LONGEST_TRAIN = 1 << 17
"""Bytes that it is worth while to gather."""

_HEADER = 64
"""About what a message has besides its payload."""

Depart = Callable[[Sequence[bytes], Mode, LogicalAddress | None, int], bool]
"""Called with payloads, mode, destination and traffic class: hands messages to the engine, and says
whether there is room for more."""


@define(eq=False, repr=False)
class Train:
    """The messages of one socket that wait for the loop's next turn; all of one mode, destination
    and traffic class.

    Args:
        loop: whose turns count.
        depart: takes the messages.
        limit: bytes at which a train leaves without waiting for the loop.
    """

    loop: Loop
    depart: Depart
    limit: int
    _payloads: list[bytes] = field(factory=list, init=False)
    _size: int = field(default=0, init=False)
    _longest: int = field(default=0, init=False)
    _mode: Mode = field(default=Mode.MULTICAST, init=False)
    _key: LogicalAddress | None = field(default=None, init=False)
    _class: int = field(default=0, init=False)
    _last_alone: int = field(default=-1, init=False)
    _busy: bool = field(default=False, init=False)
    _listed: bool = field(default=False, init=False)

    def add(
        self, payload: object, mode: Mode, key: LogicalAddress | None, traffic_class: int
    ) -> bool:
        """Let a message join those that wait. False if none wait, or it is of another kind or
        does not fit: then whether it may be sent at all has to be looked at first.
        """
        payloads = self._payloads
        if (
            not payloads
            or type(payload) is not bytes
            or mode is not self._mode
            or key != self._key
            or traffic_class != self._class
        ):
            return False
        size = self._size + len(payload) + _HEADER
        if size > self.limit or len(payload) > self._longest:
            return False
        self._size = size
        payloads.append(payload)
        return True

    def send(
        self,
        payload: bytes,
        mode: Mode,
        key: LogicalAddress | None,
        traffic_class: int,
        longest: Callable[[], int],
    ) -> None:
        """Send a message that may be sent, alone or as the first one of a train.

        Args:
            payload: of the message.
            mode, key, traffic_class: how it is sent.
            longest: says how many bytes the longest payload may have that joins it.
        """
        room = not self._payloads or self.leave()
        turn, size = self.loop.turns, len(payload) + _HEADER
        if room and (self._busy or self._last_alone == turn) and size <= self.limit:
            self._longest = longest()
            if len(payload) <= self._longest:
                self._payloads, self._size = [payload], size
                self._mode, self._key, self._class = mode, key, traffic_class
                if not self._listed:
                    self._listed = True
                    self.loop.flush_later(self)
                    self.loop.wake()
                return
        self._last_alone = turn
        self.depart((payload,), mode, key, traffic_class)
        self.loop.flush()

    def flush(self) -> None:
        """The loop writes what waits."""
        self._listed = False
        self.leave()

    def leave(self) -> bool:
        """Let those that wait depart, before anything else is sent; whether there is still room."""
        payloads = self._payloads
        if not payloads:
            return True
        self._payloads = []
        self._busy = len(payloads) > 1
        return self.depart(payloads, self._mode, self._key, self._class)
