"""A folder of ``identity/image``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.align import TEMPLATES
from pipeline.sources.listing import listed_rows
from pipeline.sources.source import Rows, Source
from pipeline.sources.vggface2 import LandmarkSource
from pipeline.spec import NO_TEMPLATE


class Folder(LandmarkSource):
    """Any folder of ``identity/image``, aligned by a landmark table or resized whole."""

    name = "folder"
    dataset = "VGGFace2"
    shards = "shards"
    templates = (*TEMPLATES, NO_TEMPLATE)
    splits = ("", "train", "test")
    tables = (("landmarks.csv",),)
    remedy = " (aligned crops need none: --aligned says which template they follow)"

    def locate(self, root: Path) -> Path:
        return Source.locate(self, root)

    def rows(self, root: Path, landmarks: Sequence[Path], *, aligning: bool) -> Rows:
        return super().rows(root, landmarks, aligning=True) if aligning else listed_rows(root)
