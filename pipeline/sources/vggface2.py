"""Sources whose images are the rows of landmark tables: VGGFace2, and what they share."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.align import TEMPLATES
from pipeline.images.lookup import composed, same_folders, scan, valid_text
from pipeline.sources.file_readers import ImageTree
from pipeline.sources.source import Rows, Source
from pipeline.tables.landmark_reader import image_paths, read_landmarks
from pipeline.tables.landmark_table import LandmarkError, LandmarkTable
from shards.messages import command

_IDENTITY = (r"(?s)^(?:.*/)?([^/]+)/[^/]*$", r"\1")  # of a key: pattern and replacement


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
    takes_store = True
    splits: ClassVar[tuple[str, ...]]
    tables: ClassVar[tuple[tuple[str, ...], ...]]
    remedy: ClassVar[str] = ""

    def locate(self, root: Path) -> Path:
        return root

    def watched(self, root: Path) -> list[Path]:
        return [root / split for split in ("", *self.splits)]

    def image_folders(self, root: Path) -> list[Path]:
        """The splits that are there, or else ``root``."""
        self._check_folder(root)
        splits = self.splits[: self.splits.index("")]
        return [root / split for split in splits if (root / split).is_dir()] or [root]

    def _check_folder(self, root: Path) -> None:
        if not root.is_dir():
            raise LandmarkError(
                f"{root}: not a folder; --root names the folder with the images (or run: {command('demo-data')})"
            )

    def landmark_files(self, root: Path) -> list[Path]:
        self._check_folder(root)
        for names in self.tables:
            if found := [root / name for name in names if (root / name).is_file()]:
                return found
        expected = " or ".join(" + ".join(names) for names in self.tables)
        raise LandmarkError(
            f"{root}: no landmark file; expected {expected}, or name one with --landmarks, or find them: --landmarks auto{self.remedy}"
        )

    def rows(self, root: Path, landmarks: Sequence[Path], *, aligning: bool) -> Rows:
        table = read_landmarks(landmarks, identities=True)
        problems: Mapping[int, tuple[str, str]] = table.problems.each(lambda reason: ("bad-landmarks", reason))
        same = self._same_identities(root, table.keys)
        if same:
            identities = pc.replace_substring_regex(table.keys, *_IDENTITY)
            rows = np.flatnonzero(pc.is_in(identities, pa.array(same, pa.string()))).tolist()
            reasons = {row: f"its folder is the same as {same[identities[row].as_py()]}" for row in rows}
            problems = {row: ("duplicate-key", reason) for row, reason in reasons.items()} | dict(problems)
        tree = ImageTree(root, self.splits)
        return Rows(
            keys=table.keys,
            reader=tree,
            parts={
                "--landmarks": [file.sha256 for file in table.files],
                **({"links under --root": dict(sorted(same.items()))} if same else {}),
            },
            points=table.points,
            problems=problems,
            others=[f"{link} (the same folder as {folder})" for link, folder in same.items()],
            duplicate_of=table.duplicate_of,
            of_other_files=functools.partial(_of_other_files, table, tree, root)
            if all(file.path.suffix.lower() == ".parquet" for file in table.files)
            else None,
        )

    def _same_identities(self, root: Path, keys: pa.StringArray) -> dict[str, str]:
        """Finds identities of the table that are links to another one of them, see ``same_folders``."""
        bases = [root / split for split in self.splits if (root / split).is_dir()]
        entries = {base: scan(base) for base in bases}
        if not any(entry.is_link and entry.is_folder for found in entries.values() for entry in found):
            return {}
        identities = set(pc.unique(pc.replace_substring_regex(keys, *_IDENTITY)).to_pylist())
        same: dict[str, str] = {}
        for base, found in entries.items():
            same |= same_folders(base, [entry for entry in found if entry.name in identities])
        return same


def _of_other_files(table: LandmarkTable, tree: ImageTree, root: Path, rows: np.ndarray) -> dict[int, tuple[str, str]]:
    """Finds those of ``rows``, which share keys, that ``landmarks`` wrote for another file than the one that is read.

    A key has neither split nor extension: ``1.jpg`` must not be aligned by the points of ``1.bmp``.
    """
    columns = [image_paths(file.path) for file in table.files]
    if any(column is None for column in columns):
        return {}
    paths = pa.concat_arrays(columns)
    groups: dict[str, list[int]] = {}
    for row in rows.tolist():
        groups.setdefault(composed(table.keys[row].as_py()), []).append(row)
    problems: dict[int, tuple[str, str]] = {}
    for same in groups.values():
        if found := tree.find(table.keys[same[0]].as_py()):
            name = f"/{composed(valid_text(found.relative_to(root).as_posix()))}"
            own = [f"/{composed(paths[row].as_py())}" for row in same]
            others = [
                row for row, path in zip(same, own, strict=True) if not (path.endswith(name) or name.endswith(path))
            ]
            if len(others) < len(same):
                problems |= dict.fromkeys(others, ("duplicate-key", f"the image of this name is {name[1:]}"))
    return problems


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
