"""Landmark tables that are damaged anywhere: one named error, or rows that a plan can use."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.build.plan import make_plan
from pipeline.sources.folder import Folder
from pipeline.tables.landmark_lookup import NameLookup
from pipeline.tables.landmark_reader import read_landmarks
from pipeline.tables.landmark_table import LandmarkError
from shards.errors import LrfrError

POINTS = [54.5, 60, 100, 60, 78, 86, 58, 112, 97, 112]
KEYS = [f"n{row // 4:06d}/{row:04d}_01" for row in range(40)]


def text_table(separator):
    lines = [separator.join([f'"{key}"', *(f"{value + row:g}" for value in POINTS)]) for row, key in enumerate(KEYS)]
    return ("\n".join(lines) + "\n").encode()


def parquet_table(path, **options):
    landmarks = pa.array([[value + row for value in POINTS] for row in range(len(KEYS))], pa.list_(pa.float32()))
    pq.write_table(pa.table({"key": KEYS, "landmarks": landmarks}), path, **options)
    return path.read_bytes()


@pytest.mark.parametrize("kind", ["comma", "tab", "blank", "parquet", "plain parquet"])
@pytest.mark.parametrize(("count", "seed"), [(150, 0), pytest.param(10_000, 1, marks=pytest.mark.heavy)])
def test_damaged_tables_give_named_errors_or_rows(tmp_path, capsys, kind, count, seed):
    rng = np.random.default_rng(seed)
    path = tmp_path / ("x.parquet" if "parquet" in kind else "x.csv")
    options = {"compression": "none", "use_dictionary": False} if kind == "plain parquet" else {}
    separator = {"comma": ",", "tab": "\t", "blank": " "}
    good = text_table(separator[kind]) if kind in separator else parquet_table(path, **options)
    read = 0
    for _ in range(count):
        data = bytearray(good)
        for position in rng.integers(0, len(data), rng.integers(1, 4)).tolist():
            data[position] = rng.choice([data[position] ^ 1 << int(rng.integers(8)), *b'\0\n\r",;\t e9-', 255])
        path.write_bytes(data[: int(rng.integers(len(data)))] if rng.random() < 0.1 else data)
        try:
            table = read_landmarks([path])
            assert len(table.keys) == len(table.points)
            make_plan(Folder().rows(tmp_path, [path], aligning=True))
            NameLookup(table)
            read += 1
        except LrfrError:
            pass
    assert read < count
    assert read > 0 or kind == "parquet"


@pytest.mark.parametrize("rows", [2**62, 2**40, 10**9, 39, 0])
def test_a_stated_number_of_rows_takes_no_memory(tmp_path, rows):
    """The number of rows stands in the footer, as a variable-length integer."""
    path = tmp_path / "x.parquet"
    data, tail = parquet_table(path), b"\x16\x50"  # field of 40 rows in Thrift's compact protocol

    def encoded(value):
        value *= 2
        parts = []
        while value >= 128:
            parts.append(value & 127 | 128)
            value >>= 7
        return bytes([*parts, value])

    size = int.from_bytes(data[-8:-4], "little")
    footer = data[-8 - size : -8]
    assert tail in footer
    changed = footer.replace(tail, b"\x16" + encoded(rows), 1)
    path.write_bytes(data[: -8 - size] + changed + len(changed).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(LandmarkError, match=r"x\.parquet: "):
        read_landmarks([path])
