"""ONNX files, run by ONNX Runtime: layout, type, size and batch are read from the graph."""

from __future__ import annotations

import dataclasses
import importlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch

from model.errors import CheckpointError, import_optional, one_line
from model.formats.graphs.found import FoundGraph, check_batch, choose_spec, squeezed
from model.formats.graphs.modules import NamedGraph
from model.formats.huggingface import has_safetensors_header
from model.graph import file_hash
from model.inputs import denormalise
from pipeline.spec import Preprocessing, SpecError
from shards.messages import counted, print_stderr, printable

FIRST_BYTE = b"\x08"  # of the field that every ONNX file begins with, and of one in 32 safetensors
CHANNELS = 3
MAX_BYTES = 1 << 31  # protobuf's limit
_CUDA = "CUDAExecutionProvider"
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft")  # whose operators ONNX Runtime has
_TYPES: dict[str, type[np.generic]] = {
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(uint8)": np.uint8,
}
_EXPECTED = "expected one input (N, 3, S, S) or (N, S, S, 3) of float32, float16 or uint8"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Input:
    """The input of a graph.

    Attributes:
        name: of the input.
        dtype: of its numbers; uint8 are pixels as they are.
        channels_last: (N, S, S, 3) instead of (N, 3, S, S).
        size: S; None: any.
        batch: N; None: any.
    """

    name: str
    dtype: type[np.generic]
    channels_last: bool
    size: int | None
    batch: int | None


def is_onnx(path: Path) -> bool:
    """Whether a file is an ONNX file, or should be one."""
    if path.suffix.lower() == ".onnx":
        return True
    try:
        if not path.is_file():  # a pipe would block
            return False
        with open(path, "rb") as stream:
            return stream.read(1) == FIRST_BYTE and not has_safetensors_header(path)
    except OSError:
        return False


def read_onnx(path: Path, given: Preprocessing | None) -> FoundGraph:
    """Opens an ONNX file. Our own exports state their preprocessing, backbone and step.

    Raises:
        CheckpointError: it cannot be read or run, or is not a network from faces to embeddings.
        ExportError: a package is missing.
    """
    content = b"".join(map(file_hash, [path, *check_model(path)]))
    session = open_session(path, "cpu")
    metadata = session.get_modelmeta().custom_metadata_map
    inputs, stated = _input(path, session.get_inputs()), _stated_spec(path, metadata)
    if stated is None:
        spec = choose_spec(path, inputs.size, given, expected=_shape(session.get_inputs()[0]))
    elif inputs.size in (None, stated.size):
        spec = stated
    else:
        raise CheckpointError(
            f"{path}: takes {inputs.size} px, but its metadata state {stated.size} px; export it again"
        )
    check_batch(path, inputs.batch, spec.size)
    prepared = spec if given is None else given.resized(spec.size)
    module = OnnxGraph(path, session, inputs, prepared, content=content, takes_rgb=stated is not None)
    module.find_output(spec.size)
    step = metadata.get("step", "") if stated else ""
    return FoundGraph(
        module=module,
        name=(stated and printable(metadata.get("backbone", "")[:80])) or "onnx",
        spec=spec,
        stated=stated is not None,
        step=int(step) if step.isdecimal() and len(step) < 13 else None,
    )


