"""A rendezvous server, and somebody who asks it in the name of any member.

The one rule: a member is a number; its endpoint, contact and cookie follow from it.
"""

from __future__ import annotations

from collections import Counter
from random import Random

from attrs import define, field

from opus_socket.core.addresses import Contact, LogicalAddress
from opus_socket.core.key_attributes import KeyAttributes
from opus_socket.core.rendezvous_messages import (
    CachePing,
    CachePong,
    Challenge,
    Message,
    Purpose,
    Reply,
    Request,
    Verdict,
    decode,
    encode,
)
from opus_socket.rendezvous.server import RendezvousServer, ServerEffects, ServerSettings
from rendezvous.conversation import ATTRIBUTES, LAB, place, seen


def messages(effects: ServerEffects) -> list[tuple[Contact, Message]]:
    return [(effect.to, decode(effect.body, Counter())) for effect in effects]


@define(eq=False)
class Desk:
    """A server, and somebody who asks it in the name of any member, with its cookie."""

    machine: RendezvousServer
    now: float = 0.0
    cookies: dict[tuple[int, float], bytes] = field(factory=dict)

    def request(self, number: int, purpose: Purpose, **changes: object) -> Request:
        source = Contact(LogicalAddress((number, 7)), 1, 0, (place(number),))
        states = purpose in (Purpose.LEAD, Purpose.CONFIRM)
        attributes = changes.pop("attributes", ATTRIBUTES)
        assert isinstance(attributes, KeyAttributes)
        fields: dict[str, object] = {
            "nonce": number,
            "cookie": b"",
            "overlay": LAB,
            "digest": attributes.digest,
            "source": source,
            "purpose": purpose,
            "ticket": 0,
            "attributes": attributes.pairs if states else (),
            "body": b"",
            **changes,
        }
        return Request(**fields)  # type: ignore[arg-type]

    def prove(self, number: int) -> bytes:
        sender = seen(place(number))
        ((to, challenge),) = messages(self.send(self.request(number, Purpose.JOIN), sender))
        assert to == sender
        assert isinstance(challenge, Challenge)
        return challenge.cookie

    def send(self, message: Message, sender: Contact) -> ServerEffects:
        return self.machine.receive(encode(message), sender, self.now)

    def ask(
        self, number: int, purpose: Purpose, **changes: object
    ) -> list[tuple[Contact, Message]]:
        """What the server sends upon a request with a valid cookie."""
        valid = (number, self.now // 30)
        if valid not in self.cookies:
            self.cookies[valid] = self.prove(number)
        request = self.request(number, purpose, cookie=self.cookies[valid], **changes)
        return messages(self.send(request, seen(place(number))))

    def reply(self, number: int, purpose: Purpose, **changes: object) -> Reply:
        ((to, reply),) = self.ask(number, purpose, **changes)
        assert to == seen(place(number))
        assert isinstance(reply, Reply)
        assert reply.nonce == number
        return reply

    def confirm(self, *numbers: int) -> None:
        for number in numbers:
            assert self.reply(number, Purpose.CONFIRM).verdict == Verdict.NOTED

    def pass_time(self, until: float, answering: frozenset[int] = frozenset()) -> int:
        """Wake the server whenever it wants; these members answer. The number of pings."""
        pings = 0
        while self.machine.next_deadline <= until:
            self.now = max(self.now, self.machine.next_deadline)
            for to, ping in messages(self.machine.wake(self.now)):
                assert isinstance(ping, CachePing)
                pings += 1
                if any(seen(place(number)) == to for number in answering):
                    self.send(CachePong(ping.nonce), to)
        self.now = until
        return pings


def desk(**changes: float) -> Desk:
    settings_ = ServerSettings(**changes)  # type: ignore[arg-type]
    return Desk(RendezvousServer(Random(1), b"secret", settings_))


def numbers(reply: Reply) -> list[int]:
    """Which members a reply names."""
    return [contact.address[0] for contact in reply.members if contact.address is not None]
