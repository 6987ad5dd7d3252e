"""Renders pages from templates; names from data are escaped."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import jinja2

from shards.messages import printable


def environment(*folders: Path) -> jinja2.Environment:
    """The templates of some folders, and those of this one: HTML pages extend ``page.html``."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, Path(__file__).parent]),
        autoescape=jinja2.select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        finalize=_finalized,
    )
    found.filters["base64"] = lambda data: base64.b64encode(data).decode()
    return found


def _finalized(value: Any) -> Any:
    """Text as ``printable``; the output of a macro is HTML already."""
    return printable(value) if type(value) is str else value
