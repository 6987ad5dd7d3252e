"""Reads the lines and columns of text tables; a line that does not fit is named by its number."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import pyarrow as pa
import pyarrow.csv

from pipeline.tables.landmark_table import LandmarkError
from pipeline.tables.streams import NOT_TEXT, UTF8_MARK, unix_lines
from shards.messages import counted

BLOCK_BYTES = 4 << 20
_WHITE_LINE = re.compile(rb"^[ \t]+$", re.MULTILINE)
HEAD_BYTES = 1 << 20  # looked at to tell the layout


def head_lines(stream: BinaryIO) -> list[str]:
    """The first lines of a file; bytes that are not UTF-8 become lone surrogates."""
    stream.seek(0)
    data = unix_lines(stream.read(HEAD_BYTES)).removeprefix(UTF8_MARK)
    whole = data if len(data) < HEAD_BYTES // 2 or b"\n" not in data else data[: data.rfind(b"\n") + 1]
    return whole.decode("utf-8", "surrogateescape").split("\n")


def first_row(stream: BinaryIO) -> tuple[int, str]:
    """Number and text of the first line that is neither empty nor a comment; 0 and nothing if there is none."""
    for number, line in enumerate(head_lines(stream), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            return number, line
    return 0, ""


def line_blocks(path: Path, stream: BinaryIO, header_lines: int = 0) -> Iterator[tuple[int, bytes]]:
    """Yields the number of a line and whole lines from it on, about ``BLOCK_BYTES`` at a time; not the header."""
    line = 1
    for block in _whole_lines(path, stream):
        skipped = block.split(b"\n", header_lines) if line == 1 and header_lines else [block]
        line += len(skipped) - 1
        yield line, skipped[-1]
        line += skipped[-1].count(b"\n")


def _whole_lines(path: Path, stream: BinaryIO) -> Iterator[bytes]:
    """Yields lines, each ended by a newline."""
    stream.seek(0)
    rest = stream.read(len(UTF8_MARK)).removeprefix(UTF8_MARK)
    while block := stream.read(BLOCK_BYTES):
        end = (block.rfind(b"\n") if b"\n" in block else block.rfind(b"\r")) + 1
        if not end and len(rest) > BLOCK_BYTES:
            raise LandmarkError(f"{path}: a line of more than {BLOCK_BYTES >> 20} MiB; expected a table")
        if end:
            yield unix_lines(rest + block[:end])
            rest = b""
        rest += block[end:]
    if rest:
        yield unix_lines(rest + b"\n")


def is_text(text: str) -> bool:
    """Returns False for bytes that are not UTF-8 (read as lone surrogates) and for NUL."""
    return (text.isascii() and "\0" not in text) or not any(
        character == "\0" or "\udc80" <= character <= "\udcff" for character in text
    )


def split_fields(line: str, separator: str) -> list[str]:
    """Splits a line as CSV; no fields if it cannot be split."""
    try:
        return next(csv.reader([line], delimiter=separator), [])
    except csv.Error:
        return []


def text_columns(
    rows: bytes, separator: str, columns: Sequence[str], *, line: int, wanted: Sequence[str] | None = None
) -> pa.Table:
    """Reads rows as columns of text.

    Args:
        line: number of the first one, for messages.
        wanted: columns of the result; None for all.

    Raises:
        ValueError: a line has not the right number of fields, or is not UTF-8.
    """
    try:
        return pa.csv.read_csv(
            pa.py_buffer(rows),
            read_options=pa.csv.ReadOptions(column_names=columns, use_threads=False, block_size=2 * BLOCK_BYTES),
            parse_options=pa.csv.ParseOptions(delimiter=separator),
            convert_options=pa.csv.ConvertOptions(
                column_types=dict.fromkeys(columns, pa.string()), include_columns=wanted, strings_can_be_null=False
            ),
        ).combine_chunks()
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        emptied = _WHITE_LINE.sub(b"", rows)  # Arrow ignores empty lines only
        if emptied != rows:
            return text_columns(emptied, separator, columns, line=line, wanted=wanted)
        problem = _malformed_line(rows, separator, columns, line) or str(error).splitlines()[0][:120]
        raise ValueError(problem) from None


def _malformed_line(rows: bytes, separator: str, columns: Sequence[str], line: int) -> str | None:
    """Describes the first malformed line; only called after Arrow has rejected the rows."""
    reader = csv.reader(rows.decode("utf-8", "surrogateescape").split("\n"), delimiter=separator)
    start = line  # first line of the record: an open quote swallows the lines after it
    try:
        for fields in reader:
            if fields and len(fields) != len(columns):
                return f"line {start}: {counted(len(fields), 'field')}, expected {len(columns)} ({','.join(columns)})"
            if not all(map(is_text, fields)):
                return f"line {start}: {NOT_TEXT}"
            start = line + reader.line_num
    except csv.Error as error:
        return f"line {start}: {error}"
    return None
