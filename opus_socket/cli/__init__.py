"""The `opus-socket` command: its frame. Each verb is a module of this package, imported when used.

Its one rule: standard output carries the result and nothing else; logs, progress and errors go to
standard error. Exit status: 0 done, 1 the result is not what was asked, 2 bad usage or
configuration; 130 after SIGINT; after SIGTERM 143, or 0 for verbs that serve. An `OverlayError` is
one line, never a traceback.

The rooms: a module or package for each verb (`rendezvous`, `cat`, `host`, `demo`, `simulate`,
`protocols`, `config`); `options` (the options that make a configuration, the same for every
verb); `outputs` (files that options name); `streams`, `pipes` and `signals` (standard streams,
lines of JSON, and being told to end, under Trio); `numbers` (those that options take); `joining`
(how long a join may take); `figures` (of a simulation, in words); `collector` (of garbage, where
objects are many).
"""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator, Mapping
from importlib import import_module

import click

from opus_socket.errors import ConfigurationError, JoinError, OverlayError

# Verb: its module, and its line in `opus-socket --help`, which imports none of them and cuts none
# short: a line has room for 64 characters.
VERBS = {
    "rendezvous": ("opus_socket.cli.rendezvous", "Run a rendezvous server."),
    "cat": ("opus_socket.cli.cat", "Join an overlay, send lines, print what comes."),
    "host": ("opus_socket.cli.host", "Host many members of an overlay in one process."),
    "demo": ("opus_socket.cli.demo", "Watch a file reach every member of an overlay."),
    "simulate": (
        "opus_socket.cli.simulate",
        "Simulate an overlay with faults, and judge what came of it.",
    ),
    "protocols": ("opus_socket.cli.protocols", "List the installed protocols."),
    "config": ("opus_socket.cli.config", "Check a configuration and show what is in force."),
}

# What may leave a verb, in the order in which one decides when several come in a group.
_STATUS: tuple[tuple[type[BaseException], int], ...] = (
    (KeyboardInterrupt, 130),
    (BrokenPipeError, 1),
    (ConfigurationError, 2),
    (JoinError, 2),  # another configuration would join
    (OverlayError, 1),
    (OSError, 1),  # there is no room for what it has to say, see _is_foreseen
)
ORIGINS = "opus_socket.origins"
"""In click's `Context.meta`: where each value of the verb's configuration was given."""

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


class LazyGroup(click.Group):
    """A group of verbs that imports a verb's module when the verb is used, and not before."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The verbs, in the order of the table."""
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The `command` of a verb's module."""
        if cmd_name not in VERBS:
            return None
        command = import_module(VERBS[cmd_name][0]).command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One line a verb."""
        with formatter.section("Verbs"):
            formatter.write_dl([(verb, line) for verb, (_, line) in VERBS.items()])

    def invoke(self, ctx: click.Context) -> object:
        """Run a verb, and turn what leaves it into an exit status."""
        _open_closed_streams()
        try:
            try:
                result: object = super().invoke(ctx)
                return result
            finally:
                # Here, not when the interpreter ends, a reader that has gone can be told apart.
                sys.stdout.flush()
        except (OverlayError, KeyboardInterrupt, OSError, BaseExceptionGroup) as error:
            ctx.exit(_report(error, ctx.meta.get(ORIGINS, {})))


def _open_closed_streams() -> None:
    """Give standard streams that were closed somewhere to go, so that no socket takes their place
    and nothing fails because it has a word to say.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - for good


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit status: 0 done, 1 the result is not what was asked, 2 bad usage or configuration. "
    "After SIGINT (Ctrl-C) it is 130 for every verb. After SIGTERM it is 0 for rendezvous and "
    "host, which serve until they are told to end, and 143 for every other verb.",
)
@click.version_option(package_name="opus-socket", prog_name="opus-socket")
def main() -> None:
    """Overlay sockets: join a named overlay, send to all of its members or to one, receive."""
    # Imported here, so that `--help` answers at once.
    from opus_socket.config import LoggingConfig
    from opus_socket.logs import configure_logging

    # Until the verb knows its configuration: structlog by itself would log to standard output.
    configure_logging(LoggingConfig())


def _report(error: BaseException, origins: Mapping[str, str]) -> int:
    """Say in one line what went wrong, and where the value that it names was given; the exit
    status.
    """
    leaves = list(_leaves(error))
    if not all(map(_is_foreseen, leaves)):
        raise error  # a defect of ours: its traceback is what we want to see
    leaf, status = next(
        (leaf, status) for kind, status in _STATUS for leaf in leaves if isinstance(leaf, kind)
    )
    if isinstance(leaf, OverlayError):
        from structlog import get_logger

        get_logger().debug("command failed", exc_info=leaf)
        text = " ".join(str(leaf).splitlines())
        cause = leaf.__cause__
        if type(leaf) is OverlayError and cause is not None:  # a background task crashed
            text += f" ({type(cause).__name__}: {' '.join(str(cause).splitlines())})"
        key = text.split(" = ")[0].split(": ")[0]
        if key in origins and isinstance(leaf, ConfigurationError):
            text = f"{origins[key]}: {text}"
        click.echo(f"opus-socket: error: {text}", err=True)
    elif isinstance(leaf, OSError):
        if not isinstance(leaf, BrokenPipeError):
            text = f"the output cannot be written: {leaf.strerror}"
            click.echo(f"opus-socket: error: {text}", err=True)
        # What is still buffered can go nowhere; the interpreter would complain when it ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return status


def _is_foreseen(leaf: BaseException) -> bool:
    if isinstance(leaf, OSError) and not isinstance(leaf, BrokenPipeError):
        return leaf.errno in _NO_ROOM
    return isinstance(leaf, tuple(kind for kind, _ in _STATUS))


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
