"""An HTML page about a shard set: what it is, examples, histograms, rejected rows."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.images.decode import ImageError, bytes_limit, decode_bytes
from pipeline.inspect import BINS_PX, FaceSizes
from pipeline.opencv import quiet
from pipeline.pages.pictures import Histogram, Tile, thumbnail
from pipeline.pages.render import environment
from pipeline.sources.file_readers import ImageTree
from pipeline.spec import spec_of
from shards.errors import ShardError
from shards.files import write_bytes
from shards.index import ShardIndex, ShardReader
from shards.messages import counted
from shards.schema import ROW_SCHEMA, STATUS_OK, read_plan, shard_file
from shards.tables import open_table

PER_BAND, PER_STATUS = 8, 12  # pictures
MAX_PIXELS = 1 << 25  # of a rejected image; a larger one is shown as a gap
SPLITS = ("train", "test", "")  # folders of a source in which identities may be
KEYED_SOURCES = ("vggface2", "folder", "crops", "qmul", "tinyface")  # whose keys are the paths of images
MAX_TEXT = 160  # characters of a message
COUNT_EDGES = (1, 2, 3, 5, 10, 20, 50, 100, 200, 500)
SIZE_EDGES_PX = (0, 32, 64, 96, 128, 192, 256, 384, 512, 1024)
_REJECTED_SCHEMA = pa.schema([ROW_SCHEMA.field(name) for name in ("key", "landmarks", "status", "error_message")])


def write_set_report(root: Path, path: Path) -> None:
    """Writes the page of a finished shard set, one file with all pictures in it.

    Raises:
        ShardError, ImageError: not a finished shard set, or a file of it is damaged.
    """
    with quiet:
        index = ShardIndex(root)
        sizes = FaceSizes.read(index.root)
        page = (
            environment()
            .get_template("shard_set.html")
            .render(
                title=f"Shard set {os.path.basename(os.path.realpath(root))}",
                about=_about(index),
                measure=sizes.measure,
                examples=list(_examples(index, sizes)),
                histograms=list(_histograms(index, sizes)),
                rejected=_rejected(index),
            )
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, page.encode())


def _about(index: ShardIndex) -> Iterator[tuple[str, str]]:
    manifest, spec = index.manifest, spec_of(index.manifest)
    empty = f", {manifest.empty_identities:,} of them without an image" if manifest.empty_identities else ""
    yield "folder", os.path.realpath(index.root)
    yield "source", manifest.source + (f", {root}" if (root := _source_root(index)) else "")
    yield "images", f"{len(index):,}, {index.size.sum() / 1e6:,.1f} MB, {index.size.mean() / 1e3:.1f} kB each"
    yield "identities", f"{manifest.identities:,}{empty}"
    yield (
        "images per identity",
        "min {}, median {}, max {}".format(*np.percentile(index.count, (0, 50, 100)).astype(int)),
    )
    yield "rows of the source", f"{manifest.rows:,}, {manifest.rows - manifest.images:,} rejected"
    yield "tars", f"{manifest.shards:,}"
    yield "template", f"{spec.template}, {spec.size} px, JPEG quality {spec.jpeg_quality}"
    yield "preprocessing", ", ".join(f"{name} {value}" for name, value in spec.to_dict().items())
    yield "versions", ", ".join(f"{name} {version}" for name, version in sorted(manifest.versions.items()))
    yield "digest of the index", manifest.index_digest
    yield "fingerprint", manifest.fingerprint


def _source_root(index: ShardIndex) -> str:
    """The folder that the set was built from; empty if the set does not say."""
    try:
        return str(read_plan(index.root)["root"])
    except ShardError:
        return ""


def _examples(index: ShardIndex, sizes: FaceSizes) -> Iterator[tuple[str, list[Tile]]]:
    """Yields the bands that have images, each with some of them."""
    rng = np.random.default_rng(0)
    histogram = Histogram.of("", sizes.faces, BINS_PX)
    bands = np.searchsorted(BINS_PX, sizes.faces, side="right") - 1
    with ShardReader(index) as reader:
        for band, (label, count, _) in enumerate(histogram.rows):
            if count:
                members = np.flatnonzero(bands == band)
                rows = np.sort(rng.choice(members, min(PER_BAND, count), replace=False))
                tiles = [
                    Tile(
                        caption=index.key(row),
                        detail=f"{int(sizes.faces[row])} px",  # 31.6 px stands under 24-32 px
                        jpeg=_stored_thumbnail(reader, row),
                    )
                    for row in rows.tolist()
                ]
                yield f"{label} px: {counted(count, 'image')}", tiles


def _stored_thumbnail(reader: ShardReader, row: int) -> bytes:
    """The picture of a stored image. Raises: ImageError, ShardError: it is damaged."""
    return thumbnail(decode_bytes(reader.image(row)))


def _histograms(index: ShardIndex, sizes: FaceSizes) -> Iterator[Histogram]:
    if sizes.faces is not sizes.shorter:
        yield Histogram.of(f"Images by {sizes.measure}, px", sizes.faces, BINS_PX)
    yield Histogram.of("Images by shorter side of the source, px", sizes.shorter, SIZE_EDGES_PX)
    yield Histogram.of("Identities by number of images", index.count, COUNT_EDGES, whole=True)


def _rejected(index: ShardIndex) -> list[tuple[str, int, list[Tile]]]:
    """Status, count and first rows of each kind of rejected rows, the most frequent first."""
    statuses = {status: count for status, count in index.manifest.statuses.items() if status != STATUS_OK and count}
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in _rejected_rows(index) if statuses else ():
        if len(rows[row["status"]]) < PER_STATUS:
            rows[row["status"]].append(row)
        if all(len(rows[status]) >= min(count, PER_STATUS) for status, count in statuses.items()):
            break
    pictures = _SourcePictures(index)
    return [
        (status, count, [_rejected_tile(row, pictures) for row in rows[status]])
        for status, count in sorted(statuses.items(), key=lambda item: (-item[1], item[0]))
    ]


def _rejected_rows(index: ShardIndex) -> Iterator[dict[str, Any]]:
    for shard in range(index.manifest.shards):
        with open_table(index.root / shard_file(shard, "parquet"), _REJECTED_SCHEMA) as reader:
            table = reader.read(_REJECTED_SCHEMA.names, use_threads=False)
            found = table.filter(pc.not_equal(table["status"], STATUS_OK)).to_pylist()
        yield from found


def _rejected_tile(row: dict[str, Any], pictures: _SourcePictures) -> Tile:
    return Tile(
        caption=_shortened(row["key"]),
        detail=_shortened(row["error_message"] or ""),
        jpeg=pictures.thumbnail(row["key"], row["landmarks"]),
    )


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}..."


class _SourcePictures:
    """The images of the folder that a set was built from, as far as it is still there."""

    def __init__(self, index: ShardIndex) -> None:
        root = _source_root(index) if index.manifest.source in KEYED_SOURCES else ""
        self._tree = ImageTree(Path(root), SPLITS) if root else None

    def thumbnail(self, key: str, points: list[float] | None) -> bytes | None:
        """The picture of ``identity/image`` with its landmarks; None if there is none."""
        parts = key.split("/")
        if self._tree is None or len(parts) != 2 or {"", ".", ".."} & set(parts) or "\0" in key:
            return None
        try:
            image = decode_bytes(self._tree.read(key, bytes_limit(MAX_PIXELS)), max_pixels=MAX_PIXELS)
        except (OSError, ImageError, MemoryError):  # the status says what is wrong with it
            return None
        return thumbnail(image, points)
