"""What applications hold of a service: its handle.

Its one rule: a handle only carries. What an application asks for is an input of the service's
machine, a value of one of the classes that the service documents; what comes of it are values,
too, which are read from a subscription.

    load = sock.service("aggregation")
    await load.ask(Contribute("load", 0.7))
    async for total in load.results(Aggregate):
        print(total.mean)
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar
from weakref import WeakSet

from attrs import define, field

from opus_socket.errors import LocalProtocolError
from opus_socket.subscription import Subscription

Result = TypeVar("Result")


@define(eq=False, repr=False)
class ServiceHandle:
    """A service of one overlay socket, or its handler, as the application sees it.

    Made by `OverlaySocket.service` and `OverlaySocket.set_handler`; it outlives a membership, the
    machine behind it does not.

    Attributes:
        name: the service's.
    """

    name: str
    _wait: Callable[[], Awaitable[None]]
    _ask: Callable[[str, object], None]
    _count: Callable[[str], object]
    _results: WeakSet[_Results[Any]] = field(factory=WeakSet, init=False)

    async def ask(self, request: object) -> None:
        """Ask the service for something; returns when it has taken the request.

        Waits, like the calls that send, while a neighbor's queue is full. Cancelled, it has
        asked for nothing.

        Args:
            request: of one of the classes that the service documents.

        Raises:
            LocalProtocolError: it cannot be asked for that. Nothing has changed.
            ConfigurationError: the handler that it was the handle of was removed.
            NotJoinedError: before `join()` has returned or after `leave()`.
            trio.ClosedResourceError: the socket is closed.
        """
        await self._wait()
        self._ask(self.name, request)

    def results(self, kind: type[Result]) -> Subscription[Result]:
        """A subscription of its own to the results of a class, from now on.

        Args:
            kind: a class of results that the service documents; `object` for all of them.

        Raises:
            LocalProtocolError: it is no class.
        """
        try:
            isinstance(None, kind)
        except TypeError:
            raise LocalProtocolError(
                f"results({kind!r}): a class of results is allowed, or `object` for all of them"
            ) from None
        made = _Results(kind=kind)
        self._results.add(made)
        return made

    def statistics(self) -> object:
        """The service's own figures; None where it has none, or before the first join."""
        return self._count(self.name)

    def publish(self, result: object) -> int:
        """Give a result to all who want it; returns how many had no room for it. For the socket."""
        wanted = [each for each in self._results if isinstance(result, each.kind)]
        return sum(not each.put(result) for each in wanted)

    def close(self) -> None:
        """No more results will come. For the socket."""
        for subscription in list(self._results):
            subscription.close()


@define(eq=False, repr=False)
class _Results(Subscription[Result]):
    """A subscription to the results of one class."""

    kind: type[Result] = field(kw_only=True)
