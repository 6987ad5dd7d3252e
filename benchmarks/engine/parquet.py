"""Images of any origin -> a Parquet file of embeddings; memory does not grow with their number, but for their names."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.engine.runner import Engine
from benchmarks.errors import ProtocolError
from benchmarks.scoring.vectors import unit_length, vector_lengths
from pipeline.prepare import Request
from pipeline.progress import Progress
from pipeline.sources.landmarks import IMAGE_SUFFIXES, clean_keys, read_landmarks
from pipeline.sources.points import Landmarks
from shards.files import whole_file
from shards.schema import STATUS_OK

NO_LANDMARKS, UNUSABLE = "no-landmarks", "unusable-image"  # statuses beside ok
SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),  # as found; bytes that are not UTF-8 as \\xNN
        # 512 numbers of unit length, null where the status is not ok. A list of variable size, as in the shards:
        # PyArrow before 24 cannot read a fixed one with nulls.
        pa.field("embedding", pa.list_(pa.float32())),
        pa.field("norm", pa.float32()),  # length that the network gave it: embedding * norm is its output
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_message", pa.string()),
    ]
)
_ROW_GROUP = 8192  # images; what is held in memory at a time


def find_images(paths: Sequence[Path]) -> list[str]:
    """Files as they are named, and the images in folders and the folders in them, sorted; each path once.

    Raises:
        ProtocolError: there is none.
    """
    found: dict[str, None] = {}
    for path in paths:
        found.update(dict.fromkeys(_images_below(path) if path.is_dir() else [str(path)]))
    if not found:
        raise ProtocolError(f"{', '.join(map(str, paths))}: no images in it; expected {', '.join(IMAGE_SUFFIXES)}")
    return list(found)


def _images_below(root: Path) -> Iterator[str]:
    """Links to folders are followed, into each folder once."""
    seen = set()
    for folder, folders, names in os.walk(root, onerror=_fail, followlinks=True):
        facts = os.stat(folder)
        if (facts.st_dev, facts.st_ino) in seen:
            folders.clear()
            continue
        seen.add((facts.st_dev, facts.st_ino))
        folders.sort()
        yield from (os.path.join(folder, name) for name in sorted(names) if name.lower().endswith(IMAGE_SUFFIXES))


def _fail(error: OSError) -> None:
    raise error


def embed_images(
    engine: Engine,
    paths: Sequence[str],
    out: Path,
    *,
    landmarks: Sequence[Path] = (),
    down: int | None = None,
    metadata: dict[str, str] | None = None,
) -> int:
    """Writes the embeddings of images to a Parquet file, whole or not at all, a row for each in their order.

    Args:
        landmarks: tables to align by; without, each image is an aligned crop or a tight face and is resized.
        down: degrade each to this many px and back; None: do not.
        metadata: of the file.

    Returns:
        how many could be embedded; the others have no embedding, and ``status`` and ``error_message`` say why.

    Raises:
        ProtocolError: an embedding is not finite.
        LandmarkError: a table cannot be read.
    """
    points = _Points(landmarks, paths) if landmarks else None
    out.parent.mkdir(parents=True, exist_ok=True)
    embedded = 0
    with (
        whole_file(out) as temporary,
        open(temporary, "wb") as stream,
        pq.ParquetWriter(stream, SCHEMA.with_metadata(metadata), compression="zstd", use_dictionary=["status"]) as file,
        Progress("embed", len(paths)) as progress,
    ):
        for start in range(0, len(paths), _ROW_GROUP):
            group = range(start, min(start + _ROW_GROUP, len(paths)))
            table = _embedded(engine, paths, group, points, down, progress)
            file.write_table(table.replace_schema_metadata(metadata))
            embedded += table.num_rows - table["embedding"].null_count
    return embedded


def _embedded(
    engine: Engine, paths: Sequence[str], group: range, points: _Points | None, down: int | None, progress: Progress
) -> pa.Table:
    """The rows of one group of images."""
    reasons: list[str | None] = [points.problem(number) if points else None for number in group]
    statuses = [STATUS_OK if reason is None else NO_LANDMARKS for reason in reasons]
    wanted = [row for row, reason in enumerate(reasons) if reason is None]
    progress.skip(len(reasons) - len(wanted))
    requests = [_request(Path(paths[group[row]]), points.of(group[row]) if points else None, down) for row in wanted]
    found = engine.embed_all(requests, progress)
    norms = vector_lengths(found.vectors)
    for row, request, norm in zip(wanted, requests, norms, strict=True):
        if request.path in found.missing or norm == 0:
            statuses[row] = UNUSABLE
            reasons[row] = found.missing.get(request.path, "the network gives it an embedding of length 0")
    lengths = np.zeros(len(reasons), np.float32)
    lengths[wanted] = norms
    bad = np.array([reason is not None for reason in reasons])
    units = unit_length(found.vectors[norms > 0])
    offsets = np.concatenate([[0], np.cumsum(~bad)]) * units.shape[1]
    return pa.table(
        [
            pa.array([_text(paths[number]) for number in group]),
            pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(units.ravel()), mask=pa.array(bad)),
            pa.array(lengths, mask=bad),
            pa.array(statuses),
            pa.array(reasons, pa.string()),
        ],
        schema=SCHEMA,
    )


class _Points:
    """Landmarks of images: the row of a table whose name is the longest end of the image's path.

    So ``n000001/0001_01`` is for ``VGGFace2/train/n000001/0001_01.jpg``, and ``0001_01`` would be, too.

    Raises:
        LandmarkError: a table cannot be read.
    """

    def __init__(self, tables: Sequence[Path], paths: Sequence[str]) -> None:
        table = read_landmarks(tables)
        self._table, self._source = table, ", ".join(map(str, tables))
        self._rows = np.full(len(paths), -1)
        deepest = pc.max(pc.count_substring(table.keys, "/")).as_py() + 1
        for depth in range(1, deepest + 1):
            ends = pa.array(["/".join(_text(path).split("/")[-depth:]) for path in paths])
            found = pc.index_in(clean_keys(ends), value_set=table.keys).fill_null(-1).to_numpy()
            self._rows = np.where(found >= 0, found, self._rows)
        codes = table.keys.dictionary_encode().indices.to_numpy()
        self._twice = (np.bincount(codes) > 1)[codes]
        self._shared = np.bincount(self._rows[self._rows >= 0], minlength=len(codes)) > 1

    def problem(self, image: int) -> str | None:
        """Why image number ``image`` has no landmarks of its own; None if it has."""
        row = self._rows[image]
        if row < 0:
            return f"no landmarks in {self._source}"
        if self._twice[row]:
            return f"landmarks given twice in {self._source}"
        if self._shared[row]:
            return f"several images have the name of these landmarks in {self._source}"
        return None

    def of(self, image: int) -> Landmarks:
        """The five points, px, of image number ``image``, which has its own; not a number where the table has none."""
        row = int(self._rows[image])
        points = tuple((x, y) for x, y in self._table.points[row].astype(float).reshape(-1, 2).tolist())
        return Landmarks(points=points, place=self._table.place(row))


def _request(path: Path, landmarks: Landmarks | None, down: int | None) -> Request:
    if landmarks is None:
        return Request(path=path, down=down)
    return Request(path=path, points=landmarks.points, down=down, place=landmarks.place)


def _text(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")
