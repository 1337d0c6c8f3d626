"""A configuration that exists is valid; whatever is not allowed is one error that can be mended."""

from __future__ import annotations

import math
import pickle
import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import attrs
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from opus_socket.config import (
    NodeAdapterConfig,
    NodeConfig,
    OverlayConfig,
    RendezvousConfig,
    SocketAdapterConfig,
    SocketConfig,
    find_setting,
)
from opus_socket.core.setting_types import toml_value
from opus_socket.errors import ConfigurationError
from opus_socket.registry import protocol
from plugin_distribution import install

T = TypeVar("T")

LAB = OverlayConfig(overlay_id="lab")
LEAVES = {leaf.key: leaf for leaf in LAB.leaves()}
# Stated here once more, independently of the declarations.
BOUNDS: dict[str, tuple[float, float]] = {
    "socket.hop_limit": (1, 65_535),
    "socket.receive_buffer": (0, math.inf),
    "socket.send_buffer": (1, math.inf),
    "socket.read_timeout": (0, math.inf),
    "socket.stall_timeout": (0.001, math.inf),
    "socket.evict_timeout": (0.001, math.inf),
    "socket_adapter.maximum_packet_length": (512, 65_535),
    "emulation.node_in": (0, math.inf),
    "emulation.node_out": (0, math.inf),
    "emulation.node_total": (0, math.inf),
    "emulation.interval": (0.01, 60),
}
CHOICES = {
    "socket.overflow": ("block", "drop", "evict"),
    "node_adapter.kind": ("udp", "tcp"),
    "socket_adapter.kind": ("tcp", "udp"),
    "logging.level": ("debug", "info", "warning", "error"),
    "logging.format": ("console", "json"),
}
FREE_TEXTS = ("node_adapter.multicast_interface", "logging.file")


