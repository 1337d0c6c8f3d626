"""The demonstration: real processes, a real file, and nothing left behind."""

from __future__ import annotations

import hashlib
import os
import pty
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from random import Random
from xml.etree import ElementTree

import pytest

from end_to_end.processes import COMMAND, Running
from opus_socket.cli.demo.run import Outcome, Plan, Spectator, demonstrate
from opus_socket.errors import OverlayError

Start = Callable[..., Running]
CONTRACT = {
    "members": int,
    "processes": int,
    "protocol": str,
    "bytes": int,
    "sha256": str,
    "delivered": int,
    "join_s": float,
    "multicast_s": float,
    "per_member_mbit_s": float,
    "aggregate_mbit_s": float,
    "tree_depth": int,
    "svg": str,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of a megabyte."""
    path = tmp_path / "file"
    path.write_bytes(Random(1).randbytes(1_000_003))
    return path


def test_a_file_reaches_every_member(start: Start, file: Path, tmp_path: Path) -> None:
    demo = start("demo", str(file), "--members", "7", "--processes", "3", "--json")
    result = demo.json()
    assert demo.ends() == 0
    assert {key: type(value) for key, value in result.items()} == CONTRACT
    assert (result["members"], result["processes"], result["delivered"]) == (7, 3, 7)
    assert result["protocol"] == "delaunay"
    assert result["bytes"] == 1_000_003
    assert result["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert result["svg"] == "opus-socket-demo.svg"
    picture = ElementTree.parse(tmp_path / "opus-socket-demo.svg")
    groups = [each for each in picture.iter() if each.attrib.get("class") == "member"]
    assert len(groups) == 7
    # The members would still hold its standard error.
    assert demo.err.ended


def test_people_are_told_what_came_of_it(start: Start, file: Path) -> None:
    demo = start("demo", str(file), "--members", "3", "--processes", "2", "--svg", "p.svg")
    demo.prints(r"^member +process +address +joined after +hops +file after +Mbit/s +SHA-256")
    demo.prints(r"sender")
    demo.prints(
        r"3 members in 2 processes joined within \d+\.\d+ s .*"
        r"settled \d+\.\d s after the last join: \d edges, tree depth [12]"
    )
    demo.prints(r"\(1,000,003 bytes\) reached all members .* Mbit/s a member")
    demo.prints(r"at 3 of 3 members")
    demo.prints(r"picture: p.svg")
    assert demo.ends() == 0
    said = b"\n".join(demo.err.all).decode().splitlines()
    assert re.fullmatch(
        r"demo: rendezvous server at 127\.0\.0\.1:\d+; joining 3 members in 2 processes", said[0]
    )
    assert said[1:4] == [f"demo: joined: {count} of 3" for count in (1, 2, 3)]
    assert re.fullmatch(
        r"demo: settled \d+\.\d s after the last join; sending file \(1,000,003 bytes\) to "
        "2 members",
        said[4],
    )
    assert said[-2:] == [
        "demo: arrived: 2,000 of 2,000 kB",
        "demo: verifying the SHA-256 of every member",
    ]


def test_one_member_and_an_empty_file_are_enough(start: Start, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    demo = start("demo", "empty", "--members", "1", "--json")
    result = demo.json()
    assert demo.ends() == 0
    assert (result["members"], result["processes"], result["delivered"]) == (1, 1, 1)
    assert (result["bytes"], result["tree_depth"], result["aggregate_mbit_s"]) == (0, 0, 0)
    assert result["sha256"] == hashlib.sha256().hexdigest()


def test_one_member_alone_has_nobody_to_send_to(start: Start, file: Path) -> None:
    arguments = ("demo", str(file), "--members", "1")
    result = start(*arguments, "--json").json()
    assert (result["delivered"], result["tree_depth"], result["bytes"]) == (1, 0, 1_000_003)
    figures = ("multicast_s", "per_member_mbit_s", "aggregate_mbit_s")
    assert [result[name] for name in figures] == [0.0, 0.0, 0.0]
    demo = start(*arguments)
    demo.prints(r"^1 member in 1 process joined within .*: 0 edges, tree depth 0$")
    demo.prints(r"\(1,000,003 bytes\) was sent to nobody, for there is no other member$")
    demo.prints(r"at 1 of 1 member$")
    assert demo.ends() == 0
    assert b"nan" not in b"".join(demo.out.all)


def test_a_picture_that_cannot_be_written_in_the_end_is_1_and_the_rest_is_told(
    start: Start, file: Path, tmp_path: Path
) -> None:
    (tmp_path / "folder").mkdir()
    demo = start("demo", str(file), "--members", "2", "--json", "--svg", "folder/p.svg")
    demo.logs("rendezvous server")
    (tmp_path / "folder").rmdir()
    assert demo.json()["svg"] is None
    demo.logs(
        "^opus-socket: error: --svg = 'folder/p.svg' cannot be written: No such file or directory$"
    )
    assert demo.ends() == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere"], "FILE = 'nowhere' cannot be read: No such file or directory"),
        (["."], "FILE = '.' cannot be read: Is a directory"),
        (["/dev/null"], "is not a regular file"),
        (["file", "--svg", "nowhere/picture.svg"], "--svg = 'nowhere/picture.svg' cannot"),
        (["file", "--protocol", "unheard-of"], "no protocol 'unheard-of' is installed"),
        (["file", "--members", "0"], "'0' is not a whole number of at least 1"),
    ],
)
def test_what_cannot_be_shown_is_refused_at_once(
    start: Start, file: Path, arguments: list[str], complaint: str
) -> None:
    demo = start("demo", *arguments)
    demo.logs(complaint)
    assert demo.ends() == 2
    assert demo.out.all == []


class Saboteur(Spectator):
    """Kills a process of members when the multicast begins."""

    def __init__(self) -> None:
        self.pids: dict[int, int] = {}

    def started(self, process: int, pid: int) -> None:
        self.pids[process] = pid

    def agreed(self, size: int, seconds: float) -> None:
        os.kill(self.pids[2], signal.SIGKILL)


async def test_a_process_that_dies_is_named_and_takes_the_others_along(file: Path) -> None:
    saboteur = Saboteur()
    with pytest.RaisesGroup(
        pytest.RaisesExc(
            OverlayError,
            check=lambda error: (
                str(error) == f"member process 2 (pid {saboteur.pids[2]}) was ended by SIGKILL"
            ),
        ),
        flatten_subgroups=True,
    ):
        await demonstrate(Plan(file, 6, 3, "delaunay"), saboteur)
    for pid in saboteur.pids.values():
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


class Shredder(Spectator):
    """Changes the file as soon as a part of it has arrived."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def received(self, size: int) -> None:
        if size:
            self.file.write_bytes(b"something else")


async def test_a_wrong_digest_is_not_delivered(file: Path) -> None:
    outcome: Outcome = await demonstrate(Plan(file, 3, 2, "delaunay"), Shredder(file))
    assert outcome.delivered == ()
    assert outcome.size == len(b"something else")


def test_an_interrupt_ends_every_process(tmp_path: Path) -> None:
    file = tmp_path / "large"
    with file.open("wb") as stream:
        stream.truncate(1 << 30)
    terminal, other_end = pty.openpty()
    try:
        with subprocess.Popen(
            [*COMMAND, "demo", str(file), "--members", "4"],
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=other_end,
        ) as demo:
            os.close(other_end)
            shown = b""
            while b" MB" not in shown:
                shown += os.read(terminal, 4096)
            demo.send_signal(signal.SIGINT)
            read_to_the_end(terminal)
            assert demo.wait() == 130
    finally:
        os.close(terminal)


def read_to_the_end(terminal: int) -> None:
    """Read until nobody has the terminal's other end any more: no member of the demo either."""
    while True:
        try:
            if not os.read(terminal, 4096):
                return
        except OSError:
            return  # so Linux says it
