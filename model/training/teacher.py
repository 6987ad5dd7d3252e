"""The teacher of a run: its name, and its embeddings of the images of a shard set as targets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch

from model.backbones import EMBEDDING_SIZE
from model.formats.network import LoadedNetwork
from model.training.config import TrainingError

FITTED_ROWS = 1 << 17  # of the embeddings, from which principal components are computed
Embeddings = Callable[[np.ndarray], np.ndarray]
"""(n,) int64 rows of a shard set's index -> (n, D) float32 of length 1."""


@dataclasses.dataclass(frozen=True)
class Teacher:
    """The network that a run learns from.

    Attributes:
        name: the backbone as text, or a function's name.
        digest: of the network, see ``LoadedNetwork``.
        network: itself, where its feature maps are compared.
    """

    name: str
    digest: str
    network: LoadedNetwork | None = None

    @classmethod
    def of(cls, network: LoadedNetwork) -> Teacher:
        """A loaded network as a teacher."""
        return cls(network.name, network.digest, network)

    def to_dict(self) -> dict[str, str]:
        """What checkpoints state of it."""
        return {"name": self.name, "digest": self.digest}

    def check_same(self, saved: Mapping[str, object], path: Path) -> None:
        """Raises: TrainingError: the checkpoint at ``path`` has another teacher."""
        if saved.get("digest") != self.digest:
            before = f"{saved.get('name')}, digest {saved.get('digest')}" if saved else "none"
            raise TrainingError(
                f"{path}: its teacher is {before}; now it is {self.name}, digest {self.digest}: name the same network with"
                " --teacher, or start a new run in another --out"
            )


class Targets:
    """Callable from rows of the index, (V, b), to targets, (V, b, 512) float32 of length 1 on ``device``.

    Embeddings of another length than the student's keep their cosines: shorter ones are filled up with zeros, and longer
    ones are projected by ``basis``. A layer that is learnt between both would let the student's cosines differ.
    """

    length = EMBEDDING_SIZE

    def __init__(self, embeddings: Embeddings, *, basis: np.ndarray | None = None, device: str = "cpu") -> None:
        """
        Args:
            basis: (D, 512) that ``principal_components`` returns; None for embeddings of at most 512 numbers.
        """
        self._embeddings, self._basis, self._device = embeddings, basis, torch.device(device)

    def __call__(self, rows: np.ndarray) -> torch.Tensor:
        vectors = self._embeddings(rows.ravel())
        if self._basis is not None:
            vectors = vectors @ self._basis
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        filled = np.zeros((*rows.shape, EMBEDDING_SIZE), np.float32)
        filled[..., : vectors.shape[1]] = vectors.reshape(*rows.shape, -1)
        targets = torch.from_numpy(filled)
        if self._device.type == "cuda":  # from pinned memory, so that the copy does not wait for the GPU
            return targets.pin_memory().to(self._device, non_blocking=True)
        return targets


def principal_components(embeddings: Embeddings, count: int) -> tuple[np.ndarray, float]:
    """The directions that keep most of the squared length of ``count`` embeddings: uncentred, so that angles are kept.

    Returns:
        (D, 512) float32 with orthonormal columns, the same for the same embeddings; and the share of the squared length
        that they keep.
    """
    rows = np.arange(0, count, -(-count // FITTED_ROWS))
    gram: np.ndarray | float = 0.0
    for part in np.array_split(rows, -(-len(rows) // 4096)):
        vectors = embeddings(part).astype(np.float64)
        gram = gram + vectors.T @ vectors
    values, directions = np.linalg.eigh(np.asarray(gram))
    values, directions = values[::-1], directions[:, ::-1][:, :EMBEDDING_SIZE]
    largest = np.abs(directions).argmax(0)
    directions = directions * np.sign(directions[largest, np.arange(directions.shape[1])])  # eigh leaves the sign open
    return directions.astype(np.float32), float(values[:EMBEDDING_SIZE].sum() / values.sum())
