"""The neighborhood table: who the neighbors are, for as long as they are heard.

Its one rule: soft state. A row lives by what its neighbor says; nobody has to be told that a
neighbor died, and nothing that was ever believed is believed for ever.

Hearing somebody is not enough. A neighbor counts as alive while it *confirms* that it hears this
member, so a link that works one way only is down at both ends. Silence is met in two steps: a
neighbor that has not confirmed for a while becomes a suspect and is probed quickly, and is given
up only when the probes stay unanswered as well. One lost packet, or two, tear nothing apart.

    heard ----------- suspect --- probe --- probe --- probe --- failed
          suspect_after         probe_interval       (fail_after since it confirmed)

A protocol keeps what it knows of a neighbor in its own subclass of `Row`, asks `inspect` at each
heartbeat, and shifts the table when its process was late: then it was this member that slept.
"""

from __future__ import annotations

from collections.abc import Iterator
from math import inf
from typing import Generic, TypeVar

from attrs import define, field, frozen

from opus_socket.core.addresses import Contact, LogicalAddress


@frozen
class Patience:
    """How silence is met, in seconds.

    Attributes:
        suspect_after: since a neighbor last confirmed, until it is a suspect.
        fail_after: since a neighbor last confirmed, until it is given up.
        probe_interval: between two probes of a suspect.
        probes: how many probes a suspect gets at the least.
    """

    suspect_after: float
    fail_after: float
    probe_interval: float
    probes: int


@define(eq=False)
class Row:
    """One neighbor.

    Attributes:
        address: its logical address.
        contact: how it is reached.
        received_at: when anything last came from it.
        confirmed_at: when it last said that it hears this member; at first, when it came in.
        suspected_at: since when it is a suspect; None when it is not.
        probed_at: when it was last probed.
    """

    address: LogicalAddress
    contact: Contact
    received_at: float
    confirmed_at: float
    suspected_at: float | None = None
    probed_at: float = -inf

    def confirm(self, now: float) -> None:
        """It said that it hears this member."""
        self.received_at = self.confirmed_at = now
        self.suspected_at = None


R = TypeVar("R", bound=Row)


@frozen
class Inspection(Generic[R]):
    """What an inspection of the table found.

    Attributes:
        probe: suspects that are to be probed now.
        failed: neighbors that are to be given up; they are still in the table.
        next_at: when the next inspection has something to find, if nobody is heard; inf for an
            empty table.
    """

    probe: tuple[R, ...]
    failed: tuple[R, ...]
    next_at: float


@define(eq=False)
class Neighborhood(Generic[R]):
    """The rows of all neighbors, by logical address.

    Attributes:
        patience: how silence is met.
        rows: the rows, in the order in which they came; read it, change it by the methods.
    """

    patience: Patience
    rows: dict[LogicalAddress, R] = field(init=False, factory=dict)
    _contacts: tuple[Contact, ...] | None = field(init=False, default=())

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[R]:
        return iter(self.rows.values())

    def __contains__(self, address: object) -> bool:
        return address in self.rows

    @property
    def contacts(self) -> tuple[Contact, ...]:
        """The neighbors' contacts, sorted by logical address."""
        if self._contacts is None:
            self._contacts = tuple([self.rows[address].contact for address in sorted(self.rows)])
        return self._contacts

    def add(self, row: R) -> None:
        """Take in a neighbor; a row of the same logical address is replaced."""
        self.rows[row.address] = row
        self._contacts = None

    def replace(self, row: R, contact: Contact) -> None:
        """A neighbor is reached otherwise from now on."""
        row.contact = contact
        self._contacts = None

    def remove(self, address: LogicalAddress) -> R | None:
        """Forget a neighbor; returns its row, None if there was none."""
        row = self.rows.pop(address, None)
        if row is not None:
            self._contacts = None
        return row

    def clear(self) -> None:
        """Forget every neighbor."""
        self.rows.clear()
        self._contacts = ()

    def inspect(self, now: float) -> Inspection[R]:
        """See who has been silent for too long.

        Args:
            now: seconds; a probe that is due counts as sent now.
        """
        patience = self.patience
        probe: list[R] = []
        failed: list[R] = []
        next_at = inf
        for row in self.rows.values():
            due = row.confirmed_at + patience.suspect_after
            if due > now:
                row.suspected_at = None
            else:
                due = self._inspect_suspect(row, now, probe, failed)
            next_at = min(next_at, due)
        return Inspection(tuple(probe), tuple(failed), next_at)

    def _inspect_suspect(self, row: R, now: float, probe: list[R], failed: list[R]) -> float:
        """Probe a suspect, or give it up; returns when to look again."""
        patience = self.patience
        if row.suspected_at is None:
            row.suspected_at = now
            row.probed_at = -inf
        end = max(
            row.confirmed_at + patience.fail_after,
            row.suspected_at + patience.probes * patience.probe_interval,
        )
        if end <= now:
            failed.append(row)
            return inf
        if row.probed_at + patience.probe_interval <= now:
            row.probed_at = now
            probe.append(row)
        return min(end, row.probed_at + patience.probe_interval)

    def doubt(self, row: R, now: float) -> None:
        """Make a neighbor a suspect at the next inspection: something hints that it failed.

        It is given up soon, unless it confirms.
        """
        row.confirmed_at = min(row.confirmed_at, now - self.patience.suspect_after)

    def shift(self, lateness: float, now: float) -> None:
        """Forgive the silence of a time in which this member itself did not listen.

        Args:
            lateness: how long that was, in seconds.
            now: seconds; what was heard since is not moved into the future.
        """
        for row in self.rows.values():
            row.received_at = min(now, row.received_at + lateness)
            row.confirmed_at = min(now, row.confirmed_at + lateness)
            row.probed_at = min(now, row.probed_at + lateness)
            if row.suspected_at is not None:
                row.suspected_at = min(now, row.suspected_at + lateness)
