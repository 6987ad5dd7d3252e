"""Who the faces are: where a source keeps its images and, if it has any, its landmark files."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path

from pipeline.sources.finder import find_folder
from pipeline.sources.landmarks import LandmarkError
from pipeline.sources.listing import SourceError, by_preference, is_image


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A folder layout.

    Attributes:
        dataset: folder of the data set, under ``$LRFR_DATA`` unless the user names another.
        shards: folder of its shards, likewise.
        splits: sub-folders searched for ``identity/image``, in order; ``""`` is the root itself.
        landmarks: alternatives; the first whose files include at least one that exists is used. None at all: the
            source has no landmarks, and its images are resized whole.
        training: sub-folder with the images of a source without landmarks.
    """

    name: str
    dataset: str
    shards: str
    splits: tuple[str, ...] = ("",)
    landmarks: tuple[tuple[str, ...], ...] = ()
    training: str = ""

    @property
    def aligned(self) -> bool:
        """True where faces are aligned by landmarks."""
        return bool(self.landmarks)


SOURCES = {
    source.name: source
    for source in (
        Source(
            name="vggface2",
            dataset="VGGFace2",
            shards="shards",
            splits=("train", "test", ""),
            landmarks=(
                ("bb_landmark/loose_landmark_train_test_remove_lfw_megaface.csv",),
                ("bb_landmark/loose_landmark_train.csv", "bb_landmark/loose_landmark_test.csv"),
            ),
        ),
        Source(name="qmul", dataset="QMUL-SurvFace", shards="shards-qmul", training="training_set"),
        Source(name="tinyface", dataset="TinyFace", shards="shards-tinyface", training="Training_Set"),
        Source(
            name="folder",
            dataset="VGGFace2",
            shards="shards",
            splits=("", "train", "test"),
            landmarks=(("landmarks.csv",),),
        ),
    )
}


def landmark_files(source: Source, root: Path) -> list[Path]:
    """The landmark files that ``root`` has by default.

    Raises:
        LandmarkError: the folder or its landmark files are not there.
    """
    if not root.is_dir():
        raise LandmarkError(
            f"{root}: not a folder; give the {source.name} folder with --root (or run: python cli.py demo-data)"
        )
    for names in source.landmarks:
        if found := [root / name for name in names if (root / name).is_file()]:
            return found
    wanted = " or ".join(" + ".join(names) for names in source.landmarks)
    raise LandmarkError(f"{root}: no landmark file; expected {wanted}, or name one with --landmarks")


def training_folder(source: Source, root: Path) -> Path:
    """The folder of identities of a source without landmarks: ``root``, or the one in it or in its data set.

    Raises:
        SourceError: it is nowhere.
    """
    found = find_folder(root, source.dataset, source.training)
    if found is None or not found.is_dir():
        raise SourceError(
            f"{root}: no {source.training} in it; expected {source.dataset}'s training set,"
            f" {source.training}/<ID>/<image>.jpg (--root names the folder; demo-data paints one)"
        )
    return found


def find_image(root: Path, splits: Sequence[str], key: str) -> Path | None:
    """The file of ``identity/image`` under ``root``, whichever split, extension and case; None if there is none."""
    for split in splits:
        path = os.path.join(root, split, f"{key}.jpg")
        if os.path.isfile(path):
            return Path(path)
    identity, _, name = key.rpartition("/")
    for split in splits:
        images = _images(root / split / identity)
        if found := images.get(name) or images.get(name.lower()):
            return root / split / identity / found
    return None


@functools.lru_cache(maxsize=64)
def _images(folder: Path) -> dict[str, str]:
    """Stem, as it is and in lower case -> file name of the images in a folder."""
    if not folder.is_dir():
        return {}
    names = sorted(
        (path.name for path in folder.iterdir() if is_image(path.name) and path.is_file()), key=by_preference
    )
    stems = [os.path.splitext(name)[0] for name in names]
    found: dict[str, str] = {}
    for stem, name in [*zip(stems, names, strict=True), *zip(map(str.lower, stems), names, strict=True)]:
        found.setdefault(stem, name)
    return found
