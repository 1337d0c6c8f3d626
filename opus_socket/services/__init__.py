"""Services: machines that ride on a socket and talk to their like at other members.

Their one rule: they know the core and nothing else. A service is switched on by its table in the
configuration, found by its entry point as a third party's is, and used through its handle.

- `coding`: network coding over GF(2^8), for data flows of one's own making. What it is made of:
  `galois`, the field; `generations`, packets and how they come back; `data_flow`, which packets go
  where.
- `aggregation`: sums, means, extremes and histograms along a tree. What it is made of:
  `aggregates`, values that merge; `gathering`, one round at one member; `collecting`, what members
  say to each other.
"""

from __future__ import annotations
