"""`opus-socket rendezvous` in a process of its own: it says where it listens, ends when it is told
to, and may be down for a while.
"""

from __future__ import annotations

import signal

import pytest

from end_to_end.conftest import Start
from end_to_end.processes import free_port


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_it_says_where_it_listens(start: Start, host: str) -> None:
    process = start("rendezvous", "--listen", f"{host}:0", "--json")
    shown = process.json()
    assert shown == {
        "listen": f"{host}:{shown['port']}",
        "host": host.strip("[]"),
        "port": shown["port"],
    }
    assert int(str(shown["port"])) > 0
    process.logs(f"rendezvous server listens.* endpoint={host}:{shown['port']}".replace("[", r"\["))


def test_without_json_standard_output_stays_empty(start: Start) -> None:
    process = start("rendezvous", "--listen", "127.0.0.1:0")
    process.logs("rendezvous server listens")
    process.signal(signal.SIGTERM)
    assert process.ends() == 0
    assert process.out.all == []


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 0)])
def test_a_signal_ends_it_cleanly(start: Start, number: signal.Signals, status: int) -> None:
    process = start("rendezvous", "--listen", "127.0.0.1:0")
    process.logs("rendezvous server listens")
    process.signal(number)
    process.logs('event="rendezvous server stops" received=0 sent=0 .* requests=0 [a-z_=0 ]+$')
    assert process.ends() == status
    assert b"Traceback" not in b"\n".join(process.err.all)


def test_a_port_in_use_is_one_line_and_2(start: Start, server: str) -> None:
    process = start("rendezvous", "--listen", server)
    process.logs(
        f"^opus-socket: error: cannot listen at '{server}': it is in use; choose another port"
    )
    assert (process.ends(), len(process.err.all)) == (2, 1)


@pytest.mark.parametrize("listen", ["here", "192.0.2.77:0"])
def test_a_place_where_it_cannot_listen_is_one_line_and_2(start: Start, listen: str) -> None:
    process = start("rendezvous", "--listen", listen)
    process.logs("^opus-socket: error: .*listen")
    assert b"listen = " not in process.err.all[0] or b"--listen = " in process.err.all[0]
    assert (process.ends(), len(process.err.all)) == (2, 1)


def test_a_joiner_waits_for_a_server_that_is_down(start: Start, overlay: str) -> None:
    server = f"127.0.0.1:{free_port()}"
    joiner = start("cat", "--overlay", overlay, "--server", server)
    joiner.logs(f"cannot reach a contact; trying again.* endpoint={server}")
    start("rendezvous", "--listen", server).logs("listens")
    joiner.joins()


def test_members_talk_while_their_server_is_down_and_are_found_when_it_is_back(
    start: Start, overlay: str
) -> None:
    listen = f"127.0.0.1:{free_port()}"
    server = start("rendezvous", "--listen", listen)
    server.logs("listens")
    arguments = ("cat", "--overlay", overlay, "--server", listen)
    first, second = start(*arguments), start(*arguments)
    first.joins()
    second.joins()
    server.signal(signal.SIGKILL)
    server.ends()
    first.type("still there?")
    second.prints("still there[?]")
    third = start(*arguments)
    third.logs("cannot reach a contact; trying again")
    start("rendezvous", "--listen", listen).logs("listens")
    third.joins()
    third.type("all three?")
    first.prints("all three[?]")
    second.prints("all three[?]")
