"""Text lists of images: a path and an identity a line, with or without a header and ten numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa

from pipeline.images.lookup import names_image
from pipeline.sources.source import SourceError
from pipeline.tables.landmark_layout import SEPARATORS
from pipeline.tables.landmark_table import POINT_NAMES
from pipeline.tables.streams import NOT_TEXT
from pipeline.tables.text_lines import first_row, is_text, line_blocks, split_fields, text_columns
from pipeline.tables.text_numbers import is_number
from shards.messages import counted

PATH, IDENTITY, SPLIT = "path", "identity", "split"
# Names of columns, the likeliest first
PATH_NAMES = (
    PATH,
    "file_name",
    "filename",
    "file",
    "image_path",
    "img_path",
    "filepath",
    "file_path",
    "image",
    "name_id",
)
IDENTITY_NAMES = (
    IDENTITY,
    "label",
    "class",
    "cls",
    "person",
    "subject",
    "identity_id",
    "class_id",
    "person_id",
    "subject_id",
)
SPLITS = ("train", "training", "validation", "valid", "val", "dev", "test", "testing", "eval")  # of folders and tars
EXPECTED = "the header path,identity (and p1x,p1y,...,p5y or split), or lines of a path and an identity"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ListLayout:
    """How a list is written.

    Attributes:
        separator: the character between fields; empty for blanks.
        columns: what each field is: ``PATH``, ``IDENTITY``, ``SPLIT``, one of ``POINT_NAMES``, or something else.
        header_lines: lines before the first row.
    """

    separator: str
    columns: list[str]
    header_lines: int


def known_columns(names: Sequence[str]) -> list[str]:
    """What the columns of a header are; a name that means nothing here becomes its number.

    Raises:
        ValueError: there is no path, no identity, or some of the ten numbers only.
    """
    plain = [name.strip().strip('"').lower() for name in names]
    columns = named_columns(plain, {PATH: PATH_NAMES, IDENTITY: IDENTITY_NAMES, SPLIT: (SPLIT,)})
    points = {name.lower(): name for name in POINT_NAMES}
    columns = [points.get(name, column) for name, column in zip(plain, columns, strict=True)]
    found_points = [column for column in columns if column in POINT_NAMES]
    if PATH not in columns or IDENTITY not in columns:
        raise ValueError(f"no column {PATH if PATH not in columns else IDENTITY}")
    if found_points and sorted(found_points) != sorted(POINT_NAMES):
        raise ValueError(f"{len(found_points)} of the ten columns {POINT_NAMES[0]}, ..., {POINT_NAMES[-1]}")
    return columns


def named_columns(names: Sequence[str], meanings: Mapping[str, Sequence[str]]) -> list[str]:
    """What columns are called here; the others become their numbers.

    Args:
        meanings: for each name here, those that files may have, the likeliest first.
    """
    columns = [str(number) for number in range(len(names))]
    for meaning, accepted in meanings.items():
        if found := next((name for name in accepted if name in names), None):
            columns[names.index(found)] = meaning
    return columns


def list_layout(path: Path, stream: BinaryIO) -> ListLayout:
    """Finds out how a list is written, from its first line that is neither empty nor a comment.

    Raises:
        SourceError: it is neither a header nor a row.
    """
    number, line = stated_row(path, stream, EXPECTED)
    problem = ""
    for separator in SEPARATORS:
        fields = split_fields(line, separator)
        if (columns := _row_columns(fields)) is not None:
            return ListLayout(separator=separator, columns=columns, header_lines=number - 1)
        try:
            return ListLayout(separator=separator, columns=known_columns(fields), header_lines=number)
        except ValueError as error:
            problem = f" ({error})" if len(fields) > 1 else problem
    for count in (13, 12, 3, 2):
        if (columns := _row_columns(line.strip().rsplit(None, count - 1))) is not None:
            return ListLayout(separator="", columns=columns, header_lines=number - 1)
    raise SourceError(f"{path}: line {number}: found {line.strip()[:80]!r}{problem}, expected {EXPECTED}")


def stated_row(path: Path, stream: BinaryIO, expected: str) -> tuple[int, str]:
    """Number and text of the first line that is neither empty nor a comment.

    Raises:
        SourceError: there is none, or it is not text.
    """
    number, line = first_row(stream)
    if not number:
        raise SourceError(f"{path}: empty; expected {expected}")
    if not is_text(line):
        raise SourceError(f"{path}: line {number}: {NOT_TEXT}; expected {expected}")
    return number, line


def _row_columns(fields: Sequence[str]) -> list[str] | None:
    """What the fields of a row are: a path and an identity in any order, ten numbers; a row number may stand in front."""
    numbered = len(fields) in (3, 13) and fields[0].strip().lstrip("-").isdecimal()
    rest = fields[1:] if numbered else fields
    if len(rest) not in (2, 12) or not all(map(is_number, rest[2:])):
        return None
    first, second = (names_image(field.strip()) for field in rest[:2])
    if first == second:
        return None
    return [
        *(["0"] if numbered else []),
        *((PATH, IDENTITY) if first else (IDENTITY, PATH)),
        *POINT_NAMES[: len(rest) - 2],
    ]


def list_blocks(path: Path, stream: BinaryIO, layout: ListLayout) -> Iterator[pa.Table]:
    """Yields the rows of a list, some megabytes at a time, as columns of text.

    Raises:
        SourceError: a line has not the right number of fields, or is not UTF-8.
    """
    for line, rows in line_blocks(path, stream, layout.header_lines):
        if rows.strip():
            yield _separated(path, rows, line, layout) if layout.separator else _blanks(path, rows, line, layout)


def _separated(path: Path, rows: bytes, line: int, layout: ListLayout) -> pa.Table:
    if b"#" in rows:
        rows = b"\n".join(b"" if text.lstrip().startswith(b"#") else text for text in rows.split(b"\n"))
    try:
        return text_columns(rows, layout.separator, layout.columns, line=line)
    except ValueError as error:
        raise SourceError(f"{path}: {error}") from None


def _blanks(path: Path, rows: bytes, line: int, layout: ListLayout) -> pa.Table:
    found = []
    for number, text in enumerate(rows.decode("utf-8", "surrogateescape").split("\n"), line):
        if not text.strip() or text.lstrip().startswith("#"):
            continue
        fields = text.strip().rsplit(None, len(layout.columns) - 1)
        if len(fields) != len(layout.columns) or not is_text(text):
            problem = f"{counted(len(fields), 'field')}, expected {len(layout.columns)}" if is_text(text) else NOT_TEXT
            raise SourceError(f"{path}: line {number}: {problem}")
        found.append(fields)
    columns = zip(*found, strict=True) if found else [[] for _ in layout.columns]
    return pa.table([pa.array(column, pa.string()) for column in columns], names=layout.columns)
