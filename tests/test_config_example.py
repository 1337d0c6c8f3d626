"""`hypercast.toml.example` says what the settings say, and its defaults are the real ones."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

from opus_socket.config import OverlayConfig, example_text
from opus_socket.registry import protocol, services

ROOT = Path(__file__).resolve().parents[1]
LAB = OverlayConfig(overlay_id="lab")
LEAVES = {leaf.key: leaf for leaf in LAB.leaves()}


def test_the_example_file_is_what_the_settings_say() -> None:
    """After a change of any setting: opus-socket config --example > hypercast.toml.example."""
    text = (ROOT / "hypercast.toml.example").read_text()
    assert text == example_text([protocol("delaunay")], services().values())


def test_the_example_with_every_mark_taken_away_is_the_default_configuration() -> None:
    text = (ROOT / "hypercast.toml.example").read_text()
    assert OverlayConfig.from_mapping(tomllib.loads(text)) == LAB
    everything = tomllib.loads(re.sub(r"(?m)^#(?=[\w\[])", "", text))
    on: dict[str, object] = {name: {} for name in services()}
    assert OverlayConfig.from_mapping(everything) == LAB.evolve(services=on)
    assert everything.get("services", {}).keys() == on.keys()
    named = {
        f"{t}.{k}" for t, table in everything.items() if isinstance(table, dict) for k in table
    }
    assert {key for key in LEAVES if key.count(".") == 1} <= named
    assert everything["node"]["delaunay"].keys() == {
        leaf.setting.name for key, leaf in LEAVES.items() if key.startswith("node.delaunay.")
    }


@pytest.mark.parametrize(
    "published",
    [
        "OverlayID",
        "KeyAttributes",
        "HCAST2-0.TTL",
        "HCAST2-0.ReceiveBufferSize",
        "HCAST2-0.ReadTimeout",
        "SocketAdapter = TCP",
        "SocketAdapter.TCP.MaximumPacketLength = 16384",
        "SocketAdapter.UDP.MessageBufferSize = 100",
        "Node = HC2-0",
        "NodeAdapter = UDPMulticast",
        "NodeAdapter.UDPServer.UdpServer0",
        "NodeAdapter.UDPMulticastAddress",
        "LogFileName",
    ],
)
def test_the_example_says_which_published_attribute_a_setting_follows(published: str) -> None:
    """HyperCast talk, "Property File"."""
    prose = " ".join((ROOT / "hypercast.toml.example").read_text().replace("\n# ", " ").split())
    assert f"Follows {published}" in prose
