"""The results of all benchmarks on generated faces."""

from __future__ import annotations

import pytest

from benchmarks import BENCHMARKS
from tests.benchmarks.conftest import score


@pytest.fixture(scope="package")
def results(_demo):
    """Results by benchmark, with intervals."""
    return {name: score(name, _demo / benchmark.folder, intervals=True) for name, benchmark in BENCHMARKS.items()}
