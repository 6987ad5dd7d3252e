"""The user's own list of pairs: its images below a folder, and who shows whom."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.datasets.pair_table import read_pair_table
from benchmarks.datasets.pairs import is_named, named_pairs
from benchmarks.errors import ProtocolError
from pipeline.images.lookup import folded
from pipeline.sources.file_readers import ImageFolder
from pipeline.sources.folders import find_images
from pipeline.sources.image_list import names_below
from pipeline.sources.source import SourceError
from pipeline.tables.landmark_reader import PARQUET_START
from pipeline.tables.landmark_table import LandmarkError
from pipeline.tables.streams import open_stream
from pipeline.tables.text_lines import first_row
from shards.messages import counted, print_stderr

CACHED_FOLDERS = 64
_NUMBERED = re.compile(r"(?s)(.*?)_?(\d{1,9})")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairList:
    """P pairs of N distinct images.

    Attributes:
        paths: N paths of the images, whether or not they exist.
        members: (P, 2) rows of ``paths``.
        genuine: (P,) bool.
        folds: (P,) int, or None if the list does not state them.
        people: (N,) names of the people, or None if the list does not state them.
    """

    paths: list[Path]
    members: np.ndarray
    genuine: np.ndarray
    folds: np.ndarray | None
    people: list[str] | None


def read_pair_list(path: Path, root: Path) -> PairList:
    """Reads a list: a table of two paths and a truth value a row, or names and numbers in LFW's form.

    Args:
        root: the folder of the images.

    Raises:
        ProtocolError: the list is invalid, or names no image below ``root``.
    """
    if not root.is_dir():
        raise ProtocolError(f"{root}: not a folder; --root names the folder of the images in {path}")
    try:
        with open_stream(path) as stream:
            is_parquet = path.suffix.lower() == ".parquet" or stream.read(len(PARQUET_START)) == PARQUET_START
            _, first = (0, "") if is_parquet else first_row(stream)
            stream.seek(0)
            if is_named(first.rstrip()):
                found = _from_names(*named_pairs(path, stream), root)
            else:
                table = read_pair_table(path, stream, is_parquet=is_parquet)
                found = _from_paths(path, table.first, table.second, table.genuine, table.folds, root)
    except OSError as error:
        raise ProtocolError(f"{path}: {error.strerror or error}; expected a list of pairs") from None
    except (LandmarkError, SourceError) as error:  # of what reads other tables, too
        raise ProtocolError(str(error)) from None
    _check_pairs(path, found)
    if not any(os.path.lexists(image) for image in found.paths):
        raise ProtocolError(
            f"{root}: holds none of the {counted(len(found.paths), 'image')} of {path}, such as {found.paths[0]};"
            " paths in the list are relative to --root"
        )
    return found


def _from_paths(
    path: Path,
    first: pa.StringArray,
    second: pa.StringArray,
    genuine: np.ndarray,
    folds: np.ndarray | None,
    root: Path,
) -> PairList:
    names, problems = names_below(root, pa.concat_arrays([first, second]))
    for row, reason in problems.items():
        remedy = "; name a --root that holds all images" if " leads out of " in reason else ", expected two paths"
        raise ProtocolError(f"{path}: pair {row % len(first) + 1}: {reason}{remedy}")
    coded = names.dictionary_encode()
    distinct = coded.dictionary.to_pylist()
    finder = _Finder(root)
    found = {name: finder.find(name) for name in sorted(distinct)}
    paths = list(dict.fromkeys(found[name] for name in distinct))
    rows = {image: row for row, image in enumerate(paths)}
    codes = np.array([rows[found[name]] for name in distinct])[coded.indices.to_numpy()]
    return PairList(paths=paths, members=codes.reshape(2, -1).T, genuine=genuine, folds=folds, people=None)


def _from_names(pairs: Iterable[tuple[list[list[str]], bool]], folds: np.ndarray | None, root: Path) -> PairList:
    rows: dict[tuple[str, int], int] = {}
    members, genuine = [], []
    for sides, same in pairs:
        members.append([rows.setdefault((name, int(number)), len(rows)) for name, number in sides])
        genuine.append(same)
    images = _NumberedImages(root)
    return PairList(
        paths=[images.find(name, number) for name, number in rows],
        members=np.array(members).reshape(-1, 2),
        genuine=np.array(genuine, bool),
        folds=folds,
        people=[name for name, _ in rows],
    )


def _check_pairs(path: Path, pairs: PairList) -> None:
    """Raises: ProtocolError: a pair is of one image, or is given as same and as different. Tells of repeated pairs."""
    ordered = np.sort(pairs.members, axis=1)
    for row in np.flatnonzero(ordered[:, 0] == ordered[:, 1])[:1].tolist():
        image = pairs.paths[ordered[row, 0]]
        raise ProtocolError(f"{path}: pair {row + 1}: {image} twice, expected two images; leave the pair out")
    codes = ordered[:, 0] * len(pairs.paths) + ordered[:, 1]
    order = np.argsort(codes, kind="stable")
    repeated = np.flatnonzero(np.diff(codes[order]) == 0)
    before, after = order[repeated], order[repeated + 1]
    for at in np.flatnonzero(pairs.genuine[before] != pairs.genuine[after])[:1].tolist():
        raise ProtocolError(
            f"{path}: pairs {before[at] + 1} and {after[at] + 1} are the same two images, one genuine and one not; correct"
            " one"
        )
    if len(repeated):
        print_stderr(
            f"{path}: {counted(len(repeated), 'pair')} given again, such as pair {after[0] + 1}; each counts as often as"
            " given"
        )


class _Finder:
    """Finds images by path below a root: exactly, or else whatever their case, Unicode normal form and extension."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._images = functools.lru_cache(maxsize=CACHED_FOLDERS)(self._list_images)
        self._entries = functools.lru_cache(maxsize=CACHED_FOLDERS)(_folded_entries)

    def find(self, name: str) -> Path:
        """Returns the path; ``root / name`` if there is no such image."""
        if os.path.isfile(path := os.path.join(self._root, name)):
            return Path(path)
        folder, _, image = name.rpartition("/")
        return self._images(folder).find(image)

    def _list_images(self, name: str) -> ImageFolder:
        folder = self._root
        for part in filter(None, name.split("/")):
            exact = folder / part
            folder = exact if exact.is_dir() else folder / self._entries(folder).get(folded(part), part)
        return ImageFolder(folder)


