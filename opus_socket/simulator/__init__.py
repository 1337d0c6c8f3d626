"""The simulator: the machines of this package on a virtual clock and a modelled network.

Its one rule: one seed decides everything. The same seed gives the same trace, byte for
byte, whatever PYTHONHASHSEED is and in whatever order questions are asked (`chance`).

`network` models the underlay's delays, `rules` injects faults, and `checkers` say what a
legitimate overlay is without sharing code with the protocols that they judge. `schedule` is the
virtual clock, `underlay` carries bytes between the stations on it: `member`, an overlay core, and
`rendezvous`, a server; `emulation` is what a member holds back for want of bandwidth, and
`simulated_socket` what applications hold of it. `simulator`
holds them together, `legitimacy` watches them, `trace` hashes what happened, and `experiment` is
what `opus-socket simulate` runs.
"""

from __future__ import annotations

from opus_socket.simulator.checkers.trees import RoutingTree, Summary
from opus_socket.simulator.experiment import (
    Experiment,
    Progress,
    Report,
    Scenario,
    read_addresses,
)
from opus_socket.simulator.network import (
    ConstantNetwork,
    EuclideanNetwork,
    LinkQuality,
    MatrixNetwork,
    Network,
    RandomNetwork,
    parse_network,
)
from opus_socket.simulator.rendezvous import SimulatedServer
from opus_socket.simulator.rules import BurstLoss, LossRule, OneWayCut, Partition, Rule
from opus_socket.simulator.simulated_socket import SimulatedSocket
from opus_socket.simulator.simulator import Simulator
from opus_socket.simulator.underlay import Traffic

__all__ = [
    "BurstLoss",
    "ConstantNetwork",
    "EuclideanNetwork",
    "Experiment",
    "LinkQuality",
    "LossRule",
    "MatrixNetwork",
    "Network",
    "OneWayCut",
    "Partition",
    "Progress",
    "RandomNetwork",
    "Report",
    "RoutingTree",
    "Rule",
    "Scenario",
    "SimulatedServer",
    "SimulatedSocket",
    "Simulator",
    "Summary",
    "Traffic",
    "parse_network",
    "read_addresses",
]
