"""Delaunay triangulation overlays: every member knows its neighbors, and so every tree.

Members stand at points of a plane and are joined to their neighbors in the exact Delaunay
triangulation; routes and multicast trees follow from coordinates alone.

    node.py        one member: its stay in the overlay, timers, state
    upkeep.py      what keeps the star of neighbors true
    speech.py      what a member says to others
    star.py        the ring and the table of neighbors, and the routes
    geometry.py    exact predicates, and the ring
    compass.py     parent and children for any root
    candidates.py  members that are not neighbors (yet, or any more)
    handover.py    members handed on until somebody nearer has them
    search.py      whom a member that is alone asks
    states.py      the state table
    messages.py, settings.py, statistics.py
"""

from __future__ import annotations

from opus_delaunay.messages import MESSAGES
from opus_delaunay.node import DelaunayNode
from opus_delaunay.settings import LAS, DelaunaySettings, parse_address
from opus_socket.core.node import ProtocolSpec

__all__ = ["SPEC", "DelaunayNode", "DelaunaySettings"]

SPEC = ProtocolSpec(
    name="delaunay",
    summary="Delaunay triangulation of points in the plane, with compass routing",
    las=LAS,
    settings=DelaunaySettings,
    messages=MESSAGES,
    create=DelaunayNode,
    parse_address=parse_address,
)
