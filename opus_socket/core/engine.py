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
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from attrs import define, field, frozen

from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.dispatch import (
    Dispatch,
    EngineStatistics,
    ForService,
    Output,
    OutputBuilder,
)
from opus_socket.core.duplicates import LANE_SHIFT, DuplicateWindows
from opus_socket.core.events import MessageLost
from opus_socket.core.extensions import (
    MESSAGE_ID,
    Code,
    Control,
    Extension,
    LossReport,
    record_route,
)
from opus_socket.core.message import (
    HEADER_SIZE,
    MASK,
    SHAPES,
    VERSION,
    OverlayMessage,
    Shape,
    version_and_size,
)
from opus_socket.core.node import Mode, Node
from opus_socket.core.reports import ReportLimiter
from opus_socket.core.routes import RouteCache
from opus_socket.core.runs import (
    RAW_ID_HEAD,
    SERVICE_ID_HEAD,
    SERVICE_SIZE,
    Run,
    make_frames,
    run_of,
    scan_run,
)
from opus_socket.errors import (
    ConfigurationError,
    LocalProtocolError,
    NotJoinedError,
    RemoteProtocolError,
)

__all__ = [
    "Dispatch",
    "EngineSettings",
    "EngineStatistics",
    "ForService",
    "ForwardingEngine",
    "Output",
]

_FOR_ALL = (Mode.MULTICAST, Mode.FLOOD)


@frozen
class EngineSettings:
    """How a forwarding engine is set up.

    Attributes:
        hop_limit: hops of a message that asks for no other number, 1..65,535.
        maximum_frame: the longest frame, sent or received, in bytes, 64..65,575.
        reports_per_second: control messages about losses, for each source.
        routes: route decisions that are kept.
        lanes: duplicate windows that are kept.
        lane_lifetime: seconds after which an unused window may go.
    """

    hop_limit: int = 1024
    maximum_frame: int = 16_384
    reports_per_second: int = 10
    routes: int = 4096
    lanes: int = 1024
    lane_lifetime: float = 60.0


@define(eq=False)
class _Batch:
    """One call of `switch` or `originate` in progress."""

    buffer: memoryview
    arrived_from: LogicalAddress | None
    now: float
    mutable: bool
    outputs: OutputBuilder
    dispatch: Dispatch = field(factory=Dispatch)
    relayed: int = 0
    relayed_size: int = 0
    delivered_size: int = 0


