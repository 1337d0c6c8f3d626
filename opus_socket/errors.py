"""The whole error tree.

Its one rule: whose fault an error is decides its class, and its text carries what is needed to
mend it: the value seen, the value allowed, and the file and key it came from. Trio's own errors
keep their meaning: a closed socket raises `trio.ClosedResourceError`, a call that would have to
wait `trio.WouldBlock`.
"""

from __future__ import annotations


class OverlayError(Exception):
    """Something about an overlay went wrong.

    Raised itself only when a background task of an overlay socket crashed: the cause is chained,
    the socket is closed, and the only remedy is to open a new one (and to report the cause).
    """


class ConfigurationError(OverlayError):
    """The configuration cannot work: an unknown key, a wrong type, a value out of range, a port
    that is taken. The text names file, key, value and what is allowed; mend the configuration.
    """


class NotJoinedError(OverlayError):
    """A call that needs membership was made before `join()` returned or after `leave()`.

    Our caller's order is wrong: await `join()` first.
    """


class JoinError(OverlayError):
    """The overlay refused this member for a reason that waiting cannot mend.

    For instance key attributes that differ from the overlay's: the text names each attribute
    with both values. A server that is down is not such a reason: `join()` goes on trying.
    """


class AddressInUseError(JoinError):
    """Another living member holds the fixed or named logical address that was asked for.

    Choose another address or name, or let the node draw one at random.
    """


class LocalProtocolError(OverlayError):
    """Our own caller broke a rule of the interface: joining twice, a message above the limit,
    an address of another protocol. Nothing was sent and nothing changed; mend the call.
    """


class RemoteProtocolError(OverlayError):
    """A remote sent bytes that break the protocol.

    Raised inside the library only, and always caught where the bytes came in: the packet is
    counted under `kind` and dropped. Applications never see it.

    Args:
        kind: the counter under which such packets are counted, one short identifier.
        detail: what was wrong, for the log.
    """

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind
