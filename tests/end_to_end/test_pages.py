"""Pages of the documentation do what they say: their programs run as they stand, alone, and print
what the page shows behind each.

Its one rule: every program of these pages is run, in a process of its own.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from end_to_end.processes import TIMEOUT

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ("services.md", "simulation.md")
PROGRAM = re.compile(r"^```python\n(.*?)^```\n\n^```text\n(.*?)^```$", re.M | re.S)
PROGRAMS = [
    pytest.param(*program, id=f"{page} {number}")
    for page in PAGES
    for number, program in enumerate(PROGRAM.findall((DOCS / page).read_text()), start=1)
]


def test_every_program_shows_what_it_prints() -> None:
    fences = sum((DOCS / page).read_text().count("```python\n") for page in PAGES)
    assert len(PROGRAMS) == fences >= len(PAGES)


@pytest.mark.parametrize(("program", "output"), PROGRAMS)
def test_a_program_prints_what_the_page_shows(program: str, output: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, timeout=TIMEOUT, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == output


@pytest.mark.parametrize("page", sorted(path.name for path in DOCS.glob("*.md")))
def test_links_lead_to_files(page: str) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", (DOCS / page).read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (DOCS / target).exists()] == []
