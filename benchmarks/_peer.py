"""What the module of a peer has to have: another system that carries messages.

Its one rule: every call blocks, because a peer has a loop and threads of its own; callers put it in
a thread, or in a process that has nothing else to do. A call that makes no progress for `TIMEOUT`
seconds fails.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol, cast

TIMEOUT = 30.0


class Receiver(Protocol):
    """A receiver in a process of its own."""

    def receive(self, count: int) -> None:
        """Receive so many messages."""


class Sender(Protocol):
    """The sender to one such receiver."""

    @property
    def endpoint(self) -> str:
        """Where the receiver connects to."""

    def wait_ready(self) -> None:
        """Wait until the receiver gets what is sent."""

    def send_all(self, batches: Sequence[Sequence[bytes]]) -> None:
        """Send all messages."""


class Group(Protocol):
    """A sender and its receivers in this process."""

    def exchange(self, batches: Sequence[Sequence[bytes]]) -> None:
        """Send all messages, and return when every receiver has got them."""


class Module(Protocol):
    """A peer. One that cannot be in two processes here has `open_group` only."""

    def open_group(self, receivers: int) -> AbstractContextManager[Group]:
        """A sender with so many receivers."""

    def open_sender(self) -> AbstractContextManager[Sender]:
        """A sender to one receiver."""

    def open_receiver(self, endpoint: str) -> AbstractContextManager[Receiver]:
        """A receiver, connected to its sender."""


def load(name: str) -> Module:
    """The module of a peer, of which nothing is imported before: it may not be installed.

    Raises:
        ImportError: it is not.
    """
    return cast(Module, importlib.import_module(name))
