"""Standard input and output of the verbs that carry messages, while an overlay is served.

Its one rule: a slow pipe never stops the loop that keeps a member alive. So both are used in
threads, with plain system calls: a thread that hangs in one can be left behind when the command
ends, and holds no lock that the interpreter wants then.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence

import trio
from attrs import define, field, frozen

from opus_socket import LogicalAddress, OverlayMessage
from opus_socket.cli.outputs import write_all
from opus_socket.core.node import ProtocolSpec
from opus_socket.errors import ConfigurationError

CHUNK = 1 << 16


@frozen
class TooLong:
    """A line above the limit, of which only the length was kept.

    Attributes:
        number: its place in the stream; the first line is 1.
        length: its bytes, without the newline.
    """

    number: int
    length: int


@define(eq=False)
class LineSplitter:
    """Cuts a stream into lines; what it holds is bounded by the longest line that is allowed.

    Args:
        longest: bytes that a line may have, without its newline.
    """

    longest: int
    _begun: bytearray = field(factory=bytearray, init=False)
    _length: int = field(default=0, init=False)
    _number: int = field(default=1, init=False)

    @property
    def held(self) -> int:
        """Bytes of the line that has begun."""
        return len(self._begun)

    def feed(self, chunk: bytes) -> list[bytes | TooLong]:
        """The lines that end in this piece of the stream."""
        *ends, rest = chunk.split(b"\n")
        lines: list[bytes | TooLong] = []
        for end in ends:
            self._extend(end)
            lines.append(self._take())
        self._extend(rest)
        return lines

    def finish(self) -> list[bytes | TooLong]:
        """The last line, if the stream ended without a newline."""
        return [self._take()] if self._length else []

    def _extend(self, part: bytes) -> None:
        self._length += len(part)
        if self._length <= self.longest:
            self._begun += part
        else:
            self._begun.clear()

    def _take(self) -> bytes | TooLong:
        long = self._length > self.longest
        line = TooLong(self._number, self._length) if long else bytes(self._begun)
        self._begun.clear()
        self._length = 0
        self._number += 1
        return line


async def input_lines(longest: int) -> AsyncIterator[list[bytes | TooLong]]:
    """The lines of standard input without their newlines, as many at a time as are there.

    Args:
        longest: bytes that a line may have; of a longer one only its length is kept.

    Raises:
        ConfigurationError: standard input cannot be read.
    """
    # Without an open standard input descriptor 0 may be anything, a socket for instance.
    if sys.stdin is None:
        return
    splitter = LineSplitter(longest)
    while chunk := await trio.to_thread.run_sync(_read, abandon_on_cancel=True):
        if lines := splitter.feed(chunk):
            yield lines
    if lines := splitter.finish():
        yield lines


@define(eq=False)
class MessagePrinter:
    """Prints received messages, one a line, each written out before anything else happens.

    Args:
        spec: the protocol, which knows how its addresses are written.
        as_json: whether a line is a JSON object rather than `source<TAB>payload`.
    """

    _spec: ProtocolSpec
    _as_json: bool
    _lock: trio.Lock = field(factory=trio.Lock, init=False)

    async def print(
        self, messages: Sequence[OverlayMessage], receiver: LogicalAddress | None = None
    ) -> None:
        """Print messages, with their receiver where there are several.

        Raises:
            BrokenPipeError: nobody reads standard output any more.
        """
        format_line = self._json_line if self._as_json else self._plain_line
        data = b"".join(format_line(message, receiver) for message in messages)
        async with self._lock:
            await trio.to_thread.run_sync(_write, data, abandon_on_cancel=True)

    def _plain_line(self, message: OverlayMessage, receiver: LogicalAddress | None) -> bytes:
        addresses = (receiver, message.source) if receiver is not None else (message.source,)
        texts = [self._spec.format_address(address).encode() for address in addresses]
        return b"\t".join((*texts, message.payload)) + b"\n"

    def _json_line(self, message: OverlayMessage, receiver: LogicalAddress | None) -> bytes:
        shown = {} if receiver is None else {"receiver": self._spec.format_address(receiver)}
        shown["source"] = self._spec.format_address(message.source)
        try:
            shown["payload"] = message.payload.decode()
        except UnicodeDecodeError:
            shown["payload_base64"] = base64.b64encode(message.payload).decode()
        shown["mode"] = message.mode.name.lower()
        return json.dumps(shown).encode() + b"\n"


def _read() -> bytes:
    try:
        return os.read(0, CHUNK)
    except OSError as error:
        raise ConfigurationError(f"standard input cannot be read: {error.strerror}") from error


def _write(data: bytes) -> None:
    write_all(1, data)
