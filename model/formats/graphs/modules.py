"""Programs of PyTorch as graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from model.errors import CheckpointError, one_line
from model.formats.graphs.found import squeezed
from model.graph import Graph


class TorchGraph(Graph):
    """A module that was loaded as a program: pixels -> one tensor, or several.

    Attributes:
        output: name of the output that holds the embeddings: its number, or its key.
    """

    def __init__(self, path: Path, module: torch.nn.Module, content: bytes, batch: int | None = None) -> None:
        super().__init__(content, batch)
        self._path, self._module, self.output = path, module, "0"

    def run(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.outputs(pixels)[self.output].float()

    def outputs(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """All tensors that the module gives. Raises: CheckpointError: it cannot be run."""
        try:
            found: Any = self._module(pixels.contiguous())
        except (RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError) as error:
            if "memory" in str(error):  # the caller explains it
                raise
            shape = tuple(pixels.shape)
            raise CheckpointError(f"{self._path}: cannot be run on pixels {shape} ({one_line(error)})") from None
        if isinstance(found, torch.Tensor):
            found = [found]
        named = (
            found.items() if isinstance(found, dict) else enumerate(found if isinstance(found, list | tuple) else [])
        )
        return {str(name): squeezed(value) for name, value in named if isinstance(value, torch.Tensor)}
