"""How long a verb waits until its members have joined, and what it says when that was too long.

Its one rule: who waits in vain is told where it asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
import trio

from opus_socket.cli.numbers import Seconds
from opus_socket.config import OverlayConfig
from opus_socket.errors import OverlayError

join_timeout_option = click.option(
    "--join-timeout",
    type=Seconds(positive=True),
    default=math.inf,
    metavar="SECONDS",
    help="Give up joining after so long, with exit status 1; by default it waits for ever.",
)


@contextmanager
def joined_within(
    seconds: float, config: OverlayConfig, done: Callable[[], str] = lambda: "not joined"
) -> Iterator[None]:
    """Give the body so many seconds to join.

    Args:
        config: whose contacts are named.
        done: what has been reached when the time is over.

    Raises:
        OverlayError: the time is over.
    """
    with trio.move_on_after(seconds) as scope:
        yield
    if scope.cancelled_caught:
        raise OverlayError(
            f"{done()} after {seconds:g} s (--join-timeout); tried {_contacts(config)}"
        )


def _contacts(config: OverlayConfig) -> str:
    """Where others were looked for."""
    given = config.rendezvous
    tried = []
    if given.server:
        tried.append(f"the rendezvous server {given.server}")
    if given.buddies:
        one = len(given.buddies) == 1
        tried.append(f"the {'buddy' if one else 'buddies'} {', '.join(given.buddies)}")
    if given.multicast:
        tried.append(f"the multicast group {given.multicast}")
    return " and ".join(tried) or "nobody, for no contact is configured"
