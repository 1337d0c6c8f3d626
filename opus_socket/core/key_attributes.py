"""Key attributes: what the members of one overlay must agree on.

Its one rule: equal attributes have equal digests, whatever order they were named in. The digest
travels with every request; names and values only to endpoints that are proven, and never
secrets. Source: HyperCast's overlay ID, which keys the attributes that all members share.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from itertools import pairwise

from attrs import field, frozen

from opus_socket.errors import LocalProtocolError, RemoteProtocolError

Pairs = tuple[tuple[str, str], ...]

DIGEST_LENGTH = 8
MAX_PAIRS = 64
MAX_PAIRS_LENGTH = 2048
"""The most that all names and values may take together, in bytes of UTF-8."""


@frozen
class Difference:
    """One attribute on which two members do not agree.

    Attributes:
        name: the attribute.
        ours: its value here; None when it is not a key attribute here.
        theirs: its value there; None when it is not a key attribute there.
    """

    name: str
    ours: str | None
    theirs: str | None

    def __str__(self) -> str:
        return f"{self.name} is {_shown(self.ours)} here and {_shown(self.theirs)} there"


def _in_order(pairs: Iterable[tuple[str, str]]) -> Pairs:
    return tuple(sorted(pairs))


@frozen
class KeyAttributes:
    """The names and values that all members of an overlay share.

    Attributes:
        pairs: (name, value), sorted by name; given in any order.
        digest: 8 bytes of BLAKE2s over the canonical form: for each pair in order the length
            u16 and the UTF-8 bytes of its name, then of its value.

    Raises:
        LocalProtocolError: a name is given twice, there are more than 64 pairs, or they take
            more than 2,048 bytes.
    """

    pairs: Pairs = field(converter=_in_order)
    digest: bytes = field(init=False)

    @pairs.validator
    def _check(self, _: object, pairs: Pairs) -> None:
        for (name, _value), (after, _other) in pairwise(pairs):
            if name == after:
                raise LocalProtocolError(f"the key attribute {name!r} is given twice")
        length = sum(len(text.encode()) for pair in pairs for text in pair)
        if len(pairs) > MAX_PAIRS or length > MAX_PAIRS_LENGTH:
            raise LocalProtocolError(
                f"{len(pairs)} key attributes of {length} bytes in all; "
                f"{MAX_PAIRS} of {MAX_PAIRS_LENGTH} bytes are allowed"
            )

    @digest.default
    def _compute(self) -> bytes:
        # attrs validates after all fields are set, so a text may still be too long for its length.
        texts = [text.encode() for pair in self.pairs for text in pair]
        canonical = b"".join(min(len(t), 0xFFFF).to_bytes(2) + t for t in texts)
        return hashlib.blake2s(canonical, digest_size=DIGEST_LENGTH).digest()

    @classmethod
    def from_wire(cls, pairs: Pairs) -> KeyAttributes:
        """The attributes that a remote stated.

        Raises:
            RemoteProtocolError: they are not what key attributes can be.
        """
        try:
            attributes = cls(pairs)
        except LocalProtocolError as error:
            raise RemoteProtocolError("bad_attributes", str(error)) from error
        if attributes.pairs != pairs:
            raise RemoteProtocolError("bad_attributes", "not sorted")
        return attributes

    def differences(self, other: KeyAttributes) -> tuple[Difference, ...]:
        """The attributes on which the two do not agree, sorted by name."""
        ours, theirs = dict(self.pairs), dict(other.pairs)
        return tuple(
            Difference(name, ours.get(name), theirs.get(name))
            for name in sorted(ours | theirs)
            if ours.get(name) != theirs.get(name)
        )


def _shown(value: str | None) -> str:
    return "no key attribute" if value is None else repr(value)
