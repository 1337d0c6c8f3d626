"""The trace: what happened on the network, as one number that two runs can be compared by.

Its one rule: one line for each send, delivery, drop and fault, `time_us kind from to
sha256(bytes)`, in the order in which they happened. `time_us` is the virtual time in whole
microseconds, rounded down; members are their numbers; the bytes are a message's body, or the
text that describes a fault. The kinds are `send`, `deliver`, `drop`, and the names of faults.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from attrs import define, field

if TYPE_CHECKING:
    from hashlib import _Hash

_BATCH = 4096
_MAX_DIGESTS = 1 << 16
_MAX_KEPT = 512
"""Bytes of a body whose digest is worth keeping: Hellos repeat, payloads do not."""


@define(eq=False)
class Trace:
    """Collects lines and hashes them by the thousand."""

    _pending: list[str] = field(factory=list, init=False)
    _digests: dict[bytes, str] = field(factory=dict, init=False)
    _hash: _Hash = field(factory=sha256, init=False)

    def digest(self, body: bytes) -> str:
        """SHA-256 of a body, in hexadecimal; that of a body seen lately is known."""
        digest = self._digests.get(body)
        if digest is None:
            digest = sha256(body).hexdigest()
            if len(body) <= _MAX_KEPT:
                if len(self._digests) >= _MAX_DIGESTS:
                    self._digests.clear()
                self._digests[body] = digest
        return digest

    def note(self, now: float, kind: str, sender: object, receiver: object, digest: str) -> None:
        """Add a line.

        Args:
            now: virtual seconds.
            kind: what happened.
            sender, receiver: member numbers, or what else a line shows of them.
            digest: of the bytes.
        """
        pending = self._pending
        pending.append(f"{int(now * 1e6)} {kind} {sender} {receiver} {digest}")
        if len(pending) == _BATCH:
            self._flush()

    def sha256(self) -> str:
        """The hash of all lines so far, each with its newline, in hexadecimal."""
        self._flush()
        return self._hash.hexdigest()

    def _flush(self) -> None:
        if self._pending:
            self._pending.append("")
            self._hash.update("\n".join(self._pending).encode())
            self._pending.clear()
