"""Folders in the layout of a Hugging Face repository."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from model.formats.export_huggingface import write_folder
from model.formats.network import LoadedNetwork
from tests.networks import SMALL, TRAINING, small_backbone


def write_small_folder(folder, backbone=None, *, step=7, spec=SMALL, training=TRAINING, name="spherenet4"):
    network = LoadedNetwork(
        backbone=backbone or small_backbone(),
        spec=spec,
        name=name,
        path=Path("x.pt"),
        step=step,
        digest="of the checkpoint",
        training=training,
        spec_stated=True,
    )
    return write_folder(network, folder)


@pytest.fixture(scope="module")
def _written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hf") / "net"
    write_small_folder(folder)
    return folder


@pytest.fixture
def written(_written, tmp_path):
    """A copy that the test may damage."""
    return shutil.copytree(_written, tmp_path / "net")
