"""A synthetic timing for tests of tables, files and commands."""

from __future__ import annotations

import numpy as np

from benchmarks.speed.timing import Row, Timing


def timing_of(**gives):
    """A baseline, two of ours and two floors, the second of which is the faster.

    Args:
        gives: contender -> result; empty for the others.
    """
    rows = {
        "plain": ("baseline", 30, [0.2, 0.4, 0.3]),
        "slow": ("ours", 30, [0.4, 0.4, 0.6]),
        "ours": ("ours", 30, [0.1, 0.1, 0.3]),
        "decode": ("floor", 60, [0.1, 0.2, 0.2]),
        "decode2": ("floor", 60, [0.1, 0.1, 0.1]),
    }
    return Timing(
        stage="step",
        title="A step",
        unit="images",
        rows={
            name: Row(role, gives.get(name, ""), amount, np.array(seconds))
            for name, (role, amount, seconds) in rows.items()
        },
        facts={"identities": "8"},
    )
