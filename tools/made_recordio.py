"""Writes RecordIO files as insightface's tools do, with synthetic content, and measures how fast they are listed and read.

python -m tools.made_recordio [RECORDS]
"""

from __future__ import annotations

import itertools
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pipeline.sources.recordio import RecordIO

MAGIC = struct.pack("<I", 0xCED7230A)
IMAGE_BYTES = 5000  # of a 112 px JPEG
IMAGES_PER_IDENTITY = 50


def packed(label: float | Sequence[float], number: int, image: bytes = b"") -> bytes:
    """A payload: header, labels if there are several, image."""
    if isinstance(label, int | float):
        return struct.pack("<IfQQ", 0, label, number, 0) + image
    return struct.pack("<IfQQ", len(label), 0, number, 0) + struct.pack(f"<{len(label)}f", *label) + image


def write_record(stream: BinaryIO, payload: bytes) -> int:
    """Writes one record, cut into parts at words that equal the magic; returns its offset."""
    offset = stream.tell()
    parts, start = [], 0
    for at in range(0, len(payload) - 3, 4):
        if payload[at : at + 4] == MAGIC:
            parts.append(payload[start:at])
            start = at + 4
    parts.append(payload[start:])
    for number, part in enumerate(parts):
        kind = 0 if len(parts) == 1 else 1 if number == 0 else 3 if number == len(parts) - 1 else 2
        stream.write(MAGIC + struct.pack("<I", kind << 29 | len(part)) + part + bytes(-len(part) % 4))
    return offset


def write_records(folder: Path, payloads: Iterable[bytes], *, index: bool = True) -> Path:
    """Writes ``train.rec`` and ``train.idx``, the records numbered from 0; returns the former."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "train.rec", "wb") as stream:
        offsets = [write_record(stream, payload) for payload in payloads]
    if index:
        (folder / "train.idx").write_text("".join(f"{number}\t{offset}\n" for number, offset in enumerate(offsets)))
    return folder / "train.rec"


def insightface_payloads(people: Sequence[Sequence[bytes]]) -> list[bytes]:
    """Header record, images, then a record for each identity, as in MS1M."""
    counts = [len(images) for images in people]
    first = 1 + sum(counts)
    payloads = [packed((first, first + len(people)), 0)]
    for person, images in enumerate(people):
        payloads += [packed(person, len(payloads) + number, image) for number, image in enumerate(images)]
    starts = np.cumsum([1, *counts]).tolist()
    return payloads + [
        packed((start, end), first + person) for person, (start, end) in enumerate(itertools.pairwise(starts))
    ]


def measure(count: int, folder: Path) -> None:
    """Prints records/s of listing with an index, without one, and by labels, and of reading in random order."""
    image = np.random.default_rng(0).integers(0, 256, IMAGE_BYTES, np.uint8).tobytes()
    people = [[image] * IMAGES_PER_IDENTITY] * (count // IMAGES_PER_IDENTITY)
    path = write_records(folder, insightface_payloads(people))
    source = RecordIO()

    def timed(what: str, records: int, work: Callable[[], object]) -> None:
        start = time.perf_counter()
        work()
        print(f"{what}: {records / (time.perf_counter() - start):,.0f} records/s")

    rows = source.rows(path, (), aligning=False)
    assert rows.places is not None
    places = [place.as_py() for place in rows.places]
    timed("listed by train.idx and ranges", len(places), lambda: source.rows(path, (), aligning=False))
    np.random.default_rng(1).shuffle(places)
    timed("read one by one, in random order", len(places), lambda: [rows.reader.read(place) for place in places])
    rows.reader.close()
    (folder / "train.idx").unlink()
    timed("listed without train.idx", len(places), lambda: source.rows(path, (), aligning=False))
    write_records(folder, [packed(number // 50, number, image) for number in range(count)])
    timed("listed by labels", count, lambda: source.rows(path, (), aligning=False))


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        measure(int(sys.argv[1]) if len(sys.argv) > 1 else 200_000, Path(made))
