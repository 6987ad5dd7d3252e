"""Who the faces are: where a source keeps its landmark files and its images."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

from pipeline.landmarks import IMAGE_SUFFIXES, LandmarkError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """A folder layout.

    Attributes:
        splits: sub-folders searched for ``identity/image``, in order; ``""`` is the root itself.
        landmarks: alternatives; the first whose files include at least one that exists is used.
    """

    name: str
    splits: tuple[str, ...]
    landmarks: tuple[tuple[str, ...], ...]


SOURCES = {
    source.name: source
    for source in (
        Source(
            name="vggface2",
            splits=("train", "test", ""),
            landmarks=(
                ("bb_landmark/loose_landmark_train_test_remove_lfw_megaface.csv",),
                ("bb_landmark/loose_landmark_train.csv", "bb_landmark/loose_landmark_test.csv"),
            ),
        ),
        Source(name="folder", splits=("", "train", "test"), landmarks=(("landmarks.csv",),)),
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


def find_image(root: Path, splits: Sequence[str], key: str) -> Path | None:
    """The file of ``identity/image`` under ``root``, whichever split, extension and case; None if there is none."""
    for split in splits:
        path = root / split / f"{key}.jpg"
        if path.is_file():
            return path
    identity, _, name = key.rpartition("/")
    for split in splits:
        if found := _images(root / split / identity).get(name.lower()):
            return root / split / identity / found
    return None


@functools.lru_cache(maxsize=64)
def _images(folder: Path) -> dict[str, str]:
    """Lower-case stem -> file name of the images in a folder."""
    if not folder.is_dir():
        return {}
    return {
        path.stem.lower(): path.name
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()
    }
