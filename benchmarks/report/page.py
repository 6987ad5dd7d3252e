"""Results as a report: Markdown, HTML, pictures, JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarks import BENCHMARKS
from benchmarks.report.document import Grid, Section, as_html, as_markdown
from benchmarks.report.figures import KINDS, draw
from benchmarks.report.published import PUBLISHED
from benchmarks.report.tables import facts, grids, heading, network, percent, span, warnings
from benchmarks.scoring.intervals import ROUNDS
from benchmarks.scoring.results import Result, write_json
from shards.files import write_bytes

_TITLE = "Low-resolution face recognition: scores"
_PAGE, _TEXT = "report.html", "report.md"
_LISTED = 20  # missing images named
_OF_A_BENCHMARK = re.compile(rf"(?:{'|'.join(BENCHMARKS)})(?:\.json|-(?:{'|'.join(KINDS)})[\w-]*\.png)")


def write_report(results: list[Result], folder: Path) -> Path:
    """Writes report.md, report.html, the pictures and a JSON a benchmark into ``folder``; returns the HTML's path.

    What an earlier report left there of other benchmarks is deleted.
    """
    earlier = (folder / _PAGE).exists()
    folder.mkdir(parents=True, exist_ok=True)
    sections = [_summary(results), *(_section(result) for result in results), _about(results[0])]
    pictures = [picture for section in sections for picture in section.pictures]
    for picture in pictures:
        write_bytes(folder / picture.name, picture.png)
    for result in results:
        write_json([result], folder / f"{result.benchmark}.json")
    write_bytes(folder / _TEXT, as_markdown(_TITLE, sections).encode())
    write_bytes(folder / _PAGE, as_html(_TITLE, sections).encode())
    if earlier:
        written = {picture.name for picture in pictures} | {f"{result.benchmark}.json" for result in results}
        for path in folder.iterdir():
            if _OF_A_BENCHMARK.fullmatch(path.name) and path.name not in written:
                path.unlink()
    return folder / _PAGE


def is_report_file(name: str) -> bool:
    """Whether a report may have a file of this name, which it overwrites or deletes."""
    return name in (_PAGE, _TEXT) or _OF_A_BENCHMARK.fullmatch(name) is not None


def _summary(results: list[Result]) -> Section:
    doubts: dict[str, list[str]] = {}
    for result in results:
        if result.doubts:
            doubts.setdefault("; ".join(result.doubts), []).append(result.title)
    rows = [
        [
            result.title + (" (partial)" if result.missing else ""),
            heading(result.benchmark, result.main),
            percent(result.metrics[result.main]),
            span(result.intervals.get(result.main)),
        ]
        for result in results
    ]
    header = ["benchmark", "figure", "score", "95 % interval"]
    return Section(
        title="Summary",
        warnings=[f"Not comparable with published figures ({why}): {', '.join(who)}." for why, who in doubts.items()],
        text=[f"Network: {network(results[0].checkpoint)}."],
        grids=[Grid(caption="one figure a benchmark, %", header=header, rows=rows)],
    )


def _about(result: Result) -> Section:
    content = result.to_dict()
    named = ("path", "digest", "precision", "device")
    return Section(
        title="How it was measured",
        text=[
            f"Intervals are Wilson's for proportions and {ROUNDS} bootstrap rounds over identities for the rest; the"
            " standard deviation's is the chi-squared one. Similarity is the cosine of two embeddings, without flip"
            " fusion."
        ],
        notes=[
            *(f"{'checkpoint' if name == 'path' else name}: {result.checkpoint.get(name)}" for name in named),
            f"preprocessing: {json.dumps(content['preprocessing'])}",
            f"versions: {json.dumps(content['versions'])}",
        ],
    )


def _section(result: Result) -> Section:
    sources = [
        f"{row.system}: {row.source}{f' ({row.note})' if row.note else ''}." for row in PUBLISHED[result.benchmark]
    ]
    missing = [f"left out: {path}: {reason}" for path, reason in result.missing[:_LISTED]]
    rest = len(result.missing) - _LISTED
    if rest > 0:
        missing.append(f"left out: {rest:,} more, listed in {result.benchmark}.json")
    return Section(
        title=result.title,
        warnings=warnings(result),
        text=facts(result),
        grids=grids(result),
        pictures=list(draw(result)),
        notes=[*sources, *missing],
    )