def nested(key: str, value: object) -> dict[str, object]:
    """The mapping in which a dotted key has the value."""
    for part in reversed(key.split(".")):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def outcome(call: Callable[[], T]) -> T | str:
    """What a call gives, or the text of its ConfigurationError."""
    try:
        return call()
    except ConfigurationError as error:
        return str(error)


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(ConfigurationError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    return text


def loaded(
    path: Path, text: str | bytes, overrides: dict[str, object] | None = None
) -> OverlayConfig:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return OverlayConfig.load(path, overrides)


def test_defaults() -> None:
    """What an overlay socket does that was told nothing but its overlay."""
    assert LAB.key_attributes == ("socket", "node", "socket_adapter")
    assert LAB.socket == SocketConfig(
        hop_limit=1024,
        receive_buffer=4 << 20,
        send_buffer=256 << 10,
        read_timeout=0,
        overflow="block",
        stall_timeout=2.0,
        evict_timeout=10.0,
        local_handover=True,
    )
    assert LAB.node.protocol == "delaunay"
    assert LAB.node.settings == protocol("delaunay").settings()
    assert LAB.node_adapter == NodeAdapterConfig(kind="udp", listen="0.0.0.0:0", advertise=())
    assert LAB.socket_adapter == SocketAdapterConfig(kind="tcp", maximum_packet_length=16_384)
    assert SocketAdapterConfig(kind="udp").maximum_packet_length == 8_192
    assert LAB.rendezvous == RendezvousConfig(server="", buddies=(), multicast="")
    assert (LAB.logging.level, LAB.logging.format, LAB.logging.file) == ("info", "console", "")


def test_every_setting_says_what_it_means_and_every_number_its_unit() -> None:
    assert {*BOUNDS, *CHOICES, *FREE_TEXTS} <= LEAVES.keys()
    for key, leaf in LEAVES.items():
        assert leaf.setting.meaning, key
        if leaf.setting.type in (int, float):
            assert leaf.setting.unit, key


@pytest.mark.parametrize(
    ("key", "least", "most"),
    [
        ("heartbeat", 0.1, 5.0),
        ("neighbor_timeout", 3.0, 60.0),
        ("rendezvous_period", 0.1, 3600.0),
        ("join_retry", 0.1, 60.0),
        ("join_retry_limit", 0.1, 3600.0),
    ],
)
def test_the_protocols_numbers_have_bounds_that_are_shown(
    key: str, least: float, most: float
) -> None:
    """Algorithms 2: a heartbeat of up to 5 seconds, more than two of which may be missed."""
    declared = LEAVES[f"node.delaunay.{key}"].setting
    assert declared.range == f"{least}\N{EN DASH}{most}"
    assert declared.brief == f"a number {declared.range} ({declared.unit})"
    assert declared.allowed == f"a number from {least} to {most} ({declared.unit})"
    settings: Callable[..., object] = protocol("delaunay").settings
    for value in (least, most):
        assert getattr(settings(**{key: value}), key) == value
    for value in (least - 0.01, most + 0.01):
        assert refusal(partial(settings, **{key: value})) == (
            f"node.delaunay.{key} = {value} is refused; allowed: {declared.allowed}"
        )


@pytest.mark.parametrize(
    ("key", "given_list", "wrong"),
    [
        ("rendezvous.buddies", ["a:1", "nonsense", "b"], "'nonsense'"),
        ("node_adapter.advertise", ["a:1", "b:0"], "'b:0'"),
    ],
)
def test_of_a_list_the_entry_that_is_wrong_is_named(
    key: str, given_list: list[str], wrong: str
) -> None:
    text = refusal(lambda: LAB.evolve(**{key: given_list}))
    assert text.startswith(f"{key} = {wrong} is refused; allowed: HOST:PORT")


@given(key=st.sampled_from(sorted(BOUNDS)), value=st.integers() | st.floats(allow_nan=False))
@example(key="socket.hop_limit", value=0)
@example(key="socket.hop_limit", value=1)
@example(key="socket.hop_limit", value=65_535)
@example(key="socket.hop_limit", value=65_536)
@example(key="socket.receive_buffer", value=0)
@example(key="socket_adapter.maximum_packet_length", value=511)
def test_bounds_hold_in_mappings_and_in_classes_made_directly(key: str, value: float) -> None:
    """Accepted exactly if it is of the type and within the bounds; the error names all."""
    least, most = BOUNDS[key]
    whole = isinstance(LEAVES[key].value, int)
    fits = least <= value <= most and value != math.inf
    fits = fits and not (whole and isinstance(value, float))
    table, name = key.split(".")
    cls = type(getattr(LAB, table))
    ways: list[Callable[[], object]] = [
        lambda: OverlayConfig.from_mapping({"overlay_id": "lab", **nested(key, value)}),
        lambda: OverlayConfig(overlay_id="lab", **{table: {name: value}}),  # type: ignore[arg-type]
        lambda: LAB.evolve(**{key: value}),
        lambda: cls(**{name: value}),
    ]
    for way in ways:
        if fits:
            config = way()
            owner = getattr(config, table) if isinstance(config, OverlayConfig) else config
            assert getattr(owner, name) == value
            assert type(getattr(owner, name)) is type(LEAVES[key].value)
        else:
            text = refusal(way)
            assert key in text
            assert f"{least}" in text


@given(key=st.sampled_from(sorted(CHOICES)), text=st.text(max_size=8))
def test_choices_are_named(key: str, text: str) -> None:
    if text not in CHOICES[key]:
        message = refusal(lambda: LAB.evolve(**{key: text}))
        assert key in message
        assert all(f'"{choice}"' in message for choice in CHOICES[key])


TOML_VALUES = st.recursive(
    st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@given(key=st.sampled_from(sorted(LEAVES)), value=TOML_VALUES)
@example(key="socket.hop_limit", value=True)
@example(key="socket.local_handover", value=1)
@example(key="socket.read_timeout", value=math.nan)
@example(key="socket.read_timeout", value=10**400)
@example(key="node_adapter.advertise", value="192.0.2.1:1")
@example(key="overlay_id", value="\ud800")
def test_any_value_at_any_key_is_kept_or_refused_by_name(key: str, value: object) -> None:
    """Whatever TOML can say: either it is in force as it was said, or an error names the key."""
    values = {"overlay_id": "lab", **nested(key, value)}
    config = outcome(lambda: OverlayConfig.from_mapping(values))
    if isinstance(config, str):
        assert key in config
        assert len(config) < 1_000
        return
    (kept,) = (leaf.value for leaf in config.leaves() if leaf.key == key)
    said = tuple(value) if isinstance(value, list) else value
    assert kept == (float(said) if isinstance(kept, float) and isinstance(said, int) else said)
    assert isinstance(kept, bool) is isinstance(said, bool)


@given(st.binary(max_size=60))
@example(b"[" * 20_000)
@example(b"x = " + b"1" * 5_000)
@example("\ufeffoverlay_id = 'lab'".encode())
def test_any_bytes_are_a_configuration_or_one_error(
    tmp_path_factory: pytest.TempPathFactory, data: bytes
) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    config = outcome(lambda: loaded(path, data))
    if isinstance(config, str):
        assert config.startswith(f"{path}: ")
    else:
        assert config.overlay_id == tomllib.loads(data.decode("utf-8-sig"))["overlay_id"]


def test_a_number_too_long_to_write_is_refused_all_the_same(tmp_path: Path) -> None:
    text = refusal(lambda: loaded(tmp_path / "h.toml", f"overlay_id = [0x{'f' * 10_000}]"))
    assert "overlay_id = [(a huge number)] is refused" in text


def test_errors_name_file_key_value_and_what_is_allowed(tmp_path: Path) -> None:
    path = tmp_path / "hypercast.toml"
    text = refusal(lambda: loaded(path, "overlay_id = 'lab'\n[socket]\nhop_limit = 70000"))
    assert text == (
        f"{path}: socket.hop_limit = 70000 is refused; "
        "allowed: a whole number from 1 to 65535 (hops)"
    )
    text = refusal(lambda: loaded(path, "overlay_id = 'lab'\n[node.delaunay]\nheartbeat = 99"))
    assert text.startswith(f"{path}: node.delaunay.heartbeat = 99")
    assert "5.0" in text


@pytest.mark.parametrize(
    ("key", "close", "allowed"),
    [
        ("socket.hop_limt", "hop_limit", "hop_limit, receive_buffer, send_buffer, read_timeout"),
        ("overlayid", "overlay_id", "overlay_id, key_attributes, socket, node, node_adapter"),
        ("node.delauny", "delaunay", "protocol, delaunay"),
        ("node.delaunay.heart_beat", "heartbeat", "coordinates, heartbeat, neighbor_timeout"),
        ("node.settings", "", "protocol, delaunay"),
        ("zzz", "", "overlay_id, key_attributes"),
    ],
)
def test_unknown_keys_are_named_with_the_closest_and_all_allowed(
    tmp_path: Path, key: str, close: str, allowed: str
) -> None:
    text = refusal(lambda: loaded(tmp_path / "h.toml", f"{key} = 7\noverlay_id = 'lab'"))
    assert text.startswith(f"{tmp_path / 'h.toml'}: unknown key {key} = 7")
    assert allowed in text
    assert (f"did you mean {close}?" in text) is bool(close)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"overlay_id = 'lab", "not TOML"),
        (b"overlay_id = 'lab'\n\nsocket.hop_limit = \n", "line 3"),
        (b"overlay_id = '\xff'", "not UTF-8 at byte 14"),
        (b"socket = 5\noverlay_id = 'lab'", "socket = 5 is refused; allowed: a table"),
        (
            b"node = 'delaunay'\noverlay_id = 'lab'",
            "node = 'delaunay' is refused; allowed: a table",
        ),
        (b"[socket]", "overlay_id is missing"),
        (b"node.protocol = 'torus'\noverlay_id = 'lab'", "an installed protocol, which is one of"),
        (b"node.protocol = 3\noverlay_id = 'lab'", "node.protocol = 3 is refused; allowed: a text"),
        (b"overlay_id = ''", "1 to 255 bytes"),
        ("overlay_id = '{}'".format("ä" * 128).encode(), "1 to 255 bytes"),
    ],
)
def test_bad_files_are_one_error(tmp_path: Path, text: bytes, message: str) -> None:
    shown = refusal(lambda: loaded(tmp_path / "h.toml", text))
    assert shown.startswith(f"{tmp_path / 'h.toml'}: ")
    assert message in shown


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in refusal(lambda: OverlayConfig.load(tmp_path / "none.toml"))
    assert "Is a directory" in refusal(lambda: OverlayConfig.load(tmp_path))
    assert "null byte" in refusal(lambda: OverlayConfig.load("a\0b"))


