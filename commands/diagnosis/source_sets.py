"""Sets of other tools (RecordIO, WebDataset, Hugging Face), listed by their own sources."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from commands.diagnosis.findings import Finding, fail, note, ok, warn
from commands.diagnosis.identities import TRIED_IMAGES
from pipeline.images.decode import ImageError, decode_bytes
from pipeline.images.lookup import find_entry
from pipeline.sources.catalog import find_source
from pipeline.sources.source import Rows
from shards.messages import command, counted

MAX_IMAGE_BYTES = 1 << 26


def source_findings(kind: str, folder: Path) -> Iterator[Finding]:
    """Counts, bad entries, and some images that are decoded.

    Args:
        kind: name of a source that lists its images without opening each.

    Raises:
        SourceError: the source finds no images in ``folder``.
    """
    source = find_source(kind)
    path = source.locate(folder)
    if kind == "recordio" and find_entry(folder, f"{path.stem}.idx") is None:
        yield warn(
            f"{path}: without {path.stem}.idx it is not counted",
            "restore it; build-shards reads the whole file instead",
        )
    else:
        yield from _rows(source.rows(path, (), aligning=False), path)
    if sets := sorted(one.name for one in folder.iterdir() if one.suffix.lower() == ".bin" and one.name[0] != "."):
        yield note(f"verification sets: {', '.join(sets)}", command("bench", "pairs", folder / sets[0]))


def _rows(rows: Rows, path: Path) -> Iterator[Finding]:
    people = pc.count_distinct(pc.replace_substring_regex(rows.keys, "(?s)/[^/]*$", "")).as_py()
    yield ok(f"{path}: {counted(len(rows.keys), 'image')} of {counted(people, 'person')}")
    if rows.points is not None:
        yield ok(f"with landmarks: {counted(int(np.isfinite(rows.points).all(1).sum()), 'image')}")
    if rows.problems:
        first, (_, reason) = next(iter(rows.problems.items()))
        yield warn(
            f"bad entries: {len(rows.problems):,}, first {rows.keys[first]}: {reason}",
            "restore them; build-shards makes each of them a row with that reason",
        )
    usable = [row for row in range(len(rows.keys)) if row not in rows.problems]
    if not usable:
        yield fail(f"{path}: no usable image", "restore its files")
        return
    tried = usable[:: max(-(-len(usable) // TRIED_IMAGES), 1)]
    odd = [(row, why) for row in tried if (why := _problem(rows, row))]
    rows.reader.close()
    if odd:
        row, why = odd[0]
        yield warn(
            f"unreadable: {len(odd):,} of {counted(len(tried), 'image')} tried, first {rows.keys[row]}: {why}",
            "restore them; build-shards records such images as unreadable-image",
        )
    else:
        yield ok(f"{counted(len(tried), 'image')} of it were decoded")


def _problem(rows: Rows, row: int) -> str | None:
    """Why an image cannot be decoded; None if it can."""
    try:
        place = (rows.keys if rows.places is None else rows.places)[row].as_py()
        decode_bytes(rows.reader.read(place, MAX_IMAGE_BYTES))
    except (ImageError, OSError) as error:
        return str(error)
    return None
