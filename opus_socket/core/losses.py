"""Loss reports: how a source learns that a message of its was dropped on its way.

Its one rule: a report is sent about a message of an application only, never about a report, and
so seldom that losing messages costs less than delivering them would have.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import islice

from attrs import define, field

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.batch import Batch
from opus_socket.core.dispatch import Tally
from opus_socket.core.events import MessageLost
from opus_socket.core.extensions import Code, Control, LossReport
from opus_socket.core.limiter import SourceLimiter
from opus_socket.core.message import HEADER_SIZE, OverlayMessage
from opus_socket.core.node import Mode
from opus_socket.core.origin import Origin, Plan
from opus_socket.core.reassembly import Loss
from opus_socket.core.routes import RouteCache
from opus_socket.core.runs import Run
from opus_socket.errors import RemoteProtocolError


def may_be_reported(run: Run) -> bool:
    """Whether the source of these messages is told when they are lost.

    Not about control messages, so that reports never breed; not about a flood, of which other
    copies may arrive; not about a service's, whose machine has its own acknowledgements.
    """
    return not (
        run.is_service
        or run.mode == Mode.FLOOD
        or (run.message is not None and run.message.extension(Code.CONTROL) is not None)
    )


def lost_message(report: OverlayMessage, incarnation: int) -> MessageLost:
    """The event that a control message becomes at the source of the lost message.

    Args:
        report: a message with a control extension.
        incarnation: this member's.

    Raises:
        RemoteProtocolError: it is malformed, or not about a message of this member.
    """
    control = report.extension(Code.CONTROL)
    if control is None:
        raise RemoteProtocolError("bad_report", "no control extension")
    loss = LossReport.from_wire(control.body, report.las)
    if loss.id[0] != incarnation or report.mode is not Mode.UNICAST:
        raise RemoteProtocolError("bad_report", "not about a message of this member")
    words = loss.quoted[HEADER_SIZE:]
    destination = LogicalAddress.from_wire(words[len(words) // 2 :])
    if destination == LogicalAddress.everybody(report.las):
        return MessageLost(loss.id, None, loss.reason, report.source)
    return MessageLost(loss.id, destination, loss.reason, report.source)


@define(eq=False)
class LossReporter:
    """Counts what is lost here, and tells whom it concerns.

    Args:
        origin: makes the reports.
        routes: the way that they take.
        tally: where they are counted.
        rate: reports a second and source.
    """

    origin: Origin
    routes: RouteCache
    tally: Tally
    rate: int
    _limiter: SourceLimiter = field(init=False)
    _reported: tuple[int, int] | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self._limiter = SourceLimiter(self.rate)

    def lose(self, batch: Batch, run: Run, why: Control) -> None:
        """Count a run of others as lost here, and tell its source as often as is allowed."""
        count = len(run.starts)
        batch.dispatch.drop(why.reason, count)
        source = run.source
        if source == self.origin.wire or not may_be_reported(run):
            return
        contacts = self.routes.find(Mode.UNICAST, source, None).contacts
        if not contacts:
            return
        first = run.first
        if run.fragment is not None:
            # One message, of which the last run may have been, too.
            # Whatever a remote says, no sequence number is below 0.
            first, count = first - min(run.fragment[0], first), 1
            if self._reported == (run.incarnation, first):
                return
            self._reported = run.incarnation, first
        to = LogicalAddress.from_wire(source)
        size = self.origin.shape.fixed
        for index in range(self._limiter.take(source, count, batch.now)):
            start = run.starts[index]
            quoted = bytes(batch.buffer[start : start + size])
            report = LossReport(why, (run.incarnation, first + index), quoted)
            frame = self.origin.make_report(report, to, run.traffic_class)
            batch.send(contacts, run.traffic_class, [frame], 1, len(frame))
            self.tally.reports_sent += 1

    def lose_own(
        self, batch: Batch, plan: Plan, payloads: Sequence[bytes], first: int, frames: int
    ) -> None:
        """Count messages of this member that have no way from here, and tell the application."""
        here, why = self.origin.here, Control.UNROUTABLE.reason
        batch.dispatch.drop(why, frames)
        allowed = self._limiter.take(self.origin.wire, len(payloads), batch.now)
        sequences = islice(self.origin.sequences(plan, payloads, first), allowed)
        if here is not None:
            batch.dispatch.events += [
                MessageLost((self.origin.incarnation, sequence), plan.key, why, here)
                for sequence in sequences
            ]

    def tell(self, losses: Iterable[Loss]) -> list[MessageLost]:
        """The events of messages of which fragments are missing here."""
        here = self.origin.here
        if here is None:
            return []
        events = []
        for loss in losses:
            destination = LogicalAddress.from_wire(loss.destination)
            for_one = None if destination == here.everybody(here.las) else destination
            events.append(MessageLost(loss.id, for_one, loss.reason, here))
        return events
