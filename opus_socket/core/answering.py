"""The answering side of a member: what it tells those who ask it as a buddy or an announcer.

Its one rule: the same as a server's. Without a valid cookie an asker gets a challenge, never
longer than its request, and nothing is kept for it. Only confirmed members give contacts; one
that is still joining lets others wait for it, so that of buddies who start together one becomes
the founder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from random import Random

from opus_socket.core.addresses import Contact, OverlayID
from opus_socket.core.cookies import Cookies
from opus_socket.core.effects import Kind, Transmit
from opus_socket.core.key_attributes import KeyAttributes
from opus_socket.core.rendezvous_messages import (
    MAX_MEMBERS,
    Challenge,
    Message,
    Purpose,
    Refusal,
    Reply,
    Request,
    Verdict,
    encode,
    goes_first,
)
from opus_socket.errors import RemoteProtocolError

WAIT_MS = 300
"""When a joiner who waits for a joining buddy asks it again, in milliseconds."""


class Answerer:
    """Answers requests for contacts.

    Args:
        overlay_id: the overlay.
        attributes: this member's key attributes.
        buddies: this member's own buddies.
        rng: draws the cookies' secret and which neighbors are told.
        counts: where answers are counted.

    Attributes:
        confirmed: whether this is a confirmed member by now.
    """

    def __init__(
        self,
        overlay_id: OverlayID,
        attributes: KeyAttributes,
        buddies: Sequence[Contact],
        rng: Random,
        counts: Counter[str],
    ) -> None:
        self.confirmed = False
        self._overlay_id = overlay_id
        self._attributes = attributes
        self._places = {buddy.endpoints[0][:2] for buddy in buddies}
        self._rng = rng
        self._counts = counts
        self._cookies = Cookies(rng.randbytes(32))

    def answer(
        self,
        request: Request,
        length: int,
        sender: Contact,
        own: Contact,
        neighbors: Sequence[Contact],
        now: float,
    ) -> Sequence[Transmit]:
        """Answer a request of `length` bytes.

        Raises:
            RemoteProtocolError: it is for another overlay, or nothing that a member is asked.
        """
        if request.overlay != self._overlay_id:
            raise RemoteProtocolError("other_overlay", request.overlay)
        if request.purpose not in (Purpose.JOIN, Purpose.LEAD):
            raise RemoteProtocolError("unexpected", "only servers are told")
        if not self._cookies.know(request.cookie, sender, now):
            challenge = encode(Challenge(request.nonce, self._cookies.bake(sender, now)))
            self._counts["challenged"] += 1
            # A request carries far more than a cookie; this holds whatever they may become.
            fits = len(challenge) <= length
            return (Transmit(sender, Kind.RENDEZVOUS, challenge),) if fits else ()
        if request.digest != self._attributes.digest:
            return _answer(sender, Refusal(request.nonce, self._attributes.pairs))
        if self.confirmed:
            self._counts["answered"] += 1
            told = self._rng.sample(neighbors, min(len(neighbors), MAX_MEMBERS - 1))
            reply = Reply(request.nonce, Verdict.MEMBERS, 0, 0, (own, *told), 0)
            return _answer(sender, reply)
        if self._goes_first(own, request.source):
            return _answer(sender, Reply(request.nonce, Verdict.WAIT, WAIT_MS, 0, (), 0))
        return ()

    def _goes_first(self, own: Contact, asker: Contact) -> bool:
        """Whether this joiner is the founder rather than one who asks it.

        Somebody's buddy goes before those who are nobody's; of two who are each other's buddies,
        the earlier one.
        """
        return asker.endpoints[0][:2] not in self._places or goes_first(own, asker)


def _answer(sender: Contact, message: Message) -> Sequence[Transmit]:
    return (Transmit(sender, Kind.RENDEZVOUS, encode(message)),)
