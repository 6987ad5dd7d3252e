"""The report's pictures, as PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import scipy.stats

from benchmarks.report.published import Published
from benchmarks.scoring.intervals import Interval, wilson
from benchmarks.scoring.samples import CurveSamples, RankSamples

matplotlib.use("Agg")

from matplotlib import pyplot as plt
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

_DPI = 130
_MARKERS = "sD^vPX"
_BAND = 0.18
_DET_TICKS = (0.001, 0.01, 0.05, 0.2, 0.5, 0.8, 0.95, 0.99)
_DET_LOW, _DET_HIGH = 5e-4, 0.995

PairTiles = Sequence[tuple[np.ndarray, np.ndarray, float]]


def _figure(title: str) -> tuple[Any, Any]:
    figure, axes = plt.subplots(layout="constrained", figsize=(7.2, 5.6))
    figure.suptitle(title, fontsize=11, parse_math=False)  # a path may hold dollar signs
    return figure, axes


def roc(
    title: str, curves: Mapping[str, CurveSamples], points: Sequence[Published], names: tuple[str, str], prefix: str
) -> bytes:
    """True over false rate, the latter logarithmic, with published operating points and 95 % bands as ``_banded``.

    Args:
        curves: label -> samples.
        names: of the false and the true rate.
        prefix: of the published figures, up to their false rate, ``tar@far=``.
    """
    figure, axes = _figure(title)
    lowest = min(samples.grid()[0] for samples in curves.values())
    for index, (label, samples) in enumerate(curves.items()):
        grid = samples.grid()
        if index in _banded(curves):
            axes.fill_between(grid, *samples.band(), alpha=_BAND, color=f"C{index}", linewidth=0)
        axes.plot(grid, samples.roc.tar_at(grid), color=f"C{index}", label=label)
    for row, marker in zip(points, _MARKERS, strict=False):
        rates = {float(name.partition("=")[2]): value for name, value in row.figures.items() if name.startswith(prefix)}
        if rates:
            axes.plot(rates.keys(), rates.values(), marker, mfc="none", color="black", label=f"published: {row.system}")
    if prefix.startswith("tar"):
        axes.plot(grid, grid, ":", color="grey", label="chance")
    axes.set(xscale="log", xlim=(lowest, 1), ylim=(0, 1.005), xlabel=names[0], ylabel=names[1])
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _percent(value)))
    _finish(axes)
    return _png(figure)


def det(title: str, curves: Mapping[str, CurveSamples]) -> bytes:
    """False reject over false accept rate, both on normal-deviate scales, with 95 % bands as ``_banded``. Source: Martin et al., 1997."""
    figure, axes = _figure(title)
    for index, (label, samples) in enumerate(curves.items()):
        grid = samples.grid()
        if index in _banded(curves):
            low, high = (_probit(1 - bound) for bound in samples.band())
            axes.fill_between(_probit(grid), high, low, alpha=_BAND, color=f"C{index}", linewidth=0)
        axes.plot(_probit(grid), _probit(1 - samples.roc.tar_at(grid)), color=f"C{index}", label=label)
    ends = (_probit(_DET_LOW), _probit(_DET_HIGH))
    axes.plot(ends, [-end for end in ends], ":", color="grey", label="chance")
    axes.set(xlim=ends, ylim=ends, xlabel="false accept rate (FAR)", ylabel="false reject rate (1 - TAR)")
    _finish(axes)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(FixedLocator(_probit(np.array(_DET_TICKS)).tolist()))
        axis.set_minor_locator(NullLocator())
        axis.set_major_formatter(FuncFormatter(lambda value, _: _percent(scipy.stats.norm.cdf(value))))
    return _png(figure)


def _banded(curves: Mapping[str, CurveSamples]) -> set[int]:
    """Which of several curves have a band: the first and the last, as the bands of all would hide each other."""
    return {0, len(curves) - 1}


def _probit(share: np.ndarray | float) -> np.ndarray:
    return scipy.stats.norm.ppf(np.clip(share, 1e-5, 1 - 1e-5))


def cmc(title: str, curves: Mapping[str, RankSamples], points: Sequence[Published], most: int) -> bytes:
    """Share of probes identified within each rank, with Wilson's 95 % band and published ranks."""
    figure, axes = _figure(title)
    ranks = np.arange(1, most + 1)
    for index, (label, samples) in enumerate(curves.items()):
        share = samples.cmc(most)
        low, high = np.array([wilson(value * len(samples.ranks), len(samples.ranks)) for value in share]).T
        axes.fill_between(ranks, low, high, alpha=_BAND, color=f"C{index}", linewidth=0)
        axes.plot(ranks, share, marker=".", color=f"C{index}", label=label)
    for row, marker in zip(points, _MARKERS, strict=False):
        known = {int(name[4:]): value for name, value in row.figures.items() if name[4:].isdigit()}
        if known:
            axes.plot(known.keys(), known.values(), marker, mfc="none", color="black", label=f"published: {row.system}")
    axes.set(xlim=(0.7, most + 0.3), ylim=(0, 1.005), xlabel="rank", ylabel="identified within that rank")
    axes.xaxis.set_major_locator(FixedLocator([1, *range(5, most + 1, 5)]))
    _finish(axes)
    return _png(figure)


