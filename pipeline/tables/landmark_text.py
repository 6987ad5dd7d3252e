"""Text tables of landmarks: a name and numbers a line, whatever separates them, with or without a header."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.tables.landmark_layout import TextLayout, is_comment, split_row, trailing_numbers
from pipeline.tables.landmark_table import (
    FIVE_POINT_NUMBERS,
    FOUR_POINT_NUMBERS,
    HEADER,
    Block,
    LandmarkError,
    float32,
    not_finite,
)
from pipeline.tables.streams import NOT_TEXT
from pipeline.tables.text_lines import is_text, line_blocks, text_columns
from pipeline.tables.text_numbers import text_numbers
from shards.messages import counted

_HASH_LINE = re.compile(rb"^[ \t]*#.*$", re.MULTILINE)
_FOUR_POINTS = "x and y of left eye, right eye, nose and mouth centre"


def text_blocks(path: Path, stream: BinaryIO, layout: TextLayout) -> Iterator[Block]:
    """Yields the rows of a table, some megabytes at a time.

    Raises:
        LandmarkError: a line has not the right number of fields, or is not UTF-8.
    """
    for line, block in line_blocks(path, stream, layout.header_lines):
        rows = _without_comments(block, layout)
        if rows.strip():
            yield (_separated_block if layout.separator else _mixed_block)(path, rows, line, layout)


def _without_comments(rows: bytes, layout: TextLayout) -> bytes:
    """Empties the lines that are comments; their newlines stay, so that lines keep their numbers."""
    if b"#" not in rows:
        return rows

    def kept(line: re.Match[bytes]) -> bytes:
        text = line[0].decode("utf-8", "surrogateescape")
        fields = split_row(text, layout.separator, layout.numbers)
        return (
            b""
            if is_comment(text, fields, len(layout.columns) - 1 if layout.separator else layout.numbers)
            else line[0]
        )

    return _HASH_LINE.sub(kept, rows)


def _separated_block(path: Path, rows: bytes, line: int, layout: TextLayout) -> Block:
    try:
        table = text_columns(rows, layout.separator, layout.columns, line=line, wanted=HEADER)
    except ValueError as error:
        raise LandmarkError(f"{path}: {error}") from None
    names, *numbers = (column.chunk(0) for column in table.columns)
    return text_block(names, numbers)


def _mixed_block(path: Path, rows: bytes, line: int, layout: TextLayout) -> Block:
    """Rows whose fields are separated by blanks, or by commas here and blanks there. Empty fields are not seen."""
    found = []
    for number, text in enumerate(rows.decode("utf-8", "surrogateescape").split("\n"), line):
        fields = split_row(text, "", layout.numbers)
        if not is_text(text):
            raise LandmarkError(f"{path}: line {number}: {NOT_TEXT}")
        count = trailing_numbers(fields)
        if layout.numbers == FOUR_POINT_NUMBERS:
            if count not in (0, FOUR_POINT_NUMBERS):
                raise LandmarkError(f"{path}: line {number}: {counted(count, 'number')}, expected 8: {_FOUR_POINTS}")
        elif len(fields) not in (0, len(HEADER)):
            raise LandmarkError(f"{path}: line {number}: {counted(count, 'number')}, expected 10 after the name")
        if fields and len(fields) == layout.numbers + 1 and (count or layout.numbers == FIVE_POINT_NUMBERS):
            found.append(fields)
    names, *numbers = map(pa.array, zip(*found, strict=True)) if found else [pa.array([], pa.string())] * len(HEADER)
    return text_block(names, numbers[: layout.numbers])


def text_block(names: pa.Array, numbers: Sequence[pa.Array]) -> Block:
    """Returns the rows of (N,) names and of a column of (N,) texts for each number."""
    if pc.any(pc.ends_with(names, ":")).as_py():  # as in name: 1 2 3
        names = pc.utf8_rtrim(names, " :")
    points = np.empty((len(names), len(numbers)), np.float32)
    for index, texts in enumerate(numbers):
        points[:, index] = float32(text_numbers(texts))
    return names, points, not_finite(points, numbers)
