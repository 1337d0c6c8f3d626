"""How a configuration becomes sockets, and what is said when the system refuses them."""

from __future__ import annotations

import errno
import os
import socket

import pytest
import trio

from opus_socket import ConfigurationError, OverlayConfig, open_host, open_overlay_socket
from opus_socket.core.addresses import Use
from opus_socket.opening import Meeting, find_meeting
from support import LINE, TRANSPORTS, Resolver, at, configure, overlay, until


def free_number() -> int:
    """A port number that was free for datagrams and connections alike, and is seldom chosen."""
    for number in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            try:
                tcp.bind(("127.0.0.1", number))
                udp.bind(("127.0.0.1", number))
            except OSError:
                continue
            return number
    raise AssertionError("every port is taken")


async def refusal(**changes: object) -> str:
    """What opening with these settings says."""
    before = len(os.listdir("/dev/fd"))
    config = configure({key.replace("__", "."): value for key, value in changes.items()})
    with pytest.raises(ConfigurationError) as caught:
        async with open_overlay_socket(config):
            raise AssertionError("never entered")
    assert len(os.listdir("/dev/fd")) == before
    return str(caught.value)


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
async def test_a_port_in_use_is_named_with_a_remedy(kind: socket.SocketKind) -> None:
    with socket.socket(socket.AF_INET, kind) as taken:
        taken.bind(("127.0.0.1", 0))
        if kind is socket.SOCK_STREAM:
            taken.listen()
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        text = await refusal(node_adapter__listen=listen)
    assert text == (
        f"node_adapter.listen = '{listen}' cannot be used: "
        "it is in use; choose another port, or 0 to let the system choose"
    )


async def test_a_port_that_is_used_by_datagrams_only_suits_the_udp_adapters() -> None:
    """Only what is needed is opened."""
    number = free_number()
    with socket.create_server(("127.0.0.1", number)):
        listen = {"node_adapter.listen": f"127.0.0.1:{number}"}
        async with open_overlay_socket(configure(TRANSPORTS["udp"], listen)) as sock:
            await sock.join()
            assert [each.use for each in sock.contact.endpoints] == [Use.UDP]


async def test_an_address_of_another_machine_is_named_with_a_remedy() -> None:
    text = await refusal(node_adapter__listen="198.51.100.7:0")
    assert text == (
        "node_adapter.listen = '198.51.100.7:0' cannot be used: "
        "no such address on this machine; choose one of its own, or 0.0.0.0"
    )


