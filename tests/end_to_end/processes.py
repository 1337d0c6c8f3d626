"""Commands in processes of their own, and what they print.

Its one rule: nothing sleeps. A test waits for a line or for an end, and when that does not come in
time it fails with everything that the process has printed.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from threading import Condition, Thread
from typing import IO

TIMEOUT = 20.0
"""Seconds that a line or an end may take on a machine that has other things to do."""

COMMAND = (sys.executable, "-m", "opus_socket.cli")


class Lines:
    """The lines of a stream, collected by a thread as they come."""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._changed = Condition()
        self._seen = 0
        self.all: list[bytes] = []
        self.ended = False
        self._thread = Thread(target=self._collect, daemon=True)
        self._thread.start()

    def wait(self, pattern: bytes | str, timeout: float = TIMEOUT) -> re.Match[bytes] | None:
        """The match in the next line that has one; the search goes on behind it. None when the
        stream ends or the time is over without one.
        """
        expression = re.compile(pattern.encode() if isinstance(pattern, str) else pattern)
        with self._changed:
            while True:
                while self._seen < len(self.all):
                    self._seen += 1
                    if match := expression.search(self.all[self._seen - 1]):
                        return match
                if self.ended or not self._changed.wait(timeout):
                    return None

    def join(self) -> None:
        """Wait for the end of the stream."""
        self._thread.join(TIMEOUT)

    def _collect(self) -> None:
        with self._stream:
            for line in self._stream:
                with self._changed:
                    self.all.append(line.removesuffix(b"\n"))
                    self._changed.notify_all()
        with self._changed:
            self.ended = True
            self._changed.notify_all()


class Running:
    """A process whose standard input stays open until it is closed.

    Args:
        arguments: of the process, the program first.
        folder: where it runs.
    """

    def __init__(self, arguments: Sequence[str], folder: Path) -> None:
        self.arguments = arguments
        self._process = subprocess.Popen(
            arguments,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        assert self._process.stdin
        assert self._process.stdout
        assert self._process.stderr
        self._input = self._process.stdin
        self.out = Lines(self._process.stdout)
        self.err = Lines(self._process.stderr)

    def type(self, *lines: bytes | str) -> None:
        """Write lines to its standard input."""
        parts = [line.encode() if isinstance(line, str) else line for line in lines]
        self.write(b"".join(part + b"\n" for part in parts))

    def write(self, data: bytes) -> None:
        """Write to its standard input as it is."""
        self._input.write(data)
        self._input.flush()

    def end_input(self) -> None:
        """Close its standard input."""
        self._input.close()

    def prints(self, pattern: bytes | str, timeout: float = TIMEOUT) -> re.Match[bytes]:
        """Wait for a line on standard output."""
        match = self.out.wait(pattern, timeout)
        assert match, f"no line {pattern!r} on standard output of {self._story()}"
        return match

    def logs(self, pattern: bytes | str, timeout: float = TIMEOUT) -> re.Match[bytes]:
        """Wait for a line on standard error."""
        match = self.err.wait(pattern, timeout)
        assert match, f"no line {pattern!r} on standard error of {self._story()}"
        return match

    def joins(self) -> Joined:
        """Wait until this `cat` has joined."""
        match = self.logs(r'joined as ([\d,]+) with (\d+) neighbors?" endpoint=(\S+)')
        return Joined(*(group.decode() for group in match.groups()))

    def json(self) -> dict[str, object]:
        """The next line of standard output as a JSON object."""
        value = json.loads(self.prints(r"^.*$")[0])
        assert isinstance(value, dict)
        return value

    def ends(self) -> int:
        """Wait for its end; the exit status."""
        try:
            status = self._process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"no end of {self._story()}") from None
        self.out.join()
        self.err.join()
        return status

    def signal(self, number: int) -> None:
        """Send it a signal."""
        self._process.send_signal(number)

    def discard(self) -> None:
        """Kill it if it still runs, and close everything."""
        self._process.kill()
        self._process.wait()
        self.out.join()
        self.err.join()
        # Lines that it did not read any more are no failure.
        with suppress(BrokenPipeError):
            self._input.close()

    def _story(self) -> str:
        lines = [" ".join(self.arguments), f"status: {self._process.poll()}", "standard output:"]
        lines += [repr(line) for line in self.out.all[-20:]]
        lines += ["standard error:", *(line.decode(errors="replace") for line in self.err.all)]
        return "\n  ".join(lines)


class Joined:
    """What a `cat` says of itself when it has joined."""

    def __init__(self, address: str, neighbors: str, endpoint: str) -> None:
        self.address = address
        self.neighbors = int(neighbors)
        self.endpoint = endpoint


def free_port(host: str = "127.0.0.1") -> int:
    """A port that is free for UDP and TCP. Another process could take it, but hardly does."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    while True:
        with (
            socket.socket(family, socket.SOCK_STREAM) as tcp,
            socket.socket(family, socket.SOCK_DGRAM) as udp,
        ):
            tcp.bind((host, 0))
            port: int = tcp.getsockname()[1]
            try:
                udp.bind((host, port))
            except OSError:
                continue
            return port
