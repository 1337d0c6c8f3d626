"""Endpoints as people write them: every address is understood, everything else is one error."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opus_socket.config import parse_host_port
from opus_socket.errors import ConfigurationError

HOSTS = st.ip_addresses(v=4).map(str) | st.ip_addresses(v=6).map(lambda ip: f"[{ip}]")


@given(host=HOSTS, port=st.integers(0, 65_535))
def test_host_and_port_of_any_address(host: str, port: int) -> None:
    parsed, parsed_port = parse_host_port(f"{host}:{port}")
    assert ipaddress.ip_address(parsed) == ipaddress.ip_address(host.strip("[]"))
    assert parsed_port == port
    assert parse_host_port(host, default_port=8081) == (parsed, 8081)


NO_ENDPOINTS = [
    "256.1.1.1:80",
    "1.2.3:80",
    "::1:80",
    "[::1]80",
    "[::1",
    "[1.2.3.4]:80",
    "a:65536",
    "a:٣",
    "a:+1",
    "a:",
    "a",
    ":1",
    "",
    "-a:1",
    "a..b:1",
    "a b:1",
    "a:1\n",
    f"{'a' * 64}:1",
    f"{'a.' * 130}:1",
]


@pytest.mark.parametrize("text", NO_ENDPOINTS)
def test_what_is_no_endpoint_is_refused_by_its_key(text: str) -> None:
    with pytest.raises(
        ConfigurationError, match=r"^--server = .* is refused; allowed: .*PORT|IPv6"
    ):
        parse_host_port(text, key="--server")


@pytest.mark.parametrize("text", ["localhost:1", "a-b.example.:65535", "my_service:0", "x9:1"])
def test_names_are_kept_as_they_are(text: str) -> None:
    host, port = parse_host_port(text)
    assert f"{host}:{port}" == text


@given(st.text(alphabet="0123456789abc.:[]-%/ ٣", max_size=24))
def test_what_is_understood_is_what_was_written(text: str) -> None:
    """Whatever the text, there is an endpoint or one kind of error; nothing is made up."""
    host, port = _parsed(text)
    if port is not None:
        assert int(text.rpartition(":")[2]) == port
        written = text.rpartition(":")[0]
        if written.startswith("["):
            assert ipaddress.IPv6Address(host) == ipaddress.IPv6Address(written[1:-1])
        else:
            assert host == written


def _parsed(text: str) -> tuple[str, int | None]:
    try:
        return parse_host_port(text)
    except ConfigurationError:
        return "", None