class OnnxGraph(NamedGraph):
    """A session of ONNX Runtime as a module: pixels, prepared by the spec -> embeddings.

    Args:
        session: on the CPU.
        content: hashes of the file and of those with its weights.
        takes_rgb: a graph of uint8 pixels takes them in the order RGB, whatever the spec says.
    """

    def __init__(
        self, path: Path, session: Any, inputs: Input, spec: Preprocessing, *, content: bytes, takes_rgb: bool
    ) -> None:
        super().__init__(path, content, inputs.batch)
        self._sessions, self._input, self._spec, self._takes_rgb = {"cpu": session}, inputs, spec, takes_rgb

    def outputs(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        names = [output.name for output in self._sessions["cpu"].get_outputs()]
        return dict(zip(names, self._run(pixels, names), strict=True))

    def run(self, pixels: torch.Tensor) -> torch.Tensor:
        (found,) = self._run(pixels, [self._output])  # the others need not be computed
        return found.float().to(pixels.device)

    def _array(self, pixels: torch.Tensor) -> np.ndarray:
        """The graph's input."""
        if self._input.dtype is np.uint8:
            spec = self._spec
            pixels = denormalise(pixels, spec.mean, spec.std, color=spec.color if self._takes_rgb else "RGB")
        else:
            pixels = pixels.float().permute(0, 2, 3, 1)
        array = pixels.cpu().numpy()
        return np.ascontiguousarray(
            array if self._input.channels_last else array.transpose(0, 3, 1, 2), self._input.dtype
        )

    def _run(self, pixels: torch.Tensor, outputs: list[str]) -> list[torch.Tensor]:
        device = str(pixels.device)
        if device not in self._sessions:
            self._sessions[device] = open_session(self._path, device)
        try:
            found = self._sessions[device].run(outputs, {self._input.name: self._array(pixels)})
        except _errors() as error:
            images = counted(len(pixels), "image")
            raise CheckpointError(
                f"{self._path}: ONNX Runtime cannot run it on {images} ({one_line(error)}); export it again"
            ) from None
        return [squeezed(torch.from_numpy(np.atleast_1d(value))) for value in found]


def check_model(path: Path) -> list[Path]:
    """Validates a file before ONNX Runtime opens it.

    Returns:
        The files beside it that hold its weights.

    Raises:
        CheckpointError: it is damaged, or has weights outside its folder, or operators that ONNX has not.
    """
    onnx, protobuf = import_optional("onnx"), import_optional("google.protobuf.message")
    if not path.is_file():
        raise CheckpointError(
            f"{path}: {'not a regular file' if path.exists() else 'not found'}; expected an ONNX file"
        )
    if path.stat().st_size > MAX_BYTES:
        raise CheckpointError(f"{path}: {path.stat().st_size:,} bytes, expected at most {MAX_BYTES:,} in an ONNX file")
    try:
        model = onnx.load(path, load_external_data=False)
    except (protobuf.DecodeError, ValueError) as error:
        raise CheckpointError(
            f"{path}: damaged or not ONNX ({one_line(error)}); restore it, or export it again"
        ) from None
    folder = Path(os.path.realpath(path)).parent
    places = _external_places(model)
    for place in places:
        target = folder / place
        if not Path(os.path.realpath(target)).is_relative_to(folder):
            raise CheckpointError(f"{path}: refused: its weights are in {printable(place[:80])}, outside its folder")
        if not target.is_file():
            raise CheckpointError(f"{path}: its weights are in {printable(place[:80])}, which is not there; restore it")
    known = {*_DOMAINS, *(function.domain for function in model.functions)}
    if unknown := sorted({node.domain for node in model.graph.node} - known):
        raise CheckpointError(
            f"{path}: has operators of {printable(unknown[0][:80])}, which ONNX Runtime has not; export it without them"
        )
    return [folder / place for place in places]


def _external_places(model: Any) -> list[str]:
    """The files that hold tensors of a model, as it names them."""
    helper = importlib.import_module("onnx.external_data_helper")
    places, messages = set(), [model]
    while messages:
        message = messages.pop()
        if message.DESCRIPTOR.name == "TensorProto":
            if helper.uses_external_data(message):
                places |= {entry.value for entry in message.external_data if entry.key == "location"}
            continue
        for field, value in message.ListFields():
            if field.message_type is not None:
                messages += [value] if hasattr(value, "DESCRIPTOR") else list(value)
    return sorted(places)


def open_session(path: Path, device: str) -> Any:
    """A session of ONNX Runtime with PyTorch's number of threads, on ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        CheckpointError: it cannot be opened.
    """
    runtime = import_optional("onnxruntime")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    # on a busy machine spinning takes cores from work
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    place = torch.device(device)
    providers: list[str | tuple[str, dict[str, int]]] = ["CPUExecutionProvider"]
    if place.type == "cuda" and _CUDA in runtime.get_available_providers():
        providers.insert(0, (_CUDA, {"device_id": place.index or 0}))
    try:
        session = runtime.InferenceSession(path, options, providers=providers)
    except _errors() as error:
        raise CheckpointError(f"{path}: ONNX Runtime cannot open it ({one_line(error)}); export it again") from None
    # not the build for GPUs, or without its libraries
    if place.type == "cuda" and _CUDA not in session.get_providers():
        print_stderr(f"{path}: this ONNX Runtime has no {_CUDA}: it runs on the CPU")
    return session


def _errors() -> tuple[type[Exception], ...]:
    """What ONNX Runtime raises: its own errors have no common base."""
    state = importlib.import_module("onnxruntime.capi.onnxruntime_pybind11_state")
    own = [value for value in vars(state).values() if isinstance(value, type) and issubclass(value, Exception)]
    return (*own, RuntimeError, ValueError, MemoryError)


def _input(path: Path, inputs: list[Any]) -> Input:
    """Raises: CheckpointError: the graph takes something else than a batch of images."""
    if len(inputs) != 1:
        names = ", ".join(f"{printable(one.name[:40])} {_shape(one)}" for one in inputs[:4])
        raise CheckpointError(f"{path}: has {len(inputs)} inputs ({names}), {_EXPECTED}")
    (one,) = inputs
    shape, dtype = one.shape, _TYPES.get(one.type)
    found = f"{path}: takes {printable(one.name[:40])} {_shape(one)} of {one.type.removeprefix('tensor(').rstrip(')')}"
    channels_last = len(shape) == 4 and shape[3] == CHANNELS and shape[1] != CHANNELS
    if dtype is None or len(shape) != 4 or not (channels_last or shape[1] == CHANNELS):
        raise CheckpointError(f"{found}, {_EXPECTED}")
    sides = {side for side in (shape[1:3] if channels_last else shape[2:]) if isinstance(side, int)}
    if len(sides) > 1:
        raise CheckpointError(f"{found}: its images are not square, {_EXPECTED}")
    batch = shape[0] if isinstance(shape[0], int) else None
    return Input(
        name=one.name, dtype=dtype, channels_last=channels_last, size=sides.pop() if sides else None, batch=batch
    )


def _shape(value: Any) -> str:
    """The shape of an input: ``(N, 3, 112, 112)``, with N for what a graph leaves open."""
    names = ("N", *["S"] * len(value.shape))
    sides = [str(side) if isinstance(side, int) else name for name, side in zip(names, value.shape, strict=False)]
    return f"({', '.join(sides)})"


def _stated_spec(path: Path, metadata: dict[str, str]) -> Preprocessing | None:
    """The preprocessing in the metadata of our own exports. Raises: CheckpointError: it is damaged."""
    if "preprocessing" not in metadata or "digest" not in metadata:
        return None
    try:
        return Preprocessing.from_dict(json.loads(metadata["preprocessing"]))
    except (SpecError, TypeError, ValueError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: its metadata state no preprocessing ({one_line(error, 200)}); export it again"
        ) from None
