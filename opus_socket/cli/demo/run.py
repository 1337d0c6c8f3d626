"""A demonstration from beginning to end: processes, members, one multicast, and what came of it.

Its one rule: nothing is claimed that was not seen. The multicast begins when every member has
joined and the tables of all, read over the control pipes, are symmetric, make one tree that
reaches everybody, and have stayed the same for a moment; a member counts when the digest that it
computed is the file's. Whoever makes no progress for too long ends the demonstration.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import trio
from attrs import define, frozen

from opus_socket.cli.demo.crew import Crew
from opus_socket.cli.demo.transfer import digest_of
from opus_socket.cli.demo.words import (
    Address,
    Begin,
    Finished,
    Joined,
    Look,
    Multicast,
    Place,
    Places,
    Progress,
    Report,
)
from opus_socket.errors import OverlayError
from opus_socket.rendezvous.serve import serve
from opus_socket.simulator.checkers.trees import RoutingTree, tree_faults

SENDER = 1
"""The number of the member that sends; members are numbered from 1."""

PATIENCE = 20.0
LOOK_EVERY = 0.1
SAME_LOOKS = 5


@frozen
class Plan:
    """What is to be shown.

    Attributes:
        file: what the sender sends.
        members, processes: how many; each process has at least one member.
        protocol: of the overlay.
        patience: seconds without any progress after which it is given up.
    """

    file: Path
    members: int
    processes: int
    protocol: str
    patience: float = PATIENCE

    def process_of(self, member: int) -> int:
        """The number of a member's process, from 1."""
        return (member - 1) % self.processes + 1

    def members_of(self, process: int) -> tuple[int, ...]:
        """The numbers of a process's members."""
        return tuple(range(process, self.members + 1, self.processes))


class Spectator:
    """Is told how a demonstration goes on; this one keeps it to itself."""

    def serving(self, server: str) -> None:
        """The rendezvous server listens at this endpoint."""

    def started(self, process: int, pid: int) -> None:
        """A process of members has been started; its number, and the system's."""

    def joined(self, count: int) -> None:
        """So many members have joined."""

    def agreed(self, size: int, seconds: float) -> None:
        """The tables of all agree, so many seconds after the last join; a file of so many bytes is
        on its way to every other member.
        """

    def received(self, size: int) -> None:
        """So many bytes have arrived, at all members together."""

    def verifying(self) -> None:
        """All that was to arrive has; the file's own digest is computed."""


@frozen
class Outcome:
    """What came of a demonstration.

    Attributes:
        plan: what was to be shown.
        size, sha256: the file's bytes, and their digest.
        joined: what each member said when it had joined, by its number.
        settled_s: seconds from the last join until the tables of all had agreed for a moment.
        places: where the members stood when the multicast began.
        depths: hops from the sender to each member.
        finished: what those members report that had everything in time, and the sender.
    """

    plan: Plan
    size: int
    sha256: str
    joined: Mapping[int, Joined]
    settled_s: float
    places: Mapping[int, Place]
    depths: Mapping[int, int]
    finished: Mapping[int, Finished]

    @property
    def delivered(self) -> tuple[int, ...]:
        """The members whose digest is right; the sender has the file anyway."""
        return tuple(
            number
            for number, report in sorted(self.finished.items())
            if (report.size, report.sha256) == (self.size, self.sha256)
        )

    def seconds(self, member: int) -> float:
        """From the sender's first byte to the member's last, 0 if it did not get all of them."""
        report, sent = self.finished.get(member), self.finished.get(SENDER)
        return report.ended - sent.began if report is not None and sent is not None else 0.0

    @property
    def multicast_s(self) -> float:
        """Seconds until the last member that got everything had it; 0 when there is no other than
        the sender.
        """
        receivers = [number for number in self.finished if number != SENDER]
        return max(map(self.seconds, receivers), default=0.0)

    @property
    def receivers(self) -> int:
        """How many members got the file from another."""
        return sum(number != SENDER for number in self.delivered)

    def rate(self, seconds: float) -> float:
        """The file's size over these seconds, in Mbit/s."""
        return self.size * 8 / 1e6 / seconds if seconds > 0 else 0.0


async def demonstrate(plan: Plan, spectator: Spectator) -> Outcome:
    """Let an overlay form itself, and send a file through it.

    Raises:
        OverlayError: it did not form, or a process of members ended; in a group.
        OSError: the file cannot be read.
    """
    async with trio.open_nursery() as nursery:
        server = await nursery.start(serve, "127.0.0.1:0")
        spectator.serving(str(server))
        crew = Crew()
        for process in range(1, plan.processes + 1):
            spectator.started(process, await nursery.start(crew.employ, process))
        course = _Course(plan, spectator, crew)
        joined = await course.join(str(server))
        last_join = trio.current_time()
        places = await course.settle(joined[SENDER].address)
        settled_s = trio.current_time() - last_join
        spectator.agreed(plan.file.stat().st_size, settled_s)
        finished = await course.multicast()
        spectator.verifying()
        await crew.dismiss()
        size, sha256 = await trio.to_thread.run_sync(digest_of, plan.file, abandon_on_cancel=True)
        nursery.cancel_scope.cancel()
    return Outcome(plan, size, sha256, joined, settled_s, places, depths_of(places), finished)