def test_arguments_override_the_file(tmp_path: Path) -> None:
    text = "overlay_id = 'lab'\n[socket]\nhop_limit = 7\nsend_buffer = 99\n[node]\nprotocol = 'no'"
    config = loaded(
        tmp_path / "h.toml",
        text,
        {"socket.hop_limit": 9, "node.protocol": "delaunay", "rendezvous": {"server": "a.b:1"}},
    )
    assert (config.socket.hop_limit, config.socket.send_buffer) == (9, 99)
    assert (config.node.protocol, config.rendezvous.server) == ("delaunay", "a.b:1")


def test_an_error_names_the_origin_of_the_value(tmp_path: Path) -> None:
    path = tmp_path / "h.toml"
    text = "overlay_id = 'lab'\nsocket.hop_limit = 7"
    assert refusal(lambda: loaded(path, text, {"socket.hop_limit": 0})).startswith("argument: ")
    both = refusal(
        lambda: loaded(path, text, {"socket_adapter.kind": "udp", "node_adapter.kind": "tcp"})
    )
    assert both.startswith(f"{path}, argument: node_adapter.kind = 'tcp'")


def test_tables_are_objects_or_mappings() -> None:
    table = SocketConfig(hop_limit=5)
    config = OverlayConfig(overlay_id="lab", socket=table, rendezvous={"buddies": ["a:1"]})
    assert config.socket is table
    assert config.rendezvous == RendezvousConfig(buddies=("a:1",))
    assert OverlayConfig.from_mapping({"overlay_id": "lab", "socket": table}).socket is table


