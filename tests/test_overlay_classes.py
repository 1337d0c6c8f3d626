"""Traffic classes as applications see them: they share a link by weight, and none stops another.

Bytes are counted, and never time.
"""

from __future__ import annotations

from collections import Counter

import pytest
import trio

from opus_socket import LocalProtocolError, OverlayHost, OverlaySocket
from support import LINE, TRANSPORTS, overlay, until

LIGHT, HEAVY = 7, 200
PAYLOAD = b"x" * 1000
BOUNDS = {"socket.receive_buffer": 1 << 18, "socket.stall_timeout": 60.0}
WEIGHTS = {"socket.class_weights": [f"{LIGHT}:1", f"{HEAVY}:3"]}


@pytest.mark.parametrize("transport", ["hand-over", "tcp", "shared tcp"])
async def test_classes_share_a_saturated_link_by_weight(transport: str) -> None:
    """1 to 3, then 3 to 1, within 5 % of the share, as long as both have more to send."""
    async with (
        overlay(LINE[:2], TRANSPORTS[transport], BOUNDS, WEIGHTS) as (_, (left, right)),
        trio.open_nursery() as nursery,
    ):
        for traffic_class in (LIGHT, HEAVY):
            nursery.start_soon(_send_for_ever, left, traffic_class)
        await _receive(right, 2000)
        got = await _receive(right, 6000)
        assert abs(got[HEAVY] / got.total() - 0.75) <= 0.05 * 0.75
        left.set_class_weight(LIGHT, 3)
        left.set_class_weight(HEAVY, 1)
        await _receive(right, 4000)
        got = await _receive(right, 6000)
        assert abs(got[LIGHT] / got.total() - 0.75) <= 0.05 * 0.75
        flows = left.statistics().flows
        assert {flow.traffic_class for flow in flows} == {None, LIGHT, HEAVY}
        assert all(flow.dropped == 0 for flow in flows)
        nursery.cancel_scope.cancel()


async def _send_for_ever(sock: OverlaySocket, traffic_class: int) -> None:
    while True:
        await sock.send_to_all(PAYLOAD, traffic_class=traffic_class)


async def _receive(sock: OverlaySocket, count: int) -> Counter[int]:
    """So many messages by class, read slowly enough that senders have to wait."""
    got: Counter[int] = Counter()
    with trio.fail_after(20):
        while got.total() < count:
            for message in await sock.receive_batch(32):
                got[message.traffic_class] += 1
            for _ in range(5):
                await trio.lowlevel.checkpoint()
    return got


@pytest.mark.parametrize("transport", ["hand-over", "tcp", "shared tcp"])
async def test_a_full_class_stops_no_other(transport: str) -> None:
    """What one class has filled on the way to a member that does not read, the next class passes
    on the same link, and its senders do not wait.
    """
    bounds = {**BOUNDS, "socket.send_buffer": 20_000}
    async with overlay(LINE, TRANSPORTS[transport], bounds) as (host, (left, middle, right)):
        await _fill(host, left, right, LIGHT)
        assert left.statistics().flows[1].traffic_class == LIGHT
        for number in range(100):
            with trio.fail_after(5):
                await left.send(middle.address, number.to_bytes(2) + PAYLOAD, traffic_class=HEAVY)
                message = await middle.receive()
            assert (message.payload[:2], message.traffic_class) == (number.to_bytes(2), HEAVY)
        with trio.move_on_after(0) as scope:
            await left.send(right.address, PAYLOAD, traffic_class=LIGHT)
        assert scope.cancelled_caught
        taken = left.statistics().flows[1].taken
        with trio.fail_after(10):
            for _ in range(taken):
                assert (await right.receive()).traffic_class == LIGHT


async def _fill(host: OverlayHost, sock: OverlaySocket, to: OverlaySocket, number: int) -> None:
    """Send until nothing of it moves on any more."""
    idle = 0
    while idle < 50:
        if sock._may_send(number):
            await sock.send(to.address, PAYLOAD, traffic_class=number)
            idle = 0
        else:
            idle += 1
            sock._host.wake()
            await host._host.wait_turn()


async def test_a_sender_that_does_not_wait_is_told_by_class() -> None:
    async with overlay(LINE[:2], TRANSPORTS["tcp"], BOUNDS) as (_, (left, right)):
        while left._may_send(LIGHT):
            left.send_to_all_nowait(PAYLOAD, traffic_class=LIGHT)
        with pytest.raises(trio.WouldBlock):
            left.send_to_all_nowait(PAYLOAD, traffic_class=LIGHT)
        left.send_to_all_nowait(b"another", traffic_class=HEAVY)
        with trio.fail_after(10):
            while (await right.receive()).traffic_class == LIGHT:
                pass


@pytest.mark.parametrize(
    ("traffic_class", "weight"),
    [(-1, 1), (256, 1), (0.5, 1), ("0", 1), (0, 0), (0, 101), (0, 1.5), (0, None), (0, -1)],
)
async def test_weights_out_of_range_change_nothing(traffic_class: object, weight: object) -> None:
    async with overlay(LINE[:1]) as (_, (sock,)):
        with pytest.raises(LocalProtocolError, match="are allowed"):
            sock.set_class_weight(traffic_class, weight)  # type: ignore[arg-type]
        assert sock._weights == {}
        sock.close()
        with pytest.raises(trio.ClosedResourceError):
            sock.set_class_weight(0, 1)


async def test_weights_hold_in_every_membership_and_on_every_link() -> None:
    async with overlay(LINE[:2], TRANSPORTS["tcp"], WEIGHTS) as (host, (left, right)):
        for traffic_class in (LIGHT, HEAVY, 0):
            await left.send_to_all(b"x", traffic_class=traffic_class)
        left.set_class_weight(0, 100)
        host._host.flush()
        assert _weights(left) == {LIGHT: 1, HEAVY: 3, 0: 100}
        await left.leave()
        left.set_class_weight(HEAVY, 5)
        with trio.fail_after(10):
            await left.join()
        await until(host, lambda: len(left.neighbors) == len(right.neighbors) == 1)
        for traffic_class in (LIGHT, HEAVY, 0):
            await left.send_to_all(b"x", traffic_class=traffic_class)
        host._host.flush()
        assert _weights(left) == {LIGHT: 1, HEAVY: 5, 0: 100}


def _weights(sock: OverlaySocket) -> dict[int, int]:
    member = sock._member
    assert member is not None
    return {number: link.output.weight for (_, number), link in member.links.items()}
