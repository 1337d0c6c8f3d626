"""Memory that comes and goes by the megabyte.

Its one rule: what is needed again at once is not given back meanwhile. The GNU C library gives free
memory at the end of the heap back to the system as soon as there are 128 KiB of it, or twice the
longest block that it has ever mapped by itself and freed. Messages of 16 KiB that come, are taken
and are forgotten would be faulted in again page by page, which costs as much as all the rest of
their way. Where another library is in use this does nothing.

Source: mallopt(3), M_MMAP_THRESHOLD and M_TRIM_THRESHOLD.
"""

from __future__ import annotations

LONGEST_FREED = 1 << 22
"""Bytes of a block that is freed once; twice as much free memory is kept from then on."""


def keep_freed_memory() -> None:
    """Let this process keep some megabytes of memory that it has freed."""
    bytes(LONGEST_FREED)
