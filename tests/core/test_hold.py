"""What a `HoldTable` keeps and lets go, against a plain list; `Merge`, a handler made of one."""

from __future__ import annotations

from collections import Counter
from math import inf

from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.dispatch import ForService
from opus_socket.core.extensions import MESSAGE_ID, Code, Extension
from opus_socket.core.hold import ENTRY, HoldSettings, HoldTable, Merge
from opus_socket.core.message import OverlayMessage
from opus_socket.core.node import Mode
from opus_socket.core.service import Originate, Release, ServiceEffects, to_neighbor

NEIGHBORS = [LogicalAddress((number,)) for number in range(3)]
LIMITS = HoldSettings(timeout=2.0, messages=3, size=3 * ENTRY + 50)


@define
class Entry:
    key: int
    item: int
    size: int
    upstream: LogicalAddress | None


@define
class Plain:
    """The same rules, said again over a list of everything that is held."""

    entries: list[Entry] = field(factory=list)
    began: dict[int, float] = field(factory=dict)
    fed: list[LogicalAddress] = field(factory=list)
    released: Counter[str] = field(factory=Counter)

    def groups(self) -> list[int]:
        return list(dict.fromkeys(entry.key for entry in self.entries))

    def drop(self, keys: list[int]) -> list[int]:
        gone = [entry.item for key in keys for entry in self.entries if entry.key == key]
        self.entries = [entry for entry in self.entries if entry.key not in keys]
        for key in keys:
            self.began.pop(key, None)
        return gone

    def let_go(self, keys: list[int], why: str) -> list[int]:
        gone = self.drop(keys)
        self.released[why] += len(gone)
        return gone

    def hold(self, entry: Entry, now: float) -> list[int]:
        if entry.upstream is not None:
            self.fed.append(entry.upstream)
        self.began.setdefault(entry.key, now)
        self.entries.append(entry)
        out = []
        if sum(each.key == entry.key for each in self.entries) > LIMITS.messages:
            out += self.let_go([entry.key], "crowded")
        while self.size() > LIMITS.size:
            out += self.let_go([min(self.began, key=lambda key: self.began[key])], "full")
        return out

    def size(self) -> int:
        return sum(each.size + ENTRY for each in self.entries)

    def expire(self, now: float) -> list[int]:
        due = [key for key in self.groups() if self.began[key] + LIMITS.timeout <= now]
        return self.let_go(due, "timeout")

    def fail(self, neighbor: LogicalAddress) -> list[int]:
        if neighbor not in self.fed:
            return []
        self.fed = [each for each in self.fed if each != neighbor]
        there = {entry.key for entry in self.entries if entry.upstream == neighbor}
        return self.let_go([key for key in self.groups() if key not in there], "upstream")


UPSTREAMS = st.sampled_from([None, *NEIGHBORS])
ACTIONS = st.one_of(
    st.tuples(st.just("hold"), st.integers(0, 4), st.integers(1, 30), UPSTREAMS),
    st.tuples(st.just("take"), st.integers(0, 4), st.just(0), st.none()),
    st.tuples(st.just("fail"), st.just(0), st.just(0), st.sampled_from(NEIGHBORS)),
    st.tuples(st.just("expire"), st.just(0), st.just(0), st.none()),
)


