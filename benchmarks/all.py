"""Every benchmark, one after the other, each in its own process, with the peers that there are.

Its one rule: it measures nothing itself; what each program does, its docstring says.

    python benchmarks/all.py [--quick] [--json] [--out FILE]

A full run makes medians of five; a quick one runs everything once, short and small, in under five
minutes: its figures say that all works, and little more.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from _common import Printer

FOLDER = Path(__file__).parent
FULL: Sequence[Sequence[str]] = (
    ("latency.py", "--peers"),
    ("throughput.py", "--peers"),
    ("fan_out.py", "--peers"),
    ("chain.py", "--peers"),
    ("join.py", "--members", "32", "--runs", "5", "--peers"),
    ("join.py", "--members", "1000", "--runs", "5", "--peers"),
    ("join.py", "--members", "10000"),
    ("join.py", "--members", "10000", "--shared"),
    ("join.py", "--members", "10000", "--handover"),
    ("slow_receiver.py", "--peers"),
    ("all_to_all.py",),
    ("idle.py", "--peers"),
    ("emulation.py",),
    ("butterfly.py",),
    ("coding.py",),
)
SHORT = ("--runs", "1", "--seconds", "0.1")
QUICK: Sequence[Sequence[str]] = (
    ("latency.py", "--peers", "--runs", "1", "--trips", "300"),
    ("throughput.py", "--peers", *SHORT, "--size", "64", "16384"),
    ("fan_out.py", "--peers", *SHORT, "--receivers", "8", "64"),
    ("chain.py", "--peers", *SHORT, "--nodes", "2", "8"),
    ("join.py", "--members", "32", "--peers"),
    ("join.py", "--members", "1000"),
    ("slow_receiver.py", "--peers", "--runs", "1", "--seconds", "1"),
    ("all_to_all.py", "--seconds", "3"),
    ("idle.py", "--runs", "1", "--seconds", "2", "--members", "200", "--peers"),
    ("emulation.py", "--quick"),
    ("butterfly.py", "--quick"),
    ("coding.py", "--quick"),
)


def main() -> None:
    """Run them, and print what they print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="once each, short and small")
    parser.add_argument("--json", action="store_true", help="one object a measurement")
    parser.add_argument("--out", type=Path, help="a file for those objects, too")
    given = parser.parse_args()
    failed: list[str] = []
    out = given.out.open("w") if given.out else None
    for arguments in QUICK if given.quick else FULL:
        started = time.monotonic()
        printer = Printer(given.json)
        # Standard error is for people: it shows what goes on, also where JSON is wanted.
        print("==", *arguments, file=sys.stderr, flush=True)
        command = [sys.executable, str(FOLDER / arguments[0]), "--json", *arguments[1:]]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                printer.add_row(json.loads(line))
                if out is not None:
                    print(line, end="", file=out, flush=True)
        printer.finish()
        print(f"   {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        if process.returncode:
            failed.append(arguments[0])
    if out is not None:
        out.close()
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
