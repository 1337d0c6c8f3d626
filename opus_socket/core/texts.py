"""Addresses as people write them: `12,40`, `192.0.2.1:8081`, `[2001:db8::1]:8081`, `name:8081`.

Its one rule: a text is taken apart here and nowhere else, so every call, key and option allows the
same. Names are not resolved; that is the driver's affair. What is not allowed is a `ValueError`
that says what is.
"""

from __future__ import annotations

import ipaddress
import re

HOST_PORT = "HOST:PORT such as 192.0.2.1:8081, [2001:db8::1]:8081 or name.example:8081"
"""What `host_port` allows."""

_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")
_WORD = re.compile(r"\s*([0-9]{1,10})\s*", re.ASCII)


def words(text: str) -> list[int]:
    """The numbers of a logical address, as `12,40` has them."""
    found = [_WORD.fullmatch(word) for word in text.split(",")]
    numbers = [int(match[1]) for match in found if match]
    if len(numbers) < len(found):
        raise ValueError("whole numbers separated by commas, such as 12,40")
    return numbers


def host_port(text: str, default_port: int | None = None) -> tuple[str, int]:
    """Host and port: an IP address in its canonical form or a name, and 0..65535.

    Args:
        text: what somebody wrote.
        default_port: the port where it has none; None means that it needs one.
    """
    bracketed = re.fullmatch(r"\[([^\[\]]*)\](?::([^:]*))?", text)
    plain = re.fullmatch(r"([^:\[\]]*)(?::([^:]*))?", text)
    if bracketed:
        host, digits = bracketed.groups()
        try:
            host = str(ipaddress.IPv6Address(host))
        except ValueError:
            raise ValueError(f"{HOST_PORT}, an IPv6 address inside the brackets") from None
    elif plain:
        host, digits = plain.groups()
        _check_host(host)
    else:
        raise ValueError(f"{HOST_PORT}, an IPv6 address in brackets")
    if digits is None and default_port is not None:
        return host, default_port
    if digits is None or not re.fullmatch(r"[0-9]{1,5}", digits) or int(digits) > 65_535:
        raise ValueError(f"{HOST_PORT}, the port a whole number up to 65535")
    return host, int(digits)


def _check_host(host: str) -> None:
    labels = host.removesuffix(".").split(".")
    if labels[-1].isdigit():
        try:
            ipaddress.IPv4Address(host)
        except ValueError:
            allowed = f"{HOST_PORT}, the host four numbers from 0 to 255 or a name"
            raise ValueError(allowed) from None
    elif len(host) > 253 or not all(_LABEL.fullmatch(label) for label in labels):
        raise ValueError(f"{HOST_PORT}, the host an IP address or a name")
