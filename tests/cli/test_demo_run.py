"""What makes an overlay fit for a multicast, and how the processes of a demonstration talk."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from opus_socket.cli.demo import words
from opus_socket.cli.demo.run import Plan, depths_of, fault_of
from opus_socket.cli.demo.verb import sample_file
from opus_socket.cli.demo.words import (
    Begin,
    Failed,
    Finished,
    Joined,
    Look,
    Multicast,
    Place,
    Places,
    Progress,
)
from opus_socket.cli.pipes import JsonReader, JsonWriter

ONE, TWO, THREE = (1, 0), (2, 0), (3, 0)
LINE = {
    1: Place(1, ONE, (TWO,), None),
    2: Place(2, TWO, (ONE, THREE), ONE),
    3: Place(3, THREE, (TWO,), TWO),
}
PLACES = Places((LINE[1], LINE[2]))


def test_an_overlay_that_agrees_has_no_fault() -> None:
    assert fault_of(LINE) is None
    assert depths_of(LINE) == {1: 0, 2: 1, 3: 2}


@pytest.mark.parametrize(
    ("place", "fault"),
    [
        (Place(3, TWO, (TWO,), TWO), "the same logical address"),
        (Place(3, THREE, (), TWO), "member 3 is a neighbor of member 2, but not the reverse"),
        (Place(3, THREE, (TWO, (9, 9)), TWO), "has a neighbor at (9, 9), where no member is"),
        (Place(3, THREE, (TWO,), None), "member 3 has no parent"),
        (Place(1, ONE, (TWO,), TWO), "is the root but has parent 2"),
        (Place(2, TWO, (ONE, THREE), THREE), "is on a cycle"),
    ],
)
def test_a_fault_is_named(place: Place, fault: str) -> None:
    assert fault in (fault_of(LINE | {place.member: place}) or "")


@pytest.mark.parametrize(("members", "processes"), [(1, 1), (7, 3), (16, 4), (4, 4)])
def test_members_are_spread_evenly(members: int, processes: int) -> None:
    plan = Plan(Path("file"), members, processes, "delaunay")
    shares = [plan.members_of(process) for process in range(1, processes + 1)]
    assert sorted(number for share in shares for number in share) == list(range(1, members + 1))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
    for process, share in enumerate(shares, 1):
        assert [plan.process_of(number) for number in share] == [process] * len(share)


@pytest.mark.parametrize("word", [Begin("lab", "::1:1", "delaunay", (1, 5)), Look(ONE)])
def test_orders_arrive_as_they_were_given(word: words.Order) -> None:
    assert words.order(over_json(words.pack(word))) == word


@pytest.mark.parametrize(
    "word",
    [
        Joined(1, ONE, 0.25),
        PLACES,
        Progress(((1, 0), (5, 1 << 40))),
        Finished(2, 5, "ab", 0.0, 1.5),
        Failed("it is over", True),
    ],
)
def test_reports_arrive_as_they_were_made(word: words.Report) -> None:
    assert words.report(over_json(words.pack(word))) == word


@pytest.mark.parametrize("value", [None, [], {}, {"kind": "joined"}, {"kind": "unheard of"}])
def test_what_is_no_order_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="not one of begin, look, multicast"):
        words.order(value)


def over_json(value: object) -> object:
    """The value at the other end of a pipe."""

    async def send_and_receive() -> object:
        near, far = trio.testing.memory_stream_pair()
        await JsonWriter(near).write(value)
        return await anext(JsonReader(far))

    return trio.run(send_and_receive)


async def test_lines_are_taken_apart_wherever_they_were_cut() -> None:
    near, far = trio.testing.memory_stream_pair()
    for part in (b'{"a"', b': 1}\n[2]\n"', b"\xc3", b'\xa4"\n', b"null\n"):
        await near.send_all(part)
    await near.aclose()
    assert [value async for value in JsonReader(far)] == [{"a": 1}, [2], "ä", None]


def test_every_python_has_a_file_to_send() -> None:
    file = sample_file()
    assert file.is_file()
    assert file.stat().st_size > 500_000


def test_a_multicast_names_member_and_file() -> None:
    order = Multicast(1, "/a file")
    assert words.order(words.pack(order)) == order
