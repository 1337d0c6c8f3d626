"""Whole overlays under everything that may befall them, in any order; then they must be whole.

Members join, leave, crash, restart and stand still, packets are lost, the network parts and
heals, the rendezvous server goes away and comes back, and time passes or does not. When the
faults have ended, the overlay becomes legitimate, and what each member sends to all reaches each
other member exactly once.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)

from opus_socket.config import OverlayConfig
from opus_socket.core.addresses import LogicalAddress
from opus_socket.simulator import EuclideanNetwork, LinkQuality, SimulatedSocket, Simulator

CONFIG = OverlayConfig(overlay_id="stateful")
MOST = 14
SIDE = 4
"""Half of the overlays stand on a grid of this side: collinear and cocircular members."""


class Overlay(RuleBasedStateMachine):
    """One overlay; every rule is something that may befall it at any time."""

    simulator: Simulator
    spots: list[LogicalAddress | None]
    server_is_up: bool
    parted: bool

    @initialize(
        seed=st.integers(0, 1_000_000),
        spots=st.permutations([(x, y) for x in range(SIDE) for y in range(SIDE)]),
        on_grid=st.booleans(),
        slow=st.booleans(),
        count=st.integers(4, 10),
    )
    def begin(
        self, seed: int, spots: list[tuple[int, int]], on_grid: bool, slow: bool, count: int
    ) -> None:
        low, high = (20, 150) if slow else (1, 20)
        self.simulator = Simulator(seed, EuclideanNetwork(low, high, seed))
        self.spots = [LogicalAddress(spot) if on_grid else None for spot in spots]
        self.server_is_up, self.parted = True, False
        for _ in range(count):
            self.add(self.simulator.now)

    def add(self, at: float) -> None:
        self.simulator.add(CONFIG, self.spots[len(self.members)], at)

    @property
    def members(self) -> list[SimulatedSocket]:
        return self.simulator.members

    @property
    def live(self) -> list[SimulatedSocket]:
        return [member for member in self.members if member.alive]

    @property
    def running(self) -> list[SimulatedSocket]:
        return [member for member in self.live if not member.paused]

    @precondition(lambda self: len(self.members) < MOST)
    @rule(count=st.integers(1, 4), interval=st.sampled_from([0.0, 0.01, 0.5]))
    def join(self, count: int, interval: float) -> None:
        for number in range(min(count, MOST - len(self.members))):
            self.add(self.simulator.now + number * interval)
        self.pass_time(0.0)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        data.draw(st.sampled_from(self.running)).leave()

    @precondition(lambda self: self.live)
    @rule(data=st.data(), share=st.sampled_from([0.0, 0.3, 0.6]))
    def crash(self, data: st.DataObject, share: float) -> None:
        count = max(1, round(share * len(self.live)))
        for member in data.draw(st.permutations(self.live))[:count]:
            self.simulator.crash(member)

    @precondition(lambda self: any(member.gone for member in self.members))
    @rule(data=st.data())
    def restart(self, data: st.DataObject) -> None:
        gone = [member for member in self.members if member.gone]
        self.simulator.restart(data.draw(st.sampled_from(gone)))

    @precondition(lambda self: self.live)
    @rule(data=st.data(), seconds=st.sampled_from([0.05, 1.0, 3.0, 8.0]))
    def pause(self, data: st.DataObject, seconds: float) -> None:
        self.simulator.pause(data.draw(st.sampled_from(self.live)), seconds)

    @rule(
        loss=st.sampled_from([0.0, 0.05, 0.3]),
        jitter=st.sampled_from([0.0, 30.0]),
        other=st.sampled_from([0.0, 0.1]),
    )
    def change_links(self, loss: float, jitter: float, other: float) -> None:
        self.simulator.quality = LinkQuality(jitter, loss, other, other)

    @rule(data=st.data())
    def part(self, data: st.DataObject) -> None:
        order = data.draw(st.permutations(self.members))
        self.simulator.partition([order[: len(order) // 2]])
        self.parted = True

    @precondition(lambda self: self.parted)
    @rule()
    def heal(self) -> None:
        self.simulator.heal()
        self.parted = False

    @precondition(lambda self: self.server_is_up)
    @rule()
    def stop_server(self) -> None:
        self.simulator.server.crash()
        self.server_is_up = False

    @precondition(lambda self: not self.server_is_up)
    @rule()
    def start_server(self) -> None:
        self.simulator.server.start()
        self.server_is_up = True

    @rule(seconds=st.sampled_from([0.0, 0.02, 0.3, 2.0, 6.0]))
    def pass_time(self, seconds: float) -> None:
        self.simulator.run(self.simulator.now + seconds)

    def teardown(self) -> None:
        """The faults end; the overlay must become whole."""
        if not hasattr(self, "simulator"):
            return
        if self.parted:
            self.heal()
        if not self.server_is_up:
            self.start_server()
        self.simulator.quality = LinkQuality()
        assert self.simulator.run_until_legitimate(timeout=120.0) is not None
        assert not any(member.error for member in self.members)
        self.check_multicast()

    def check_multicast(self) -> None:
        live = self.live
        for member in live:
            member.received.clear()
            member.send_to_all(b"%d" % member.number)
        self.pass_time(10.0)
        for member in live:
            came = sorted(int(message.payload) for message in member.received)
            assert came == [other.number for other in live if other is not member]


SETTINGS = settings(
    max_examples=40,
    stateful_step_count=25,
    # Every example is a whole overlay.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


def test_overlays_heal() -> None:
    run_state_machine_as_test(Overlay, settings=SETTINGS)


@pytest.mark.deep
def test_overlays_heal_in_many_cases() -> None:
    deep = settings(SETTINGS, max_examples=1500, stateful_step_count=60)
    run_state_machine_as_test(Overlay, settings=deep)
