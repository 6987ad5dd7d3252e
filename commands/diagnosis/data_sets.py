"""Data sets: counts against the published ones, missing and odd files, landmarks, lists."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import BENCHMARKS
from benchmarks.datasets.locate import find_first
from benchmarks.errors import AbsentError, ProtocolError
from benchmarks.scoring.protocols import Protocol
from commands.diagnosis.findings import Finding, fail, note, ok, warn
from commands.diagnosis.identities import TRIED_IMAGES, count_identities, coverage
from commands.diagnosis.source_sets import source_findings
from commands.diagnosis.waiting import Waiting
from pipeline.images.lookup import find_entry, find_folder, is_generated
from pipeline.images.sizes import image_size
from pipeline.prepare import Request
from pipeline.sources.file_readers import ImageFolder
from pipeline.sources.folder import Qmul, TinyFace
from pipeline.sources.vggface2 import VGGFace2
from pipeline.tables.landmark_table import LandmarkError
from shards.errors import LrfrError
from shards.messages import command, counted

TITLES = {
    "vggface2": "VGGFace2",
    "lfw": "LFW",
    "xqlfw": "XQLFW",
    "scface": "SCface",
    "qmul": "QMUL-SurvFace",
    "tinyface": "TinyFace",
}
SOURCE_TITLES = {"recordio": "RecordIO", "webdataset": "WebDataset", "huggingface": "Hugging Face image folder"}
OTHER_TITLES = {"folder": "Folder of identities", **SOURCE_TITLES}
# People and images. Source: the pages and papers of the data sets.
VGGFACE2_SPLITS = {"train": (8_631, 3_141_890), "test": (500, 169_396)}
LFW_COUNTS = (5_749, 13_233)
TRAINING_SETS = {"qmul": (Qmul(), (5_319, 220_888)), "tinyface": (TinyFace(), (2_570, 7_804))}
_BENCHMARKS = {
    "lfw": ("lfw",),
    "xqlfw": ("xqlfw",),
    "scface": ("scface",),
    "qmul": ("qmul", "qmul-id"),
    "tinyface": ("tinyface",),
}
OWN_TABLE = "landmarks.parquet"  # a name that users give to what landmarks writes
_RESTORE = "restore it from the archive, or score without it: --allow-missing"


def data_set_findings(kind: str, folder: Path) -> Iterator[Finding]:
    """What is in the folder of one data set."""
    generated = is_generated(folder)
    if generated:
        yield note("generated faces of demo-data: scores on them say nothing about real ones")
    if kind == "vggface2":
        yield from _vggface2(folder, generated)
    if kind == "lfw" and (images := find_entry(folder, "lfw")):
        yield from _counts("images", images, None if generated else LFW_COUNTS)
    if kind == "folder":
        yield from _folder(folder)
    if kind in SOURCE_TITLES:
        yield from source_findings(kind, folder)
    if kind in TRAINING_SETS:
        yield from _training_set(kind, folder, generated)
    for name in _BENCHMARKS.get(kind, ()):
        yield from _benchmark(name, folder)


def _counts(name: str, folder: Path, published: tuple[int, int] | None) -> Iterator[Finding]:
    """Counts ``folder/person/image``."""
    found = count_identities(folder)
    text = f"{name}: {found.described}"
    if published is None:
        yield ok(text)
    elif (found.people, found.images) == published:
        yield ok(f"{text}, as published")
    else:
        yield warn(
            f"{text}; published: {counted(published[1], 'image')} of {published[0]:,} people",
            "complete the copy, unless you mean to use a part",
        )
    if odd := [path for path in found.tried if image_size(path) is None]:
        yield warn(
            f"unreadable: {len(odd):,} of {counted(len(found.tried), 'image')} tried, first {odd[0]}",
            "restore them from the archive; build-shards records such images as unreadable-image",
        )
    if found.empty:
        yield warn(
            f"{counted(len(found.empty), 'folder')} without an image, first {folder / found.empty[0]}",
            "restore them from the archive, or delete them",
        )
    if found.others:
        yield note(f"no image of a person: {counted(len(found.others), 'entry')}, first {folder / found.others[0]}")


def _training_set(kind: str, folder: Path, generated: bool) -> Iterator[Finding]:
    source, published = TRAINING_SETS[kind]
    found = find_folder(folder, source.dataset, source.training)
    if found is None:
        yield note(f"no {source.training}: build-shards --source {kind} cannot run")
        return
    yield from _counts(source.training, found, None if generated else published)


def _folder(folder: Path) -> Iterator[Finding]:
    yield from _counts("images", folder, None)
    table = next((path for name in ("landmarks.csv", OWN_TABLE) if (path := find_entry(folder, name))), None)
    if table:
        yield from coverage([table], [folder])
    else:
        built = command("build-shards", "--source", "folder", "--root", folder, "--landmarks", "auto")
        yield note(
            f"{folder}: no landmarks.csv",
            f"{built}; or --aligned arcface instead of --landmarks, if they are aligned crops",
        )


def _vggface2(folder: Path, generated: bool) -> Iterator[Finding]:
    splits = [folder / split for split in VGGFACE2_SPLITS if (folder / split).is_dir()]
    if not splits:
        yield fail(f"{folder}: neither train nor test in it", "put the identities into train/n000002/0001_01.jpg, ...")
    for split in splits:
        yield from _counts(split.name, split, None if generated else VGGFACE2_SPLITS[split.name])
    own = folder / OWN_TABLE
    try:
        tables = VGGFace2().landmark_files(folder)
    except LandmarkError as error:
        if not own.exists():
            built = command("build-shards", "--root", folder, "--landmarks", "auto")
            yield warn(str(error), f"put its bb_landmark there, or: {built}")
            return
        yield note(f"no bb_landmark: build-shards needs --landmarks {own}")
        tables = [own]
    yield from coverage(tables, splits)


def _benchmark(name: str, folder: Path) -> Iterator[Finding]:
    """Whether ``bench NAME`` can score the data set: the benchmark's own reader looks."""
    try:
        protocol, table = _read(name, folder)
    except AbsentError as error:
        yield note(f"bench {name}: {error}")
        return
    except LrfrError as error:
        if BENCHMARKS[name].aligned and isinstance(error, ProtocolError) and "landmarks" in str(error):
            scored = command("bench", name, "--root", folder, "--landmarks", "auto")
            yield warn(f"bench {name} needs landmarks: {error}", f"add them, or: {scored}")
        else:
            yield fail(f"bench {name} cannot run: {error}", "restore it from the archive")
        return
    if table:
        yield note(f"bench {name} needs --landmarks {table}")
    counts = ", ".join(f"{count:,} {key.replace('_', ' ')}" for key, count in protocol.counts.items())
    differs = [caveat for caveat in protocol.caveats if caveat != "generated faces"]
    if differs:
        yield warn(
            f"bench {name}: {counts}; differs from the published set ({'; '.join(differs)})",
            "complete the copy, or do not compare the scores with published ones",
        )
    else:
        yield ok(f"bench {name}: {counts}")
    yield from _images(name, protocol.requests)
    yield from _unlisted(name, protocol.requests)
    if BENCHMARKS[name].aligned:
        yield from _rows(name, folder, protocol.requests)


