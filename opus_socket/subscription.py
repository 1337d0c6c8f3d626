"""Subscriptions: to the events of an overlay socket, and to the results of its services.

Its one rule: a slow reader loses news, never memory, and is told how much it lost.
"""

from __future__ import annotations

from collections import deque
from typing import Generic, Self, TypeVar

import trio
from attrs import define, field

from opus_socket.core.events import Event, EventsLost

MAX_EVENTS = 1024

News = TypeVar("News")


@define(eq=False, repr=False)
class Subscription(Generic[News]):
    """Everything of one kind from the moment at which it was made; an async iterator.

    It holds 1,024 of them. When it is read too slowly, further ones are not kept but counted. It
    ends when the socket is closed.

    Attributes:
        lost: how many were not kept, so far.
    """

    lost: int = field(default=0, init=False)
    _waiting: deque[News] = field(factory=deque, init=False)
    _closed: bool = field(default=False, init=False)
    _readers: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> News:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._waiting and not self._closed:
            await self._readers.park()
        if not self._waiting:
            raise StopAsyncIteration
        return self._waiting.popleft()

    def put(self, news: News) -> bool:
        """Keep it, if there is room."""
        if len(self._waiting) >= MAX_EVENTS:
            self.lost += 1
            return False
        self._waiting.append(news)
        self._readers.unpark()
        return True

    def close(self) -> None:
        """No more will come."""
        self._closed = True
        self._readers.unpark_all()


@define(eq=False, repr=False)
class EventSubscription(Subscription[Event]):
    """The events of an overlay socket; see `Subscription`.

    When some were not kept, an `EventsLost` says how many once there is room.
    """

    _told: int = field(default=0, init=False)

    async def __anext__(self) -> Event:
        # Not `super()`: a slotted attrs class is another one than that which the method knows.
        event = await Subscription.__anext__(self)
        if self.lost > self._told:
            self._waiting.append(EventsLost(self.lost - self._told))
            self._told = self.lost
        return event
