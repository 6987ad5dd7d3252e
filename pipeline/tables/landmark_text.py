"""Text tables of landmarks: a name and numbers a line, whatever separates them, with or without a header."""

from __future__ import annotations

import csv
import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pipeline.images.lookup import names_image
from pipeline.tables.landmark_table import (
    FIVE_POINT_NUMBERS,
    FOUR_POINT_NUMBERS,
    HEADER,
    Block,
    LandmarkError,
    float32,
    not_finite,
)
from pipeline.tables.streams import NOT_TEXT, UTF8_MARK, unix_lines
from pipeline.tables.text_numbers import is_number, text_numbers
from shards.messages import counted

BLOCK_BYTES = 4 << 20
HEAD_BYTES = 1 << 20  # looked at to tell the layout
MAX_HEADER_LINES = 3
_SEPARATORS = ("\t", ";", ",")  # fields between them may be empty
_HASH_LINE = re.compile(rb"^[ \t]*#.*$", re.MULTILINE)
_JSON_STARTS = ("{", "[{", "[[")
_BRACKETS = "[]()"  # around the numbers of a line, as Python prints a list
_TO_BLANKS = str.maketrans(dict.fromkeys("\t;,", " "))
_FOUR_POINTS = "x and y of left eye, right eye, nose and mouth centre"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextLayout:
    """How a text table is written.

    Attributes:
        separator: the character between fields; empty if they are separated by blanks or by several kinds of characters.
        numbers: numbers a line, 10 or 8.
        columns: of a table with a separator, in its order; those that mean nothing here are called by their position.
        header_lines: lines before the first row.
    """

    separator: str
    numbers: int
    columns: tuple[str, ...] = tuple(HEADER)
    header_lines: int = 0


