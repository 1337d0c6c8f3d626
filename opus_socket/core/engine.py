"""The forwarding engine: where messages go, decided once for a run of them.

Its one rule: it works on batches. A run is a sequence of frames of the usual shape (message id,
then raw payload or service) that agree in everything but length and sequence number, which
counts up by one; it is looked up, checked for duplicates, delivered and passed on as a whole.
Every other frame takes the general parser, and then the same way as a run of one.

    dispatch = engine.switch(buffer, arrived_from, now)        # what came from a neighbor
    dispatch = engine.originate(payloads, mode, key, now)      # what this member sends

Rules of delivery: multicast and flood go to everybody but their sender; unicast to the member
with the destination's address; anycast where no hop is nearer and the node accepts the key. A
message is handled once at each member (see `duplicates`), so every loop ends. The hop limit
counts down on receipt, and at zero a message goes no further. What is lost here is counted, and
the loss of an application's message is reported to its source, unless it was a flood.

A message that is longer than a frame goes in fragments, which are relayed as they are and put
together where they are delivered; `wake` gives up those of which the rest does not come.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import define, field

from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.batch import Batch
from opus_socket.core.delivery import Delivery
from opus_socket.core.dispatch import (
    Dispatch,
    EngineSettings,
    EngineStatistics,
    ForService,
    Output,
    Tally,
)
from opus_socket.core.duplicates import REFUSED, DuplicateWindows
from opus_socket.core.events import MessageLost
from opus_socket.core.extensions import Control
from opus_socket.core.fragments import find_run
from opus_socket.core.losses import LossReporter
from opus_socket.core.message import HEADER_SIZE, VERSION, version_and_size
from opus_socket.core.node import Mode, Node
from opus_socket.core.origin import FOR_ALL, Origin, Plan
from opus_socket.core.parcel import Frames, Parcel
from opus_socket.core.routes import RouteCache
from opus_socket.core.runs import Run, parse_run, run_of
from opus_socket.errors import RemoteProtocolError

__all__ = [
    "Dispatch",
    "EngineSettings",
    "EngineStatistics",
    "ForService",
    "ForwardingEngine",
    "Output",
]

# Plain numbers: comparing with a member of an enumeration costs a look-up in the hot path.
_UNICAST = int(Mode.UNICAST)
_FOR_ALL = tuple(map(int, FOR_ALL))
_NOTHING = memoryview(b"")


@define(eq=False, repr=False)
class ForwardingEngine:
    """Moves messages along the trees of one node.

    Args:
        node: says where messages go; nothing of it is called but `version`, `contact`,
            `neighbors`, `next_hops` and `accepts`.
        settings: limits.
        incarnation: this member's, the first half of every message's identity.

    Attributes:
        windows: what was seen of each lane that passes here.
    """

    node: Node
    settings: EngineSettings
    incarnation: int
    windows: DuplicateWindows = field(init=False)
    _origin: Origin = field(init=False)
    _routes: RouteCache = field(init=False)
    _losses: LossReporter = field(init=False)
    _delivery: Delivery = field(init=False)
    _tally: Tally = field(factory=Tally, init=False)

    def __attrs_post_init__(self) -> None:
        settings = self.settings
        self._origin = Origin(settings, self.incarnation)
        self._routes = RouteCache(self.node, settings.routes)
        self.windows = DuplicateWindows(settings.lanes, settings.lane_lifetime)
        self._losses = LossReporter(
            self._origin, self._routes, self._tally, settings.reports_per_second
        )
        self._delivery = Delivery(
            self._origin, self._tally, self._losses, settings.max_message, self.windows
        )

    def longest_payload(self) -> int:
        """Bytes of the longest payload of the application that fits one frame."""
        if self.node.version != self._routes.version:
            self._refresh()
        return self._origin.longest

    def register_service(self, service: int, intercepts: bool = False) -> None:
        """Hand messages for this service over from now on.

        Args:
            service: its id (`service.service_id`).
            intercepts: whether it also sees messages for it that are relayed here. Messages in
                fragments pass all the same: to hold them, a relay would have to gather them.

        Raises:
            ConfigurationError: a service with this id is registered already.
        """
        self._delivery.register(service, intercepts)

    def watch(self, *, delivered: bool, relayed: bool) -> None:
        """Hand messages of the application to a handler from now on, or no more.

        Args:
            delivered: those that are for this member, instead of delivering them.
            relayed: those that are on their way to others, instead of sending them on. Fragments
                pass all the same, as with services.
        """
        self._delivery.watching, self._delivery.intercepted[False] = delivered, relayed

    def originate(
        self,
        payloads: Sequence[bytes],
        mode: Mode,
        key: LogicalAddress | None,
        now: float,
        *,
        hop_limit: int | None = None,
        traffic_class: int = 0,
    ) -> Dispatch:
        """Send messages of this member's application.

        Args:
            payloads: one for each message, each of at most `max_message` bytes.
            mode: how they are delivered.
            key: the destination; None for multicast and flood.
            now: seconds.
            hop_limit: 1..65,535; by default that of the settings.
            traffic_class: which queue they take, 0..255.

        Raises:
            LocalProtocolError: a payload above the limit, a number out of range, or a key that
                is missing, superfluous or of another kind. Nothing was sent.
            NotJoinedError: the node has no address yet.
        """
        if self.node.version != self._routes.version:
            self._refresh()
        plan = self._origin.plan(mode, key, hop_limit, traffic_class, None)
        return self._originate(plan, payloads, now)

    def originate_service(
        self,
        service: int,
        bodies: Sequence[bytes],
        mode: Mode,
        key: LogicalAddress | None,
        now: float,
        *,
        hop_limit: int | None = None,
        traffic_class: int = 0,
    ) -> Dispatch:
        """Send messages of one of this member's services to the same service of others.

        As `originate`; `service` is the service's id.
        """
        if self.node.version != self._routes.version:
            self._refresh()
        plan = self._origin.plan(mode, key, hop_limit, traffic_class, service)
        return self._originate(plan, bodies, now)

    def switch(self, frames: Frames, arrived_from: LogicalAddress | None, now: float) -> Dispatch:
        """Handle every whole frame of what came from one neighbor.

        Args:
            frames: what came; of a buffer the hop limits are overwritten.
            arrived_from: the neighbor; None when it is not known.
            now: seconds.
        """
        if self.node.version != self._routes.version:
            self._refresh()
        if isinstance(frames, memoryview):
            batch, end = Batch(frames, None, arrived_from, now), len(frames)
        else:
            batch, end = Batch(_NOTHING, frames, arrived_from, now), frames.size
        offset = 0
        while offset < end:
            stop = self._take_run(batch, offset) or self._take_frame(batch, offset)
            if not stop:
                break
            offset = stop
        batch.dispatch.consumed = offset
        return batch.finish(self._tally)

    def resume(self, held: ForService, now: float) -> Dispatch:
        """Let a message go that a service or the handler was given: send it on if it was held,
        and deliver it if it is the application's and for this member.

        Args:
            held: as `switch` handed it out; at most once.
            now: seconds.
        """
        if self.node.version != self._routes.version:
            self._refresh()
        message, identity = held.message, held.message.id
        parcel = Parcel(message.size, (message.frame,))
        batch = Batch(_NOTHING, parcel, held.arrived_from, now)
        if held.service is None and held.addressed:
            batch.dispatch.delivered_size += message.size
            batch.dispatch.delivered.append(message)
        if not held.held:
            return batch.finish(self._tally)
        if identity is None or message.las != self._origin.shape.las:
            batch.dispatch.drop("las", 1)
            return batch.finish(self._tally)
        run = run_of(message, identity, 0)
        contacts = self._routes.find(run.mode, _key(run), held.arrived_from).contacts
        if contacts:
            self._send_on(batch, run, contacts)
        elif not held.addressed:
            self._losses.lose(batch, run, Control.UNROUTABLE)
        return batch.finish(self._tally)

    @property
    def next_deadline(self) -> float:
        """When `wake` is due, in seconds; inf for never."""
        return self._delivery.next_deadline

    def wake(self, now: float) -> Sequence[MessageLost]:
        """The deadline has come: the messages of which the rest will not come."""
        return self._delivery.wake(now)

    def leave(self) -> None:
        """Gather no fragments any more: nobody waits for their message."""
        self._delivery.leave()

    def statistics(self) -> EngineStatistics:
        """What this engine has done so far."""
        return self._tally.statistics(
            route_hits=self._routes.hits,
            route_misses=self._routes.misses,
            routes=len(self._routes),
            lanes=len(self.windows),
            gathered_bytes=self._delivery.gathered_bytes,
        )

    def _refresh(self) -> None:
        """The node's tables have changed."""
        self._routes.refresh()
        self._origin.move(self.node.contact.address)

    def _originate(self, plan: Plan, payloads: Sequence[bytes], now: float) -> Dispatch:
        tally = self._tally
        first, count, pieces, size = self._origin.make(plan, payloads)
        dispatch = Dispatch()
        if not count:
            return dispatch
        dispatch.first_id = (self.incarnation, first)
        tally.originated_frames += count
        tally.originated_bytes += size
        if plan.mode == _UNICAST and plan.root == self._origin.wire:
            batch = Batch(memoryview(b"".join(pieces)), None, None, now, dispatch)
            self._deliver_own(batch)
            return batch.finish(tally)
        contacts = self._routes.find(plan.mode, plan.root, None).contacts
        if contacts:
            parcel, traffic_class = Parcel(size, pieces), plan.traffic_class
            dispatch.outputs = [
                Output(contact, traffic_class, parcel, count, size) for contact in contacts
            ]
            tally.transmitted_frames += count * len(contacts)
            tally.transmitted_bytes += size * len(contacts)
        elif plan.key is not None or not self.node.stable:
            # Who is alone and settled sends to all that there are, which is nobody.
            batch = Batch(_NOTHING, None, None, now, dispatch)
            self._losses.lose_own(batch, plan, payloads, first, count)
            return batch.finish(tally)
        return dispatch

    def _deliver_own(self, batch: Batch) -> None:
        """Deliver what this member sends to itself."""
        shape, maximum, offset = self._origin.shape, self.settings.maximum_frame, 0
        while offset < len(batch.buffer):
            run = find_run(batch.read, offset, shape, maximum)
            assert run is not None, "own frames have the usual shape"
            self._delivery.deliver(batch, run, held=False)
            offset = run.stop

    def _take_run(self, batch: Batch, offset: int) -> int:
        """Handle the run at `offset`; where it ends, 0 when there is none."""
        origin, maximum = self._origin, self.settings.maximum_frame
        if origin.here is None:
            return 0
        if batch.parcel is None:
            run = find_run(batch.read, offset, origin.shape, maximum)
        else:
            run = batch.parcel.run_at(offset, origin.shape, maximum)
        if run is None:
            return 0
        self._handle(batch, run)
        return run.stop

    def _take_frame(self, batch: Batch, offset: int) -> int:
        """Handle the one frame at `offset`; where it ends, 0 when it is broken or not whole."""
        buffer, dispatch = batch.buffer, batch.dispatch
        available = len(buffer) - offset
        if available < HEADER_SIZE:
            return 0
        version, size = version_and_size(buffer, offset)
        if version != VERSION:
            dispatch.broken = "version"
            return 0
        if size > self.settings.maximum_frame:
            dispatch.broken = "oversize"
            return 0
        if available < size:
            return 0
        try:
            self._handle_parsed(batch, bytes(buffer[offset : offset + size]), offset)
        except RemoteProtocolError as error:
            dispatch.drop(error.kind, 1)
        return offset + size

    def _handle_parsed(self, batch: Batch, frame: bytes, offset: int) -> None:
        """Handle a frame that has not the usual shape.

        Raises:
            RemoteProtocolError: it is malformed, or not for this overlay.
        """
        if self._origin.here is None:
            raise RemoteProtocolError("not_joined")
        self._handle(batch, parse_run(frame, self._origin.shape.las, offset))

    def _handle(self, batch: Batch, run: Run) -> None:
        """Check a run for duplicates, and deliver and send on what is new of it."""
        starts, dispatch, incarnation = run.starts, batch.dispatch, run.incarnation
        count, size = len(starts), run.stop - starts[0]
        dispatch.received += count
        if incarnation == self.incarnation:
            dispatch.duplicates += count
            return
        accepted = self.windows.accept(
            incarnation, run.first, count, batch.now, batch.arrived_from, run.source, size
        )
        if accepted is REFUSED:
            dispatch.drop("too_many_lanes", count)
            return
        fresh = 0
        for index, new in accepted:
            fresh += new
            self._pass(batch, run if new == count else run.part(index, new))
        dispatch.duplicates += count - fresh

    def _pass(self, batch: Batch, run: Run) -> None:
        """Deliver and send on a run that has not been here before."""
        delivery = self._delivery
        intercepted = delivery.intercepted[run.is_service] and run.fragment is None
        if intercepted and len(run.starts) > 1:
            for index in range(len(run.starts)):
                self._pass(batch, run.part(index, 1))
            return
        mode = run.mode
        if mode == _UNICAST and run.destination == self._origin.wire:
            delivery.deliver(batch, run, held=False)
            return
        route = self._routes.find(mode, _key(run), batch.arrived_from)
        contacts = route.contacts
        addressed = route.accepted or mode in _FOR_ALL
        held = intercepted and bool(contacts) and delivery.is_intercepted(batch, run)
        # Delivered first, because sending on may overwrite the hop limit.
        if addressed:
            delivery.deliver(batch, run, held=held)
        if held and not (addressed and (run.is_service or delivery.watching)):
            delivery.hand_over(batch, run, addressed=False, held=True)
        if contacts:
            if not held:
                self._send_on(batch, run, contacts)
        elif not addressed:
            self._losses.lose(batch, run, Control.UNROUTABLE)

    def _send_on(self, batch: Batch, run: Run, contacts: tuple[Contact, ...]) -> None:
        left = run.hop_limit - 1
        if left <= 0:
            self._losses.lose(batch, run, Control.HOP_LIMIT)
            return
        batch.relayed += len(run.starts)
        batch.relayed_size += run.stop - run.starts[0]
        recorded = None if run.message is None else self._origin.extend_route(run.message, left)
        if recorded is None:
            batch.send_run(contacts, run)
        else:
            batch.send(contacts, run.traffic_class, [recorded], 1, len(recorded))


def _key(run: Run) -> bytes:
    return run.source if run.mode in _FOR_ALL else run.destination
