"""Settings that every test shares: how hard hypothesis searches, and which plug-ins there are.

`ci`, the default, is derandomized, so that a run says something about the change and nothing
about luck. `deep` searches for minutes. Choose by `HYPOTHESIS_PROFILE` or by
`--hypothesis-profile`; the option wins.

Plug-ins are those that the tree under test declares. An editable install knows the entry points of
the day on which it was made, and that of another working tree knows the other's.
"""

from __future__ import annotations

import os
import sys
import tomllib
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, settings

# No deadline: the machines that run this are shared, and a slow example is no failure.
settings.register_profile("ci", derandomize=True, max_examples=50, deadline=None)
settings.register_profile(
    "deep",
    max_examples=2_000,
    stateful_step_count=100,
    deadline=None,
    # Large examples are the point of a deep search.
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_configure(config: pytest.Config) -> None:
    """Put the tree's own entry points before those that are installed."""
    made = TemporaryDirectory()
    config.add_cleanup(made.cleanup)
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    name, version = project["name"], project["version"]
    information = Path(made.name) / f"{name.replace('-', '_')}-{version}.dist-info"
    information.mkdir()
    (information / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
    )
    groups = [
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items())
        for group, points in project["entry-points"].items()
    ]
    (information / "entry_points.txt").write_text("\n".join(groups))
    sys.path.insert(0, made.name)
    # Programs that tests start are to find them, too.
    inherited = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (made.name, inherited)))
