"""Exclusion lists: identities and images that are not stored."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import re
from pathlib import Path

from pipeline.tables.landmark_table import LandmarkError
from pipeline.tables.streams import decoded, open_stream

MAX_BYTES = 1 << 30
_EXCLUSION = re.compile(r"""\s*(?:"(?P<quoted>[^"]*)"|(?P<bare>(?!#).*?))\s*(?:(?<!\S)#.*)?""")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exclusions:
    """The entries of an exclusion list, and the SHA-256 of its file."""

    entries: list[str]
    sha256: str


def read_exclusions(path: Path | None) -> Exclusions | None:
    """Reads an exclusion list: one entry a line, ``#`` after white space or at the start of a line is a comment.

    Raises:
        LandmarkError: the file cannot be read.
    """
    if path is None:
        return None
    try:
        with open_stream(path) as stream:
            data = stream.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise OSError(errno.EFBIG, f"more than {MAX_BYTES:,} bytes")
        lines = decoded(data).split("\n")
    except OSError as error:
        raise LandmarkError(f"{path}: {error.strerror}; expected one identity or identity/image a line") from None
    matches = filter(None, map(_EXCLUSION.fullmatch, lines))
    entries = [match["quoted"] or match["bare"] or "" for match in matches]
    return Exclusions(entries=[entry for entry in entries if entry], sha256=hashlib.sha256(data).hexdigest())


def exclusion_line(name: str) -> str | None:
    """Returns the line of an exclusion list that stands for ``name``; None if there is none, as with a line break."""
    for line in (name, f'"{name}"'):
        match = _EXCLUSION.fullmatch(line)
        if match and len(line.splitlines()) == 1 and (match["quoted"] or match["bare"]) == name:
            return line
    return None