def test_a_configuration_is_an_immutable_value() -> None:
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        LAB.socket.hop_limit = 3  # type: ignore[misc]
    copy: object = pickle.loads(pickle.dumps(LAB))
    assert copy == LAB
    assert hash(copy) == hash(LAB)


SOME = st.fixed_dictionaries(
    {"overlay_id": st.text(min_size=1, max_size=60)},
    optional={
        "socket": st.fixed_dictionaries(
            {},
            optional={
                "hop_limit": st.integers(1, 65_535),
                "read_timeout": st.floats(0, 1e9) | st.integers(0, 9),
                "overflow": st.sampled_from(["block", "drop", "evict"]),
                "local_handover": st.booleans(),
            },
        ),
        "node": st.fixed_dictionaries(
            {"delaunay": st.fixed_dictionaries({"heartbeat": st.floats(0.1, 5.0)})}
        ),
        "socket_adapter": st.fixed_dictionaries({"kind": st.sampled_from(["tcp", "udp"])}),
        "rendezvous": st.fixed_dictionaries(
            {"buddies": st.lists(st.sampled_from(["a:1", "[::1]:2", "192.0.2.9:3"]), max_size=3)}
        ),
        "logging": st.fixed_dictionaries({"file": st.text(max_size=20)}),
    },
)


@given(SOME)
@example({"overlay_id": '"\\\x7f\x00\u2028\U0001f600\r\n'})
def test_a_configuration_survives_being_written_and_read(values: dict[str, object]) -> None:
    """Written as TOML, taken apart into a mapping, or evolved by nothing: it stays the same."""
    config = OverlayConfig.from_mapping(values)
    toml = "\n".join(f"{leaf.key} = {toml_value(leaf.value)}" for leaf in config.leaves())
    assert OverlayConfig.from_mapping(tomllib.loads(toml)) == config
    assert OverlayConfig.from_mapping(config.given()) == config
    assert config.evolve() == config


def test_evolve_changes_what_is_named_and_what_hangs_on_it() -> None:
    config = LAB.evolve(**{"socket_adapter.kind": "udp", "rendezvous.server": "127.0.0.1:8081"})
    assert config.socket_adapter.maximum_packet_length == 8_192
    assert config.rendezvous.server == "127.0.0.1:8081"
    own = LAB.evolve(**{"socket_adapter.maximum_packet_length": 4_096})
    assert own.evolve(**{"socket_adapter.kind": "udp"}).socket_adapter == SocketAdapterConfig(
        kind="udp", maximum_packet_length=4_096
    )
    assert config.evolve(rendezvous=RendezvousConfig()).rendezvous == RendezvousConfig()
    assert "hop_limit" in refusal(lambda: LAB.evolve(**{"socket.hop_limit": 0}))


def test_tables_of_other_protocols_are_checked_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch)
    text = (
        "overlay_id = 'lab'\n[node.delaunay]\nheartbeat = 2\n"
        "[node.toy]\nheartbeat = 4\nshape = 'star'\ncorner = [3, -4]"
    )
    config = loaded(tmp_path / "h.toml", text)
    assert config.node.protocol == "delaunay"
    assert not any(leaf.key.startswith("node.toy") for leaf in config.leaves())
    toy = config.evolve(**{"node.protocol": "toy"})
    shown = {leaf.key: toml_value(leaf.value) for leaf in toy.leaves() if "toy." in leaf.key}
    assert shown == {
        "node.toy.heartbeat": "4.0",
        "node.toy.shape": '"star"',
        "node.toy.corner": "[3, -4]",
        "node.toy.plain": "3",
    }
    assert toy.evolve(**{"node.protocol": "delaunay"}) == config
    for bad, allowed in [
        ("heartbeat = 5.5", "a number from 0.1 to 5 (seconds)"),
        ("shape = 'line'", 'one of "ring", "star"'),
        ("corner = [1]", "a list of 2 entries, each a whole number"),
        ("plain = -1", "a whole number of at least 0 (members)"),
    ]:
        text = f"overlay_id = 'lab'\n[node.toy]\n{bad}"
        message = refusal(partial(loaded, tmp_path / "h.toml", text))
        assert f"node.toy.{bad.split(' ')[0]}" in message
        assert allowed in message


