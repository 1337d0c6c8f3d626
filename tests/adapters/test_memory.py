"""Messages come and go without the system's help."""

from __future__ import annotations

import subprocess
import sys

PAGES_OF_A_MESSAGE = 4
PROGRAM = """
import resource
from opus_socket.adapters.memory import keep_freed_memory

keep_freed_memory()

def take(reads):
    for _ in range(reads):
        kept = [bytes(16_300) + b"!" for _ in range(64)]

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

take(20)
before = faults()
take(200)
print((faults() - before) / (200 * 64))
"""


def test_memory_of_messages_is_used_again() -> None:
    """Pages that a message needs are most often there already."""
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, check=True, text=True, timeout=60
    )
    assert float(run.stdout) < PAGES_OF_A_MESSAGE / 4
