"""`opus-socket config`: checks a configuration, and shows every value with its unit and origin."""

from __future__ import annotations

import json

import click

from opus_socket.cli.options import layer_options, take_layers
from opus_socket.config import OverlayConfig, example_text
from opus_socket.core.setting_types import plain, toml_value
from opus_socket.core.settings import Leaf, Origins
from opus_socket.registry import protocols


@click.command("config")
@click.argument("file", required=False)
@layer_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option("--example", is_flag=True, help="Print an example file with every setting.")
def command(file: str | None, as_json: bool, example: bool, **options: object) -> None:
    """Check a configuration and show what is in force.

    FILE is a configuration in TOML; options override it. Every value is shown with its unit and
    where it comes from, as TOML that can be a configuration itself.
    """
    if example:
        click.echo(example_text(protocols().values()), nl=False)
        return
    config, origins = OverlayConfig.layered(*take_layers({"config_file": file, **options}))
    leaves = tuple(config.leaves())
    if as_json:
        shown = {leaf.key: _described(leaf, origins) for leaf in leaves}
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False, default=plain))
        return
    assignments = [_assignment(leaf) for leaf in leaves]
    width = max(map(len, assignments))
    for leaf, assignment in zip(leaves, assignments, strict=True):
        remarks = (leaf.setting.unit, _origin(leaf, origins))
        click.echo(f"{assignment:<{width}}  # {'; '.join(filter(None, remarks))}")


def _assignment(leaf: Leaf) -> str:
    if leaf.value is None:  # TOML has no word for it
        return f"# {leaf.key} is not set"
    return f"{leaf.key} = {toml_value(leaf.value)}"


def _origin(leaf: Leaf, origins: Origins) -> str:
    return origins.get(leaf.key, "default")


def _described(leaf: Leaf, origins: Origins) -> dict[str, object]:
    return {
        "value": leaf.value,
        "unit": leaf.setting.unit,
        "from": _origin(leaf, origins),
        "key_attribute": leaf.setting.key,
    }
