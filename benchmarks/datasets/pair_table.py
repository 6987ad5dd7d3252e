"""Tables of pairs: two paths and whether they show one person, as text or Parquet, with or without a header."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.errors import ProtocolError
from pipeline.images.lookup import names_image
from pipeline.sources.image_text import ListLayout, list_blocks, named_columns, stated_row
from pipeline.tables.landmark_reader import parquet_batches, parquet_rows
from pipeline.tables.text_lines import split_fields
from shards.messages import first_line
from shards.tables import PARQUET_ERRORS

FIRST, SECOND, SAME, FOLD = "first", "second", "same", "fold"
EXPECTED = (
    "the header path1,path2,same (and fold), or lines of two image files and 1 or 0 (same or different); or LFW's form: name,"
    " i, j, and name, i, name, j"
)
MAX_FOLDS = 1 << 15
_NAMED = ("path", "image", "img", "im", "file", "filename", "imagepath", "imgpath", "filepath", "photo", "face", "name")
_TAILS = ("", "path", "file", "name")  # as of image1_path
_PAIRED = [
    (f"{name}{one}{tail}", f"{name}{two}{tail}")
    for one, two in ("12", "ab", "01")
    for name in _NAMED
    for tail in _TAILS
]
_PAIRED += [(f"first{name}", f"second{name}") for name in _NAMED] + [(f"left{name}", f"right{name}") for name in _NAMED]
_PAIRED += [("first", "second"), ("left", "right"), ("reference", "probe"), ("a", "b")]
_SAME = (
    SAME,
    "issame",
    "sameperson",
    "label",
    "genuine",
    "match",
    "ismatch",
    "target",
    "mated",
    "truth",
    "isgenuine",
    "groundtruth",
)
_FOLD = (FOLD, "folds", "foldid")
_YES = "1 1.0 true t yes y same genuine match mated positive"
_NO = "0 0.0 -1 -1.0 false f no n different diff impostor imposter nonmatch nonmated negative"
_TRUTH = dict.fromkeys(_YES.split(), True) | dict.fromkeys(_NO.split(), False)
_QUOTED_CHARS = 40


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairTable:
    """The P rows of a table.

    Attributes:
        first: (P,) paths as stated; empty where missing.
        second: (P,) likewise.
        genuine: (P,) bool.
        folds: (P,) int codes, or None if the table has no such column.
    """

    first: pa.StringArray
    second: pa.StringArray
    genuine: np.ndarray
    folds: np.ndarray | None


def read_pair_table(path: Path, stream: BinaryIO, *, is_parquet: bool) -> PairTable:
    """Reads a table.

    Raises:
        ProtocolError: it lacks a column, or a value is not what the column holds.
        SourceError: there is no text, or a line has not the right number of fields.
        LandmarkError: a line is far too long.
        OSError: it cannot be read.
    """
    if is_parquet:
        blocks = list(_parquet_blocks(path, stream))
    else:
        layout = _layout(path, stream)
        blocks = [
            {name: pc.utf8_trim_whitespace(block[name].combine_chunks()) for name in block.column_names}
            for block in list_blocks(path, stream, layout)
        ]
    if not sum(len(block[FIRST]) for block in blocks):
        raise ProtocolError(f"{path}: no pairs; expected {EXPECTED}")
    columns = {name: pa.concat_arrays([block[name] for block in blocks]) for name in blocks[0]}
    return PairTable(
        first=columns[FIRST],
        second=columns[SECOND],
        genuine=_truth(path, columns),
        folds=_folds(path, columns[FOLD]) if FOLD in columns else None,
    )


def _layout(path: Path, stream: BinaryIO) -> ListLayout:
    """How a text table is written, from its first line that is neither empty nor a comment."""
    number, line = stated_row(path, stream, EXPECTED)
    problem = ""
    for separator in ("\t", ";", ",", ""):
        fields = split_fields(line, separator) if separator else line.split()
        if (columns := _row_columns(fields)) is not None:
            return ListLayout(separator=separator, columns=columns, header_lines=number - 1)
        try:
            return ListLayout(separator=separator, columns=_columns(fields), header_lines=number)
        except ValueError as error:
            problem = f" ({error})" if len(fields) > 2 else problem
    raise ProtocolError(f"{path}: line {number}: found {line.strip()[:_QUOTED_CHARS]!r}{problem}, expected {EXPECTED}")


def _row_columns(fields: Sequence[str]) -> list[str] | None:
    """What the fields of a row without header are: two images and a truth value in any order, or these and a fold.

    Empty fields at the end, as spreadsheets write them, become numbers.
    """
    texts = [field.strip() for field in fields]
    while texts and not texts[-1]:
        texts.pop()
    images = [names_image(text) for text in texts]
    ignored = [str(number) for number in range(len(texts), len(fields))]
    if len(texts) == 3 and sum(images) == 2 and texts[images.index(False)].lower() in _TRUTH:
        paths = iter((FIRST, SECOND))
        return [next(paths) if one else SAME for one in images] + ignored
    if images == [True, True, False, False] and texts[2].lower() in _TRUTH:
        return [FIRST, SECOND, SAME, FOLD, *ignored]
    return None


def _columns(names: Sequence[str]) -> list[str]:
    """What the columns of a header are; a name that means nothing here becomes its number.

    Raises:
        ValueError: a column is missing.
    """
    plain = [re.sub("[^a-z0-9]", "", name.lower()) for name in names]
    paths = next((pair for pair in _PAIRED if set(pair) <= set(plain)), None)
    if paths is None:
        raise ValueError("no columns path1 and path2")
    columns = named_columns(plain, {FIRST: paths[:1], SECOND: paths[1:], SAME: _SAME, FOLD: _FOLD})
    if SAME not in columns:
        raise ValueError(f"no column {SAME}")
    return columns


def _parquet_blocks(path: Path, stream: BinaryIO) -> Iterator[dict[str, pa.StringArray]]:
    parquet_rows(path, stream)  # refuses more than the file can hold
    stream.seek(0)
    try:
        with pq.ParquetFile(stream, pre_buffer=False) as file:
            names = file.schema_arrow.names
            wanted = dict(zip(_columns(names), names, strict=True))
            wanted = {meaning: name for meaning, name in wanted.items() if not meaning.isdecimal()}
            for batch in parquet_batches(file, list(wanted.values())):
                yield {meaning: _text(batch.column(name)) for meaning, name in wanted.items()}
    except PARQUET_ERRORS as error:
        raise ProtocolError(
            f"{path}: not a table of pairs ({first_line(error)}); expected columns path1, path2, same"
        ) from None


def _text(column: pa.Array) -> pa.StringArray:
    return pc.utf8_trim_whitespace(pc.fill_null(pc.cast(column, pa.string()), ""))


def _truth(path: Path, columns: dict[str, pa.StringArray]) -> np.ndarray:
    """(P,) bool. Raises: ProtocolError: a word is not a truth value."""
    words = columns[SAME].dictionary_encode()
    values = [_TRUTH.get(word.strip().lower()) for word in words.dictionary.to_pylist()]
    if None in values:
        code = values.index(None)
        row = int(np.argmax(words.indices.to_numpy() == code))
        word = words.dictionary[code].as_py()
        raise ProtocolError(
            f"{path}: pair {row + 1} ({columns[FIRST][row]}, {columns[SECOND][row]}): found {word[:_QUOTED_CHARS]!r},"
            " expected 1 or 0, same or different, true or false, genuine or impostor"
        )
    return np.array(values, bool)[words.indices.to_numpy()]


def _folds(path: Path, column: pa.StringArray) -> np.ndarray:
    """(P,) codes of the folds, whatever they are called."""
    words = column.dictionary_encode()
    names = words.dictionary.to_pylist()
    if "" in names:
        row = int(np.argmax(words.indices.to_numpy() == names.index("")))
        raise ProtocolError(f"{path}: pair {row + 1}: no fold; fill the column {FOLD} in every row, or leave it out")
    if not 2 <= len(names) <= MAX_FOLDS:
        raise ProtocolError(
            f"{path}: the column {FOLD} has {len(names):,} values, expected 2 to {MAX_FOLDS:,}; leave it out for ten folds"
        )
    order = {name: code for code, name in enumerate(sorted(names))}
    return np.array([order[name] for name in names])[words.indices.to_numpy()]
