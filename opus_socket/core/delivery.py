"""Delivery: what becomes of messages that are for this member, or that somebody here sees first.

Its one rule: whoever gets a message gets all of it. The application's go to the application, or to
a handler that watches them; a service's to that service; reports about losses become events; and
fragments wait until their message is whole, which then goes the same way.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, evolve, field

from opus_socket.core.batch import Batch
from opus_socket.core.dispatch import ForService, Tally
from opus_socket.core.duplicates import DuplicateWindows
from opus_socket.core.events import MessageLost
from opus_socket.core.extensions import Code
from opus_socket.core.fragments import bodies_of, opening_of
from opus_socket.core.losses import LossReporter, lost_message
from opus_socket.core.message import OverlayMessage
from opus_socket.core.origin import Origin
from opus_socket.core.reassembly import Reassembly
from opus_socket.core.runs import SERVICE_SIZE, Run
from opus_socket.errors import ConfigurationError, RemoteProtocolError


@define(eq=False, repr=False)
class Delivery:
    """The receiving end of one member.

    Args:
        origin: knows who this member is.
        tally: where it is counted.
        losses: tells whom it concerns.
        max_message: bytes of payload of the longest message that is put together.
        windows: know what has come of each lane.

    Attributes:
        intercepted: whether anybody sees relayed messages: of the application (by False), of
            services (by True).
        watching: whether a handler sees the messages for the application.
    """

    origin: Origin
    tally: Tally
    losses: LossReporter
    max_message: int
    windows: DuplicateWindows
    intercepted: dict[bool, bool] = field(factory=lambda: {False: False, True: False}, init=False)
    watching: bool = field(default=False, init=False)
    _services: dict[int, bool] = field(factory=dict, init=False)
    _reassembly: Reassembly = field(init=False)
    _left: bool = field(default=False, init=False)

    def __attrs_post_init__(self) -> None:
        self._reassembly = Reassembly(self.max_message, self.windows)

    def register(self, service: int, intercepts: bool) -> None:
        """Hand messages for this service over from now on: see `ForwardingEngine`.

        Raises:
            ConfigurationError: a service with this id is registered already.
        """
        if service in self._services:
            raise ConfigurationError(
                f"service id {service:#010x} is taken: a service runs once on a socket, and two "
                "services need names with different ids"
            )
        self._services[service] = intercepts
        self.intercepted[True] |= intercepts

    @property
    def next_deadline(self) -> float:
        """When `wake` is due, in seconds; inf for never."""
        return self._reassembly.next_deadline

    @property
    def gathered_bytes(self) -> int:
        """What is held now of messages of which fragments are missing."""
        return self._reassembly.cost

    def wake(self, now: float) -> Sequence[MessageLost]:
        """The deadline has come: the messages of which the rest will not come."""
        losses = self._reassembly.wake(now)
        self.tally.dropped.update([loss.reason for loss in losses])
        return self.losses.tell(losses)

    def leave(self) -> None:
        """Gather no fragments any more: nobody waits for their message."""
        self._left = True
        self._reassembly.clear()

    def deliver(self, batch: Batch, run: Run, *, held: bool) -> None:
        """Deliver a run that is for this member, perhaps among others.

        Args:
            batch: what is being handled.
            run: frames that have not been here before.
            held: whether it is one message that is to be sent on only when it is let go.
        """
        if run.fragment is not None:
            self._gather(batch, run, run.fragment[0])
        elif run.message is not None:
            self._deliver_parsed(batch, run, run.message, held)
        elif run.is_service or self.watching:
            self.hand_over(batch, run, addressed=True, held=held)
        else:
            batch.dispatch.delivered_size += run.stop - run.starts[0]
            batch.dispatch.delivered += run.messages(batch.buffer, self.origin.shape.size)

    def _deliver_parsed(self, batch: Batch, run: Run, message: OverlayMessage, held: bool) -> None:
        dispatch = batch.dispatch
        if any(each.unknown_mandatory for each in message.extensions):
            dispatch.drop("unknown_extension", 1)
        elif run.is_service:
            self.hand_over(batch, run, addressed=True, held=held)
        elif message.extension(Code.CONTROL) is not None:
            try:
                dispatch.events.append(lost_message(message, self.origin.incarnation))
                self.tally.reports_received += 1
            except RemoteProtocolError as error:
                dispatch.drop(error.kind, 1)
        elif message.extension(Code.RAW) is None:
            dispatch.drop("no_payload", 1)
        elif self.watching:
            self.hand_over(batch, run, addressed=True, held=held)
        else:
            dispatch.delivered_size += message.size
            dispatch.delivered.append(message)

    def _gather(self, batch: Batch, run: Run, index: int) -> None:
        """Keep fragments, the first with this index, until their message is whole; deliver that."""
        dispatch, message = batch.dispatch, run.message
        if self._left:
            dispatch.drop("not_joined", len(run.starts))
            return
        if message is not None and any(each.unknown_mandatory for each in message.extensions):
            dispatch.drop("unknown_extension", 1)
            return
        bodies = bodies_of(run, batch.buffer, self.origin.shape)
        opening = None if index else opening_of(run, batch.buffer, self.origin.shape)
        gathered = self._reassembly.take(run, bodies, opening, batch.now)
        dispatch.duplicates += gathered.duplicates
        if gathered.refused:
            dispatch.drop("bad_fragment", gathered.refused)
        if gathered.losses:
            for loss in gathered.losses:
                dispatch.drop(loss.reason, 1)
            dispatch.events += self.losses.tell(gathered.losses)
        whole = gathered.message
        if whole is None:
            dispatch.gathering = True
        elif whole.is_usual and not (run.is_service or self.watching):
            dispatch.delivered_size += whole.size
            dispatch.delivered.append(whole)
        else:
            found = evolve(run, message=whole, fragment=None)
            self._deliver_parsed(batch, found, whole, held=False)

    def is_intercepted(self, batch: Batch, run: Run) -> bool:
        """Whether somebody here is to see this run of one message before it is sent on."""
        message = run.message
        if message is not None and any(each.unknown_mandatory for each in message.extensions):
            return False
        if run.is_service:
            [message] = self._messages(batch, run)
            return self._services.get(message.service or 0, False)
        return message is None or message.extension(Code.RAW) is not None

    def _messages(self, batch: Batch, run: Run) -> list[OverlayMessage]:
        if run.message is not None:
            return [run.message]
        before_payload = self.origin.shape.size + (SERVICE_SIZE if run.is_service else 0)
        return run.messages(batch.buffer, before_payload)

    def hand_over(self, batch: Batch, run: Run, *, addressed: bool, held: bool) -> None:
        """Hand messages to the services that they are for, the application's to its handler."""
        for message in self._messages(batch, run):
            service = message.service if run.is_service else None
            if run.is_service and service not in self._services:
                batch.dispatch.drop("unknown_service", 1)
                continue
            batch.dispatch.for_services.append(
                ForService(service, message, batch.arrived_from, addressed, held)
            )
