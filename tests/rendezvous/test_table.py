"""Whose overlays a server remembers when they are too many."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_socket.core.addresses import Contact, Endpoint
from opus_socket.core.rendezvous_messages import Purpose, Verdict
from opus_socket.rendezvous.admission import Admission
from opus_socket.rendezvous.cache import Cache
from opus_socket.rendezvous.table import OverlayTable
from rendezvous.conversation import seen
from rendezvous.desk import Desk, desk

DIGEST = bytes(8)


def sender(host: str, port: int = 7000) -> Contact:
    return seen(Endpoint(host, port))


def add(table: OverlayTable, name: str, maker: Contact, asked: float = 0.0) -> bool:
    """Whether there was room for it."""
    if not table.has_room(maker):
        return False
    cache = Cache(0, Admission(5.0, 8), 8, 8, Random(1))
    cache.asked = asked
    table.add(name, DIGEST, cache, maker)
    return True


@given(
    makers=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 3)), max_size=80),
    limit=st.integers(1, 12),
)
def test_places_go_from_the_largest_holder_to_one_that_holds_at_least_two_fewer(
    makers: list[tuple[int, int]], limit: int
) -> None:
    """Never more than the limit; nobody is refused while there is room; of a full table a place
    goes from the host, or within a host from the port, that holds the most, and the one that gets
    it holds at most as many as that one afterwards; who has none is refused only if none holds
    two, or if its host has no more than its part and its neighbors there no two.
    """
    table = OverlayTable(limit)
    owner: dict[str, tuple[int, int]] = {}
    for number, maker in enumerate(makers):
        host, port = maker
        hosts = Counter(who for who, _ in owner.values())
        ports = Counter(owner.values())
        was_full = len(table) == limit
        had_room = add(table, str(number), sender(f"10.0.0.{host}", port), float(number))
        if had_room:
            owner[str(number)] = maker
        gone = [name for name in owner if table.find(name, DIGEST) is None]
        assert len(table) == len(list(table)) <= limit
        assert len(gone) == (was_full and had_room)
        for name in gone:
            loser = owner.pop(name)
            if loser[0] == host:
                assert ports[loser] == max(n for who, n in ports.items() if who[0] == host)
                assert ports[maker] + 2 <= ports[loser]
            else:
                assert hosts[loser[0]] == max(hosts.values())
                assert hosts[host] + 2 <= hosts[loser[0]]
            # Of its own the one goes that was asked about least recently.
            assert not any(o == loser and int(n) < int(name) for n, o in owner.items())
        if not had_room:
            assert was_full
            assert (hosts[host] + 1) * len({*hosts, host}) > limit
    table.discard(lambda _: True)
    assert len(table) == 0
    assert add(table, "new", sender("10.0.0.9"))


def flooded() -> Desk:
    """A full table: eight overlays, all of one sender that answers pings."""
    d = desk(overlays=8)
    for number in range(8):
        d.ask(2, Purpose.LEAD, overlay=f"flood {number}")
    assert d.reply(2, Purpose.LEAD, overlay="one more").verdict == Verdict.NOBODY
    assert d.machine.statistics().overlays == 8
    assert d.machine.statistics().overflows == 1
    return d


def test_a_newcomer_gets_in_while_one_sender_floods_the_table() -> None:
    d = flooded()
    assert d.reply(3, Purpose.JOIN, overlay="honest").verdict == Verdict.NOBODY
    d.ask(3, Purpose.CONFIRM, overlay="honest")
    for number in range(100):
        d.ask(2, Purpose.LEAD, overlay=f"flood {number}")
    assert d.reply(4, Purpose.JOIN, overlay="honest").verdict == Verdict.MEMBERS
    assert d.machine.statistics().displaced == 1


def test_what_went_to_another_is_pinged_no_more() -> None:
    d = flooded()
    d.ask(3, Purpose.CONFIRM, overlay="honest")
    # Seven of the flood, and the honest one, each within its first seconds.
    assert d.pass_time(4.5) == 8


def test_one_sender_may_have_the_whole_table_as_long_as_nobody_else_wants_it() -> None:
    table = OverlayTable(1000)
    assert all(add(table, str(number), sender("10.0.0.1")) for number in range(1000))
    assert not add(table, "more", sender("10.0.0.1"))
    # Others get their part, one after the other, and no more than that.
    assert sum(add(table, f"b {n}", sender("10.0.0.2")) for n in range(1000)) == 500
    assert sum(add(table, f"c {n}", sender("10.0.0.3")) for n in range(1000)) == 333


@pytest.mark.parametrize(("one", "other"), [("127.0.0.1", "127.0.0.1"), ("2001:db8::1",) * 2])
def test_behind_one_address_ports_share_alike(one: str, other: str) -> None:
    table = OverlayTable(10)
    assert all(add(table, str(number), sender(one, 1)) for number in range(10))
    assert sum(add(table, f"new {n}", sender(other, 2)) for n in range(10)) == 5


def test_a_network_of_ipv6_is_one_host() -> None:
    table = OverlayTable(10)
    for number in range(10):
        add(table, str(number), sender(f"2001:db8::{number + 1:x}", number + 1))
    assert not add(table, "same network", sender("2001:db8::ffff", 99))
    assert add(table, "another network", sender("2001:db8:0:1::1", 99))
