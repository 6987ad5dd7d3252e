"""Results as printed tables, and as a report: Markdown, HTML, pictures, JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import pictures
from benchmarks.document import Grid, Picture, Section, as_html, as_markdown, as_text
from benchmarks.prepare import Request, prepare
from benchmarks.published import PUBLISHED, TABLES, Published, Table
from benchmarks.result import Result, ShownPair, write_json
from benchmarks.samples import CurveSamples, OpenSetSamples, PairSamples, RankSamples
from shards.files import write_bytes
from shards.schema import Preprocessing

_TITLE = "Low-resolution face recognition: scores"
_DISTANCES = {"@d1": "4.2 m", "@d2": "2.6 m", "@d3": "1.0 m"}
_CMC_RANKS = 20
_ABSENT = "-"


def print_result(result: Result) -> str:
    """The tables as aligned text, with what was scored below them."""
    tables = [as_text(grid) for grid in grids(result)]
    return "\n".join(["\n\n".join(tables), "", *warnings(result), *facts(result)])


def grids(result: Result) -> list[Grid]:
    """This network's figures in percent, their intervals, and the published ones, for each table of the benchmark."""
    return [
        _grid(result, table)
        for table in TABLES[result.benchmark]
        if any(name in result.metrics for name in table.columns)
    ]


def _grid(result: Result, table: Table) -> Grid:
    names = list(table.columns)
    others = [row for row in PUBLISHED[result.benchmark] if any(name in row.figures for name in names)]
    partial = " (partial)" if result.missing else ""
    return Grid(
        caption=f"{result.title}{': ' * bool(table.title)}{table.title}, %",
        header=["", *table.columns.values()],
        rows=[
            [network(result.checkpoint) + partial, *(_percent(result.metrics.get(name)) for name in names)],
            ["  95 % interval", *(_range(result.intervals.get(name)) for name in names)],
            *([row.system, *(_percent(row.figures.get(name)) for name in names)] for row in others),
        ],
        published=len(others),
    )


def network(checkpoint: dict[str, Any]) -> str:
    """``spherenet20, step 100,000``."""
    step = checkpoint.get("step")
    return f"{checkpoint.get('backbone', 'network')}{'' if step is None else f', step {step:,}'}"


def _percent(value: float | None) -> str:
    return _ABSENT if value is None else f"{100 * value:.2f}"


def _range(interval: tuple[float, float] | None) -> str:
    return _ABSENT if interval is None else f"{100 * interval[0]:.1f}-{100 * interval[1]:.1f}"


def warnings(result: Result) -> list[str]:
    """What a reader must know before the figures."""
    found = []
    if result.missing:
        found.append(
            f"Partial: {len(result.missing):,} of {result.counts['images']:,} images could not be used,"
            f" {result.counts['left_out']:,} pairs or probes were left out."
        )
    if result.data.endswith(")"):
        found.append("Not comparable with the published rows: other data, or part of it.")
    return found


def facts(result: Result) -> list[str]:
    """What was scored, in a line or two."""
    counts = dict(result.counts)
    cost = f"{counts.pop('embedded'):,} embedded, {counts.pop('cached'):,} from the cache"
    counts.pop("left_out")
    sizes = ", ".join(f"{value:,} {name.replace('_', ' ')}" for name, value in counts.items())
    spread = result.metrics.get("std")
    folds = [] if spread is None else [f"Standard deviation of accuracy over folds: {100 * spread:.2f} %."]
    return [f"{sizes}; {cost}; data: {result.data}", *folds]


def write_report(results: list[Result], folder: Path) -> Path:
    """Writes report.md, report.html, the pictures and a JSON a benchmark into ``folder``; returns the HTML's path."""
    folder.mkdir(parents=True, exist_ok=True)
    sections = [_summary(results), *(_section(result) for result in results), _about(results)]
    for section in sections:
        for picture in section.pictures:
            write_bytes(folder / picture.name, picture.png)
    for result in results:
        write_json([result], folder / f"{result.benchmark}.json")
    write_bytes(folder / "report.md", as_markdown(_TITLE, sections).encode())
    write_bytes(folder / "report.html", as_html(_TITLE, sections).encode())
    return folder / "report.html"


def _summary(results: list[Result]) -> Section:
    rows = [
        [
            result.title + (" (partial)" if result.missing else ""),
            result.main,
            _percent(result.metrics[result.main]),
            _range(result.intervals.get(result.main)),
        ]
        for result in results
    ]
    grid = Grid(
        caption="one figure a benchmark, %", header=["benchmark", "figure", "score", "95 % interval"], rows=rows
    )
    return Section(title="Summary", text=[f"Network: {network(results[0].checkpoint)}."], grids=[grid])


def _about(results: list[Result]) -> Section:
    content = results[0].to_dict()
    return Section(
        title="How",
        text=[
            "Intervals are Wilson's for proportions and 500 bootstrap rounds over identities for the rest; the standard"
            " deviation's is the chi-squared one. Similarity is the cosine of two embeddings, without flip fusion."
        ],
        notes=[
            f"checkpoint: {results[0].checkpoint.get('path')}",
            f"preprocessing: {json.dumps(content['preprocessing'])}",
            f"versions: {json.dumps(content['versions'])}",
        ],
    )


