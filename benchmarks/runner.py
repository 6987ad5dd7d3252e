"""What every benchmark shares: files found whatever their case, images embedded once, the result's form."""

from __future__ import annotations

import dataclasses
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL
from PIL import Image

from pipeline.progress import Progress
from pipeline.synthetic import GENERATED_MARKER
from shards.files import ShardError
from shards.schema import Preprocessing

Embed = Callable[[np.ndarray], np.ndarray]
SPEC = Preprocessing()  # how benchmarks prepare images, and what a bare state dict is taken to expect


class ProtocolError(Exception):
    """A data set that is not laid out as its protocol needs, or a checkpoint that it cannot judge. One line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """What a benchmark found; figures are fractions.

    Attributes:
        data: the folder that was scored, and what is known of it.
        metrics: figures by name.  intervals: their 95 % intervals.  counts: sizes of what was scored.
        checkpoint: what was judged.  preprocessing: how its images were prepared.
        curve: FAR, TAR and the interval of TAR, for pictures.
    """

    benchmark: str
    data: str
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    counts: dict[str, int]
    checkpoint: dict[str, Any]
    preprocessing: dict[str, Any]
    curve: dict[str, list[float]]

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON-able fields, with the versions that it depends on."""
        versions = {"python": platform.python_version(), "numpy": np.__version__, "pillow": PIL.__version__}
        return {**dataclasses.asdict(self), "versions": versions}


def data_label(root: Path) -> str:
    """``data/QMUL-SurvFace (generated faces)``: so that nobody takes scores on painted faces for others."""
    return f"{root} (generated faces)" if (root / GENERATED_MARKER).exists() else str(root)


def find_entry(folder: Path, name: str) -> Path | None:
    """``folder/name``, whatever the case of the name on disk."""
    if (folder / name).exists():
        return folder / name
    entries = folder.iterdir() if folder.is_dir() else []
    return next((entry for entry in entries if entry.name.lower() == name.lower()), None)


def check_preprocessing(
    stated: dict[str, Any] | None, fields: Sequence[str], benchmark: str, checkpoint: dict[str, Any]
) -> Preprocessing:
    """The spec that images are prepared by.

    Args:
        stated: the checkpoint's spec; None where it states none, and the reference's is assumed.
        checkpoint: its facts, for the message.
        fields: the part of the spec that this benchmark's pixels depend on.

    Raises:
        ProtocolError: the checkpoint learned from pixels that were prepared otherwise.
    """
    if stated is None:
        return SPEC
    try:
        spec = Preprocessing.from_dict(stated)
    except ShardError as error:
        raise ProtocolError(f"bench {benchmark}: {checkpoint.get('path')}: {error}") from None
    differing = [name for name in fields if getattr(spec, name) != getattr(SPEC, name)]
    if differing:
        says = "; ".join(
            f"{name}: checkpoint {getattr(spec, name)!r}, benchmark {getattr(SPEC, name)!r}" for name in differing
        )
        raise ProtocolError(
            f"bench {benchmark}: {checkpoint.get('path')}: preprocessing disagrees ({says}); use a checkpoint that was trained alike"
        )
    return spec


def embed_files(
    paths: Sequence[Path], prepare: Callable[[Image.Image], Image.Image], embed: Embed, *, batch_size: int, label: str
) -> np.ndarray:
    """Embeds each file once: (N, D) float32 of unit length.

    Args:
        prepare: from the RGB image in the file to what the network sees.

    Raises:
        ProtocolError: a file does not decode, or an embedding is not finite.
    """
    out: list[np.ndarray] = []
    with Progress(label, len(paths)) as progress:
        for start in range(0, len(paths), batch_size):
            part = paths[start : start + batch_size]
            out.append(embed(np.stack([np.asarray(prepare(read_rgb(path))) for path in part])))
            progress.update(len(part))
    embeddings = np.concatenate(out)
    if not np.isfinite(embeddings).all():
        raise ProtocolError(
            "the network's embeddings are not finite; the checkpoint is damaged or its training diverged"
        )
    return embeddings / np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-12)


def read_rgb(path: Path) -> Image.Image:
    """The image in a file as RGB. Raises: ProtocolError: absent or not decodable."""
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = (
            "not found"
            if isinstance(error, FileNotFoundError)
            else f"cannot be decoded ({str(error).splitlines()[0][:80]})"
        )
        raise ProtocolError(f"{path}: {reason}; restore it from the data set's archive") from None