def test_settings_of_the_chosen_protocol_may_be_an_object() -> None:
    settings = protocol("delaunay").settings(heartbeat=2.0)
    node = NodeConfig(protocol="delaunay", settings=settings)
    assert node.settings is settings
    assert OverlayConfig(overlay_id="lab", node=node).evolve(overlay_id="b").node == node
    assert "node.delaunay" in refusal(lambda: NodeConfig(settings=SocketConfig()))


def test_key_pairs_are_what_members_must_agree_on() -> None:
    pairs = dict(LAB.key_pairs())
    assert pairs["node.protocol"] == "delaunay"
    assert pairs["node.delaunay.heartbeat"] == "1.0"
    assert pairs["socket_adapter.kind"] == "tcp"
    assert pairs["socket_adapter.maximum_packet_length"] == "16384"
    assert "node.delaunay.coordinates" not in pairs
    assert not any(key.startswith(("node_adapter.", "rendezvous.", "logging.")) for key in pairs)
    assert list(LAB.key_pairs()) == sorted(LAB.key_pairs())


@given(st.permutations(["socket", "node", "socket_adapter", "logging.level", "node.protocol"]))
def test_key_pairs_do_not_depend_on_the_order_of_key_attributes(entries: list[str]) -> None:
    config = LAB.evolve(key_attributes=entries)
    assert config.key_pairs() == (("logging.level", "info"), *LAB.key_pairs())


def test_key_pairs_of_single_keys_and_of_nothing() -> None:
    only = LAB.evolve(key_attributes=["socket.hop_limit"])
    assert only.key_pairs() == (("socket.hop_limit", "1024"),)
    assert LAB.evolve(key_attributes=[]).key_pairs() == ()
    assert LAB.evolve(key_attributes=["node.delaunay"]).key_pairs() == tuple(
        pair for pair in LAB.key_pairs() if pair[0].startswith("node.delaunay.")
    )


@pytest.mark.parametrize("entry", ["nod", "socket.hop", "", "node.", "HCAST2-0.TTL"])
def test_key_attributes_that_are_neither_table_nor_key(entry: str) -> None:
    text = refusal(lambda: LAB.evolve(key_attributes=["socket", entry]))
    assert f"key_attributes = {entry!r} is refused" in text
    assert "socket_adapter" in text


@pytest.mark.parametrize(
    ("key", "good", "bad"),
    [
        ("node_adapter.listen", ["[::]:0", "localhost:1", "10.0.0.1:65535"], ["", "a", ":1", "a:"]),
        ("rendezvous.server", ["", "a:1", "[2001:db8::1]:8081"], ["a:0", "0.0.0.0:1", "[::]:1"]),
        ("rendezvous.multicast", ["224.242.224.243:2424", "[ff02::1]:1"], ["10.0.0.1:1", "a:1"]),
        ("rendezvous.buddies", [[], ["a:1", "b:2"]], [["a:1", "b"], ["a:0"], [""]]),
        ("node_adapter.advertise", [["a:1"] * 4], [["a:1"] * 5, ["0.0.0.0:1"]]),
    ],
)
def test_endpoints_of_settings(key: str, good: list[object], bad: list[object]) -> None:
    for value in good:
        LAB.evolve(**{key: value})
    for value in bad:
        assert refusal(partial(LAB.evolve, **{key: value})).startswith(f"{key} = ")


def test_adapters_that_exclude_each_other() -> None:
    with pytest.raises(ConfigurationError, match=r"node_adapter\.kind = 'tcp'.*socket_adapter"):
        OverlayConfig(
            overlay_id="lab", node_adapter={"kind": "tcp"}, socket_adapter={"kind": "udp"}
        )
    with pytest.raises(ConfigurationError, match="at most 65491"):
        SocketAdapterConfig(kind="udp", maximum_packet_length=65_492)


def test_settings_are_found_by_their_keys() -> None:
    for key, leaf in LEAVES.items():
        assert find_setting(key) == leaf.setting
    for key in ("", "zzz", "socket.x", "x.y", "node.x.y", "overlay_id.x", "a.b.c.d"):
        assert find_setting(key) is None
