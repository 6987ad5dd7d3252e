"""Files that are recognised, but not read: one line that says what they are and what to do."""

from __future__ import annotations

import re
import tarfile
import zipfile

import numpy as np
import pytest
import torch

from model.errors import CheckpointError
from model.formats.network import load_network


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            b"\x1c\0\0\0TFL3" + bytes(99),
            "is a TensorFlow Lite network, which lrfr does not read; wrap it in a function",
        ),
        (
            b"\x1c\0\0\0ORTM" + bytes(99),
            "is a network in ONNX Runtime's own format, which lrfr does not read; name the ONNX",
        ),
        (
            b"\x89HDF\r\n\x1a\n" + bytes(99),
            "is an HDF5 file, as Keras writes, which lrfr does not read; convert it to ONNX",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "is a Git LFS pointer, not the file itself, which lrfr does not",
        ),
        (b"<!DOCTYPE html>", "is an XML or HTML page, which lrfr does not read; download the file itself"),
    ],
)
def test_a_file_of_another_format_says_what_it_is(tmp_path, content, says):
    (tmp_path / "net.bin").write_bytes(content)
    with pytest.raises(CheckpointError) as error:
        load_network(tmp_path / "net.bin")
    assert str(error.value).startswith(f"{tmp_path}/net.bin: {says}")
    assert len(str(error.value).splitlines()) == 1


def test_archives_are_to_be_unpacked(tmp_path):
    torch.save({}, tmp_path / "net.pth")
    with tarfile.open(tmp_path / "net.tar", "w") as archive:
        archive.add(tmp_path / "net.pth", "net.pth")
    with zipfile.ZipFile(tmp_path / "net.zip", "w") as archive:
        archive.write(tmp_path / "net.pth", "net.pth")
    for name, says in [
        ("net.tar", "is a tar archive, which lrfr does not read; unpack it first"),
        (
            "net.zip",
            "is a zip archive (net.pth, ...) not of torch.save, which lrfr does not read; unpack it first",
        ),
        ("net.pth", "holds no tensors by name"),
    ]:
        with pytest.raises(CheckpointError, match=f"{name}: {re.escape(says)}"):
            load_network(tmp_path / name)


def test_an_array_is_no_network(tmp_path):
    np.save(tmp_path / "net.npy", np.zeros(3))
    with pytest.raises(
        CheckpointError, match=r"is a NumPy array, which lrfr does not read; save the tensors with their"
    ):
        load_network(tmp_path / "net.npy")