@pytest.mark.parametrize("kind", [socket.SOCK_DGRAM, socket.SOCK_STREAM])
async def test_a_port_that_is_not_permitted_is_named_with_a_remedy(
    kind: socket.SocketKind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root may bind any port, so the system's answer is given in its place."""
    real = socket.socket

    class Guarded(real):  # type: ignore[misc,valid-type]
        def bind(self, address: tuple[str, int]) -> None:
            if self.type == kind:
                raise PermissionError(errno.EACCES, "Permission denied")
            super().bind(address)

    monkeypatch.setattr(socket, "socket", Guarded)
    text = await refusal(node_adapter__listen="127.0.0.1:81")
    assert text == (
        "node_adapter.listen = '127.0.0.1:81' cannot be used: "
        "permission denied; choose a port above 1023"
    )


async def test_the_system_may_choose_a_port_that_only_one_adapter_can_have(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Then it is asked for another one."""
    real = socket.socket
    tries = 0

    class Unlucky(real):  # type: ignore[misc,valid-type]
        def bind(self, address: tuple[str, int]) -> None:
            nonlocal tries
            if self.type == socket.SOCK_DGRAM and address[1]:
                tries += 1
                if tries < 4:
                    raise OSError(errno.EADDRINUSE, "Address already in use")
            super().bind(address)

    monkeypatch.setattr(socket, "socket", Unlucky)
    async with open_overlay_socket(configure()) as sock:
        await sock.join()
    assert tries >= 4


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("rendezvous.server", "nowhere.example:80"),
        ("rendezvous.buddies", ["127.0.0.1:9", "nowhere.example:80"]),
        ("node_adapter.listen", "nowhere.example:0"),
        ("node_adapter.advertise", ["nowhere.example:80"]),
    ],
)
async def test_a_name_that_does_not_resolve_is_named(key: str, value: object) -> None:
    trio.socket.set_custom_hostname_resolver(Resolver())
    text = await refusal(**{key.replace(".", "__"): value})
    assert text.startswith(f"{key}: cannot find an IPv4 address of 'nowhere.example' (")
    assert "give an address" in text


async def test_a_name_of_another_address_family_is_named() -> None:
    trio.socket.set_custom_hostname_resolver(Resolver())
    text = await refusal(rendezvous__server="six.example:80")
    assert "cannot find an IPv4 address of 'six.example'" in text
    assert "listen in its address family with node_adapter.listen" in text


async def test_names_resolve() -> None:
    trio.socket.set_custom_hostname_resolver(Resolver())
    async with overlay(LINE[:1], {"node_adapter.listen": "here.example:0"}) as (host, (founder,)):
        endpoint = founder.contact.endpoints[0]
        assert endpoint.host == "127.0.0.1"
        met = {"rendezvous.buddies": [f"here.example:{endpoint.port}"]}
        sock = await host.open_socket(configure(at(LINE[1]), met))
        await sock.join()
        await until(host, lambda: founder.neighbors == (sock.address,))


async def test_a_server_needs_datagrams() -> None:
    text = await refusal(node_adapter__kind="tcp", rendezvous__server="127.0.0.1:80")
    assert text.startswith("rendezvous.server = '127.0.0.1:80' needs UDP")
    assert "rendezvous.buddies" in text


@pytest.mark.parametrize("listen", ["127.0.0.1:0", "0.0.0.0:0"])
async def test_a_group_of_another_address_family_is_named(listen: str) -> None:
    text = await refusal(
        node_adapter__listen=listen,
        rendezvous__multicast="[ff15::1]:2424",
        rendezvous__buddies=["127.0.0.1:9"],
    )
    assert "rendezvous.multicast = '[ff15::1]:2424' is of another address family" in text
    assert f"node_adapter.listen = '{listen}'" in text


async def test_an_interface_that_is_none_is_named() -> None:
    """Neither the group that was joined nor the sockets stay open."""
    for interface in ("203.0.113.9", "nonsense"):
        text = await refusal(
            node_adapter__multicast_interface=interface, rendezvous__multicast="239.1.2.3:2424"
        )
        assert text.startswith("rendezvous.multicast = '239.1.2.3:2424' cannot be used: ")


async def test_a_group_that_could_not_be_joined_is_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A failed opening is not remembered as a success."""
    monkeypatch.setattr("opus_socket.opening.join_group", _not_permitted)
    config = configure({"rendezvous.multicast": "239.1.2.3:2424"})
    async with open_host() as host:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=r"rendezvous\.multicast"):
                await host.open_socket(config)
        assert host.statistics().udp == ()


async def test_a_group_that_cannot_be_sent_to_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("opus_socket.opening.send_to_group_from", _not_permitted)
    text = await refusal(
        node_adapter__multicast_interface="127.0.0.1", rendezvous__multicast="239.1.2.3:2424"
    )
    assert text.startswith("node_adapter.multicast_interface = '127.0.0.1' cannot be used: ")


def _not_permitted(*_: object) -> None:
    raise PermissionError(errno.EPERM, "Operation not permitted")


async def test_members_find_each_other_by_the_group() -> None:
    number = free_number()
    group = {"rendezvous.multicast": f"239.255.77.78:{number}", **TRANSPORTS["tcp"]}
    async with open_host() as one, open_host() as two:
        first = await one.open_socket(configure(group))
        await first.join()
        second = await two.open_socket(configure(group))
        await second.join()
        assert second.neighbors == (first.address,)
        await second.send_to_all(b"found")
        assert (await first.receive()).payload == b"found"


async def test_what_is_advertised_is_what_others_are_told() -> None:
    """In that order; the first that answers is used."""
    number = free_number()
    advertise = {
        **TRANSPORTS["tcp"],
        "node_adapter.listen": f"0.0.0.0:{number}",
        "node_adapter.advertise": [f"127.0.0.1:{number}", f"127.0.0.3:{number}"],
    }
    async with open_host() as one, open_host() as two:
        first = await one.open_socket(configure(advertise))
        await first.join()
        assert [str(each) for each in first.contact.endpoints] == advertise[
            "node_adapter.advertise"
        ]
        second = await two.open_socket(configure(TRANSPORTS["tcp"], buddy=first))
        await second.join()
        await second.send_to_all(b"x")
        assert (await first.receive()).payload == b"x"


@pytest.mark.parametrize(
    ("listen", "meeting", "expected"),
    [
        ("0.0.0.0:0", {}, False),
        ("0.0.0.0:0", {"buddies": ["[::1]:9"]}, True),
        ("0.0.0.0:0", {"buddies": ["127.0.0.1:9"]}, False),
        ("[::]:0", {}, True),
        ("[::1]:0", {"server": "[::1]:9"}, True),
        ("0.0.0.0:0", {"server": "[::1]:9", "multicast": "[ff15::1]:9"}, True),
    ],
)
async def test_the_address_family_is_that_of_those_to_be_met(
    listen: str, meeting: dict[str, object], expected: bool
) -> None:
    config = OverlayConfig(
        overlay_id="x", node_adapter={"listen": listen}, rendezvous=dict(meeting)
    )
    found = await find_meeting(config)
    assert isinstance(found, Meeting)
    assert found.v6 is expected
    async with open_overlay_socket(config.evolve(**{"rendezvous.multicast": ""})) as sock:
        host = sock._port.endpoint.host
        assert (":" in host) is expected
        assert host not in ("::", "0.0.0.0")


async def test_when_no_descriptors_are_left_it_is_said_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Wherever they are missing first, and nothing that was opened before stays open."""

    def full(*args: object, **options: object) -> object:
        raise OSError(errno.EMFILE, "Too many open files")

    remedy = "this process has too many files open; close some or raise the limit"
    monkeypatch.setattr("opus_socket.adapters.poller.socket.socketpair", full)
    with pytest.raises(ConfigurationError, match=f"no host can be opened: {remedy}"):
        async with open_host():
            raise AssertionError("never entered")
    text = await refusal()
    assert text.startswith("no host can be opened")
    monkeypatch.undo()
    for place in ("bind", "_bind_both", "_source_toward"):
        monkeypatch.setattr(f"opus_socket.opening.{place}", full)
        text = await refusal(node_adapter__listen="0.0.0.0:0")
        assert text.startswith(f"node_adapter.listen = '0.0.0.0:0' cannot be used: {remedy}")
        monkeypatch.undo()
