"""Lists the images of a RecordIO file, and who is on them.

insightface's files begin with a header record, whose two labels are the numbers of the first identity record and of the
one after the last. Each identity record has the numbers of its first image and of the one after its last. If these ranges
are complete, images need not be opened to list them. Otherwise the identity is the label that stands in each image's
record: in files without header records, in those whose header is damaged, and in those of more than 2**24 records, because
labels are 32-bit floats.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

from pipeline.images.decode import ImageError
from pipeline.sources.recordio_file import (
    FIRST,
    HEADER_BYTES,
    LENGTH_BITS,
    LENGTH_MASK,
    MAGIC,
    START,
    WHOLE,
    RecordFile,
)
from pipeline.sources.source import SourceError
from pipeline.tables.streams import open_stream
from shards.messages import printable

UNKNOWN = -1  # identity of a record that cannot be read
_EXACT = 1 << 24  # whole numbers up to it are exact as 32-bit floats
_CHUNK_RECORDS = 1 << 16


@dataclasses.dataclass(frozen=True)
class Records:
    """The N images of a RecordIO file, by record number.

    Attributes:
        numbers: (N,) int64.
        offsets: (N,) int64, bytes; meaningless in rows with a problem.
        identities: (N,) int64; ``UNKNOWN`` in some rows with a problem.
        problems: row -> what is wrong.
        stated: number of records that the header record states; 0 if there is none.
    """

    numbers: np.ndarray
    offsets: np.ndarray
    identities: np.ndarray
    problems: dict[int, str]
    stated: int = 0


def list_records(records: RecordFile, index: Path | None) -> Records:
    """Lists the images.

    Args:
        index: the ``.idx`` file; None to find the records by reading the whole file.

    Raises:
        SourceError: the index is not an index, or there is none and the file is damaged.
        OSError: a file cannot be read.
    """
    numbers, offsets = read_index(index) if index else _walked(records)
    order = np.argsort(numbers, kind="stable")
    numbers, offsets = numbers[order], offsets[order]
    outside = (offsets < 0) | (offsets > records.size - HEADER_BYTES)
    offsets = np.where(outside, records.size, offsets)  # where nothing is read
    return _by_ranges(records, numbers, offsets) or _by_labels(records, numbers, offsets)


def read_index(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Reads an ``.idx`` file: (N,) record numbers and (N,) offsets, int64, in the order of its lines.

    Raises:
        SourceError: a line has not two whole numbers, or there is none.
        OSError: it cannot be read.
    """
    columns = {"number": pa.int64(), "offset": pa.int64()}
    try:
        with open_stream(path) as stream:
            table = pa.csv.read_csv(
                stream,
                pa.csv.ReadOptions(column_names=list(columns), use_threads=False),
                pa.csv.ParseOptions(delimiter="\t", quote_char=False),
                pa.csv.ConvertOptions(column_types=columns, null_values=[]),
            )
    except pa.ArrowInvalid as error:
        reason = printable(" ".join(str(error).split()))[:100]
        raise SourceError(
            f"{path}: no index of records ({reason}); expected a line with number, tab and offset for each record; delete it"
            " to find the records without it"
        ) from None
    return table["number"].to_numpy(), table["offset"].to_numpy()


def _walked(records: RecordFile) -> tuple[np.ndarray, np.ndarray]:
    """Numbers the records that are found by walking through the file.

    Raises:
        SourceError: the file is damaged before its end, so that later records have no number.
    """
    offsets, end = records.walk()
    if len(offsets) == 0:
        raise SourceError(f"{records.name}: no RecordIO file: it does not begin with a record")
    if records.size - end >= HEADER_BYTES and records.starts(np.array([end]))["magic"][0] != MAGIC:
        raise SourceError(
            f"{records.name}: damaged at byte {end:,} of {records.size:,}, after {len(offsets):,} records; later ones cannot be"
            " found without the .idx file: restore one of the two"
        )
    if end < records.size:  # a record that is cut
        offsets = np.append(offsets, end)
    return np.arange(len(offsets)), offsets


def _is_header(starts: np.ndarray) -> np.ndarray:
    """(N,) bool: records with two labels and nothing else."""
    return (
        (starts["magic"] == MAGIC)
        & (starts["word"] == (WHOLE << LENGTH_BITS | HEADER_BYTES + 8))
        & (starts["flag"] == 2)
    )


def _whole_numbers(starts: np.ndarray) -> np.ndarray | None:
    """The (N, 2) labels of header records as int64; None if one is not a header or has no whole numbers."""
    labels = starts["labels"].astype(np.float64)
    if not _is_header(starts).all() or not ((labels >= 0) & (labels <= _EXACT) & (labels == np.floor(labels))).all():
        return None
    return labels.astype(np.int64)


