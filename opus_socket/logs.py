"""Logging: structlog, to standard error or a file, never to standard output.

Its one rule: only a command configures. The library's own log (`library_log`) goes where its
application has configured structlog to write, and to standard error while it has not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import structlog
from attrs import frozen
from structlog.typing import FilteringBoundLogger, Processor, WrappedLogger

from opus_socket.config import LoggingConfig
from opus_socket.errors import ConfigurationError


def library_log() -> FilteringBoundLogger:
    """The log of overlay sockets."""
    log: FilteringBoundLogger = structlog.wrap_logger(_Destination())
    return log


def configure_logging(config: LoggingConfig) -> None:
    """Send every log line of this process where the configuration says.

    On a terminal, `console` has colors and columns; elsewhere it is one `key=value` line each.

    Raises:
        ConfigurationError: the file cannot be opened.
    """
    terminal = not config.file and sys.stderr.isatty()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *_renderer(config.format, terminal),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(config.level),
        logger_factory=_file_logger(config.file) if config.file else _standard_error,
        # A logger that was used before this call would otherwise keep its old destination.
        cache_logger_on_first_use=False,
    )


class _Destination:
    """Whatever structlog writes to, asked for at each line: it may be configured at any time."""

    def __getattr__(self, name: str) -> object:
        if structlog.is_configured():
            return getattr(structlog.get_config()["logger_factory"]("opus_socket"), name)
        # Structlog's own choice would be standard output, which is the application's.
        return getattr(_standard_error(), name)


def _renderer(layout: str, terminal: bool) -> tuple[Processor, ...]:
    # A traceback is text, without the values of variables: they may hold what nobody should read.
    traceback = structlog.processors.format_exc_info
    if layout == "json":
        return traceback, structlog.processors.JSONRenderer()
    if terminal:
        plain = structlog.dev.plain_traceback
        return (structlog.dev.ConsoleRenderer(colors=True, exception_formatter=plain),)
    order = ["timestamp", "level", "event"]
    return traceback, structlog.processors.LogfmtRenderer(key_order=order, bool_as_flag=False)


def _standard_error(*_: object) -> WrappedLogger:
    # Looked up for each line: whoever replaces sys.stderr means log lines as well.
    return structlog.PrintLogger(sys.stderr)


def _file_logger(file: str) -> Callable[..., WrappedLogger]:
    try:
        path = Path(file).expanduser()
        path.open("a", encoding="utf-8").close()
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(
            f"logging.file = {file!r} cannot be opened: {reason}; "
            "allowed: a file that can be appended to, or nothing for standard error"
        ) from None
    logger = _FileLogger(path)
    return lambda *_: logger


@frozen
class _FileLogger:
    """Appends each line by itself, so that no file stays open and one that was moved is made anew.

    Attributes:
        path: the file.
    """

    path: Path

    def msg(self, message: str) -> None:
        """Append one line."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write(f"{message}\n")

    log = debug = info = warning = error = critical = msg
