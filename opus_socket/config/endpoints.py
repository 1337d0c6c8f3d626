"""Endpoints as people write them: `192.0.2.1:8081`, `[2001:db8::1]:8081`, `name.example:8081`.

Its one rule: a text is taken apart here and nowhere else, so every key and option allows the same.
Names are not resolved; that is the driver's affair. The functions without `key` are forms of
settings: they raise `ValueError` with what is allowed.
"""

from __future__ import annotations

import ipaddress
import re

from opus_socket.core.settings import refused

_FORM = "HOST:PORT such as 192.0.2.1:8081, [2001:db8::1]:8081 or name.example:8081"
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


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


def host_port(text: str, default_port: int | None = None) -> tuple[str, int]:
    """Form of an endpoint to listen at."""
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::([^:]*))?", text)
    plain = re.fullmatch(r"([^:\[\]]*)(?::([^:]*))?", text)
    if bracketed:
        host, digits = bracketed.groups()
        try:
            host = str(ipaddress.IPv6Address(host))
        except ValueError:
            raise ValueError(f"{_FORM}, an IPv6 address inside the brackets") from None
    elif plain:
        host, digits = plain.groups()
        _check_host(host)
    else:
        raise ValueError(f"{_FORM}, an IPv6 address in brackets")
    if digits is None and default_port is not None:
        return host, default_port
    if digits is None or not re.fullmatch(r"[0-9]{1,5}", digits) or int(digits) > 65_535:
        raise ValueError(f"{_FORM}, the port a whole number up to 65535")
    return host, int(digits)


def _check_host(host: str) -> None:
    labels = host.removesuffix(".").split(".")
    if labels[-1].isdigit():
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            raise ValueError(f"{_FORM}, the host four numbers from 0 to 255 or a name") from None
    elif len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{_FORM}, the host an IP address or a name")


def reachable(text: str) -> None:
    """Form of an endpoint that others send to."""
    host, port = host_port(text)
    if port == 0:
        raise ValueError(f"{_FORM}, the port from 1 to 65535")
    if host in ("0.0.0.0", "::"):
        raise ValueError(f"{_FORM}, the host one that others can reach")


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
