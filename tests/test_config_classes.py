"""Weights of traffic classes in a configuration."""

from __future__ import annotations

import pytest

from opus_socket import OverlayConfig
from opus_socket.config import SocketConfig
from opus_socket.errors import ConfigurationError


def test_weights_of_classes_are_pairs() -> None:
    config = OverlayConfig.from_mapping(
        {"overlay_id": "lab", "socket.class_weights": ["0:1", "255:100", "7:03"]}
    )
    assert config.socket.weights() == {0: 1, 255: 100, 7: 3}
    assert SocketConfig().weights() == {}


@pytest.mark.parametrize(
    "text",
    ["", "7", "7:", ":7", "7:0", "7:101", "256:1", "-1:1", "1:1.5", "1:1:1", " 1:1", "\u0661:1"],
)
def test_a_weight_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SocketConfig(class_weights=("1:2", text))
    said = str(caught.value)
    assert said.startswith(f"socket.class_weights = {text!r} is refused")
    assert "CLASS:WEIGHT such as 7:3" in said
    assert "from 1 to 100" in said


def test_a_class_has_one_weight() -> None:
    with pytest.raises(ConfigurationError) as caught:
        SocketConfig(class_weights=("7:3", "1:1", "7:4"))
    said = str(caught.value)
    assert said.startswith("socket.class_weights = ('7:3', '1:1', '7:4') is refused")
    assert "no class twice" in said
