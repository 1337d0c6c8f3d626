"""The butterfly as data flows, and its members' places (algorithm notes, section 21).

The one rule: its nine edges are neighbors in the Delaunay triangulation of these places. Three more
are (A and D, C and E, B and E), and F and G; no flow uses them.
"""

from __future__ import annotations

from opus_socket.core.addresses import LogicalAddress
from opus_socket.services.coding import Branch, Flow, Rule

APP = 21
PLACES = {
    "A": (500, 900),
    "B": (200, 700),
    "C": (800, 710),
    "D": (500, 550),
    "E": (505, 300),
    "F": (150, 100),
    "G": (850, 105),
}
ADDRESSES = {name: LogicalAddress(place) for name, place in PLACES.items()}


def flows(*, coded: bool) -> dict[str, Flow]:
    """What each member does, with coding at D or without."""
    to = ADDRESSES
    joins = Branch(to["E"], Rule.ADD if coded else Rule.HALF)
    return {
        "A": Flow(APP, (Branch(to["B"], Rule.STREAM, 0), Branch(to["C"], Rule.STREAM, 1))),
        "B": Flow(APP, (Branch(to["D"]), Branch(to["F"]))),
        "C": Flow(APP, (Branch(to["D"]), Branch(to["G"]))),
        "D": Flow(APP, (joins,), decode=True),
        "E": Flow(APP, (Branch(to["F"]), Branch(to["G"]))),
        "F": Flow(APP, decode=True),
        "G": Flow(APP, decode=True),
    }
