"""Reads LFW's pair lists."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from benchmarks.errors import ProtocolError
from pipeline.images.lookup import composed
from pipeline.tables.streams import decoded, open_stream
from shards.messages import counted

HEADER = "the number of folds and of pairs a fold, such as 10<TAB>300"
MAX_NAME_BYTES = 240  # with _0001.jpg it must be a valid file name
_INTEGER = re.compile(r"[0-9]{1,9}")
_SEPARATOR = re.compile("[\t;,]")
_WORDS = re.compile(r"name imagenum1( name\S*)? imagenum2", re.IGNORECASE)  # header of LFW's lists on Kaggle
_QUOTED_CHARS = 40  # of invalid text in messages


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pairs:
    """The N pairs of a list.

    Attributes:
        names: (N, 2, 2) text: person and image number of both images.
        genuine: (N,) bool.
        folds: (N,) int.
    """

    names: np.ndarray
    genuine: np.ndarray
    folds: np.ndarray


def read_pairs(path: Path) -> Pairs:
    """Reads a pair list.

    The header states the number of folds, and of pairs of each kind in a fold. Then each fold has its genuine pairs
    (name, i, j) and its impostor pairs (name, i, name, j). Fields are separated by tabs, semicolons, commas or blanks;
    names may contain what does not separate. Empty lines and comments are ignored: lines that begin with ``#``, but for
    pairs of people whose names do.

    Raises:
        ProtocolError: the header, a line or the number of lines is invalid; the message gives the line number.
    """
    try:
        with open_stream(path) as stream:
            lines = _lines(stream)
    except OSError as error:
        raise ProtocolError(f"{path}: not readable as text ({error.strerror}); restore it from the archive") from None
    folds, per_kind = _header(path, lines)
    index = np.arange(2 * folds * per_kind)
    genuine = index % (2 * per_kind) < per_kind
    names = [
        _parse_pair(_fields(line), is_genuine, f"{path}: line {number}")
        for (number, line), is_genuine in zip(lines[1:], genuine.tolist(), strict=True)
    ]
    return Pairs(names=np.array(names), genuine=genuine, folds=index // (2 * per_kind))


def is_named(line: str) -> bool:
    """Returns True if a line is the header or a pair of a list in LFW's form."""
    fields = _SEPARATOR.sub(" ", line).split()
    is_header = len(fields) in (1, 2) and all(map(_INTEGER.fullmatch, fields))
    return is_header or _is_pair(_fields(line)) or bool(_WORDS.fullmatch(" ".join(fields)))


def named_pairs(path: Path, stream: BinaryIO) -> tuple[Iterator[tuple[list[list[str]], bool]], np.ndarray | None]:
    """Reads a list in LFW's form whose header may have one number or words, or be absent: then each line says what it is.

    Returns:
        For each pair, person and image number of both images, and whether it is genuine.
        (P,) folds; None if the header does not state them.

    Raises:
        OSError: it is not text.
        ProtocolError: as ``read_pairs``; lines when they are reached.
    """
    lines = _lines(stream)
    header = _SEPARATOR.sub(" ", lines[0][1]).split()
    if len(header) == 2 and all(map(_INTEGER.fullmatch, header)):
        folds, per_kind = _header(path, lines)
        return _pairs_of(path, lines[1:]), np.arange(2 * folds * per_kind) // (2 * per_kind)
    if len(header) > 1:
        return _pairs_of(path, lines[1:] if _WORDS.fullmatch(" ".join(header)) else lines), None
    if len(lines) - 1 != 2 * int(header[0]):
        raise ProtocolError(
            f"{path}: {counted(len(lines) - 1, 'pair')}, but line {lines[0][0]} states {int(header[0]):,} genuine and as many"
            " impostor pairs; restore it from the archive"
        )
    return _pairs_of(path, lines[1:]), None


