"""Folders of ``identity/image``: any, one of aligned crops, and the training sets of QMUL-SurvFace and TinyFace."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pipeline.align import TEMPLATES
from pipeline.images.lookup import find_folder
from pipeline.sources.listing import listed_rows
from pipeline.sources.source import Rows, Source, SourceError
from pipeline.sources.vggface2 import LandmarkSource
from pipeline.spec import NO_TEMPLATE
from shards.messages import command


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


class Crops(Source):
    """``identity/image``, aligned to the template that is stated; resized and encoded again."""

    name = "crops"
    dataset = "crops"
    shards = "shards-crops"
    templates = tuple(TEMPLATES)
    takes_aligned = False
    takes_store = True
    template_hint = (
        "say which template the crops follow: --template arcface (most published crops, 112 x 112 px) or seed"
    )

    def rows(self, root: Path, landmarks: Sequence[Path], *, aligning: bool) -> Rows:
        return listed_rows(root)


class TrainingSet(Source):
    """The training folder of a benchmark, ``training/<ID>/<image>.jpg``, without landmarks."""

    default_template = NO_TEMPLATE
    training: ClassVar[str]

    def locate(self, root: Path) -> Path:
        """Returns ``root``, or the training folder in it or in its data set."""
        found = find_folder(root, self.dataset, self.training)
        if found is None or not found.is_dir():
            raise SourceError(
                f"{root}: no {self.training} in it; expected {self.dataset}'s training set,"
                f" {self.training}/<ID>/<image>.jpg (give its folder with --root, or run: {command('demo-data')})"
            )
        return found

    def rows(self, root: Path, landmarks: Sequence[Path], *, aligning: bool) -> Rows:
        return listed_rows(root)


class Qmul(TrainingSet):
    """QMUL-SurvFace."""

    name = "qmul"
    dataset = "QMUL-SurvFace"
    shards = "shards-qmul"
    training = "training_set"


class TinyFace(TrainingSet):
    """TinyFace."""

    name = "tinyface"
    dataset = "TinyFace"
    shards = "shards-tinyface"
    training = "Training_Set"
