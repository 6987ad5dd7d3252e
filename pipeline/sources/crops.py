"""A folder of aligned crops that are resized and encoded again."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.align import TEMPLATES
from pipeline.sources.listing import listed_rows
from pipeline.sources.source import Rows, Source, SourceError


class Crops(Source):
    """``identity/image``, aligned to the template that is stated."""

    name = "crops"
    dataset = "crops"
    shards = "shards-crops"
    templates = tuple(TEMPLATES)
    takes_aligned = False
    takes_store = True
    template_hint = (
        "say which template the crops follow: --template arcface (most published crops, 112 x 112 px) or seed"
    )

    def locate(self, root: Path) -> Path:
        if not root.is_dir():
            raise SourceError(f"{root}: not a folder; give the folder of <ID>/<image>.jpg with --root")
        return root

    def rows(self, root: Path, landmarks: Sequence[Path], *, aligning: bool) -> Rows:
        return listed_rows(root)
