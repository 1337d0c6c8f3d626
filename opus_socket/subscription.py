"""Subscriptions to the events of an overlay socket.

Its one rule: a slow reader loses events, never memory, and is told how many it lost.
"""

from __future__ import annotations

from collections import deque

import trio
from attrs import define, field

from opus_socket.core.events import Event, EventsLost

MAX_EVENTS = 1024


@define(eq=False, repr=False)
class EventSubscription:
    """The events of an overlay socket from the moment at which it was made; an async iterator.

    It holds 1,024 events. When it is read too slowly, further ones are not kept, and an
    `EventsLost` says how many once there is room. It ends when the socket is closed.
    """

    _events: deque[Event] = field(factory=deque, init=False)
    _lost: int = field(default=0, init=False)
    _closed: bool = field(default=False, init=False)
    _readers: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)

    def __aiter__(self) -> EventSubscription:
        return self

    async def __anext__(self) -> Event:
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._events and not self._closed:
            await self._readers.park()
        if not self._events:
            raise StopAsyncIteration
        event = self._events.popleft()
        if self._lost:
            self._events.append(EventsLost(self._lost))
            self._lost = 0
        return event

    def put(self, event: Event) -> bool:
        """Keep an event, if there is room."""
        if len(self._events) >= MAX_EVENTS:
            self._lost += 1
            return False
        self._events.append(event)
        self._readers.unpark()
        return True

    def close(self) -> None:
        """No more will come."""
        self._closed = True
        self._readers.unpark_all()
