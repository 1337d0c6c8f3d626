"""Files that options name: whole or as they were, and nothing but a regular file is replaced."""

from __future__ import annotations

import errno
import json
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path
from threading import Thread

import pytest

from opus_socket.cli.outputs import OutputFile
from opus_socket.errors import ConfigurationError, OverlayError

COMMAND = [sys.executable, "-m", "opus_socket.cli"]
SIMULATE = [*COMMAND, "simulate", "--nodes", "3", "--json"]
# A file that grows above the limit is what a full disk is to who writes it.
CRAMPED = (
    "import resource, sys\n"
    "resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))\n"
    "from opus_socket.cli import main\n"
    "main(sys.argv[1:], prog_name='opus-socket')\n"
)
IS_ROOT = os.geteuid() == 0


def output(path: Path | str) -> OutputFile:
    return OutputFile("--dump", str(path))


def refusal(path: Path | str) -> str:
    with pytest.raises(ConfigurationError) as caught:
        output(path).check()
    text = str(caught.value)
    assert text.startswith(f"--dump = {str(path)!r} cannot be written: ")
    return text


class Reader:
    """Reads a FIFO to its end, in a thread."""

    def __init__(self, fifo: Path) -> None:
        self._fifo = fifo
        self._data = b""
        self._thread = Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        self._data = self._fifo.read_bytes()

    def all(self) -> bytes:
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self._data


def test_a_new_file_is_made_as_the_umask_has_it(tmp_path: Path) -> None:
    path = tmp_path / "new"
    old = os.umask(0o027)
    try:
        output(path).check()
        assert list(tmp_path.iterdir()) == []
        output(path).write("text \N{SNOWMAN}")
    finally:
        os.umask(old)
    assert path.read_bytes() == "text \N{SNOWMAN}".encode()
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("mode", [0o600, 0o664, 0o755])
def test_a_file_that_exists_is_replaced_and_keeps_its_permissions(
    tmp_path: Path, mode: int
) -> None:
    path = tmp_path / "old"
    path.write_text("old")
    path.chmod(mode)
    with path.open() as reader:
        output(path).write("new")
        # Who reads the old one reads all of it.
        assert reader.read() == "old"
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == mode
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_stays_and_its_target_is_written(tmp_path: Path, exists: bool) -> None:
    (tmp_path / "folder").mkdir()
    target, link, second = tmp_path / "folder/target", tmp_path / "link", tmp_path / "second"
    if exists:
        target.write_text("old")
    link.symlink_to("folder/target")
    second.symlink_to(link)
    output(second).check()
    output(second).write("new")
    assert second.is_symlink()
    assert os.readlink(link) == "folder/target"
    assert not target.is_symlink()
    assert target.read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_a_fifo_is_written_in_place(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    output(fifo).check()
    reader = Reader(fifo)
    output(fifo).write("x" * 200_000)
    assert reader.all() == b"x" * 200_000
    assert stat.S_ISFIFO(fifo.stat().st_mode)
    assert list(tmp_path.iterdir()) == [fifo]


def test_a_fifo_whose_reader_goes_is_one_error(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)

    def read_a_little() -> None:
        with fifo.open("rb", buffering=0) as reading:
            reading.read(1)

    reader = Thread(target=read_a_little)
    reader.start()
    # More than a pipe holds.
    with pytest.raises(OverlayError, match=r"^--dump = '.*fifo' cannot be written: Broken pipe$"):
        output(fifo).write("x" * 4_000_000)
    reader.join()


def test_what_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "lost").symlink_to("nowhere/file")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "socket"))
    assert "it is a folder" in refusal(tmp_path)
    assert "it is a folder" in refusal(".")
    assert "there is no folder" in refusal(tmp_path / "nowhere/file")
    assert "there is no folder" in refusal(tmp_path / "lost")
    assert "Not a directory" in refusal(tmp_path / "file/file")
    assert "symbolic link" in refusal(tmp_path / "loop")
    assert "written in place" in refusal(tmp_path / "socket")
    assert "no file's name" in refusal("")
    assert "no file's name" in refusal(f"{tmp_path}/new/")
    assert "too long" in refusal(tmp_path / ("x" * 300))
    assert "null" in refusal("a\0b")


def test_what_is_forbidden_is_refused_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, folder = tmp_path / "file", tmp_path / "folder"
    path.touch(0o400)
    folder.mkdir(0o500)
    if IS_ROOT:  # to whom the system forbids nothing
        forbidden = {str(path), str(folder)}
        monkeypatch.setattr(os, "access", lambda place, _: str(place) not in forbidden)
    assert "Permission denied" in refusal(path)
    assert f"no file can be made in {str(folder)!r}" in refusal(folder / "new")


def test_no_room_is_one_error_and_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def full(descriptor: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OverlayError, match=r"cannot be written: No space left on device$"):
        output(path).write("new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        output(tmp_path / "file").write("new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "fifo"])
def test_a_dump_to_where_standard_output_goes_stands_before_the_report(
    tmp_path: Path, kind: str
) -> None:
    """Neither takes the place of the other, nor of what was there before."""
    path, link = tmp_path / "out", tmp_path / "link"
    link.symlink_to(path)
    reader = None
    if kind == "fifo":
        os.mkfifo(path)
        reader = Reader(path)
    with path.open("wb") as stream:
        stream.write(b"before\n")
        stream.flush()
        subprocess.run([*SIMULATE, "--dump", str(link)], stdout=stream, check=True, timeout=60)
    data = path.read_bytes() if reader is None else reader.all()
    before, _, rest = data.decode().partition("\n")
    assert before == "before"
    dump, end = json.JSONDecoder().raw_decode(rest)
    assert len(dump["members"]) == 3
    assert json.loads(rest[end:])["nodes"] == 3


def test_a_dump_to_a_fifo_of_the_command(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    reader = Reader(fifo)
    done = subprocess.run(
        [*SIMULATE, "--dump", str(fifo)], capture_output=True, check=True, timeout=60
    )
    assert len(json.loads(reader.all())["members"]) == 3
    assert json.loads(done.stdout)["nodes"] == 3


def cramped(arguments: list[str], **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # type: ignore[call-overload,no-any-return]
        [sys.executable, "-B", "-c", CRAMPED, *arguments],
        # Unbuffered, Python itself would not notice that only a part was taken.
        env=os.environ | {"PYTHONUNBUFFERED": ""},
        text=True,
        stderr=subprocess.PIPE,
        timeout=60,
        **options,
    )


def test_a_dump_that_does_not_fit_is_one_line_and_1_and_the_report_is_told(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    done = cramped([*SIMULATE[3:], "--dump", str(path)], stdout=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr == (
        f"opus-socket: error: --dump = {str(path)!r} cannot be written: File too large\n"
    )
    assert json.loads(done.stdout)["nodes"] == 3
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_result_that_does_not_fit_is_one_line_and_1(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as stream:
        done = cramped(["config", "--example"], stdout=stream)
    assert done.returncode == 1
    assert done.stderr == "opus-socket: error: the output cannot be written: File too large\n"
