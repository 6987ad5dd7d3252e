"""What the commands ``search`` and ``calibrate`` print."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from benchmarks.report.document import Grid, as_text
from benchmarks.search.calibration import Calibration, counted_pairs
from benchmarks.search.run import Summary
from shards.files import open_regular
from shards.messages import counted, printable

SHOWN = 10  # rows of the table of matches
PATH_CHARACTERS = 36


def search_notes(summary: Summary) -> list[str]:
    """Lines for stderr: what was left out, and what to be careful about."""
    lines = []
    for name, count in (("gallery", summary.gallery_unusable), ("probes", summary.probes_unusable)):
        if count:
            lines.append(f"{name}: {counted(count, 'row')} without embedding, see their status and error_message")
    if summary.same_path:
        lines.append(f"{counted(summary.same_path, 'pair')} of one path not compared: they show one photograph")
    if summary.in_template:
        lines.append(
            f"{counted(summary.in_template, 'probe')} in the folder of a gallery template, which may contain them: their"
            " scores are too high"
        )
    if summary.bounded:
        lines.append(
            f"{counted(summary.bounded, 'likelihood ratio')} bounded (lr_bounded): beyond what the calibration supports"
        )
    if summary.differences:
        lines.append(
            f"the calibration is of other images: {'; '.join(summary.differences)}; its likelihood ratios may be wrong"
        )
    return lines


def search_lines(summary: Summary, calibration: Calibration | None, out: Path) -> list[str]:
    """Lines for stdout: the first matches, and counts."""
    lines = [_first_matches(out), ""]
    if summary.recall is not None:
        lines.append(f"index pq found {summary.recall:.1%} of the exact matches of some probes")
    if calibration is not None:
        lines.append(f"calibration: {_pairs(calibration)}; Cllr {calibration.fitted.cllr:.3f}")
    lines.append(f"{counted(summary.probes, 'probe')} in a gallery of {summary.gallery:,}: {out}")
    return lines


def _first_matches(out: Path) -> str:
    with (
        open_regular(out) as stream,
        pq.ParquetFile(stream) as file,
    ):  # PyArrow would take a path with a colon for a URI
        rows = next(file.iter_batches(SHOWN, use_threads=False)).to_pylist()
        header = [f"first of {counted(file.metadata.num_rows, 'row')}", "rank", "gallery", "score", "log10 LR"]
    cells = [
        [
            _end(row["probe"]),
            _number(row["rank"]),
            _end(row["gallery"] or row["status"]),
            _number(row["score"]),
            _ratio(row),
        ]
        for row in rows
    ]
    return as_text(Grid(caption=header[0], header=header, rows=cells))


def _end(path: str) -> str:
    return path if len(path) <= PATH_CHARACTERS else f"...{path[3 - PATH_CHARACTERS :]}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,}" if isinstance(value, int) else f"{value:.4f}"


def _ratio(row: dict[str, Any]) -> str:
    if row["log10_lr"] is None:
        return "-"
    bounded = " bounded" if row["lr_bounded"] else ""
    return f"{row['log10_lr']:+.2f} [{row['log10_lr_low']:+.2f}, {row['log10_lr_high']:+.2f}]{bounded}"


def calibration_lines(calibration: Calibration, out: Path) -> list[str]:
    """Lines for stdout: how good the likelihood ratios are."""
    fitted = calibration.fitted
    line, (low, high) = fitted.line, fitted.cllr_interval
    genuine, impostors = fitted.misleading
    return [
        _pairs(calibration),
        f"Cllr {fitted.cllr:.3f} [{low:.3f}, {high:.3f}] for people held out, minimum {fitted.min_cllr:.3f}"
        " (0 is perfect, 1 is useless)",
        f"misleading: {genuine:.2%} of genuine pairs have an LR below 1, {impostors:.2%} of impostors one above 1",
        f"log10 LR = {line.intercept:+.3f} {line.slope:+.3f} * score: LR 1 at score {-line.intercept / line.slope:.3f}",
        f"bounds: scores {line.scores[0]:.3f} to {line.scores[1]:.3f}, log10 LR {line.bounds[0]:+.2f} to {line.bounds[1]:+.2f}",
        f"calibration: {out}",
    ]


def _pairs(calibration: Calibration) -> str:
    return f"{printable(calibration.source['pairs'])}: {counted_pairs(calibration.counts)}"
