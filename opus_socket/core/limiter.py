"""What is given to each source in a second, at most.

Its one rule: what somebody asks for is answered so seldom that asking costs more than it causes.
"""

from __future__ import annotations

from attrs import define, field

_MAX_SOURCES = 1024


@define(eq=False)
class SourceLimiter:
    """Allows each source so much a second; remembers at most 1,024 sources.

    Args:
        rate: how much: messages, or bytes.
    """

    rate: int
    _spent: dict[bytes, tuple[float, int]] = field(factory=dict, init=False)

    def take(self, source: bytes, wanted: int, now: float) -> int:
        """How much of what is wanted is allowed; it counts as given.

        Args:
            source: who asks: an address on the wire.
            wanted: how much.
            now: seconds.
        """
        since, spent = self._spent.pop(source, (now, 0))
        if now - since >= 1.0:
            since, spent = now, 0
        allowed = min(wanted, self.rate - spent)
        while len(self._spent) >= _MAX_SOURCES:
            del self._spent[next(iter(self._spent))]
        self._spent[source] = (since, spent + allowed)
        return allowed
