"""WebDataset: tars of images, with labels beside them or in folders of identities."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.align import TEMPLATES
from pipeline.executors import unordered_map
from pipeline.images.decode import ImageError, check_bytes
from pipeline.images.lookup import valid_text
from pipeline.progress import Progress
from pipeline.sources.image_text import SPLITS
from pipeline.sources.labels import Labelled, labelled_rows
from pipeline.sources.listing import shortened
from pipeline.sources.source import Reader, Rows, Source, SourceError
from pipeline.sources.tar_members import Label, tar_images
from pipeline.spec import NO_TEMPLATE
from pipeline.tables.landmark_table import FIVE_POINT_NUMBERS, float32
from shards.files import open_regular
from shards.messages import counted, print_stderr
from shards.system_names import is_system_name

MIN_PARALLEL_BYTES = 1 << 28  # of all tars; listing so much takes seconds
MAX_OPEN = 32  # tars at a time
_PLACE = struct.Struct("<IQQ")  # number of the tar, offset, size
_PACKED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


class TarReader(Reader):
    """Reads images at their places in tars."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self._paths = tuple(paths)
        self._open: dict[int, BinaryIO] = {}

    def read(self, place: bytes, max_bytes: int | None = None) -> bytes:
        tar, offset, size = _PLACE.unpack(place)
        check_bytes(size, max_bytes)
        stream = self._stream(tar)
        stream.seek(offset)
        data = stream.read(size)
        if len(data) < size:
            raise ImageError(f"{self._paths[tar].name} has become shorter: {len(data):,} of {size:,} bytes")
        return data

    def _stream(self, tar: int) -> BinaryIO:
        if tar not in self._open:
            if len(self._open) >= MAX_OPEN:
                self._open.pop(next(iter(self._open))).close()
            try:
                self._open[tar] = open_regular(self._paths[tar])
            except FileNotFoundError:
                raise SourceError(
                    f"{self._paths[tar]}: no longer there; bring it back, then run the same command again"
                ) from None
        return self._open[tar]

    def close(self) -> None:
        for stream in self._open.values():
            stream.close()
        self._open = {}


class WebDataset(Source):
    """Tars of ``key.jpg`` with ``key.cls``, ``key.json`` or ``key.txt`` beside it, or of ``identity/image.jpg``."""

    name = "webdataset"
    dataset = "webdataset"
    shards = "shards-webdataset"
    templates = (*TEMPLATES, NO_TEMPLATE)
    default_template = "seed"
    takes_landmarks = True
    takes_split = True

    def locate(self, root: Path) -> Path:
        if not root.exists():
            raise SourceError(f"{root}: not found; --root names a tar, or a folder of tars")
        return root

    def image_folders(self, root: Path, *, split: str | None = None) -> list[Path]:
        raise SourceError(
            f"{root}: --landmarks auto finds landmarks of image files, not of images in tars; unpack them (tar xf) and use"
            " --source folder, or state landmarks in a .json beside each image"
        )

    def watched(self, root: Path) -> list[Path]:
        return [root if root.is_dir() else root.parent]

    def rows(self, root: Path, landmarks: Sequence[Path], *, aligning: bool, split: str | None = None) -> Rows:
        others: list[str] = []
        tars = _of_split(root, _tars(root, others), split)
        images = _images(root, tars, others)
        parts = {"tars in --root": [f"{tar.name} {tar.stat().st_size}" for tar in tars]}
        return labelled_rows(
            images,
            landmarks,
            aligning=aligning,
            reader=TarReader(tars),
            parts=parts,
            where=str(root),
            expected="<key>.cls, .json or .txt beside <key>.jpg, or <ID>/<image>.jpg",
        )


def _tars(root: Path, others: list[str]) -> list[Path]:
    """The tars of a folder, sorted, or ``root`` itself. Raises: SourceError: there are none."""
    if not root.is_dir():
        return [root]
    entries = sorted(entry for entry in root.iterdir() if not entry.is_dir())
    tars = [entry for entry in entries if entry.suffix.lower() == ".tar" and not is_system_name(entry.name)]
    packed = [entry.name for entry in entries if entry.name.lower().endswith(_PACKED)]
    if packed:
        raise SourceError(
            f"{root}: compressed tars ({shortened(packed)}), which cannot be read image by image; unpack them first, such as"
            " by gunzip"
        )
    if not tars:
        raise SourceError(f"{root}: no tars in it; --root names a tar, or the folder in which *.tar lie")
    others += [entry.name for entry in entries if entry.suffix.lower() != ".tar" or is_system_name(entry.name)]
    return tars


