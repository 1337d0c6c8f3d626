"""What the processes of a demonstration say to each other, one JSON object a line.

Its one rule: an order goes from the demonstration to a process of members, a report comes back;
the end of the orders is the order to end. Times are the system's monotonic clock, which all
processes of a machine share.
"""

from __future__ import annotations

from typing import TypeVar

import cattrs
from attrs import frozen

Address = tuple[int, ...]


@frozen
class Begin:
    """Let these members join.

    Attributes:
        overlay_id: of the overlay.
        server: the rendezvous server, `HOST:PORT`.
        protocol: of the overlay.
        members: their numbers.
    """

    overlay_id: str
    server: str
    protocol: str
    members: tuple[int, ...]


@frozen
class Look:
    """Say who your members' neighbors are, and their parents in the tree of this root."""

    root: Address


@frozen
class Multicast:
    """Let this member send this file to all."""

    member: int
    file: str


@frozen
class Joined:
    """A member has joined: its logical address, and how many seconds it took."""

    member: int
    address: Address
    seconds: float


@frozen
class Place:
    """Where a member stands.

    Attributes:
        member: its number.
        address: its logical address.
        neighbors: those of its neighbors.
        parent: its parent's, for the root that was asked about; None at the root.
    """

    member: int
    address: Address
    neighbors: tuple[Address, ...]
    parent: Address | None


@frozen
class Places:
    """The answer to `Look`."""

    places: tuple[Place, ...]


@frozen
class Progress:
    """How many bytes of the file each member has: pairs of number and bytes."""

    received: tuple[tuple[int, int], ...]


@frozen
class Finished:
    """A member has the whole file, or has sent it.

    Attributes:
        member: its number.
        size: bytes of the file.
        sha256: their digest.
        began: when the sender began; 0 at receivers.
        ended: when the last byte was there.
    """

    member: int
    size: int
    sha256: str
    began: float
    ended: float


@frozen
class Failed:
    """The process cannot go on.

    Attributes:
        problem: why, for the user.
        by_configuration: whether it is the configuration's fault.
    """

    problem: str
    by_configuration: bool


Order = Begin | Look | Multicast
Report = Joined | Places | Progress | Finished | Failed
Word = TypeVar("Word")
_ORDERS: dict[str, type[Order]] = {"begin": Begin, "look": Look, "multicast": Multicast}
_REPORTS: dict[str, type[Report]] = {
    "joined": Joined,
    "places": Places,
    "progress": Progress,
    "finished": Finished,
    "failed": Failed,
}


def pack(word: Order | Report) -> dict[str, object]:
    """What is to be written for an order or a report."""
    return {"kind": type(word).__name__.lower(), **cattrs.unstructure(word)}


def order(value: object) -> Order:
    """The order that was read.

    Raises:
        ValueError: it is none.
    """
    return _unpack(value, _ORDERS)


def report(value: object) -> Report:
    """The report that was read.

    Raises:
        ValueError: it is none.
    """
    return _unpack(value, _REPORTS)


def _unpack(value: object, kinds: dict[str, type[Word]]) -> Word:
    match value:
        case {"kind": str(kind), **rest} if kind in kinds:
            return cattrs.structure(rest, kinds[kind])
        case _:
            raise ValueError(f"not one of {', '.join(kinds)}: {value!r}")
