"""A forwarding engine that is obviously right.

It handles one frame at a time, looks at every byte by itself, remembers every identity that
it saw, and shares no code with the engine but addresses, contacts and events.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from attrs import define, field

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.dispatch import Dispatch
from opus_socket.core.events import MessageLost
from opus_socket.core.message import OverlayMessage
from opus_socket.core.node import Mode
from still_overlay import StillNode


class RefusedError(Exception):
    """A frame that is dropped, and the reason."""


@define
class Frame:
    """One frame, taken apart."""

    data: bytes
    mode: int
    traffic_class: int
    las: int
    hop_limit: int
    source: LogicalAddress
    destination: LogicalAddress
    chain: list[tuple[int, int, bytes]] = field(factory=list)

    @classmethod
    def of(cls, data: bytes) -> Frame:
        las = data[0] >> 2 & 3
        half = 4 * (las + 1)
        frame = cls(
            data,
            data[0] & 3,
            data[1],
            las,
            data[6] << 8 | data[7],
            LogicalAddress.from_wire(data[8 : 8 + half]),
            LogicalAddress.from_wire(data[8 + half : 8 + 2 * half]),
        )
        rest, code = data[8 + 2 * half :], data[3]
        while code:
            if len(frame.chain) == 8 or len(rest) < 4:
                raise RefusedError("bad_extension")
            length = rest[2] << 8 | rest[3]
            body = rest[4 : 4 + length]
            known = [seen for seen, _, _ in frame.chain]
            if (
                len(body) < length
                or (code in known and code != 0x11)
                or (code in (5, 6) and rest[0] != 0)
                or (code == 6 and length < 4)
                or (code == 0x10 and length != 16)
                or (code == 0x11 and (not body or length != 1 + body[0] * half))
                or (code == 0x12 and not body)
                or (code == 0x14 and length != 4)
            ):
                raise RefusedError("bad_extension")
            frame.chain.append((code, rest[1], body))
            code, rest = rest[0], rest[4 + length :]
        if rest:
            raise RefusedError("bad_extension")
        return frame

    @property
    def empty(self) -> bytes:
        """The same without its fragment's extension and its part of the payload."""
        chain = [link for link in self.chain if link[0] != 0x14]
        code, flags, body = chain[-1]
        chain[-1] = (code, flags, body[:4] if code == 6 else b"")
        data = b""
        for index, (_, flags, body) in enumerate(chain):
            following = chain[index + 1][0] if index + 1 < len(chain) else 0
            data += bytes((following, flags)) + len(body).to_bytes(2) + body
        first = self.data[:3] + bytes((chain[0][0],)) + len(data).to_bytes(2) + self.data[6:8]
        return first + self.source.wire + self.destination.wire + data

    def body(self, code: int) -> bytes | None:
        return next((body for seen, _, body in self.chain if seen == code), None)


@define
class Answer:
    """What a batch came to, in plain values."""

    consumed: int = 0
    sent: dict[tuple[LogicalAddress, int], list[bytes]] = field(factory=dict)
    delivered: list[bytes] = field(factory=list)
    for_services: list[tuple[int, bytes]] = field(factory=list)
    events: list[MessageLost] = field(factory=list)
    dropped: Counter[str] = field(factory=Counter)
    duplicates: int = 0
    broken: str | None = None


