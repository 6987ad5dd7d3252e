"""What a RecordIO file contains, and what it should."""

from __future__ import annotations

import contextlib

from pipeline.images.decode import ImageError
from pipeline.sources.recordio import RecordIO

SIDE = 112


def rows_of(path):
    """(key, image or the reason why there is none) of each row."""
    rows = RecordIO().rows(path, (), aligning=False)
    found = []
    with contextlib.closing(rows.reader) as reader:
        for row, (key, place) in enumerate(zip(rows.keys.to_pylist(), rows.places.to_pylist(), strict=True)):
            try:
                found.append((key, rows.problems[row][1] if row in rows.problems else reader.read(place, 1 << 20)))
            except ImageError as error:
                found.append((key, str(error)))
    return found


def expected(people):
    numbers = iter(range(1, 1000))
    return [(f"{person:06d}/{next(numbers):08d}", image) for person, images in enumerate(people) for image in images]
