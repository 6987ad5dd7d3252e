"""Real faces are scored as outside of tests."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _as_outside(all_resamples):
    """Intervals have all their resamples; those of other tests have fewer."""
