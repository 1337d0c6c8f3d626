"""Which sockets are ready, as one thing to wait for.

Its one rule: thousands of sockets cost one await. The selector's own descriptor (epoll, kqueue)
becomes readable when any registered socket is ready, so one task waits on that and then works
through all of them without waiting.
"""

from __future__ import annotations

import select
import selectors
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable

from attrs import define, field

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE

Ready = Callable[[int], None]
"""Called with the mask of READ and WRITE that holds for a socket."""


class Poller(ABC):
    """A set of sockets, each with what to call when it is ready."""

    @abstractmethod
    def add(self, sock: socket.socket, events: int, ready: Ready) -> None:
        """Watch a socket for READ, WRITE or both."""

    @abstractmethod
    def change(self, sock: socket.socket, events: int, ready: Ready) -> None:
        """Watch a socket for other events; 0 keeps it unwatched until the next change."""

    @abstractmethod
    def remove(self, sock: socket.socket) -> None:
        """Forget a socket; before it is closed."""

    @abstractmethod
    def poll(self) -> list[tuple[Ready, int]]:
        """What is ready now."""

    @abstractmethod
    def fileno(self) -> int:
        """The descriptor that is readable when something is ready."""

    @abstractmethod
    def close(self) -> None:
        """Forget everything."""


def open_poller() -> Poller:
    """The fastest that this system has.

    Raises:
        OSError: it offers neither epoll nor kqueue.
    """
    return EpollPoller() if sys.platform == "linux" else SelectorPoller()


if sys.platform == "linux":

    @define(eq=False, repr=False)
    class EpollPoller(Poller):
        """By epoll itself: what `selectors` keeps besides costs more than the system call."""

        _epoll: select.epoll = field(factory=select.epoll, init=False)
        _calls: dict[int, Ready] = field(factory=dict, init=False)

        def add(self, sock: socket.socket, events: int, ready: Ready) -> None:
            """Watch a socket for READ, WRITE or both."""
            number = sock.fileno()
            self._epoll.register(number, _INTEREST[events])
            self._calls[number] = ready

        def change(self, sock: socket.socket, events: int, ready: Ready) -> None:
            """Watch a socket for other events; 0 keeps it unwatched until the next change."""
            number = sock.fileno()
            if not events:
                self.remove(sock)
            elif number in self._calls:
                self._epoll.modify(number, _INTEREST[events])
                self._calls[number] = ready
            else:
                self.add(sock, events, ready)

        def remove(self, sock: socket.socket) -> None:
            """Forget a socket; before it is closed."""
            number = sock.fileno()
            if self._calls.pop(number, None) is not None:
                self._epoll.unregister(number)

        def poll(self) -> list[tuple[Ready, int]]:
            """What is ready now."""
            calls, ready = self._calls, []
            for number, events in self._epoll.poll(0):
                # An error or the other end's end concerns both directions.
                ready.append((calls[number], READ if events == _IN else _concerned(events)))
            return ready

        def fileno(self) -> int:
            """The descriptor that is readable when something is ready."""
            return self._epoll.fileno()

        def close(self) -> None:
            """Forget everything."""
            self._calls.clear()
            self._epoll.close()

    _IN = select.EPOLLIN
    _INTEREST = {
        READ: select.EPOLLIN,
        WRITE: select.EPOLLOUT,
        READ | WRITE: select.EPOLLIN | select.EPOLLOUT,
    }

    def _concerned(events: int) -> int:
        reading = READ if events & ~select.EPOLLOUT else 0
        return reading | (WRITE if events & ~select.EPOLLIN else 0)


@define(eq=False, repr=False)
class SelectorPoller(Poller):
    """By the standard library's selector of this system, which must have a descriptor.

    Raises:
        OSError: this system offers neither epoll nor kqueue.
    """

    _selector: selectors.BaseSelector = field(factory=selectors.DefaultSelector)
    _descriptor: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        descriptor = getattr(self._selector, "fileno", None)
        if descriptor is None:
            raise OSError(f"this system offers only {type(self._selector).__name__}")
        self._descriptor = descriptor()

    def add(self, sock: socket.socket, events: int, ready: Ready) -> None:
        """Watch a socket for READ, WRITE or both."""
        self._selector.register(sock, events, ready)

    def change(self, sock: socket.socket, events: int, ready: Ready) -> None:
        """Watch a socket for other events; 0 keeps it unwatched until the next change."""
        watched = sock in self._selector.get_map()
        if watched and events:
            self._selector.modify(sock, events, ready)
        elif watched:
            self._selector.unregister(sock)
        elif events:
            self._selector.register(sock, events, ready)

    def remove(self, sock: socket.socket) -> None:
        """Forget a socket; before it is closed."""
        if sock in self._selector.get_map():
            self._selector.unregister(sock)

    def poll(self) -> list[tuple[Ready, int]]:
        """What is ready now."""
        return [(key.data, mask) for key, mask in self._selector.select(0)]

    def fileno(self) -> int:
        """The descriptor that is readable when something is ready."""
        return self._descriptor

    def close(self) -> None:
        """Forget everything."""
        self._selector.close()


@define(eq=False, repr=False)
class Bell:
    """Makes a poller ready, by a pair of sockets.

    Args:
        poller: which is to be ready whenever it was rung; the sockets live as long as it.
    """

    poller: Poller
    _ringing: bool = field(default=False, init=False)
    _here: socket.socket = field(init=False)
    _there: socket.socket = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._here, self._there = socket.socketpair()
        self._here.setblocking(False)
        self._there.setblocking(False)
        self.poller.add(self._here, READ, self._hear)

    def ring(self) -> None:
        """Make the poller ready, if it is not yet."""
        if not self._ringing:
            self._ringing = True
            self._there.send(b"!")

    def close(self) -> None:
        """Close both sockets."""
        self.poller.remove(self._here)
        self._here.close()
        self._there.close()

    def _hear(self, _mask: int) -> None:
        self._ringing = False
        self._here.recv(1)
