"""How many connections an endpoint may have, and which of them give way to others.

Its one rule: whoever is of use stays. Connections take descriptors that the application needs,
too, and whoever opens one and then says nothing would hold it for ever. So there may be no more
than a share of what the process may have open, and when they are as many, those give way that were
opened from elsewhere and have been of no use for longest.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Iterable

from attrs import define, field

from opus_socket.adapters.base import Switchboard
from opus_socket.adapters.poller import READ
from opus_socket.adapters.tcp import Connection

if sys.platform != "win32":
    import resource

MOST_AT_ONCE = 64
"""How many connections give way at once: to find them is to look at all of them."""

LEAST_SHARE = 16
LOOK_AGAIN = 0.5


def descriptor_share() -> int:
    """How many of the descriptors that the process may have one endpoint may take: half of them,
    and no fewer than 16.
    """
    if sys.platform == "win32":
        return sys.maxsize
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else max(LEAST_SHARE, soft // 2)


@define(eq=False, repr=False)
class Capacity:
    """How many connections an endpoint may have.

    Args:
        host: where it is counted what gave way.
        limit: how many connections there may be.
        patience: after so many seconds without a message a connection is of no use.
    """

    host: Switchboard
    limit: int
    patience: float
    _not_before: float = field(default=float("-inf"), init=False)

    def make_room(self, connections: Iterable[Connection]) -> bool:
        """Let those give way that are of no use, if any; whether there is more room now.

        Nothing is lost here: nothing was queued, and what has come is read first, all but a part
        of a message whose rest does not come. The other end sees its connection closed and dials
        again when it has something to send. Lost is what it writes before it sees that: what it
        had queued it counts as dropped ("connection"), what its system had taken nobody counts,
        as with any connection that fails.
        """
        now = self.host.now()
        if now < self._not_before:
            return False
        before = now - self.patience
        batch = max(1, min(MOST_AT_ONCE, self.limit // 16))
        useless = (each for each in connections if _is_useless(each, before))
        chosen = heapq.nsmallest(batch, useless, key=_last_use)
        if len(chosen) < batch:
            # There are no others, and only time makes some.
            self._not_before = now + LOOK_AGAIN
        more = False
        for connection in chosen:
            connection.ready(READ)
            if connection.open and _is_useless(connection, before):
                self.host.refuse("made_room")
                connection.give_way()
            more = more or not connection.open
        return more


def _is_useless(connection: Connection, before: float) -> bool:
    return connection.spare and _last_use(connection)[1] <= before


def _last_use(connection: Connection) -> tuple[bool, float]:
    """What was never of use comes before what was: every member connects to send something."""
    used_at = connection.used_at
    return (False, connection.since) if used_at is None else (True, used_at)
