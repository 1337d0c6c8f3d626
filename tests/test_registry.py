"""Plug-ins are found by their entry points, and a broken one harms only those who ask for it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from opus_socket.config import OverlayConfig
from opus_socket.errors import ConfigurationError
from opus_socket.registry import (
    PROTOCOLS,
    SERVICES,
    found_protocols,
    names,
    protocol,
    protocols,
    service,
    services,
)
from plugin_distribution import TOY, install


def test_a_third_party_protocol_is_found_beside_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "toy" not in protocols()
    install(tmp_path, monkeypatch)
    assert protocol("toy").summary == "a toy"
    assert protocols()["toy"] is protocol("toy")
    assert list(protocols()) == sorted(protocols())
    assert "delaunay" in protocols()


def test_a_protocol_that_is_not_installed_names_those_that_are() -> None:
    with pytest.raises(ConfigurationError, match=r"no protocol 'torus'.*installed: .*delaunay"):
        protocol("torus")


def test_names_are_known_without_loading_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, module="opus_lazy")
    assert "toy" in names(PROTOCOLS)
    assert "opus_lazy" not in sys.modules


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("", "AttributeError: module 'opus_broken' has no attribute 'SPEC'"),
        ("SPEC = 5", "is a int, not a ProtocolSpec"),
        (TOY.replace('"toy"', '"other"'), "calls itself 'other'"),
        (TOY.replace("1, ToySettings, ()", "1, dict, ()"), "not an attrs class"),
        (
            TOY + "@frozen\nclass N:\n    x: int\nSPEC = ProtocolSpec('toy', '', 1, N, (), create)",
            "'x'",
        ),
    ],
)
def test_a_broken_plugin_is_named_with_its_distribution_and_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, cause: str
) -> None:
    install(tmp_path, monkeypatch, name="acme-toy", module="opus_broken", source=source)
    with pytest.raises(ConfigurationError) as caught:
        protocol("toy")
    assert "acme-toy 1.5" in str(caught.value)
    assert cause in str(caught.value)
    (found,) = (found for found in found_protocols() if found.name == "toy")
    assert found.spec is None
    assert cause in found.problem


def test_a_broken_plugin_harms_only_those_who_ask_for_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, module="opus_broken", source="1 / 0")
    assert OverlayConfig(overlay_id="lab").node.protocol == "delaunay"
    assert "toy" not in protocols()
    with pytest.raises(ConfigurationError, match=r"toy 1\.5 cannot be used.*ZeroDivisionError"):
        OverlayConfig(overlay_id="lab", node={"protocol": "toy"})


def test_services_are_found_in_the_same_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = "from opus_socket.core.service import ServiceSpec\nfrom attrs import make_class\n"
    spec += "SPEC = ServiceSpec('echo', 'says it again', make_class('S', ()), lambda c, s: None)\n"
    points = {"echo": "opus_echo:SPEC", "broken": "opus_echo:MISSING"}
    install(
        *(tmp_path, monkeypatch), points=points, group=SERVICES, module="opus_echo", source=spec
    )
    assert service("echo").summary == "says it again"
    assert "echo" in services()
    assert "broken" not in services()
    assert not {"echo", "broken"} & protocols().keys()
    with pytest.raises(
        ConfigurationError, match=r"the service 'broken' of toy 1\.5 cannot be used"
    ):
        service("broken")
    with pytest.raises(ConfigurationError, match=r"no service 'torus'.*broken, .*echo"):
        service("torus")


def test_two_distributions_with_one_name_are_both_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "a", monkeypatch, name="acme", module="opus_acme")
    install(tmp_path / "b", monkeypatch, name="bell", module="opus_bell")
    with pytest.raises(ConfigurationError, match=r"bell 1\.5 and acme 1\.5|acme 1\.5 and bell"):
        protocol("toy")
