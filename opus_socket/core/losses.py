"""Loss reports: how a source learns that a message of its was dropped on its way.

Its one rule: a report is sent about a message of an application only, never about a report, and
so seldom that losing messages costs less than delivering them would have.
"""

from __future__ import annotations

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.events import MessageLost
from opus_socket.core.extensions import Code, LossReport
from opus_socket.core.message import HEADER_SIZE, OverlayMessage
from opus_socket.core.node import Mode
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
