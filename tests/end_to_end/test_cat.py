"""`opus-socket cat` in processes of its own: lines become messages and messages lines, however the
members find each other; every option; and how it ends.
"""

from __future__ import annotations

import base64
import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from end_to_end.conftest import Start
from end_to_end.processes import COMMAND, TIMEOUT, Joined, Running, free_port


def converse(first: Running, second: Running, here: Joined) -> None:
    """The second joins the first; each sends a line that the other prints."""
    there = second.joins()
    assert (here.neighbors, there.neighbors) == (0, 1)
    second.type("from the second")
    first.prints(f"^{there.address}\tfrom the second$")
    first.type("from the first")
    second.prints(f"^{here.address}\tfrom the first$")


@pytest.mark.parametrize("listen", ["0.0.0.0:0", "[::]:0"])
def test_a_founder_without_any_method_is_found_as_a_buddy(
    start: Start, overlay: str, listen: str
) -> None:
    first = start("cat", "--overlay", overlay, "--listen", listen)
    here = first.joins()
    warned = first.logs(r"level=warning .*--server, --buddy or --multicast.* buddy=(\S+)")
    assert warned[1].decode() == here.endpoint
    second = start("cat", "--overlay", overlay, "--buddy", here.endpoint)
    converse(first, second, here)
    assert b"level=warning" not in b"".join(second.err.all)


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_two_are_each_others_buddy(start: Start, overlay: str, host: str) -> None:
    ends = [f"{host}:{free_port(host.strip('[]'))}" for _ in range(2)]
    first = start("cat", "--overlay", overlay, "--listen", ends[0], "--buddy", ends[1])
    here = first.joins()
    first.logs("level=info event=.no buddy answers yet; this member founds the overlay")
    second = start("cat", "--overlay", overlay, "--listen", ends[1], "--buddy", ends[0])
    assert here.endpoint == ends[0]
    converse(first, second, here)
    for process in (first, second):
        assert b"level=warning" not in b"".join(process.err.all)


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0"])
def test_members_meet_through_a_server(start: Start, overlay: str, listen: str) -> None:
    server = str(start("rendezvous", "--listen", listen, "--json").json()["listen"])
    arguments = ("cat", "--overlay", overlay, "--server", server)
    first = start(*arguments)
    here = first.joins()
    converse(first, start(*arguments), here)


def test_members_meet_by_announcements_to_a_multicast_group(start: Start, overlay: str) -> None:
    port = free_port()
    group = f"239.255.77.{port % 250 + 1}:{port}"
    arguments = ("--overlay", overlay, "--listen", "127.0.0.1:0", "--multicast", group)
    first = start("cat", *arguments)
    here = first.joins()
    converse(first, start("cat", *arguments), here)


def test_a_line_is_sent_as_the_bytes_that_it_is(cat: Start) -> None:
    lines = (b"", b"tab\there", b"return\r", b"\x00\xff\xfe", "snow \u2603".encode(), b" ")
    receiver = cat("--count", str(len(lines)))
    receiver.joins()
    sender = cat("--linger", "inf")
    address = sender.joins().address.encode()
    sender.type(*lines)
    assert receiver.ends() == 0
    assert receiver.out.all == [address + b"\t" + line for line in lines]


def test_a_last_line_needs_no_newline(cat: Start, tmp_path: Path) -> None:
    receiver = cat("--count", "2")
    receiver.joins()
    sender = cat()
    sender.write(b"one\ntwo")
    sender.end_input()
    receiver.prints(b"\tone$")
    receiver.prints(b"\ttwo$")
    assert (sender.ends(), receiver.ends()) == (0, 0)


def test_json_is_an_object_for_each_message(cat: Start) -> None:
    receiver = cat("--json", "--count", "2")
    receiver.joins()
    sender = cat()
    source = sender.joins().address
    sender.type("snow \u2603", b"\xff\x00")
    assert [receiver.json(), receiver.json()] == [
        {"source": source, "payload": "snow \u2603", "mode": "multicast"},
        {
            "source": source,
            "payload_base64": base64.b64encode(b"\xff\x00").decode(),
            "mode": "multicast",
        },
    ]


def test_to_sends_to_one_member_only(cat: Start) -> None:
    addressee, other = cat("--json"), cat()
    address = addressee.joins().address
    other.joins()
    sender = cat("--to", address)
    source = sender.joins().address
    sender.type("just you")
    assert addressee.json() == {"source": source, "payload": "just you", "mode": "unicast"}
    # Whatever the sender sent to the other one would be there before the addressee's line.
    addressee.type("you all")
    other.prints(b"")
    assert other.out.all == [f"{address}\tyou all".encode()]


