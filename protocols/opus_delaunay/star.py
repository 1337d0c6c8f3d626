"""One member's star: its ring and what it knows of each neighbor, and the routes that follow.

Its one rule: the ring and the table always hold the same members, so geometry is asked of the
one and soft state of the other, and both are changed here only.
"""

from __future__ import annotations

from attrs import define, field

from opus_delaunay import compass
from opus_delaunay.geometry import Ring, squared_distance
from opus_delaunay.messages import Hello
from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.neighborhood import Inspection, Neighborhood, Patience, Row
from opus_socket.core.node import Mode

MOST_HIDDEN = 256
"""How many hidden members one star keeps in mind."""


@define(eq=False)
class Neighbor(Row):
    """One neighbor, and what it and this member last told each other.

    Attributes:
        hello: the last Hello that came from it.
        names: whom that Hello names, other than this member: where they are, and their contacts.
        mutual: whether that Hello says that it hears this member.
        rejected: whether it has rejected this member since.
        sent: the last Hello that went to it.
        sent_of: the number of the star that `sent` was made of.
    """

    hello: Hello | None = None
    names: tuple[tuple[LogicalAddress, Contact], ...] = ()
    mutual: bool = False
    rejected: bool = False
    sent: Hello | None = None
    sent_of: int = -1

    @property
    def steady(self) -> bool:
        """Whether its last Hello, when it comes again, means only that it is still there."""
        return self.mutual and self.suspected_at is None and not self.rejected


@define(eq=False)
class Star:
    """The ring of one member and the table of its neighbors.

    Attributes:
        address: the member in the middle.
        ring: the neighbors as geometry sees them.
        table: the neighbors as soft state sees them.
        number: grows whenever a neighbor comes, goes, becomes a suspect or none any more, or is
            reached otherwise.
    """

    address: LogicalAddress
    ring: Ring[LogicalAddress]
    table: Neighborhood[Neighbor]
    number: int = field(init=False, default=0)
    _hidden: dict[LogicalAddress, None] = field(init=False, factory=dict)

    @classmethod
    def around(cls, address: LogicalAddress, patience: Patience) -> Star:
        """The star of a member that has no neighbor yet."""
        return cls(address, Ring(address), Neighborhood(patience))

    def hides(self, x: LogicalAddress) -> bool:
        """Whether x fails the neighbor test, because others stand between.

        Whoever is hidden stays so until a neighbor goes, however many come; so it is kept in
        mind, and the same names that come again and again are not tested again and again.
        """
        if x in self._hidden:
            return True
        if self.ring.passes(x):
            return False
        if len(self._hidden) >= MOST_HIDDEN:
            self._hidden.clear()
        self._hidden[x] = None
        return True

    @property
    def hidden(self) -> int:
        """How many are kept in mind because they are hidden."""
        return len(self._hidden)

    def insert(
        self, address: LogicalAddress, contact: Contact, now: float
    ) -> tuple[Neighbor, list[Neighbor]]:
        """Take in a member that passes; returns its row, and the rows of those that it drops."""
        dropped = [self.table.rows[gone] for gone in self.ring.insert(address)]
        for gone in dropped:
            self.table.remove(gone.address)
        row = Neighbor(address, contact, now, now)
        self.table.add(row)
        self.number += 1
        return row, dropped

    def remove(self, row: Neighbor) -> None:
        """Take out a neighbor."""
        self.table.remove(row.address)
        self.ring.remove(row.address)
        self.number += 1
        self._hidden.clear()

    def replace(self, row: Neighbor, contact: Contact) -> None:
        """A neighbor is reached otherwise from now on."""
        self.table.replace(row, contact)
        self.number += 1

    def confirm(self, row: Neighbor, now: float) -> None:
        """A neighbor said that it hears this member."""
        if row.suspected_at is not None:
            self.number += 1
        row.confirm(now)

    def inspect(self, now: float) -> Inspection[Neighbor]:
        """See who has been silent for too long."""
        inspection = self.table.inspect(now)
        if inspection.probe:
            self.number += 1
        return inspection

    def wedge(self, x: LogicalAddress) -> tuple[Contact | None, Contact | None]:
        """The neighbors next to x, as a Hello names them: see `Ring.wedge`."""
        rows = self.table.rows
        clockwise, counterclockwise = self.ring.wedge(x)
        return (
            None if clockwise is None else rows[clockwise].contact,
            None if counterclockwise is None else rows[counterclockwise].contact,
        )

    def wedge_for_reject(self, x: LogicalAddress) -> tuple[Contact | None, Contact | None]:
        """The neighbors next to x, as a Reject names them: see `Ring.wedge_for_reject`."""
        rows = self.table.rows
        clockwise, counterclockwise = self.ring.wedge_for_reject(x)
        return (
            None if clockwise is None else rows[clockwise].contact,
            None if counterclockwise is None else rows[counterclockwise].contact,
        )

    def nearer(self, x: LogicalAddress) -> Neighbor | None:
        """The neighbor nearest to x of those strictly nearer to x than this member.

        A suspect only when there is nobody else.
        """
        own = squared_distance(self.address, x)
        best: Neighbor | None = None
        least = (True, own, self.address)
        for address, row in self.table.rows.items():
            distance = squared_distance(address, x)
            if distance < own:
                rank = (row.suspected_at is not None, distance, address)
                if rank < least:
                    best, least = row, rank
        return best

    def is_known_nearer(self, x: LogicalAddress) -> bool:
        """Whether a neighbor nearer to x than this member told that it knows x.

        It did so by naming x next to this member. If it has lost x since, it has taken care of x
        itself before; and as whoever is relied on is strictly nearer, this cannot go in a circle.
        """
        own = squared_distance(self.address, x)
        return any(
            named == x and squared_distance(address, x) < own
            for address, row in self.table.rows.items()
            if row.suspected_at is None
            for named, _ in row.names
        )

    @property
    def leads(self) -> bool:
        """Whether every neighbor's coordinates are smaller, compared by y first."""
        x, y = self.address
        # Nearly always one of the first is larger.
        for other in self.table.rows:
            if other[1] >= y and (other[1] > y or other[0] > x):
                return False
        return True

    @property
    def suspects(self) -> list[LogicalAddress]:
        """The neighbors that have not been heard for a while."""
        rows = self.table.rows.items()
        return [address for address, row in rows if row.suspected_at is not None]

    def parent(self, root: LogicalAddress) -> LogicalAddress | None:
        """The neighbor in the direction closest to the root's; a suspect only if all are."""
        suspects = self.suspects
        if not suspects:
            return compass.parent(self.address, self.ring, root)
        trusted = [address for address in self.ring if address not in suspects]
        return compass.parent(self.address, trusted or self.ring, root)

    def next_hops(
        self,
        mode: Mode,
        key: LogicalAddress,
        arrived_from: LogicalAddress | None,
        settled: bool,
    ) -> tuple[LogicalAddress, ...]:
        """Where a message goes next: see `Node.next_hops`.

        A multicast goes to every neighbor while the star is not settled or has suspects, because
        the tree is not to be trusted then; duplicates end in the forwarding engines.
        """
        match mode:
            case Mode.UNICAST:
                parent = self.parent(key)
                return () if parent is None else (parent,)
            case Mode.ANYCAST:
                row = self.nearer(key)
                return () if row is None else (row.address,)
            case Mode.MULTICAST if settled and not self.suspects:
                children = compass.children(self.address, self.ring, key)
                return tuple([child for child in children if child != arrived_from])
            case _:
                return tuple([address for address in sorted(self.ring) if address != arrived_from])
