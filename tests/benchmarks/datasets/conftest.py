"""The pairs of LFW as lists of a user's own pairs."""

from __future__ import annotations

import pytest

from benchmarks.datasets.lfw import read_lfw


@pytest.fixture(scope="module")
def lfw(_demo):
    return _demo / "LFW"


@pytest.fixture(scope="module")
def rows(lfw):
    """(first, second, genuine, fold) of LFW's pairs; paths below lfw/."""
    found = read_lfw(lfw)
    names = [str(request.path.relative_to(lfw / "lfw")) for request in found.requests]
    pairs = found.members["{}@128"].tolist()
    return [
        (names[first], names[second], int(same), int(fold))
        for (first, second), same, fold in zip(pairs, found.genuine, found.folds, strict=True)
    ]
