"""The frame of the command: verbs, exit status, one line an error, options that make a
configuration, and standard output that carries results only.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import click
import pytest
import structlog
from click.testing import CliRunner, Result

from opus_socket.cli import VERBS, main
from opus_socket.cli.options import overlay_options
from opus_socket.config import OverlayConfig, example_text
from opus_socket.errors import ConfigurationError, JoinError, NotJoinedError, OverlayError
from opus_socket.registry import protocols, services
from plugin_distribution import install

COMMAND = [sys.executable, "-m", "opus_socket.cli"]
Body = Callable[[], object]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch) -> Callable[[Body], None]:
    """Make a verb `try` of a function."""

    def make(body: Body) -> None:
        module = ModuleType("verb_of_a_test")
        vars(module)["command"] = click.command("try")(body)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(VERBS, "try", (module.__name__, "Try."))

    return make


def raising(error: BaseException) -> Body:
    def body() -> None:
        raise error

    return body


def test_help_shows_every_verb_with_one_line_and_imports_none() -> None:
    script = (
        "import sys\nfrom opus_socket.cli import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "print(*(name for name in sys.modules if name.startswith('opus_socket.')))"
    )
    shown = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    *lines, imported = shown.splitlines()
    for verb, (_, line) in VERBS.items():
        assert f"{verb} {line}" in [" ".join(shown_line.split()) for shown_line in lines]
    assert not {module for module, _ in VERBS.values()} & set(imported.split())
    ending = " ".join(" ".join(lines).split())
    assert "After SIGINT (Ctrl-C) it is 130 for every verb." in ending
    assert "After SIGTERM it is 0 for rendezvous and host," in ending
    assert ending.endswith("and 143 for every other verb.")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_of_the_table_is_a_command_of_that_name(verb: str) -> None:
    result = CliRunner().invoke(main, [verb, "--help"], prog_name="opus-socket")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: opus-socket {verb} ")


def test_every_module_of_a_verb_is_in_the_table() -> None:
    folder = Path(sys.modules["opus_socket.cli"].__file__ or "").parent
    modules = {
        file.parent.name if file.name == "verb.py" else file.stem
        for file in folder.rglob("*.py")
        if "\ncommand = " in (text := file.read_text()) or "\ndef command(" in text
    }
    assert modules == set(VERBS)


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (ConfigurationError("h.toml: no"), 2, "opus-socket: error: h.toml: no"),
        (JoinError("differs"), 2, "opus-socket: error: differs"),
        (NotJoinedError("a\nb"), 1, "opus-socket: error: a b"),
        (OverlayError("crashed"), 1, "opus-socket: error: crashed"),
        (ExceptionGroup("", [ConfigurationError("no")]), 2, "opus-socket: error: no"),
        (
            ExceptionGroup(
                "", [NotJoinedError("x"), ExceptionGroup("", [ConfigurationError("y")])]
            ),
            2,
            "opus-socket: error: y",
        ),
    ],
)
def test_an_overlay_error_is_one_line_and_a_status(
    verb: Callable[[Body], None], error: Exception, status: int, line: str
) -> None:
    verb(raising(error))
    result = run("try")
    assert (result.exit_code, result.stdout, result.stderr) == (status, "", f"{line}\n")


def test_a_crash_names_its_cause(verb: Callable[[Body], None]) -> None:
    def body() -> None:
        raise OverlayError("a background task crashed") from ZeroDivisionError("by zero")

    verb(body)
    expected = "opus-socket: error: a background task crashed (ZeroDivisionError: by zero)\n"
    assert run("try").stderr == expected


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), BaseExceptionGroup("", [KeyboardInterrupt(), OverlayError("x")])]
)
def test_an_interrupt_is_130_and_silent(verb: Callable[[Body], None], error: BaseException) -> None:
    verb(raising(error))
    result = run("try")
    assert (result.exit_code, result.output) == (130, "")


@pytest.mark.parametrize(
    "error", [ZeroDivisionError(), ExceptionGroup("", [OverlayError("x"), ZeroDivisionError()])]
)
def test_a_defect_of_ours_keeps_its_traceback(
    verb: Callable[[Body], None], error: Exception
) -> None:
    verb(raising(error))
    assert run("try").exception is error


def test_a_verb_chooses_its_own_status(verb: Callable[[Body], None]) -> None:
    verb(lambda: click.get_current_context().exit(1))
    assert run("try").exit_code == 1


@pytest.mark.parametrize(
    "arguments", [("no-such-verb",), ("--no-such-option",), ("config", "--no-such"), ()]
)
def test_bad_usage_is_2(arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    assert result.stdout == ""


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    reading, writing = os.pipe()
    process = subprocess.Popen(
        [*COMMAND, "config", "--example"], stdout=writing, stderr=subprocess.PIPE, text=True
    )
    os.close(reading)
    os.close(writing)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (1, "")


@pytest.mark.parametrize("closed", ["0<&-", "1>&-", "2>&-", "0<&- 1>&- 2>&-"])
def test_closed_streams_are_no_trouble(closed: str, tmp_path: Path) -> None:
    """What a verb has to say to nobody is lost, and nothing else."""
    dump = tmp_path / "dump"
    verb = f"simulate --nodes 3 --dump {dump}"
    command = f"{sys.executable} -m opus_socket.cli {verb} {closed}"
    ended = subprocess.run(["/bin/sh", "-c", command], capture_output=True, timeout=60, check=False)
    assert ended.returncode == 0
    assert b"Traceback" not in ended.stderr
    assert bool(ended.stdout) is ("1>" not in closed)
    assert len(json.loads(dump.read_text())["members"]) == 3


def test_logs_go_to_standard_error_also_before_a_verb_knows_better(
    verb: Callable[[Body], None],
) -> None:
    verb(lambda: structlog.get_logger().warning("something", count=3))
    result = run("try")
    assert result.stdout == ""
    assert "level=warning event=something count=3" in result.stderr


@pytest.fixture
def given_config(verb: Callable[[Body], None]) -> list[OverlayConfig]:
    """What the verb `try`, which has the common options, was given."""
    given: list[OverlayConfig] = []

    def body(config: OverlayConfig, count: int) -> None:
        assert count == 4
        structlog.get_logger().info("said")
        structlog.get_logger().debug("hidden")
        given.append(config)

    verb(click.option("--count", default=4)(overlay_options(body)))
    return given


def test_options_are_keys_of_the_configuration(given_config: list[OverlayConfig]) -> None:
    result = run(
        *("try", "--overlay", "lab", "--protocol", "delaunay", "--listen", "[::1]:0"),
        *("--server", "a:1", "--buddy", "b:2", "--buddy", "c:3", "--multicast", "[ff02::1]:4"),
        *("--set", "socket.hop_limit=64", "--set", "node.delaunay.coordinates=3,4"),
        *("--set", 'rendezvous.buddies = ["d:5"]', "--log-level", "warning"),
    )
    assert result.exit_code == 0, result.output
    assert given_config == [
        OverlayConfig(
            overlay_id="lab",
            socket={"hop_limit": 64},
            node={"protocol": "delaunay", "delaunay": {"coordinates": "3,4"}},
            node_adapter={"listen": "[::1]:0"},
            rendezvous={"server": "a:1", "buddies": ["d:5"], "multicast": "[ff02::1]:4"},
            logging={"level": "warning"},
        )
    ]


@pytest.mark.parametrize("text", ["7", "true", "2020-01-01", '"7"', "a b", "[x", "1.5"])
def test_a_text_needs_no_quotes(given_config: list[OverlayConfig], text: str) -> None:
    assert run("try", "--set", f"overlay_id={text}").exit_code == 0
    assert given_config[0].overlay_id == text.strip('"')


def test_options_override_the_file_and_set_overrides_both(
    given_config: list[OverlayConfig], tmp_path: Path
) -> None:
    file = tmp_path / "h.toml"
    file.write_text("overlay_id = 'file'\nlogging.level = 'error'\nsocket.hop_limit = 9")
    assert run("try", "--config", str(file)).exit_code == 0
    assert run("try", "--config", str(file), "--overlay", "b").exit_code == 0
    assert (
        run("try", "--config", str(file), "--overlay", "b", "--set", "overlay_id=c").exit_code == 0
    )
    assert [config.overlay_id for config in given_config] == ["file", "b", "c"]
    assert [config.socket.hop_limit for config in given_config] == [9, 9, 9]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--server", "a"), "--server: rendezvous.server = 'a' is refused; allowed: HOST:PORT"),
        (("--set", "socket.hop_limit=0"), "--set: socket.hop_limit = 0 is refused"),
        (("--set", "socket.hop_limit=x"), "--set: socket.hop_limit = 'x' is refused"),
        (("--set", "socket.hop=1"), "unknown key socket.hop = 1"),
        (("--set", "socket=1"), "socket = 1 is refused; allowed: a table"),
        (("--protocol", "torus"), "--protocol: node.protocol = 'torus' is refused"),
        (("--log-level", "loud"), "--log-level: logging.level = 'loud' is refused"),
        (("--buddy", "a:1", "--buddy", "b"), "--buddy: rendezvous.buddies = 'b' is refused"),
        (("--buddy", "b"), "allowed: HOST:PORT such as 192.0.2.1:8081"),
        (("--set", "node.delaunay.heartbeat=9"), "heartbeat = 9 is refused; allowed: a number"),
        (("--set", "node.delaunay.coordinates=9"), "such as '7,12'"),
        (("--config", "/nowhere/h.toml"), "/nowhere/h.toml: cannot be read"),
        (("--set", "logging.file=/nowhere/log"), "logging.file = '/nowhere/log' cannot be opened"),
    ],
)
def test_a_bad_option_is_one_line_and_2(
    given_config: list[OverlayConfig], arguments: tuple[str, ...], message: str
) -> None:
    result = run("try", "--overlay", "lab", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("opus-socket: error: ")
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert given_config == []


@pytest.mark.parametrize("text", ["", "=", "=3", "socket.hop_limit"])
def test_set_needs_a_key_and_a_value(given_config: list[OverlayConfig], text: str) -> None:
    result = run("try", "--overlay", "lab", "--set", text)
    assert result.exit_code == 2
    assert "KEY=VALUE is allowed" in result.stderr


def test_without_an_overlay_id_the_error_says_what_is_missing(
    given_config: list[OverlayConfig],
) -> None:
    result = run("try")
    assert result.exit_code == 2
    assert result.stderr.startswith("opus-socket: error: overlay_id is missing")
    assert result.stderr.endswith("; give it with --overlay ID\n")
    # The options that were given are not the cause.
    assert run("try", "--server", "a:1", "--log-level", "error").stderr == result.stderr


def test_a_file_without_an_overlay_id_is_named(
    given_config: list[OverlayConfig], tmp_path: Path
) -> None:
    file = tmp_path / "h.toml"
    file.write_text("[socket]\n")
    result = run("try", "--config", str(file), "--server", "a:1")
    assert result.stderr.startswith(f"opus-socket: error: {file}: overlay_id is missing")
    assert result.stderr.endswith("; give it with --overlay ID\n")


@pytest.mark.parametrize("text", ["node_adapter.listen = 'x' is in use", "node_adapter.listen: x"])
def test_what_the_system_refuses_is_told_with_its_origin(
    verb: Callable[[Body], None], text: str
) -> None:
    def body(config: OverlayConfig) -> None:
        raise ExceptionGroup("", [ConfigurationError(text)])

    verb(overlay_options(body))
    listening = ("try", "--overlay", "lab", "--listen", "127.0.0.1:1")
    assert run(*listening).stderr == f"opus-socket: error: --listen: {text}\n"
    assert run(*listening[:3]).stderr == f"opus-socket: error: {text}\n"


def test_the_log_goes_where_the_configuration_says(
    given_config: list[OverlayConfig], tmp_path: Path
) -> None:
    file = tmp_path / "log"
    json_lines = ("--set", "logging.format=json")
    for _ in range(2):
        result = run("try", "--overlay", "lab", "--set", f"logging.file={file}", *json_lines)
        assert (result.exit_code, result.output) == (0, "")
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [(line["event"], line["level"]) for line in lines] == [("said", "info")] * 2
    result = run("try", "--overlay", "lab", "--log-level", "debug")
    assert "event=said" in result.stderr
    assert "event=hidden" in result.stderr
    assert result.stdout == ""


def test_config_shows_values_units_and_origins_as_toml(tmp_path: Path) -> None:
    file = tmp_path / "h.toml"
    file.write_text("overlay_id = 'lab'\n[socket]\nhop_limit = 9\nread_timeout = 3\n")
    arguments = ("config", str(file), "--set", "socket.read_timeout=4", "--server", "a:1")
    result = run(*arguments)
    assert (result.exit_code, result.stderr) == (0, "")
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert f"socket.hop_limit = 9 # hops; 1\N{EN DASH}65535; {file}" in lines
    assert "socket.read_timeout = 4.0 # seconds; at least 0; --set" in lines
    assert (
        "node.delaunay.heartbeat = 1.0 # seconds; 0.1\N{EN DASH}5.0; key attribute; default"
        in lines
    )
    assert 'rendezvous.server = "a:1" # HOST:PORT; --server' in lines
    assert "socket.local_handover = true # default" in lines
    expected = OverlayConfig.load(file, {"socket.read_timeout": 4, "rendezvous.server": "a:1"})
    assert OverlayConfig.from_mapping(tomllib.loads(result.stdout)) == expected

    shown = json.loads(run(*arguments, "--json").stdout)
    assert shown["socket.hop_limit"] == {
        "value": 9,
        "unit": "hops",
        "from": str(file),
        "key_attribute": False,
    }
    assert OverlayConfig.from_mapping({k: v["value"] for k, v in shown.items()}) == expected
    assert {key for key, value in shown.items() if value["key_attribute"]} == {
        key for key, _ in expected.key_pairs()
    }


def test_config_marks_the_key_attributes_that_are_in_force() -> None:
    arguments = ("config", "--overlay", "lab", "--set", 'key_attributes=["socket.hop_limit"]')
    marked = [
        line.split(" = ")[0] for line in run(*arguments).stdout.splitlines() if "key attr" in line
    ]
    assert marked == ["socket.hop_limit"]
    shown = json.loads(run(*arguments, "--json").stdout)
    assert [key for key, value in shown.items() if value["key_attribute"]] == marked


def test_config_of_a_bad_file_is_one_line_and_2(tmp_path: Path) -> None:
    file = tmp_path / "h.toml"
    file.write_text("overlay_id = 'lab'\n[socket]\nhop_limit = 0\n")
    result = run("config", str(file))
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr == (
        f"opus-socket: error: {file}: socket.hop_limit = 0 is refused; "
        "allowed: a whole number from 1 to 65535 (hops)\n"
    )


def test_config_example_is_a_configuration() -> None:
    result = run("config", "--example")
    assert result.stdout == example_text(protocols().values(), services().values())
    assert OverlayConfig.from_mapping(tomllib.loads(result.stdout)) == OverlayConfig(
        overlay_id="lab"
    )


def test_config_of_a_protocol_with_values_that_toml_cannot_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch)
    arguments = ("config", "--overlay", "lab", "--protocol", "toy")
    lines = [" ".join(line.split()) for line in run(*arguments).stdout.splitlines()]
    assert "# node.toy.corner is not set # default" in lines
    assert 'node.toy.shape = "ring" # key attribute; default' in lines
    shown = json.loads(run(*arguments, "--json").stdout)
    assert shown["node.toy.corner"]["value"] is None
    assert shown["node.toy.shape"]["value"] == "ring"
    assert "# corner is not set." in run("config", "--example").stdout


def test_protocols_lists_those_that_work_and_those_that_do_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path / "toy", monkeypatch)
    install(
        *(tmp_path / "bad", monkeypatch),
        name="acme",
        points={"torus": "opus_torus:SPEC"},
        module="opus_torus",
        source="1 / 0",
    )
    result = run("protocols")
    assert result.exit_code == 0
    assert [line.split(":")[0] for line in result.stdout.splitlines()] == [
        "delaunay (opus-socket 0.1.0)",
        "torus (acme 1.5)",
        "toy (toy 1.5)",
    ][:1] + sorted(["torus (acme 1.5)", "toy (toy 1.5)"])
    assert (
        "torus (acme 1.5): cannot be used: opus_torus:SPEC raises ZeroDivisionError"
        in result.stdout
    )
    assert "toy (toy 1.5): a toy" in result.stdout

    listed = {entry["name"]: entry for entry in json.loads(run("protocols", "--json").stdout)}
    assert listed["torus"]["problem"].endswith("ZeroDivisionError: division by zero")
    assert listed["toy"]["problem"] is None
    assert listed["toy"]["settings"][0] == {
        "key": "node.toy.heartbeat",
        "default": 1.0,
        "unit": "seconds",
        "meaning": "how often",
        "allowed": "a number from 0.1 to 5 (seconds)",
        "key_attribute": True,
    }
