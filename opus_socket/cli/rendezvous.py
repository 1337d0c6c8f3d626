"""`opus-socket rendezvous`: the server where the members of overlays find each other."""

from __future__ import annotations

import functools
import json

import click
import trio

from opus_socket.cli.signals import run_until_signal
from opus_socket.rendezvous.serve import serve


@click.command("rendezvous")
@click.option(
    "--listen",
    default="0.0.0.0:8081",
    metavar="HOST:PORT",
    show_default=True,
    help="Where to listen (UDP); IPv6 as [::]:8081; port 0 lets the system choose.",
)
@click.option("--json", "as_json", is_flag=True, help="Print where it listens as a JSON object.")
@click.pass_context
def command(context: click.Context, /, listen: str, as_json: bool) -> None:
    """Run a rendezvous server.

    The members of any number of overlays find each other through it. It runs until it is
    interrupted, and says in its log where it listens; with --json also on standard output, as
    {"listen": "HOST:PORT", "host": HOST, "port": PORT}. Members keep talking while it is down,
    and it may restart at any time: they register again.
    """
    context.exit(run_until_signal(lambda: _rendezvous(listen, as_json), serves=True))


async def _rendezvous(listen: str, as_json: bool) -> int:
    async with trio.open_nursery() as nursery:
        endpoint = await nursery.start(functools.partial(serve, listen, option="--listen"))
        if as_json:
            host, port, _ = endpoint
            click.echo(json.dumps({"listen": str(endpoint), "host": host, "port": port}))
    return 0