def _by_ranges(records: RecordFile, numbers: np.ndarray, offsets: np.ndarray) -> Records | None:
    """Lists by the ranges of the identity records; None if there are none, or they are damaged or incomplete."""
    if len(numbers) == 0 or numbers[0] != 0 or (np.diff(numbers) == 0).any():
        return None
    header = _whole_numbers(records.starts(offsets[:1]))
    if header is None:
        return None
    first, last = header[0].tolist()
    at = np.searchsorted(numbers, np.arange(first, min(last, first + len(numbers) + 1)))
    if not 1 < first < last or last - first > len(numbers) or first > 2 * len(numbers):
        return None
    if at[-1] >= len(numbers) or (numbers[at] != np.arange(first, last)).any():
        return None
    ranges = _whole_numbers(records.starts(offsets[at]))
    if ranges is None or not ((ranges[:, 0] >= 1) & (ranges[:, 0] <= ranges[:, 1]) & (ranges[:, 1] <= first)).all():
        return None
    order = np.argsort(ranges[:, 0], kind="stable")
    order = order[ranges[order, 0] < ranges[order, 1]]
    starts, ends = ranges[order].T
    if (starts[1:] < ends[:-1]).any() or len(order) == 0:
        return None
    images = np.arange(1, first)
    place = np.searchsorted(starts, images, side="right") - 1
    covered = (place >= 0) & (images < ends[place])
    identities = np.where(covered, order[place], UNKNOWN)
    row = np.searchsorted(numbers, images).clip(max=len(numbers) - 1)
    listed = numbers[row] == images
    found = np.where(listed, offsets[row], records.size)
    problems = _outside(records, found)
    problems |= dict.fromkeys(np.flatnonzero(~covered).tolist(), "no identity record has it in its range")
    problems |= dict.fromkeys(np.flatnonzero(~listed & covered).tolist(), "the index has no such record")
    return Records(images, found, identities, problems)


def _outside(records: RecordFile, offsets: np.ndarray) -> dict[int, str]:
    reason = f"it lies outside {records.name}, or is cut at its end"
    return dict.fromkeys(np.flatnonzero(offsets == records.size).tolist(), reason)


def _by_labels(records: RecordFile, numbers: np.ndarray, offsets: np.ndarray) -> Records:
    """Lists by the label in each image's record."""
    header = _whole_numbers(records.starts(offsets[:1]))
    stated = 0 if header is None or len(header) == 0 else int(header[0, 1])
    labels, kept = np.empty(len(numbers)), np.ones(len(numbers), bool)
    problems: dict[int, str] = {}
    for start in range(0, len(numbers), _CHUNK_RECORDS):
        chunk = slice(start, start + _CHUNK_RECORDS)
        found = records.starts(offsets[chunk])
        kept[chunk] = ~_is_header(found)
        labels[chunk] = np.where(found["flag"] > 0, found["labels"][:, 0], found["label"])
        bad = (found["magic"] != MAGIC) | (found["word"] >> LENGTH_BITS > FIRST)
        for row in np.flatnonzero(bad & (offsets[chunk] < records.size)).tolist():
            problems[start + row] = f"no record at byte {offsets[start + row]:,} of {records.name}"
        short = found["word"] & LENGTH_MASK < HEADER_BYTES + 4 * (found["flag"] > 0)
        labels[chunk][short] = np.nan
        for row in np.flatnonzero(short & (found["word"] >> LENGTH_BITS == FIRST) & ~bad).tolist():
            labels[start + row] = _label(records, int(offsets[start + row]))  # the magic is among its labels
    problems |= _outside(records, offsets)
    odd = ~((labels >= 0) & (labels < 2**31) & (labels == np.floor(labels)))
    for row in np.flatnonzero(odd).tolist():
        problems.setdefault(row, f"its label {labels[row]} is not a class number")
    bad_rows = np.zeros(len(numbers), bool)
    bad_rows[list(problems)] = True
    identities = np.where(bad_rows, UNKNOWN, np.where(odd, 0, labels)).astype(np.int64)
    rows = np.flatnonzero(kept)
    place = np.cumsum(kept) - 1
    problems = {int(place[row]): reason for row, reason in problems.items() if kept[row]}
    return Records(numbers[rows], offsets[rows], identities[rows], problems, stated)


def _label(records: RecordFile, offset: int) -> float:
    """The label of a record whose first part ends before it; NaN if it has none."""
    try:
        payload = records.payload(offset).ljust(START.itemsize, b"\0")
    except ImageError:
        return float("nan")
    start = np.frombuffer(bytes(8) + payload[: START.itemsize - 8], START)[0]
    return float(start["labels"][0] if start["flag"] > 0 else start["label"])
