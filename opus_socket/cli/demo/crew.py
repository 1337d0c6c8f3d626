"""The processes of a demonstration, seen from their parent.

Its one rule: none is left behind. A process ends when its standard input does, which happens
whatever becomes of the parent; and one that ends before it was told to ends the demonstration.
"""

from __future__ import annotations

import functools
import signal
import subprocess
import sys
from contextlib import suppress

import trio
from attrs import define, field

from opus_socket.cli.demo.words import Failed, Order, Report, pack, report
from opus_socket.cli.pipes import JsonReader, JsonWriter
from opus_socket.errors import ConfigurationError, OverlayError

END_TIMEOUT = 5.0
_PROGRAM = "opus_socket.cli.demo.member"
_MOST_REPORTS = 1024


@define(eq=False)
class Crew:
    """Processes of members.

    Attributes:
        processes: by number, those that were started.
    """

    processes: dict[int, trio.Process] = field(factory=dict, init=False)
    _writers: dict[int, JsonWriter] = field(factory=dict, init=False)
    _reports: trio.MemorySendChannel[Report] = field(init=False)
    _coming: trio.MemoryReceiveChannel[Report] = field(init=False)
    _dismissed: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._reports, self._coming = trio.open_memory_channel[Report](_MOST_REPORTS)

    async def employ(
        self, number: int, *, task_status: trio.TaskStatus[int] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Start a process and listen to it until it ends; cancelled, end it.

        Args:
            number: by which it is known here.
            task_status: told its process id.

        Raises:
            OverlayError: it ended before it was dismissed, or it reports that it cannot go on.
        """
        async with trio.open_nursery() as nursery:
            process: trio.Process = await nursery.start(
                functools.partial(
                    trio.run_process,
                    # -P: what lies in the current folder is nobody's module.
                    [sys.executable, "-P", "-m", _PROGRAM],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    check=False,
                    # Not in the terminal's group: an interrupt is for the parent to act on.
                    process_group=0,
                )
            )
            assert process.stdin is not None
            assert process.stdout is not None
            self.processes[number] = process
            self._writers[number] = JsonWriter(process.stdin)
            task_status.started(process.pid)
            async for value in JsonReader(process.stdout):
                self._judge(came := report(value))
                await self._reports.send(came)
            status = await process.wait()
            if not self._dismissed:
                raise OverlayError(
                    f"member process {number} (pid {process.pid}) {_how_it_ended(status)}"
                )

    async def tell(self, number: int, order: Order) -> None:
        """Give an order to a process."""
        # If it has ended, whoever listens to it says so.
        with suppress(trio.BrokenResourceError):
            await self._writers[number].write(pack(order))

    async def hear(self) -> Report:
        """The next report of any process."""
        return await self._coming.receive()

    async def dismiss(self) -> None:
        """Let all processes end in good order; who does not is left to cancellation."""
        self._dismissed = True
        with trio.move_on_after(END_TIMEOUT):
            for process in self.processes.values():
                assert process.stdin is not None
                await process.stdin.aclose()
            for process in self.processes.values():
                await process.wait()

    def _judge(self, came: Report) -> None:
        if isinstance(came, Failed):
            kind = ConfigurationError if came.by_configuration else OverlayError
            raise kind(came.problem)


def _how_it_ended(status: int) -> str:
    if status < 0:
        return f"was ended by {signal.Signals(-status).name}"
    return f"ended by itself, with status {status}"
