"""Folders of ``identity/image``: counted by listing, and compared with landmark tables."""

from __future__ import annotations

import dataclasses
import functools
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from commands.diagnosis.findings import Finding, ok, warn
from commands.diagnosis.waiting import Waiting
from pipeline.images.lookup import is_image, scan
from pipeline.tables.landmark_order import order_warning
from pipeline.tables.landmark_reader import read_landmarks
from pipeline.tables.landmark_table import composed_column
from shards.messages import counted
from shards.system_names import is_system_name

_TABLE = re.compile(r"landmarks\.(csv|parquet)", re.I)
TRIED_IMAGES = 200  # images that are opened, to read their headers


@dataclasses.dataclass(frozen=True, kw_only=True)
class Identities:
    """What a folder of ``identity/image`` holds.

    Attributes:
        keys: ``identity/image`` without extension, of every image.
        people: number of identities with an image.
        empty: identities without one.
        others: entries that are neither an identity nor an image, such as ``notes.txt`` or ``n000002/x.txt``.
        tried: some images, of identities that are evenly spaced.
    """

    keys: pa.ChunkedArray
    people: int
    empty: list[str]
    others: list[str]
    tried: list[Path]

    @property
    def images(self) -> int:
        return len(self.keys)

    @property
    def described(self) -> str:
        return f"{counted(self.images, 'image')} of {counted(self.people, 'person')}"


@functools.lru_cache(maxsize=4)
def count_identities(folder: Path) -> Identities:
    """Lists every image; none is opened. Raises: OSError: a folder cannot be listed."""
    entries = sorted(entry for entry in scan(folder) if not is_system_name(entry.name))
    people = [entry.name for entry in entries if entry.is_folder]
    others = [entry.name for entry in entries if not (entry.is_folder or _TABLE.fullmatch(entry.name))]
    chunks, empty, tried = [], [], []
    step = max(-(-len(people) // TRIED_IMAGES), 1)
    with Waiting(f"count {folder.name}", len(people), "identities") as progress:
        for number, person in enumerate(people):
            inner = sorted(entry for entry in scan(folder / person) if not is_system_name(entry.name))
            images = [entry.name for entry in inner if is_image(entry.name) and not entry.is_folder]
            stems = [os.path.splitext(name)[0] for name in images]
            if number % step == 0:
                tried += [folder / person / name for name in images[number % len(images) :][:1]] if images else []
            others += [f"{person}/{entry.name}" for entry in inner if not is_image(entry.name) or entry.is_folder]
            if stems:
                text = f"{person}/".encode("utf-8", "backslashreplace").decode()
                column = pa.array([stem.encode("utf-8", "backslashreplace").decode() for stem in stems], pa.string())
                chunks.append(composed_column(pc.binary_join_element_wise(text, column, "")))
            else:
                empty.append(person)
            progress.update()
    return Identities(
        keys=pa.chunked_array(chunks, pa.string()), people=len(chunks), empty=empty, others=others, tried=tried
    )


def coverage(tables: Sequence[Path], folders: Sequence[Path]) -> Iterator[Finding]:
    """Compares landmark tables with the images below some folders, in both directions.

    Raises:
        LandmarkError: a table cannot be read.
        OSError: a folder cannot be listed.
    """
    table = read_landmarks(tables)
    names = " + ".join(path.name for path in tables)
    if warning := order_warning(table.points):
        yield warn(f"{names}: {warning}", "reorder the columns: left eye, right eye, nose, left and right mouth corner")
    keys = pc.replace_substring_regex(composed_column(table.keys), r"(?s)^.*/([^/]*/[^/]*)$", r"\1")
    images = pa.chunked_array(
        [chunk for folder in folders for chunk in count_identities(folder).keys.chunks], pa.string()
    )
    lonely = pc.filter(keys, pc.invert(pc.is_in(keys, value_set=images.combine_chunks())))
    bare = pc.filter(images, pc.invert(pc.is_in(images, value_set=keys)))
    rows, total = counted(len(keys), "row"), counted(len(images), "image")
    if len(lonely):
        yield warn(
            f"{names}: without an image: {len(lonely):,} of {rows}, first {lonely[0]}",
            "restore the images; build-shards records such rows as missing-file",
        )
    if len(bare):
        yield warn(
            f"{names}: without a row: {len(bare):,} of {total}, first {bare[0]}",
            "take the complete table, if these images are wanted: without a row they are not used",
        )
    if table.problems:
        row, reason = next(iter(table.problems.items()))
        yield warn(
            f"{names}: {counted(len(table.problems), 'row')} without usable numbers, first {table.keys[row]}: {reason}",
            "restore the table; build-shards records such rows as bad-landmarks",
        )
    if not (len(lonely) or len(bare)):
        yield ok(f"{names}: {rows}, one for each of {total}")
