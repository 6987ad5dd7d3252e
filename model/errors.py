"""What loading and exporting a network refuse; and a package of the extra that is not there."""

from __future__ import annotations

import importlib
from typing import Any

from shards.errors import LrfrError


class CheckpointError(LrfrError):
    """A checkpoint that cannot be written, read or used. One line."""


class ExportError(LrfrError):
    """A network that cannot be exported. One line."""


def need(module: str) -> Any:
    """A module that the extra ``export`` brings. Raises: ExportError: it is not installed."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        name = (error.name or module).split(".")[0]
        raise ExportError(f"{name} is not installed, and this needs it; run: pip install 'lrfr[export]'") from None


def one_line(error: Exception, most: int = 160) -> str:
    """The last line of an error's text, which may quote a hostile file: printable ASCII, ``most`` characters of it."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return ascii(lines[-1].strip())[1:-1][:most]
