"""Which pictures a result has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.report import plots as pictures
from benchmarks.report.document import Picture
from benchmarks.report.published import PUBLISHED, TABLES, Published
from benchmarks.report.tables import label
from benchmarks.scoring.results import Result, ShownPair
from benchmarks.scoring.samples import CurveSamples, OpenSetSamples, PairSamples, RankSamples
from pipeline.prepare import Request, prepare
from pipeline.spec import Preprocessing

KINDS = ("roc", "det", "dir", "cmc", "resolution", "distance", "hardest")  # a picture's name: BENCHMARK-KIND...
_CMC_RANKS = 20
_LONGEST_PATH = 70  # characters of it in a heading


def draw(result: Result) -> Iterator[Picture]:
    """The pictures of one benchmark, in the order in which a report shows them."""
    title = picture_title(result)
    published = PUBLISHED[result.benchmark]
    yield from _curves(result, title, published)
    ranks = {
        label(setting): samples
        for setting, samples in result.settings.items()
        if isinstance(samples, RankSamples) and "51-130" not in setting
    }
    if ranks:
        curve = pictures.cmc(title, ranks, published, _CMC_RANKS)
        yield Picture(name=f"{result.benchmark}-cmc.png", png=curve, alt=f"{result.title}: CMC with 95 % bands")
    if against := _against(result, title, published):
        yield against
    yield from _hard_pairs(result)


def picture_title(result: Result) -> str:
    """The benchmark, and below it the data: the path, its end if it is long, and the first doubt about them."""
    path = result.data if len(result.data) <= _LONGEST_PATH else f"...{result.data[-_LONGEST_PATH:]}"
    return f"{result.title}\n{path}{f' ({result.doubts[0]})' if result.doubts else ''}"


def _curves(result: Result, title: str, published: list[Published]) -> Iterator[Picture]:
    """ROC and DET of pairs, DIR of an open set."""
    curves = {
        f"{label(setting)}, AUC {100 * samples.roc.auc:.1f} %": samples
        for setting, samples in result.settings.items()
        if isinstance(samples, CurveSamples) and not setting.startswith("lr-lr")
    }
    name, bands = result.benchmark, "95 % bands of the first and the last" if len(curves) > 2 else "95 % bands"
    if any(isinstance(samples, PairSamples) for samples in curves.values()):
        roc = pictures.roc(title, curves, published, ("false accept rate (FAR)", "true accept rate (TAR)"), "tar@far=")
        yield Picture(name=f"{name}-roc.png", png=roc, alt=f"{result.title}: ROC with {bands}")
        yield Picture(name=f"{name}-det.png", png=pictures.det(title, curves), alt=f"{result.title}: DET with {bands}")
    if any(isinstance(samples, OpenSetSamples) for samples in curves.values()):
        axes = ("false positive identification rate (FPIR)", "true positive identification rate (TPIR20)")
        curve = pictures.roc(title, curves, published, axes, "tpir20@fpir=")
        yield Picture(name=f"{name}-dir.png", png=curve, alt=f"{result.title}: open-set DIR curve with {bands}")


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
        where = "" if setting == "{}" else f", {label(setting)}"
        suffix = setting.replace("{}", "").replace("@", "-")
        png = pictures.hard_pairs(f"{result.title}{where}: the hardest pairs", tiles)
        alt = f"{result.title}{where}: hardest genuine and impostor pairs, as the network sees them"
        yield Picture(name=f"{result.benchmark}-hardest{suffix}.png", png=png, alt=alt)


def _tiles(pair: ShownPair, spec: Preprocessing) -> tuple[Any, Any, float]:
    def seen(request: Request) -> Any:
        return prepare(request.path.read_bytes(), [request], spec)[0]

    return seen(pair.first), seen(pair.second), pair.score
