"""The sources by name: where each data set keeps its images and landmark files."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from pipeline.sources.finder import find_folder
from pipeline.sources.landmarks import LandmarkError
from pipeline.sources.listing import SourceError
from shards.messages import command


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Where a data set keeps its images and landmark files."""

    name: str
    dataset: str  # default folder of the data set, under ``$LRFR_DATA``
    shards: str  # default folder of its shards, under ``$LRFR_DATA``
    splits: tuple[str, ...] = ("",)  # sub-folders to search for ``identity/image``, in order; ``""`` is the root itself
    # alternative sets of landmark files; the first set of which any file exists is used
    tables: tuple[tuple[str, ...], ...] = ()
    training: str = ""  # sub-folder with the training images, of a source without landmarks
    crops: bool = False  # the images are aligned crops already

    @property
    def aligned(self) -> bool:
        """True if faces are aligned by landmarks, False if images are taken whole."""
        return bool(self.tables)

    def landmark_files(self, root: Path) -> list[Path]:
        """Returns the default landmark files in ``root``.

        Raises:
            LandmarkError: the folder or its landmark files do not exist.
        """
        if not root.is_dir():
            raise LandmarkError(
                f"{root}: not a folder; --root names the folder with the images (or run: {command('demo-data')})"
            )
        for names in self.tables:
            if found := [root / name for name in names if (root / name).is_file()]:
                return found
        expected = " or ".join(" + ".join(names) for names in self.tables)
        raise LandmarkError(
            f"{root}: no landmark file; expected {expected}, or name one with --landmarks"
            + (" (crops that are aligned already need none: --source crops)" if self.name == "folder" else "")
        )

    def training_folder(self, root: Path) -> Path:
        """Returns the folder of identities: ``root``, or the training folder in it or in its data set.

        Raises:
            SourceError: there is no such folder.
        """
        if self.crops:
            if not root.is_dir():
                raise SourceError(f"{root}: not a folder; give the folder of <ID>/<image>.jpg with --root")
            return root
        found = find_folder(root, self.dataset, self.training)
        if found is None or not found.is_dir():
            raise SourceError(
                f"{root}: no {self.training} in it; expected {self.dataset}'s training set,"
                f" {self.training}/<ID>/<image>.jpg (give its folder with --root, or run: {command('demo-data')})"
            )
        return found


VGGFACE2 = Source(
    name="vggface2",
    dataset="VGGFace2",
    shards="shards",
    splits=("train", "test", ""),
    tables=(
        ("bb_landmark/loose_landmark_train_test_remove_lfw_megaface.csv",),
        ("bb_landmark/loose_landmark_train.csv", "bb_landmark/loose_landmark_test.csv"),
    ),
)
FOLDER = Source(
    name="folder", dataset="VGGFace2", shards="shards", splits=("", "train", "test"), tables=(("landmarks.csv",),)
)
QMUL = Source(name="qmul", dataset="QMUL-SurvFace", shards="shards-qmul", training="training_set")
TINYFACE = Source(name="tinyface", dataset="TinyFace", shards="shards-tinyface", training="Training_Set")
CROPS = Source(name="crops", dataset="crops", shards="shards-crops", crops=True)

SOURCES = {source.name: source for source in (VGGFACE2, QMUL, TINYFACE, FOLDER, CROPS)}


def find_source(name: str) -> Source:
    """Returns a source by name. Raises: SourceError: there is no such source."""
    if name not in SOURCES:
        raise SourceError(f"unknown source {name!r}; choose from {', '.join(SOURCES)}")
    return SOURCES[name]
