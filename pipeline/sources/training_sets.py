"""The training sets of QMUL-SurvFace and TinyFace, whose images are resized whole."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from pipeline.sources.finder import find_folder
from pipeline.sources.listing import listed_rows
from pipeline.sources.source import Rows, Source, SourceError
from pipeline.spec import NO_TEMPLATE
from shards.messages import command


class TrainingSet(Source):
    """The training folder of a benchmark, without landmarks: ``training/<ID>/<image>.jpg``."""

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
