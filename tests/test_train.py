"""Messages sent one by one are framed together, and nothing but their number is different."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from opus_socket import LogicalAddress, Mode
from opus_socket.loop import Loop
from opus_socket.train import Train
from support import LINE, overlay

LIMIT = 1000
LONGEST = 300
KINDS = [
    (Mode.MULTICAST, None, 0),
    (Mode.MULTICAST, None, 1),
    (Mode.UNICAST, LogicalAddress((1, 2)), 0),
    (Mode.UNICAST, LogicalAddress((3, 4)), 0),
    (Mode.FLOOD, None, 0),
]

Batch = tuple[list[bytes], tuple[Mode, LogicalAddress | None, int]]


@define
class Station:
    """A train, what has departed, and what was sent."""

    loop: Loop = field(factory=Loop)
    room: bool = True
    departed: list[Batch] = field(factory=list)
    sent: list[tuple[bytes, tuple[Mode, LogicalAddress | None, int]]] = field(factory=list)
    train: Train = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.train = Train(self.loop, self._depart, LIMIT)

    def _depart(
        self,
        payloads: Sequence[bytes],
        mode: Mode,
        key: LogicalAddress | None,
        traffic_class: int,
    ) -> bool:
        self.departed.append((list(payloads), (mode, key, traffic_class)))
        return self.room

    def send(self, payload: bytes, kind: int) -> None:
        """As a socket does it."""
        self.sent.append((payload, KINDS[kind]))
        if not self.train.add(payload, *KINDS[kind]):
            self.train.send(payload, *KINDS[kind], lambda: LONGEST)

    def turn(self) -> None:
        """The loop takes a turn."""
        self.loop.turns += 1
        self.loop.flush()


steps = st.one_of(
    st.just("turn"), st.tuples(st.binary(max_size=400), st.integers(0, len(KINDS) - 1))
)


@given(st.lists(steps))
async def test_everything_departs_once_and_in_order(given_steps: list[object]) -> None:
    station = Station()
    for step in given_steps:
        match step:
            case (bytes(payload), int(kind)):
                station.send(payload, kind)
            case _:
                station.turn()
                assert len(station.sent) == sum(len(batch) for batch, _ in station.departed)
    station.turn()
    departed = [(payload, kind) for batch, kind in station.departed for payload in batch]
    assert departed == station.sent
    for batch, _ in station.departed:
        assert len(batch) == 1 or sum(map(len, batch)) <= LIMIT
        assert len(batch) == 1 or max(map(len, batch)) <= LONGEST
    station.loop.release()


async def test_a_lone_message_departs_at_once_and_further_ones_with_the_turn() -> None:
    station = Station()
    for turn in range(3):
        station.send(b"alone", 0)
        assert len(station.departed) == turn + 1
        station.turn()
    station.departed.clear()
    for _ in range(4):
        station.send(b"one of many", 0)
    assert [len(batch) for batch, _ in station.departed] == [1]
    station.turn()
    assert [len(batch) for batch, _ in station.departed] == [1, 3]
    # Whoever was busy in the last turn is expected to send more in this one.
    station.send(b"one of many", 0)
    assert len(station.departed) == 2
    station.turn()
    station.send(b"alone", 0)
    assert [len(batch) for batch, _ in station.departed] == [1, 3, 1, 1]
    station.loop.release()


async def test_without_room_nothing_is_gathered() -> None:
    """Whoever sends next has to wait, and would not if its message joined others."""
    station = Station(room=False)
    for number in range(5):
        station.send(bytes(LIMIT // 3), 0)
        if number > 1:
            assert not station.train.add(b"", *KINDS[0])
    station.loop.release()


@pytest.mark.parametrize("then", ["leave", "close", "batch"])
async def test_what_waits_departs_before_anything_else_happens(then: str) -> None:
    async with overlay(LINE[:2]) as (_, (a, b)):
        for number in range(20):
            a.send_to_all_nowait(bytes((number,)))
        for number in range(20, 40):
            await a.send_to_all(bytes((number,)))
        match then:
            case "leave":
                await a.leave()
            case "close":
                a.close()
            case _:
                await a.send_batch([b"last"])
        expected = [bytes((number,)) for number in range(40)] + [b"last"] * (then == "batch")
        with trio.fail_after(5):
            assert [(await b.receive()).payload for _ in expected] == expected
