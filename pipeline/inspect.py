"""Statistics and a contact sheet of a shard set."""

from __future__ import annotations

import dataclasses
import zlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow as pa
import torch

from pipeline.degradation.presets import Degradation
from pipeline.degradation.realistic import degrade_image
from pipeline.load.degrade import degrade
from pipeline.spec import spec_of
from shards.files import write_bytes
from shards.finish import describe
from shards.index import ShardIndex, ShardReader
from shards.messages import counted, printable
from shards.schema import INDEX, INDEX_SCHEMA
from shards.tables import read_table

SHEET_SIZES_PX = (8, 12, 16)  # columns after the stored crop, degraded as in training
MAX_SHEET_ROWS = 10
BAR_CHARACTERS = 40
BINS_PX = (0, 8, 16, 24, 32, 48, 64, 96, 128)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaceSizes:
    """Sizes of the N source faces: eye distances if they are known, else shorter sides.

    Attributes:
        measure: which of them.
        faces: (N,) px.
        shorter: (N,) px, shorter side of the source image.
    """

    measure: str
    faces: np.ndarray
    shorter: np.ndarray

    @classmethod
    def read(cls, root: Path) -> FaceSizes:
        """Reads the index of a shard set. Raises: ShardError: it cannot be read."""
        names = ("eye_distance", "width", "height")
        eyes, width, height = read_table(root / INDEX, pa.schema(map(INDEX_SCHEMA.field, names))).columns
        shorter = np.minimum(width.to_numpy(), height.to_numpy())
        if eyes.null_count:
            return cls(measure="shorter side of the source", faces=shorter, shorter=shorter)
        return cls(measure="eye distance in the source", faces=eyes.to_numpy(), shorter=shorter)


def statistics(root: Path) -> str:
    """Formats the counts of a shard set, its rejected rows and a histogram of the face sizes. Raises: ShardError: not finished."""
    index = ShardIndex(root)
    manifest, counts = index.manifest, index.count
    low, median, high = np.percentile(counts, (0, 50, 100)).astype(int)
    empty = manifest.empty_identities
    spec = spec_of(manifest)
    crops = f"{spec.size} px, {f'template {spec.template}' if spec.aligned else 'not aligned'}"
    lines = [
        f"{root}: {counted(manifest.images, 'image')} of {counted(len(index.labels), 'identity')}"
        f" in {counted(manifest.shards, 'shard')}, from {manifest.source}",
        f"crops: {crops}, {index.size.sum() / 1e6:,.1f} MB, {index.size.mean() / 1e3:.1f} kB each",
        f"images per identity: min {low}, median {median}, mean {counts.mean():.1f}, max {high}"
        + (f"; {counted(empty, 'identity')} lost all images" if empty else ""),
        f"rejected: {manifest.rows - manifest.images:,} of {counted(manifest.rows, 'row')} ({describe(manifest.statuses)})",
        "",
    ]
    sizes = FaceSizes.read(root)
    lines += [f"{sizes.measure}, px:", *_histogram(sizes.faces)]
    return "\n".join(map(printable, lines))


def _histogram(values: np.ndarray) -> list[str]:
    edges = np.array([*BINS_PX, np.inf])
    counts = np.histogram(values, edges)[0]
    names = [f"{low:g}-{high:g}" for low, high in zip(BINS_PX, BINS_PX[1:], strict=False)] + [f"{BINS_PX[-1]:g}+"]
    return [
        f"{name:>8} {count:>10,} {'#' * round(BAR_CHARACTERS * count / max(counts.max(), 1))}"
        for name, count in zip(names, counts, strict=True)
    ]


def contact_sheet(root: Path, out: Path, degradations: Sequence[Degradation] = ()) -> None:
    """Writes a PNG with one identity per row: a stored crop, and others degraded to 8, 12 and 16 px.

    Args:
        degradations: how they are degraded; none: by the bicubic filter.

    Raises:
        ShardError: not a finished shard set, or an image is damaged.
        PresetError: the file of a preset cannot be used.
    """
    columns = [(px, one) for one in degradations or (None,) for px in SHEET_SIZES_PX]
    index = ShardIndex(root)
    identities = np.linspace(0, len(index.labels) - 1, min(MAX_SHEET_ROWS, len(index.labels))).astype(int)
    size = spec_of(index.manifest).size
    rows = []
    with ShardReader(index) as reader:
        for identity in identities.tolist():
            images = index.first[identity] + np.arange(1 + len(columns)) % index.count[identity]
            jpegs = [reader.image(row) for row in images.tolist()]
            views = [_shown(jpeg, *column) for jpeg, column in zip(jpegs, [(size, None), *columns], strict=True)]
            name = index.key(int(images[0])).rpartition("/")[0]
            rows.append(np.hstack([_label(name, size), *views]))
    titles = ["identity", "HR", *(f"{px} px {one.label if one else ''}".rstrip() for px, one in columns)]
    header = np.hstack([_label(title, 24, size) for title in titles])
    out.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(out, cv2.imencode(".png", np.vstack([header, *rows]))[1].tobytes())


def _shown(jpeg: bytes, px: int, degradation: Degradation | None) -> np.ndarray:
    """An image at ``px`` and back, (S, S, 3) BGR; it alone decides what it draws from a preset."""
    crop = np.asarray(cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR))
    side = len(crop)
    if degradation is None or px >= side:
        return degrade(torch.from_numpy(crop), min(px, side)).numpy()
    return degrade_image(crop[..., ::-1], px, degradation.preset, (zlib.crc32(jpeg), 0))[..., ::-1]


def _label(text: str, height: int, width: int | None = None) -> np.ndarray:
    tile = np.full((height, width or height, 3), 255, np.uint8)
    cv2.putText(tile, text[:18], (6, height // 2 + 5), cv2.FONT_HERSHEY_SIMPLEX, 0.4, (40, 40, 40), 1, cv2.LINE_AA)
    return tile
