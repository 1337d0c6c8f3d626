"""Long messages in simulated overlays, where fragments are lost, doubled and overtaken."""

from __future__ import annotations

from simulations import overlay, settle

from opus_socket.core.events import MessageLost
from opus_socket.simulator import LinkQuality


def pattern(length: int) -> bytes:
    return b"".join([number.to_bytes(4) for number in range(-(-length // 4))])[:length]


def exchange(quality: LinkQuality, seed: int) -> tuple[list[list[int]], list[int], int, int]:
    """What comes of long messages between twelve members: lengths that each got, how many losses
    each was told of, how many messages were sent, and how many might have come.
    """
    simulator = overlay(12, seed=seed, quality=quality)
    sent = 0
    for number, sender in enumerate(simulator.members):
        if number % 3 == 0:
            sender.send_to_all(pattern(60_000 + number))
            sent += 1
    settle(simulator, 12.0)
    lengths = [sorted(len(each.payload) for each in m.received) for m in simulator.members]
    for receiver in simulator.members:
        for message in receiver.received:
            assert message.payload == pattern(len(message.payload))
    losses = [
        sum(isinstance(event, MessageLost) and event.reason == "incomplete" for event in m.events)
        for m in simulator.members
    ]
    return lengths, losses, sent, len(simulator.members)


def test_jitter_reordering_and_duplication_harm_nobody() -> None:
    quality = LinkQuality(jitter=20, duplication=0.2, reordering=0.2)
    lengths, losses, sent, members = exchange(quality, seed=3)
    assert sum(map(len, lengths)) == sent * (members - 1)
    assert all(len(set(each)) == len(each) for each in lengths)
    assert losses == [0] * members


def test_of_lost_fragments_every_receiver_tells() -> None:
    """Whoever got a part of a message is told so; what came is whole; the same seed, the same."""
    quality = LinkQuality(loss=0.05, jitter=20)
    lengths, losses, sent, members = exchange(quality, seed=4)
    got = sum(map(len, lengths))
    assert 0 < got < sent * (members - 1)
    assert 0 < sum(losses) <= sent * (members - 1) - got
    assert exchange(quality, seed=4) == (lengths, losses, sent, members)
