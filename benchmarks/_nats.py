"""NATS as a peer: a program of its own, because its Python client needs asyncio.

Its one rule: nothing else of the benchmarks runs in its process; it is told what to do as
`_programs.py` says. Subscribers use callbacks, the fastest way that the client has, and take
whatever the server sends them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg

_SUBJECT = "opus.benchmark"
_MOST_PENDING = 1 << 31


class Subscribers:
    """Connections that count what each of them receives."""

    def __init__(self) -> None:
        self.got: list[int] = []
        self._goal = 0
        self._left = 0
        self._all = asyncio.Event()

    async def open(self, url: str, count: int) -> None:
        """Connect and subscribe so many."""
        for number in range(count):
            client = await nats.connect(url)
            self.got.append(0)
            await client.subscribe(
                _SUBJECT,
                cb=self._counter(number),
                pending_msgs_limit=_MOST_PENDING,
                pending_bytes_limit=_MOST_PENDING,
            )
            # The server knows of the subscription when it has answered.
            await client.flush()

    def expect(self, count: int) -> None:
        """So many more messages are to come to each."""
        self._goal += count
        self._left = sum(got < self._goal for got in self.got)
        self._all.clear()
        if not self._left:
            self._all.set()

    async def wait(self) -> float:
        """The clock's reading when all had come."""
        await self._all.wait()
        return time.monotonic()

    def _counter(self, number: int) -> Callable[[Msg], Awaitable[None]]:
        got = self.got

        async def count(_: Msg) -> None:
            got[number] += 1
            if got[number] == self._goal:
                self._left -= 1
                if not self._left:
                    self._all.set()

        return count


async def publish(client: Client, count: int, size: int) -> None:
    """Publish so many messages."""
    payload = bytes(size)
    for _ in range(count):
        await client.publish(_SUBJECT, payload)
    await client.flush(timeout=60)


async def ask(client: Client, count: int, size: int) -> list[float]:
    """The seconds of each of so many round trips, one after the other."""
    payload, taken = bytes(size), []
    for _ in range(count):
        started = time.perf_counter()
        await client.request(_SUBJECT, payload, timeout=30)
        taken.append(time.perf_counter() - started)
    return taken


async def answer(client: Client) -> None:
    """Send back every message, from now on."""

    async def send_back(message: Msg) -> None:
        await message.respond(message.data)

    await client.subscribe(_SUBJECT, cb=send_back)
    await client.flush()


async def main() -> None:
    """Do what standard input says, until it ends."""
    match await _read():
        case {"role": str(role), "endpoint": str(url), "receivers": int(receivers)}:
            await work(role, url, receivers)
        case other:
            raise SystemExit(f"not understood: {other}")


async def work(role: str, url: str, receivers: int) -> None:
    """Do runs in a role until standard input ends."""
    subscribers = Subscribers()
    client = await nats.connect(url)
    if role in ("group", "receiver"):
        await subscribers.open(url, receivers)
    elif role == "answerer":
        await answer(client)
    _write(url)
    while task := await _read():
        if isinstance(task, dict):
            before = time.process_time()
            await asyncio.sleep(task["idle"])
            _write(time.process_time() - before)
            continue
        assert isinstance(task, list)
        count, size = task
        if role in ("group", "receiver"):
            subscribers.expect(count)
        started = time.monotonic()
        if role == "asker":
            _write(await ask(client, count, size))
            continue
        if role in ("group", "sender"):
            await publish(client, count, size)
        if role == "sender":
            _write(started)
        else:
            finished = await subscribers.wait()
            _write(finished - started if role == "group" else finished)


async def _read() -> object:
    line = await asyncio.to_thread(sys.stdin.readline)
    value: object = json.loads(line) if line else None
    return value


def _write(value: object) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    asyncio.run(main())
