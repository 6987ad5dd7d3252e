"""Sorting in bounded memory."""

from __future__ import annotations

import numpy as np
import pytest

from pipeline.counting_sort import counting_sort


@pytest.mark.parametrize("chunk", [1, 7, 1 << 20])
def test_positions_are_sorted_as_by_a_stable_sort(monkeypatch, chunk):
    monkeypatch.setattr("pipeline.counting_sort.CHUNK", chunk)
    values = np.random.default_rng(1).choice([0, 1, 3, 4], 100).astype(np.int32)
    positions, bounds = counting_sort(values, 6)
    assert positions.dtype == np.int32
    assert positions.tolist() == np.argsort(values, kind="stable").tolist()
    assert bounds.tolist() == [0, *np.cumsum(np.bincount(values, minlength=6)).tolist()]
    assert counting_sort(values[:0], 0)[1].tolist() == [0]
    given = np.random.default_rng(2).permutation(100)[:70]
    positions, bounds = counting_sort(values, 6, given)
    assert positions.tolist() == given[np.argsort(values[given], kind="stable")].tolist()
    assert bounds.tolist() == [0, *np.cumsum(np.bincount(values[given], minlength=6)).tolist()]
