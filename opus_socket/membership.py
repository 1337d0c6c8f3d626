"""The inner side of an overlay socket: its memberships, one after the other.

Its one rule: a socket is a member once at a time. What a call may have to wait for it waits for
before anything is committed, and what is committed is done without another wait.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from functools import partial
from random import Random
from time import perf_counter
from weakref import WeakSet

import trio
from attrs import define, field

from opus_socket._arguments import check_address, check_traffic_class
from opus_socket.adapters.flow import Intake, Losses, Output
from opus_socket.adapters.inbox import Inbox
from opus_socket.config import OverlayConfig
from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.buckets import Buckets, Direction, DirectionName
from opus_socket.core.effects import Quantity, QuantityName
from opus_socket.core.events import AddressChanged, ContactFailed, Event, ServiceResult, Stable
from opus_socket.core.inquiries import Answered, Target
from opus_socket.core.measurement import check_measurable
from opus_socket.core.node import Measurement, Mode
from opus_socket.core.overlay import CoreSettings, OverlayCore
from opus_socket.core.requests import Payload, check_payload, check_payloads
from opus_socket.core.service import Scope, Service
from opus_socket.driver import Host
from opus_socket.errors import JoinError, NotJoinedError
from opus_socket.logs import library_log
from opus_socket.member import Member, Port, tell_nobody
from opus_socket.opening import Meeting, flow_settings, make_member
from opus_socket.pace import Pace
from opus_socket.service_handle import ServiceHandle
from opus_socket.subscription import EventSubscription
from opus_socket.train import LONGEST_TRAIN, Train

_log = library_log()


@define(eq=False)
class _Asker:
    """Somebody who waits for a measurement; None when the socket has left before it ended."""

    ended: trio.Event = field(factory=trio.Event)
    measurement: Measurement | None = None


@define(eq=False, repr=False)
class Membership:
    """What an overlay socket has, and what its calls are made of.

    Attributes:
        config: as it was opened with.
    """

    config: OverlayConfig
    _host: Host
    _settings: CoreSettings
    _meeting: Meeting
    _port: Port
    _owns_port: bool
    _rng: Random
    _inbox: Inbox = field(init=False)
    _member: Member | None = field(default=None, init=False)
    _core: OverlayCore | None = field(default=None, init=False)
    _joined: bool = field(default=False, init=False)
    _closed: bool = field(default=False, init=False)
    _closing: bool = field(default=False, init=False)
    _settled: trio.Event = field(factory=trio.Event, init=False)
    _join_error: JoinError | None = field(default=None, init=False)
    _subscriptions: WeakSet[EventSubscription] = field(factory=WeakSet, init=False)
    _events_lost: int = field(default=0, init=False)
    _handler: tuple[Service, Scope] | None = field(default=None, init=False)
    _handles: dict[str, ServiceHandle] = field(factory=dict, init=False)
    _intakes: dict[int | str, Intake] = field(factory=dict, init=False)
    _weights: dict[int, int] = field(init=False)
    _losses: Losses = field(factory=dict, init=False)
    _news: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)
    _senders: trio.lowlevel.ParkingLot = field(factory=trio.lowlevel.ParkingLot, init=False)
    _askers: dict[tuple[Target, Quantity], list[_Asker]] = field(factory=dict, init=False)
    _pace: Pace = field(factory=Pace, init=False)
    _buckets: Buckets = field(init=False)

    _train: Train = field(init=False)

    def __attrs_post_init__(self) -> None:
        limit = min(LONGEST_TRAIN, self.config.socket.send_buffer)
        self._train = Train(self._host, self._depart, limit)
        self._inbox = self._make_inbox(self.config.socket.receive_buffer)
        self._weights = self.config.socket.weights()
        self._buckets = Buckets.of(self.config.bandwidth())

    def _begin(self) -> Member:
        index = self._host.next_index()
        incarnation = time.time_ns() // 1_000_000 << 20 | secrets.randbits(20)
        if self._core is not None:
            # A clock may stand still between two stays, or be set back.
            incarnation = max(incarnation, self._core.contact.incarnation + 1)
        contact = Contact(None, incarnation, index, self._port.endpoints)
        core = OverlayCore(self._settings, contact, Random(self._rng.getrandbits(64)))
        self._settled, self._join_error = trio.Event(), None
        self._inbox.closed = False
        self._core = core
        place = Contact(None, 0, index, (self._port.endpoint,))
        self._member = member = make_member(
            self.config, self._meeting, self._port, core, place, self._inbox
        )
        member.publish, member.aborted = self._publish, self._abort
        member.answered = self._answer
        member.weights, member.losses = self._weights, self._losses
        if self._buckets:
            self._host.links.emulate(member, self._buckets)
        self._host.admit(member)
        return member

    def _start(self, member: Member) -> None:
        self._host.perform(member, member.core.join(self._host.now()))
        if self._handler is not None:
            self._host.perform(member, member.core.set_handler(*self._handler, self._host.now()))

    def _stop(self, member: Member) -> None:
        """Say goodbye; the core lingers in the host until it has nothing left to do."""
        self._train.leave()
        self._member, self._joined = None, False
        member.leaving = True
        member.publish = member.aborted = member.answered = tell_nobody
        try:
            # What services let go may be for the application; what comes later is not.
            self._host.perform(member, member.core.leave(self._host.now()))
            member.inbox = self._make_inbox(0)
            self._host.flush()
            if member.core.next_deadline == float("inf"):
                self._host.dismiss(member)
        except BaseException:
            # A service or a handler that raises has nothing more to say.
            self._host.dismiss(member)
            raise
        finally:
            self._end_waiting()

    def _end_waiting(self) -> None:
        """Nobody waits for anything of a membership that is over."""
        self._inbox.close()
        # Nobody looks after its bounds any more, so nobody may wait for it.
        self._inbox.output.open()
        self._settled.set()
        self._news.unpark_all()
        self._senders.unpark_all()
        for key in list(self._askers):
            self._end_asking(key, None)

    async def _drain(self, member: Member) -> None:
        """Wait until the neighbors have taken what is queued for them, or none takes anything."""
        self._train.leave()
        started = self._host.now()
        while outputs := [k.output for k in member.links.values() if k.output.queued]:
            now = self._host.now()
            progress = max(started, *[output.progress(now) for output in outputs])
            deadline = progress + self.config.socket.stall_timeout
            if now >= deadline:
                return
            with trio.move_on_at(deadline):
                await self._host.wait_turn()

    async def _send(
        self, payload: Payload, mode: Mode, key: LogicalAddress | None, traffic_class: int
    ) -> None:
        number = check_traffic_class(traffic_class)
        if perf_counter() >= self._pace.due or not self._may_send(number):
            await self._wait_to_send(number)
        self._send_one(payload, mode, key, number)

    def _send_one(
        self, payload: Payload, mode: Mode, key: LogicalAddress | None, traffic_class: int
    ) -> None:
        longest = self._check_joined().core.engine.longest_payload
        self._train.send(check_payload(payload), mode, key, traffic_class, longest)

    async def _send_batch(
        self,
        payloads: Sequence[Payload],
        mode: Mode,
        key: LogicalAddress | None,
        traffic_class: int,
    ) -> None:
        number = check_traffic_class(traffic_class)
        await self._wait_to_send(number)
        self._commit(payloads, mode, key, number)

    async def _send_next_to(
        self,
        choose: Callable[[], Sequence[LogicalAddress]],
        payload: Payload,
        traffic_class: int,
    ) -> None:
        number = check_traffic_class(traffic_class)
        await self._wait_to_send(number)
        for neighbor in choose():
            self._commit((payload,), Mode.UNICAST, neighbor, number, hop_limit=1)

    async def _wait_to_send(self, sender: int | str) -> None:
        """Wait while a class, or a service by its name, has filled an output."""
        self._check_joined()
        if perf_counter() >= self._pace.due:
            await self._pace.checkpoint()
        if not self._may_send(sender):
            await self._host.wait_for(partial(self._may_send, sender), self._senders)
            self._pace.rested()

    def _may_send(self, sender: int | str) -> bool:
        intake = self._intakes.get(sender)
        return intake is None or not (intake.blocked and self._joined)

    def _hold_back(self, sender: int | str, blockers: list[Output]) -> None:
        """Let a class or service wait for outputs; all others go on."""
        if blockers:
            intake = self._intakes.setdefault(sender, Intake(self._senders.unpark_all))
            intake.wait_for(blockers)

    def _commit(
        self,
        payloads: Sequence[Payload],
        mode: Mode,
        key: LogicalAddress | None,
        traffic_class: int,
        hop_limit: int | None = None,
    ) -> None:
        self._check_joined()
        owned = check_payloads(payloads)
        self._train.leave()
        if self._depart(owned, mode, key, traffic_class, hop_limit):
            self._host.flush_lone()
        else:
            self._host.flush_full()

    def _depart(
        self,
        payloads: Sequence[bytes],
        mode: Mode,
        key: LogicalAddress | None,
        traffic_class: int,
        hop_limit: int | None = None,
    ) -> bool:
        """Let the engine send messages, which is for good; whether there is room for more."""
        member, now = self._member, self._host.now()
        assert member is not None, "what was sent leaves before the membership ends"
        dispatch = member.core.originate(
            payloads, mode, key, now, hop_limit=hop_limit, traffic_class=traffic_class
        )
        blockers: list[Output] = []
        self._host.forward(member, dispatch, blockers)
        if blockers:
            self._hold_back(traffic_class, blockers)
            if self._may_send(traffic_class):
                # A stalled output drops what comes, and drains only if the loop has its turns.
                self._pace.hurry()
        return not blockers

    async def _ask(self, target: Target, named: Quantity | QuantityName) -> Measurement:
        member, quantity = self._check_joined(), check_measurable(named)
        await trio.lowlevel.checkpoint_if_cancelled()
        key, asker = (target, quantity), _Asker()
        self._askers.setdefault(key, []).append(asker)
        try:
            self._host.perform(member, member.core.measure(target, quantity, self._host.now()))
            self._host.flush_lone()
            await asker.ended.wait()
        finally:
            askers = self._askers.get(key, [])
            if asker in askers:
                askers.remove(asker)
            if not askers:
                self._askers.pop(key, None)
        if asker.measurement is None:
            self._check_joined()
            raise NotJoinedError("this socket has left before the measurement ended")
        return asker.measurement

    def _answer(self, answered: Answered) -> None:
        self._end_asking((answered.target, answered.measurement.quantity), answered.measurement)

    def _end_asking(self, key: tuple[Target, Quantity], measurement: Measurement | None) -> None:
        for asker in self._askers.pop(key, ()):
            asker.measurement = measurement
            asker.ended.set()

    def _use_handler(self, handler: tuple[Service, Scope] | None) -> None:
        """Let it see the application's messages, in this membership and those that follow."""
        self._check_open()
        self._handler, member = None, self._member
        if member is not None:
            # One that raises when it starts is not set; what the former lets go is let go.
            for each in (None, handler) if handler else (None,):
                machine, scope = each or (None, Scope.BOTH)
                now = self._host.now()
                self._host.perform(member, member.core.set_handler(machine, scope, now))
            self._host.flush_lone()
        self._handler = handler

    def _request(self, service: str, request: object) -> None:
        """Let a service take a request."""
        member, now = self._check_joined(), self._host.now()
        blockers: list[Output] = []
        self._host.perform(member, member.core.ask(service, request, now), blockers)
        self._hold_back(service, blockers)
        self._host.flush_lone()

    def _handle(self, name: str) -> ServiceHandle:
        if name not in self._handles:
            self._handles[name] = ServiceHandle(
                name,
                partial(self._wait_to_send, name),
                self._request,
                self._service_statistics,
            )
        return self._handles[name]

    def _service_statistics(self, name: str) -> object:
        return None if self._core is None else self._core.statistics().services.get(name)

    def _limit(
        self,
        direction: Direction | DirectionName,
        link: LogicalAddress | None,
        rate: float | None,
    ) -> None:
        self._buckets.limit(direction, link, rate, self._host.now())
        member = self._member
        if member is None:
            return
        if member.emulation is not None:
            member.emulation.changed()
        elif self._buckets:
            self._host.links.emulate(member, self._buckets)

    async def _wait_for_message(self) -> None:
        """Wait until there is one.

        Raises:
            trio.EndOfChannel, trio.TooSlowError, NotJoinedError, trio.ClosedResourceError: as
                `receive` says.
        """
        inbox = self._inbox
        if inbox and perf_counter() >= self._pace.due:
            await self._pace.checkpoint()
        while not inbox:
            self._check_open()
            if inbox.closed:
                raise trio.EndOfChannel
            if self._core is None:
                raise NotJoinedError("nothing can be received before join(); await it first")
            if self.config.socket.read_timeout:
                with trio.fail_after(self.config.socket.read_timeout):
                    await self._host.wait_for(inbox.settled, inbox.arrival)
            else:
                await self._host.wait_for(inbox.settled, inbox.arrival)
            self._pace.rested()

    def _publish(self, event: Event) -> None:
        if isinstance(event, ServiceResult):
            if event.service in self._handles:
                self._events_lost += self._handles[event.service].publish(event.result)
            return
        if isinstance(event, Stable):
            self._settled.set()
            self._news.unpark_all()
        elif isinstance(event, ContactFailed):
            log = _log.bind(overlay_id=self.config.overlay_id, endpoint=str(event.endpoint))
            if event.neighbor is None:
                log.warning("cannot reach a contact; trying again", reason=event.reason)
            else:
                log.warning(
                    "the way to a neighbor has failed",
                    neighbor=str(event.neighbor),
                    reason=event.reason,
                )
        elif isinstance(event, AddressChanged):
            _log.info("the logical address changed", old=str(event.old), new=str(event.new))
        if self._subscriptions:
            for subscription in self._subscriptions:
                if not subscription.put(event):
                    self._events_lost += 1

    def _abort(self, error: JoinError) -> None:
        self._join_error = error
        self._settled.set()
        if self._joined and self._member is not None:
            _log.error("the overlay refuses this member", error=str(error))
            self._stop(self._member)

    def _make_inbox(self, limit: int) -> Inbox:
        settings, look_soon = flow_settings(self.config, limit), self._host.links.look_soon
        output = Output(None, settings, look_soon, losses=self._losses)
        return Inbox(output, self._host.now)

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this overlay socket is closed; open another one")

    def _check_joined(self) -> Member:
        member = self._member
        if member is not None and self._joined:
            return member
        self._check_open()
        if self._closing or self._host.closing:
            raise trio.ClosedResourceError("this overlay socket is being closed; open another one")
        if self._join_error is None:
            raise NotJoinedError("this needs membership; await join() first")
        raise NotJoinedError("the overlay refused this member") from self._join_error

    def _check_address(self, address: LogicalAddress) -> LogicalAddress:
        return check_address(self._settings.spec, address)
