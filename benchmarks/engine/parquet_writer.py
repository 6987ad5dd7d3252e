"""Embeds image files into a Parquet file, group by group: memory grows only with the number of paths."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.engine.identities import IMAGE_SCHEMA, STATUS_NO_LANDMARKS, STATUS_UNUSABLE, ImageRows
from benchmarks.engine.runner import Engine
from benchmarks.errors import ProtocolError
from benchmarks.scoring.vectors import unit_length, vector_norms
from pipeline.images.lookup import valid_text
from pipeline.images.sizes import image_size
from pipeline.prepare import Request
from pipeline.progress import Progress
from pipeline.sources.folders import utf8
from pipeline.sources.templates import CropTemplate
from pipeline.sources.watch import SourceWatch
from pipeline.tables.landmark_lookup import PathLookup
from pipeline.tables.landmark_order import report_order
from pipeline.tables.landmark_reader import read_landmarks
from pipeline.tables.landmark_scale import scale_warning, spread
from pipeline.tables.landmark_table import Landmarks
from shards.files import whole_file
from shards.messages import print_stderr
from shards.schema import STATUS_OK

ROW_GROUP = 8192  # images embedded before they are written


def embed_images(
    engine: Engine,
    paths: Sequence[str],
    out: Path,
    *,
    landmarks: Sequence[Path] = (),
    aligned: CropTemplate | None = None,
    down: int | None = None,
    rows: ImageRows | None = None,
    metadata: dict[str, str] | None = None,
    folders: Iterable[Path] = (),
) -> int:
    """Embeds images into a Parquet file, one row per image, in order. The file is written atomically.

    An image that cannot be embedded is a row without embedding; ``status`` and ``error_message`` say why.

    Args:
        landmarks: tables to align by. Without them each image is taken as a crop of the network's own template and
            resized.
        aligned: another template that the images, aligned crops, follow; they are brought to the network's own one.
        down: degrade each image to this many px and back; None: do not.
        rows: the rows to write; None: one for each image, without identity.
        metadata: for the file; ``alignment`` and ``down`` are added, and what ``rows`` say.
        folders: of the images; it is an error if one is gone before the end.

    Returns:
        The number of embedded images.

    Raises:
        ProtocolError: an embedding is not finite, or images are to be aligned for a network that was trained on unaligned
            images only.
        LandmarkError: a table cannot be read.
        SourceError: one of ``folders`` is gone.
    """
    if (landmarks or aligned) and not engine.spec.aligned:
        raise ProtocolError(
            f"the network was trained on unaligned images only (template {engine.spec.template}): leave out"
            f" {'--landmarks' if landmarks else '--aligned'}"
        )
    engine = dataclasses.replace(engine, watch=SourceWatch(folders))
    rows = rows or ImageRows()
    paths = rows.ordered(paths)
    table = _lookup(landmarks, paths) if landmarks else None
    metadata = {
        **(metadata or {}),
        "alignment": "landmarks" if landmarks else aligned.name if aligned else "none",
        "down": str(down or ""),
        **rows.metadata,
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    embedded = 0
    with (
        whole_file(out) as temporary,
        open(temporary, "wb") as stream,
        pq.ParquetWriter(
            stream,
            rows.schema.with_metadata(metadata),
            compression="zstd",
            use_dictionary=["status"],
            write_page_checksum=True,  # a vector with a flipped bit may still have a length of nearly 1
        ) as file,
        Progress("embed", len(paths)) as progress,
    ):
        for start in range(0, len(paths), ROW_GROUP):
            group = range(start, min(start + ROW_GROUP, len(paths)))
            images = _embed_group(engine, paths, group, table, aligned, down, progress)
            embedded += images.num_rows - images["embedding"].null_count
            if len(found := rows.add(images)):  # of a large identity, a group of images may complete no template
                file.write_table(found.replace_schema_metadata(metadata))
        if len(found := rows.finish()):
            file.write_table(found.replace_schema_metadata(metadata))
    return embedded


def _lookup(landmarks: Sequence[Path], paths: Sequence[str]) -> PathLookup:
    """Reads landmark tables; prints if their points are in another order or for images of another size."""
    rows, names = read_landmarks(landmarks), ", ".join(path.name for path in landmarks)
    report_order(rows.points, names)
    table = PathLookup(rows, [valid_text(path) for path in paths])
    tried = [image for image in spread(len(paths)) if table.problem(image) is None]
    faces = [(paths[image], table.find(image).points, image_size(Path(paths[image]))) for image in tried]
    if warning := scale_warning(faces):
        print_stderr(f"{names}: {warning}")
    return table


def _embed_group(
    engine: Engine,
    paths: Sequence[str],
    group: range,
    landmarks: PathLookup | None,
    aligned: CropTemplate | None,
    down: int | None,
    progress: Progress,
) -> pa.Table:
    """The rows of one group of images."""
    reasons: list[str | None] = [landmarks.problem(image) if landmarks else None for image in group]
    statuses = [STATUS_OK if reason is None else STATUS_NO_LANDMARKS for reason in reasons]
    rows = [row for row, reason in enumerate(reasons) if reason is None]
    progress.skip(len(reasons) - len(rows))
    requests = [
        _request(Path(paths[group[row]]), landmarks.find(group[row]) if landmarks else None, aligned, down)
        for row in rows
    ]
    embedded = engine.embed_all(requests, progress)
    norms = vector_norms(embedded.vectors)
    for row, request, norm in zip(rows, requests, norms, strict=True):
        if request.name in embedded.missing or norm == 0:
            statuses[row] = STATUS_UNUSABLE
            reasons[row] = str(embedded.missing.get(request.name, "the network's output is zero"))
    all_norms = np.zeros(len(reasons), np.float32)
    all_norms[rows] = norms
    failed = np.array([reason is not None for reason in reasons])
    units = unit_length(embedded.vectors[norms > 0])
    offsets = np.concatenate([[0], np.cumsum(~failed)]) * units.shape[1]
    return pa.table(
        [
            pa.array([utf8(paths[image]) for image in group]),
            pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(units.ravel()), mask=pa.array(failed)),
            pa.array(all_norms, mask=failed),
            pa.array(statuses),
            pa.array(reasons, pa.string()),
        ],
        schema=IMAGE_SCHEMA,
    )


def _request(path: Path, landmarks: Landmarks | None, aligned: CropTemplate | None, down: int | None) -> Request:
    if landmarks is None:
        return Request(path=path, template=aligned, down=down)
    return Request(path=path, points=landmarks.points, down=down, place=landmarks.place)
