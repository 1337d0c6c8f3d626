"""How often a loss may be reported to the source of the lost message.

Its one rule: a report costs the network no more than the source's own messages did, and at most
so many a second, however many of them are lost.
"""

from __future__ import annotations

from attrs import define, field

_MAX_SOURCES = 1024


@define(eq=False)
class ReportLimiter:
    """Allows a number of reports a second and source; remembers at most 1,024 sources.

    Args:
        rate: reports a second.
    """

    rate: int
    _spent: dict[bytes, tuple[float, int]] = field(factory=dict, init=False)

    def take(self, source: bytes, wanted: int, now: float) -> int:
        """How many of the wanted reports may be sent.

        Args:
            source: to whom: an address on the wire.
            wanted: how many messages were lost.
            now: seconds.
        """
        since, spent = self._spent.get(source, (now, 0))
        if now - since >= 1.0:
            since, spent = now, 0
        allowed = min(wanted, self.rate - spent)
        if allowed:
            self._spent.pop(source, None)
            while len(self._spent) >= _MAX_SOURCES:
                del self._spent[next(iter(self._spent))]
            self._spent[source] = (since, spent + allowed)
        return allowed
