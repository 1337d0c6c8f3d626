r"""Network coding over emulated bandwidth: the butterfly of iOverlay, with coding and without.

Its one rule: what counts is what tells a decoder something new. Seven members in one process, each
link a TCP connection; A sends 400 kB/s in all, split into the streams a and b, and D 200 kB/s.

    python benchmarks/butterfly.py [--json] [--quick] [--runs 3] [--seconds 5] [--unit 200000]

            A            without coding D sends on half of each stream,
          /   \          with coding their sum
         B     C
        / \   / \
       |    D    |
       |    |    |
       |    E    |
        \  / \  /
          F    G

- `butterfly_D`, `_F`, `_G`: kB/s of innovative bytes at the members that decode, without coding;
  `butterfly_E`: what the helper receives. Beside them, what arithmetic says of a unit of 200: 400,
  300, 300 and 200;
- `butterfly_coded_...`: the same with coding: 400, 400, 400 and 200. F and G have the maximum flow
  from A, which no way of sending blocks on as they are can reach for both.

Source: iOverlay, Figure 4; the edges are inferred from its throughputs.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Mapping

import trio
from _common import Measurement, MeasurementError, Printer, run
from _overlay import form, open_server, tcp_config

from opus_socket import LogicalAddress, OverlayConfig, OverlayHost, OverlaySocket, open_host
from opus_socket.config import LoggingConfig
from opus_socket.logs import configure_logging
from opus_socket.services.coding import Branch, CodingStatistics, Flow, Rule, Send

APP = 1
BLOCK = 5_000
WARM_UP = 3.0
# Places of which the Delaunay triangulation has the butterfly's nine edges, and four more.
PLACES = {
    "A": (500, 900),
    "B": (200, 700),
    "C": (800, 710),
    "D": (500, 550),
    "E": (505, 300),
    "F": (150, 100),
    "G": (850, 105),
}
# In units of what one stream carries.
EXPECTED = {
    False: {"D": 2.0, "E": 1.0, "F": 1.5, "G": 1.5},
    True: {"D": 2.0, "E": 1.0, "F": 2.0, "G": 2.0},
}


def flows(*, coded: bool) -> Mapping[str, Flow]:
    """What each member does with packets."""
    to = {name: LogicalAddress(place) for name, place in PLACES.items()}
    half = Branch(to["E"], Rule.ADD if coded else Rule.HALF)
    return {
        "A": Flow(APP, (Branch(to["B"], Rule.STREAM, 0), Branch(to["C"], Rule.STREAM, 1))),
        "B": Flow(APP, (Branch(to["D"]), Branch(to["F"]))),
        "C": Flow(APP, (Branch(to["D"]), Branch(to["G"]))),
        "D": Flow(APP, (half,), decode=True),
        "E": Flow(APP, (Branch(to["F"]), Branch(to["G"]))),
        "F": Flow(APP, decode=True),
        "G": Flow(APP, decode=True),
    }


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--unit", type=int, default=200_000, help="bytes/s of a stream (200000)")
    parser.add_argument("--runs", type=int, default=3, help="of each, in turn (3)")
    parser.add_argument("--seconds", type=float, default=5.0, help="of a run (5)")
    parser.add_argument("--quick", action="store_true", help="one run of two seconds each")
    parser.add_argument("--json", action="store_true", help="one object a measurement")
    given = parser.parse_args()
    runs, seconds = (1, 2.0) if given.quick else (given.runs, given.seconds)
    configure_logging(LoggingConfig(level="warning"))
    printer = Printer(given.json)
    run(functools.partial(measure, printer, given.unit, runs, seconds))
    printer.finish()


async def measure(printer: Printer, unit: int, runs: int, seconds: float) -> None:
    """Measure both, in turn."""
    achieved: dict[tuple[bool, str], list[float]] = {}
    async with open_server() as server:
        for _ in range(runs):
            for coded in (False, True):
                async with open_host() as host:
                    members = await butterfly(host, server, unit)
                    for name, rate in (await rates(members, coded, seconds)).items():
                        achieved.setdefault((coded, name), []).append(rate / 1000)
    for (coded, name), values in achieved.items():
        workload = f"butterfly_{'coded_' if coded else ''}{name}"
        goal = [EXPECTED[coded][name] * unit / 1000]
        printer.add(Measurement(workload, BLOCK, 7, "kB/s", values, "arithmetic", goal))


async def butterfly(host: OverlayHost, server: str, unit: int) -> dict[str, OverlaySocket]:
    """The members, joined and held to their bandwidths."""
    members = {
        name: await host.open_socket(config(place, server)) for name, place in PLACES.items()
    }
    await form(list(members.values()), list(PLACES.values()))
    members["A"].set_bandwidth("out", 2 * unit)
    members["D"].set_bandwidth("out", unit)
    return members


def config(place: tuple[int, int], server: str) -> OverlayConfig:
    """Of a member with the service switched on."""
    return tcp_config(place, server).evolve(services={"coding": {"generation": 2}})


async def rates(
    members: Mapping[str, OverlaySocket], coded: bool, seconds: float
) -> dict[str, float]:
    """Bytes a second that count, by member."""
    for name, flow in flows(coded=coded).items():
        await members[name].service("coding").ask(flow)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(send, members["A"])
        await trio.sleep(min(WARM_UP, seconds))
        started = trio.current_time()
        before = {name: counted(name, members[name]) for name in EXPECTED[coded]}
        await trio.sleep(seconds)
        elapsed = trio.current_time() - started
        after = {name: counted(name, members[name]) for name in before}
        nursery.cancel_scope.cancel()
    found = {name: (after[name] - before[name]) / elapsed for name in before}
    for name, rate in found.items():
        if rate == 0:
            raise MeasurementError(f"nothing came to {name} in {seconds:g} s")
    return found


async def send(source: OverlaySocket) -> None:
    """Send as fast as the source's bandwidth allows, until cancelled."""
    handle, blocks = source.service("coding"), [bytes(BLOCK)] * 2
    while True:
        await handle.ask(Send(APP, blocks))


def counted(name: str, sock: OverlaySocket) -> int:
    """What has counted at a member so far: the helper decodes nothing, so what it received."""
    told = sock.service("coding").statistics()
    assert isinstance(told, CodingStatistics), "the service is on"
    flow = told.flows[APP]
    return flow.received_bytes if name == "E" else flow.innovative_bytes


if __name__ == "__main__":
    main()
