"""Folders in the layout of a Hugging Face repository."""

from __future__ import annotations

import shutil

import pytest

from tests.networks import write_small_folder


@pytest.fixture(scope="module")
def _written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf") / "net"
    write_small_folder(folder)
    return folder


@pytest.fixture
def written(_written, tmp_path):
    """A copy that the test may damage."""
    return shutil.copytree(_written, tmp_path / "net")
