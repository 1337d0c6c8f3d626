"""The wheel holds exactly the packages that pyproject.toml lists, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from house.sources import PACKAGE_NAMES, PACKAGES, PYPROJECT, ROOT

PROJECT = PYPROJECT["project"]
DIST_INFO = f"{PROJECT['name'].replace('-', '_')}-{PROJECT['version']}.dist-info"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    """The wheel, built with the hatchling that is installed here: no network is needed."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel"]
    build = subprocess.run(
        [*command, "--directory", str(folder)], cwd=ROOT, capture_output=True, text=True
    )
    assert build.returncode == 0, build.stderr
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        yield archive


def test_top_level_is_the_listed_packages(wheel: zipfile.ZipFile) -> None:
    """A shelf (`protocols`, `apps`) or `tests` at the top level would break other distributions."""
    assert {name.split("/")[0] for name in wheel.namelist()} == {*PACKAGE_NAMES, DIST_INFO}


def test_every_module_of_the_tree_is_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    expected = {
        str(file.relative_to((ROOT / package).parent))
        for package in PACKAGES
        for file in (ROOT / package).rglob("*.py")
    }
    assert {name for name in wheel.namelist() if name.endswith(".py")} == expected


def test_every_package_says_that_it_is_typed(wheel: zipfile.ZipFile) -> None:
    assert {f"{name}/py.typed" for name in PACKAGE_NAMES} <= set(wheel.namelist())


def test_every_package_is_on_its_shelf() -> None:
    """A plug-in package that was written but not listed would be missing from every install."""
    shelved = {
        str(marker.parent.relative_to(ROOT))
        for shelf in ("protocols", "apps")
        for marker in (ROOT / shelf).glob("*/__init__.py")
    }
    assert {package for package in PACKAGES if "/" in package} == shelved


def test_entry_points_and_command_are_declared(wheel: zipfile.ZipFile) -> None:
    declared = wheel.read(f"{DIST_INFO}/entry_points.txt").decode()
    assert "opus-socket = opus_socket.cli:main" in declared
    for package in PACKAGES:
        if package.startswith("protocols/"):
            assert f"= {Path(package).name}:SPEC" in declared
