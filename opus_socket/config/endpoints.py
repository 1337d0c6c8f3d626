"""Endpoints in keys and options: where to listen, where others are, and where the group is.

Its one rule: each says by its form what it allows beyond what `core.texts` takes apart. The
functions without `key` are forms of settings: they raise `ValueError` with what is allowed.
"""

from __future__ import annotations

import ipaddress

from opus_socket.core.settings import refused
from opus_socket.core.texts import HOST_PORT, host_port


def parse_host_port(
    text: str, *, key: str = "endpoint", default_port: int | None = None
) -> tuple[str, int]:
    """Host and port of `192.0.2.1:8081`, `[2001:db8::1]:8081` or `name.example:8081`.

    Args:
        key: what the text is, for the error: a dotted key or an option.
        default_port: the port where the text has none; None means that it needs one.

    Returns:
        The host, an IP address in its canonical form or a name, and the port, 0..65535.

    Raises:
        ConfigurationError: anything else.
    """
    try:
        return host_port(text, default_port)
    except ValueError as error:
        raise refused(key, text, str(error)) from None


def reachable(text: str) -> None:
    """Form of an endpoint that others send to."""
    host, port = host_port(text)
    if port == 0:
        raise ValueError(f"{HOST_PORT}, the port from 1 to 65535")
    if host in ("0.0.0.0", "::"):
        raise ValueError(f"{HOST_PORT}, the host one that others can reach")


def multicast_group(text: str) -> None:
    """Form of a multicast group's endpoint."""
    host, port = host_port(text)
    try:
        multicast = ipaddress.ip_address(host).is_multicast
    except ValueError:
        multicast = False
    if not multicast or port == 0:
        raise ValueError(
            "GROUP:PORT such as 239.255.0.1:9003, a multicast address (224.0.0.0 to "
            "239.255.255.255, or ff00::/8 in brackets) and a port from 1 to 65535"
        )
