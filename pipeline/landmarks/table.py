"""The landmark table: its columns, and its two forms, Parquet and the CSV of VGGFace2."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.images.lookup import composed
from pipeline.landmarks.faces import FacePoints
from pipeline.tables.landmark_table import HEADER, POINT_NAMES, clean_keys, composed_column, valid_keys
from shards.files import naming, open_regular, whole_file
from shards.schema import STATUS_OK

STATUS_NO_FACE, STATUS_UNREADABLE = "no-face", "unreadable-image"
ROW_GROUP = 1 << 16
_BOX = ("box_left", "box_top", "box_width", "box_height")
SCHEMA = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),  # below the root; bytes that are not UTF-8 as \\xNN
        *(pa.field(name, pa.float32()) for name in POINT_NAMES),  # px; the top left corner of the image is (0, 0)
        pa.field("score", pa.float32()),  # of the detector, 0 to 1
        pa.field("faces", pa.int32()),  # found in the image; null if it is unreadable
        *(pa.field(name, pa.float32()) for name in _BOX),  # of the chosen face, px
        pa.field("eye_distance", pa.float32()),  # px
        *(pa.field(name, pa.float32()) for name in ("roll", "yaw", "pitch")),  # degrees
        pa.field("status", pa.string(), nullable=False),
        pa.field("reason", pa.string()),  # why there are no points
    ]
)


def found_row(path: str, face: FacePoints) -> dict[str, Any]:
    """The row of an image with a face."""
    return {
        "path": path,
        **dict(zip(POINT_NAMES, face.points.ravel().tolist(), strict=True)),
        "score": face.score,
        "faces": face.faces,
        **dict(zip(_BOX, face.box, strict=True)),
        "eye_distance": float(np.linalg.norm(face.points[1] - face.points[0])),
        "roll": face.roll,
        "yaw": face.yaw,
        "pitch": face.pitch,
        "status": STATUS_OK,
    }


def write_table(out: Path, parts: Iterable[pa.Table], metadata: dict[str, str]) -> None:
    """Writes a table atomically, joining the parts to row groups of some size."""
    out.parent.mkdir(parents=True, exist_ok=True)
    schema = SCHEMA.with_metadata(metadata)
    with (
        whole_file(out) as temporary,
        open(temporary, "wb") as stream,
        pq.ParquetWriter(stream, schema, compression="zstd", use_dictionary=["status"]) as file,
    ):
        for rows in _grouped(parts):
            file.write_table(rows.replace_schema_metadata(metadata))


def write_csv(out: Path, table: Path) -> int:
    """Writes the rows with points of a landmark table as VGGFace2's CSV, atomically.

    Names have neither extension nor split folder, as in VGGFace2.

    Returns:
        The number of rows with points that are left out: their name holds a line break, or is that of several images,
        such as ``train/a/1.jpg`` and ``test/a/1.jpg``. One of these may be the only one with a face, and the table would
        then state its points for the others.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    left_out = 0
    with open_regular(table) as source, pq.ParquetFile(source, pre_buffer=False) as file:
        shared = _shared_names(file.read(columns=["path"], use_threads=False)["path"])
        with whole_file(out) as temporary, naming(out), open(temporary, "w", encoding="utf-8", newline="") as stream:
            stream.write(",".join(HEADER) + "\n")
            for batch in file.iter_batches(columns=["path", *POINT_NAMES], use_threads=False):
                rows = batch.filter(batch.column("P1X").is_valid())
                columns = [rows.column(name).to_pylist() for name in POINT_NAMES]
                for key, *numbers in zip(
                    clean_keys(valid_keys(rows.column("path"))).to_pylist(), *columns, strict=True
                ):
                    if "\n" in key or "\r" in key or composed(key) in shared:
                        left_out += 1
                    else:
                        quoted = key.replace('"', '""')
                        stream.write(f'"{quoted}",' + ",".join(f"{number:.3f}" for number in numbers) + "\n")
    return left_out


def _shared_names(paths: pa.ChunkedArray) -> set[str]:
    """The names that several images have in the CSV."""
    counts = pc.value_counts(composed_column(clean_keys(valid_keys(paths.combine_chunks()))))
    return set(counts.field("values").filter(pc.greater(counts.field("counts"), 1)).to_pylist())


def _grouped(parts: Iterable[pa.Table]) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    for part in parts:
        waiting.append(part)
        if sum(map(len, waiting)) >= ROW_GROUP:
            yield pa.concat_tables(waiting).combine_chunks()
            waiting = []
    if waiting:
        yield pa.concat_tables(waiting).combine_chunks()
