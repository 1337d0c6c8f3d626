"""Small simulated overlays for tests."""

from __future__ import annotations

from opus_socket.config import OverlayConfig
from opus_socket.simulator import (
    EuclideanNetwork,
    LinkQuality,
    Network,
    SimulatedSocket,
    Simulator,
)

CONFIG = OverlayConfig(overlay_id="test")
NETWORK = EuclideanNetwork(2, 30)
ROUGH = LinkQuality(jitter=20, loss=0.1, duplication=0.05, reordering=0.05)


def overlay(
    members: int,
    *,
    seed: int = 0,
    config: OverlayConfig = CONFIG,
    network: Network = NETWORK,
    quality: LinkQuality | None = None,
    interval: float = 0.01,
) -> Simulator:
    """A simulation whose members have all joined, and are legitimate."""
    simulator = Simulator(seed, network, quality or LinkQuality())
    for number in range(members):
        simulator.add(config, at=number * interval)
    assert simulator.run_until_legitimate() is not None
    return simulator


def neighbors_by_place(members: list[SimulatedSocket]) -> dict[tuple[int, ...], frozenset[object]]:
    return {tuple(m.address): frozenset(map(tuple, m.neighbors)) for m in members}


def settle(simulator: Simulator, seconds: float = 1.0) -> None:
    simulator.run(simulator.now + seconds)


def payloads(member: SimulatedSocket) -> list[bytes]:
    return [message.payload for message in member.received]


# The clock
