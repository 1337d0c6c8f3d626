"""The README does what it says: its blocks run as they stand, only the ports are free ones.

Its one rule: a block that no test knows how to run is a failure.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest
from attrs import frozen
from click.testing import CliRunner

from end_to_end.conftest import Start
from end_to_end.processes import COMMAND, TIMEOUT, Running, free_port
from opus_socket import OverlayConfig
from opus_socket.cli import VERBS, main

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


@frozen
class Block:
    """A fenced block.

    Attributes:
        language: what its fence says.
        text: its lines.
    """

    language: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """The words of each line."""
        lines = (shlex.split(line, comments=True) for line in self.text.splitlines())
        return [line for line in lines if line]

    @property
    def kind(self) -> str:
        """Which test runs it."""
        if self.language != "sh":
            return self.language
        first, *rest = self.commands[-1]
        return first if first != "opus-socket" else "terminals" if rest[0] == "cat" else "verb"

    def __str__(self) -> str:
        return " ".join(self.commands[-1]) if self.language == "sh" else self.language


BLOCKS = [Block(*match) for match in re.findall(r"^```(\w*)\n(.*?)^```$", README, re.M | re.S)]


def blocks(kind: str) -> list[Block]:
    found = [block for block in BLOCKS if block.kind == kind]
    assert found, f"the README has no block for {kind}"
    return found


def with_free_ports(text: str) -> str:
    """The same text with another port for each port, wherever it stands."""
    ports = {port: str(free_port()) for port in re.findall(r":(\d{4,5})\b", text)}
    return re.sub(r":(\d{4,5})\b", lambda match: f":{ports[match[1]]}", text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where commands run: with the README's configuration, as it tells."""
    (configuration,) = blocks("toml")
    (tmp_path / "hypercast.toml").write_text(configuration.text)
    return tmp_path


def test_every_block_is_run_by_a_test() -> None:
    assert {block.kind for block in BLOCKS} == {"make", "terminals", "python", "toml", "verb"}


@pytest.mark.parametrize("block", blocks("make"), ids=str)
def test_make_knows_what_the_readme_asks_of_it(block: Block) -> None:
    for words in block.commands:
        subprocess.run(
            [*words, "--dry-run"], cwd=ROOT, check=True, timeout=TIMEOUT, stdout=subprocess.DEVNULL
        )


@pytest.mark.parametrize("block", blocks("terminals"), ids=str)
def test_what_is_typed_in_one_terminal_is_printed_in_the_others(start: Start, block: Block) -> None:
    members: list[Running] = []
    for program, *arguments in Block("sh", with_free_ports(block.text)).commands:
        assert program == "opus-socket"
        process = start(*arguments)
        if arguments[0] == "cat":
            assert process.joins().neighbors == len(members)
            members.append(process)
        else:
            process.logs("listens")
    assert len(members) == 2
    for number, typist in enumerate(members):
        typist.type(f"from terminal {number}")
        for other in members:
            if other is not typist:
                other.prints(f"\tfrom terminal {number}$")


@pytest.mark.parametrize("block", blocks("python"), ids=str)
def test_the_program_talks_to_a_cat(launch: Start, start: Start, block: Block) -> None:
    text = with_free_ports(block.text)
    server = re.search(r'"server": "(\S+)"', text)
    overlay = re.search(r'overlay_id="(\w+)"', text)
    assert server
    assert overlay
    start("rendezvous", "--listen", server[1]).logs("listens")
    cat = start("cat", "--overlay", overlay[1], "--server", server[1])
    here = cat.joins().address
    program = launch(sys.executable, "-u", "-c", text)
    there = cat.prints("^([0-9,]+)\thello$")[1].decode()
    cat.type("hi")
    program.prints(f"^{here} b'hi' MULTICAST$")
    cat.prints(f"^{there}\tjust you$")
    words = here.replace(",", ", ")
    program.prints(rf"^{there} \(\({words}\),\)$")
    assert program.ends() == 0
    assert program.err.all == []


@pytest.mark.parametrize("block", blocks("toml"), ids=str)
def test_the_configuration_is_one(block: Block) -> None:
    config = OverlayConfig.from_mapping(tomllib.loads(block.text))
    assert config != OverlayConfig(overlay_id=config.overlay_id)


@pytest.mark.parametrize("block", blocks("verb"), ids=str)
def test_a_verb_ends_with_what_was_asked(folder: Path, block: Block) -> None:
    for program, *arguments in block.commands:
        assert program == "opus-socket"
        done = subprocess.run(
            [*COMMAND, *arguments], cwd=folder, capture_output=True, timeout=TIMEOUT, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout


def test_options_and_verbs_that_the_text_names_exist() -> None:
    text = re.sub(r"^```.*?^```$", "", README, flags=re.M | re.S)
    for name in re.findall(r"`(--[a-z-]+)", text):
        assert any(name in help_of(verb) for verb in ("", *VERBS)), name
    for verb in re.findall(r"`opus-socket ([a-z]+)", text):
        assert "Usage" in help_of(verb)


def test_links_lead_to_files() -> None:
    targets = re.findall(r"\]\(([^)]+)\)", README)
    local = [target for target in targets if "://" not in target]
    assert local
    assert [target for target in local if not (ROOT / target).exists()] == []


@cache
def help_of(verb: str) -> str:
    """What a verb says of itself; the command, of its verbs."""
    result = CliRunner().invoke(main, [*filter(None, [verb]), "--help"])
    assert result.exit_code == 0
    return result.stdout
