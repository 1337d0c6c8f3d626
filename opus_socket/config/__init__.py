"""The configuration of an overlay socket: `hypercast.toml` and its tables as frozen values.

Its one rule: a configuration that exists is a valid one; whatever is not allowed is one
`ConfigurationError` that names file, key, value and what is allowed.

The rooms: `overlay` (`OverlayConfig`, and how it is loaded and changed), `tables` (every setting
with its default, unit, meaning and bounds), `services` (those that are on), `layers` (files,
options and arguments over each other), `endpoints`, `link_limits` and `class_weights` (host and
port, limits of links, and weights of traffic classes, as people write them), `example`
(`hypercast.toml.example`).
"""

from __future__ import annotations

from opus_socket.config.endpoints import parse_host_port
from opus_socket.config.example import example_text
from opus_socket.config.layers import Layer, file_layer
from opus_socket.config.overlay import OverlayConfig, find_setting
from opus_socket.config.services import ServicesConfig
from opus_socket.config.tables import (
    EmulationConfig,
    LoggingConfig,
    NodeAdapterConfig,
    NodeConfig,
    RendezvousConfig,
    SocketAdapterConfig,
    SocketConfig,
)

__all__ = [
    "EmulationConfig",
    "Layer",
    "LoggingConfig",
    "NodeAdapterConfig",
    "NodeConfig",
    "OverlayConfig",
    "RendezvousConfig",
    "ServicesConfig",
    "SocketAdapterConfig",
    "SocketConfig",
    "example_text",
    "file_layer",
    "find_setting",
    "parse_host_port",
]
