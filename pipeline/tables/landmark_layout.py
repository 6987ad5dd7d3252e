"""How a text table of landmarks is written: its separator, header and columns, from its first lines."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from pipeline.images.lookup import names_image
from pipeline.tables.landmark_table import FIVE_POINT_NUMBERS, FOUR_POINT_NUMBERS, HEADER, LandmarkError
from pipeline.tables.streams import NOT_TEXT
from pipeline.tables.text_lines import head_lines, is_text, split_fields
from pipeline.tables.text_numbers import is_number

MAX_HEADER_LINES = 3
SEPARATORS = ("\t", ";", ",")  # fields between them may be empty
_JSON_STARTS = ("{", "[{", "[[")
_BRACKETS = "[]()"  # around the numbers of a line, as Python prints a list
_TO_BLANKS = str.maketrans(dict.fromkeys("\t;,", " "))


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
    lines = [fields for line, fields in split if not is_comment(line, fields, len(fields) - 1)]
    counts = [trailing_numbers(fields) for fields in lines]
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
        for one in SEPARATORS:
            if columns := _named_columns(split_row(line, one)):
                return TextLayout(separator=one, numbers=FIVE_POINT_NUMBERS, columns=columns, header_lines=number)
        _check_line(path, number, line)
        separator = next((one for one in SEPARATORS if _separates(split_row(line, one))), "")
        fields = split_row(line, separator)
        if is_comment(line, fields):
            continue
        has_numbers = _has_numbers(fields)
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


def _check_line(path: Path, number: int, line: str) -> None:
    """Raises: LandmarkError: the first lines are in a form that is not read, with what to do about it."""
    if line.lstrip().startswith(_JSON_STARTS):
        raise _no_header(path, number, line.strip())
    if _named_columns(line.split()):
        raise LandmarkError(f"{path}: line {number}: columns in an order of their own; separate them by tabs or commas")
    for fields in (split_row(line, one) for one in (*SEPARATORS, "")):
        if len(fields) == len(HEADER) + 1 and (not fields[0].strip() or fields[0].strip().isdecimal()):  # of pandas
            raise LandmarkError(
                f"{path}: line {number}: {len(HEADER) + 1} fields, expected {len(HEADER)} ({','.join(HEADER)});"
                " leave out the column of row numbers (in pandas: to_csv(..., index=False))"
            )
        if len(fields) == len(HEADER) and is_number(fields[0]) and _is_path(fields[-1]):
            raise LandmarkError(
                f"{path}: line {number}: the path is the last field, expected the first: path, 10 numbers"
            )


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


def _no_header(path: Path, line: int, found: str) -> LandmarkError:
    return LandmarkError(
        f"{path}: line {line}: found {found[:80]!r}, expected the header {','.join(HEADER)}"
        " (or, without a header, a path and 10 numbers)"
    )


def is_comment(line: str, fields: Sequence[str], numbers: int = FIVE_POINT_NUMBERS) -> bool:
    """Returns True if a line begins with ``#``, unless a name and numbers follow at once: a name may begin so."""
    text = line.lstrip()
    is_row = len(fields) == numbers + 1 and _has_numbers(fields) and not text[1:2].isspace()
    return text.startswith("#") and not is_row


def _has_numbers(fields: Sequence[str]) -> bool:
    return any(not text.strip() or is_number(text) for text in fields[1:])


def split_row(line: str, separator: str, numbers: int = FIVE_POINT_NUMBERS) -> list[str]:
    """Splits a line into a name and numbers; another count of fields if it has not so many numbers.

    Args:
        separator: empty for blanks, commas, tabs and semicolons in any mixture. The name may contain them.
    """
    if separator:
        return split_fields(line, separator)
    line = line.strip()
    flat = line.translate(_TO_BLANKS)
    for text in (line, flat):
        fields = text.split()
        if len(fields) == numbers + 1:
            return [fields[0].strip('",;'), *(field.strip('",;' + _BRACKETS) for field in fields[1:])]
    if trailing_numbers(fields) != numbers:
        return fields
    name, *values = flat.rsplit(None, numbers)
    return [line[: len(name)].strip(' ",;'), *values]


def trailing_numbers(fields: Sequence[str]) -> int:
    """Counts the numbers at the end of a line, without its first field."""
    count = 0
    while count < len(fields) - 1 and is_number(fields[-1 - count]):
        count += 1
    return count
