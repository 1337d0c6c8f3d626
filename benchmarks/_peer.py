"""What the module of a peer has to have: another system that carries messages.

Its one rule: every call blocks, because a peer has a loop and threads of its own; callers put it in
a thread, or in a process that has nothing else to do. A call that makes no progress for `TIMEOUT`
seconds fails with `TimeoutError`.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol, cast

TIMEOUT = 15.0


class Receiver(Protocol):
    """Receivers in a process of their own."""

    def receive(self, count: int) -> None:
        """Return when each of them has received so many messages."""


class Sender(Protocol):
    """The sender to such receivers."""

    @property
    def endpoint(self) -> str:
        """Where receivers connect to."""

    def probe(self) -> None:
        """Send what tells receivers that they are connected, and does not count."""

    def wait_ready(self) -> None:
        """Wait until the receivers get what is sent."""

    def send_all(self, batches: Sequence[Sequence[bytes]]) -> None:
        """Send all messages."""


class Group(Protocol):
    """A sender and its receivers in this process."""

    def exchange(self, batches: Sequence[Sequence[bytes]]) -> None:
        """Send all messages, and return when every receiver has got them."""


class Module(Protocol):
    """A peer."""

    def open_group(self, receivers: int) -> AbstractContextManager[Group]:
        """A sender with so many receivers."""

    def open_sender(self, receivers: int) -> AbstractContextManager[Sender]:
        """A sender to so many receivers."""

    def open_receiver(self, endpoint: str, receivers: int) -> AbstractContextManager[Receiver]:
        """So many receivers, which hear from their sender."""

    def open_head(self, nodes: int, everywhere: bool) -> AbstractContextManager[Sender]:
        """A sender, and a chain of nodes behind it, each of which passes on what it gets.

        Args:
            nodes: how many there are, the sender included.
            everywhere: whether each of them receives the messages.
        """

    def open_tail(
        self, endpoint: str, nodes: int, everywhere: bool
    ) -> AbstractContextManager[Receiver]:
        """The rest of such a chain; its last node receives in any case."""


def load(name: str) -> Module:
    """The module of a peer, of which nothing is imported before: it may not be installed.

    Raises:
        ImportError: it is not.
    """
    return cast(Module, importlib.import_module(name))
