"""`opus-socket protocols`: what is installed; broken plug-ins are listed with the reason."""

from __future__ import annotations

import json

import click

from opus_socket.core.node import ProtocolSpec
from opus_socket.core.setting_types import plain
from opus_socket.core.settings import dotted, settings_of
from opus_socket.registry import Found, found_protocols


@click.command("protocols")
@click.option("--json", "as_json", is_flag=True, help="One JSON array on standard output.")
def command(as_json: bool) -> None:
    """List the installed protocols.

    Each with the distribution that it comes from and, where it cannot be used, the reason. JSON
    has the settings of each as well.
    """
    found = found_protocols()
    if as_json:
        described = [_described(protocol) for protocol in found]
        click.echo(json.dumps(described, indent=2, ensure_ascii=False, default=plain))
        return
    for protocol in found:
        summary = protocol.spec.summary if protocol.spec else f"cannot be used: {protocol.problem}"
        click.echo(f"{protocol.name} ({protocol.distribution}): {summary}")


def _described(found: Found[ProtocolSpec]) -> dict[str, object]:
    return {
        "name": found.name,
        "distribution": found.distribution,
        "summary": found.spec.summary if found.spec else None,
        "problem": found.problem or None,
        "settings": _settings(found.spec),
    }


def _settings(spec: ProtocolSpec | None) -> list[dict[str, object]]:
    if spec is None:
        return []
    defaults = spec.settings()
    return [
        {
            "key": dotted(f"node.{spec.name}", name),
            "default": getattr(defaults, setting.name),
            "unit": setting.unit,
            "meaning": setting.meaning,
            "allowed": setting.allowed,
            "key_attribute": setting.key,
        }
        for name, setting in settings_of(spec.settings).items()
    ]
