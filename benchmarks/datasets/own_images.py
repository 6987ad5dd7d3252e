"""The images of the user's own questions: how they are aligned, and at which sizes they are compared."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from benchmarks.datasets.locate import Landmarks, tables_of
from benchmarks.datasets.resolutions import RESOLUTIONS
from benchmarks.errors import ProtocolError
from pipeline.prepare import Request
from pipeline.sources.folders import utf8
from pipeline.sources.landmark_lookup import PathLookup
from pipeline.sources.landmark_order import report_order
from pipeline.sources.landmark_reader import read_landmarks
from pipeline.sources.landmarks import LandmarkError
from pipeline.sources.templates import CropTemplate, crop_template
from pipeline.spec import MAX_SIZE_PX, NO_TEMPLATE
from shards.files import StrPath
from shards.messages import counted


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preparation:
    """How the images of a question are prepared.

    Attributes:
        landmarks: tables to align photographs by, or a function that makes one.
        aligned: the template that the images, aligned crops, follow: its name, or a TOML file; ``none`` for images that
            are resized whole. None: not stated, so that only a network trained on unaligned images can be scored.
        sizes: px that images are degraded to, beside full size.

    Raises:
        ProtocolError: landmarks for aligned crops, or an invalid size.
    """

    landmarks: Landmarks = ()
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
        """Whether somebody said how the images are aligned."""
        return bool(self.landmarks) or self.aligned is not None

    @property
    def template(self) -> CropTemplate | None:
        """The template of aligned crops. Raises: SourceError: there is no such one."""
        return None if self.aligned in (None, NO_TEMPLATE) else crop_template(self.aligned)  # type: ignore[arg-type]


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
    lookup = PathLookup(table, [utf8(str(path)) for path in paths])
    problems = [lookup.problem(image) for image in range(len(paths))]
    if all(problems):
        raise LandmarkError(
            f"{names}: no landmarks for any of {counted(len(paths), 'image')}, for example {paths[0]} ({problems[0]});"
            " name the right table with --landmarks"
        )
    requests = []
    for image, (path, problem) in enumerate(zip(paths, problems, strict=True)):
        found = None if problem else lookup.find(image)
        requests.append(
            Request(
                path=path,
                points=found.points if found else (),
                place=found.place if found else names,
                problem=problem or "",
            )
        )
    return requests
