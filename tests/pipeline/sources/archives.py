"""What tests of sources share: tables, a small build, and what it stored."""

from __future__ import annotations

import contextlib
import csv
import io
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.build import build, options_for


def stored(source, root, out, **options):
    """Builds a set in this process; returns its index, a list of rows in the order of keys."""
    build(options_for(source, root=root, out=out, executor="serial", **options))
    return sorted(pq.read_table(out / "index.parquet").to_pylist(), key=lambda row: row["key"])


def face_table(root):
    """(path, ten numbers) of the images of the generated VGGFace2."""
    with open(root / "bb_landmark" / "loose_landmark_train.csv", newline="") as stream:
        rows = list(csv.reader(stream))[1:]
    return {f"{row[0]}.jpg": [float(value) for value in row[1:]] for row in rows}


@contextlib.contextmanager
def peak_memory():
    """Yields a function that tells the most memory, in bytes, that Python's allocators gave out within the block."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1] if tracemalloc.is_tracing() else peak
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()


def as_csv(header, rows, delimiter=","):
    stream = io.StringIO()
    csv.writer(stream, delimiter=delimiter, lineterminator="\n").writerows([*([header] if header else []), *rows])
    return stream.getvalue()


def parquet(file, /, **columns):
    pq.write_table(pa.table(columns), file)
    return file


def written(path, text):
    path.write_text(text, encoding="utf-8")
    return path
