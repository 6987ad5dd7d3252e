"""A set of pictures with known faults, and an embedder that knows who is on each."""

from __future__ import annotations

import numpy as np
import pytest

from tests.benchmarks.audit.faulty import IMAGES, PEOPLE, Faulty, changed, picture


@pytest.fixture
def clean(tmp_path):
    """Thirty people, five pictures each."""
    rng, found = np.random.default_rng(0), Faulty(tmp_path)
    for person in range(PEOPLE):
        for number in range(IMAGES):
            found.add(f"n{person:03d}/{number}", person, picture(rng))
    return found


@pytest.fixture
def faulty(clean):
    """With two wrong labels, one person under two names, and a photograph twice in one name and under two names."""
    rng = np.random.default_rng(2)
    clean.add("n003/wrong", 17, picture(rng))
    clean.add("n004/stranger", 900, picture(rng))
    for number in range(IMAGES):
        clean.add(f"n005b/{number}", 5, picture(rng))
    clean.add("n006/copy", 6, changed(clean.pictures["n006/1"]))
    clean.add("n008/copy", 7, changed(clean.pictures["n007/2"]))
    return clean
