"""Figures of the report, drawn with matplotlib."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import scipy.stats
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from benchmarks.report.published import Published
from benchmarks.scoring.intervals import Interval, wilson
from benchmarks.scoring.samples import CurveSamples, RankSamples

DPI = 130
_MARKERS = "sD^vPX"
_BAND_ALPHA = 0.18
_DET_TICKS = (0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99)
_DET_MIN, _DET_MAX = 5e-4, 0.995

Transform = Callable[[np.ndarray], np.ndarray]
PairTiles = tuple[np.ndarray, np.ndarray, float]  # two (S, S, 3) uint8 RGB images and their cosine


def png(figure: Figure) -> bytes:
    """Renders a figure as PNG."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


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
    figure, axes = _new_figure(title)
    left = min(samples.grid()[0] for samples in curves.values())
    grid = _plot_curves(axes, curves)
    _plot_published(axes, published, prefix)
    if prefix.startswith("tar"):
        axes.plot(grid, grid, ":", color="grey", label="chance")
    axes.set(xscale="log", xlim=(left, 1), ylim=(0, 1.005), xlabel=axis_labels[0], ylabel=axis_labels[1])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _percent(value)))
    return _finish(figure, axes)


def det(title: str, curves: Mapping[str, CurveSamples]) -> Figure:
    """DET curve: false reject rate against false accept rate on normal-deviate scales, with 95 % bands.

    Source: Martin et al., The DET curve in assessment of detection task performance, 1997.
    """
    figure, axes = _new_figure(title)
    _plot_curves(axes, curves, _probit, lambda tar: _probit(1 - tar))
    limits = (float(_probit(_DET_MIN)), float(_probit(_DET_MAX)))
    axes.plot(limits, [-limit for limit in limits], ":", color="grey", label="chance")
    axes.set(xlim=limits, ylim=limits, xlabel="false accept rate (FAR)", ylabel="false reject rate (1 - TAR)")
    _finish(figure, axes)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(_probit(np.array(_DET_TICKS)).tolist()))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: _percent(scipy.stats.norm.cdf(value))))
    return figure


def cmc(title: str, curves: Mapping[str, RankSamples], published: Sequence[Published], max_rank: int) -> Figure:
    """CMC curve: share of probes identified within each rank, with Wilson's 95 % bands and published ranks."""
    figure, axes = _new_figure(title)
    ranks = np.arange(1, max_rank + 1)
    for index, (label, samples) in enumerate(curves.items()):
        shares, probes = samples.cmc(max_rank), len(samples.ranks)
        low, high = np.array([wilson(share * probes, probes) for share in shares]).T
        axes.fill_between(ranks, low, high, alpha=_BAND_ALPHA, color=f"C{index}", linewidth=0)
        axes.plot(ranks, shares, marker=".", color=f"C{index}", label=label)
    _plot_published(axes, published, "rank")
    axes.set(xlim=(0.7, max_rank + 0.3), ylim=(0, 1.005), xlabel="rank", ylabel="identified within that rank")
    axes.xaxis.set_major_locator(FixedLocator([1, *range(5, max_rank + 1, 5)]))
    return _finish(figure, axes)


def by_condition(
    title: str,
    ticks: Sequence[str],
    ours: Mapping[str, Sequence[tuple[float, Interval]]],
    published: Mapping[str, Sequence[float]],
    axis_labels: tuple[str, str],
) -> Figure:
    """A metric against resolution or distance: ours with 95 % intervals, published results as dashed lines.

    Args:
        ticks: the conditions, left to right.
        ours: label -> metric and interval under each condition; may cover only the first conditions.
        published: system -> metric under each condition.
        axis_labels: x and y.
    """
    figure, axes = _new_figure(title)
    for index, (label, points) in enumerate(ours.items()):
        values = np.array([value for value, _ in points])
        low, high = np.array([interval for _, interval in points]).T
        errors = np.maximum([values - low, high - values], 0)
        x = np.arange(len(values)) + 0.04 * index
        axes.errorbar(x, values, yerr=errors, marker="o", capsize=4, color=f"C{index}", label=label)
    for index, (system, metrics) in enumerate(published.items()):
        color, marker = f"C{len(ours) + index}", _MARKERS[index]
        axes.plot(metrics, "--", marker=marker, mfc="none", color=color, label=f"published: {system}")
    axes.set(xlabel=axis_labels[0], ylabel=axis_labels[1], ylim=(None, 1.01))
    axes.set_xticks(range(len(ticks)), ticks)
    return _finish(figure, axes)


def hard_pairs(title: str, kinds: Mapping[str, Sequence[PairTiles]]) -> Figure:
    """Rows of image pairs, one image above the other, with their cosine.

    Args:
        kinds: heading of a row -> pairs.
    """
    columns = max(map(len, kinds.values()))
    figure = Figure(layout="constrained", figsize=(max(1.15 * columns, 4), 2.75 * len(kinds) + 0.3))
    figure.suptitle(title, fontsize=11, parse_math=False)
    parts = figure.subfigures(len(kinds), squeeze=False)[:, 0]
    for part, (heading, pairs) in zip(parts, kinds.items(), strict=True):
        part.suptitle(heading, fontsize=9)
        for column, (*images, score) in zip(part.subplots(2, columns, squeeze=False).T, pairs, strict=False):
            column[0].set_title(f"{score:.2f}", fontsize=8)
            for axes, image in zip(column, images, strict=True):
                axes.imshow(image)
        for axes in part.axes:
            axes.set_axis_off()
    return figure


def _new_figure(title: str) -> tuple[Figure, Axes]:
    figure = Figure(layout="constrained", figsize=(7.2, 5.6))
    figure.suptitle(title, fontsize=11, parse_math=False)  # a path may contain dollar signs
    return figure, figure.subplots()


def _plot_curves(
    axes: Axes, curves: Mapping[str, CurveSamples], x: Transform = np.asarray, y: Transform = np.asarray
) -> np.ndarray:
    """Plots curves on transformed axes; returns the false rates of the last one.

    Only the first and the last curve have a band: those of all curves would hide each other.
    """
    for index, (label, samples) in enumerate(curves.items()):
        grid, color = samples.grid(), f"C{index}"
        if index in (0, len(curves) - 1):
            axes.fill_between(x(grid), *y(samples.band()), alpha=_BAND_ALPHA, color=color, linewidth=0)
        axes.plot(x(grid), y(samples.roc.tar_at(grid)), color=color, label=label)
    return grid


def _probit(share: np.ndarray | float) -> np.ndarray:
    return scipy.stats.norm.ppf(np.clip(share, 1e-5, 1 - 1e-5))


def _plot_published(axes: Axes, published: Sequence[Published], prefix: str) -> None:
    """Plots the metrics whose name is ``prefix`` and a number, the x value."""
    for row, marker in zip(published, _MARKERS, strict=False):
        named = {name.removeprefix(prefix): value for name, value in row.metrics.items() if name.startswith(prefix)}
        points = [(float(x), value) for x, value in named.items() if "@" not in x]
        if points:
            axes.plot(*zip(*points, strict=True), marker, mfc="none", color="black", label=f"published: {row.system}")


def _finish(figure: Figure, axes: Axes) -> Figure:
    """Adds percent labels, a grid, and a legend below the axes, where it hides nothing."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _percent(value)))
    axes.grid(alpha=0.3, which="both")
    figure.legend(loc="outside lower center", ncols=2, fontsize=8)
    return figure


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"
