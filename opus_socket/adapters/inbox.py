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
    """Messages that wait for the application.

    Attributes:
        output: its bounds; a limit of 0 discards everything.
        closed: whether no more will come.
    """

    output: Output
    closed: bool = False
    _messages: deque[OverlayMessage] = field(factory=deque, init=False)
    _receivers: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)

    def push(self, messages: Sequence[OverlayMessage], now: float) -> None:
        """Messages came."""
        limit = self.output.settings.limit
        if limit == 0:
            self.output.discarded += len(messages)
            return
        size = sum([len(message.frame) for message in messages])
        if self.output.admit(size, len(messages), now):
            self._messages.extend(messages)
            if self._receivers:
                self._receivers.unpark(count=len(messages))

    def take(self, maximum: int, now: float) -> list[OverlayMessage]:
        """Up to so many messages, at once."""
        queue = self._messages
        if maximum >= len(queue):
            taken = list(queue)
            queue.clear()
        else:
            taken = [queue.popleft() for _ in range(maximum)]
        if taken:
            self.output.release(sum([len(message.frame) for message in taken]), now)
        return taken

    def __len__(self) -> int:
        return len(self._messages)

    async def wait(self) -> None:
        """Wait until a message is there or none will come any more."""
        while not self._messages and not self.closed:
            await self._receivers.park()

    def close(self) -> None:
        """No more will come."""
        self.closed = True
        self._receivers.unpark_all()
