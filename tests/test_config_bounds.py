"""Bounds of the configuration that numbers of any size meet, and services given as no table."""

from __future__ import annotations

import pytest

from opus_socket import ConfigurationError, OverlayConfig
from opus_socket.config import EmulationConfig, ServicesConfig
from opus_socket.core.buckets import MAX_RATE, Direction


@pytest.mark.parametrize("key", ["node_in", "node_out", "node_total"])
@pytest.mark.parametrize("rate", [MAX_RATE + 1, 10**400, -1])
def test_a_rate_out_of_bounds_is_refused(key: str, rate: int) -> None:
    with pytest.raises(ConfigurationError, match=rf"emulation\.{key} = .* from 0 to {MAX_RATE}"):
        OverlayConfig.from_mapping({"overlay_id": "x", f"emulation.{key}": rate})


def test_the_largest_rate_is_one_everywhere() -> None:
    config = OverlayConfig(
        overlay_id="x",
        emulation=EmulationConfig(node_in=MAX_RATE, links=(f"1,2 out {MAX_RATE}",)),
    )
    limits = {limit.direction: limit.rate for limit in config.bandwidth().limits}
    assert limits == {Direction.IN: MAX_RATE, Direction.OUT: MAX_RATE}
    for rate in (0, MAX_RATE + 1):
        with pytest.raises(ConfigurationError, match=f"from 1 to {MAX_RATE}"):
            EmulationConfig(links=(f"1,2 out {rate}",))


@pytest.mark.parametrize("on", [5, None, "coding", [1], [("coding",)]])
def test_services_are_given_by_name(on: object) -> None:
    with pytest.raises(ConfigurationError, match=r"services = .* tables of services, by name"):
        ServicesConfig(on=on)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("key", "tables"),
    [
        ("rendezvous.hop_time", "[services.aggregation]"),
        ("hop_time", "[services.aggregation]"),
        ("services.coding.hop_time", "[services.aggregation]"),
        ("emulation.heartbeat", "[node.delaunay]"),
        ("socket.kind", "[node_adapter] or [socket_adapter]"),
    ],
)
def test_a_key_that_stands_in_another_table_is_shown_there(key: str, tables: str) -> None:
    """As one does whose table has kept its number sign, in a file made from the example."""
    with pytest.raises(ConfigurationError) as caught:
        OverlayConfig.from_mapping({"overlay_id": "lab", key: 1})
    hint = f"; did you mean {tables} {key.rpartition('.')[2]}?"
    assert f"unknown key {key} = 1" in str(caught.value)
    assert str(caught.value).endswith(hint)


@pytest.mark.parametrize("key", ["rendezvous.on", "rendezvous.settings", "socket.overlay_id"])
def test_a_key_that_stands_nowhere_has_no_hint(key: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        OverlayConfig.from_mapping({"overlay_id": "lab", key: 1})
    assert "mean" not in str(caught.value)
