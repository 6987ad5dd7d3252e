"""Data sets of generated faces for the benchmarks, and embedders without a network."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from benchmarks import BENCHMARKS
from pipeline.demo.generate import write_demo_data
from tests.benchmarks.runs import score


@pytest.fixture(scope="session")
def _demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    write_demo_data(out, identities=16, images=4, seed=0)
    return out


@pytest.fixture
def demo(_demo, tmp_path):
    """``demo("LFW")`` copies a data set, which the test may damage, and returns its folder."""

    def copy(name):
        return Path(shutil.copytree(_demo / name, tmp_path / name, dirs_exist_ok=True))

    return copy


@pytest.fixture(scope="session")
def results(_demo):
    """The results of all benchmarks on generated faces, with intervals."""
    return {name: score(name, _demo / benchmark.folder, intervals=True) for name, benchmark in BENCHMARKS.items()}
