"""Zenoh with shared memory as a peer: as `_zenoh`, with Zenoh's own settings for shared memory.

Its one rule: Zenoh decides. Between processes of one machine it puts messages of 3 KiB and more
into shared memory, and sends over TCP where they are.
"""

from __future__ import annotations

import functools

import _zenoh

open_sender = functools.partial(_zenoh.open_sender, shared_memory=True)
open_receiver = functools.partial(_zenoh.open_receiver, shared_memory=True)
