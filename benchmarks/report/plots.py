"""Figures of the report, drawn with matplotlib."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import scipy.special
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.report.labels import rate, statistic_label
from benchmarks.report.published import Published
from benchmarks.report.style import (
    BAND_ALPHA,
    COLORS,
    HEIGHT_IN,
    MARKERS,
    add_legend,
    finish,
    legend_label,
    line,
    new_figure,
)
from benchmarks.scoring.curves import CurveSamples, PairSamples
from benchmarks.scoring.intervals import Interval, wilson
from benchmarks.scoring.samples import HISTOGRAM_EDGES, RankSamples

_DET_TICKS = (0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99)
_DET_MIN, _DET_MAX = 5e-4, 0.995
_ROW_IN = 1.25  # height of a histogram
_GENUINE, _IMPOSTORS = COLORS[0], COLORS[6]

Transform = Callable[[np.ndarray], np.ndarray]


def roc(
    title: str,
    curves: Mapping[str, CurveSamples],
    published: Sequence[Published],
    axis_labels: tuple[str, str],
    prefix: str,
) -> Figure:
    """True rate against false rate (logarithmic), with published operating points and 95 % bands.

    Args:
        curves: label -> samples.
        axis_labels: x and y.
        prefix: of the metric names of operating points, such as ``tar@far=``; the false rate follows it.
    """
    figure = new_figure(title)
    axes = figure.subplots()
    left = min(samples.grid()[0] for samples in curves.values())
    grid = _plot_curves(axes, curves)
    _plot_published(axes, published, prefix)
    if prefix.startswith("tar"):
        axes.plot(grid, grid, ":", color="grey", label="chance")
    axes.set(xscale="log", xlim=(left, 1), ylim=(0, 1.005), xlabel=axis_labels[0], ylabel=axis_labels[1])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: rate(value)))
    return finish(figure, axes)


def det(title: str, curves: Mapping[str, PairSamples]) -> Figure:
    """DET curve: false reject rate against false accept rate on normal-deviate scales, with 95 % bands and EERs.

    Source: Martin et al., The DET curve in assessment of detection task performance, 1997.
    """
    figure = new_figure(title)
    axes = figure.subplots()
    _plot_curves(axes, curves, _probit, lambda tar: _probit(1 - tar))
    limits = (float(_probit(_DET_MIN)), float(_probit(_DET_MAX)))
    for number, samples in enumerate(curves.values()):
        eer = float(_probit(samples.roc.eer))
        axes.plot([eer], [eer], MARKERS[number % len(MARKERS)], color=line(number)["color"])
    axes.plot(limits, limits, "-", color="grey", linewidth=0.8, label="equal error rates")
    axes.plot(limits, [-limit for limit in limits], ":", color="grey", label="chance")
    axes.set(xlim=limits, ylim=limits, xlabel="false accept rate (FAR)", ylabel="false reject rate (1 - TAR)")
    finish(figure, axes)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(_probit(np.array(_DET_TICKS)).tolist()))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: rate(scipy.special.ndtr(value))))
    return figure


def cmc(title: str, curves: Mapping[str, RankSamples], published: Sequence[Published], max_rank: int) -> Figure:
    """CMC curve: share of probes identified within each rank, with Wilson's 95 % bands and published ranks."""
    figure = new_figure(title)
    axes = figure.subplots()
    ranks = np.arange(1, max_rank + 1)
    for number, (label, samples) in enumerate(curves.items()):
        shares, probes = samples.cmc(max_rank), len(samples.ranks)
        low, high = np.array([wilson(share * probes, probes) for share in shares]).T
        axes.fill_between(ranks, low, high, alpha=BAND_ALPHA, color=line(number)["color"], linewidth=0)
        axes.plot(ranks, shares, marker=MARKERS[number % len(MARKERS)], ms=4, **line(number), label=legend_label(label))
    _plot_published(axes, published, "rank")
    axes.set(xlim=(0.7, max_rank + 0.3), ylim=(0, 1.005), xlabel="rank", ylabel="identified within that rank")
    axes.xaxis.set_major_locator(FixedLocator([1, *range(5, max_rank + 1, 5)]))
    return finish(figure, axes)


def by_condition(
    title: str,
    ticks: Sequence[str],
    ours: Mapping[str, Sequence[tuple[float, Interval | None]]],
    published: Mapping[str, Sequence[float]],
    axis_labels: tuple[str, str],
) -> Figure:
    """A metric against resolution or distance: each network's with 95 % intervals, published results without.

    Args:
        ticks: the conditions, left to right.
        ours: network -> metric and interval under each condition.
        published: system -> metric under each condition.
        axis_labels: x and y.
    """
    figure = new_figure(title)
    axes = figure.subplots()
    for number, (label, points) in enumerate(ours.items()):
        values = np.array([value for value, _ in points])
        low, high = np.array([interval or (value, value) for value, interval in points]).T
        errors = np.maximum([values - low, high - values], 0)
        x = np.arange(len(values)) + 0.04 * number
        marker = MARKERS[number % len(MARKERS)]
        axes.errorbar(x, values, yerr=errors, marker=marker, capsize=4, **line(number), label=legend_label(label))
    for number, (system, metrics) in enumerate(published.items()):
        marker = MARKERS[(number + 1) % len(MARKERS)]
        axes.plot(metrics, ":", marker=marker, mfc="none", color="0.35", label=f"published: {system}")
    axes.set(xlabel=axis_labels[0], ylabel=axis_labels[1], ylim=(None, min(axes.get_ylim()[1], 1.01)))
    axes.set_xticks(range(len(ticks)), ticks)
    return finish(figure, axes)