@define(eq=False)
class SlowEngine:
    """Forwards frame by frame."""

    node: StillNode
    incarnation: int
    maximum: int
    services: Sequence[int] = ()
    seen: dict[tuple[int, int], list[int]] = field(factory=dict)
    reported: list[tuple[LogicalAddress, float]] = field(factory=list)
    reports: Counter[int] = field(factory=Counter)
    told: bytes | None = None
    parts: dict[tuple[int, int], dict[int, Frame]] = field(factory=dict)
    done: list[tuple[int, int]] = field(factory=list)

    def switch(self, data: bytes, arrived_from: LogicalAddress | None, now: float) -> Answer:
        answer = Answer()
        while len(data) - answer.consumed >= 8:
            rest = data[answer.consumed :]
            size = 8 + 8 * ((rest[0] >> 2 & 3) + 1) + (rest[4] << 8 | rest[5])
            if rest[0] >> 4:
                answer.broken = "version"
                break
            if size > self.maximum:
                answer.broken = "oversize"
                break
            if len(rest) < size:
                break
            try:
                self._handle(Frame.of(rest[:size]), arrived_from, now, answer)
            except RefusedError as refused:
                answer.dropped[str(refused)] += 1
            answer.consumed += size
        return answer

    def _handle(
        self, frame: Frame, arrived_from: LogicalAddress | None, now: float, answer: Answer
    ) -> None:
        here = self.node.address
        if frame.las != here.las:
            raise RefusedError("las")
        if set(frame.source.wire) == {255}:
            raise RefusedError("bad_source")
        identity = frame.body(0x10)
        if identity is None:
            raise RefusedError("no_id")
        if any(flags & 3 == 3 and not _known(code) for code, flags, _ in frame.chain):
            raise RefusedError("unknown_extension")
        incarnation = int.from_bytes(identity[:8])
        sequence = int.from_bytes(identity[8:])
        if self._seen_before(incarnation, sequence):
            answer.duplicates += 1
            return
        mode = Mode(frame.mode)
        hops: list[LogicalAddress] = []
        if mode is Mode.UNICAST and frame.destination == here:
            mine = True
        else:
            key = frame.source if mode in (Mode.MULTICAST, Mode.FLOOD) else frame.destination
            hops = [
                hop
                for hop in self.node.hops(mode, key, arrived_from)
                if hop != arrived_from and hop in self.node.table
            ]
            mine = mode in (Mode.MULTICAST, Mode.FLOOD)
            if mode is Mode.ANYCAST and not hops:
                mine = self.node.accepted(key)
        if mine:
            self._deliver(frame, answer)
        if hops and frame.hop_limit > 1:
            left = frame.hop_limit - 1
            data = frame.data[:6] + bytes((left >> 8, left & 255)) + frame.data[8:]
            for hop in hops:
                answer.sent.setdefault((hop, frame.traffic_class), []).append(data)
        elif hops or not mine:
            code = 1 if hops else 2
            answer.dropped["hop_limit" if hops else "unroutable"] += 1
            self._report(frame, code, identity, now, answer)

    def _seen_before(self, incarnation: int, sequence: int) -> bool:
        if incarnation == self.incarnation:
            return True
        lane = self.seen.setdefault((incarnation, sequence >> 48), [])
        if sequence in lane:
            return True
        lane.append(sequence)
        return False

    def _deliver(self, frame: Frame, answer: Answer) -> None:
        if any(flags & 1 and not _known(code) for code, flags, _ in frame.chain):
            answer.dropped["unknown_extension"] += 1
        elif frame.body(0x14) is not None:
            self._collect(frame, answer)
        else:
            self._hand_over(frame, frame.data, answer)

    def _hand_over(self, frame: Frame, data: bytes, answer: Answer) -> None:
        """Deliver a whole message: its first frame, and its bytes."""
        service, control = frame.body(6), frame.body(0x12)
        if service is not None:
            number = int.from_bytes(service[:4])
            if number in self.services:
                answer.for_services.append((number, data))
                return
            raise_later = "unknown_service"
        elif control is not None:
            lost = self._lost(frame, control)
            if lost is not None:
                answer.events.append(lost)
                return
            size = 17 + 8 + 8 * (frame.las + 1)
            raise_later = "bad_extension" if len(control) != size else "bad_report"
        elif frame.body(5) is None:
            raise_later = "no_payload"
        else:
            answer.delivered.append(data)
            return
        answer.dropped[raise_later] += 1

    def _collect(self, frame: Frame, answer: Answer) -> None:
        """Keep a fragment, and deliver the message of which it was the last that was missing."""
        identity, fragment = frame.body(0x10), frame.body(0x14)
        assert identity is not None
        assert fragment is not None
        index, count = int.from_bytes(fragment[:2]), int.from_bytes(fragment[2:])
        sequence = int.from_bytes(identity[8:])
        first = sequence - index
        lanes = {first >> 48, (first + count - 1) >> 48}
        key = int.from_bytes(identity[:8]), first
        parts = self.parts.setdefault(key, {})
        is_sound = index < count and count > 1 and first >= 0 and len(lanes) == 1
        if is_sound and key in self.done:
            answer.duplicates += 1
            return
        if not is_sound or not _is_like(frame, parts):
            answer.dropped["bad_fragment"] += 1
            return
        parts[index] = frame
        if len(parts) < count:
            return
        self.done.append(key)
        payload = b"".join([_part(parts[each]) for each in range(count)])
        self._hand_over(parts[0], parts[0].empty + payload, answer)

    def _lost(self, frame: Frame, control: bytes) -> MessageLost | None:
        half = 4 * (frame.las + 1)
        if len(control) != 17 + 8 + 2 * half or frame.mode != Mode.UNICAST:
            return None
        lost = int.from_bytes(control[1:9]), int.from_bytes(control[9:17])
        if lost[0] != self.incarnation:
            return None
        destination = LogicalAddress.from_wire(control[-half:])
        everybody = destination == (2**32 - 1,) * (frame.las + 1)
        reason = {1: "hop_limit", 2: "unroutable"}.get(control[0], f"code_{control[0]}")
        return MessageLost(lost, None if everybody else destination, reason, frame.source)

    def _report(self, frame: Frame, code: int, identity: bytes, now: float, answer: Answer) -> None:
        source, here = frame.source, self.node.address
        if source == here or frame.mode == Mode.FLOOD:
            return
        if frame.body(6) is not None or frame.body(0x12) is not None:
            return
        hops = [hop for hop in self.node.hops(Mode.UNICAST, source, None) if hop in self.node.table]
        if not hops:
            return
        if (fragment := frame.body(0x14)) is not None:
            lost = int.from_bytes(identity[8:])
            lost -= min(lost, int.from_bytes(fragment[:2]))
            identity = identity[:8] + lost.to_bytes(8)
            if identity == self.told:
                return
            self.told = identity
        if self.reported.count((source, now)) == 10:
            return
        self.reported.append((source, now))
        sequence = (frame.traffic_class * 4 + 2 << 48) + self.reports[frame.traffic_class]
        self.reports[frame.traffic_class] += 1
        body = bytes((code,)) + identity + frame.data[: 8 + 8 * (frame.las + 1)]
        chain = b"\x12\0\0\x10" + self.incarnation.to_bytes(8) + sequence.to_bytes(8)
        chain += b"\0\0" + len(body).to_bytes(2) + body
        head = bytes((frame.las << 2 | 2, frame.traffic_class, 0, 0x10))
        head += len(chain).to_bytes(2) + b"\x04\0"
        for hop in hops:
            sent = answer.sent.setdefault((hop, frame.traffic_class), [])
            sent.append(head + here.wire + source.wire + chain)


