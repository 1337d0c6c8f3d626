"""The states of a Delaunay node, and what changes them, as data.

Its one rule: within the overlay the state follows from the ring alone. After each event the node
compares itself with its neighbors, and the table below says where that leads. A change that the
table lacks for a state is ignored there.

A member is a *leader* when no neighbor has larger coordinates, compared by y first. When all
stars agree with each other and a single member is a leader, the stars are the Delaunay
triangulation (the argument of star splaying, Shewchuk 2005); so two sheets of an overlay, or the
parts that a partition left, always show as two leaders. Leaders, and nobody else but joiners, ask
the rendezvous for other members. That is all that repair across sheets needs.

Source: the states and sub-states are those of HyperCast's Delaunay protocol.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """What a node is to the overlay."""

    STOPPED = "stopped"
    LEADER_ALONE = "leader alone"
    LEADER_WITH_NEIGHBOR = "leader with neighbor"
    NOT_LEADER = "not leader"
    LEAVING = "leaving"


class SubState(StrEnum):
    """How settled a node is.

    Stable: everybody whom the neighbors name as next to this node is a neighbor, or known to be
    hidden by others. With candidate: so it is, but somebody who would be a neighbor has not
    answered yet.
    """

    STABLE = "stable"
    STABLE_WITH_CANDIDATE = "stable with candidate"
    NOT_STABLE = "not stable"


class Change(StrEnum):
    """What may have happened to a node."""

    START = "start"
    ALONE = "no neighbor"
    LEADS = "all neighbors smaller"
    FOLLOWS = "a larger neighbor"
    MOVE = "draws another address"
    REFUSAL = "its address is taken"
    LEAVE = "leave"
    SILENCE = "a heartbeat has passed"


_IN_THE_OVERLAY = {
    Change.ALONE: State.LEADER_ALONE,
    Change.LEADS: State.LEADER_WITH_NEIGHBOR,
    Change.FOLLOWS: State.NOT_LEADER,
    Change.MOVE: State.LEADER_ALONE,
    Change.REFUSAL: State.STOPPED,
    Change.LEAVE: State.LEAVING,
}

TRANSITIONS: dict[State, dict[Change, State]] = {
    State.STOPPED: {Change.START: State.LEADER_ALONE},
    State.LEADER_ALONE: _IN_THE_OVERLAY,
    State.LEADER_WITH_NEIGHBOR: _IN_THE_OVERLAY,
    State.NOT_LEADER: _IN_THE_OVERLAY,
    State.LEAVING: {Change.START: State.LEADER_ALONE, Change.SILENCE: State.STOPPED},
}
