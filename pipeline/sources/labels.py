"""Keys of images whose identity is stated beside them, and the rows that they make."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.sources.source import Reader, Rows, SourceError
from pipeline.tables.landmark_lookup import PathLookup
from pipeline.tables.landmark_reader import read_landmarks
from pipeline.tables.landmark_scale import check_pixels
from pipeline.tables.landmark_table import FIVE_POINT_NUMBERS, not_finite

NO_IDENTITY = "-"  # stands for the identity of rows that state none
BAD_RECORD, BAD_LANDMARKS = "bad-record", "bad-landmarks"
MAX_IDENTITY_BYTES = 200
REMEDY = "--aligned says which template aligned crops follow, --landmarks names a table, --template none resizes images whole"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labelled:
    """N images with their identities.

    Attributes:
        names: (N,) paths, with extension; each image has another one, unless it is given twice.
        identities: (N,) any text; null where none is stated.
        places: (N,) as in ``Rows``.
        points: (N, 10) float32, NaN where there are none; None if no image has points.
        problems: row -> why it cannot be stored.
        others: entries that are not images.
    """

    names: pa.StringArray
    identities: pa.StringArray
    places: pa.BinaryArray
    points: np.ndarray | None = None
    problems: Mapping[int, str] = dataclasses.field(default_factory=dict)
    others: Sequence[str] = ()


def labelled_rows(
    images: Labelled,
    landmarks: Sequence[Path],
    *,
    aligning: bool,
    reader: Reader,
    parts: dict[str, Any],
    where: str,
    expected: str,
) -> Rows:
    """Returns the rows of a source.

    Args:
        landmarks: tables to look the images up in; empty for the images' own points.
        parts: as in ``Rows``; a digest of the images and ``landmarks`` are added.
        where: the source of the images, for messages.
        expected: where their identities should be stated, for messages.

    Raises:
        SourceError: no image has an identity; or images are to be aligned, but none has points.
        LandmarkError: a table cannot be read.
    """
    if images.identities.null_count == len(images.identities):
        raise SourceError(f"{where}: states the identity of no image; expected {expected}")
    keys = image_keys(images.names, images.identities)
    problems = {row: (BAD_RECORD, reason) for row, reason in images.problems.items()}
    for row in np.flatnonzero(images.identities.is_null().to_numpy(zero_copy_only=False)).tolist():
        problems.setdefault(row, (BAD_RECORD, "no identity is stated"))
    points = None
    if aligning:
        points, reasons, digests = _points(images, landmarks, where)
        problems = {row: (BAD_LANDMARKS, reason) for row, reason in reasons.items()} | problems
        parts = {**parts, "--landmarks": digests}
    return Rows(
        keys=keys,
        reader=reader,
        parts={**parts, "images": _digest(images, keys, points)},
        places=images.places,
        points=points,
        problems=problems,
        others=images.others,
    )


def image_keys(names: pa.StringArray, identities: pa.StringArray) -> pa.StringArray:
    """Returns ``identity/image`` of each image.

    A slash in an identity becomes ``%2F``. The image is called as its file, without folders and extension; images of one
    identity that would be called the same have their folders in front, with ``%2F`` for the slashes.
    """
    identities = _escaped(pc.fill_null(identities, NO_IDENTITY))
    stems = pc.replace_substring_regex(names, r"\.[^./]*$", "")
    short = pc.replace_substring_regex(stems, r"(?s)^.*/", "")
    keys = pc.binary_join_element_wise(identities, short, "/")
    codes = keys.dictionary_encode().indices.to_numpy(zero_copy_only=False)
    repeated = pa.array((np.bincount(codes, minlength=1) > 1)[codes])
    if not pc.any(repeated).as_py():
        return keys
    return pc.if_else(repeated, pc.binary_join_element_wise(identities, _escaped(stems), "/"), keys)


def _escaped(texts: pa.StringArray) -> pa.StringArray:
    """Replaces slashes by ``%2F``, so that different texts stay different."""
    if not pc.any(pc.match_substring_regex(texts, "/|%2F")).as_py():
        return texts
    return pc.replace_substring(pc.replace_substring(texts, "%2F", "%252F"), "/", "%2F")


def _points(images: Labelled, landmarks: Sequence[Path], where: str) -> tuple[np.ndarray, dict[int, str], list[str]]:
    """Points, the reasons of rows without, and digests of the tables."""
    if landmarks:
        table = read_landmarks(landmarks)
        points, reasons = PathLookup(table, images.names.to_pylist()).points()
        return points, reasons, [file.sha256 for file in table.files]
    if images.points is None:
        raise SourceError(f"{where}: states no landmarks; {REMEDY}")
    check_pixels(Path(where), images.points)
    absent = np.isnan(images.points).all(1)
    reasons = not_finite(images.points)
    return images.points, reasons | dict.fromkeys(np.flatnonzero(absent).tolist(), "no landmarks are stated"), []


def _digest(images: Labelled, keys: pa.StringArray, points: np.ndarray | None) -> str:
    """SHA-256 of everything that identifies the images of a source."""
    value = hashlib.sha256()
    for column in (keys, images.places):
        lengths = pc.binary_length(column).to_numpy(zero_copy_only=False)
        value.update(np.ascontiguousarray(lengths, "<i8").tobytes())
        for start in range(0, len(column), 1 << 16):
            texts = column[start : start + (1 << 16)].to_pylist()
            value.update(b"".join(text.encode() if isinstance(text, str) else text for text in texts))
    value.update(b"" if points is None else np.ascontiguousarray(points, "<f4").tobytes())
    return value.hexdigest()


def row_points(numbers: Any) -> list[float] | None:
    """Returns the ten numbers of five points, given flat or in pairs; None for anything else."""
    if not isinstance(numbers, list | tuple):
        return None
    flat = [one for pair in numbers for one in (pair if isinstance(pair, list | tuple) else [pair])]
    if len(flat) != FIVE_POINT_NUMBERS or not all(type(one) in (int, float) for one in flat):
        return None
    try:
        return [float(one) for one in flat]
    except OverflowError:
        return None
