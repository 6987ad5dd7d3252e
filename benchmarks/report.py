"""Results as a printed table, JSON, Markdown and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.published import QMUL
from benchmarks.qmul import FALSE_ACCEPT_RATES
from benchmarks.runner import Result

_COLUMNS = {**{f"tar@far={far:g}": f"TAR@{far:.4g}" for far in FALSE_ACCEPT_RATES}, "auc": "AUC"}
_NOTE = "Published rows: QMUL-SurvFace itself. Comparable only if the first row is too; scores on generated or simulated faces are not."


def table(result: Result) -> list[list[str]]:
    """Header and rows, in percent: this checkpoint, its interval, the published figures."""
    ours = [f"{100 * result.metrics[name]:.2f}" for name in _COLUMNS]
    spread = ["{:.1f}-{:.1f}".format(*(100 * bound for bound in result.intervals[name])) for name in _COLUMNS]
    step = "" if result.checkpoint["step"] is None else f", step {result.checkpoint['step']:,}"
    rows = [
        ["QMUL-SurvFace, %", *_COLUMNS.values()],
        [f"{result.checkpoint['backbone']}{step}", *ours],
        ["  95 % interval", *spread],
    ]
    return rows + [[name, *(f"{100 * figures[column]:.2f}" for column in _COLUMNS)] for name, figures in QMUL.items()]


def print_table(result: Result) -> str:
    """The table as aligned text, with what was scored below it."""
    rows = table(result)
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], "", _scored(result), _NOTE])


def write_json(result: Result, path: Path) -> None:
    """Writes the result as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result.to_dict(), indent=1, allow_nan=False) + "\n")


def write_report(result: Result, folder: Path) -> Path:
    """Writes ``report.md``, ``qmul-roc.png`` and ``qmul.json`` into ``folder``; returns the Markdown's path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(result, folder / "qmul.json")
    plot_roc(result, folder / "qmul-roc.png")
    header, *rows = table(result)
    lines = [
        "# QMUL-SurvFace verification",
        "",
        _scored(result),
        "",
        "| " + " | ".join(header) + " |",
        "|---" + "|--:" * (len(header) - 1) + "|",
        *("| " + " | ".join(cell.strip() for cell in row) + " |" for row in rows),
        "",
        _NOTE,
        "",
        "![ROC](qmul-roc.png)",
        "",
        f"Checkpoint `{result.checkpoint['path']}`. Preprocessing: {json.dumps(result.preprocessing)}.",
    ]
    path = folder / "report.md"
    path.write_text("\n".join(lines) + "\n")
    return path


def plot_roc(result: Result, path: Path) -> None:
    """Draws TAR over log FAR with its interval band and the published operating points."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import PercentFormatter

    figure, axes = plt.subplots(figsize=(7, 5), layout="constrained")
    curve: dict[str, Any] = result.curve
    axes.fill_between(curve["far"], curve["low"], curve["high"], alpha=0.2, label="95 % interval")
    axes.plot(
        curve["far"], curve["tar"], label=f"{result.checkpoint['backbone']}, AUC {100 * result.metrics['auc']:.2f} %"
    )
    for (name, figures), marker in zip(QMUL.items(), "sD^", strict=True):
        axes.plot(
            FALSE_ACCEPT_RATES,
            [figures[f"tar@far={far:g}"] for far in FALSE_ACCEPT_RATES],
            marker,
            mfc="none",
            label=f"published: {name}",
        )
    axes.plot(curve["far"], curve["far"], ":", color="grey", label="chance")
    axes.set(
        xscale="log",
        xlim=(curve["far"][0], 1),
        ylim=(0, 1),
        xlabel="false accept rate (FAR)",
        ylabel="true accept rate (TAR)",
    )
    axes.set_title(f"QMUL-SurvFace verification\n{result.data}", fontsize=10)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.grid(alpha=0.3, which="both")
    axes.legend(loc="upper left", fontsize=8)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def _scored(result: Result) -> str:
    counts, metrics = result.counts, result.metrics
    return (
        f"{counts['pairs']:,} pairs ({counts['genuine']:,} genuine) of {counts['images']:,} images, each embedded once; "
        f"accuracy {100 * metrics['accuracy']:.2f} +- {100 * metrics['std']:.2f} % over 10 folds; data: {result.data}"
    )
