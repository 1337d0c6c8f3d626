"""The figures of a simulation in words: what was counted, in which unit, from when on.

Its one rule: the names are those of the JSON object, so what is explained here holds there.
"""

from __future__ import annotations

from collections.abc import Mapping

from opus_socket.simulator import Report, Scenario
from opus_socket.simulator.checkers.trees import Summary


def in_words(report: Report, scenario: Scenario, alive: int) -> Mapping[str, str]:
    """What each figure of a report says, by its name and in its order.

    Args:
        report: what came of it.
        scenario: what was simulated.
        alive: how many members are alive at its end.
    """
    nodes = f"{report.nodes} members"
    if alive < report.nodes:
        nodes += f", of whom {alive} survived the crash: the figures of the tree are theirs"
    end = "" if report.legitimate else ", or else to the end"
    tree = {
        "stretch": _spread(report.stretch, "delay along the tree / direct delay from the root"),
        "stress": _spread(report.stress, "copies of one multicast on a member's access link"),
        "cost": _spread(report.cost, "milliseconds from parent to child, an edge of the tree"),
    }
    return {
        "protocol": report.protocol,
        "nodes": nodes,
        "seed": str(report.seed),
        "legitimate": _verdict(report, alive),
        "time_to_legitimate_s": _time(report, scenario),
        "messages_per_join": f"{report.messages_per_join:.3f} protocol messages a member, without "
        f"periodic Hellos, from the first join until the overlay of all was legitimate{end}",
        "rendezvous_messages_per_join": f"{report.rendezvous_messages_per_join:.3f} messages a "
        "member to and from the rendezvous, in the same time",
        "events": f"{report.events} handled by the simulator",
        "events_per_s": f"{report.events_per_s:.1f} of them a second of the wall clock",
        "wall_s": f"{report.wall_s:.3f} seconds of the wall clock",
        "trace_sha256": f"{report.trace_sha256} of all that happened",
        "root": "- (there is no tree to measure)"
        if report.root is None
        else f"member {report.root}, drawn by the seed, from which a multicast takes this tree:",
        **tree,
    }


def _verdict(report: Report, alive: int) -> str:
    tables = f"every table was exactly right ({alive} {'member' if alive == 1 else 'members'})"
    if report.legitimate:
        return f"yes: for three heartbeats {tables}"
    return f"no: there were never three heartbeats in which {tables}"


def _time(report: Report, scenario: Scenario) -> str:
    if report.time_to_legitimate_s is None:
        return "- (it never was)"
    since = "the last join"
    if scenario.partition:
        since = f"the end of the partition of {scenario.partition:g} s"
    elif scenario.crash:
        since = "the crash"
    return (
        f"{report.time_to_legitimate_s:.3f} virtual seconds, from {since} until every table was "
        "right and stayed so"
    )


def _spread(figures: Summary | None, meaning: str) -> str:
    if figures is None:
        return "-"
    return f"mean {figures.mean:.3f}, p90 {figures.p90:.3f}, max {figures.maximum:.3f} ({meaning})"