def _known(code: int) -> bool:
    return code in (5, 6, 0x10, 0x11, 0x12, 0x14)


def _part(frame: Frame) -> bytes:
    """What a fragment carries of the payload."""
    service = frame.body(6)
    return (frame.body(5) or b"") if service is None else service[4:]


def _is_like(frame: Frame, others: dict[int, Frame]) -> bool:
    """Whether a fragment agrees with those of its message that came before."""

    def index_and_count(each: Frame) -> tuple[int, int]:
        body = each.body(0x14) or b""
        return int.from_bytes(body[:2]), int.from_bytes(body[2:])

    def nature(each: Frame) -> tuple[object, ...]:
        is_service = each.body(6) is not None
        count = index_and_count(each)[1]
        return count, each.mode, each.traffic_class, each.source, each.destination, is_service

    sizes = {index: len(_part(other)) for index, other in others.items()}
    index, count = index_and_count(frame)
    sizes[index] = len(_part(frame))
    last = sizes.pop(count - 1, None)
    regular = set(sizes.values())
    return (
        all(nature(other) == nature(frame) for other in others.values())
        and len(regular) <= 1
        and 0 not in regular
        and (last is None or 0 < last <= min(regular, default=last))
    )


def whole(message: OverlayMessage) -> bytes:
    """All of a message: the payload of one that came in fragments is not in its frame."""
    is_one_frame = message.frame.endswith(message.payload) and message.size == len(message.frame)
    return message.frame if is_one_frame else message.frame + message.payload


def plain(dispatch: Dispatch) -> Answer:
    """A dispatch in the twin's terms, with whole outputs instead of frames."""
    sent = {}
    for output in dispatch.outputs:
        data = b"".join(output.pieces)
        assert len(data) == output.size
        assert output.contact.address is not None
        sent[output.contact.address, output.traffic_class] = [data]
    assert len(sent) == len(dispatch.outputs)
    return Answer(
        dispatch.consumed,
        sent,
        [whole(message) for message in dispatch.delivered],
        [(each.service or 0, whole(each.message)) for each in dispatch.for_services],
        [event for event in dispatch.events if isinstance(event, MessageLost)],
        Counter(dispatch.dropped),
        dispatch.duplicates,
        dispatch.broken,
    )
