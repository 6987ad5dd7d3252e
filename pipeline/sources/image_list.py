"""Images that a list names, with their identities."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.align import TEMPLATES
from pipeline.sources.file_readers import ListedImages
from pipeline.sources.image_table import ImageTable, read_image_table
from pipeline.sources.labels import Labelled, labelled_rows
from pipeline.sources.source import Reader, Rows, Source, SourceError, is_present
from pipeline.spec import NO_TEMPLATE
from shards.messages import counted, print_stderr

LOOKED_UP = 1000  # images, until one is found


class ImageListSource(Source):
    """The images of lists: a path and an identity a row."""

    name = "list"
    dataset = "images"
    shards = "shards-list"
    templates = (*TEMPLATES, NO_TEMPLATE)
    default_template = "seed"
    takes_landmarks = True
    takes_lists = True
    takes_split = True

    def rows(
        self,
        root: Path,
        landmarks: Sequence[Path],
        *,
        aligning: bool,
        lists: Sequence[Path] = (),
        split: str | None = None,
    ) -> Rows:
        tables = _read(lists, split)
        parts = {"--list": [table.sha256 for table in tables]}
        return table_rows(tables, lists, root, landmarks, aligning=aligning, parts=parts, root=root)

    def image_folders(self, root: Path, *, lists: Sequence[Path] = (), split: str | None = None) -> list[Path]:
        """The images themselves: there may be others below ``root``."""
        names, problems = names_below(root, pa.concat_arrays([table.paths for table in _read(lists, split)]))
        return [root / name for row, name in enumerate(names.to_pylist()) if row not in problems]


def _read(lists: Sequence[Path], split: str | None) -> list[ImageTable]:
    if not lists:
        raise SourceError("--source list: needs --list FILE (CSV, JSON lines or Parquet), which names the images")
    return [chosen(read_image_table(path), path, split) for path in lists]


def table_rows(
    tables: Sequence[ImageTable],
    paths: Sequence[Path],
    folder: Path,
    landmarks: Sequence[Path],
    *,
    aligning: bool,
    parts: dict[str, Any],
    root: Path,
) -> Rows:
    """Returns the images of tables, which are below a folder, as the rows of a source.

    Args:
        paths: files of the tables.
        folder: the folder. A path that leads out of it is a row with a reason.
        root: ``folder``, or one above it; landmark tables name images as they lie below it.

    Raises:
        SourceError: see ``labelled_rows``; or no image is found.
        LandmarkError: a landmark table cannot be read.
    """
    names, problems = names_below(folder, pa.concat_arrays([table.paths for table in tables]))
    if folder != root:
        names = pc.binary_join_element_wise(os.path.relpath(folder, root), names, "/")
    points = [table.points for table in tables]
    where, reader = ", ".join(map(str, paths)), ListedImages(root)
    rows = labelled_rows(
        Labelled(
            names=names,
            identities=pa.concat_arrays([table.identities for table in tables]),
            places=pc.cast(names, pa.binary()),
            points=None if any(one is None for one in points) else np.concatenate(points),  # type: ignore[arg-type]
            problems=problems,
        ),
        landmarks,
        aligning=aligning,
        reader=reader,
        parts=parts,
        where=where,
        expected="a column identity or label",
    )
    _require_any(reader, rows, folder, where)
    return rows


def chosen(table: ImageTable, path: Path, split: str | None) -> ImageTable:
    """Returns the rows of one split, or all; says on stderr what is left out.

    Raises:
        SourceError: the table has no such split.
    """
    if table.splits is None:
        if split is not None:
            raise SourceError(f"{path}: has no column split; leave out --split {split}")
        return table
    counts = Counter(table.splits.to_pylist())
    listed = ", ".join(f"{name} {count:,}" for name, count in sorted(counts.items())[:20])
    if split is None:
        if len(counts) > 1:
            print_stderr(f"{path}: rows of several splits ({listed}), all used; --split chooses one")
        return table
    if split not in counts:
        raise SourceError(f"{path}: no row of split {split}; it has {listed}")
    print_stderr(f"{path}: {counted(counts[split], 'row')} of split {split}, of {listed}")
    kept = pc.equal(table.splits, split)
    return ImageTable(
        paths=table.paths.filter(kept),
        identities=table.identities.filter(kept),
        splits=None,
        points=None if table.points is None else table.points[kept.to_numpy(zero_copy_only=False)],
        sha256=f"{table.sha256} {split}",
    )


def names_below(root: Path, paths: pa.StringArray) -> tuple[pa.StringArray, dict[int, str]]:
    """Paths relative to a folder, with slashes, and the reasons of those that lead out of it."""
    names = pc.replace_substring(paths, "\\", "/")
    odd = pc.match_substring_regex(names, r"^$|^/|(?:^|/)\.{0,2}(?:/|$)|\x00")
    if not pc.any(odd).as_py():
        return names, {}
    texts, problems = names.to_pylist(), {}
    for row in np.flatnonzero(odd.to_numpy(zero_copy_only=False)).tolist():
        name = _name_below(root, texts[row])
        if name is None:
            problems[row] = "no path is stated" if not texts[row] else f"{texts[row]}: leads out of {root}"
        texts[row] = name or texts[row].strip("/") or "-"
    return pa.array(texts, pa.string()), problems


def _name_below(root: Path, name: str) -> str | None:
    """A path below a folder, by its words alone; None if it leads out."""
    for folder in dict.fromkeys([os.path.abspath(root), os.path.realpath(root)]):
        relative = os.path.relpath(os.path.normpath(os.path.join(folder, name)), folder) if "\0" not in name else ""
        if relative not in ("", ".") and relative.split("/")[0] != "..":
            return relative
    return None


def _require_any(reader: Reader, rows: Rows, root: Path, where: str) -> None:
    """Looks some images up, spread over the list, until one is found. Raises: SourceError: none is found."""
    assert rows.places is not None
    usable = [row for row in range(0, len(rows.keys), max(len(rows.keys) // LOOKED_UP, 1)) if row not in rows.problems]
    tried = [rows.places[row].as_py() for row in usable]
    if tried and not any(is_present(reader, place) for place in tried):
        raise SourceError(
            f"{root}: holds no image of {counted(len(tried), 'image')} of {where} looked up, such as"
            f" {tried[0].decode()}; paths are relative to --root; check it, and whether its disk is mounted"
        )