def _of_split(root: Path, tars: list[Path], split: str | None) -> list[Path]:
    """The tars whose names begin with that of a split, or all; says on stderr what that leaves out or mixes.

    Raises:
        SourceError: there are none.
    """
    splits = sorted({name for tar in tars if (name := tar.name.lower().split("-")[0].split("_")[0]) in SPLITS})
    if split is None:
        if len(splits) > 1:
            print_stderr(f"{root}: tars of several splits ({', '.join(splits)}), all used; --split chooses one")
        return tars
    kept = [tar for tar in tars if tar.name.lower().startswith(split.lower())]
    if not kept:
        raise SourceError(f"{root}: no tar has a name that begins with {split}; such as {tars[0].name}")
    print_stderr(f"{root}: {counted(len(kept), 'tar')} of split {split}, of {len(tars):,}")
    return kept


def list_tar(task: tuple[int, Path]) -> tuple[int, Labelled]:
    """Lists the images of a tar, and returns its number with them. Raises: SourceError, OSError: see ``tar_images``."""
    number, tar = task
    others: list[str] = []
    images = list(tar_images(tar, others))
    labels = [image.label for image in images]
    return number, Labelled(
        names=pa.array([valid_text(f"{tar.stem}/{image.name}") for image in images], pa.string()),
        identities=pa.array([label and label.identity and valid_text(label.identity) for label in labels], pa.string()),
        places=pa.array([_PLACE.pack(number, image.offset, image.size) for image in images], pa.binary()),
        points=_points(labels) if any(label and label.points for label in labels) else None,
        problems={row: label.problem for row, label in enumerate(labels) if label and label.problem},
        others=others,
    )


def _listings(tars: Sequence[Path]) -> list[Labelled]:
    """Lists tars, in their order. Large sets take minutes, so several processes list them."""
    tasks = list(enumerate(tars))
    if len(tars) == 1 or sum(tar.stat().st_size for tar in tars) < MIN_PARALLEL_BYTES:
        return [list_tar(task)[1] for task in tasks]
    workers = min(len(os.sched_getaffinity(0)), len(tars))
    found: dict[int, Labelled] = {}
    with (
        Progress("list tars", len(tars), "tars") as progress,
        contextlib.closing(unordered_map(list_tar, tasks, executor="process", workers=workers)) as listings,
    ):
        for number, listing in listings:
            found[number] = listing
            progress.update()
    return [found[number] for number, _ in tasks]


def _images(root: Path, tars: Sequence[Path], others: list[str]) -> Labelled:
    listings = _listings(tars)
    names = pa.concat_arrays([listing.names for listing in listings])
    if not len(names):
        left_out = [name for listing in listings for name in listing.others]
        ignored = f"; ignored {counted(len(left_out), 'other entry')} ({shortened(left_out)})" if left_out else ""
        raise SourceError(f"{root}: no images in the tars; expected .jpg, .png, ...{ignored}")
    identities = _named_by_folder(names, pa.concat_arrays([listing.identities for listing in listings]))
    problems: dict[int, str] = {}
    start = 0
    for listing in listings:
        found = ((start + row, problem) for row, problem in listing.problems.items())
        problems.update((row, problem) for row, problem in found if not identities[row].is_valid)
        start += len(listing.names)
        others += listing.others
    return Labelled(
        names=names,
        identities=identities,
        places=pa.concat_arrays([listing.places for listing in listings]),
        points=_joined_points(listings),
        problems=problems,
        others=others,
    )


def _joined_points(listings: Sequence[Labelled]) -> np.ndarray | None:
    if all(listing.points is None for listing in listings):
        return None
    nowhere = [np.full((len(listing.names), FIVE_POINT_NUMBERS), np.nan, np.float32) for listing in listings]
    return np.concatenate(
        [none if listing.points is None else listing.points for none, listing in zip(nowhere, listings, strict=True)]
    )


def _points(labels: Sequence[Label | None]) -> np.ndarray:
    none = [np.nan] * FIVE_POINT_NUMBERS
    return float32(np.array([label.points if label and label.points else none for label in labels], np.float64))


def _named_by_folder(names: pa.StringArray, labels: pa.StringArray) -> pa.StringArray:
    """Names identities by the folders of their images, if no image has a label, or if each folder has one label of its own.

    Args:
        names: ``tar/folders/image.jpg``.
    """
    has_folder = pc.greater(pc.count_substring(names, "/"), 1)
    folders = pc.if_else(has_folder, pc.replace_substring_regex(names, r"(?s)^.*/([^/]+)/[^/]*$", r"\1"), None)
    if labels.null_count == len(labels):
        return folders
    if labels.null_count or folders.null_count:
        return labels
    pairs = pc.binary_join_element_wise(folders, labels, "/")
    distinct = [len(pc.unique(column)) for column in (pairs, folders, labels)]
    return folders if len(set(distinct)) == 1 else labels
