"""Makes synthetic landmark tables of any size."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

FACE = np.array([[60, 80], [120, 80], [90, 120], [65, 150], [115, 150]], np.float32)  # px
MAX_SHIFT_PX, TURN = 40.0, 0.05  # of a face; of a point within it, as a fraction of the shift
NO_FACE, REPEATED = 100, 1000  # one row in so many has no points, or is a row that was there before
CHUNK_ROWS = 500_000
NAMES = ["NAME_ID", *(f"P{point}{axis}" for point in range(1, 6) for axis in "XY")]
LIST_SCHEMA = pa.schema([pa.field("key", pa.string()), pa.field("landmarks", pa.list_(pa.float32()))])


def make_table(out: Path, rows: int, identities: int) -> None:
    """Writes a table of ``rows`` images of ``identities`` people, in the order of the people, as CSV or as Parquet.

    One row in 100 has no points, and one in 1,000 repeats an earlier name, as in tables that a detector made.
    """
    if out.suffix == ".csv":
        schema = pa.schema([(NAMES[0], pa.string()), *((name, pa.float32()) for name in NAMES[1:])])
        with pyarrow.csv.CSVWriter(out, schema) as writer:
            for keys, points, found in _chunks(rows, identities):
                columns = (pa.array(column, mask=~found) for column in np.round(points, 2).T)
                writer.write_batch(pa.record_batch([keys, *columns], schema=schema))
        return
    with pq.ParquetWriter(out, LIST_SCHEMA, compression="zstd") as writer:
        for keys, points, found in _chunks(rows, identities):
            ends = np.append(0, np.cumsum(found * points.shape[1], dtype=np.int32))
            lists = pa.ListArray.from_arrays(ends, pa.array(points[found].ravel()), mask=pa.array(~found))
            writer.write_batch(pa.record_batch([keys, lists], schema=LIST_SCHEMA))


def _chunks(rows: int, identities: int) -> Iterator[tuple[pa.Array, np.ndarray, np.ndarray]]:
    """Yields names, (n, 10) points and (n,) whether there are points."""
    rng = np.random.default_rng(0)
    for start in range(0, rows, CHUNK_ROWS):
        row = np.arange(start, min(start + CHUNK_ROWS, rows))
        image = np.where(row % REPEATED == REPEATED - 1, row - 1, row)
        keys = pc.binary_join_element_wise(_padded(image * identities // rows, "id", 7), _padded(image, "", 8), "/")
        shifts = rng.uniform(0, MAX_SHIFT_PX, (len(row), 1, 2))
        points = (FACE + shifts + TURN * rng.uniform(-1, 1, (len(row), 5, 2)) * shifts).astype(np.float32)
        yield keys, points.reshape(-1, FACE.size), rng.integers(NO_FACE, size=len(row)) > 0


def _padded(numbers: np.ndarray, prefix: str, digits: int) -> pa.Array:
    return pc.binary_join_element_wise(prefix, pc.utf8_lpad(pa.array(numbers).cast(pa.string()), digits, "0"), "")


@click.command(help=__doc__)
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--rows", type=click.IntRange(min=1), default=42_000_000, show_default=True)
@click.option("--identities", type=click.IntRange(min=1), default=2_000_000, show_default=True)
def main(out: Path, rows: int, identities: int) -> None:
    make_table(out, rows, min(identities, rows))


if __name__ == "__main__":
    main()
