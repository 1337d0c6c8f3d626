"""The project's own source text, parsed once for the tests of the house rules.

The one rule: what counts as ours is read from `pyproject.toml`, so a new package is under the
rules as soon as it is installed.
"""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).resolve().parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Folders of the installed packages, relative to the root: "opus_socket", "protocols/opus_...".
PACKAGES: tuple[str, ...] = tuple(
    PYPROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
)
PACKAGE_NAMES = frozenset(Path(package).name for package in PACKAGES)
# Rooms whose modules are machines: no I/O, no clock, no chance but what they are given.
MACHINE_ROOMS = ("opus_socket/core/", "opus_socket/services/", "protocols/")


@frozen
class Source:
    """One Python file: its path relative to the root, its text, its syntax tree."""

    path: str
    text: str
    tree: ast.Module

    @property
    def is_machine(self) -> bool:
        """Whether the rules of machines hold here."""
        return self.path.startswith(MACHINE_ROOMS)


def sources(*folders: str) -> tuple[Source, ...]:
    """Every Python file below the folders, in the order of their paths."""
    files = sorted(file for folder in folders for file in (ROOT / folder).rglob("*.py"))
    return tuple(
        Source(str(file.relative_to(ROOT)), text := file.read_text(), ast.parse(text))
        for file in files
    )


INSTALLED = sources(*PACKAGES)
MACHINES = tuple(source for source in INSTALLED if source.is_machine)
EVERYTHING = (*INSTALLED, *sources("tests", "benchmarks"))
