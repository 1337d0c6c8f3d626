"""What applications hold: the overlay socket.

Its one rule: a call has happened or has not. Whatever may have to wait does so before it takes
or gives a message; once it goes on, it finishes without another wait. So a cancelled call has
changed nothing, and a message that was sent has been queued.

    async with open_overlay_socket(config) as sock:
        await sock.join()
        await sock.send_to_all(b"hello")
        async for message in sock:
            print(message.source, message.payload)
"""

from __future__ import annotations

from collections.abc import Sequence
from time import perf_counter

import trio

from opus_socket._arguments import (
    check_handler,
    check_maximum,
    check_target,
    check_traffic_class,
    check_weight,
)
from opus_socket.core.addresses import Contact, Endpoint, LogicalAddress
from opus_socket.core.buckets import Direction, DirectionName, Limit
from opus_socket.core.effects import Quantity, QuantityName
from opus_socket.core.message import OverlayMessage
from opus_socket.core.node import Measurement, Mode
from opus_socket.core.requests import Payload
from opus_socket.core.service import Scope, Service
from opus_socket.core.serving import HANDLER
from opus_socket.errors import ConfigurationError, LocalProtocolError, NotJoinedError
from opus_socket.member import SocketStatistics
from opus_socket.membership import Membership
from opus_socket.service_handle import ServiceHandle
from opus_socket.subscription import EventSubscription

# Looked up once: members of an enumeration cost a look-up in the hot path.
_MULTICAST, _UNICAST = Mode.MULTICAST, Mode.UNICAST


