"""Whatever a remote says to services, to a handler or to the attendant, the membership lives on."""

from __future__ import annotations

import pytest
from attrs import define, frozen
from hypothesis import given
from hypothesis import strategies as st

from core_world import Member, World
from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.dispatch import ForService
from opus_socket.core.effects import Quantity
from opus_socket.core.extensions import MESSAGE_ID, Code, Extension
from opus_socket.core.inquiries import INQUIRIES, Where
from opus_socket.core.message import OverlayMessage
from opus_socket.core.node import Mode
from opus_socket.core.parcel import Parcel
from opus_socket.core.service import Originate, Scope, Service, ServiceEffects, ServiceSpec
from opus_socket.core.serving import MAX_OWN
from opus_socket.core.sessions import SESSIONS, BrokenSource
from opus_socket.core.wire import Codec
from opus_socket.errors import LocalProtocolError, RemoteProtocolError
from opus_socket.services.aggregation import SPEC as AGGREGATION
from opus_socket.services.coding import SPEC as CODING
from opus_socket.services.coding import Flow
from opus_socket.services.collecting import Report, Round
from opus_socket.services.generations import Packet

EVERYBODY = LogicalAddress.everybody(0)
HERE, NEIGHBOR = LogicalAddress((1,)), LogicalAddress((2,))
APP = 7


@define(eq=False)
class Parrot(Service):
    """Answers a hundred messages, whomever they are from and wherever they say."""

    heard: int = 0

    def receive(self, message: ForService, now: float) -> ServiceEffects:
        self.heard += 1
        body = message.message.payload
        if body == b"nonsense":
            raise RemoteProtocolError("nonsense")
        if self.heard > 100:
            return ()
        words = [int.from_bytes(body[at : at + 4]) for at in range(0, min(len(body), 16), 4)]
        keys = [message.message.source, message.message.destination]
        keys += [LogicalAddress(words)] if words else []
        return [
            *[Originate([body], Mode.UNICAST, key) for key in keys],
            Originate([body], Mode.UNICAST),
            Originate([body], Mode.MULTICAST, keys[0]),
            Originate([bytes(17 << 20)], Mode.MULTICAST),
        ]

    def ask(self, request: object, now: float) -> ServiceEffects:
        assert isinstance(request, LogicalAddress)
        return [Originate([b"asked"], Mode.UNICAST, request)]


@frozen
class NoSettings:
    """Nothing can be set."""


PARROT = ServiceSpec(
    "parrot",
    "Answers.",
    NoSettings,
    lambda *_: Parrot(),
    intercepts=True,
    requests=(LogicalAddress,),
)
SPECS = [PARROT, CODING, AGGREGATION]


def served(*specs: ServiceSpec) -> tuple[World, Member]:
    """Member 1, which runs these services, and its neighbor 2."""
    world = World()
    member = world.join(1, services=specs)
    world.join(2, 1)
    return world, member


def bodies() -> st.SearchStrategy[bytes]:
    """What services say to each other, and what they do not."""
    number = st.integers(0, 2**64 - 1)
    asked = Round(5, 1, 9, 3, "load", (1.0,))
    return st.one_of(
        st.binary(max_size=40),
        st.just(b"nonsense"),
        st.builds(lambda n: Codec((Where,)).encode(Where(n)), number),
        st.builds(lambda n: Codec((BrokenSource,)).encode(BrokenSource(((n, 0),))), number),
        st.just(asked.wire),
        st.just(Report(5, 1, bytes(20)).wire),
        st.builds(lambda n: Packet.of_block(APP, n, 9, 2, 0, b"x").wire, st.integers(0, 3)),
    )


def frame(
    service: int | None,
    body: bytes,
    source: LogicalAddress,
    to: LogicalAddress | None,
    mode: Mode,
    sequence: int,
) -> bytes:
    """One message of a member that nobody has heard of."""
    last = Extension(Code.RAW, body)
    if service is not None:
        last = Extension(Code.SERVICE, service.to_bytes(4) + body)
    chain = (Extension(Code.MESSAGE_ID, MESSAGE_ID.pack(99, sequence)), last)
    return OverlayMessage.build(source, to, mode, chain, hop_limit=9).frame


def carry(world: World, data: bytes, via: LogicalAddress | None) -> None:
    """Bring member 1 frames, by its neighbor or by whomever."""
    core = world.members[1].core
    world.forward(1, core.switch(Parcel(len(data), [data]), via, world.now))
    world.run()


ADDRESSES = st.sampled_from([HERE, NEIGHBOR, LogicalAddress((3,)), EVERYBODY])
SERVICES = st.sampled_from([None, INQUIRIES, SESSIONS, *[spec.id for spec in SPECS]])
SAID = st.tuples(
    SERVICES,
    bodies(),
    ADDRESSES,
    st.none() | ADDRESSES,
    st.sampled_from(Mode),
    st.sampled_from([NEIGHBOR, None]),
)