@define(eq=False)
class _Course:
    """The steps of a demonstration."""

    plan: Plan
    spectator: Spectator
    crew: Crew

    async def join(self, server: str) -> dict[int, Joined]:
        """Let all members join at once; what each said when it had."""
        plan, joined = self.plan, dict[int, Joined]()
        overlay_id = f"demo-{os.getpid()}"
        for process in range(1, plan.processes + 1):
            begin = Begin(overlay_id, server, plan.protocol, plan.members_of(process))
            await self.crew.tell(process, begin)
        while len(joined) < plan.members:
            report = await self._hear()
            if report is None:
                raise OverlayError(self._complaint(joined))
            if isinstance(report, Joined):
                joined[report.member] = report
                self.spectator.joined(len(joined))
        return dict(sorted(joined.items()))

    async def _hear(self) -> Report | None:
        """The next report; None when there is none for too long."""
        with trio.move_on_after(self.plan.patience):
            return await self.crew.hear()
        return None

    def _complaint(self, joined: Mapping[int, Joined]) -> str:
        plan = self.plan
        missing = [number for number in range(1, plan.members + 1) if number not in joined]
        return (
            f"{len(missing)} of {plan.members} members have not joined, and none did in the last "
            f"{plan.patience:g} s; the first of them is member {missing[0]} in process "
            f"{plan.process_of(missing[0])}"
        )

    async def settle(self, root: Address) -> dict[int, Place]:
        """Where the members stand, once they agree on it and have done so for a moment."""
        same, before, fault = 0, dict[int, Place](), None
        with trio.move_on_after(self.plan.patience):
            while same < SAME_LOOKS:
                await trio.sleep(LOOK_EVERY)
                places = await self._look(root)
                # It changes where two members had drawn the same.
                root = places[SENDER].address
                fault = fault_of(places)
                same = same + 1 if fault is None and places == before else 0
                before = places
            return before
        raise OverlayError(
            f"the overlay is not complete after {self.plan.patience:g} s: "
            f"{fault or 'its members still find new neighbors'}"
        )

    async def _look(self, root: Address) -> dict[int, Place]:
        """Where the members stand now."""
        for process in self.crew.processes:
            await self.crew.tell(process, Look(root))
        places: dict[int, Place] = {}
        while len(places) < self.plan.members:
            report = await self.crew.hear()
            if isinstance(report, Places):
                places |= {place.member: place for place in report.places}
        return dict(sorted(places.items()))

    async def multicast(self) -> dict[int, Finished]:
        """Let the sender send; what those said who had everything in time, and the sender."""
        order = Multicast(SENDER, str(self.plan.file.absolute()))
        await self.crew.tell(self.plan.process_of(SENDER), order)
        finished: dict[int, Finished] = {}
        received: dict[int, int] = {}
        while len(finished) < self.plan.members:
            match await self._hear():
                case Progress(received=pairs):
                    received |= dict(pairs)
                case Finished(member=member, size=size) as report:
                    finished[member] = report
                    received[member] = 0 if member == SENDER else size
                case None:
                    break
                case _:
                    continue  # the answer to a look that was not waited for
            self.spectator.received(sum(received.values()))
        return finished


def fault_of(places: Mapping[int, Place]) -> str | None:
    """Why a multicast of the sender would not reach everybody; None when it would."""
    numbers = {place.address: number for number, place in places.items()}
    if len(numbers) < len(places):
        return "two members have the same logical address"
    for number, place in places.items():
        for neighbor in place.neighbors:
            if neighbor not in numbers:
                return f"member {number} has a neighbor at {neighbor}, where no member is"
            other = numbers[neighbor]
            if place.address not in places[other].neighbors:
                return f"member {other} is a neighbor of member {number}, but not the reverse"
    faults = tree_faults(list(places), SENDER, _parents(places, numbers))
    return f"member {faults[0].member} {faults[0].reason}" if faults else None


def depths_of(places: Mapping[int, Place]) -> dict[int, int]:
    """Hops from the sender to each member, where `fault_of` finds no fault."""
    numbers = {place.address: number for number, place in places.items()}
    return RoutingTree.of(list(places), SENDER, _parents(places, numbers)).depths()


def _parents(places: Mapping[int, Place], numbers: Mapping[Address, int]) -> dict[int, int | None]:
    return {
        number: None if place.parent is None else numbers.get(place.parent)
        for number, place in places.items()
    }
