"""What a Delaunay node counts.

Its one rule: counters only grow, gauges say how it is now; both are read as one frozen value.
"""

from __future__ import annotations

from attrs import define, frozen

from opus_delaunay.states import State, SubState


@frozen
class DelaunayStatistics:
    """Gauges and counters of one Delaunay node, since it was made."""

    state: State
    """What the node is to the overlay."""
    sub_state: SubState
    """How settled it is."""
    neighbors: int
    """Members in its ring."""
    suspects: int
    """Neighbors that have been silent for more than two heartbeats."""
    candidates: int
    """Members that were asked to become neighbors."""
    handovers: int
    """Members that are being handed on and not acknowledged yet."""
    greetings: int
    """Hellos sent."""
    repeated: int
    """Those of them that a beat asked for and that said nothing new."""
    rejections: int
    """Rejects sent."""
    handed_over: int
    """Members that left the ring and were handed on by a NewNode."""
    relied_on: int
    """Members that left the ring while somebody nearer to them was known to know them."""
    forwarded: int
    """NewNodes passed on for others."""
    dead_ends: int
    """NewNodes dropped because nobody nearer was left to take them, or because they went in a
    circle."""
    failed: int
    """Neighbors given up because they fell silent."""
    silent: int
    """Candidates that never answered."""
    malformed: int
    """Messages dropped because a contact in them has no Delaunay coordinates, or is this member
    elsewhere."""
    overflows: int
    """NewNodes and Hellos refused because there were too many candidates or neighbors."""


@define(eq=False)
class Counters:
    """The counters while they grow; see `DelaunayStatistics`."""

    greetings: int = 0
    repeated: int = 0
    rejections: int = 0
    handed_over: int = 0
    relied_on: int = 0
    forwarded: int = 0
    dead_ends: int = 0
    failed: int = 0
    silent: int = 0
    malformed: int = 0
    overflows: int = 0
