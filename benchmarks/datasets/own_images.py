"""The images of a user's own benchmark: how they are aligned, and at which sizes they are compared."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from benchmarks.datasets.locate import Landmarks as Tables
from benchmarks.datasets.locate import tables_of
from benchmarks.datasets.resolutions import RESOLUTIONS
from benchmarks.errors import ProtocolError
from benchmarks.scoring.samples import MAX_IDENTITIES
from pipeline.images.lookup import composed, valid_text
from pipeline.prepare import Request
from pipeline.sources.templates import CropTemplate, crop_template
from pipeline.spec import MAX_SIZE_PX, NO_TEMPLATE
from pipeline.tables.landmark_lookup import NameLookup, PathLookup
from pipeline.tables.landmark_order import report_order
from pipeline.tables.landmark_reader import read_landmarks
from pipeline.tables.landmark_table import LandmarkError, Landmarks, LandmarkTable
from shards.files import StrPath
from shards.messages import counted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preparation:
    """How the images of a benchmark are prepared.

    Attributes:
        landmarks: tables to align photographs by, or a function that makes one.
        aligned: the template that the images, aligned crops, follow: its name, or a TOML file; ``none`` for images that
            are resized whole. None: not stated, so that only a network trained on unaligned images can be scored.
        sizes: px that images are degraded to, beside full size.

    Raises:
        ProtocolError: landmarks for aligned crops, or an invalid size.
    """

    landmarks: Tables = ()
    aligned: StrPath | None = None
    sizes: Sequence[int] = RESOLUTIONS

    def __post_init__(self) -> None:
        if self.landmarks and self.aligned is not None:
            raise ProtocolError("landmarks and aligned: aligned crops need no landmarks; leave one of them out")
        for size in self.sizes:
            if not 1 <= size <= MAX_SIZE_PX or self.sizes.count(size) > 1:
                raise ProtocolError(f"sizes: {size} px, expected different sizes of 1 to {MAX_SIZE_PX} px")

    @property
    def stated(self) -> bool:
        """Whether the user said how the images are aligned."""
        return bool(self.landmarks) or self.aligned is not None

    @property
    def template(self) -> CropTemplate | None:
        """The template of aligned crops. Raises: SourceError: there is no such one."""
        return None if self.aligned in (None, NO_TEMPLATE) else crop_template(self.aligned)  # type: ignore[arg-type]


def check_people(codes: np.ndarray, where: str) -> None:
    """Raises: ProtocolError: there are more people than a bootstrap takes; ``codes``: from 0, any shape."""
    if (people := int(codes.max()) + 1) > MAX_IDENTITIES:
        raise ProtocolError(f"{where}: {people:,} people, expected at most {MAX_IDENTITIES:,}; divide it into several")


def own_requests(paths: Sequence[Path], preparation: Preparation) -> list[Request]:
    """Returns a request for each image, undegraded.

    Raises:
        LandmarkError: a table is invalid, or has no landmarks for any of the images.
        SourceError: there is no such template.
    """
    if not preparation.landmarks:
        template = preparation.template
        return [Request(path=path, template=template) for path in paths]
    table = read_landmarks(tables_of(preparation.landmarks, paths))
    names = ", ".join(file.path.name for file in table.files)
    report_order(table.points, names)
    lookup = PathLookup(table, [valid_text(str(path)) for path in paths])
    problems = [lookup.problem(image) for image in range(len(paths))]
    if all(problems):
        return _by_name(table, names, paths)
    return [
        Request(path=path, points=(), place=names, problem=problem) if problem else _aligned(path, lookup.find(image))
        for image, (path, problem) in enumerate(zip(paths, problems, strict=True))
    ]


def _by_name(table: LandmarkTable, names: str, paths: Sequence[Path]) -> list[Request]:
    """The requests of images that lie in other folders than the table says; their names must tell them apart."""
    found = []
    if len({composed(path.stem.lower()) for path in paths}) == len(paths):
        with contextlib.suppress(LandmarkError):  # one name, several faces
            lookup = NameLookup(table)
            found = [lookup.find(path) for path in paths]
    if not any(landmarks.points for landmarks in found):
        raise LandmarkError(
            f"{names}: no landmarks for any of {counted(len(paths), 'image')}, for example {paths[0]}; name the right table"
            " with --landmarks"
        )
    return [_aligned(path, landmarks) for path, landmarks in zip(paths, found, strict=True)]


def _aligned(path: Path, landmarks: Landmarks) -> Request:
    return Request(path=path, points=landmarks.points, place=landmarks.place)