def _pairs_of(path: Path, lines: Sequence[tuple[int, str]]) -> Iterator[tuple[list[list[str]], bool]]:
    for number, line in lines:
        fields = _fields(line)
        genuine = len(fields) == 3 or (len(fields) == 4 and fields[0] == fields[2])
        if genuine and len(fields) == 4:
            del fields[2]
        yield _parse_pair(fields, genuine, f"{path}: line {number}"), genuine


def _lines(stream: BinaryIO) -> list[tuple[int, str]]:
    """The lines that are neither empty nor comments, with their numbers. Raises: OSError: not UTF-8."""
    lines = enumerate(composed(decoded(stream.read())).split("\n"), 1)
    return [(number, text) for number, line in lines if (text := line.rstrip()) and not _is_comment(text)]


def _header(path: Path, lines: Sequence[tuple[int, str]]) -> tuple[int, int]:
    """The numbers of folds and of pairs of each kind in a fold. Raises: ProtocolError: see ``read_pairs``."""
    header_line, header = (lines[0][0], _SEPARATOR.sub(" ", lines[0][1]).split()) if lines else (1, [])
    if len(header) != 2 or not all(map(_INTEGER.fullmatch, header)) or int(header[0]) < 2 or int(header[1]) < 1:
        found = " ".join(header)[:_QUOTED_CHARS]
        raise ProtocolError(f"{path}: line {header_line}: found {found!r}, expected {HEADER}; at least 2 folds")
    folds, per_kind = map(int, header)
    if len(lines) - 1 != 2 * folds * per_kind:
        raise ProtocolError(
            f"{path}: {counted(len(lines) - 1, 'pair')}, but line {header_line} states {folds} folds of {per_kind} genuine and"
            f" {per_kind} impostor pairs, {2 * folds * per_kind:,} in all"
        )
    return folds, per_kind


def _fields(line: str) -> list[str]:
    """Splits a line where that gives a pair, or else at its first kind of separator. Empty last fields do not count."""
    splits = [line.rstrip(f" {separator}").split(separator) for separator in "\t;," if separator in line]
    splits = [[field.strip() for field in fields] for fields in [*splits, line.split()]]
    return next(filter(_is_pair, splits), splits[0])


def _is_pair(fields: list[str]) -> bool:
    return len(fields) in (3, 4) and all(map(_INTEGER.fullmatch, (fields[1], fields[-1])))


def _is_comment(line: str) -> bool:
    if not line.lstrip().startswith("#"):
        return False
    fields = _fields(line)
    return fields[0][1:2] in ("", " ") or not _is_pair(fields)


def _parse_pair(fields: list[str], genuine: bool, location: str) -> list[list[str]]:
    """Person and image number of both images."""
    if genuine and len(fields) == 3:
        fields = [fields[0], fields[1], fields[0], fields[2]]
    elif genuine or len(fields) != 4:
        kind = "a genuine pair (name, i, j)" if genuine else "an impostor pair (name, i, name, j)"
        raise ProtocolError(f"{location}: {counted(len(fields), 'field')}, expected {kind}, separated by tabs")
    first_name, first_number, second_name, second_number = fields
    for name in (first_name, second_name):
        if not 1 <= len(name.encode()) <= MAX_NAME_BYTES or "\0" in name or "/" in name or name in (".", ".."):
            raise ProtocolError(
                f"{location}: found {name[:_QUOTED_CHARS]!r}, expected a person's name of 1 to {MAX_NAME_BYTES} bytes"
            )
    if not (_INTEGER.fullmatch(first_number) and _INTEGER.fullmatch(second_number)):
        raise ProtocolError(
            f"{location}: image numbers are {first_number[:_QUOTED_CHARS]!r} and {second_number[:_QUOTED_CHARS]!r},"
            " expected integers of at most 9 digits"
        )
    if genuine and int(first_number) == int(second_number):
        raise ProtocolError(f"{location}: image {first_number} of {first_name} twice, expected two images")
    if not genuine and first_name == second_name:
        raise ProtocolError(f"{location}: both images of an impostor pair are of {first_name}, expected two people")
    return [[first_name, first_number], [second_name, second_number]]