def _section(result: Result) -> Section:
    return Section(
        title=result.title,
        warnings=warnings(result),
        text=facts(result),
        grids=grids(result),
        pictures=list(_pictures(result)),
        notes=[
            *(
                f"{row.system}: {row.source}{f' ({row.note})' if row.note else ''}."
                for row in PUBLISHED[result.benchmark]
            ),
            *(f"left out: {path}: {reason}" for path, reason in result.missing),
        ],
    )


def _pictures(result: Result) -> Iterator[Picture]:
    name, title = (
        result.benchmark,
        f"{result.title}\n{result.data.partition(':')[0].rstrip()}{')' * (':' in result.data)}",
    )
    published = PUBLISHED[name]
    curves = {
        f"{_label(setting)}, AUC {100 * samples.roc.auc:.1f} %": samples
        for setting, samples in result.settings.items()
        if isinstance(samples, CurveSamples) and not setting.startswith("lr-lr")
    }
    ranks = {
        _label(setting): samples for setting, samples in result.settings.items() if isinstance(samples, RankSamples)
    }
    if any(isinstance(samples, PairSamples) for samples in curves.values()):
        roc = pictures.roc(title, curves, published, ("false accept rate (FAR)", "true accept rate (TAR)"), "tar@far=")
        yield Picture(name=f"{name}-roc.png", png=roc, alt=f"{result.title}: ROC with 95 % bands")
        yield Picture(
            name=f"{name}-det.png", png=pictures.det(title, curves), alt=f"{result.title}: DET with 95 % bands"
        )
    if any(isinstance(samples, OpenSetSamples) for samples in curves.values()):
        axes = ("false positive identification rate (FPIR)", "true positive identification rate (TPIR20)")
        dir_curve = pictures.roc(title, curves, published, axes, "tpir20@fpir=")
        yield Picture(name=f"{name}-dir.png", png=dir_curve, alt=f"{result.title}: open-set DIR curve with 95 % band")
    if ranks:
        everybody = {label: samples for label, samples in ranks.items() if "51-130" not in label}
        curve = pictures.cmc(title, everybody, published, _CMC_RANKS)
        yield Picture(name=f"{name}-cmc.png", png=curve, alt=f"{result.title}: CMC with 95 % bands")
    if against := _against(result, title, published):
        yield against
    yield from _hard_pairs(result)


def _label(setting: str) -> str:
    """``@8`` -> ``8 px``, ``@d1/51-130`` -> ``4.2 m, subjects 51-130``."""
    prefix, _, suffix = setting.partition("{}")
    condition, _, part = suffix.partition("/")
    name = _DISTANCES.get(condition, f"{condition[1:]} px" if condition else "this network")
    return f"{'LR to LR, ' if prefix else ''}{name}{f', subjects {part}' if part else ''}"


def _against(result: Result, title: str, published: list[Published]) -> Picture | None:
    """Accuracy against resolution (LFW) or rank-1 against distance (SCface)."""
    if result.benchmark not in ("lfw", "scface"):
        return None
    tables = TABLES[result.benchmark][:2]
    ours = {
        table.title: (
            [result.metrics[name] for name in table.columns],
            [result.intervals[name] for name in table.columns],
        )
        for table in tables
        if all(name in result.metrics for name in table.columns)
    }
    others = {}
    for row in published:
        for table in tables:
            if all(name in row.figures for name in table.columns):
                others[row.system] = [row.figures[name] for name in table.columns]
    axes = ("resolution", "accuracy") if result.benchmark == "lfw" else ("distance", "rank-1")
    png = pictures.against(title, list(tables[0].columns.values()), ours, others, axes)
    return Picture(
        name=f"{result.benchmark}-{axes[0]}.png", png=png, alt=f"{result.title}: {axes[1]} against {axes[0]}"
    )


def _hard_pairs(result: Result) -> Iterator[Picture]:
    shown = {"lfw": ["{}@8", "{}@128"], "scface": ["{}@d1", "{}@d3"]}.get(result.benchmark, ["{}"])
    spec = Preprocessing.from_dict(result.preprocessing)
    for setting in shown:
        kinds = result.hardest[setting]
        tiles = {
            "same person, lowest cosine": [_tiles(pair, spec) for pair in kinds["genuine"]],
            "different people, highest cosine": [_tiles(pair, spec) for pair in kinds["impostors"]],
        }
        where = "" if setting == "{}" else f", {_label(setting)}"
        suffix = setting.replace("{}", "").replace("@", "-")
        png = pictures.hard_pairs(f"{result.title}{where}: the hardest pairs", tiles)
        alt = f"{result.title}{where}: hardest genuine and impostor pairs, as the network sees them"
        yield Picture(name=f"{result.benchmark}-hardest{suffix}.png", png=png, alt=alt)


def _tiles(pair: ShownPair, spec: Preprocessing) -> tuple[Any, Any, float]:
    def seen(request: Request) -> Any:
        return prepare(request.path.read_bytes(), [request], spec)[0]

    return seen(pair.first), seen(pair.second), pair.score
