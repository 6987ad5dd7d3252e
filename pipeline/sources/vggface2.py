"""Sources whose images are the rows of landmark tables: VGGFace2, and what they share."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pipeline.align import TEMPLATES
from pipeline.sources.finder import ImageTree
from pipeline.sources.landmark_reader import read_landmarks
from pipeline.sources.landmarks import LandmarkError
from pipeline.sources.source import Rows, Source
from shards.messages import command


class LandmarkSource(Source):
    """A source whose images are the rows of landmark tables, found below some folders.

    Attributes:
        splits: sub-folders to search for ``identity/image``, in order; ``""`` is the root itself.
        tables: alternative sets of landmark files; the first set of which any file exists is used.
        remedy: what else a user without landmark files can do.
    """

    templates = tuple(TEMPLATES)
    default_template = "seed"
    takes_landmarks = True
    splits: ClassVar[tuple[str, ...]]
    tables: ClassVar[tuple[tuple[str, ...], ...]]
    remedy: ClassVar[str] = ""

    def locate(self, root: Path) -> Path:
        return root

    def watched(self, root: Path) -> list[Path]:
        return [root / split for split in ("", *self.splits)]

    def landmark_files(self, root: Path) -> list[Path]:
        if not root.is_dir():
            raise LandmarkError(
                f"{root}: not a folder; --root names the folder with the images (or run: {command('demo-data')})"
            )
        for names in self.tables:
            if found := [root / name for name in names if (root / name).is_file()]:
                return found
        expected = " or ".join(" + ".join(names) for names in self.tables)
        raise LandmarkError(f"{root}: no landmark file; expected {expected}, or name one with --landmarks{self.remedy}")

    def rows(self, root: Path, landmarks: Sequence[Path], *, aligning: bool) -> Rows:
        table = read_landmarks(landmarks)
        return Rows(
            keys=table.keys,
            reader=ImageTree(root, self.splits),
            parts={"--landmarks": [file.sha256 for file in table.files]},
            points=table.points,
            problems={row: ("bad-landmarks", reason) for row, reason in table.problems.items()},
            duplicate_of=table.duplicate_of,
        )


class VGGFace2(LandmarkSource):
    """VGGFace2: ``train/n000002/0001_01.jpg``, ``test/...`` and ``bb_landmark/*.csv``."""

    name = "vggface2"
    dataset = "VGGFace2"
    takes_aligned = False
    shards = "shards"
    splits = ("train", "test", "")
    tables = (
        ("bb_landmark/loose_landmark_train_test_remove_lfw_megaface.csv",),
        ("bb_landmark/loose_landmark_train.csv", "bb_landmark/loose_landmark_test.csv"),
    )
