"""Cookies: proof that an asker receives what is sent to it, with nothing kept for it.

Its one rule: until a cookie came back, an endpoint may be forged, and nothing is stored for it
and no more bytes are sent to it than came. A cookie is a keyed BLAKE2s over the sender's contact
and the number of the current half minute, so it is checked by computing it again. Source: the
return-routability cookies of DTLS (RFC 6347, section 4.2.1).
"""

from __future__ import annotations

import hashlib
from hmac import compare_digest

from attrs import define

from opus_socket.core.addresses import Contact

COOKIE_LENGTH = 16
EPOCH = 30.0
"""Seconds for which the same cookie is handed out; it stays valid for one such time more."""


@define(eq=False)
class Cookies:
    """Hands out cookies and knows them again.

    Args:
        secret: up to 32 bytes that nobody else knows.
    """

    _secret: bytes

    def bake(self, sender: Contact, now: float) -> bytes:
        """The cookie for this sender, 16 bytes."""
        return self._compute(sender, int(now // EPOCH))

    def know(self, cookie: bytes, sender: Contact, now: float) -> bool:
        """Whether this sender was handed this cookie in this half minute or the one before."""
        if len(cookie) != COOKIE_LENGTH:
            return False
        epoch = int(now // EPOCH)
        return any(
            compare_digest(cookie, self._compute(sender, number)) for number in (epoch, epoch - 1)
        )

    def _compute(self, sender: Contact, epoch: int) -> bytes:
        state = hashlib.blake2s(sender.wire, digest_size=COOKIE_LENGTH, key=self._secret)
        state.update(epoch.to_bytes(8, signed=True))
        return state.digest()