def _read(name: str, folder: Path) -> tuple[Protocol, Path | None]:
    """The protocol of a benchmark, and the table that it needs if it has no landmarks but those of ``landmarks``."""
    own = folder / OWN_TABLE
    try:
        return BENCHMARKS[name].read(folder), None
    except LrfrError as error:
        if isinstance(error, AbsentError) or not (BENCHMARKS[name].aligned and own.exists()):
            raise
    return BENCHMARKS[name].read(folder, [own]), own


def _images(name: str, requests: Sequence[Request]) -> Iterator[Finding]:
    """Are the images of the protocol there, and do some of them look like images?"""
    paths = list(dict.fromkeys(request.path for request in requests))
    missing, empty = [], []
    with Waiting(f"look for the images of {name}", len(paths)) as progress:
        for path in paths:
            try:
                if os.stat(path).st_size == 0:
                    empty.append(path)
            except OSError:
                missing.append(path)
            progress.update()
    if missing:
        yield fail(f"missing: {len(missing):,} of {counted(len(paths), 'image')}, first {missing[0]}", _RESTORE)
    if empty:
        yield fail(f"empty files: {counted(len(empty), 'image')}, first {empty[0]}", _RESTORE)
    gone = {*missing, *empty}
    present = [path for path in paths if path not in gone]
    tried = present[:: max(-(-len(present) // TRIED_IMAGES), 1)]
    odd = [path for path in tried if image_size(path) is None]
    if odd:
        yield fail(f"unreadable: {len(odd):,} of {counted(len(tried), 'image')} tried, first {odd[0]}", _RESTORE)
    elif not gone:
        yield ok(f"all {counted(len(paths), 'image')} are there; {len(tried):,} headers were read")


def _unlisted(name: str, requests: Sequence[Request]) -> Iterator[Finding]:
    """Images in the folders of QMUL-SurvFace and TinyFace that no list names."""
    if name not in ("qmul", "qmul-id", "tinyface"):
        return
    listed = {request.path for request in requests}
    for folder in sorted({path.parent for path in listed}):
        extra = [path for path in ImageFolder(folder).images if path not in listed]
        if extra:
            yield warn(
                f"in no list: {counted(len(extra), 'image')} of {folder}, first {extra[0].name}",
                "compare the folder and its .mat list with the archive; the images are not scored",
            )


def _rows(name: str, folder: Path, requests: Sequence[Request]) -> Iterator[Finding]:
    """Do the images of an aligned protocol have landmarks?"""
    paths = {request.path: bool(request.points) for request in requests}
    without = [path for path, has in paths.items() if not has and path.exists()]
    if without:
        yield fail(
            f"without landmarks: {len(without):,} of {counted(len(paths), 'image')}, first {without[0]}",
            f"add rows to {requests[0].place.partition(' row ')[0]}, or score without them: --allow-missing",
        )
    else:
        yield ok(f"all {counted(len(paths), 'image')} of bench {name} have landmarks")
    images = find_entry(folder, "lfw") if name == "lfw" else None
    table = find_first([folder, folder.parent], "LFW.csv") or find_entry(folder, OWN_TABLE)
    if table and images:
        yield from coverage([table], [images])
