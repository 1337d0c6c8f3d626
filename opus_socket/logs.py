"""Logging of the commands: structlog, to standard error or a file, never to standard output.

Its one rule: only a command calls this. The library logs through `structlog.get_logger()` and
leaves it to its application where the lines go.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

import structlog
from structlog.typing import Processor

from opus_socket.config import LoggingConfig
from opus_socket.errors import ConfigurationError


def configure_logging(config: LoggingConfig) -> TextIO:
    """Send every log line of this process where the configuration says.

    On a terminal, `console` has colors and columns; elsewhere it is one `key=value` line each.

    Returns:
        The stream that lines go to. When it is a file, whoever called may close it at the end.

    Raises:
        ConfigurationError: the file cannot be opened.
    """
    stream = _open(config.file) if config.file else sys.stderr
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *_renderer(config.format, stream.isatty()),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(config.level),
        logger_factory=structlog.PrintLoggerFactory(stream),
        # A logger that was used before this call would otherwise keep writing to the old stream.
        cache_logger_on_first_use=False,
    )
    return stream


def _renderer(layout: str, terminal: bool) -> tuple[Processor, ...]:
    if layout == "json":
        return structlog.processors.dict_tracebacks, structlog.processors.JSONRenderer()
    if terminal:
        return (structlog.dev.ConsoleRenderer(colors=True),)
    order = ["timestamp", "level", "event"]
    logfmt = structlog.processors.LogfmtRenderer(key_order=order, bool_as_flag=False)
    return structlog.processors.format_exc_info, logfmt


def _open(file: str) -> TextIO:
    try:
        return Path(file).expanduser().open("a", buffering=1, encoding="utf-8")
    except (OSError, RuntimeError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise ConfigurationError(
            f"logging.file = {file!r} cannot be opened: {reason}; "
            "allowed: a file that can be appended to, or nothing for standard error"
        ) from None
