"""The admission window: how many may join an overlay at the same time.

Its one rule: at most max(8, a quarter of the confirmed members) join at once. Without it, all who
start together are given the founder, the only confirmed member, and 10,000 joins took over 150
seconds instead of 8 (measured with prototypes). Who has to wait takes a ticket and is told when
its turn will come, so that it asks seldom; nothing is kept for those who wait.
"""

from __future__ import annotations

from random import Random

from attrs import define, field

from opus_socket.core.addresses import Contact

LEAST_WINDOW = 8
SHORTEST_WAIT = 0.02
LONGEST_WAIT = 4.0
EAGERNESS = 0.9
"""The share of the expected time after which one is to ask again: an early question costs two
small datagrams, a late one leaves the window empty."""

SMOOTHING = 0.05
"""The weight of the newest join in the average duration of a join."""


@define(eq=False)
class Admission:
    """Who is joining one overlay, and who waits to.

    Args:
        expiry: seconds after which who did not confirm is no longer waited for.
        limit: joiners at a time, whatever the number of members.

    Attributes:
        duration: seconds from admission to confirmation, on average.
    """

    _expiry: float
    _limit: int
    duration: float = 0.05
    _admitted: dict[Contact, float] = field(factory=dict, init=False)
    _issued: int = field(default=0, init=False)
    _served: int = field(default=0, init=False)
    _joins: int = field(default=0, init=False)
    _asked: float = field(default=0.0, init=False)

    def __len__(self) -> int:
        return len(self._admitted)

    def window(self, confirmed: int) -> int:
        """How many may join at the same time; a founder is alone."""
        if confirmed == 0:
            return 1
        return min(max(LEAST_WINDOW, confirmed // 4), self._limit)

    def admit(self, joiner: Contact, ticket: int, confirmed: int, now: float) -> bool:
        """Whether this joiner may join now, or already may."""
        self.expire(now)
        if joiner in self._admitted:
            return True
        if len(self._admitted) >= self.window(confirmed):
            return False
        self._admitted[joiner] = now
        if 0 < ticket <= self._issued:
            self._served = min(self._served + 1, self._issued)
        return True

    def wait(self, ticket: int, confirmed: int, rng: Random, now: float) -> tuple[int, float]:
        """The ticket of a joiner that has to wait, and after how many seconds it is to ask again.

        The members grow by one window in each duration of a join, until the ticket's turn comes.
        """
        self._asked = now
        if not 0 < ticket <= self._issued:
            self._issued += 1
            ticket = self._issued
        ahead = max(1, ticket - self._served)
        rounds = 0.0
        while ahead > 0:
            window = self.window(confirmed)
            rounds += min(1.0, ahead / window)
            ahead -= window
            confirmed += window
        oldest = next(iter(self._admitted.values()), now)
        # While a join is under way for longer than others took, theirs says little.
        duration = max(self.duration, (now - oldest) / 2)
        seconds = EAGERNESS * rounds * duration * rng.uniform(0.9, 1.1)
        shortest = max(SHORTEST_WAIT, duration / 4)
        return ticket, min(max(seconds, shortest), LONGEST_WAIT)

    def confirm(self, joiner: Contact, now: float) -> bool:
        """A joiner has become a member; whether it had been admitted."""
        since = self._admitted.pop(joiner, None)
        if since is None:
            return False
        self._joins += 1
        # A founder's join, the first, takes no time: it has nobody to meet.
        if self._joins > 1:
            self.duration += (now - since - self.duration) * max(SMOOTHING, 1 / self._joins)
        return True

    def give_up(self, joiner: Contact) -> None:
        """A joiner will not become a member."""
        self._admitted.pop(joiner, None)

    def expire(self, now: float) -> None:
        """Wait no longer for those who were admitted too long ago."""
        while self._admitted:
            # The oldest, because who is in is not put in again.
            oldest = next(iter(self._admitted))
            if now < self._admitted[oldest] + self._expiry:
                break
            del self._admitted[oldest]
        if now > self._asked + 2 * LONGEST_WAIT:
            # Whoever still waited would have asked: those who hold tickets have gone.
            self._served = self._issued