@pytest.mark.parametrize("others", [0, 1])
def test_a_line_to_nobody_is_an_error_and_1_although_the_input_ends(
    cat: Start, others: int
) -> None:
    for _ in range(others):
        cat().joins()
    sender = cat("--to", "1,1", "--log-level", "error")
    sender.type("anybody there?")
    sender.end_input()
    sender.logs(
        r'level=error event="a message to 1,1 was lost at \d+,\d+: '
        r'no member was found to whom it could go \(unroutable\)"'
    )
    assert sender.ends() == 1


def test_a_line_to_somebody_is_0(cat: Start) -> None:
    addressee = cat("--count", "1")
    sender = cat("--to", addressee.joins().address)
    sender.type("hello")
    sender.end_input()
    assert (sender.ends(), addressee.ends()) == (0, 0)
    assert b'with 1 neighbor"' in b"\n".join(sender.err.all)


@pytest.mark.parametrize(
    ("method", "tried"),
    [
        (("--server", "{here}"), "the rendezvous server {here}"),
        (("--buddy", "{here}"), "the buddy {here}"),
        (
            ("--server", "{here}", "--buddy", "{here}", "--buddy", "{here}"),
            "the rendezvous server {here} and the buddies {here}, {here}",
        ),
    ],
)
def test_a_join_that_takes_too_long_is_one_line_and_1(
    start: Start, method: Sequence[str], tried: str
) -> None:
    here = f"127.0.0.1:{free_port()}"
    # A buddy that stays silent does not keep a member from founding: it has to wait for that.
    process = start(
        *("cat", "--overlay", "lab", "--join-timeout", "0.01", "--log-level", "error"),
        *(part.format(here=here) for part in method),
    )
    assert process.ends() == 1
    assert process.err.all == [
        b"opus-socket: error: not joined after 0.01 s (--join-timeout); tried "
        + tried.format(here=here).encode()
    ]


@pytest.mark.parametrize(
    ("option", "value"),
    [("--join-timeout", "nan"), ("--join-timeout", "0"), ("--linger", "nan"), ("--linger", "-1")],
)
def test_seconds_that_are_none_are_refused(start: Start, option: str, value: str) -> None:
    process = start("cat", "--overlay", "lab", option, value)
    process.logs(f"Invalid value for '{option}'")
    assert process.ends() == 2


def test_count_ends_while_input_is_open(cat: Start) -> None:
    receiver, sender = cat("--count", "1"), cat()
    receiver.joins()
    sender.joins()
    sender.type("one", "two")
    assert receiver.ends() == 0
    assert len(receiver.out.all) == 1


def test_the_end_of_input_is_the_end_unless_count_or_linger_say_otherwise(cat: Start) -> None:
    sender = cat()
    sender.joins()
    leaving, missing = cat(), cat("--count", "1", "--linger", "0")
    for process in (leaving, missing):
        process.end_input()
    assert leaving.ends() == 0
    # Fewer than asked for is not what was asked for.
    assert missing.ends() == 1
    assert missing.err.all[-1] == b"opus-socket: error: 0 of 1 messages came"
    # What is sent while others come and go may be lost, so these are alone with the sender.
    counting = cat("--count", "1")
    counting.joins()
    lingering = cat("--linger", "inf")
    lingering.joins()
    for process in (counting, lingering):
        process.end_input()
    sender.type("hello")
    lingering.prints(b"hello")
    assert counting.ends() == 0
    lingering.signal(signal.SIGTERM)
    assert lingering.ends() == 128 + signal.SIGTERM


def test_what_was_sent_before_the_end_of_input_arrives(cat: Start, tmp_path: Path) -> None:
    """Megabytes are still queued when the input ends; leaving writes them out, in order."""
    lines = [b"%06d %s" % (number, b"x" * 1000) for number in range(4000)]
    receiver = cat("--count", str(len(lines)))
    receiver.joins()
    sender = cat()
    sender.write(b"\n".join(lines))
    sender.end_input()
    assert sender.ends() == 0
    assert receiver.ends() == 0
    assert [line.split(b"\t")[1] for line in receiver.out.all] == lines


def test_a_line_above_the_limit_is_an_error_and_the_others_are_sent(cat: Start) -> None:
    limit = 100_000
    bound = ("--set", f"socket.max_message={limit}")
    receiver = cat("--count", "2")
    receiver.joins()
    sender = cat(*bound)
    sender.joins()
    sender.type(b"before", b"x" * 200_000, b"after")
    sender.logs(
        rb"line 2 is not sent: 200000 bytes; at most 100000 bytes are allowed "
        rb"\(socket.max_message\)"
    )
    assert receiver.ends() == 0
    assert [line.split(b"\t")[1] for line in receiver.out.all] == [b"before", b"after"]
    longest = cat("--count", "1", *bound)
    longest.joins()
    sender.type(b"y" * (limit + 1), b"y" * limit)
    longest.prints(b"\ty{%d}$" % limit)
    sender.end_input()
    assert sender.ends() == 1


