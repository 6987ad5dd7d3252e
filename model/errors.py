"""Errors of loading and exporting networks; import of optional packages."""

from __future__ import annotations

import importlib
from types import ModuleType

from shards.errors import LrfrError

# raised by torch and safetensors on damaged files, among others
DAMAGE_ERRORS = (OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError)


class CheckpointError(LrfrError):
    """A checkpoint that cannot be read, written or used."""


class ExportError(LrfrError):
    """A network that cannot be exported."""


def import_optional(module: str) -> ModuleType:
    """Imports a module of the extra ``export``.

    Raises:
        ExportError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        name = (error.name or module).split(".")[0]
        raise ExportError(f"{name} is not installed; run: pip install --editable '.[export]'") from None


def one_line(error: Exception, max_chars: int = 160) -> str:
    """Last line of an error's text, which may quote a hostile file: printable ASCII, at most ``max_chars`` characters."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return ascii(lines[-1].strip())[1:-1][:max_chars]