def _folded_entries(folder: Path) -> dict[str, str]:
    """Spelling without case -> entry of a folder; none of one that is absent."""
    return {folded(name): name for name in sorted(os.listdir(folder))} if folder.is_dir() else {}


class _NumberedImages:
    """Finds images by person and number in any layout: ``Name/Name_0001.jpg``, ``Name/0001.png``, ``Name_1.jpg``, ..."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._by_stem: dict[tuple[str, int], list[Path]] = {}
        self._by_folder: dict[tuple[str, int], list[Path]] = {}
        for path in map(Path, find_images([root]).paths):
            if match := _NUMBERED.fullmatch(path.stem):
                number = int(match[2])
                self._by_stem.setdefault((folded(match[1]), number), []).append(path)
                self._by_folder.setdefault((folded(path.parent.name), number), []).append(path)

    def find(self, name: str, number: int) -> Path:
        """Returns the path; that of LFW's layout if there is no such image.

        Raises:
            ProtocolError: several images may be meant.
        """
        key = folded(name), number
        named, inside = self._by_stem.get(key, []), self._by_folder.get(key, [])
        found = [path for path in named if path in inside] or named or inside
        if len(found) > 1:
            raise ProtocolError(
                f"{self._root}: image {number} of {name} may be {found[0]} or {found[1]}; name the right folder with --root"
            )
        return found[0] if found else self._root / name / f"{name}_{number:04d}.jpg"
