"""Graphs: networks that can be run, but not trained, whatever runs them."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch
from torch import nn

_BLOCK_BYTES = 1 << 20


class Graph(nn.Module):
    """A network that is not split over threads: whatever runs it has threads of its own.

    Args:
        content: hash of the file, so that the digest of a network covers it.
    """

    content: torch.Tensor

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.register_buffer("content", torch.frombuffer(bytearray(content), dtype=torch.uint8))


def file_hash(path: Path) -> bytes:
    """BLAKE2b hash of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.blake2b(digest_size=16)).digest()
