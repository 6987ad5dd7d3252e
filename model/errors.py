"""Errors of loading and exporting networks; import of optional packages."""

from __future__ import annotations

import contextlib
import importlib
import re
from collections.abc import Iterator
from types import ModuleType

from shards.errors import LrfrError
from shards.messages import install_command

# raised by torch and safetensors on damaged files, among others
DAMAGE_ERRORS = (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError)


class CheckpointError(LrfrError):
    """A checkpoint that cannot be read, written or used."""


class ExportError(LrfrError):
    """A network that cannot be exported."""


class OutOfMemoryError(LrfrError):
    """Memory that does not suffice."""


MORE_MEMORY = "end other programs, or use a machine with more"

_OUT_OF_MEMORY = re.compile(  # PyTorch on GPUs and CPUs, NumPy, DALI, cuDNN and cuBLAS
    r"out of memory|can(no|')t allocate memory|not enough memory|memory ?allocation|allocation failed|alloc_failed"
    r"|bad_alloc|unable to allocate",
    re.IGNORECASE,
)


@contextlib.contextmanager
def explained_memory(remedy: str) -> Iterator[None]:
    """Turns an allocation that fails in the block into one line with ``remedy``. Raises: OutOfMemoryError."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not _OUT_OF_MEMORY.search(str(error)):
            raise
        size = re.search(r"(?:[Tt]ried|Unable) to allocate ([\d.]+ \w+)", str(error))
        kind = "GPU memory" if re.search(r"cuda|cudnn|cublas|gpu", str(error), re.IGNORECASE) else "memory"
        raise OutOfMemoryError(f"out of {kind}{f' (for {size[1]})' if size else ''}: {remedy}") from error


def import_optional(module: str, extra: str = "export") -> ModuleType:
    """Imports a module of an extra.

    Raises:
        ExportError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        name = (error.name or module).split(".")[0]
        raise ExportError(f"{name} is not installed; run: {install_command(extra)}") from None


_ADVICE = re.compile(  # what stands below the reason in errors of CUDA, NCCL, torch.compile and DALI
    r"Search for `|CUDA kernel errors might|For debugging consider|Compile with `TORCH_USE|Device-side assertion"
    r"|Last error:$|(\[rank\d+\]:)?\[[IW]\d|Set TORCH|Current pipeline object is no longer"
)


def last_line(text: str) -> str:
    """The last line that says why something failed; empty if there is none."""
    lines = [line.strip() for line in text.splitlines()]
    return next((line for line in reversed(lines) if line and not _ADVICE.match(line)), "")


def one_line(error: Exception, max_chars: int = 160) -> str:
    """Last line of an error's text, which may quote a hostile file: printable ASCII, at most ``max_chars`` characters."""
    return ascii(last_line(str(error)) or type(error).__name__)[1:-1][:max_chars]
