"""Log lines go to standard error or a file, never to standard output."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from opus_socket.config import LoggingConfig
from opus_socket.errors import ConfigurationError
from opus_socket.logs import configure_logging, library_log


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Leave structlog to the other tests as it was found."""
    before = structlog.get_config()
    yield
    structlog.configure(**before)


def test_off_a_terminal_a_line_is_key_and_value(capsys: pytest.CaptureFixture[str]) -> None:
    configure_logging(LoggingConfig())
    structlog.get_logger().info("joined", members=3, alone=False, who="a b")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith('level=info event=joined members=3 alone=false who="a b"\n')


def test_on_a_terminal_a_line_has_colors(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    configure_logging(LoggingConfig())
    secret = "hidden".upper()
    try:
        raise LookupError(len(secret))
    except LookupError:
        structlog.get_logger().info("joined", exc_info=True)
    err = capsys.readouterr().err
    assert "\x1b[" in err
    assert "LookupError: 6" in err
    assert secret not in err


@pytest.mark.parametrize("level", ["debug", "info", "warning", "error"])
def test_what_is_less_severe_than_the_level_is_left_out(
    capsys: pytest.CaptureFixture[str], level: str
) -> None:
    configure_logging(LoggingConfig(level=level, format="json"))
    levels = ["debug", "info", "warning", "error"]
    for each in levels:
        structlog.get_logger().log({"debug": 10, "info": 20, "warning": 30, "error": 40}[each], "x")
    logged = [json.loads(line)["level"] for line in capsys.readouterr().err.splitlines()]
    assert logged == levels[levels.index(level) :]


@pytest.mark.parametrize("layout", ["console", "json"])
def test_a_traceback_is_one_line_without_the_values_of_variables(
    capsys: pytest.CaptureFixture[str], layout: str
) -> None:
    configure_logging(LoggingConfig(format=layout))
    secret = "hidden".upper()
    try:
        raise LookupError(len(secret))
    except LookupError:
        structlog.get_logger().warning("failed", exc_info=True)
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "LookupError: 6" in err
    assert secret not in err


def test_a_file_is_appended_to_and_made_anew_when_it_was_moved(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "log"
    file.write_text("before\n")
    configure_logging(LoggingConfig(file=str(file)))
    structlog.get_logger().info("one")
    file.rename(tmp_path / "log.1")
    structlog.get_logger().info("two")
    assert (tmp_path / "log.1").read_text().startswith("before\n")
    assert "event=one" in (tmp_path / "log.1").read_text()
    assert "event=two" in file.read_text()
    assert capsys.readouterr() == ("", "")


def test_a_file_that_cannot_be_opened_changes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging(LoggingConfig())
    with pytest.raises(ConfigurationError, match=r"logging\.file = .* cannot be opened: Is a dir"):
        configure_logging(LoggingConfig(file=str(tmp_path)))
    structlog.get_logger().info("still here")
    assert "still here" in capsys.readouterr().err


def test_a_logger_made_earlier_follows(capsys: pytest.CaptureFixture[str]) -> None:
    log = structlog.get_logger()
    configure_logging(LoggingConfig(level="error"))
    log.info("one")
    configure_logging(LoggingConfig(level="info"))
    log.info("two")
    err = capsys.readouterr().err
    assert "event=two" in err
    assert "event=one" not in err


def test_the_library_writes_to_standard_error_until_it_is_told_otherwise(
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whenever the application configures structlog, also after the log was made and used."""
    log = library_log()
    structlog.reset_defaults()
    log.warning("cannot reach a contact", endpoint="here")
    out, err = capsys.readouterr()
    assert out == ""
    assert "cannot reach a contact" in err
    assert "endpoint" in err
    lines: list[tuple[tuple[object, ...], str]] = []

    class Sink:
        def __init__(self, *args: object) -> None:
            self.args = args

        def warning(self, text: str) -> None:
            lines.append((self.args, text))

    structlog.configure(
        processors=[structlog.processors.JSONRenderer(sort_keys=True)], logger_factory=Sink
    )
    log.warning("again", n=1)
    assert lines == [(("opus_socket",), '{"event": "again", "n": 1}')]
    assert capsys.readouterr() == ("", "")