def has_four_points(stream: BinaryIO) -> bool:
    """Returns True if most lines with numbers have eight."""
    split = ((line, line.translate(_TO_BLANKS).split()) for line in head_lines(stream))
    lines = [fields for line, fields in split if not _is_comment(line, fields, len(fields) - 1)]
    counts = [_trailing_numbers(fields) for fields in lines]
    counts = [count for count, fields in zip(counts, lines, strict=True) if count and count in (8, 10, len(fields) - 1)]
    return counts.count(FOUR_POINT_NUMBERS) > max(1, len(counts) // 2)


def text_layout(path: Path, stream: BinaryIO, four_points: bool) -> TextLayout:
    """Finds out how a table is written, from its first lines.

    Raises:
        LandmarkError: the first line that is neither empty nor a header has not ten numbers, or is not text.
    """
    if four_points and has_four_points(stream):
        return TextLayout(separator="", numbers=FOUR_POINT_NUMBERS)
    number, headers, wordy = 1, 0, 0
    for number, line in enumerate(head_lines(stream), 1):
        if not is_text(line):
            raise LandmarkError(f"{path}: line {number}: {NOT_TEXT}; expected the header {','.join(HEADER)}")
        if not line.strip():
            continue
        if line.lstrip().startswith(_JSON_STARTS):
            raise _no_header(path, number, line.strip())
        for one in _SEPARATORS:
            if columns := _named_columns(_fields(line, one)):
                return TextLayout(separator=one, numbers=FIVE_POINT_NUMBERS, columns=columns, header_lines=number)
        if _named_columns(line.split()):
            raise LandmarkError(
                f"{path}: line {number}: columns in an order of their own; separate them by tabs or commas"
            )
        if any(_has_index_column(_fields(line, one)) for one in _SEPARATORS):
            raise LandmarkError(
                f"{path}: line {number}: {len(HEADER) + 1} fields, expected {len(HEADER)} ({','.join(HEADER)});"
                " leave out the column of row numbers (in pandas: to_csv(..., index=False))"
            )
        separator = next((one for one in _SEPARATORS if _separates(_fields(line, one))), "")
        fields = _fields(line, separator)
        if _is_comment(line, fields):
            continue
        has_numbers = _has_numbers(fields)
        if len(fields) == len(HEADER) and is_number(fields[0]) and _is_path(fields[-1]):
            raise LandmarkError(
                f"{path}: line {number}: the path is the last field, expected the first: path, 10 numbers"
            )
        if has_numbers and len(fields) == len(HEADER):
            return TextLayout(separator=separator, numbers=FIVE_POINT_NUMBERS, header_lines=(wordy or number) - 1)
        if len(fields) == len(HEADER) and (_is_path(fields[0]) or names_image(fields[0])):
            wordy = wordy or number  # a row whose numbers are words, such as None
            continue
        headers += 1
        if has_numbers or len(fields) not in (1, len(HEADER) - 1, len(HEADER)) or headers > MAX_HEADER_LINES:
            raise _no_header(path, number, line.strip())
    if wordy or not headers:
        raise _no_header(path, wordy or 1, "no line with numbers" if wordy else "an empty line")
    return TextLayout(separator=",", numbers=FIVE_POINT_NUMBERS, header_lines=number)


def text_blocks(path: Path, stream: BinaryIO, layout: TextLayout) -> Iterator[Block]:
    """Yields the rows of a table, some megabytes at a time.

    Raises:
        LandmarkError: a line has not the right number of fields, or is not UTF-8.
    """
    for line, block in line_blocks(path, stream, layout.header_lines):
        rows = _without_comments(block, layout)
        if rows.strip():
            yield (_separated_block if layout.separator else _mixed_block)(path, rows, line, layout)


def _named_columns(fields: Sequence[str]) -> tuple[str, ...]:
    """The columns of a header that names those of ``HEADER`` in another order, or others too; empty for another line."""
    names = [field.strip().upper() for field in fields]
    if "PATH" in names and HEADER[0] not in names:  # as the Parquet table of ``landmarks`` calls it
        names[names.index("PATH")] = HEADER[0]
    if names == HEADER or sorted(name for name in names if name in HEADER) != sorted(HEADER):
        return ()
    return tuple(name if name in HEADER else str(number) for number, name in enumerate(names))


def _separates(fields: Sequence[str]) -> bool:
    """Returns False for a wrong count, and where numbers with a decimal comma that blanks separate were split at it."""
    return len(fields) == len(HEADER) and not any(
        len(parts := field.split()) > 1 and all(map(is_number, parts)) for field in fields[1:]
    )


def _is_path(text: str) -> bool:
    return "/" in text or "\\" in text


def _has_index_column(fields: Sequence[str]) -> bool:
    """Returns True if a line has one field too many, and its first is an integer, or empty as in a header of pandas."""
    return len(fields) == len(HEADER) + 1 and (not fields[0].strip() or fields[0].strip().isdecimal())


def _no_header(path: Path, line: int, found: str) -> LandmarkError:
    return LandmarkError(
        f"{path}: line {line}: found {found[:80]!r}, expected the header {','.join(HEADER)}"
        " (or, without a header, a path and 10 numbers)"
    )


def head_lines(stream: BinaryIO) -> list[str]:
    """The first lines of a file; bytes that are not UTF-8 become lone surrogates."""
    stream.seek(0)
    data = unix_lines(stream.read(HEAD_BYTES)).removeprefix(UTF8_MARK)
    whole = data if len(data) < HEAD_BYTES // 2 else data[: data.rfind(b"\n") + 1]
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


def _without_comments(rows: bytes, layout: TextLayout) -> bytes:
    """Empties the lines that are comments; their newlines stay, so that lines keep their numbers."""
    if b"#" not in rows:
        return rows

    def kept(line: re.Match[bytes]) -> bytes:
        text = line[0].decode("utf-8", "surrogateescape")
        fields = _fields(text, layout.separator, layout.numbers)
        return (
            b""
            if _is_comment(text, fields, len(layout.columns) - 1 if layout.separator else layout.numbers)
            else line[0]
        )

    return _HASH_LINE.sub(kept, rows)


def _is_comment(line: str, fields: Sequence[str], numbers: int = FIVE_POINT_NUMBERS) -> bool:
    """Returns True if a line begins with ``#``, unless a name and numbers follow at once: a name may begin so."""
    text = line.lstrip()
    is_row = len(fields) == numbers + 1 and _has_numbers(fields) and not text[1:2].isspace()
    return text.startswith("#") and not is_row


def _has_numbers(fields: Sequence[str]) -> bool:
    return any(not text.strip() or is_number(text) for text in fields[1:])


def _separated_block(path: Path, rows: bytes, line: int, layout: TextLayout) -> Block:
    texts = dict.fromkeys(layout.columns, pa.string())
    try:
        table = pa.csv.read_csv(
            pa.py_buffer(rows),
            read_options=pa.csv.ReadOptions(column_names=layout.columns, use_threads=False, block_size=2 * BLOCK_BYTES),
            parse_options=pa.csv.ParseOptions(delimiter=layout.separator),
            convert_options=pa.csv.ConvertOptions(
                column_types=texts, include_columns=HEADER, strings_can_be_null=False
            ),
        ).combine_chunks()
    except (pa.ArrowInvalid, UnicodeDecodeError) as error:
        problem = _malformed_line(rows, line, layout) or str(error).splitlines()[0]
        raise LandmarkError(f"{path}: {problem}") from None
    names, *numbers = (column.chunk(0) for column in table.columns)
    return text_block(names, numbers)


def _mixed_block(path: Path, rows: bytes, line: int, layout: TextLayout) -> Block:
    """Rows whose fields are separated by blanks, or by commas here and blanks there. Empty fields are not seen."""
    found = []
    for number, text in enumerate(rows.decode("utf-8", "surrogateescape").split("\n"), line):
        fields = _fields(text, "", layout.numbers)
        if not is_text(text):
            raise LandmarkError(f"{path}: line {number}: {NOT_TEXT}")
        count = _trailing_numbers(fields)
        if layout.numbers == FOUR_POINT_NUMBERS:
            if count not in (0, FOUR_POINT_NUMBERS):
                raise LandmarkError(f"{path}: line {number}: {counted(count, 'number')}, expected 8: {_FOUR_POINTS}")
        elif len(fields) not in (0, len(HEADER)):
            raise LandmarkError(f"{path}: line {number}: {counted(count, 'number')}, expected 10 after the name")
        if fields and len(fields) == layout.numbers + 1 and (count or layout.numbers == FIVE_POINT_NUMBERS):
            found.append(fields)
    names, *numbers = map(pa.array, zip(*found, strict=True)) if found else [pa.array([], pa.string())] * len(HEADER)
    return text_block(names, numbers[: layout.numbers])


def _fields(line: str, separator: str, numbers: int = FIVE_POINT_NUMBERS) -> list[str]:
    """Splits a line into a name and numbers; another count of fields if it has not so many numbers.

    Args:
        separator: empty for blanks, commas, tabs and semicolons in any mixture. The name may contain them.
    """
    if separator:
        try:
            return next(csv.reader([line], delimiter=separator), [])
        except csv.Error:
            return []
    line = line.strip()
    flat = line.translate(_TO_BLANKS)
    for text in (line, flat):
        fields = text.split()
        if len(fields) == numbers + 1:
            return [fields[0].strip('",;'), *(field.strip('",;' + _BRACKETS) for field in fields[1:])]
    if _trailing_numbers(fields) != numbers:
        return fields
    name, *values = flat.rsplit(None, numbers)
    return [line[: len(name)].strip(' ",;'), *values]


def _trailing_numbers(fields: Sequence[str]) -> int:
    """Counts the numbers at the end of a line, without its first field."""
    count = 0
    while count < len(fields) - 1 and is_number(fields[-1 - count]):
        count += 1
    return count


def text_block(names: pa.Array, numbers: Sequence[pa.Array]) -> Block:
    """Returns the rows of (N,) names and of a column of (N,) texts for each number."""
    if pc.any(pc.ends_with(names, ":")).as_py():  # as in name: 1 2 3
        names = pc.utf8_rtrim(names, " :")
    points = np.empty((len(names), len(numbers)), np.float32)
    for index, texts in enumerate(numbers):
        points[:, index] = float32(text_numbers(texts))
    return names, points, not_finite(points, numbers)


def _malformed_line(rows: bytes, line: int, layout: TextLayout) -> str | None:
    """Describes the first malformed line; only called after Arrow has rejected the rows."""
    reader = csv.reader(rows.decode("utf-8", "surrogateescape").split("\n"), delimiter=layout.separator)
    start = line  # first line of the record: an open quote swallows the lines after it
    try:
        for fields in reader:
            if fields and len(fields) != len(layout.columns):
                expected = f" ({','.join(HEADER)})" if len(layout.columns) == len(HEADER) else ""
                return f"line {start}: {counted(len(fields), 'field')}, expected {len(layout.columns)}{expected}"
            if not all(map(is_text, fields)):
                return f"line {start}: {NOT_TEXT}"
            start = line + reader.line_num
    except csv.Error as error:
        return f"line {start}: {error}"
    return None


def is_text(text: str) -> bool:
    """Returns False for bytes that are not UTF-8 (read as lone surrogates) and for NUL."""
    return (text.isascii() and "\0" not in text) or not any(
        character == "\0" or "\udc80" <= character <= "\udcff" for character in text
    )
