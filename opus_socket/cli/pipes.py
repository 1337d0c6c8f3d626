"""JSON over pipes, one value a line: how the processes of a demonstration talk to each other.

Its one rule: a value is a line and a line is a value, so either end can be read by eye.
"""

from __future__ import annotations

import json

import trio
from attrs import define, field

_READ_SIZE = 1 << 16


@define(eq=False)
class JsonReader:
    """The values that come out of a stream; an async iterator that ends with the stream.

    Raises:
        ValueError: a line is not JSON.
    """

    _stream: trio.abc.ReceiveStream
    _held: bytearray = field(factory=bytearray, init=False)

    def __aiter__(self) -> JsonReader:
        return self

    async def __anext__(self) -> object:
        searched = 0
        while (end := self._held.find(b"\n", searched)) < 0:
            searched = len(self._held)
            data = await self._stream.receive_some(_READ_SIZE)
            if not data:
                raise StopAsyncIteration
            self._held += data
        line = bytes(self._held[:end])
        del self._held[: end + 1]
        value: object = json.loads(line)
        return value


@define(eq=False)
class JsonWriter:
    """Writes values to a stream, from any number of tasks."""

    _stream: trio.abc.SendStream
    _turn: trio.Lock = field(factory=trio.Lock, init=False)

    async def write(self, value: object) -> None:
        """Write one value.

        Raises:
            trio.BrokenResourceError: nobody reads at the other end any more.
        """
        async with self._turn:
            await self._stream.send_all(json.dumps(value).encode() + b"\n")
