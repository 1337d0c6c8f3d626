"""`opus-socket simulate`: an overlay on a virtual clock, with faults at will, and what came of it.

Its one rule: the same words give the same answer, except for `wall_s` and `events_per_s`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import click
from rich.console import Console

from opus_socket import registry
from opus_socket.cli.collector import without_collector
from opus_socket.cli.figures import in_words
from opus_socket.cli.numbers import Number, Seconds, Whole
from opus_socket.cli.options import layer_options, layered, take_layers
from opus_socket.cli.outputs import OutputFile
from opus_socket.config import Layer
from opus_socket.core.addresses import LogicalAddress
from opus_socket.core.setting_types import plain
from opus_socket.logs import configure_logging
from opus_socket.simulator import (
    Experiment,
    LinkQuality,
    Progress,
    Scenario,
    parse_network,
    read_addresses,
)

_SHARE = Number(0, 1)
_SECONDS = Seconds(finite=True)


@click.command("simulate")
@click.option("--config", "config_file", metavar="FILE", help="The configuration file (TOML).")
@layer_options
@click.option(
    "--nodes",
    type=Whole(),
    metavar="N",
    help="How many members join; by default 100, or one an address of --addresses.",
)
@click.option("--seed", type=int, default=0, metavar="S", help="Decides every random number.")
@click.option(
    "--network",
    default="euclidean:2-40",
    metavar="SPEC",
    show_default=True,
    help="One-way delays in milliseconds: constant:MS, random:MS-MS, euclidean:MS-MS, or "
    "matrix:FILE, a CSV file of round-trip times.",
)
@click.option(
    "--jitter", type=Number(finite=True), default=0.0, metavar="MS", help="At most so much later."
)
@click.option("--loss", type=_SHARE, default=0.0, metavar="P", help="Share of packets lost.")
@click.option("--duplication", type=_SHARE, default=0.0, metavar="P", help="That arrive twice.")
@click.option("--reordering", type=_SHARE, default=0.0, metavar="P", help="That are held back.")
@click.option(
    "--join-interval",
    type=_SECONDS,
    default=0.001,
    metavar="SECONDS",
    show_default=True,
    help="From one join to the next; 0: all at once.",
)
@click.option(
    "--crash",
    type=Number(0, 1, high_open=True),
    default=0.0,
    metavar="F",
    help="Once legitimate, this share of the members dies at one instant.",
)
@click.option(
    "--partition",
    type=_SECONDS,
    default=0.0,
    metavar="SECONDS",
    help="Once legitimate, half of the members is cut off for so long.",
)
@click.option(
    "--addresses",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Logical addresses of the first members, one a line (Delaunay: x,y).",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option(
    "--dump",
    metavar="FILE",
    help="Write every member, its neighbors and the underlay's delays as JSON.",
)
@click.pass_context
def command(
    context: click.Context,
    /,
    nodes: int | None,
    seed: int,
    network: str,
    jitter: float,
    loss: float,
    duplication: float,
    reordering: float,
    join_interval: float,
    crash: float,
    partition: float,
    addresses: Path | None,
    as_json: bool,
    dump: str | None,
    **options: object,
) -> None:
    """Simulate an overlay: members join, faults befall them, the result is judged.

    The members' configuration is made as for every verb; the rendezvous server is simulated, too.
    The overlay is legitimate when a checker that knows all members finds every table right. With
    --json the figures are one object whose names are those of the lines that explain them. Exit
    status 1: the overlay did not become legitimate within 600 virtual seconds.
    """
    base = Layer("default", {"overlay_id": "simulation"})
    config, _ = layered([base, *take_layers(options)])
    configure_logging(config.logging)
    output = None if dump is None else OutputFile("--dump", dump)
    if output is not None:
        output.check()
    places: tuple[LogicalAddress, ...] = ()
    if addresses is not None:
        places = read_addresses(addresses, registry.protocol(config.node.protocol))
    scenario = Scenario(
        config=config,
        nodes=nodes or len(places) or 100,
        seed=seed,
        network=parse_network(network, seed),
        quality=LinkQuality(jitter, loss, duplication, reordering),
        join_interval=join_interval,
        crash=crash,
        partition=partition,
        addresses=places,
    )
    with _progress() as progress, without_collector():
        experiment = Experiment(scenario, progress)
        report = experiment.run()
    try:
        if output is not None:
            output.write(json.dumps(experiment.dump(), default=plain))
    finally:  # what was simulated for so long is told even when it cannot be kept
        if as_json:
            click.echo(json.dumps(report.as_json(), default=plain))
        else:
            alive = sum(member.alive for member in experiment.simulator.members)
            _print(in_words(report, scenario, alive))
    if not report.legitimate:
        context.exit(1)


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None] | None]:
    """Who shows how far it is; nobody where standard error is no terminal."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield None
        return
    with console.status("joining") as status:

        def show(progress: Progress) -> None:
            status.update(
                f"{progress.now:.0f} s virtual: {progress.stable} of {progress.members} stable"
            )

        yield show


def _print(figures: Mapping[str, str]) -> None:
    width = max(map(len, figures))
    for name, text in figures.items():
        click.echo(f"{name:<{width}}  {text}")
