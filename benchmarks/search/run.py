"""Searches a gallery for each probe, and writes the matches; memory does not grow with the gallery."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import BinaryIO

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.errors import SearchError
from benchmarks.search.approximate import CompressedGallery, candidates
from benchmarks.search.calibration import Calibration
from benchmarks.search.exact import TopMatches
from benchmarks.search.matches import SCHEMA, match_rows
from benchmarks.search.queries import Queries, SamePaths, in_template, read_queries, same_paths
from benchmarks.search.table import EmbeddingTable
from pipeline.progress import Progress
from pipeline.sources.folders import utf8
from shards.arguments import check_argument, check_path, check_whole
from shards.files import StrPath, whole_file

RECALL_PROBES = 200  # are also compared exactly, to measure an approximate search
ONE_NETWORK = ("digest", "preprocessing", "flip")  # metadata that must be equal


@dataclasses.dataclass(kw_only=True)
class Summary:
    """What a search did.

    Attributes:
        gallery: rows of the gallery with an embedding.
        gallery_unusable: rows without.
        probes: probes with an embedding.
        probes_unusable: probes without.
        same_path: pairs of a probe and a gallery row of one path, which are not compared.
        in_template: probes that lie where the images of a template of the gallery lie.
        bounded: matches whose likelihood ratio is bounded.
        differences: how the images of the tables differ from those of the calibration.
        recall: share of the best matches that an approximate search found; None if it was exact.
    """

    gallery: int = 0
    gallery_unusable: int = 0
    probes: int = 0
    probes_unusable: int = 0
    same_path: int = 0
    in_template: int = 0
    bounded: int = 0
    differences: list[str] = dataclasses.field(default_factory=list)
    recall: float | None = None


def search_tables(
    gallery: StrPath,
    probes: StrPath,
    out: StrPath,
    *,
    top: int = 10,
    approximate: bool = False,
    calibration: Calibration | None = None,
) -> Summary:
    """Writes the ``top`` best gallery rows of each probe to a Parquet file, atomically.

    Args:
        gallery: a file of ``embed``.
        probes: another one of the same network, or the same one: a row is not compared with one of the same path.
        approximate: find candidates in a gallery compressed by FAISS.
        calibration: turns scores into likelihood ratios.

    Raises:
        SearchError: a table is invalid, or tables and calibration are not of one network.
        TypeError, ValueError: an argument of a wrong type or value.
    """
    gallery, probes, out = check_path("gallery", gallery), check_path("probes", probes), check_path("out", out)
    top = check_whole("top", top, 1)
    good = isinstance(calibration, Calibration | None)
    check_argument(good, "calibration", calibration, "a Calibration, as read_calibration(path) returns, or None")
    with EmbeddingTable(gallery) as faces, EmbeddingTable(probes) as queries:
        check_one_network(faces, queries)
        if calibration is not None:
            calibration.check_network(faces.path, faces.metadata)
        out.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(out) as temporary, open(temporary, "wb") as stream:
            return _write_matches(stream, faces, queries, top, approximate, calibration)


def _write_matches(
    stream: BinaryIO,
    gallery: EmbeddingTable,
    probes: EmbeddingTable,
    top: int,
    approximate: bool,
    calibration: Calibration | None,
) -> Summary:
    metadata = {
        "gallery": utf8(str(gallery.path)),
        "probes": utf8(str(probes.path)),
        "top": str(top),
        "index": "pq" if approximate else "exact",
        **{name: gallery.metadata[name] for name in ("backbone", *ONE_NETWORK) if name in gallery.metadata},
        "calibration": "" if calibration is None else json.dumps(calibration.to_dict()),
    }
    summary = Summary()
    if calibration is not None:
        summary.differences += calibration.differences("gallery", gallery.metadata)
        summary.differences += calibration.differences("probes", probes.metadata)
    index = None
    if approximate:
        with Progress("index", 2 * gallery.rows, "rows") as progress:
            index = CompressedGallery(gallery, progress.update)
    with (
        pq.ParquetWriter(stream, SCHEMA.with_metadata(metadata), compression="zstd") as file,
        Progress("search", probes.rows * gallery.rows, "comparisons") as progress,
    ):
        for queries in read_queries(probes, top, candidates(top) if approximate else 0):
            scores, rows = _search(queries, gallery, top, index, summary, progress)
            part = match_rows(queries.table, queries.rows, scores, rows, gallery, calibration)
            summary.bounded += pc.sum(part["lr_bounded"], min_count=0).as_py()
            file.write_table(part.replace_schema_metadata(metadata))
    return summary


def check_one_network(first: EmbeddingTable, second: EmbeddingTable) -> None:
    """Raises: SearchError: the embeddings cannot be compared."""
    for name in ONE_NETWORK:
        found = [table.metadata.get(name, "") for table in (first, second)]
        if found[0] != found[1]:
            short = [text if len(text) < 60 else f"{text[:57]}..." for text in found]
            raise SearchError(
                f"{first.path} and {second.path}: embedded by different networks or preprocessing ({name} {short[0] or 'none'}"
                f" and {short[1] or 'none'}); embed both with the same --network"
            )
    if first.length != second.length:
        raise SearchError(
            f"{first.path} and {second.path}: embeddings of {first.length:,} and of {second.length:,} numbers; embed both"
            " with the same --network"
        )


def _search(
    queries: Queries,
    gallery: EmbeddingTable,
    top: int,
    index: CompressedGallery | None,
    summary: Summary,
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray]:
    """The (P, top) best scores and gallery rows of some probes; adds to the summary."""
    same = same_paths(queries, gallery)
    if index is None:
        found = TopMatches(queries.vectors, top)
        summary.gallery = _compare(found, gallery, same, lambda rows: progress.update(rows * len(queries.table)))
        scores, rows = found.scores, found.rows
    else:
        scores, rows = index.search(queries.vectors, top, same)
        summary.gallery = index.size
        if summary.recall is None and len(queries.rows):
            summary.recall = _recall(queries, gallery, same, rows)
        progress.update(gallery.rows * len(queries.table))
    summary.gallery_unusable = gallery.rows - summary.gallery
    summary.probes += len(queries.rows)
    summary.probes_unusable += len(queries.table) - len(queries.rows)
    summary.same_path += len(same.rows)
    summary.in_template += in_template(queries, gallery)
    return scores, rows


def _compare(found: TopMatches, gallery: EmbeddingTable, same: SamePaths, advance: Callable[[int], object]) -> int:
    """Adds the whole gallery to ``found``; returns the number of its embeddings."""
    usable = 0
    for block in gallery.blocks():
        found.add(block.vectors, block.rows, *same.within(block))
        usable += len(block.rows)
        advance(len(block.paths))
    return usable


def _recall(queries: Queries, gallery: EmbeddingTable, same: SamePaths, rows: np.ndarray) -> float:
    """Share of the exact search's rows that an approximate one found, of a few probes."""
    tried = np.unique(np.linspace(0, len(rows) - 1, RECALL_PROBES).astype(int))
    found = TopMatches(queries.vectors[tried], rows.shape[1])
    _compare(found, gallery, same.of(tried), lambda rows: None)
    pairs = zip(found.rows, rows[tried], strict=True)
    hits = sum(len(np.intersect1d(exact[exact >= 0], approximate)) for exact, approximate in pairs)
    return hits / max(int((found.rows >= 0).sum()), 1)