class OverlaySocket(Membership, trio.abc.ReceiveChannel[OverlayMessage]):
    """An endpoint of communication in an overlay network.

    Made by `open_overlay_socket` or `OverlayHost.open_socket`. Every call is safe to cancel.
    Calls that need not wait take a full checkpoint at every 64th call or after a millisecond
    without one, and otherwise only check for cancellation: a full checkpoint a call would cap
    Trio at some 0.3 million calls a second.

    A message belongs to a traffic class, a number from 0 to 255: each class has queues of its own
    on the whole way, and order holds within it. The calls that send take it by keyword, and wait
    for the queues of that class only. `set_class_weight` says in what ratio classes share a link.

    Attributes:
        config: as it was opened with.
    """

    __slots__ = ()

    def __repr__(self) -> str:
        where = f"at {self.address}" if self._joined and not self._closed else "not joined"
        return f"<OverlaySocket of {self.config.overlay_id!r}, {where}>"

    # Life

    async def join(self) -> None:
        """Join the overlay; returns once the node is stable.

        Takes no timeout: use `trio.fail_after`. Cancelled, it leaves a stopped node, which may
        join again. While a rendezvous server is down it goes on trying.

        Raises:
            JoinError: the overlay refuses this member for what waiting cannot mend.
            AddressInUseError: another member holds the fixed or named logical address.
            LocalProtocolError: the socket has joined already, or is joining.
            NotJoinedError: another task called `leave()` meanwhile.
            trio.ClosedResourceError: the socket is closed.
        """
        self._check_open()
        if self._member is not None:
            raise LocalProtocolError(
                "join() was called twice; one socket is one member, leave() first or open another"
            )
        await trio.lowlevel.checkpoint_if_cancelled()
        member = self._begin()
        try:
            self._start(member)
            await self._settled.wait()
            self._check_open()
            if self._member is not member:
                raise NotJoinedError("leave() was called before join() returned")
            if self._join_error is not None:
                raise self._join_error
        except BaseException:
            # Cancelled, too: whoever does not join leaves nothing running.
            if self._member is member:
                self._stop(member)
            raise
        self._joined = True

    async def leave(self) -> None:
        """Leave the overlay: say goodbye, and write out what is queued.

        Waits for what is queued as long as the neighbors take it, at most `stall_timeout`
        without progress; to be held back by emulated bandwidth is no lack of it. Messages that
        were received remain readable; after them, receiving raises `trio.EndOfChannel`. Cancelled,
        it leaves at once. Does nothing when not joined.
        """
        member = self._member
        if member is None:
            await trio.lowlevel.checkpoint()
            return
        try:
            if self._joined:
                await self._drain(member)
        finally:
            if self._member is member:
                self._stop(member)
        await trio.lowlevel.checkpoint()

    async def aclose(self) -> None:
        """Leave, then close for good: every later call raises `trio.ClosedResourceError`."""
        self._closing = True
        try:
            await self.leave()
        finally:
            self.close()

    def close(self) -> None:
        """Close at once: goodbye is said, what is queued may be lost."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._member is not None:
                self._stop(self._member)
        finally:
            self._inbox.clear()
            self._inbox.close()
            for subscription in list(self._subscriptions):
                subscription.close()
            for handle in self._handles.values():
                handle.close()
            if self._owns_port:
                self._host.close_port(self._port)

    async def wait_stable(self) -> None:
        """Wait until the node has found its place again; it may lose it while others come and go.

        Raises:
            NotJoinedError: before `join()` has returned, or when it leaves meanwhile.
            trio.ClosedResourceError: the socket is closed.
        """
        self._check_joined()
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._check_joined().core.stable:
            await self._news.park()

    # Sending

    async def send_to_all(self, payload: Payload, *, traffic_class: int = 0) -> None:
        """Send to every other member (multicast along a tree embedded in the overlay).

        Returns when the message is queued, at once when there is no other member. Waits while
        a neighbor's queue is full and the policy is *block*. What any member has to drop, because
        it is full or because somebody has taken nothing for `socket.stall_timeout`, is counted
        and told (`MessagesDropped`) there, and not here.

        A message of up to `socket.max_message` bytes is one message, also if it takes several
        frames. A receiver that does not get all of them says so (`MessageLost`, `incomplete`).

        Raises:
            NotJoinedError: before `join()` has returned or after `leave()`.
            LocalProtocolError: the message is longer than `socket.max_message`.
            trio.ClosedResourceError: the socket is closed.
        """
        if perf_counter() >= self._pace.due:
            await self._pace.checkpoint()
        if not self._train.add(payload, _MULTICAST, None, traffic_class):
            await self._send(payload, _MULTICAST, None, traffic_class)

    sendToAll = send_to_all  # noqa: N815 - the published name of HyperCast's interface
    """The published name of `send_to_all`."""

    async def send_batch(
        self,
        payloads: Sequence[Payload],
        *,
        to: LogicalAddress | None = None,
        traffic_class: int = 0,
    ) -> None:
        """Send many messages at once: the fast way. Either all of them are queued or none is.

        Args:
            payloads: one for each message.
            to: the one member that gets them; all others do by default.
            traffic_class: of each of them, 0..255.

        Raises:
            NotJoinedError, LocalProtocolError, trio.ClosedResourceError: as `send_to_all` and
                `send`.
        """
        if to is None:
            await self._send_batch(payloads, Mode.MULTICAST, None, traffic_class)
        else:
            await self._send_batch(payloads, Mode.UNICAST, self._check_address(to), traffic_class)

    def send_to_all_nowait(self, payload: Payload, *, traffic_class: int = 0) -> None:
        """Send to all without waiting.

        Raises:
            trio.WouldBlock: a neighbor's queue for this class is full.
            NotJoinedError, LocalProtocolError, trio.ClosedResourceError: as `send_to_all`.
        """
        if not self._train.add(payload, _MULTICAST, None, traffic_class):
            self._check_joined()
            number = check_traffic_class(traffic_class)
            if not self._may_send(number):
                raise trio.WouldBlock(
                    f"a neighbor's queue for traffic class {number} is full; send_to_all waits"
                )
            self._send_one(payload, _MULTICAST, None, number)

    async def send(
        self, address: LogicalAddress, payload: Payload, *, traffic_class: int = 0
    ) -> None:
        """Send to one member, along the overlay. To the own address it is delivered here.

        Raises:
            LocalProtocolError: not an address of this protocol, or the message is too long.
            NotJoinedError, trio.ClosedResourceError: as `send_to_all`.
        """
        if perf_counter() >= self._pace.due:
            await self._pace.checkpoint()
        if not self._train.add(payload, _UNICAST, address, traffic_class):
            await self._send(payload, _UNICAST, self._check_address(address), traffic_class)

    async def send_flood(self, payload: Payload, *, traffic_class: int = 0) -> None:
        """Send to every other member over every edge of the overlay; each gets it once."""
        await self._send(payload, Mode.FLOOD, None, traffic_class)

    async def send_anycast(
        self, key: LogicalAddress, payload: Payload, *, traffic_class: int = 0
    ) -> None:
        """Send to one other member that is eligible for a key: with Delaunay, the one nearest to
        that point. Where that is this member nobody gets it (`MessageLost`). Errors as `send`.
        """
        await self._send(payload, Mode.ANYCAST, self._check_address(key), traffic_class)

    async def send_to_neighbors(self, payload: Payload, *, traffic_class: int = 0) -> None:
        """Send to each neighbor, and no further. Errors as `send_to_all`."""
        await self._send_next_to(lambda: self.neighbors, payload, traffic_class)

    async def send_to_parent(
        self, root: LogicalAddress, payload: Payload, *, traffic_class: int = 0
    ) -> None:
        """Send to the parent in the tree of a root, and no further; nobody at the root itself.
        Errors as `send`.
        """
        root = self._check_address(root)

        def parents() -> Sequence[LogicalAddress]:
            parent = self.parent(root)
            return () if parent is None else (parent,)

        await self._send_next_to(parents, payload, traffic_class)

    async def send_to_children(
        self, root: LogicalAddress, payload: Payload, *, traffic_class: int = 0
    ) -> None:
        """Send to each child in the tree of a root, and no further. Errors as `send`."""
        root = self._check_address(root)
        await self._send_next_to(lambda: self.children(root), payload, traffic_class)

    # Receiving

    async def receive(self) -> OverlayMessage:
        """The next message.

        Raises:
            trio.EndOfChannel: the socket has left the overlay and nothing is left to read.
            trio.TooSlowError: nothing came within `socket.read_timeout`, if that is set.
            NotJoinedError: the socket never joined.
            trio.ClosedResourceError: the socket is closed.
        """
        if not self._inbox or perf_counter() >= self._pace.due:
            await self._wait_for_message()
        return self._inbox.pop()

    async def __anext__(self) -> OverlayMessage:
        if not self._inbox or perf_counter() >= self._pace.due:
            try:
                await self._wait_for_message()
            except trio.EndOfChannel:
                raise StopAsyncIteration from None
        return self._inbox.pop()

    async def receive_batch(self, maximum: int = 1024) -> list[OverlayMessage]:
        """The next messages, at least one, as many as are there: the fast way. Errors as
        `receive`.

        Args:
            maximum: how many at most, a whole number of 1 or more.
        """
        maximum = check_maximum("receive_batch", maximum)
        await self._wait_for_message()
        return self._inbox.take(maximum)

    # Measuring

    async def measure(
        self,
        target: LogicalAddress | Contact | Endpoint,
        quantity: Quantity | QuantityName = Quantity.RTT,
    ) -> Measurement:
        """Measure the way to any member, now: the round-trip time, or how much it carries.

        What is measured is the direct way between the two endpoints, not the overlay's. Of an
        address that is no neighbor's the contact is asked along the overlay first, by messages of
        class 0, which wait for their turn like all others. Nobody who does not answer is waited
        for longer than 6 seconds; of an endpoint whichever member is there answers.

        Args:
            target: whom: a member's address, its contact, or an endpoint.
            quantity: `rtt`, or `bandwidth`: 19 kB are sent to learn that.

        Returns:
            Seconds, or bytes a second; a value of None when no answer came.

        Raises:
            LocalProtocolError: no such target, or a quantity that is not measured on request.
            NotJoinedError: before `join()` has returned, or when it leaves meanwhile.
            trio.ClosedResourceError: the socket is closed.
        """
        return await self._ask(check_target(self._settings.spec, target), quantity)

    # Queries

    @property
    def address(self) -> LogicalAddress:
        """The own logical address.

        Raises:
            NotJoinedError: it has none before joining.
        """
        return self._check_joined().core.node.address

    @property
    def stable(self) -> bool:
        """Whether the node has found its place; False before joining."""
        return self._joined and self._member is not None and self._member.core.stable

    @property
    def contact(self) -> Contact:
        """How this member is reached. Raises NotJoinedError before joining."""
        return self._check_joined().core.node.contact

    @property
    def neighbors(self) -> tuple[LogicalAddress, ...]:
        """The neighbors' addresses, sorted. Raises NotJoinedError before joining."""
        return tuple(self._check_joined().core.neighbors)

    def parent(self, root: LogicalAddress) -> LogicalAddress | None:
        """The next hop toward `root`; None at the root itself. Raises NotJoinedError."""
        return self._check_joined().core.node.parent(self._check_address(root))

    def children(self, root: LogicalAddress) -> tuple[LogicalAddress, ...]:
        """The next hops from `root`, sorted. Raises NotJoinedError."""
        return self._check_joined().core.node.children(self._check_address(root))

    def events(self) -> EventSubscription:
        """A subscription of its own to everything that happens from now on."""
        subscription = EventSubscription()
        if self._closed:
            subscription.close()
        self._subscriptions.add(subscription)
        return subscription

    # Services and handlers

    def service(self, name: str) -> ServiceHandle:
        """The handle of a service that the configuration switches on, by a table
        `[services.NAME]`; the same one at every call.

        Raises:
            ConfigurationError: the configuration does not switch it on.
        """
        on = [spec.name for spec, _ in self._settings.services]
        if name not in on:
            raise ConfigurationError(
                f"service {name!r} is not switched on; those that are: {', '.join(on) or 'none'}. "
                f"A table [services.{name}] in the configuration switches it on"
            )
        return self._handle(name)

    def set_handler(self, handler: Service, scope: Scope = Scope.BOTH) -> ServiceHandle:
        """Let a handler see the application's messages that arrive here, in place of one that was
        set before: it may let them go, consume them, hold them, and send others.

        It is a machine without an id, such as `Merge`, and runs inside the host's loop: what it
        raises ends the host, or comes out of the call of this socket in which it runs (this one,
        `join`, `leave`, `ask`, or one that sends to the own address). It stays set when the socket
        leaves and joins again; it then is told to `leave` and to `start`. It does not see what it
        sends itself.

        Args:
            handler: a `Service`.
            scope: which messages it sees.

        Returns:
            Its handle, by which it is asked and its results are read.

        Raises:
            LocalProtocolError: it is no `Service`, or no such scope. Nothing has changed.
            trio.ClosedResourceError: the socket is closed.
        """
        self._use_handler(check_handler(handler, scope))
        return self._handle(HANDLER)

    def remove_handler(self) -> None:
        """Let messages go their way without a handler from now on; does nothing without one."""
        self._use_handler(None)

    def set_class_weight(self, traffic_class: int, weight: int) -> None:
        """Let a traffic class have another share of the ways to neighbors, from now on and in
        every membership of this socket. Members choose for the links that lead from them.

        Args:
            traffic_class: 0..255.
            weight: 1..100; classes that have more to send than a neighbor takes share what it
                takes in the ratio of their weights. It is 1, or as `socket.class_weights` says.

        Raises:
            LocalProtocolError: out of range.
            trio.ClosedResourceError: the socket is closed.
        """
        number, share = check_traffic_class(traffic_class), check_weight(weight)
        self._check_open()
        self._weights[number] = share
        if self._member is not None:
            self._member.weigh(number, share)

    def statistics(self) -> SocketStatistics:
        """Figures of every part so far, frozen."""
        member = self._member
        return SocketStatistics(
            core=None if self._core is None else self._core.statistics(),
            flows=(self._inbox.output.statistics(),) if member is None else member.flows(),
            dropped=dict(self._losses),
            events_lost=self._events_lost,
            udp=None if self._port.udp is None else self._port.udp.statistics(),
            tcp=None if self._port.tcp is None else self._port.tcp.statistics(),
        )

    @property
    def bandwidth(self) -> tuple[Limit, ...]:
        """The limits that this member is held to; () for none."""
        return self._buckets.limits

    def set_bandwidth(
        self,
        direction: Direction | DirectionName,
        rate: float | None,
        link: LogicalAddress | None = None,
    ) -> None:
        """Hold this member to a bandwidth from now on, before joining, too (emulation).

        Messages wait until there is bandwidth for them, and senders are slowed down as by a slow
        network. Links of a node share its bandwidth alike. Control messages, those of `measure`
        among them, are counted but wait for nothing. Bytes are those of whole frames. What
        `[emulation]` says holds until this is called.

        Args:
            direction: `in`, `out`, or `total` for both together.
            rate: bytes a second, 1 to 10^15; None for no limit.
            link: the neighbor of which link; None for the node as a whole.

        Raises:
            LocalProtocolError: no such direction (a link has no total), rate or address.
            trio.ClosedResourceError: the socket is closed.
        """
        self._check_open()
        if link is not None:
            self._check_address(link)
        self._limit(direction, link, rate)

    def set(self, name: str, value: object) -> None:
        """Turn a knob of the protocol while it runs, if it has any; Delaunay has none.

        Raises:
            LocalProtocolError: the protocol has no such knob, or the value is out of range.
            NotJoinedError: before joining.
        """
        member = self._check_joined()
        self._host.perform(member, member.core.set(name, value, self._host.now()))
