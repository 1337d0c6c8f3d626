"""`opus-socket host` in a process of its own: many members, one report, messages counted."""

from __future__ import annotations

import signal

import pytest
import trio

from end_to_end.conftest import Start
from end_to_end.processes import TIMEOUT, free_port
from opus_socket import OverlayConfig, open_host, open_overlay_socket

MEMBERS = 8


def test_members_of_one_process_are_members_like_others(
    start: Start, server: str, overlay: str
) -> None:
    arguments = ("--overlay", overlay, "--server", server)
    host = start("host", *arguments, "--members", str(MEMBERS), "--json", "--print")
    report = host.json()
    assert set(report) == {"members", "join_s", "addresses", "endpoints"}
    assert report["members"] == MEMBERS
    addresses = report["addresses"]
    assert isinstance(addresses, list)
    assert len(set(addresses)) == MEMBERS

    cat = start("cat", *arguments)
    source = cat.joins().address
    cat.type("hello")
    received = [host.json() for _ in addresses]
    expected = {"source": source, "payload": "hello", "mode": "multicast"}
    assert sorted(received, key=str) == sorted(
        ({"receiver": address, **expected} for address in addresses), key=str
    )
    host.signal(signal.SIGINT)
    host.logs(f'received {MEMBERS} messages" dropped=0')
    assert host.ends() == 130


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "[::1]:0", "127.0.0.1:{port}"])
def test_without_a_method_its_first_member_founds_an_overlay(
    start: Start, overlay: str, listen: str
) -> None:
    arguments = ("--overlay", overlay, "--listen", listen.format(port=free_port()))
    host = start("host", *arguments, "--members", "5", "--json")
    endpoints = host.json()["endpoints"]
    assert isinstance(endpoints, list)
    member = start("cat", "--overlay", overlay, "--buddy", endpoints[-1], "--count", "1")
    here = member.joins()
    assert here.neighbors > 0
    other = start("cat", "--overlay", overlay, "--buddy", endpoints[0], "--to", here.address)
    other.joins()
    other.type("through the hosted members, or past them")
    assert member.ends() == 0


def test_print_shows_receiver_source_and_bytes(start: Start, server: str, overlay: str) -> None:
    arguments = ("--overlay", overlay, "--server", server)
    cat = start("cat", *arguments, "--log-level", "debug")
    source = cat.joins().address
    host = start("host", *arguments, "--members", "2", "--print")
    host.prints(r"^2 members joined in [0-9.]+ s at 127.0.0.1:[0-9]+$")
    cat.type(b"\xff\t")
    for _ in range(2):
        host.prints(f"^[0-9,]+\t{source}\t".encode() + rb"\xff\t$")
    host.signal(signal.SIGTERM)
    for _ in range(2):
        cat.logs("is no neighbor")
    assert host.ends() == 0


def test_the_founder_of_others_has_a_port_of_its_own_and_says_so(
    start: Start, overlay: str
) -> None:
    arguments = ("--members", "3", "--listen", "127.0.0.1:0", "--seconds", "0")
    host = start("host", "--overlay", overlay, *arguments)
    ports = r"127\.0\.0\.1:\d+ \(the founder, which has a port of its own\), 127\.0\.0\.1:\d+$"
    host.prints(rf"^3 members joined in [0-9.]+ s at {ports}")
    assert host.ends() == 0


def test_a_port_in_use_is_one_line_and_2(start: Start, overlay: str) -> None:
    endpoint = f"127.0.0.1:{free_port()}"
    arguments = ("host", "--overlay", overlay, "--listen", endpoint, "--members", "2")
    start(*arguments).prints("^2 members joined")
    process = start(*arguments)
    process.logs("^opus-socket: error: .*it is in use")
    assert process.ends() == 2
    assert len(process.err.all) == 1


def test_seconds_are_its_bound(start: Start, overlay: str) -> None:
    host = start("host", "--overlay", overlay, "--members", "2", "--seconds", "0")
    host.prints("^2 members joined")
    assert host.ends() == 0


def test_a_join_that_takes_too_long_says_how_many_have_joined(start: Start, overlay: str) -> None:
    here = f"127.0.0.1:{free_port()}"
    arguments = ("--members", "3", "--server", here, "--join-timeout", "0.2")
    host = start("host", "--overlay", overlay, *arguments)
    host.logs(
        "^opus-socket: error: 0 of 3 members joined after 0.2 s "
        rf"\(--join-timeout\); tried the rendezvous server {here}$"
    )
    assert host.ends() == 1
    assert host.out.all == []


async def test_one_member_of_a_process_answers_whoever_asks_it() -> None:
    """Had each of them answered, with a cookie of its own, questions would multiply."""
    local = OverlayConfig(overlay_id="lab", node_adapter={"listen": "127.0.0.1:0"})
    async with open_host() as host:
        first = await host.open_socket(local)
        await first.join()
        asking = local.evolve(**{"rendezvous.buddies": [str(first.contact.endpoints[0])]})
        for _ in range(20):
            await (await host.open_socket(asking)).join()
        async with open_overlay_socket(asking) as last:
            with trio.fail_after(TIMEOUT):
                await last.join()
            core = last.statistics().core
            assert core is not None
            # A challenge and an answer, and the same again should the machine be slow.
            assert core.received["rendezvous"] <= 4


def test_addresses_that_cannot_be_shared_are_one_line_and_2(start: Start, overlay: str) -> None:
    arguments = ("--members", "2", "--listen", "127.0.0.1:0")
    same = ("--set", "node.delaunay.coordinates=5,5")
    process = start("host", "--overlay", overlay, *arguments, *same)
    process.logs("^opus-socket: error: .*5,5")
    assert process.ends() == 2
    assert b"Traceback" not in b"\n".join(process.err.all)