@define(eq=False)
class ForwardingEngine:
    """Moves messages along the trees of one node.

    Args:
        node: says where messages go; nothing of it is called but `version`, `contact`,
            `neighbors`, `next_hops` and `accepts`.
        settings: limits.
        incarnation: this member's, the first half of every message's identity.
    """

    node: Node
    settings: EngineSettings
    incarnation: int
    _shape: Shape = field(default=SHAPES[0], init=False)
    _here: LogicalAddress | None = field(default=None, init=False)
    _here_wire: bytes = field(default=b"", init=False)
    _routes: RouteCache = field(init=False)
    _windows: DuplicateWindows = field(init=False)
    _limiter: ReportLimiter = field(init=False)
    _next: dict[int, int] = field(factory=dict, init=False)
    _services: dict[int, bool] = field(factory=dict, init=False)
    _intercepting: bool = field(default=False, init=False)
    _counts: Counter[str] = field(factory=Counter, init=False)
    _dropped: Counter[str] = field(factory=Counter, init=False)

    def __attrs_post_init__(self) -> None:
        self._routes = RouteCache(self.node, self.settings.routes)
        self._windows = DuplicateWindows(self.settings.lanes, self.settings.lane_lifetime)
        self._limiter = ReportLimiter(self.settings.reports_per_second)

    def register_service(self, service: int, intercepts: bool = False) -> None:
        """Hand messages for this service over from now on.

        Args:
            service: its id (`service.service_id`).
            intercepts: whether it also sees messages for it that are relayed here.

        Raises:
            ConfigurationError: a service with this id is registered already.
        """
        if service in self._services:
            raise ConfigurationError(
                f"service id {service:#010x} is taken; each service of a socket needs a name "
                "of its own id"
            )
        self._services[service] = intercepts
        self._intercepting = self._intercepting or intercepts

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
        """Send messages of this member.

        Args:
            payloads: one for each message; not referred to afterwards.
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
        return self._originate(RAW_ID_HEAD, b"", payloads, mode, key, now, hop_limit, traffic_class)

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

        As `originate`, with the service's id.
        """
        return self._originate(
            SERVICE_ID_HEAD,
            service.to_bytes(4),
            bodies,
            mode,
            key,
            now,
            hop_limit,
            traffic_class,
        )

    def switch(
        self,
        buffer: memoryview,
        arrived_from: LogicalAddress | None,
        now: float,
        *,
        mutable: bool = True,
    ) -> Dispatch:
        """Handle every whole frame of what came from one neighbor.

        Args:
            buffer: bytes that start with a frame and may end with a part of one.
            arrived_from: the neighbor; None when it is not known.
            now: seconds.
            mutable: whether the hop limits in the buffer may be overwritten. Where they may not
                (bytes handed over in the process), what is passed on is copied.
        """
        batch = self._begin(buffer, arrived_from, now, mutable)
        offset, end = 0, len(buffer)
        while offset < end:
            stop = self._take_run(batch, offset) or self._take_frame(batch, offset)
            if not stop:
                break
            offset = stop
        batch.dispatch.consumed = offset
        return self._finish(batch)

    def resume(self, held: ForService, now: float) -> Dispatch:
        """Send on a message that a service had held back.

        Args:
            held: as `switch` handed it out, with `held` true; at most once.
            now: seconds.
        """
        message = held.message
        batch = self._begin(memoryview(message.frame), held.arrived_from, now, False)
        identity = message.id
        if self._here is None or identity is None:
            batch.dispatch.drop("not_joined", 1)
            return self._finish(batch)
        run = run_of(message, identity, 0)
        route = self._routes.find(run.mode, _key(run), held.arrived_from)
        if route.contacts:
            self._send_on(batch, run, route.contacts)
        elif not held.addressed:
            self._lose(batch, run, Control.UNROUTABLE)
        return self._finish(batch)

    def statistics(self) -> EngineStatistics:
        """What this engine has done so far."""
        counts = self._counts
        return EngineStatistics(
            originated_frames=counts["originated_frames"],
            originated_bytes=counts["originated_bytes"],
            relayed_frames=counts["relayed_frames"],
            relayed_bytes=counts["relayed_bytes"],
            transmitted_frames=counts["transmitted_frames"],
            transmitted_bytes=counts["transmitted_bytes"],
            delivered_frames=counts["delivered_frames"],
            delivered_bytes=counts["delivered_bytes"],
            service_frames=counts["service_frames"],
            duplicates=counts["duplicates"],
            dropped=dict(self._dropped),
            reports_sent=counts["reports_sent"],
            reports_received=counts["reports_received"],
            route_hits=self._routes.hits,
            route_misses=self._routes.misses,
            routes=len(self._routes),
            lanes=len(self._windows),
        )

    def _begin(
        self, buffer: memoryview, arrived_from: LogicalAddress | None, now: float, mutable: bool
    ) -> _Batch:
        if self._routes.refresh():
            self._here = self.node.contact.address
            if self._here is not None:
                self._here_wire = self._here.wire
                self._shape = SHAPES[self._here.las]
        return _Batch(buffer, arrived_from, now, mutable, OutputBuilder(buffer))

    def _finish(self, batch: _Batch) -> Dispatch:
        dispatch = batch.dispatch
        dispatch.outputs += batch.outputs.finish()
        counts = self._counts
        counts["relayed_frames"] += batch.relayed
        counts["relayed_bytes"] += batch.relayed_size
        counts["delivered_frames"] += len(dispatch.delivered)
        counts["delivered_bytes"] += batch.delivered_size
        counts["service_frames"] += len(dispatch.for_services)
        counts["duplicates"] += dispatch.duplicates
        for output in dispatch.outputs:
            counts["transmitted_frames"] += output.frames
            counts["transmitted_bytes"] += output.size
        for reason, count in dispatch.dropped.items():
            self._dropped[reason] += count
        return dispatch

    def _take_run(self, batch: _Batch, offset: int) -> int:
        """Handle the run at `offset`; where it ends, 0 when there is none."""
        if self._here is None:
            return 0
        run = scan_run(batch.buffer, offset, self._shape, self.settings.maximum_frame)
        if run is None:
            return 0
        self._handle(batch, run)
        return run.stop

    def _take_frame(self, batch: _Batch, offset: int) -> int:
        """Handle the one frame at `offset`; where it ends, 0 when it is not whole or broken."""
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

    def _handle_parsed(self, batch: _Batch, frame: bytes, offset: int) -> None:
        """Handle a frame that has not the usual shape.

        Raises:
            RemoteProtocolError: it is malformed, or not for this overlay.
        """
        if self._here is None:
            raise RemoteProtocolError("not_joined")
        message = OverlayMessage.parse(frame)
        if message.las != self._shape.las:
            raise RemoteProtocolError("las", f"{message.las}")
        identity = message.id
        if identity is None:
            raise RemoteProtocolError("no_id")
        if any(each.hop_by_hop and each.unknown_mandatory for each in message.extensions):
            raise RemoteProtocolError("unknown_extension")
        self._handle(batch, run_of(message, identity, offset))

    def _handle(self, batch: _Batch, run: Run) -> None:
        """Check a run for duplicates, and forward and deliver what is new of it."""
        count = len(run.starts)
        if run.incarnation == self.incarnation:
            batch.dispatch.duplicates += count
            return
        fresh = 0
        for index, new in self._windows.accept(run.incarnation, run.first, count, batch.now):
            fresh += new
            self._pass(batch, run if new == count else run.part(index, new))
        batch.dispatch.duplicates += count - fresh

    def _pass(self, batch: _Batch, run: Run) -> None:
        """Deliver and send on a run that has not been here before."""
        if run.is_service and self._intercepting and len(run.starts) > 1:
            for index in range(len(run.starts)):
                self._pass(batch, run.part(index, 1))
            return
        if run.mode == Mode.UNICAST and run.destination == self._here_wire:
            self._deliver(batch, run, held=False)
            return
        route = self._routes.find(run.mode, _key(run), batch.arrived_from)
        contacts = route.contacts
        addressed = route.accepted or run.mode in _FOR_ALL
        held = bool(contacts) and run.is_service and self._intercepts(batch, run)
        # Delivered first, because sending on may overwrite the hop limit.
        if addressed:
            self._deliver(batch, run, held=held)
        elif held:
            self._hand_to_services(batch, run, addressed=False, held=True)
        if contacts and not held:
            self._send_on(batch, run, contacts)
        elif not contacts and not addressed:
            self._lose(batch, run, Control.UNROUTABLE)

    def _deliver(self, batch: _Batch, run: Run, *, held: bool) -> None:
        if run.message is not None:
            self._deliver_parsed(batch, run, run.message, held)
        elif run.is_service:
            self._hand_to_services(batch, run, addressed=True, held=held)
        else:
            starts, payload_at = run.starts, self._shape.size
            base = starts[0]
            data = bytes(batch.buffer[base : run.stop])
            batch.delivered_size += len(data)
            if len(starts) == 1:
                batch.dispatch.delivered.append(OverlayMessage(data, payload_at))
                return
            ends = [*starts[1:], run.stop]
            batch.dispatch.delivered += [
                OverlayMessage(data[start - base : end - base], payload_at)
                for start, end in zip(starts, ends, strict=True)
            ]

    def _deliver_parsed(self, batch: _Batch, run: Run, message: OverlayMessage, held: bool) -> None:
        dispatch = batch.dispatch
        if any(each.unknown_mandatory for each in message.extensions):
            dispatch.drop("unknown_extension", 1)
        elif run.is_service:
            self._hand_to_services(batch, run, addressed=True, held=held)
        elif (report := message.extension(Code.CONTROL)) is not None:
            self._take_report(batch, message, report)
        elif message.extension(Code.RAW) is None:
            dispatch.drop("no_payload", 1)
        else:
            batch.delivered_size += len(message.frame)
            dispatch.delivered.append(message)

    def _service_of(self, batch: _Batch, run: Run, start: int) -> int:
        if run.message is not None and run.message.service is not None:
            return run.message.service
        at = start + self._shape.size
        return int.from_bytes(batch.buffer[at : at + SERVICE_SIZE])

    def _intercepts(self, batch: _Batch, run: Run) -> bool:
        return self._intercepting and self._services.get(
            self._service_of(batch, run, run.starts[0]), False
        )

    def _hand_to_services(self, batch: _Batch, run: Run, *, addressed: bool, held: bool) -> None:
        payload_at = self._shape.size + SERVICE_SIZE
        for start, end in zip(run.starts, [*run.starts[1:], run.stop], strict=True):
            service = self._service_of(batch, run, start)
            if service not in self._services:
                batch.dispatch.drop("unknown_service", 1)
                continue
            message = run.message
            if message is None:
                message = OverlayMessage(bytes(batch.buffer[start:end]), payload_at)
            batch.dispatch.for_services.append(
                ForService(service, message, batch.arrived_from, addressed, held)
            )

    def _send_on(self, batch: _Batch, run: Run, contacts: tuple[Contact, ...]) -> None:
        left = run.hop_limit - 1
        if left <= 0:
            self._lose(batch, run, Control.HOP_LIMIT)
            return
        count, start, stop = len(run.starts), run.starts[0], run.stop
        batch.relayed += count
        batch.relayed_size += stop - start
        recorded = None if run.message is None else self._with_route(run.message, left)
        if recorded is not None:
            batch.outputs.put_piece(contacts, run.traffic_class, recorded, 1)
        elif batch.mutable:
            run.put_hop_limit(batch.buffer, 0, left)
            batch.outputs.put_view(contacts, run.traffic_class, start, stop, count)
        else:
            copy = bytearray(batch.buffer[start:stop])
            run.put_hop_limit(copy, start, left)
            batch.outputs.put_piece(contacts, run.traffic_class, copy, count)

    def _with_route(self, message: OverlayMessage, left: int) -> bytes | None:
        """The frame with this member in its route record, if it asks for that and has room."""
        if self._here is None:
            return None
        room = self.settings.maximum_frame - len(message.frame)
        chain = record_route(message.extensions, self._here, room)
        if chain is None:
            return None
        return OverlayMessage.build(
            message.source,
            message.destination,
            message.mode,
            chain,
            hop_limit=left,
            traffic_class=message.traffic_class,
            flow_label=message.flow_label,
        ).frame

    def _lose(self, batch: _Batch, run: Run, why: Control) -> None:
        """Count a run as lost here, and tell its source as often as is allowed."""
        count = len(run.starts)
        batch.dispatch.drop(why.reason, count)
        is_report = run.message is not None and run.message.extension(Code.CONTROL) is not None
        if is_report or run.is_service or run.mode == Mode.FLOOD or run.source == self._here_wire:
            return
        route = self._routes.find(Mode.UNICAST, run.source, None)
        if not route.contacts:
            return
        fixed = self._shape.fixed
        for index in range(self._limiter.take(run.source, count, batch.now)):
            start = run.starts[index]
            report = LossReport(
                why,
                (run.incarnation, run.first + index),
                bytes(batch.buffer[start : start + fixed]),
            )
            frame = self._report_frame(report, LogicalAddress.from_wire(run.source))
            batch.outputs.put_piece(route.contacts, 0, frame, 1)
            self._counts["reports_sent"] += 1

    def _report_frame(self, report: LossReport, to: LogicalAddress) -> bytes:
        identity = MESSAGE_ID.pack(self.incarnation, self._take_sequences(Mode.UNICAST, 0, 1))
        return OverlayMessage.build(
            self.node.address,
            to,
            Mode.UNICAST,
            (Extension(Code.MESSAGE_ID, identity), Extension(Code.CONTROL, report.wire)),
            hop_limit=self.settings.hop_limit,
        ).frame

    def _take_report(self, batch: _Batch, message: OverlayMessage, control: Extension) -> None:
        """Turn a report about a message of this member into an event.

        Raises:
            RemoteProtocolError: it is malformed, or about somebody else's message.
        """
        report = LossReport.from_wire(control.body, message.las)
        if report.id[0] != self.incarnation:
            raise RemoteProtocolError("foreign_report")
        self._counts["reports_received"] += 1
        half = len(self._here_wire)
        destination = LogicalAddress.from_wire(report.quoted[HEADER_SIZE + half :])
        batch.dispatch.events.append(
            MessageLost(
                report.id,
                None if destination == LogicalAddress.everybody(message.las) else destination,
                report.reason,
                message.source,
            )
        )

    def _take_sequences(self, mode: int, traffic_class: int, count: int) -> int:
        """The first of so many sequence numbers in the lane of a mode and class."""
        lane = traffic_class << 2 | mode
        first = self._next.get(lane, lane << LANE_SHIFT)
        self._next[lane] = first + count
        return first

    def _originate(
        self,
        id_head: bytes,
        prefix: bytes,
        payloads: Sequence[bytes],
        mode: Mode,
        key: LogicalAddress | None,
        now: float,
        hop_limit: int | None,
        traffic_class: int,
    ) -> Dispatch:
        batch = self._begin(memoryview(b""), None, now, False)
        hop_limit = self.settings.hop_limit if hop_limit is None else hop_limit
        self._check(prefix, payloads, mode, key, hop_limit, traffic_class)
        dispatch = batch.dispatch
        count = len(payloads)
        if not count:
            return dispatch
        first = self._take_sequences(mode, traffic_class, count)
        dispatch.first_id = (self.incarnation, first)
        wire = b"\xff" * len(self._here_wire) if key is None else key.wire
        middle = self._shape.middle.pack(
            hop_limit, self._here_wire, wire, id_head, self.incarnation
        )
        word = self._shape.word(mode, traffic_class)
        pieces = make_frames(self._shape, word, middle, first, prefix, payloads)
        self._counts["originated_frames"] += count
        size = sum(map(len, pieces))
        self._counts["originated_bytes"] += size
        if mode == Mode.UNICAST and wire == self._here_wire:
            self._deliver_own(batch, pieces)
            return self._finish(batch)
        root = self._here_wire if key is None else wire
        contacts = self._routes.find(mode, root, None).contacts
        if not contacts and key is not None:
            self._lose_own(batch, key, first, count)
        dispatch.outputs = [
            Output(contact, traffic_class, list(pieces), count, size) for contact in contacts
        ]
        return self._finish(batch)

    def _check(
        self,
        prefix: bytes,
        payloads: Sequence[bytes],
        mode: Mode,
        key: LogicalAddress | None,
        hop_limit: int,
        traffic_class: int,
    ) -> None:
        if self._here is None:
            raise NotJoinedError("this member has no logical address yet; join first")
        limit = self.settings.maximum_frame - self._shape.size - len(prefix)
        longest = max(map(len, payloads), default=0)
        if longest > limit:
            raise LocalProtocolError(
                f"a message of {longest} bytes; at most {limit} are allowed "
                f"(frames of {self.settings.maximum_frame} bytes, header included)"
            )
        if not 1 <= hop_limit <= MASK["hop_limit"]:
            raise LocalProtocolError(f"hop limit {hop_limit}: 1 to {MASK['hop_limit']} are allowed")
        if not 0 <= traffic_class <= MASK["traffic_class"]:
            raise LocalProtocolError(
                f"traffic class {traffic_class}: 0 to {MASK['traffic_class']} are allowed"
            )
        if (key is None) != (mode in _FOR_ALL):
            raise LocalProtocolError(
                f"{mode.name.lower()} to {key}: unicast and anycast need a destination, "
                "multicast and flood have none"
            )
        if key is not None and (key.las != self._here.las or key == key.everybody(key.las)):
            raise LocalProtocolError(
                f"{key} is no destination here; {len(self._here)} words are allowed, "
                "which are not all ones"
            )

    def _deliver_own(self, batch: _Batch, pieces: Sequence[bytes]) -> None:
        for piece in pieces:
            batch.buffer = memoryview(piece)
            run = scan_run(batch.buffer, 0, self._shape, self.settings.maximum_frame)
            if run is not None:
                self._deliver(batch, run, held=False)

    def _lose_own(self, batch: _Batch, key: LogicalAddress, first: int, count: int) -> None:
        why = Control.UNROUTABLE.reason
        batch.dispatch.drop(why, count)
        here = self.node.address
        for index in range(self._limiter.take(self._here_wire, count, batch.now)):
            batch.dispatch.events.append(
                MessageLost((self.incarnation, first + index), key, why, here)
            )


def _key(run: Run) -> bytes:
    return run.source if run.mode in _FOR_ALL else run.destination
