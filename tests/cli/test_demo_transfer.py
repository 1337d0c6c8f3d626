"""A file as messages: it arrives whole or not at all, in whatever order its pieces come."""

from __future__ import annotations

import hashlib
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_socket.cli.demo.transfer import PIECE, Incoming, digest_of, pieces_of


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file that ends within a piece."""
    path = tmp_path_factory.mktemp("file") / "file"
    path.write_bytes(Random(1).randbytes(9 * PIECE + 17))
    return path


def taken(messages: list[bytes]) -> Incoming:
    incoming = Incoming()
    for message in messages:
        incoming.take(message)
    return incoming


@given(shuffle=st.randoms(), again=st.integers(0, 5))
def test_pieces_make_the_file_in_any_order(file: Path, shuffle: Random, again: int) -> None:
    """Invariant: size and digest are the file's, whatever the order and whatever comes twice."""
    messages = [message for message, _ in pieces_of(file)]
    messages += shuffle.sample(messages, again)
    shuffle.shuffle(messages)
    incoming = taken(messages)
    assert incoming.complete
    assert (incoming.size, incoming.sha256) == digest_of(file)


@given(st.data())
def test_a_file_without_one_of_its_pieces_is_incomplete(file: Path, data: st.DataObject) -> None:
    """Invariant: no message can be missed without being noticed."""
    messages = [message for message, _ in pieces_of(file)]
    missing = data.draw(st.integers(0, len(messages) - 1))
    incoming = taken(messages[:missing] + messages[missing + 1 :])
    assert not incoming.complete


def test_an_empty_file_is_one_message(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    messages = [message for message, _ in pieces_of(path)]
    incoming = taken(messages)
    assert len(messages) == 1
    assert incoming.complete
    assert (incoming.size, incoming.sha256) == (0, hashlib.sha256().hexdigest())


@pytest.mark.parametrize("message", [b"", b"\0", b"\7" + bytes(8) + b"what is this"])
def test_what_is_no_message_of_a_file_changes_nothing(message: bytes) -> None:
    incoming = taken([message])
    assert incoming.size == 0
    assert not incoming.complete


def test_the_digest_is_that_of_the_whole_file(file: Path) -> None:
    data = file.read_bytes()
    assert digest_of(file) == (len(data), hashlib.sha256(data).hexdigest())
    assert b"".join(part for _, part in pieces_of(file)) == data