def against(
    title: str,
    ticks: Sequence[str],
    ours: Mapping[str, tuple[Sequence[float], Sequence[Interval]]],
    others: Mapping[str, Sequence[float]],
    names: tuple[str, str],
) -> bytes:
    """Figures against resolution or distance: ours with 95 % intervals, published ones as broken lines.

    Args:
        ticks: the conditions, left to right.
        ours: label -> figure and interval of each condition; may be shorter than ``ticks``.
        others: system -> figures.
        names: of the two axes.
    """
    figure, axes = _figure(title)
    for index, (label, (values, intervals)) in enumerate(ours.items()):
        low, high = np.array(intervals).T
        at = np.arange(len(values)) + 0.04 * index
        errors = np.maximum([np.array(values) - low, high - np.array(values)], 0)
        axes.errorbar(at, values, yerr=errors, marker="o", capsize=4, color=f"C{index}", label=label)
    for index, (system, values) in enumerate(others.items()):
        axes.plot(
            values,
            "--",
            marker=_MARKERS[index],
            mfc="none",
            color=f"C{len(ours) + index}",
            label=f"published: {system}",
        )
    axes.set(xlabel=names[0], ylabel=names[1], ylim=(None, 1.01))
    axes.set_xticks(range(len(ticks)), ticks)
    _finish(axes)
    return _png(figure)


def _finish(axes: Any) -> None:
    """Percent up the side, a grid, and the legend below, where it hides nothing."""
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _percent(value)))
    axes.grid(alpha=0.3, which="both")
    axes.figure.legend(loc="outside lower center", ncols=2, fontsize=8)


def _percent(share: float) -> str:
    return f"{100 * share:.4g} %"


def hard_pairs(title: str, kinds: Mapping[str, PairTiles]) -> bytes:
    """Rows of pairs, one image above the other, as the network sees them, with their cosine. kinds: heading -> pairs."""
    columns = max(len(pairs) for pairs in kinds.values())
    figure = plt.figure(layout="constrained", figsize=(max(1.15 * columns, 4), 2.75 * len(kinds) + 0.3))
    figure.suptitle(title, fontsize=11, parse_math=False)
    for part, (heading, pairs) in zip(figure.subfigures(len(kinds), squeeze=False)[:, 0], kinds.items(), strict=True):
        part.suptitle(heading, fontsize=9)
        for axes, pair in zip(part.subplots(2, columns, squeeze=False).T, pairs, strict=False):
            axes[0].set_title(f"{pair[2]:.2f}", fontsize=8)
            for axis, image in zip(axes, pair[:2], strict=True):
                axis.imshow(image)
        for axis in part.axes:
            axis.set_axis_off()
    return _png(figure)


def _png(figure: Any) -> bytes:
    png = io.BytesIO()
    figure.savefig(png, format="png", dpi=_DPI)
    plt.close(figure)
    return png.getvalue()
