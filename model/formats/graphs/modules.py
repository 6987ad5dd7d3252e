"""Graphs with named outputs, one of which holds the embeddings; programs of PyTorch as such graphs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from model.errors import CheckpointError, one_line
from model.formats.graphs.found import pick_output, squeezed
from model.graph import Graph


class NamedGraph(Graph):
    """A graph with several outputs: pixels -> tensors by name."""

    def __init__(self, path: Path, content: bytes, batch: int | None = None) -> None:
        super().__init__(content, batch)
        self._path, self._output = path, ""

    def outputs(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
        """All outputs. Raises: CheckpointError: the graph cannot be run."""
        raise NotImplementedError

    def find_output(self, size: int) -> None:
        """Finds the output that holds the embeddings, by running black images of ``size`` px.

        Raises:
            CheckpointError: there is none, or several, or the graph cannot be run.
        """
        count = self.batch or 2
        with torch.inference_mode():
            self._output = pick_output(self._path, self.outputs(torch.zeros(count, 3, size, size)), count)

    def run(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.outputs(pixels)[self._output].float()


class TorchGraph(NamedGraph):
    """A module that was loaded as a program: pixels -> one tensor, or several, by number or key."""

    def __init__(self, path: Path, module: torch.nn.Module, content: bytes, batch: int | None = None) -> None:
        super().__init__(path, content, batch)
        self._module = module

    def outputs(self, pixels: torch.Tensor) -> dict[str, torch.Tensor]:
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
