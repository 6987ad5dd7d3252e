"""Training sets without landmarks, of generated faces."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pipeline.demo.generate import write_demo_data
from tests.pipeline.build.unaligned import IMAGES, PEOPLE, SETS


@pytest.fixture(scope="session")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("unaligned")
    write_demo_data(out, identities=2 * PEOPLE, images=IMAGES, seed=3, layouts=[folder for folder, _ in SETS.values()])
    return out


@pytest.fixture
def training(demo, tmp_path):
    """QMUL-SurvFace's training set of generated faces, a copy that a test can change."""
    return Path(shutil.copytree(demo / "QMUL-SurvFace" / "training_set", tmp_path / "training_set"))
