"""ONNX: one file with a dynamic batch, compared with PyTorch before it appears."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from model.backbones import EMBEDDING_SIZE
from model.errors import ExportError, need
from model.formats.metadata import metadata_of
from model.formats.network import LoadedNetwork
from model.inputs import normalise
from pipeline.spec import Preprocessing
from shards.files import whole_file

OPSET = 18
BATCHES = (1, 3, 64)  # compared with PyTorch
TOLERANCE = 1e-4  # largest difference, as a fraction of the largest absolute value that PyTorch gives
LEAST_COSINE = 0.99999
_MOST_BYTES = 2**31 - 2**20  # of one protobuf, with room for the graph


class FromImages(nn.Module):
    """(N, S, S, 3) uint8 RGB -> (N, D) float32 of unit length."""

    def __init__(self, backbone: nn.Module, mean: float, std: float) -> None:
        super().__init__()
        self._backbone, self._mean, self._std = backbone, mean, std

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return nn.functional.normalize(self._backbone(normalise(images, self._mean, self._std)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Parity:
    """How far ONNX Runtime is from PyTorch on one batch.

    Attributes:
        batch: images.
        difference: largest absolute one of a number in an embedding.
        scale: largest absolute value of a number that PyTorch gives.
        cosine: lowest of two embeddings of one image.
    """

    batch: int
    difference: float
    scale: float
    cosine: float

    @property
    def close(self) -> bool:
        """Within the tolerance; False for numbers that are not finite."""
        return self.difference <= TOLERANCE * self.scale and self.cosine >= LEAST_COSINE

    def __str__(self) -> str:
        return f"batch {self.batch}: largest difference {self.difference:.1e}, lowest cosine {self.cosine:.7f}"


def export_onnx(network: LoadedNetwork, path: Path, *, preprocess: bool) -> list[Parity]:
    """Writes a network as an ONNX file, whole or not at all.

    Args:
        preprocess: the graph takes ``images``, (N, S, S, 3) uint8 RGB, and gives embeddings of unit length;
            without, it takes ``pixels``, (N, 3, S, S) float32 as ``normalise`` gives them, and embeddings are raw.

    Returns:
        the comparison with PyTorch for each of ``BATCHES``.

    Raises:
        ExportError: a package is missing, the network is too large for one file, or ONNX Runtime gives something else.
    """
    onnx, runtime = need("onnx"), need("onnxruntime")
    need("onnxscript")
    backbone, spec = network.backbone, network.spec
    size = sum(value.nbytes for value in backbone.state_dict().values())
    if size > _MOST_BYTES:
        raise ExportError(
            f"{path}: {size:,} bytes of weights, one ONNX file holds {_MOST_BYTES:,}; choose a smaller backbone"
        )
    module = (FromImages(backbone, spec.mean, spec.std) if preprocess else backbone).eval()
    model = _traced(module, _example(spec, 2, preprocess), "images" if preprocess else "pixels")
    _describe(onnx, model, network, preprocess)
    onnx.checker.check_model(model, full_check=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as temporary:
        onnx.save(model, temporary, format="protobuf")
        session = runtime.InferenceSession(temporary, providers=["CPUExecutionProvider"])
        return [_compare(path, module, session, _example(spec, batch, preprocess)) for batch in BATCHES]


def signature(spec: Preprocessing, preprocess: bool) -> str:
    """What the graph takes and gives, in one line."""
    size = spec.size
    if preprocess:
        return f"images uint8 (N, {size}, {size}, 3) RGB -> embeddings float32 (N, {EMBEDDING_SIZE}) of unit length"
    return (
        f"pixels float32 (N, 3, {size}, {size}) RGB, (x / 255 - {spec.mean}) / {spec.std}"
        f" -> embeddings float32 (N, {EMBEDDING_SIZE}), not normalised"
    )


def _example(spec: Preprocessing, batch: int, preprocess: bool) -> torch.Tensor:
    """Seeded random pixels, as the graph takes them."""
    shape = (batch, spec.size, spec.size, 3)
    images = torch.from_numpy(np.random.default_rng([0, batch]).integers(0, 256, shape, dtype=np.uint8))
    return images if preprocess else normalise(images, spec.mean, spec.std)


def _traced(module: nn.Module, example: torch.Tensor, name: str) -> Any:
    with torch.inference_mode(False), torch.no_grad(), _quiet():
        program = torch.onnx.export(
            module,
            (example.contiguous(),),
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            input_names=[name],
            output_names=["embeddings"],
            opset_version=OPSET,
            external_data=False,
            verbose=False,
        )
    return program.model_proto  # type: ignore[union-attr]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's remarks about packages that are not there and its own deprecated calls."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _describe(onnx: Any, model: Any, network: LoadedNetwork, preprocess: bool) -> None:
    """States what the model is; drops what the exporter notes of this machine, such as the paths in stack traces."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        del part.metadata_props[:]
    model.doc_string = signature(network.spec, preprocess)
    graph.name = network.name
    onnx.helper.set_model_props(model, metadata_of(network))


def _compare(path: Path, module: nn.Module, session: Any, inputs: torch.Tensor) -> Parity:
    """Raises: ExportError: the two are not close, or PyTorch's numbers are not finite."""
    with torch.inference_mode():
        expected = module(inputs).double().numpy()
    (name,) = (one.name for one in session.get_inputs())
    found = session.run(["embeddings"], {name: inputs.numpy()})[0].astype(np.float64)
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
            f" {TOLERANCE * parity.scale:.1e} and {LEAST_COSINE}); try other versions of onnxscript and onnxruntime"
        )
    return parity
