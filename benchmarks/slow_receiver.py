"""A slow receiver: one of sixteen takes nothing. What it costs the others, and memory.

Its one rule: the others lose nothing, or the benchmark fails. One sender and sixteen receivers are
in a process of their own, with connections between all that are neighbors; the one that stalls is
the one that relays to most others, and its application never receives. The sender keeps a window of
64 KiB with those that do.

    python benchmarks/slow_receiver.py [--policy drop evict block] [--seconds 5] [--peers] [--json]

- `slow_drop`, `slow_evict`, `slow_block`: thousand messages a second at each of the others, beside
  runs in which nobody stalls;
- `..._kept`: the percentage of it that is left, beside the goal of 90;
- `..._memory`: by how many MiB the process grew, beside the goal of 32;
- `slow_block_pause`: the longest time without any progress, in seconds: with *block* the sender
  waits until the stall bound acts, and then goes on. Beside it, that bound (`stall_timeout`);
- `slow_block_after`: what `slow_block` is without that pause.

With `--peers`, ZeroMQ's PUB and Zenoh, which drop, are measured likewise and stand beside `drop`.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence

import trio
from _common import Measurement, MeasurementError, Printer, run, ungrouped
from _overlay import open_server
from _remote import Elsewhere, open_program
from _stalled import RECEIVERS, SIZE
from attrs import frozen

from opus_socket.config import LoggingConfig
from opus_socket.logs import configure_logging

GOAL_MEMORY = 32.0
GOAL_KEPT = 90.0
LEAST_MEMORY = 0.01
STALL_TIMEOUT = 2.0
ENOUGH_FOR_STALL = 6.0
START_AND_END = 60.0
NOBODY = "nobody stalls"
NOTES = {
    "ZeroMQ": "PUB drops for a SUB whose queue of a thousand messages is full; a star",
    "Zenoh": "drops when congested; the callback that takes nothing has a thread; a star",
}


@frozen
class Runs:
    """What came of a system's runs.

    Attributes:
        calm: thousand messages a second at each receiver while nobody stalls, one a run.
        rate: the same at the others while one stalls.
        pause: the longest time without progress then, in seconds.
        memory: by how many MiB the process grew then.
    """

    calm: Sequence[float]
    rate: Sequence[float]
    pause: Sequence[float]
    memory: Sequence[float]

    @property
    def kept(self) -> list[float]:
        """The share of the rate that is left when one stalls, in percent."""
        return [100 * rate / calm for rate, calm in zip(self.rate, self.calm, strict=True)]


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    policies = ["drop", "evict", "block"]
    parser.add_argument("--policy", nargs="+", choices=policies, default=policies)
    parser.add_argument("--runs", type=int, default=5, help="of each, in turn (5)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a run (5); block takes 6")
    parser.add_argument("--peers", action="store_true", help="other systems beside it, too")
    parser.add_argument("--json", action="store_true", help="one object a measurement")
    given = parser.parse_args()
    configure_logging(LoggingConfig(level="error"))
    printer = Printer(given.json)
    for policy in given.policy:
        seconds = max(given.seconds, ENOUGH_FOR_STALL) if policy == "block" else given.seconds
        several = (policy, given.runs, seconds)
        run(functools.partial(measure, printer, *several, peers=given.peers))
    printer.finish()


async def measure(printer: Printer, policy: str, runs: int, seconds: float, *, peers: bool) -> None:
    """Measure one policy, and with *drop* the peers, which have no other."""
    name = f"slow_{policy}"
    ours = await take_turns("overlay", policy, runs, seconds)

    def add(
        what: str,
        unit: str,
        values: Sequence[float],
        beside: str,
        beside_values: Sequence[float],
        note: str = "",
    ) -> None:
        printer.add(
            Measurement(name + what, SIZE, RECEIVERS + 1, unit, values, beside, beside_values, note)
        )

    add("", "k messages/s", ours.rate, NOBODY, ours.calm)
    add("_kept", "%", ours.kept, "goal", [GOAL_KEPT])
    add("_memory", "MiB", ours.memory, "goal", [GOAL_MEMORY])
    if policy == "block":
        after = [
            rate * seconds / (seconds - min(pause, seconds / 2))
            for rate, pause in zip(ours.rate, ours.pause, strict=True)
        ]
        add("_pause", "s", ours.pause, "stall_timeout", [STALL_TIMEOUT])
        add("_after", "k messages/s", after, NOBODY, ours.calm)
    if policy == "drop" and peers:
        for peer, note in NOTES.items():
            try:
                with ungrouped(MeasurementError):
                    theirs = await take_turns(peer, policy, runs, seconds)
            except MeasurementError as error:
                printer.skip(peer, str(error))
                continue
            add("", "k messages/s", ours.rate, peer, theirs.rate, note)
            add("_kept", "%", ours.kept, peer, theirs.kept, note)
            add("_memory", "MiB", ours.memory, peer, theirs.memory, note)


async def take_turns(system: str, policy: str, runs: int, seconds: float) -> Runs:
    """What came of runs without and with a receiver that stalls, one after the other."""
    calm: list[float] = []
    rates: list[float] = []
    pauses: list[float] = []
    memories: list[float] = []
    for _ in range(runs):
        rate, _, _ = await measure_once(system, policy, False, seconds)
        calm.append(rate)
        rate, pause, memory = await measure_once(system, policy, True, seconds)
        rates.append(rate)
        pauses.append(pause)
        memories.append(max(LEAST_MEMORY, memory))
    return Runs(calm, rates, pauses, memories)


async def measure_once(
    system: str, policy: str, stalls: bool, seconds: float
) -> tuple[float, float, float]:
    """The thousand messages a second, the longest pause and the memory of one run."""
    async with open_server() as server:
        task = {
            "system": system,
            "server": server,
            "policy": policy,
            "stalls": stalls,
            "seconds": seconds,
        }
        async with open_program("_stalled.py", task) as streams:
            with trio.move_on_after(seconds + START_AND_END):
                match await Elsewhere(*streams).answer():
                    case [float(rate), float(pause), float(memory)]:
                        return rate / 1000, pause, memory
                    case other:
                        raise MeasurementError(f"a run said {other!r}")
            raise MeasurementError(f"a run of {seconds:g} s did not end")


if __name__ == "__main__":
    main()