@given(st.lists(SAID, min_size=1, max_size=12))
def test_nothing_that_remotes_say_comes_out_of_a_core_as_an_error(
    said: list[tuple[int | None, bytes, LogicalAddress, LogicalAddress | None, Mode, object]],
) -> None:
    world, member = served(*SPECS)
    world.perform(1, member.core.set_handler(Parrot(), Scope.BOTH, 0.0))
    world.perform(1, member.core.ask("coding", Flow(APP, decode=True), 0.0))
    for sequence, (service, body, source, to, mode, via) in enumerate(said):
        assert via is None or isinstance(via, LogicalAddress)
        carry(world, frame(service, body, source, to, mode, sequence), via)
        world.advance(world.now + 0.5)
    world.advance(world.now + 70.0)
    assert [spec.name for spec in SPECS] + ["handler"] == [*_names(member)]
    world.perform(1, member.core.leave(world.now))
    world.advance(world.now + 70.0)
    assert member.core.next_deadline == float("inf")


def _names(member: Member) -> list[str]:
    named = [spec.name for spec in SPECS] + ["handler"]
    return [name for name in named if member.core.service(name) is not None]


@pytest.mark.parametrize("service", [None, INQUIRIES, PARROT.id])
def test_nothing_comes_from_everybody(service: int | None) -> None:
    """Neither as a frame of the usual shape nor as another, neither in a parcel nor in a buffer."""
    world, member = served(PARROT)
    question = Codec((Where,)).encode(Where(1))
    usual = frame(service, question, EVERYBODY, HERE, Mode.UNICAST, 1)
    odd = OverlayMessage.parse(frame(service, question, EVERYBODY, HERE, Mode.UNICAST, 2))
    chain = (Extension(0x44, b""), *odd.extensions)
    odd = OverlayMessage.build(EVERYBODY, HERE, Mode.UNICAST, chain, hop_limit=9)
    carry(world, usual + odd.frame, NEIGHBOR)
    world.forward(1, member.core.switch(memoryview(bytearray(usual)), NEIGHBOR, 0.0))
    figures = member.core.statistics()
    assert figures.engine.dropped == {"bad_source": 3}
    assert (member.delivered, figures.engine.service_frames, figures.engine.lanes) == ([], 0, 0)


def test_what_cannot_be_sent_is_counted_and_the_rest_is_sent() -> None:
    world, member = served(PARROT)
    carry(world, frame(PARROT.id, b"", NEIGHBOR, HERE, Mode.UNICAST, 1), NEIGHBOR)
    # To nobody, to somebody and to all, and too long: refused. To the source, and to itself: sent.
    assert member.core.statistics().refused == {"unsendable": 3}
    assert member.core.statistics().engine.originated_frames == 2


def test_what_breaks_the_protocol_of_a_service_is_counted_as_it_says() -> None:
    world, member = served(PARROT)
    carry(world, frame(PARROT.id, b"nonsense", NEIGHBOR, HERE, Mode.UNICAST, 1), NEIGHBOR)
    assert member.core.statistics().refused == {"nonsense": 1}


def test_whoever_asks_for_what_cannot_be_sent_is_told() -> None:
    _, member = served(PARROT)
    with pytest.raises(LocalProtocolError, match="no destination here"):
        member.core.ask("parrot", EVERYBODY, 0.0)
    assert member.core.statistics().refused == {}


@pytest.mark.parametrize("target", [EVERYBODY, LogicalAddress((1, 2))])
def test_a_question_about_nobody_leaves_nothing_behind(target: LogicalAddress) -> None:
    world, member = served()
    before = member.core.next_deadline
    with pytest.raises(LocalProtocolError, match="no destination here"):
        member.core.measure(target, Quantity.RTT, 0.0)
    assert member.core.next_deadline == before
    world.advance(10.0)
    assert member.answers == []


def test_a_service_that_answers_itself_takes_turns_with_all_others() -> None:
    """Each of its own messages is one wake: nothing is nested, and nothing else has to wait."""
    world, member = served(PARROT)
    parrot = member.core.service("parrot")
    assert isinstance(parrot, Parrot)
    world.perform(1, member.core.ask("parrot", HERE, 0.0))
    heard = []
    while member.core.next_deadline <= 0.0:
        heard.append(parrot.heard)
        world.perform(1, member.core.wake(0.0))
    # "asked" comes back from its source and its destination, to itself twice.
    assert heard[:4] == [0, 1, 3, 7]
    assert heard == sorted(heard)


def test_what_waits_for_the_own_services_is_bounded() -> None:
    """However fast they talk to themselves."""

    class Rabbit(Service):
        def receive(self, message: ForService, now: float) -> ServiceEffects:
            return [Originate([b"x"] * 100, Mode.UNICAST, message.message.source)]

    rabbit = ServiceSpec("rabbit", "Multiplies.", NoSettings, lambda *_: Rabbit())
    world, member = served(rabbit)
    carry(world, frame(rabbit.id, b"x", HERE, HERE, Mode.UNICAST, 1), NEIGHBOR)
    world.perform(1, member.core.wake(0.0))
    # One brings 100, and these bring 10,000.
    assert member.core.statistics().refused == {"own_overflow": 10_000 - MAX_OWN}


def test_what_a_handler_sends_here_goes_to_the_application() -> None:
    world, member = served()
    parrot = Parrot()
    world.perform(1, member.core.set_handler(parrot, Scope.BOTH, 0.0))
    world.send(1, b"", Mode.UNICAST, to=1)
    assert [each.payload for each in member.delivered] == [b"", b""]
    assert parrot.heard == 1


def test_who_leaves_hears_nothing_of_itself() -> None:
    world, member = served(PARROT)
    world.perform(1, member.core.ask("parrot", HERE, 0.0))
    world.perform(1, member.core.leave(0.0))
    world.advance(10.0)
    assert member.core.next_deadline == float("inf")