def scores(title: str, rows: Mapping[str, CurveSamples], kinds: tuple[str, str]) -> Figure:
    """Histograms of cosines, a row for each setting or network, with the thresholds as vertical lines.

    Args:
        rows: label -> samples; an empty label is not shown.
        kinds: what genuine samples and impostors are called.
    """
    figure = new_figure(title, height=max(_ROW_IN * len(rows) + 1.4, HEIGHT_IN * 0.7))
    all_axes = figure.subplots(len(rows), sharex=True, squeeze=False)[:, 0]
    lines: dict[str, int] = {}
    for axes, (label, samples) in zip(all_axes, rows.items(), strict=True):
        counts = samples.histograms()
        for kind, name, color, hatch in (
            ("genuine", kinds[0], _GENUINE, "//"),
            ("impostors", kinds[1], _IMPOSTORS, ""),
        ):
            shares = np.array(counts[kind]) / max(sum(counts[kind]), 1)
            options = {"facecolor": (color, 0.35), "edgecolor": color, "hatch": hatch, "linewidth": 1.0}
            axes.stairs(shares, HISTOGRAM_EDGES, fill=True, label=name, **options)
        for name, value in samples.thresholds().items():
            number = lines.setdefault(name, len(lines))
            axes.axvline(
                value,
                color="black",
                linestyle=line(number + 1)["linestyle"],
                linewidth=1,
                label=statistic_label(name),
            )
        axes.set_title(legend_label(label), fontsize=9, loc="left", pad=2, parse_math=False)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: rate(value)))
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
    all_axes[-1].set_xlabel("cosine")
    used = np.flatnonzero(sum(np.sum(list(samples.histograms().values()), 0) for samples in rows.values()))
    if used.size:
        right = min(used[-1] + 2, len(HISTOGRAM_EDGES) - 1)
        all_axes[0].set_xlim(HISTOGRAM_EDGES[max(used[0] - 1, 0)], HISTOGRAM_EDGES[right])
    entries = {}
    for axes in all_axes:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries[label] = handle
    add_legend(figure, [(handle, label) for label, handle in entries.items()], columns=3)
    return figure


def training(title: str, curves: Mapping[str, Sequence[tuple[float, float]]]) -> Figure:
    """Training curves: losses against the update, the learning rate below.

    Args:
        curves: name -> update and value of each logged row; ``lr`` is the learning rate.
    """
    figure = new_figure(title)
    losses, rates = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    for number, (name, points) in enumerate((name, points) for name, points in curves.items() if name != "lr"):
        losses.plot(
            *zip(*points, strict=True),
            **line(number),
            linewidth=2.2 if name == "loss" else 1.2,
            label=legend_label(name),
        )
    losses.set(ylabel="loss")
    losses.grid(alpha=0.3)
    if "lr" in curves:
        rates.plot(*zip(*curves["lr"], strict=True), color="black")
    rates.set(xlabel="update", ylabel="learning rate", ylim=(0, None))
    rates.grid(alpha=0.3)
    add_legend(figure, list(zip(*losses.get_legend_handles_labels(), strict=True)), columns=3)
    return figure


def _plot_curves(
    axes: Axes, curves: Mapping[str, CurveSamples], x: Transform = np.asarray, y: Transform = np.asarray
) -> np.ndarray:
    """Plots curves on transformed axes; returns the false rates of the last one.

    Only the first and the last curve have a band: those of all curves would hide each other.
    """
    for number, (label, samples) in enumerate(curves.items()):
        grid, style = samples.grid(), line(number)
        if number in (0, len(curves) - 1):
            axes.fill_between(x(grid), *y(samples.band), alpha=BAND_ALPHA, color=style["color"], linewidth=0)
        axes.plot(x(grid), y(samples.roc.tar_at(grid)), **style, label=legend_label(label))
    return grid


def _probit(share: np.ndarray | float) -> np.ndarray:
    return scipy.special.ndtri(np.clip(share, 1e-5, 1 - 1e-5))


def _plot_published(axes: Axes, published: Sequence[Published], prefix: str) -> None:
    """Plots the metrics whose name is ``prefix`` and a number, the x value."""
    for row, marker in zip(published, MARKERS[1:], strict=False):
        named = {name.removeprefix(prefix): value for name, value in row.metrics.items() if name.startswith(prefix)}
        points = [(float(x), value) for x, value in named.items() if "@" not in x]
        if points:
            axes.plot(*zip(*points, strict=True), marker, mfc="none", color="black", label=f"published: {row.system}")
