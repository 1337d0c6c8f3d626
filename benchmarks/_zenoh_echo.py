"""Round trips through Zenoh: a publisher and a subscriber at either end, over TCP.

Its one rule: as `_zenoh`; the answer is published by the callback that got the question, and no
message waits for others (`express`).
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import zenoh
from _peer import TIMEOUT
from _tools import free_port
from _zenoh import make_config

_QUESTIONS, _ANSWERS = "opus/question", "opus/answer"
_LOOK_EVERY = 0.02


def _publisher(session: zenoh.Session, key: str) -> zenoh.Publisher:
    return session.declare_publisher(
        key,
        congestion_control=zenoh.CongestionControl.BLOCK,
        reliability=zenoh.Reliability.RELIABLE,
        express=True,
    )


class Asking:
    """Asks, and waits for the answer.

    Args:
        session: listens.
        endpoint: where.
    """

    def __init__(self, session: zenoh.Session, endpoint: str) -> None:
        self.endpoint = endpoint
        self._publisher = _publisher(session, _QUESTIONS)
        self._answers: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._subscriber = session.declare_subscriber(_ANSWERS, self._take)

    def ask(self, payload: bytes) -> None:
        """Send a question, and wait for its answer.

        Raises:
            TimeoutError: it does not come.
        """
        self._publisher.put(payload)
        try:
            self._answers.get(timeout=TIMEOUT)
        except queue.Empty:
            raise TimeoutError("an answer has not come") from None

    def wait_ready(self) -> None:
        """Ask until an answer comes, and until no other does."""
        give_up = time.monotonic() + TIMEOUT
        while self._answers.empty():
            if time.monotonic() > give_up:
                raise TimeoutError("nobody answers")
            self._publisher.put(b"")
            time.sleep(_LOOK_EVERY)
        time.sleep(10 * _LOOK_EVERY)
        while not self._answers.empty():
            self._answers.get()

    def _take(self, sample: zenoh.Sample) -> None:
        self._answers.put(sample.payload.to_bytes())


class Answering:
    """Answers in Zenoh's own thread.

    Args:
        session: is connected to the asker's.
    """

    def __init__(self, session: zenoh.Session) -> None:
        self._publisher = _publisher(session, _ANSWERS)
        self._answered = threading.Semaphore(0)
        self._subscriber = session.declare_subscriber(_QUESTIONS, self._take)

    def answer(self, count: int) -> None:
        """Return when so many questions were answered."""
        for _ in range(count):
            if not self._answered.acquire(timeout=TIMEOUT):
                raise TimeoutError("a question has not come")

    def _take(self, sample: zenoh.Sample) -> None:
        payload = sample.payload.to_bytes()
        self._publisher.put(payload)
        if payload:
            self._answered.release()


@contextmanager
def open_asking() -> Iterator[Asking]:
    """A session that listens, and asks."""
    endpoint = f"tcp/127.0.0.1:{free_port()}"
    with zenoh.open(make_config(listen=[endpoint])) as session:
        yield Asking(session, endpoint)


@contextmanager
def open_answering(endpoint: str) -> Iterator[Answering]:
    """A session that is connected to the asker's, and answers."""
    with zenoh.open(make_config(connect=[endpoint])) as session:
        yield Answering(session)
