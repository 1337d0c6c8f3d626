"""Hosts: many overlay sockets of one process on one I/O loop, and the blocks in which they live.

Its one rule: background work lives in the block that opened it. The body's own exception leaves
the block as it is; a crash of the background is raised as `OverlayError` from its cause.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from itertools import count
from random import Random
from weakref import WeakValueDictionary

import trio
from attrs import define, field

from opus_socket.config import OverlayConfig
from opus_socket.driver import Host, HostStatistics
from opus_socket.errors import ConfigurationError, OverlayError
from opus_socket.member import Port
from opus_socket.opening import (
    Meeting,
    core_settings,
    find_meeting,
    open_group,
    open_loop,
    open_port,
)
from opus_socket.overlay_socket import OverlaySocket

CLOSE_TIMEOUT = 1.0


@define(eq=False, repr=False)
class OverlayHost:
    """One I/O loop for many overlay sockets of a process. Made by `open_host`."""

    _host: Host
    _ports: dict[tuple[object, ...], Port] = field(factory=dict, init=False)
    _meetings: dict[object, Meeting] = field(factory=dict, init=False)
    _sockets: WeakValueDictionary[int, OverlaySocket] = field(
        factory=WeakValueDictionary, init=False
    )
    _opened: Iterator[int] = field(factory=count, init=False)
    _opening: trio.Lock = field(factory=trio.Lock, init=False)

    async def open_socket(
        self, config: OverlayConfig, *, rng: Random | None = None
    ) -> OverlaySocket:
        """An overlay socket, not yet joined. It is closed with the host, or by its `aclose`.

        Sockets whose configurations listen and meet alike share one UDP socket and one listener,
        unless `node_adapter.socket_per_node` is set.

        Args:
            config: of the socket.
            rng: its source of chance; by default a fresh one from the system's.

        Raises:
            ConfigurationError: an address cannot be listened at, a name does not resolve, or it is
                no configuration.
            trio.ClosedResourceError: the host is closed.
        """
        if not isinstance(config, OverlayConfig):
            raise ConfigurationError(
                f"{config!r} is no OverlayConfig; make one by OverlayConfig(overlay_id=...) or "
                "OverlayConfig.load(file)"
            )
        settings_key = (config.rendezvous, config.node_adapter, config.socket_adapter.kind)
        own = config.node_adapter.socket_per_node
        async with self._opening:
            self._host.check_open()
            meeting = self._meetings.get(settings_key)
            if meeting is None:
                meeting = await find_meeting(config)
                await open_group(self._host, config, meeting)
                self._meetings[settings_key] = meeting
            port = None if own else self._ports.get(settings_key)
            if port is None:
                port = await open_port(self._host, config, meeting)
                if not own:
                    self._ports[settings_key] = port
        sock = OverlaySocket(
            config,
            self._host,
            core_settings(config, meeting),
            meeting,
            port,
            own,
            rng or Random(secrets.randbits(128)),
        )
        self._sockets[next(self._opened)] = sock
        return sock

    def statistics(self) -> HostStatistics:
        """Figures so far."""
        return self._host.statistics()

    async def aclose(self) -> None:
        """Let every socket leave, and end the connections when their queues are written."""
        self._host.closing = True
        try:
            async with trio.open_nursery() as nursery:
                for sock in list(self._sockets.values()):
                    nursery.start_soon(sock.leave)
            self._host.finish()
            with trio.move_on_after(CLOSE_TIMEOUT):
                while not self._host.quiet:
                    await self._host.wait_turn()
        finally:
            self.close()

    def close(self) -> None:
        """Close everything at once."""
        # Each is closed, even when another one's core has crashed.
        with ExitStack() as stack:
            stack.callback(self._host.close)
            for sock in self._sockets.values():
                stack.callback(sock.close)


@asynccontextmanager
async def open_host() -> AsyncIterator[OverlayHost]:
    """A host of any number of overlay sockets; background work lives in this block.

    The body's own exception leaves the block unwrapped.

    Raises:
        ConfigurationError: this process has too many files open.
        OverlayError: a background task crashed; the cause is chained.
    """
    overlay_host = OverlayHost(host := open_loop())
    crash: Exception | None = None
    raised: BaseException | None = None
    async with trio.open_nursery() as nursery:

        async def drive() -> None:
            nonlocal crash
            try:
                await host.run()
            except Exception as error:  # noqa: BLE001
                # Any failure of the loop ends the block, and is raised from there.
                crash = error
                nursery.cancel_scope.cancel()

        nursery.start_soon(drive)
        try:
            yield overlay_host
            await overlay_host.aclose()
        except BaseException as error:  # noqa: BLE001
            # Raised again outside of the nursery, which would wrap it in a group.
            raised = error
        nursery.cancel_scope.cancel()
        # A cancellation from outside has been seen by the body, or is none of its business.
        nursery.cancel_scope.shield = True
    try:
        overlay_host.close()
    finally:
        host.release()
        if crash is not None:
            raise OverlayError(f"the overlay's background task crashed: {crash!r}") from crash
    if raised is not None:
        raise raised


@asynccontextmanager
async def open_overlay_socket(
    config: OverlayConfig, *, rng: Random | None = None
) -> AsyncIterator[OverlaySocket]:
    """An overlay socket, not yet joined, with a host of its own.

    Background tasks live in this block; on leaving it the socket leaves the overlay. The body's
    own exception leaves the block unwrapped.

    Args:
        config: of the socket.
        rng: its source of chance; by default a fresh one from the system's.

    Raises:
        ConfigurationError: an address cannot be listened at, a name does not resolve, or this
            process has too many files open.
        OverlayError: a background task crashed; the cause is chained.
    """
    async with open_host() as host:
        yield await host.open_socket(config, rng=rng)
