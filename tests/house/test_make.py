"""`make help` is the overview of what can be made: every target, one line each."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_help_has_a_line_for_every_target_and_no_other() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout
    text = (ROOT / "Makefile").read_text()
    declared = re.findall(r"^\.PHONY: (.*)$", text, re.MULTILINE)[0].split()
    explained = dict(re.findall(r"^make (\S+) +(\S.*)$", shown, re.MULTILINE))
    assert explained.keys() == set(declared)
    assert all(re.search(rf"^{target}:", text, re.MULTILINE) for target in declared)
