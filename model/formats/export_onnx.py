"""ONNX export: one file with a dynamic batch, compared with PyTorch before it is written."""

from __future__ import annotations

import dataclasses
import logging
import threading
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from model.errors import ExportError, import_optional
from model.formats.network import LoadedNetwork
from model.inputs import normalise
from pipeline.spec import Preprocessing
from shards.arguments import check_argument, check_path
from shards.files import StrPath, whole_file
from shards.process_setting import ProcessSetting, ignored_warnings

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 18
BATCH_SIZES = (1, 3, 64)  # compared with PyTorch
TOLERANCE = 1e-4  # largest difference, relative to PyTorch's largest absolute value
MIN_COSINE = 0.99999
MAX_WEIGHT_BYTES = 2**31 - 2**20  # protobuf's limit of 2 GiB, less room for the graph
_EXPORTING = threading.Lock()  # PyTorch exports one network at a time


class ImageEmbedder(nn.Module):
    """Normalisation before and after a backbone: (N, S, S, 3) uint8 RGB -> (N, D) float32 of unit length."""

    def __init__(self, backbone: nn.Module, spec: Preprocessing) -> None:
        super().__init__()
        self._backbone, self._spec = backbone, spec

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self._backbone(_normalised(images, self._spec)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parity:
    """Difference between ONNX Runtime and PyTorch on one batch.

    Attributes:
        batch: number of images.
        difference: largest absolute difference of two values.
        scale: largest absolute value of PyTorch.
        cosine: lowest cosine of the two embeddings of an image.
    """

    batch: int
    difference: float
    scale: float
    cosine: float

    @property
    def close(self) -> bool:
        """Whether both measures are within tolerance; False if one is NaN."""
        return self.difference <= TOLERANCE * self.scale and self.cosine >= MIN_COSINE

    def __str__(self) -> str:
        return f"batch {self.batch}: largest difference {self.difference:.1e}, lowest cosine {self.cosine:.7f}"


def export_onnx(network: LoadedNetwork, path: StrPath, *, preprocess: bool) -> list[Parity]:
    """Writes a network as one ONNX file, atomically.

    Args:
        preprocess: if True, the graph's input is ``images``, (N, S, S, 3) uint8 RGB, and embeddings have unit length.
            Otherwise it is ``pixels``, (N, 3, S, S) float32 as ``normalise`` returns, and embeddings are not normalised.

    Returns:
        The comparison with PyTorch for each of ``BATCH_SIZES``.

    Raises:
        ExportError: a package is missing, the network is too large for one file, its embeddings are not finite, or
            ONNX Runtime and PyTorch differ.
        TypeError: an argument has a wrong type.
    """
    check_argument(isinstance(network, LoadedNetwork), "network", network, "what load_network(path) returns")
    check_argument(isinstance(preprocess, bool), "preprocess", preprocess, "True or False")
    path = check_path("path", path)
    network.check_trainable("exported")
    onnx, runtime = import_optional("onnx"), import_optional("onnxruntime")
    import_optional("onnxscript")
    backbone, spec = network.backbone, network.spec
    size = sum(value.nbytes for value in backbone.state_dict().values())
    if size > MAX_WEIGHT_BYTES:
        raise ExportError(
            f"{path}: {size:,} bytes of weights, expected at most {MAX_WEIGHT_BYTES:,} in an ONNX file;"
            " choose a smaller backbone"
        )
    module = (ImageEmbedder(backbone, spec) if preprocess else backbone).eval()
    model = _trace(module, _random_inputs(spec, 2, preprocess), "images" if preprocess else "pixels")
    _describe(onnx, model, network, preprocess)
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        onnx.save(model, temporary, format="protobuf")
        session = runtime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        return [_compare(path, module, session, _random_inputs(spec, batch, preprocess)) for batch in BATCH_SIZES]


def _normalised(images: torch.Tensor, spec: Preprocessing) -> torch.Tensor:
    return normalise(images, spec.mean, spec.std, color=spec.color)


def signature(network: LoadedNetwork, preprocess: bool) -> str:
    """Input and output of the graph in one line."""
    spec, size, numbers = network.spec, network.spec.size, network.embedding_size()
    if preprocess:
        return f"images uint8 (N, {size}, {size}, 3) RGB -> embeddings float32 (N, {numbers}) of unit length"
    return (
        f"pixels float32 (N, 3, {size}, {size}) {spec.color}, (x / 255 - {spec.mean}) / {spec.std}"
        f" -> embeddings float32 (N, {numbers}), not normalised"
    )


def _random_inputs(spec: Preprocessing, batch: int, preprocess: bool) -> torch.Tensor:
    """A seeded batch of inputs for the graph."""
    shape = (batch, spec.size, spec.size, 3)
    images = torch.from_numpy(np.random.default_rng([0, batch]).integers(0, 256, shape, dtype=np.uint8))
    return images if preprocess else _normalised(images, spec)


def _trace(module: nn.Module, inputs: torch.Tensor, name: str) -> ModelProto:
    # The exporter warns about missing optional packages, and about calls of its own that are deprecated.
    with _EXPORTING, torch.inference_mode(False), torch.no_grad(), no_log, ignored_warnings():
        program = torch.onnx.export(
            module,
            (inputs.contiguous(),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=[name],
            output_names=["embeddings"],
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    return program.model_proto  # type: ignore[union-attr]


no_log = ProcessSetting(lambda: logging.root.manager.disable, lambda: logging.disable(logging.WARNING), logging.disable)
"""No logger prints a warning."""


def _describe(onnx: ModuleType, model: ModelProto, network: LoadedNetwork, preprocess: bool) -> None:
    """Adds metadata of the network, and removes the exporter's, which includes local paths of stack traces."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
    model.doc_string = signature(network, preprocess)
    graph.name = network.name
    onnx.helper.set_model_props(model, network.metadata())


def _compare(path: Path, module: nn.Module, session: Any, inputs: torch.Tensor) -> Parity:
    """Raises: ExportError: the embeddings differ, or PyTorch's are not finite."""
    with torch.inference_mode():
        expected = module(inputs).double().numpy()
    (input_name,) = (one.name for one in session.get_inputs())
    found = session.run(["embeddings"], {input_name: inputs.numpy()})[0].astype(np.float64)
    if not np.isfinite(expected).all():
        raise ExportError("the network's embeddings are not finite; the checkpoint is damaged or its training diverged")
    lengths = np.linalg.norm(expected, axis=1) * np.linalg.norm(found, axis=1)
    parity = Parity(
        batch=len(inputs),
        difference=float(np.abs(found - expected).max()),
        scale=float(np.abs(expected).max()),
        cosine=float(((found * expected).sum(1) / np.maximum(lengths, np.finfo(float).tiny)).min()),
    )
    if not parity.close:
        raise ExportError(
            f"{path}: not written, ONNX Runtime differs from PyTorch ({parity}; allowed"
            f" {TOLERANCE * parity.scale:.1e} and {MIN_COSINE}); try other versions of onnxscript and onnxruntime"
        )
    return parity
