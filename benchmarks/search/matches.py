"""The table of matches: its columns, and the rows of one part of the probes."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from benchmarks.search.calibration import Calibration
from benchmarks.search.table import EmbeddingTable
from shards.files import open_regular, whole_file
from shards.messages import FORMULA_STARTS
from shards.schema import STATUS_OK

STATUS_NO_MATCH, STATUS_NO_EMBEDDING = "no-match", "no-embedding"
SCHEMA = pa.schema(
    [
        pa.field("probe", pa.string(), nullable=False),
        pa.field("probe_identity", pa.string()),
        pa.field("rank", pa.int32()),  # from 1; null unless the status is ok
        pa.field("gallery", pa.string()),
        pa.field("identity", pa.string()),  # of the gallery row
        pa.field("score", pa.float32()),  # cosine
        pa.field("log10_lr", pa.float32()),
        pa.field("log10_lr_low", pa.float32()),
        pa.field("log10_lr_high", pa.float32()),
        pa.field("lr_bounded", pa.bool_()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error_message", pa.string()),
    ]
)


def match_rows(
    probes: pa.Table,
    usable: np.ndarray,
    scores: np.ndarray,
    rows: np.ndarray,
    gallery: EmbeddingTable,
    calibration: Calibration | None,
) -> pa.Table:
    """The rows of some probes: one for each match, or a single one with a reason.

    Args:
        probes: columns path, identity, status, error_message of P probes.
        usable: (U,) numbers of those with an embedding.
        scores: (U, K), -inf where there are fewer matches.
        rows: (U, K) rows of the gallery.
    """
    matched = np.isfinite(scores)
    probe = np.repeat(usable, matched.sum(1))
    rank = (np.cumsum(matched, axis=1)[matched]).astype(np.int32)
    alone = np.setdiff1d(np.arange(len(probes)), probe)
    order = np.argsort(np.concatenate([probe, alone]), kind="stable")
    shown, places = np.unique(rows[matched], return_inverse=True)
    found = gallery.texts(["path", "identity"], shown).take(pa.array(places))
    columns = {
        "rank": pa.array(rank),
        "gallery": found["path"],
        "identity": found["identity"],
        "score": pa.array(scores[matched]),
        **_ratios(scores[matched], calibration),
    }
    taken = probes.take(pa.array(np.concatenate([probe, alone])))
    columns = {name: _padded(column, len(alone), SCHEMA.field(name).type) for name, column in columns.items()}
    status, reason = _reasons(taken, len(probe), np.isin(alone, usable))
    columns |= {"probe": taken["path"], "probe_identity": taken["identity"], "status": status, "error_message": reason}
    table = pa.table([columns[name] for name in SCHEMA.names], schema=SCHEMA)
    return table.take(pa.array(order))


def _ratios(scores: np.ndarray, calibration: Calibration | None) -> dict[str, pa.Array]:
    names = ["log10_lr", "log10_lr_low", "log10_lr_high", "lr_bounded"]
    if calibration is None:
        return {name: pa.nulls(len(scores), SCHEMA.field(name).type) for name in names}
    found = calibration.fitted.ratios(scores)
    values = (found.log10, found.low, found.high, found.bounded)
    return {name: pa.array(value, SCHEMA.field(name).type) for name, value in zip(names, values, strict=True)}


def _padded(column: pa.Array | pa.ChunkedArray, missing: int, kind: pa.DataType) -> pa.ChunkedArray:
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    return pa.chunked_array([*chunks, pa.nulls(missing, kind)], kind)


def _reasons(probes: pa.Table, matched: int, compared: np.ndarray) -> tuple[pa.Array, pa.Array]:
    """Status and reason of matched probes, and of the others behind them, of which some were compared in vain."""
    status, reason = (probes[name].combine_chunks() for name in ("status", "error_message"))
    good = pc.equal(status, STATUS_OK)
    alone = np.arange(len(probes)) >= matched
    for kind, text, where in (
        (STATUS_NO_MATCH, "the gallery has no other image", compared),
        (STATUS_NO_EMBEDDING, "the table has no embedding of it", ~compared),
    ):
        chosen = pc.and_(good, pa.array(np.concatenate([alone[:matched], where])))
        status, reason = pc.if_else(chosen, kind, status), pc.if_else(chosen, text, reason)
    return status, reason


def write_csv(path: Path, matches: Path) -> None:
    """Writes a table of matches as CSV, too, atomically.

    Text that a spreadsheet would take for a formula begins with an apostrophe: file names may come from anywhere.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with (
        whole_file(path) as temporary,
        open_regular(matches) as source,
        pq.ParquetFile(source) as file,
        open(temporary, "wb") as stream,
        pa.csv.CSVWriter(stream, SCHEMA) as writer,
    ):
        for batch in file.iter_batches(use_threads=False):
            columns = [
                pc.replace_substring_regex(column, rf"^([{re.escape(FORMULA_STARTS)}])", r"'\1")
                if pa.types.is_string(column.type)
                else column
                for column in batch.columns
            ]
            writer.write_batch(pa.record_batch(columns, schema=SCHEMA))
