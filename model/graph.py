"""Graphs: networks that can be run, but not trained, whatever runs them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

_BLOCK_BYTES = 1 << 20


class Graph(nn.Module):
    """A network that is not split over threads: its runtime has threads of its own.

    Args:
        content: hash of the file, so that the digest of a network covers it.
        batch: number of images that it takes at a time; a smaller batch is filled up. None: any.
    """

    content: torch.Tensor

    def __init__(self, content: bytes, batch: int | None = None) -> None:
        super().__init__()
        self.register_buffer("content", torch.frombuffer(bytearray(content), dtype=torch.uint8))
        self.batch = batch
        self.training = False

    def run(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, S, S) float pixels of a batch that the graph takes -> (B, D) float, on the same device."""
        raise NotImplementedError

    def train(self, mode: bool = True) -> Graph:
        """Does nothing: a graph stays in the mode in which it was saved."""
        return self

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(N, 3, S, S) -> (N, D)."""
        if self.batch is None:
            return self.run(pixels)
        found = []
        for part in torch.split(pixels, self.batch):
            filling = part[-1:].expand(self.batch - len(part), -1, -1, -1)
            found.append(self.run(torch.cat([part, filling]))[: len(part)])
        return torch.cat(found)


def file_hash(path: Path) -> bytes:
    """BLAKE2b hash of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).digest()
