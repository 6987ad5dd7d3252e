"""Figures of a result."""

from __future__ import annotations

import dataclasses
import os
import re
import subprocess
import sys

import matplotlib
import pytest

from benchmarks.report import plots
from benchmarks.report.figures import figure_title, result_pictures
from pipeline.sources.images import ImageError
from tests.conftest import REPOSITORY


@pytest.fixture
def figures_of(monkeypatch):
    """``figures_of(result)``: the matplotlib figures of its report, laid out."""

    def figures(result):
        drawn = []
        to_png = plots.png
        monkeypatch.setattr(plots, "png", lambda figure: (drawn.append(figure), to_png(figure))[1])
        assert len(list(result_pictures(result))) == len(drawn)
        return drawn

    return figures


def test_the_title_states_the_data_and_the_first_caveat(results):
    lfw = dataclasses.replace(results["lfw"], data="/data/LFW: full (copy)", caveats=[])
    assert figure_title(lfw) == "LFW\n/data/LFW: full (copy)"
    lfw = dataclasses.replace(lfw, data="x" * 100, caveats=["generated faces", "other"])
    assert figure_title(lfw) == f"LFW\n...{'x' * 70} (generated faces)"


def test_pictures_read_no_file_that_scoring_did_not_read(results, figures_of, tmp_path):
    """A file that has grown since, or a pipe in its place, filled the memory or blocked."""
    pairs = results["qmul"].hardest["{}"]
    first = pairs["genuine"][0]
    (tmp_path / "a.jpg").write_bytes(first.first.path.read_bytes() + bytes(1 << 26))
    large = dataclasses.replace(first.first, path=tmp_path / "a.jpg")
    changed = {"{}": {**pairs, "genuine": [dataclasses.replace(first, first=large)]}}
    with pytest.raises(ImageError, match=r"^the file has .* bytes; at most .* are read \(--max-pixels\)$"):
        figures_of(dataclasses.replace(results["qmul"], hardest=changed, max_pixels=1000))
    os.mkfifo(tmp_path / "pipe")
    pipe = dataclasses.replace(first.first, path=tmp_path / "pipe")
    changed = {"{}": {**pairs, "genuine": [dataclasses.replace(first, first=pipe)]}}
    with pytest.raises(OSError, match="not a regular file"):
        figures_of(dataclasses.replace(results["qmul"], hardest=changed))


def test_legends_lie_outside_the_axes_and_ticks_are_percentages(results, figures_of):
    plotted = [figure for name in ("lfw", "scface") for figure in figures_of(results[name]) if figure.legends]
    assert len(plotted) == 5
    for figure in plotted:
        (axes,) = figure.axes
        assert axes.get_legend() is None
        (legend,) = figure.legends
        assert legend.get_window_extent().y1 <= axes.get_tightbbox().y0 + 1
        ticks = [tick.get_text() for tick in axes.get_yticklabels()]
        assert len(ticks) > 3
        assert all(re.fullmatch(r"[\d.]+ %", tick) for tick in ticks)


def test_only_the_first_and_last_of_many_curves_have_bands(results, figures_of):
    roc, det = figures_of(results["lfw"])[:2]
    for figure in (roc, det):
        (axes,) = figure.axes
        assert len(axes.collections) == 2
        assert [band.get_facecolor()[0][:3].tolist() for band in axes.collections] == [
            list(matplotlib.colors.to_rgb(color)) for color in ("C0", "C4")
        ]


def test_figures_leave_the_caller_s_matplotlib_alone():
    """The backend stays unset and pyplot is not imported."""
    code = "import matplotlib; before = matplotlib.get_backend(auto_select=False); import benchmarks.report.page; "
    code += "import sys; print(before == matplotlib.get_backend(auto_select=False), 'matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout == "True False\n", done.stderr
