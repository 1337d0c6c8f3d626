"""Third parties' distributions, made in a folder: what an installer leaves behind, and no more.

The one rule: they are found as every installed distribution is, through `sys.path`.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

TOY = """\
from __future__ import annotations

from enum import Enum

from attrs import field, frozen

from opus_socket.core.node import ProtocolSpec
from opus_socket.core.settings import setting


class Shape(Enum):
    RING = "ring"
    STAR = "star"


@frozen
class ToySettings:
    heartbeat: float = setting(
        1.0, unit="seconds", minimum=0.1, maximum=5, key=True, meaning="how often"
    )
    shape: Shape = setting(Shape.RING, meaning="what it builds", key=True)
    corner: tuple[int, int] | None = setting(None, meaning="where it stands")
    plain: int = field(
        default=3,
        metadata={"unit": "members", "meaning": "made without setting()", "minimum": 0},
    )


def create(context, settings):
    raise AssertionError("the toy is looked at, and nobody joins by it")


SPEC = ProtocolSpec("toy", "a toy", 1, ToySettings, (), create)
"""


def install(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    *,
    name: str = "toy",
    points: Mapping[str, str] | None = None,
    group: str = "opus_socket.protocols",
    module: str = "opus_toy",
    source: str = TOY,
) -> None:
    """Make a distribution in `folder` and put the folder on `sys.path` for one test.

    Args:
        points: entry points of the group.
        module, source: the one module that it installs.
    """
    information = folder / f"{name}-1.5.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.5\n")
    declared = points or {"toy": f"{module}:SPEC"}
    lines = "".join(f"{point} = {value}\n" for point, value in declared.items())
    (information / "entry_points.txt").write_text(f"[{group}]\n{lines}")
    (folder / f"{module}.py").write_text(source)
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, module, raising=False)
