"""The report of several results: HTML, Markdown, pictures, JSON."""

from __future__ import annotations

import json
import re
from pathlib import Path

from benchmarks.errors import ReportError
from benchmarks.report.document import Grid, Section, as_html, as_markdown
from benchmarks.report.figures import KINDS, result_pictures
from benchmarks.report.own_tables import OWN
from benchmarks.report.published import PUBLISHED, TABLES
from benchmarks.report.tables import facts, metric_label, network_label, percent, percent_range, result_grids, warnings
from benchmarks.scoring.intervals import ROUNDS
from benchmarks.scoring.results import Result, library_versions, write_json
from shards.files import write_bytes

TITLE = "Low-resolution face recognition: scores"
HTML_NAME, MARKDOWN_NAME = "report.html", "report.md"
MAX_LISTED = 20  # missing images
_SHOWN = re.compile(r"^!\[.*\]\(([\w-]+\.png)\)$", re.MULTILINE)
_BENCHMARK_FILE = re.compile(rf"(?:{'|'.join((*TABLES, *OWN))})(?:\.json|-(?:{'|'.join(KINDS)})[\w-]*\.png)")


class Report:
    """A report in a folder: report.html, report.md, the pictures and one JSON file per benchmark.

    Args:
        folder: need not exist. Pictures of an earlier report that this one does not have are deleted; results and
            everything else are kept.

    Raises:
        ReportError: the folder has a file with the name of the page that is not an earlier report.
    """

    def __init__(self, folder: Path) -> None:
        for path in (folder / HTML_NAME, folder / MARKDOWN_NAME):
            if path.exists() and TITLE not in path.read_text(errors="replace")[:1000]:
                raise ReportError(f"{path}: exists and is not a report of bench; choose another --report, or rename it")
        self._folder = folder
        self._results: list[Result] = []
        self._sections: list[Section] = []

    def add(self, result: Result) -> Path:
        """Writes the report of all results so far; returns the path of report.html."""
        section = _section(result)
        self._folder.mkdir(parents=True, exist_ok=True)
        for picture in section.pictures:
            write_bytes(self._folder / picture.name, picture.png)
        write_json([result], self._folder / f"{result.benchmark}.json")
        self._results.append(result)
        self._sections.append(section)
        sections = [_summary(self._results), *self._sections, _methods(self._results[0])]
        earlier = self._pictures()
        write_bytes(self._folder / MARKDOWN_NAME, as_markdown(TITLE, sections).encode())
        write_bytes(self._folder / HTML_NAME, as_html(TITLE, sections).encode())
        for name in earlier - self._pictures():
            (self._folder / name).unlink(missing_ok=True)
        return self._folder / HTML_NAME

    def _pictures(self) -> set[str]:
        """The pictures that the report in the folder shows."""
        path = self._folder / MARKDOWN_NAME
        text = path.read_text(errors="replace") if path.is_file() else ""
        return {name for name in _SHOWN.findall(text) if is_report_file(name)}


def write_report(results: list[Result], folder: Path) -> Path:
    """Writes a report of one or more results; returns the path of report.html."""
    report = Report(folder)
    return [report.add(result) for result in results][-1]


def is_report_file(name: str) -> bool:
    """Whether a report may overwrite or delete a file of this name."""
    return name in (HTML_NAME, MARKDOWN_NAME) or _BENCHMARK_FILE.fullmatch(name) is not None


def _summary(results: list[Result]) -> Section:
    by_caveat: dict[str, list[str]] = {}
    for result in results:
        if result.caveats:
            by_caveat.setdefault("; ".join(result.caveats), []).append(result.title)
    rows = [
        [
            result.title + (" (partial)" if result.missing else ""),
            metric_label(result.benchmark, result.main),
            percent(result.metrics[result.main]),
            percent_range(result.intervals.get(result.main)),
        ]
        for result in results
    ]
    return Section(
        title="Summary",
        warnings=[
            f"Not comparable with published results ({caveat}): {', '.join(titles)}."
            for caveat, titles in by_caveat.items()
        ],
        text=[f"Network: {network_label(results[0].checkpoint)}."],
        grids=[
            Grid(
                caption="headline metric of each benchmark, %",
                header=["benchmark", "metric", "score", "95 % interval"],
                rows=rows,
            )
        ],
    )


def _section(result: Result) -> Section:
    published = PUBLISHED.get(result.benchmark, [])
    sources = [f"{row.system}: {row.source}{f' ({row.note})' if row.note else ''}." for row in published]
    missing = [f"left out: {path}: {reason}" for path, reason in result.missing[:MAX_LISTED]]
    if len(result.missing) > MAX_LISTED:
        missing.append(f"left out: {len(result.missing) - MAX_LISTED:,} more, listed in {result.benchmark}.json")
    return Section(
        title=result.title,
        warnings=warnings(result),
        text=facts(result),
        grids=result_grids(result),
        pictures=list(result_pictures(result)),
        notes=[*sources, *missing],
    )


def _methods(result: Result) -> Section:
    labels = {"path": "checkpoint", "digest": "digest", "precision": "precision", "device": "device"}
    return Section(
        title="How it was measured",
        text=[
            "Similarity is the cosine of two embeddings, without flip augmentation. 95 % intervals: Wilson's for"
            " proportions, chi-squared for standard deviations, percentile bootstrap over identities"
            f" ({ROUNDS} rounds) for other metrics."
        ],
        notes=[
            *(f"{label}: {result.checkpoint.get(name)}" for name, label in labels.items()),
            f"preprocessing: {json.dumps(result.preprocessing.to_dict())}",
            f"versions: {json.dumps(library_versions())}",
        ],
    )