def test_a_reader_that_goes_away_ends_it_quietly(cat: Start, server: str, overlay: str) -> None:
    reading, writing = os.pipe()
    arguments = ("cat", "--overlay", overlay, "--server", server, "--log-level", "error")
    receiver = subprocess.Popen(
        [*COMMAND, *arguments, "--linger", "inf"],
        stdin=subprocess.DEVNULL,
        stdout=writing,
        stderr=subprocess.PIPE,
    )
    os.close(writing)
    os.close(reading)
    sender = cat("--log-level", "debug")
    try:
        sender.logs(b"is a neighbor")
        sender.type("hello")
        _, errors = receiver.communicate(timeout=TIMEOUT)
    finally:
        receiver.kill()
        receiver.wait()
    assert (receiver.returncode, errors) == (1, b"")


def test_a_slow_reader_costs_no_membership(cat: Start, server: str, overlay: str) -> None:
    """Nobody reads what the receiver prints; its loop goes on, and meets who comes then."""
    arguments = ("cat", "--overlay", overlay, "--server", server, "--linger", "inf")
    reading, writing = os.pipe()
    receiver = subprocess.Popen([*COMMAND, *arguments], stdin=subprocess.DEVNULL, stdout=writing)
    os.close(writing)
    sender = cat("--log-level", "debug")
    try:
        sender.logs(b"is a neighbor")
        sender.type(*[b"x" * 10_000] * 50)
        assert cat().joins().neighbors == 2
        with open(reading, "rb") as output:
            for _ in range(50):
                assert output.readline().endswith(b"x" * 10_000 + b"\n")
    finally:
        receiver.kill()
        receiver.wait()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_says_goodbye(cat: Start, number: signal.Signals) -> None:
    first = cat("--log-level", "debug", "--set", "node.delaunay.neighbor_timeout=60")
    first.joins()
    second = cat("--set", "node.delaunay.neighbor_timeout=60")
    second.joins()
    first.logs(b"is a neighbor")
    second.signal(number)
    # Without a goodbye it would be missed after a minute.
    first.logs(b"is no neighbor")
    assert second.ends() == 128 + number


def test_a_signal_ends_a_join_that_waits(start: Start) -> None:
    waiting = start("cat", "--overlay", "lab", "--server", f"127.0.0.1:{free_port()}")
    waiting.logs(b"cannot reach a contact")
    waiting.signal(signal.SIGINT)
    assert waiting.ends() == 130
    assert b"Traceback" not in b"\n".join(waiting.err.all)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([], "overlay_id is missing"),
        (["--overlay", "lab", "--config", "/nowhere/h.toml"], "/nowhere/h.toml: cannot be read"),
        (["--overlay", "lab", "--to", "here"], "--to: .*'here'.*are allowed"),
        (["--overlay", "lab", "--listen", "192.0.2.77:0"], "no such address on this machine"),
        (["--overlay", "lab", "--server", "nobody.invalid:1"], "'nobody.invalid'"),
    ],
)
def test_bad_usage_is_one_line_and_2(start: Start, arguments: Sequence[str], error: str) -> None:
    process = start("cat", *arguments)
    process.logs(f"^opus-socket: error: .*{error}")
    assert process.ends() == 2
    assert len(process.err.all) == 1
    assert process.out.all == []


def test_a_port_in_use_is_one_line_and_2(cat: Start) -> None:
    endpoint = f"127.0.0.1:{free_port()}"
    first = cat("--listen", endpoint)
    first.joins()
    second = cat("--listen", endpoint)
    second.logs(
        f"^opus-socket: error: --listen: node_adapter.listen = '{endpoint}' cannot be used: "
        "it is in use; choose another port"
    )
    assert (second.ends(), len(second.err.all)) == (2, 1)


def test_input_that_cannot_be_read_is_one_line_and_2(overlay: str) -> None:
    for_writing = os.open(os.devnull, os.O_WRONLY)
    done = subprocess.run(
        [*COMMAND, "cat", "--overlay", overlay, "--log-level", "error"],
        stdin=for_writing,
        capture_output=True,
        timeout=TIMEOUT,
    )
    os.close(for_writing)
    error = "opus-socket: error: standard input cannot be read: Bad file descriptor\n"
    assert (done.returncode, done.stdout.decode(), done.stderr.decode()) == (2, "", error)


def test_key_attributes_that_differ_are_named_with_both_values(cat: Start) -> None:
    cat().joins()
    process = cat("--set", "node.delaunay.heartbeat=0.5")
    process.logs(
        "^opus-socket: error: .*key attributes differ: "
        "node.delaunay.heartbeat is '0.5' here and '1.0' there"
    )
    assert process.ends() == 2
    assert b"Traceback" not in b"\n".join(process.err.all)
