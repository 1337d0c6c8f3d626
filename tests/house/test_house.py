"""The house rules that ruff, mypy and import-linter cannot say.

Docstrings, prints, imports and types are theirs (see pyproject.toml); sizes, maps of the rooms
and the purity of machines are checked here. A failure lists every offender.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator

import pytest

from house.machine_rules import global_chance, outside_calls, set_iterations
from house.sources import EVERYTHING, INSTALLED, MACHINES, PACKAGE_NAMES, PACKAGES, PYPROJECT

MAXIMUM_FILE = 500
MAXIMUM_FUNCTION = 70


def test_no_file_is_longer_than_500_lines() -> None:
    lengths = {source.path: source.text.count("\n") for source in EVERYTHING}
    assert {path: n for path, n in lengths.items() if n > MAXIMUM_FILE} == {}


def test_no_function_is_longer_than_70_lines() -> None:
    assert [
        f"{source.path}:{node.lineno} {node.name}"
        for source in EVERYTHING
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (node.end_lineno or node.lineno) - node.lineno + 1 > MAXIMUM_FUNCTION
    ] == []


@pytest.mark.parametrize("rule", [outside_calls, global_chance, set_iterations])
def test_machines_are_pure(rule: Callable[[ast.Module], Iterator[ast.AST]]) -> None:
    """A machine's behavior follows from its inputs alone (architecture: machine and driver)."""
    assert [
        f"{source.path}:{getattr(node, 'lineno', 0)}"
        for source in MACHINES
        for node in rule(source.tree)
    ] == []


@pytest.mark.parametrize(
    ("rule", "offense"),
    [
        (outside_calls, "open('x')"),
        (global_chance, "import random\nrandom.random()"),
        (global_chance, "from random import choice"),
        (set_iterations, "for x in {1, 2}: pass"),
        (set_iterations, "def f(s: set[int]):\n    return [x for x in s]"),
        (
            set_iterations,
            "class C:\n    s: set[int]\n    def f(self):\n        return tuple(self.s)",
        ),
        (set_iterations, "def f(s: frozenset[int], t: list[int]):\n    return [*(s | set(t))]"),
    ],
)
def test_rules_of_machines_see_an_offense(
    rule: Callable[[ast.Module], Iterator[ast.AST]], offense: str
) -> None:
    assert len(list(rule(ast.parse(offense)))) == 1


@pytest.mark.parametrize(
    ("rule", "innocent"),
    [
        (outside_calls, "def f(door): return door.open()"),
        (global_chance, "import random\ndef f(chance: random.Random): return chance.random()"),
        (set_iterations, "def f(s: set[int]):\n    return sorted(s), sum(x for x in s), len(s)"),
        (set_iterations, "def f(s: list[int]):\n    return [x for x in s]"),
        (set_iterations, "def f(s: set[int]):\n    return {x + 1 for x in s}"),
    ],
)
def test_rules_of_machines_pass_the_innocent(
    rule: Callable[[ast.Module], Iterator[ast.AST]], innocent: str
) -> None:
    assert list(rule(ast.parse(innocent))) == []


def test_every_package_maps_its_rooms() -> None:
    """The docstring of a package names each of its rooms: a newcomer starts there."""
    suffix = "/__init__.py"
    packages = [s.path.removesuffix(suffix) for s in INSTALLED if s.path.endswith(suffix)]
    assert set(PACKAGES) < set(packages)
    assert [
        f"{package}{suffix} does not name {room}"
        for package in packages
        for room in _rooms(package)
        if room not in re.findall(r"\w+", _docstring(f"{package}{suffix}"))
    ] == []


def test_import_contracts_name_every_room() -> None:
    """A room outside the layers could import what it likes, and import-linter would not see it."""
    layers = PYPROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    layered = set(re.findall(r"[\w.]+", " ".join(layers)))
    rooms = {f"opus_socket.{room}" for room in _rooms("opus_socket")}
    assert rooms | (PACKAGE_NAMES - {"opus_socket"}) <= layered


def _docstring(path: str) -> str:
    (tree,) = (source.tree for source in INSTALLED if source.path == path)
    return ast.get_docstring(tree) or ""


def _rooms(folder: str) -> list[str]:
    """Public modules and packages directly in the folder."""
    inside = [
        source.path.removeprefix(f"{folder}/").removesuffix("/__init__.py").removesuffix(".py")
        for source in INSTALLED
        if source.path.startswith(f"{folder}/")
    ]
    rooms = [room for room in inside if "/" not in room and not room.startswith("_")]
    return [room for room in rooms if room != "__init__.py"]
