"""LFW's pair lists: folds of genuine and impostor pairs."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import numpy as np

from benchmarks.errors import ProtocolError
from pipeline.sources.images import read_regular

HEADER = "folds and pairs a fold, such as 10<TAB>300"
_NUMBER = re.compile(r"[0-9]{1,9}")
_LONGEST = 240  # bytes of a name: with _0001.jpg it is a file's
_SHOWN = 40  # characters of what was found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs:
    """A pairs file.

    Attributes:
        names: (N, 2, 2) person and image number, both as text, of the two images of each pair.
        genuine: (N,) bool.  folds: (N,) int.
    """

    names: np.ndarray
    genuine: np.ndarray
    folds: np.ndarray


def read_pairs(path: Path) -> Pairs:
    """Reads a pairs file: a header with the number of folds and of pairs of a kind in each, then, fold after fold,
    genuine pairs (name, i, j) and impostor pairs (name, i, name, j), parted by tabs. Empty lines are passed over.

    Raises:
        ProtocolError: the header, a line or the number of lines is not so; the message names the line.
    """
    try:
        text = read_regular(path).decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ProtocolError(f"{path}: cannot be read as text ({error}); restore it from the archive") from None
    lines = [(number, line.split("\t")) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    first, header = (lines[0][0], "\t".join(lines[0][1]).split()) if lines else (1, [])
    if len(header) != 2 or not all(map(_NUMBER.fullmatch, header)) or int(header[0]) < 2 or int(header[1]) < 1:
        found = " ".join(header)[:_SHOWN]
        raise ProtocolError(f"{path}: line {first}: found {found!r}, expected {HEADER}; at least 2 folds")
    folds, each = map(int, header)
    if len(lines) - 1 != 2 * folds * each:
        raise ProtocolError(
            f"{path}: {len(lines) - 1:,} pairs, but line {first} states {folds} folds of {each} genuine and"
            f" {each} impostor pairs, {2 * folds * each:,} in all"
        )
    number = np.arange(2 * folds * each)
    genuine = number % (2 * each) < each
    names = [
        _pair([field.strip() for field in fields], bool(kind), f"{path}: line {line}")
        for (line, fields), kind in zip(lines[1:], genuine, strict=True)
    ]
    return Pairs(names=np.array(names), genuine=genuine, folds=number // (2 * each))


def _pair(fields: list[str], genuine: bool, where: str) -> list[list[str]]:
    if genuine and len(fields) == 3:
        fields = [fields[0], fields[1], fields[0], fields[2]]
    elif genuine or len(fields) != 4:
        kind = "a genuine pair (name, i, j)" if genuine else "an impostor pair (name, i, name, j)"
        raise ProtocolError(f"{where}: {len(fields)} fields, expected {kind}, parted by tabs")
    first, number, second, other = fields
    for name in (first, second):
        if not 1 <= len(name.encode()) <= _LONGEST or "\0" in name or "/" in name:
            raise ProtocolError(f"{where}: found {name[:_SHOWN]!r}, expected a person's name of 1 to {_LONGEST} bytes")
    if not (_NUMBER.fullmatch(number) and _NUMBER.fullmatch(other)):
        raise ProtocolError(
            f"{where}: image numbers are {number[:_SHOWN]!r} and {other[:_SHOWN]!r}, expected whole numbers of at"
            " most 9 digits"
        )
    if genuine and int(number) == int(other):
        raise ProtocolError(f"{where}: image {number} of {first} twice, expected two images")
    if not genuine and first == second:
        raise ProtocolError(f"{where}: an impostor pair of {first} alone, expected two people")
    return [fields[:2], fields[2:]]
