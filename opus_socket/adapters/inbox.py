"""The receive buffer of an application: an output like any other.

Its one rule: what is in it is the application's, also after the socket has left the overlay;
what does not fit follows the declared policy and is counted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import trio
from attrs import define, field

from opus_socket.adapters.flow import Output
from opus_socket.core.message import OverlayMessage


@define(eq=False, repr=False)
class Inbox:
    """Messages that wait for the application, in the batches in which they came.

    Attributes:
        output: its bounds; a limit of 0 discards everything.
        closed: whether no more will come.
    """

    output: Output
    closed: bool = False
    _batches: deque[tuple[Sequence[OverlayMessage], int]] = field(factory=deque, init=False)
    _taken: int = field(default=0, init=False)
    _count: int = field(default=0, init=False)
    _receivers: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)

    def push(self, messages: Sequence[OverlayMessage], size: int, now: float) -> None:
        """Messages came, with so many bytes in their frames; the sequence is this one's now."""
        if self.output.settings.limit == 0:
            self.output.discarded += len(messages)
        elif self.output.admit(size, len(messages), now):
            self._batches.append((messages, size))
            self._count += len(messages)
            if self._receivers:
                self._receivers.unpark(count=len(messages))

    def take(self, maximum: int, now: float) -> list[OverlayMessage]:
        """Up to so many messages, at once."""
        taken: list[OverlayMessage] = []
        released = 0
        while self._batches and len(taken) < maximum:
            messages, size = self._batches[0]
            start = self._taken
            end = start + maximum - len(taken)
            part = messages[start:end] if start or end < len(messages) else messages
            taken += part
            if end < len(messages):
                self._taken = end
                size = sum([len(message.frame) for message in part])
                self._batches[0] = messages, self._batches[0][1] - size
            else:
                self._taken = 0
                self._batches.popleft()
            released += size
        if taken:
            self._count -= len(taken)
            self.output.release(released, now)
        return taken

    def __len__(self) -> int:
        return self._count

    async def wait(self) -> None:
        """Wait until a message is there or none will come any more."""
        while not self._count and not self.closed:
            await self._receivers.park()

    def close(self) -> None:
        """No more will come."""
        self.closed = True
        self._receivers.unpark_all()
