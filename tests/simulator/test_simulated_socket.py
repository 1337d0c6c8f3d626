"""What a simulated socket sends: as many calls as a real one has, without a wait."""

from __future__ import annotations

import pytest
from simulations import overlay, settle

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.message import OverlayMessage
from opus_socket.errors import LocalProtocolError


def test_a_batch_goes_to_all_or_to_one_in_its_class() -> None:
    simulator = overlay(4)
    first, second, *others = simulator.members
    incarnation, number = first.send_batch([b"a", bytearray(b"b")], traffic_class=3)
    first.send_batch([b"c"], to=second.address)
    first.send_to_all(memoryview(b"d"), traffic_class=255)
    first.send(second.address, b"e", traffic_class=7)
    settle(simulator)
    to_all = [(b"a", 3), (b"b", 3), (b"d", 255)]
    for member in others:
        assert sorted(map(_seen, member.received)) == to_all
        ids = [message.id for message in member.received if message.traffic_class == 3]
        assert ids == [(incarnation, number), (incarnation, number + 1)]
    assert sorted(map(_seen, second.received)) == sorted([*to_all, (b"c", 0), (b"e", 7)])
    assert first.received == []


def _seen(message: OverlayMessage) -> tuple[bytes, int]:
    return bytes(message.payload), message.traffic_class


def test_what_cannot_be_sent_is_refused_and_nothing_is_sent() -> None:
    simulator = overlay(2)
    first, second = simulator.members
    before = first.statistics().engine.originated_frames
    for payloads in ([], [b"a", "b"], 7):
        with pytest.raises(LocalProtocolError, match="payload"):
            first.send_batch(payloads)  # type: ignore[arg-type]
    with pytest.raises(LocalProtocolError, match="traffic_class 256: 0 to 255"):
        first.send_to_all(b"a", traffic_class=256)
    for nobody in (LogicalAddress((1,)), (1, 2)):
        with pytest.raises(LocalProtocolError, match="no address of delaunay"):
            first.send(nobody, b"a")  # type: ignore[arg-type]
    assert first.statistics().engine.originated_frames == before
    settle(simulator)
    assert second.received == []
