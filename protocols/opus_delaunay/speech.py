"""What one member says to others.

Its one rule: a message says what is true when it is said. A Hello that says nothing new is the
very same message as before, so that those who get it know it by its bytes.

What is said gathers in `out`, in order.
"""

from __future__ import annotations

from attrs import define, field

from opus_delaunay.messages import Goodbye, Hello, Reject, Taken
from opus_delaunay.star import Neighbor, Star
from opus_delaunay.statistics import Counters
from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.effects import NodeEffect, Send
from opus_socket.core.wire import ProtocolMessage


@define(eq=False)
class Speech:
    """The voice of one member.

    Attributes:
        contact: the member's own contact.
        star: its neighbors.
        counters: what it counts.
        out: effects that were not handed on yet.
    """

    contact: Contact
    star: Star
    counters: Counters
    out: list[NodeEffect] = field(factory=list, init=False)

    def send(self, to: Contact, message: ProtocolMessage) -> None:
        """Send a message, best effort."""
        self.out.append(Send(to, message))

    def ask(self, address: LogicalAddress, to: Contact, heard: bool = False) -> Hello:
        """Say hello to somebody who is no neighbor; returns what was said."""
        hello = self._hello(address, to, heard)
        self.send(to, hello)
        return hello

    def greet(self, row: Neighbor, heard: bool = True, only_news: bool = False) -> None:
        """Say hello to a neighbor; the very same message as before if nothing changed."""
        sent = row.sent
        if sent is None or row.sent_of != self.star.number or sent.heard is not heard:
            row.sent_of = self.star.number
            hello = self._hello(row.address, row.contact, heard)
            if sent is None or not hello.says_the_same(sent):
                row.sent = sent = hello
                only_news = False
        if not only_news:
            self.counters.greetings += 1
            self.out.append(Send(row.contact, sent))

    def is_outdated(self, told: Hello | None, address: LogicalAddress) -> bool:
        """Whether others came next to a candidate since it was asked: it has to be told of them,
        or members that join at the same time would not meet before the next heartbeat.
        """
        return told is not None and self.star.wedge(address) != (
            told.clockwise,
            told.counterclockwise,
        )

    def reject(self, address: LogicalAddress, to: Contact) -> None:
        """Tell somebody that fails the neighbor test who stands between."""
        self.counters.rejections += 1
        wedge = self.star.wedge_for_reject(address)
        self.send(to, Reject(self.contact, address, to.incarnation, *wedge))

    def contest(self, other: Contact) -> None:
        """Somebody else claims this member's address; tell it that it is taken."""
        if not other.same_member(self.contact):
            self.send(other, Taken(self.contact))

    def say_goodbye(self) -> None:
        """Tell every neighbor that this member is gone."""
        for row in self.star.table:
            self.send(row.contact, Goodbye(self.contact))

    def _hello(self, address: LogicalAddress, to: Contact, heard: bool) -> Hello:
        clockwise, counterclockwise = self.star.wedge(address)
        return Hello(self.contact, address, to.incarnation, clockwise, counterclockwise, heard)
