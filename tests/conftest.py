"""Settings that every test shares: how hard hypothesis searches.

`ci`, the default, is derandomized, so that a run says something about the change and nothing
about luck. `deep` searches for minutes. Choose by `HYPOTHESIS_PROFILE` or by
`--hypothesis-profile`; the option wins.
"""

from __future__ import annotations

import os

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
