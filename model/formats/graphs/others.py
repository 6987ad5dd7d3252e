"""Formats that are recognised only to say what to do with them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NoReturn

from model.errors import CheckpointError
from model.formats.graphs.script import member_names
from pipeline.spec import Preprocessing
from shards.messages import printable

_TORCH = re.compile(r"(?:^|/)data\.pkl$|\.json$|(?:^|/)archive_format$")  # of torch.save, torch.jit and torch.export
_WRAP = "wrap it in a function of your own, --network module:function, as examples/tflite_network.py does"
_ONNX = "convert it to ONNX, or load it in a function of your own, --network module:function"
_STARTS = (  # offset, bytes, what it is, what to do
    (4, b"TFL3", "a TensorFlow Lite network", _WRAP),
    (4, b"ORTM", "a network in ONNX Runtime's own format", "name the ONNX file that it was made from"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes", _ONNX),
    (0, b"\x93NUMPY", "a NumPy array", "save the tensors with their names: torch.save(network.state_dict(), ...)"),
    (0, b"ptrt", "a TensorRT engine", "name the ONNX file that it was made from"),
    (0, b"ftrt", "a TensorRT engine", "name the ONNX file that it was made from"),
    (0, b"GGUF", "a GGUF file", _ONNX),
    (0, b"\x12\x01\0\0\0\0\0\0", "an MXNet parameter file", _ONNX),
    (0, b"PAR1", "a Parquet file", "it is not a network; expected a checkpoint, a state dict or ONNX"),
    (0, b"\xff\xd8\xff", "a JPEG image", "it is not a network; expected a checkpoint, a state dict or ONNX"),
    (0, b"\x89PNG", "a PNG image", "it is not a network; expected a checkpoint, a state dict or ONNX"),
    (0, b"version https://git-lfs", "a Git LFS pointer, not the file itself", "run: git lfs pull"),
    (0, b"<", "an XML or HTML page", "download the file itself; OpenVINO: name the ONNX file that it was made from"),
    (0, b"\x1f\x8b", "packed by gzip", "unpack it first"),
)


def is_other(path: Path) -> bool:
    """Whether a file has a format that is known, but not read."""
    return _kind(path) is not None


def refuse_other(path: Path, given: Preprocessing | None) -> NoReturn:
    """Raises: CheckpointError: always, with what the file is and what to do."""
    what, remedy = _kind(path) or ("of another format", _ONNX)
    raise CheckpointError(f"{path}: is {what}, which lrfr does not read; {remedy}")


def _kind(path: Path) -> tuple[str, str] | None:
    try:
        if not path.is_file():
            return None
        with open(path, "rb") as stream:
            data = stream.read(512)
    except OSError:
        return None
    if data[257:262] == b"ustar":
        return "a tar archive", "unpack it first"
    if data.startswith(b"PK") and (names := member_names(path)) and not any(_TORCH.search(name) for name in names):
        return f"a zip archive ({printable(names[0][:40])}, ...) not of torch.save", "unpack it first"
    return next(((what, remedy) for offset, start, what, remedy in _STARTS if data[offset:].startswith(start)), None)
