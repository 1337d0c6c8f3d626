"""Whom a member that is alone asks to find its place, and how soon it asks again.

Its one rule: the nearest first, because its NewNode has the shortest way; then the next nearest,
so that one dead contact, or one lost message, costs one wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf

from attrs import define, field

from opus_delaunay.geometry import squared_distance
from opus_delaunay.settings import DelaunaySettings
from opus_socket.core.addresses import Contact, LogicalAddress


@define(eq=False)
class Search:
    """One search for a place at an address.

    Attributes:
        address: where the place is to be.
    """

    address: LogicalAddress
    _settings: DelaunaySettings
    _wait: float = field(init=False)
    _known: Sequence[Contact] = field(init=False, default=())
    _tried: list[Contact] = field(init=False, factory=list)
    _attempts: int = field(init=False, default=0)
    _asked_at: float = field(init=False, default=-inf)

    def __attrs_post_init__(self) -> None:
        self._wait = self._settings.join_retry

    def found(self, members: Sequence[Contact]) -> None:
        """Members were found, instead of those that were found before."""
        if not self._known:
            # Until now nobody answered. Now the way is short again.
            self._wait = self._settings.join_retry
        self._known = members

    def pick(self, now: float) -> tuple[Contact, bool] | None:
        """Whom to ask now, and whether the NewNode is to be acknowledged on its way.

        The first is not: where nothing is lost, that would nearly double the messages of a join.
        None if nobody is known, or if somebody was asked just now.
        """
        if not self._known or now < self._asked_at + self._settings.join_retry / 2:
            return None
        fresh = [contact for contact in self._known if contact not in self._tried]
        if not fresh:
            self._tried.clear()
        nearest = min(fresh or self._known, key=self._distance)
        self._tried.append(nearest)
        self._asked_at = now
        self._attempts += 1
        return nearest, self._attempts > 1

    def wait(self) -> float:
        """Seconds until the search is to be repeated; twice as long the next time."""
        wait = self._wait
        self._wait = min(2 * wait, self._settings.join_retry_limit)
        return wait

    def _distance(self, contact: Contact) -> tuple[bool, int]:
        place = contact.address
        if place is None or len(place) != len(self.address):
            return True, 0
        return False, squared_distance(self.address, place)