@given(st.lists(ACTIONS, max_size=40), st.data())
def test_a_table_keeps_and_lets_go_by_its_rules(
    actions: list[tuple[str, int, int, LogicalAddress | None]], data: st.DataObject
) -> None:
    """Everything that is held leaves exactly once, in groups, the oldest first, for a stated
    reason; no more than the limit is held at any time.
    """
    table: HoldTable[int] = HoldTable(LIMITS)
    plain = Plain()
    now, left = 0.0, 0
    taken: list[int] = []
    for number, (what, key, size, neighbor) in enumerate(actions):
        # Distinct instants: of two groups that began together either may be the oldest.
        now += data.draw(st.sampled_from([0.125, 0.5, 1.5]))
        if what == "hold":
            left += 1
            expected = plain.hold(Entry(key, number, size, neighbor), now)
            assert table.hold(key, number, size, neighbor, now) == expected
        elif what == "take":
            expected = plain.drop([key])
            assert list(table.held(key)) == expected
            assert table.take(key) == expected
            taken += expected
        elif what == "fail" and neighbor is not None:
            expected = plain.fail(neighbor)
            assert table.upstream_failed(neighbor) == expected
        else:
            expected = plain.expire(now)
            assert table.expire(now) == expected
        left -= len(expected)
        figures = table.statistics()
        assert figures.messages == left == len(plain.entries)
        assert figures.size == plain.size() <= LIMITS.size
        assert figures.taken == len(taken)
        assert figures.released == {why: n for why, n in plain.released.items() if n}
        assert table.next_deadline == min(plain.began.values(), default=inf) + LIMITS.timeout
    assert len(table.end()) == left
    assert table.next_deadline == inf


def arrival(payload: bytes, came: LogicalAddress | None = NEIGHBORS[0]) -> ForService:
    chain = (Extension(Code.MESSAGE_ID, MESSAGE_ID.pack(1, 1)), Extension(Code.RAW, payload))
    message = OverlayMessage.build(NEIGHBORS[0], NEIGHBORS[2], Mode.UNICAST, chain, hop_limit=9)
    return ForService(None, message, came, addressed=False, held=True)


def pairs() -> Merge:
    """Joins two payloads that begin alike; those that begin with a dash pass."""

    def join(group: list[ForService]) -> list[Originate] | None:
        if len(group) < 2:
            return None
        whole = b"+".join(each.message.payload for each in group)
        return [to_neighbor([whole], NEIGHBORS[2])]

    return Merge(
        lambda each: None if each.message.payload[:1] == b"-" else each.message.payload[:1],
        lambda group: join(list(group)),
        HoldSettings(timeout=2.0, messages=64, size=3 * ENTRY + 300),
    )


def released(effects: ServiceEffects) -> list[bytes]:
    assert all(isinstance(each, Release) for each in effects)
    return [each.message.message.payload for each in effects if isinstance(each, Release)]


def test_what_belongs_together_is_merged_and_consumed() -> None:
    handler = pairs()
    assert handler.receive(arrival(b"a1"), 0.0) == []
    assert handler.receive(arrival(b"b1"), 0.0) == []
    [sent] = handler.receive(arrival(b"a2", NEIGHBORS[1]), 1.0)
    assert isinstance(sent, Originate)
    assert (sent.bodies, sent.mode, sent.key) == ([b"a1+a2"], Mode.UNICAST, NEIGHBORS[2])
    assert (sent.hop_limit, sent.traffic_class) == (1, 0)
    assert handler.next_deadline == 2.0
    assert released(handler.wake(2.0)) == [b"b1"]
    assert handler.next_deadline == inf


def test_what_has_no_key_passes() -> None:
    assert released(pairs().receive(arrival(b"-x"), 0.0)) == [b"-x"]


def test_what_waits_is_let_go_when_an_upstream_fails_and_at_the_end() -> None:
    handler = pairs()
    for payload, came in ((b"a", NEIGHBORS[0]), (b"b", NEIGHBORS[1])):
        assert handler.receive(arrival(payload, came), 0.0) == []
    assert released(handler.link_failed(NEIGHBORS[2], 0.5)) == []
    assert released(handler.link_failed(NEIGHBORS[1], 0.5)) == [b"a"]
    assert released(handler.source_broken(NEIGHBORS[1], NEIGHBORS[0], 0.5)) == [b"b"]
    assert handler.receive(arrival(b"a"), 0.5) == []
    assert released(handler.leave(1.0)) == [b"a"]
    assert handler.statistics().released == {"upstream": 2, "ended": 1}


def test_a_message_that_is_too_large_to_be_held_passes() -> None:
    handler = pairs()
    assert handler.receive(arrival(b"a"), 0.0) == []
    large = b"b" * (3 * ENTRY + 300)
    assert released(handler.receive(arrival(large), 0.0)) == [b"a", large]
    assert handler.statistics().size == 0
