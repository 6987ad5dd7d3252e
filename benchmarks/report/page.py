"""The report of several results: HTML, Markdown, LaTeX, CSV, figures, JSON."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks.errors import ReportError
from benchmarks.report.document import Grid, Link, Picture, Section, as_html, as_markdown
from benchmarks.report.faces import face_pictures
from benchmarks.report.figures import KINDS, figure_pictures
from benchmarks.report.labels import ABSENT, network_labels, percent, percent_range
from benchmarks.report.latex import FIRST_LINE, as_latex
from benchmarks.report.networks import TRAINING, methods, network_grid, training_pictures
from benchmarks.report.own_tables import OWN, metric_labels
from benchmarks.report.published import TABLES, comparable_rows
from benchmarks.report.spreadsheet import COLUMNS, as_csv
from benchmarks.report.tables import (
    INTERVAL,
    difference_grids,
    facts,
    result_grids,
    shared_facts,
    threshold_grids,
    warnings,
)
from benchmarks.scoring.comparison import Comparison, same_protocol
from benchmarks.scoring.results import Result, Scores, write_json
from shards.arguments import check_argument, check_path
from shards.files import StrPath, write_bytes

TITLE = "Low-resolution face recognition: scores"
HTML_NAME, MARKDOWN_NAME, LATEX_NAME, CSV_NAME = "report.html", "report.md", "report.tex", "report.csv"
MAX_LISTED = 20  # missing images
_SHOWN = re.compile(r"^!\[.*\]\(([\w-]+)\.png\)$", re.MULTILINE)
_NAMES = "|".join((*TABLES, *OWN))
_MARKS = {  # files that a report replaces -> what they begin with
    **dict.fromkeys((HTML_NAME, MARKDOWN_NAME), TITLE),
    LATEX_NAME: FIRST_LINE,
    CSV_NAME: ",".join(COLUMNS[:3]),
}
_FIGURE = rf"(?:(?:{_NAMES})-(?:{'|'.join(KINDS)})[\w-]*|{TRAINING}(?:-\d+)?)\.(?:png|svg|pdf)"
_BENCHMARK_FILE = re.compile(rf"(?:{_NAMES})\.json|{_FIGURE}")


class Report:
    """A report in a folder: report.html, .md, .tex and .csv, the figures, and one JSON file per benchmark.

    Args:
        folder: need not exist. Pictures of an earlier report that this one does not have are deleted; results and
            everything else are kept.
        faces: show images of the data sets; False: only their names, as licences may ask.

    Raises:
        ReportError: the folder has a file with the name of one that the report writes, but of something else.
    """

    def __init__(self, folder: Path, *, faces: bool = True) -> None:
        for path, mark in ((folder / name, mark) for name, mark in _MARKS.items()):
            if os.path.lexists(path) and mark not in _start(path):
                raise ReportError(f"{path}: exists and is not a report of bench; choose another --report, or rename it")
        # results that are there before the first report in a folder are of another command
        self._others = set() if (folder / MARKDOWN_NAME).exists() else {path.name for path in folder.glob("*.json")}
        self._folder = folder
        self._faces = faces
        self._results: dict[str, list[Scores]] = {}
        self._sections: dict[str, Section] = {}
        self._training: list[Picture] = []

    def add(self, result: Result) -> Path:
        """Writes the report of all results so far; returns the path of report.html. Raises: ReportError: see ``Report``."""
        if (name := f"{result.benchmark}.json") in self._others:
            raise ReportError(f"{self._folder / name}: no report wrote it; choose another --report, or rename it")
        path = self.add_all([result])
        scored = [one for one in self._results[result.benchmark] if isinstance(one, Result)]
        write_json(scored, self._folder / f"{result.benchmark}.json")
        return path

    def add_all(self, results: Sequence[Scores]) -> Path:
        """As ``add`` for several results, which may come from files: JSON is not written."""
        before = _by_network(self._scored)
        for result in results:
            self._results.setdefault(result.benchmark, []).append(result)
        self._folder.mkdir(parents=True, exist_ok=True)
        if len(networks := _by_network(self._scored)) > len(before):
            self._training = training_pictures(networks)
            self._write_pictures(self._training)
        for benchmark in dict.fromkeys(result.benchmark for result in results):
            self._sections[benchmark] = section = _section(self._results[benchmark], self._faces)
            self._write_pictures(section.pictures)
        self._write_pages()
        return self._folder / HTML_NAME

    @property
    def _scored(self) -> list[Scores]:
        return [result for scored in self._results.values() for result in scored]

    def _write_pages(self) -> None:
        networks = _by_network(self._scored)
        summary = _summary(list(self._results.values()), networks, self._training)
        sections = [summary, *self._sections.values(), methods(networks)]
        earlier = self._shown()
        pages = {
            LATEX_NAME: as_latex([*self._sections.values()]),
            CSV_NAME: as_csv(self._scored),
            MARKDOWN_NAME: as_markdown(TITLE, sections),
            HTML_NAME: as_html(TITLE, sections),
        }
        for name, text in pages.items():
            write_bytes(self._folder / name, text.encode())
        for stem in earlier - self._shown():
            for suffix in ("png", "svg", "pdf"):
                (self._folder / f"{stem}.{suffix}").unlink(missing_ok=True)

    def _write_pictures(self, pictures: Iterable[Picture]) -> None:
        for picture in pictures:
            for suffix, content in picture.files.items():
                write_bytes(self._folder / f"{picture.stem}.{suffix}", content)

    def _shown(self) -> set[str]:
        """The stems of the pictures that the report in the folder shows."""
        path = self._folder / MARKDOWN_NAME
        text = path.read_text(errors="replace") if path.is_file() else ""
        return {stem for stem in _SHOWN.findall(text) if is_report_file(f"{stem}.png")}


def write_report(results: Sequence[Result], folder: StrPath, *, faces: bool = True) -> Path:
    """Writes a report of one or more results; returns the path of report.html. Raises: TypeError: they are not results."""
    good = isinstance(results, Sequence) and len(results) > 0 and all(isinstance(one, Result) for one in results)
    check_argument(good, "results", results, "a list of what run(...) returns")
    report = Report(check_path("folder", folder), faces=faces)
    return [report.add(result) for result in results][-1]


def _start(path: Path) -> str:
    """The first characters of a file; none of a folder or a pipe."""
    if not path.is_file():
        return ""
    with path.open(errors="replace") as stream:
        return stream.read(1000)


def is_report_file(name: str) -> bool:
    """Whether a report may overwrite or delete a file of this name."""
    pages = (HTML_NAME, MARKDOWN_NAME, LATEX_NAME, CSV_NAME)
    return name in pages or _BENCHMARK_FILE.fullmatch(name) is not None


def _by_network(results: Sequence[Scores]) -> list[Scores]:
    """The first result of each network."""
    facts = [result.checkpoint for result in results]
    return [result for number, result in enumerate(results) if result.checkpoint not in facts[:number]]


def _summary(scored: Sequence[Sequence[Scores]], networks: Sequence[Scores], training: list[Picture]) -> Section:
    """The networks, and the headline metric of each benchmark.

    Args:
        scored: the results of each benchmark, one a network.
        training: the training curves.
    """
    by_caveat: dict[str, list[str]] = {}
    for first, *_ in scored:
        if first.caveats:
            by_caveat.setdefault("; ".join(first.caveats), []).append(first.title)
    facts = [network.checkpoint for network in networks]
    header, rows = [""], [row for label in network_labels(facts) for row in ([label], [INTERVAL])]
    for results in scored:
        first = results[0]
        by_network = {facts.index(result.checkpoint): result for result in results}
        header.append(f"{first.title}: {metric_labels(first.benchmark, first.settings)[first.main]}")
        for number in range(len(networks)):
            result = by_network.get(number)
            partial = " (partial)" if result and result.partial else ""
            rows[2 * number].append(percent(result.metrics[first.main]) + partial if result else ABSENT)
            rows[2 * number + 1].append(percent_range(result.intervals.get(first.main)) if result else ABSENT)
    return Section(
        title="Summary",
        warnings=[
            f"Not comparable with published results ({caveat}): {', '.join(titles)}."
            for caveat, titles in by_caveat.items()
        ],
        grids=[
            network_grid(networks),
            Grid(caption="headline metric of each benchmark, %", header=header, rows=rows, ours=len(rows), wraps=True),
        ],
        pictures=training,
    )


def _section(results: Sequence[Scores], faces: bool) -> Section:
    """The results of one benchmark, one a network."""
    first = results[0]
    comparable = len(results) > 1 and all(same_protocol(first, other) for other in results[1:])
    comparison = Comparison(results) if comparable else None
    several = ["The networks were scored on different pairs or probes: no differences are shown."] * (
        len(results) > 1 and not comparable
    )
    pictures = [*figure_pictures(results)]
    for number, result in enumerate(results):
        if isinstance(result, Result):
            pictures += face_pictures(result, number, faces=faces)
    return Section(
        title=first.title,
        warnings=[*dict.fromkeys(line for result in results for line in warnings(result)), *several],
        text=facts(first) if isinstance(first, Result) and len(results) == 1 else shared_facts(results),
        grids=[
            *result_grids(results, comparison),
            *(difference_grids(comparison) if comparison else []),
            *threshold_grids(results, comparison),
        ],
        pictures=pictures,
        notes=[*_sources(first), *_missing(results)],
    )


def _sources(result: Scores) -> list[str | Link]:
    return [
        Link(before=f"{row.system}: ", text=row.source, url=row.url, after=f"{f' ({row.note})' if row.note else ''}.")
        for row in comparable_rows(result)
    ]


def _missing(results: Sequence[Scores]) -> list[str | Link]:
    missing = list(dict.fromkeys(one for result in results for one in result.missing))
    lines: list[str | Link] = [f"left out: {path}: {reason}" for path, reason in missing[:MAX_LISTED]]
    if len(missing) > MAX_LISTED:
        lines.append(f"left out: {len(missing) - MAX_LISTED:,} more, listed in {results[0].benchmark}.json")
    return lines
