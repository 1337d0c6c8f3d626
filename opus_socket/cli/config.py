"""`opus-socket config`: checks a configuration, and shows every value with its unit and origin."""

from __future__ import annotations

import json

import click

from opus_socket.cli.options import layer_options, layered, take_layers
from opus_socket.config import example_text
from opus_socket.core.setting_types import plain, toml_value
from opus_socket.core.settings import Leaf, Origins
from opus_socket.registry import protocols, services


@click.command("config")
@click.argument("file", required=False)
@layer_options
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option("--example", is_flag=True, help="Print an example file with every setting.")
def command(file: str | None, as_json: bool, example: bool, **options: object) -> None:
    """Check a configuration and show what is in force.

    FILE is a configuration in TOML; options override it. Every value is shown with its unit, its
    range, whether it is a key attribute, on which all members must agree, and where it comes from,
    as TOML that can be a configuration itself.
    """
    if example:
        click.echo(example_text(protocols().values(), services().values()), nl=False)
        return
    config, origins = layered(take_layers({"config_file": file, **options}))
    leaves = tuple(config.leaves())
    keys = {key for key, _ in config.key_pairs()}
    if as_json:
        shown = {leaf.key: _described(leaf, origins, leaf.key in keys) for leaf in leaves}
        click.echo(json.dumps(shown, indent=2, ensure_ascii=False, default=plain))
        return
    assignments = [_assignment(leaf) for leaf in leaves]
    width = max(map(len, assignments))
    for leaf, assignment in zip(leaves, assignments, strict=True):
        is_key = "key attribute" if leaf.key in keys else ""
        remarks = (leaf.setting.unit, leaf.setting.range, is_key, _origin(leaf, origins))
        click.echo(f"{assignment:<{width}}  # {'; '.join(filter(None, remarks))}")


def _assignment(leaf: Leaf) -> str:
    if leaf.value is None:  # TOML has no word for it
        return f"# {leaf.key} is not set"
    return f"{leaf.key} = {toml_value(leaf.value)}"


def _origin(leaf: Leaf, origins: Origins) -> str:
    return origins.get(leaf.key, "default")


def _described(leaf: Leaf, origins: Origins, is_key: bool) -> dict[str, object]:
    return {
        "value": leaf.value,
        "unit": leaf.setting.unit,
        "from": _origin(leaf, origins),
        "key_attribute": is_key,
    }
