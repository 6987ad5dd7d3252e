"""Reads small TOML files that a user names."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from pipeline.tables.streams import open_stream

MAX_BYTES = 1 << 14  # tomllib takes quadratic time for some files


def read_toml(path: Path) -> dict[str, Any]:
    """Returns the keys of a TOML file.

    Raises:
        ValueError: it is not TOML, or larger than such files are.
        OSError: it cannot be read.
    """
    with open_stream(path) as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ValueError(f"more than {MAX_BYTES} bytes, expected a few lines")
    try:
        return tomllib.loads(data.decode("utf-8-sig"))  # its own errors and those of Unicode are ValueErrors
    except RecursionError:
        raise ValueError("too deeply nested") from None
