"""The receive buffer of an application: an output like any other.

Its one rule: what is in it is the application's, also after the socket has left the overlay;
what does not fit follows the declared policy and is counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import trio
from attrs import define, field

from opus_socket.adapters.flow import Output
from opus_socket.core.message import OverlayMessage


@define(eq=False, repr=False)
class Inbox:
    """Messages that wait for the application, in the batches in which they came.

    A batch gives its room back when its last message is taken; that some of them were is seen by
    whoever looks whether the application takes anything at all.

    Attributes:
        output: its bounds; a limit of 0 discards everything.
        now: the clock, in seconds.
        closed: whether no more will come.
        arrival: where tasks park that wait for a message.
    """

    output: Output
    now: Callable[[], float]
    closed: bool = field(default=False, init=False)
    arrival: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)
    _batches: deque[tuple[Sequence[OverlayMessage], int]] = field(factory=deque, init=False)
    _opened: list[OverlayMessage] = field(factory=list, init=False)
    _opened_size: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.output.gauge = lambda: len(self._opened)

    def __bool__(self) -> bool:
        """Whether a message is there."""
        return bool(self._opened or self._batches)

    def __len__(self) -> int:
        return len(self._opened) + sum(len(messages) for messages, _ in self._batches)

    def settled(self) -> bool:
        """Whether nobody has to wait: a message is there, or none will ever come."""
        return bool(self._opened or self._batches or self.closed)

    def push(self, messages: Sequence[OverlayMessage], size: int) -> None:
        """Messages came, with so many bytes in their frames; the sequence is this one's now."""
        if self.output.settings.limit == 0:
            self.output.discarded += len(messages)
        elif self.output.admit(size, len(messages), self.now()):
            self._batches.append((messages, size))
            if self.arrival:
                self.arrival.unpark(count=len(messages))

    def pop(self) -> OverlayMessage:
        """The next message; there must be one."""
        opened = self._opened
        if not opened:
            opened = self._open()
        message = opened.pop()
        if not opened:
            self.output.release(self._opened_size, self.now())
        return message

    def take(self, maximum: int) -> list[OverlayMessage]:
        """Up to so many messages, at once."""
        taken: list[OverlayMessage] = []
        while (room := maximum - len(taken)) and self:
            if not self._opened and len(self._batches[0][0]) <= room:
                messages, size = self._batches.popleft()
                taken += messages
                self.output.release(size, self.now())
                continue
            opened = self._opened or self._open()
            taken += reversed(opened[-room:])
            del opened[-room:]
            if not opened:
                self.output.release(self._opened_size, self.now())
        return taken

    def clear(self) -> None:
        """Nobody will take what is here."""
        self.take(len(self))

    def close(self) -> None:
        """No more will come."""
        self.closed = True
        self.arrival.unpark_all()

    def _open(self) -> list[OverlayMessage]:
        """Take the next batch apart: its messages, the last one first."""
        messages, self._opened_size = self._batches.popleft()
        self._opened = [*reversed(messages)]
        return self._opened
