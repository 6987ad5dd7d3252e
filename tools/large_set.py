"""Plans, finishes and opens a synthetic shard set of millions of rows, and measures time and memory.

Makes a landmark table in FOLDER, unless it exists, and plans it as ``build-shards`` does. Writes the rows of the shards
without tars, makes index and manifest as ``build-shards`` does, and opens the set in several processes. 42 million rows take
15 minutes and 20 GB.
"""

from __future__ import annotations

import concurrent.futures as futures
import dataclasses
import multiprocessing
import re
import resource
import sys
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))  # a script of the repository, not an installed package

from benchmarks.report.document import Grid, as_text
from pipeline.build.job import planned
from pipeline.build.options import options_for
from shards.files import file_facts, write_record
from shards.index import ShardIndex
from shards.schema import DONE_SUFFIX, PLAN, ROW_SCHEMA, STATUS_OK, shard_file
from tools.costs import in_fresh_process, peak_mb, resident_mb
from tools.made_table import make_table

JPEG_BYTES = (4000, 12_000)
SOURCE_PX = 250
NO_FILE = {"size": 0, "xxh3": "", "sha256": ""}

Row = tuple[str, float, float, float]  # what, seconds of the clock and of the CPU, MB


class Stopwatch:
    """Rows of a table: each from the end of the one before."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self._clock, self._cpu = time.perf_counter(), time.process_time()
        _forget_peak()

    def lap(self, what: str) -> None:
        """Ends a row, with its peak of memory."""
        clock, cpu = time.perf_counter(), time.process_time()
        self.rows.append((what, clock - self._clock, cpu - self._cpu, peak_mb()))
        print("{}: {:.1f} s, {:.1f} s of the CPU, {:.0f} MB at the peak".format(*self.rows[-1]), file=sys.stderr)
        self._clock, self._cpu = clock, cpu
        _forget_peak()


def _forget_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")


def plan_and_finish(table: Path, out: Path) -> list[Row]:
    """What a build does in its parent process; ``out`` becomes a set without tars."""
    out.mkdir()
    watch = Stopwatch()
    watch.lap("start")
    options = options_for("folder", root=table.parent, out=out, landmarks=[table], template="arcface")
    job = planned(options, None)
    write_record(out / PLAN, {"root": str(table.parent), "parts": job.parts})
    watch.lap("plan")
    records, rng = {}, np.random.default_rng(0)
    for task in job.tasks({}):
        labels = np.array(task.labels)
        stored = np.array([row not in task.rejected for row in range(len(labels))])
        keys, identities = pa.array(task.keys).filter(stored), pa.array(task.identities).filter(stored)
        points = None if task.points is None else task.points[stored]
        records[task.shard] = write_rows(out, task.shard, keys, identities, labels[stored], rng, points)
        records[task.shard]["fingerprint"] = job.fingerprint
    watch.lap("tasks of all shards, and their rows")
    job.finish(records)
    watch.lap("index and manifest")
    return watch.rows


def write_rows(
    root: Path,
    shard: int,
    keys: pa.Array,
    identities: pa.Array,
    labels: np.ndarray,
    rng: np.random.Generator,
    points: np.ndarray | None = None,
) -> dict[str, Any]:
    """Writes rows and done record of a shard whose tar is not there; returns the record."""
    count = len(keys)
    size = rng.integers(*JPEG_BYTES, count)
    columns = {
        "key": keys,
        "identity": identities,
        "label": labels,
        "shard": np.full(count, shard),
        "offset": np.cumsum(size + 1024) - size,
        "size": size,
        "xxh3": rng.integers(1 << 63, size=count, dtype=np.uint64),
        "width": np.full(count, SOURCE_PX),
        "height": np.full(count, SOURCE_PX),
        "landmarks": _lists(rng.random((count, 10)) if points is None else points),
        "matrix": _lists(rng.random((count, 6))),
        "eye_distance": rng.random(count),
        "status": pa.repeat(pa.scalar(STATUS_OK), count),
        "error_message": pa.nulls(count, pa.string()),
    }
    arrays = [pa.array(columns[field.name]).cast(field.type) for field in ROW_SCHEMA]
    path = root / shard_file(shard, "parquet")
    pq.write_table(pa.table(arrays, schema=ROW_SCHEMA), str(path), compression="zstd")
    files = {shard_file(shard, "tar"): NO_FILE, shard_file(shard, "idx"): NO_FILE, path.name: file_facts(path)}
    record = {"shard": shard, "rows": count, "images": count, "statuses": {STATUS_OK: count}, "files": files}
    write_record(root / shard_file(shard, DONE_SUFFIX), {**record, "fingerprint": ""})
    return record


def _lists(numbers: np.ndarray) -> pa.Array:
    ends = np.arange(len(numbers) + 1, dtype=np.int32) * numbers.shape[1]
    return pa.ListArray.from_arrays(ends, pa.array(numbers.astype(np.float32).ravel()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Opening:
    """What opening an index takes one of several processes, MB, and what a sampler and reader do with it."""

    seconds: float
    resident: float
    private: float
    proportional: float


def opening(root: Path, processes: int) -> Opening:
    """Opens the index in a process of several; all wait for each other before memory is measured."""
    before = {name: _rollup_mb(name) for name in ("Private_Dirty", "Private_Clean", "Pss", "Rss")}
    start = time.perf_counter()
    index = ShardIndex(root)
    seconds = time.perf_counter() - start
    for name in ("label", "shard", "offset", "size", "xxh3"):
        getattr(index, name).max()  # all of it is read
    time.sleep(2.0 * processes)  # the others have read it, too
    added = {name: _rollup_mb(name) - value for name, value in before.items()}
    return Opening(
        seconds=seconds,
        resident=added["Rss"],
        private=added["Private_Dirty"] + added["Private_Clean"],
        proportional=added["Pss"],
    )


def _rollup_mb(name: str) -> float:
    found = re.search(rf"^{name}:\s*(\d+) kB$", Path("/proc/self/smaps_rollup").read_text(), re.MULTILINE)
    assert found, f"no {name} in /proc/self/smaps_rollup"
    return int(found[1]) * 1024 / 1e6


def open_at_once(root: Path, processes: int) -> list[Opening]:
    """Opens the index in several processes at the same time."""
    context = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(processes, mp_context=context) as pool:
        list(pool.map(_imported, range(processes)))
        return list(pool.map(opening, [root] * processes, [processes] * processes))


def _imported(number: int) -> float:
    time.sleep(0.5)  # each process gets one
    return resident_mb()


def first_opening(root: Path) -> Row:
    """Opens the index in this process, which makes the file of its columns."""
    start, cpu = time.perf_counter(), time.process_time()
    ShardIndex(root)
    return ("first opening", time.perf_counter() - start, time.process_time() - cpu, peak_mb())


@click.command(help=__doc__)
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@click.option("--rows", type=click.IntRange(min=1000), default=42_000_000, show_default=True)
@click.option("--identities", type=click.IntRange(min=1), default=2_000_000, show_default=True)
@click.option(
    "--kind", type=click.Choice(["parquet", "csv"]), default="parquet", show_default=True, help="Of the table."
)
@click.option("--processes", type=click.IntRange(min=1), default=2, show_default=True, help="That open it at once.")
def main(folder: Path, rows: int, identities: int, kind: str, processes: int) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise click.BadParameter(f"{folder} cannot be made: {error.strerror}", param_hint="FOLDER") from None
    table, out = folder / f"table.{kind}", folder / "set"
    if not table.exists():
        make_table(table, rows, min(identities, rows))
    measured = in_fresh_process(plan_and_finish, table, out)
    measured.append(in_fresh_process(first_opening, out))
    cells = [[what, f"{clock:,.1f}", f"{cpu:,.1f}", f"{peak:,.0f}"] for what, clock, cpu, peak in measured]
    title = f"{rows:,} rows of {identities:,} people, {kind}"
    print(as_text(Grid(caption=title, header=["", "seconds", "of the CPU", "peak MB"], rows=cells)))
    found = open_at_once(out, processes)
    cells = [
        [str(number), f"{one.seconds:.2f}", f"{one.resident:,.0f}", f"{one.proportional:,.0f}", f"{one.private:,.0f}"]
        for number, one in enumerate(found, 1)
    ]
    title = f"{processes} processes that open it at once"
    print(as_text(Grid(caption=title, header=["", "seconds", "resident MB", "share MB", "private MB"], rows=cells)))
    print(f"peak of any process: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024 / 1e6:,.0f} MB")


if __name__ == "__main__":
    main()
