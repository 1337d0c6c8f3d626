"""What a simulated member holds back for want of bandwidth.

Its one rule: the network's own delays begin when a message leaves, and a member sees a message
when its bandwidth lets it in. Overlay messages wait in the member, link by link, and take turns as
on real sockets; control messages wait for nothing and are paid for. A link holds a bounded number
of bytes, and what does not fit is dropped and told: there is no connection here that could push
back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf

from attrs import define, field

from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.buckets import Buckets, Direction
from opus_socket.core.message import version_and_size
from opus_socket.core.shaper import Shaper
from opus_socket.simulator.schedule import Schedule

LINK_LIMIT = 1 << 18
"""Bytes that wait for one link in one direction: as much as `socket.send_buffer` is by default."""


@define(eq=False)
class _Flow:
    """Packets that wait, of one link in one direction."""

    direction: Direction
    link: LogicalAddress | None
    packets: deque[tuple[Contact, bytes]] = field(factory=deque, init=False)
    size: int = field(default=0, init=False)

    def head(self, most: int) -> int:
        """A packet is not cut."""
        return len(self.packets[0][1]) if self.packets else 0

    def put(self, contact: Contact, body: bytes) -> None:
        self.packets.append((contact, body))
        self.size += len(body)

    def take(self) -> tuple[Contact, bytes]:
        contact, body = self.packets.popleft()
        self.size -= len(body)
        return contact, body


@define(eq=False)
class Emulation:
    """The bandwidth of one simulated member.

    Attributes:
        schedule: the clock.
        buckets: its limits.
        send: called with overlay messages that leave now, and to whom.
        take: called with overlay messages that come in now, and from whom.
        standing: whether the member stands still, and nothing leaves or comes in.
        moved: called when messages left or came in that had waited.
        dropped: called with how many messages found no room, their bytes, on which way, and whose
            link it was.
    """

    schedule: Schedule
    buckets: Buckets
    send: Callable[[Contact, bytes], None]
    take: Callable[[Contact, bytes], None]
    standing: Callable[[], bool]
    moved: Callable[[], None]
    dropped: Callable[[int, int, Direction, LogicalAddress | None], None]
    _shaper: Shaper = field(init=False)
    _flows: dict[tuple[Direction, LogicalAddress | None], _Flow] = field(factory=dict, init=False)
    _moving: bool = field(default=False, init=False)
    _next_at: float = field(default=inf, init=False)

    def __attrs_post_init__(self) -> None:
        self._shaper = Shaper(self.buckets)

    @property
    def waiting(self) -> bool:
        """Whether anything waits."""
        return bool(self._flows)

    def held(self, link: LogicalAddress | None) -> int:
        """Bytes that wait to leave by a link."""
        flow = self._flows.get((Direction.OUT, link))
        return 0 if flow is None else flow.size

    def charge(self, direction: Direction, link: LogicalAddress | None, size: int) -> None:
        """A control message leaves or comes in."""
        self._shaper.charge(direction, link, size, self.schedule.now)

    def push(
        self, direction: Direction, link: LogicalAddress | None, contact: Contact, body: bytes
    ) -> None:
        """Overlay messages are to leave or to come in, as soon as there is bandwidth for them.

        Args:
            direction: in or out.
            link: the neighbor at the other end; None for somebody who is none.
            contact: to whom they go, or from whom they come.
            body: whole frames.
        """
        flow = self._flows.get((direction, link))
        if flow is None and self._shaper.passes(direction, link, len(body), self.schedule.now):
            self._go(direction, contact, body)
            return
        if flow is None:
            flow = self._flows[direction, link] = _Flow(direction, link)
        elif flow.size + len(body) > LINK_LIMIT:
            self.dropped(_frames(body), len(body), direction, link)
            return
        flow.put(contact, body)
        self._shaper.enlist(flow)
        self.move()

    def move(self) -> None:
        """Let go what can go now; also said when limits have changed."""
        if self._moving or self.standing():
            return  # Whoever is moving does it all.
        self._moving = True
        shaper, now = self._shaper, self.schedule.now
        while (flow := shaper.next(now)) is not None:
            assert isinstance(flow, _Flow), "nothing else is enlisted"
            contact, body = flow.take()
            if not flow.packets:
                del self._flows[flow.direction, flow.link]
                shaper.dismiss(flow)
            self._go(flow.direction, contact, body)
        self._moving = False
        if shaper.next_at < self._next_at:
            self._next_at = shaper.next_at
            self.schedule.at(self._next_at, self._in_time)

    def clear(self) -> None:
        """Forget everything that waits."""
        for flow in self._flows.values():
            self._shaper.dismiss(flow)
        self._flows.clear()

    def _go(self, direction: Direction, contact: Contact, body: bytes) -> None:
        if direction is Direction.OUT:
            self.send(contact, body)
        else:
            self.take(contact, body)

    def _in_time(self) -> None:
        if self.schedule.now < self._next_at:
            return  # Another entry of the schedule stands for what is due next.
        self._next_at = inf
        self.move()
        self.moved()


def _frames(body: bytes) -> int:
    count = offset = 0
    while offset < len(body):
        offset += version_and_size(body, offset)[1]
        count += 1
    return count
