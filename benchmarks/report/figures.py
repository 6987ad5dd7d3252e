"""Chooses the figures of a result and renders them as pictures."""

from __future__ import annotations

from collections.abc import Iterator

from matplotlib.figure import Figure

from benchmarks.report import plots
from benchmarks.report.document import Picture
from benchmarks.report.own_tables import OWN, tables_of
from benchmarks.report.published import PUBLISHED, Published
from benchmarks.report.tables import setting_label
from benchmarks.scoring.protocols import HardPair
from benchmarks.scoring.results import Result
from benchmarks.scoring.samples import CurveSamples, OpenSetSamples, PairSamples, RankSamples
from pipeline.prepare import prepare
from shards.messages import printable

KINDS = ("roc", "det", "dir", "cmc", "resolution", "distance", "hardest")  # file names are BENCHMARK-KIND*.png
MAX_CMC_RANK = 20
_HARDEST = {"lfw": ["{}@8", "{}@128"], "scface": ["{}@d1", "{}@d3"]}  # settings shown
MAX_PATH_CHARS = 70  # in a figure's title


def result_pictures(result: Result) -> Iterator[Picture]:
    """Yields the pictures of a benchmark in the order of the report."""
    title = figure_title(result)
    published = PUBLISHED.get(result.benchmark, [])
    yield from _curves(result, title, published)
    ranks = {
        setting_label(setting): samples
        for setting, samples in result.settings.items()
        if isinstance(samples, RankSamples) and "51-130" not in setting and not setting.startswith("lr-lr")
    }
    if ranks:
        yield _picture(result, "cmc", plots.cmc(title, ranks, published, MAX_CMC_RANK), "CMC with 95 % bands")
    if result.benchmark in ("lfw", *OWN, "scface"):
        yield from _by_condition(result, title, published)
    yield from _hard_pairs(result)


def _picture(result: Result, kind: str, figure: Figure, alt: str) -> Picture:
    return Picture(name=f"{result.benchmark}-{kind}.png", png=plots.png(figure), alt=f"{result.title}: {alt}")


def figure_title(result: Result) -> str:
    """Two lines: the benchmark; the end of the data set's path, and the first caveat."""
    data = printable(result.data)
    path = data if len(data) <= MAX_PATH_CHARS else f"...{data[-MAX_PATH_CHARS:]}"
    return f"{result.title}\n{path}{f' ({result.caveats[0]})' if result.caveats else ''}"


def _curves(result: Result, title: str, published: list[Published]) -> Iterator[Picture]:
    """ROC and DET curves of pairs, the DIR curve of an open set."""
    curves = {
        f"{setting_label(setting)}, AUC {100 * samples.roc.auc:.1f} %": samples
        for setting, samples in result.settings.items()
        if isinstance(samples, CurveSamples) and "lr-lr" not in setting
    }
    bands = "95 % bands of the first and the last" if len(curves) > 2 else "95 % bands"
    if any(isinstance(samples, PairSamples) for samples in curves.values()):
        axes = ("false accept rate (FAR)", "true accept rate (TAR)")
        roc = plots.roc(title, curves, published, axes, "tar@far=")
        yield _picture(result, "roc", roc, f"ROC with {bands}")
        yield _picture(result, "det", plots.det(title, curves), f"DET with {bands}")
    if any(isinstance(samples, OpenSetSamples) for samples in curves.values()):
        within = next(samples.within[0] for samples in curves.values() if isinstance(samples, OpenSetSamples))
        axes = ("false positive identification rate (FPIR)", f"true positive identification rate (TPIR{within})")
        dir_curve = plots.roc(title, curves, published, axes, f"tpir{within}@fpir=")
        yield _picture(result, "dir", dir_curve, f"open-set DIR curve with {bands}")


def _by_condition(result: Result, title: str, published: list[Published]) -> Iterator[Picture]:
    """Accuracy or rank-1 against resolution (LFW and the user's own questions) or against distance (SCface)."""
    condition = "distance" if result.benchmark == "scface" else "resolution"
    metric = "rank-1" if result.benchmark in ("scface", "identify") else "accuracy"
    tables = [table for table in tables_of(result.benchmark, result.metrics) if metric in table.title][:2]
    if not tables:  # at full size alone
        return
    ours = {
        table.title: [(result.metrics[name], result.intervals[name]) for name in table.columns]
        for table in tables
        if all(name in result.metrics for name in table.columns)
    }
    others = {
        row.system: [row.metrics[name] for name in table.columns]
        for row in published
        for table in tables
        if all(name in row.metrics for name in table.columns)
    }
    ticks = list(tables[0].columns.values())
    figure = plots.by_condition(title, ticks, ours, others, (condition, metric))
    yield _picture(result, condition, figure, f"{metric} against {condition}")


def _hard_pairs(result: Result) -> Iterator[Picture]:
    settings = _HARDEST.get(result.benchmark, ["{}"])
    if result.benchmark in OWN:  # the lowest resolution, and full size
        settings = list(dict.fromkeys([next(iter(result.settings)), "{}@full"]))
    for setting in settings:
        headings = {"genuine": "same person, lowest cosine", "impostors": "different people, highest cosine"}
        tiles = {
            heading: [_tiles(pair, result) for pair in result.hardest[setting][kind]]
            for kind, heading in headings.items()
        }
        title = result.title if setting == "{}" else f"{result.title}, {setting_label(setting)}"
        suffix = setting.replace("{}", "").replace("@", "-")
        yield Picture(
            name=f"{result.benchmark}-hardest{suffix}.png",
            png=plots.png(plots.hard_pairs(f"{title}: the hardest pairs", tiles)),
            alt=f"{title}: hardest genuine and impostor pairs, as the network sees them",
        )


def _tiles(pair: HardPair, result: Result) -> plots.PairTiles:
    limit = result.max_pixels
    first, second = (
        prepare(side.read(limit), [side], result.preprocessing, limit)[0] for side in (pair.first, pair.second)
    )
    return first, second, pair.score
