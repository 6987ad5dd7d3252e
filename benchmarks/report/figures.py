"""Chooses the figures of one benchmark's results and renders them as pictures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from matplotlib.figure import Figure

from benchmarks.report import plots
from benchmarks.report.document import Picture
from benchmarks.report.labels import network_labels, setting_label
from benchmarks.report.published import Table, comparable_rows
from benchmarks.report.style import drawing, legend_label
from benchmarks.report.tables import result_tables
from benchmarks.scoring.curves import CurveSamples, OpenSetSamples, PairSamples
from benchmarks.scoring.metrics import Roc
from benchmarks.scoring.results import Scores
from benchmarks.scoring.samples import RankSamples, Samples

# file names are BENCHMARK-KIND*.SUFFIX
KINDS = ("roc", "det", "dir", "scores", "cmc", "resolution", "distance", "seen", "hardest")
MAX_CMC_RANK = 20
MAX_NAME_CHARS = 30  # of a network before its AUC
MAX_CURVES = 8  # settings of one network; a file may state any number

Kind = TypeVar("Kind", bound=Samples)
Curve = TypeVar("Curve", bound=CurveSamples)


def figure_pictures(results: Sequence[Scores]) -> Iterator[Picture]:
    """Yields the figures of a benchmark: of each setting for one network, of the headline's setting for several."""
    figures = _Figures(results)
    yield from figures.verification()
    yield from figures.open_set()
    yield from figures.closed_set()
    for table in result_tables(results[0]):
        if table.figure and all(name in result.metrics for name in table.columns for result in results):
            yield figures.by_condition(table)
    yield from figures.histograms()


def main_setting(result: Scores) -> str:
    """The setting of the headline metric."""
    return next(
        setting
        for setting, samples in result.settings.items()
        if result.main in {setting.format(name) for name in samples.metrics()}
    )


class _Figures:
    """Figures of the results of one benchmark.

    Args:
        results: one a network.
    """

    def __init__(self, results: Sequence[Scores]) -> None:
        self._results = results
        self._first = results[0]
        self._labels = network_labels([result.checkpoint for result in results])
        self._published = comparable_rows(self._first)

    def verification(self) -> Iterator[Picture]:
        """ROC and DET curves of pairs."""
        if not (pairs := self._samples(PairSamples)):
            return
        named = _named(pairs, lambda roc: f"AUC {100 * roc.auc:.1f} %")
        axes = ("false accept rate (FAR)", "true accept rate (TAR)")
        roc = plots.roc(self._title(PairSamples), named, self._published, axes, "tar@far=")
        yield self._picture("roc", roc, f"ROC with {self._bands(pairs)}")
        named = _named(pairs, lambda roc: f"EER {100 * roc.eer:.1f} %")
        det = plots.det(self._title(PairSamples), named)
        yield self._picture("det", det, f"DET with {self._bands(pairs)}; marks: equal error rates")

    def open_set(self) -> Iterator[Picture]:
        """DIR curve of an open set."""
        if not (probes := self._samples(OpenSetSamples)):
            return
        within = f"{next(iter(probes.values())).within[0]}"
        named = _named(probes, lambda roc: f"AUC {100 * roc.auc:.1f} %")
        axes = ("false positive identification rate (FPIR)", f"true positive identification rate (TPIR{within})")
        curve = plots.roc(self._title(OpenSetSamples), named, self._published, axes, f"tpir{within}@fpir=")
        yield self._picture("dir", curve, f"open-set DIR curve with {self._bands(probes)}")

    def closed_set(self) -> Iterator[Picture]:
        """CMC curve; subsets of the probes, as SCface's subjects 51-130, are not in it."""
        if probes := {label: one for label, one in self._samples(RankSamples).items() if "subjects" not in label}:
            figure = plots.cmc(self._title(RankSamples), probes, self._published, MAX_CMC_RANK)
            yield self._picture("cmc", figure, "CMC with 95 % bands")

    def histograms(self) -> Iterator[Picture]:
        """Histograms of the scores of pairs, or else of the probes of an open set."""
        if pairs := self._samples(PairSamples):
            figure = plots.scores(self._title(PairSamples), pairs, ("same person", "different people"))
            yield self._picture("scores", figure, "share of the pairs by cosine; lines: thresholds")
        elif probes := self._samples(OpenSetSamples):
            figure = plots.scores(self._title(OpenSetSamples), probes, ("mated probes", "unmated probes"))
            within = next(iter(probes.values())).within[0]
            alt = f"share of the probes by cosine; mated ones without their mate within rank {within} have none; lines: thresholds"
            yield self._picture("scores", figure, alt)

    def by_condition(self, table: Table) -> Picture:
        """The metrics of a table against resolution or distance."""
        ours = {
            label: [(result.metrics[name], result.intervals.get(name)) for name in table.columns]
            for label, result in zip(self._labels, self._results, strict=True)
        }
        others = {
            row.system: [row.metrics[name] for name in table.columns]
            for row in self._published
            if all(name in row.metrics for name in table.columns)
        }
        condition = table.figure.partition("-")[0]
        metric = next(iter(table.columns))
        count = next(
            len(one.identities)
            for name, one in self._first.settings.items()
            if metric in map(name.format, one.metrics())
        )
        unit = "pairs" if "accuracy" in metric else "probes"
        figure = plots.by_condition(
            self._title(None),
            list(table.columns.values()),
            ours,
            others,
            (condition, f"{table.title} ({count:,} {unit})"),
        )
        return self._picture(table.figure, figure, f"{table.title}, against {condition}, with 95 % intervals")

    def _samples(self, kind: type[Kind]) -> dict[str, Kind]:
        """Samples of a kind to plot: by setting for one network, by network for several."""
        if len(self._results) == 1:
            found = {
                setting_label(setting, self._first.benchmark) or self._labels[0]: samples
                for setting, samples in self._first.settings.items()
                if isinstance(samples, kind) and "lr-lr" not in setting
            }
            return dict(list(found.items())[:MAX_CURVES])
        setting = main_setting(self._first)
        chosen = [(label, one.settings.get(setting)) for label, one in zip(self._labels, self._results, strict=True)]
        return {label: samples for label, samples in chosen if isinstance(samples, kind)}

    def _title(self, kind: type[Samples] | None) -> str:
        """Two lines: the benchmark and, for several networks, the setting; the network and the first caveat."""
        several = len(self._results) > 1
        setting = setting_label(main_setting(self._first), self._first.benchmark) if several and kind else ""
        caveat = f" ({self._first.caveats[0]})" if self._first.caveats else ""
        network = f"{len(self._results)} networks" if several else legend_label(self._labels[0])
        return f"{_joined(legend_label(self._first.title), setting)}\n{network}{caveat}"

    def _bands(self, curves: dict[str, Kind]) -> str:
        return "95 % bands of the first and the last" if len(curves) > 2 else "95 % bands"

    def _picture(self, kind: str, figure: Figure, alt: str) -> Picture:
        first = self._first
        return Picture(stem=f"{first.benchmark}-{kind}", alt=f"{first.title}: {alt}", files=drawing(figure))


def _named(curves: dict[str, Curve], value: Callable[[Roc], str]) -> dict[str, Curve]:
    """The curves, with a value of each behind its label."""
    return {_joined(legend_label(label, MAX_NAME_CHARS), value(one.roc)): one for label, one in curves.items()}


def _joined(*parts: str) -> str:
    return ", ".join(filter(None, parts))
