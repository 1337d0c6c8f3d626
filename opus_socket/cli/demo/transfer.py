"""A file as messages: pieces with their place in it, and at last how long it was.

Its one rule: whatever arrives is hashed once and in the file's order; a piece that is early waits
for those before it, and one that never comes leaves the file incomplete.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator
from pathlib import Path

from attrs import define, field

PIECE = 16_000
"""Bytes of the file in one message: with every header it fits a frame of 16 KiB."""

MOST_EARLY = 4096
_HEAD = struct.Struct(">BQ")
_DATA, _END = 0, 1


def pieces_of(file: Path) -> Iterator[tuple[bytes, bytes]]:
    """The messages that carry a file, each with the part of the file that is in it."""
    offset = 0
    with file.open("rb") as stream:
        while part := stream.read(PIECE):
            yield _HEAD.pack(_DATA, offset) + part, part
            offset += len(part)
    yield _HEAD.pack(_END, offset), b""


def digest_of(file: Path) -> tuple[int, str]:
    """The size of a file in bytes and its SHA-256 in hexadecimal."""
    size, digest = 0, hashlib.sha256()
    with file.open("rb") as stream:
        while part := stream.read(1 << 20):
            size += len(part)
            digest.update(part)
    return size, digest.hexdigest()


@define(eq=False)
class Incoming:
    """A file that is arriving.

    Attributes:
        size: bytes that are here without a gap before them.
        complete: whether that is all.
    """

    size: int = 0
    _total: int | None = field(default=None, init=False)
    _digest: hashlib._Hash = field(factory=hashlib.sha256, init=False)
    _early: dict[int, bytes] = field(factory=dict, init=False)

    @property
    def complete(self) -> bool:
        """Whether the whole file is here."""
        return self.size == self._total

    @property
    def sha256(self) -> str:
        """The digest of what is here, in hexadecimal."""
        return self._digest.hexdigest()

    def take(self, message: bytes) -> None:
        """A message came; what is no message of a file changes nothing."""
        if len(message) < _HEAD.size:
            return
        kind, offset = _HEAD.unpack_from(message)
        if kind == _END:
            self._total = offset
        elif kind == _DATA and offset == self.size:
            self._append(message[_HEAD.size :])
            while self.size in self._early:
                self._append(self._early.pop(self.size))
        elif kind == _DATA and offset > self.size and len(self._early) < MOST_EARLY:
            self._early[offset] = message[_HEAD.size :]

    def _append(self, part: bytes) -> None:
        self._digest.update(part)
        self.size += len(part)
