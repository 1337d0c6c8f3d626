"""`opus-socket demo`: an overlay of real processes forms itself and carries a file to everybody."""

from __future__ import annotations

import json
import os
import stat
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import click
import trio

from opus_socket import registry
from opus_socket.cli.demo.run import Plan, demonstrate
from opus_socket.cli.demo.show import describe, picture_of, spectator_of, summary_of
from opus_socket.cli.numbers import Whole
from opus_socket.cli.outputs import OutputFile
from opus_socket.config import LoggingConfig
from opus_socket.errors import ConfigurationError, OverlayError
from opus_socket.logs import configure_logging

PICTURE = "opus-socket-demo.svg"
LARGEST_SAMPLE = 32 << 20


@click.command("demo")
@click.argument("file", required=False)
@click.option("--members", type=Whole(), default=16, show_default=True, help="Overlay sockets.")
@click.option(
    "--processes",
    type=Whole(),
    default=4,
    show_default=True,
    help="Over how many processes they are spread.",
)
@click.option(
    "--protocol",
    metavar="NAME",
    default="delaunay",
    show_default=True,
    help="The protocol that builds the topology.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on standard output.")
@click.option(
    "--svg", metavar="PATH", default=PICTURE, show_default=True, help="Where the picture goes."
)
def command(
    file: str | None, members: int, processes: int, protocol: str, as_json: bool, svg: str
) -> None:
    """Watch a file reach every member of an overlay.

    Starts a rendezvous server and processes of members, which find each other by themselves;
    multicasts FILE from one member; compares its SHA-256 at each; draws the overlay. Without
    FILE it takes a large file of this Python installation. A single member has nobody to send to:
    then the seconds and Mbit/s of the multicast are 0.
    """
    configure_logging(LoggingConfig(level="warning"))
    registry.protocol(protocol)
    path = sample_file() if file is None else Path(file)
    check_readable(path)
    output = OutputFile("--svg", svg)
    output.check()
    plan = Plan(path, members, min(members, processes), protocol)
    with spectator_of(plan) as spectator:
        outcome = trio.run(demonstrate, plan, spectator)
    picture: str | None = svg
    problem: OverlayError | None = None
    try:
        output.write(picture_of(outcome))
    except OverlayError as error:  # what came of it is told all the same
        picture, problem = None, error
    if as_json:
        click.echo(json.dumps({**summary_of(outcome), "svg": picture}))
    else:
        describe(outcome, picture)
    if problem is not None:
        raise problem
    if len(outcome.delivered) < members:
        sys.exit(1)


def sample_file() -> Path:
    """A file of some megabytes that every Python installation has: the largest that is not too
    large of its executable, its library and the modules of its standard library.
    """
    sizes = {path: path.stat().st_size for path in _own_files() if path.is_file()}
    fitting = [path for path in sizes if sizes[path] <= LARGEST_SAMPLE] or list(sizes)
    return max(fitting, key=lambda path: (sizes[path], str(path)))


def _own_files() -> Iterator[Path]:
    yield Path(sys.executable).resolve()
    # In a framework build of macOS the name has folders in front; the last part alone lies in
    # the prefix.
    library = Path(sysconfig.get_config_var("INSTSONAME") or "").name
    for folder in (sysconfig.get_config_var("LIBDIR"), sys.base_prefix):
        if folder and library:
            yield Path(folder, library).resolve()
    modules = Path(os.__file__).parent
    extensions = sysconfig.get_config_var("DESTSHARED") or modules / "lib-dynload"
    for folder in (modules, modules / "pydoc_data", modules / "ensurepip/_bundled", extensions):
        yield from Path(folder).glob("*.*")


def check_readable(file: Path) -> None:
    """Refuse what cannot be read twice, once by the sender and once to know its digest.

    Raises:
        ConfigurationError: it is not there, not a file, or may not be read.
    """
    try:
        with file.open("rb") as stream:
            regular = stat.S_ISREG(os.fstat(stream.fileno()).st_mode)
    except OSError as error:
        raise ConfigurationError(
            f"FILE = {str(file)!r} cannot be read: {error.strerror}; name a file, or none"
        ) from error
    if not regular:
        raise ConfigurationError(f"FILE = {str(file)!r} is not a regular file; name one, or none")
