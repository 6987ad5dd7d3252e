"""Figures of results."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import re
import subprocess
import sys
import xml.etree.ElementTree

import numpy as np
import pytest
from matplotlib.colors import to_rgb

from benchmarks.report import figures, style
from benchmarks.report.faces import face_pictures
from benchmarks.report.figures import figure_pictures
from benchmarks.report.published import PUBLISHED
from pipeline.images.decode import ImageError
from tests.processes import REPOSITORY


@pytest.fixture
def drawn(monkeypatch):
    """``drawn(results)``: the matplotlib figures of a benchmark by the stem of their files."""

    def draw(results):
        found = []
        monkeypatch.setattr(figures, "drawing", lambda figure: (found.append(figure), {})[1])
        pictures = list(figure_pictures(results))
        return {picture.stem: figure for picture, figure in zip(pictures, found, strict=True)}

    return draw


def named(result, name, **facts):
    return dataclasses.replace(result, checkpoint={**result.checkpoint, "name": name, **facts})


def test_titles_are_benchmark_and_network(results, drawn):
    lfw = named(results["lfw"], "mine $1")
    titles = {stem: figure.get_suptitle() for stem, figure in drawn([lfw]).items()}
    assert list(titles) == ["lfw-roc", "lfw-det", "lfw-resolution", "lfw-resolution-lr-lr", "lfw-scores"]
    assert set(titles.values()) == {"LFW\nmine $1 (generated faces)"}
    several = drawn([lfw, named(results["lfw"], "b")])
    assert several["lfw-roc"].get_suptitle() == "LFW, 8 px\n2 networks (generated faces)"
    assert several["lfw-resolution"].get_suptitle() == "LFW\n2 networks (generated faces)"


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_several_networks_are_curves_of_one_figure(results, drawn):
    found = drawn([named(results["qmul"], "_a_"), named(results["qmul"], "x" * 80)])
    auc = f"AUC {100 * results['qmul'].metrics['auc']:.1f} %"
    assert legend(found["qmul-roc"]) == [f" _a_, {auc}", f"{'x' * 27}..., {auc}", "chance"]
    assert len(found["qmul-scores"].axes) == 2


@pytest.mark.parametrize("name", ["qmul", "tinyface", "qmul-id", "lfw"])
def test_published_marks_are_shown_with_comparable_results_only(name, results, drawn):
    systems = {f"published: {row.system}" for row in PUBLISHED[name]}
    comparable = dataclasses.replace(results[name], caveats=[])
    assert not {label for figure in drawn([results[name]]).values() for label in legend(figure)} & systems
    assert {label for figure in drawn([comparable]).values() for label in legend(figure)} >= systems


def test_the_two_denominators_of_scface_are_in_figures_of_their_own(results, drawn):
    scface = dataclasses.replace(results["scface"], caveats=[])
    found = drawn([scface])
    assert list(found) == ["scface-cmc", "scface-distance", "scface-distance-51-130"]
    everybody, evaluated = (legend(found[stem]) for stem in ("scface-distance", "scface-distance-51-130"))
    assert len(everybody) == 5
    assert evaluated == ["spherenet4, step 7", "published: DDL"]
    assert "published: DDL" not in everybody
    counts = [figure.axes[0].get_ylabel() for figure in found.values()][1:]
    assert counts == ["rank-1, all subjects (40 probes)", "rank-1, subjects 51-130 (25 probes)"]


def test_histograms_hold_all_pairs_and_the_thresholds(results, drawn):
    figure = drawn([results["lfw"]])["lfw-scores"]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["8 px", "12 px", "16 px", "20 px", "full size"]
    assert legend(figure) == ["same person", "different people", "threshold at FAR 10 %", "threshold at EER"]
    for axes in figure.axes:
        assert [patch.get_data().values.sum() for patch in axes.patches] == pytest.approx([1, 1])
    lines = [line.get_xdata()[0] for line in figure.axes[0].lines]
    assert lines == [results["lfw"].thresholds[name] for name in ("threshold@far=0.1@8", "threshold@eer@8")]
    assert legend(drawn([results["qmul-id"]])["qmul-id-scores"])[:2] == ["mated probes", "unmated probes"]


def test_pictures_read_no_file_that_scoring_did_not_read(results, tmp_path):
    """A file that has grown since, or a pipe in its place, filled the memory or blocked."""
    pairs = results["qmul"].hardest["{}"]
    first = pairs["genuine"][0]
    (tmp_path / "a.jpg").write_bytes(first.first.path.read_bytes() + bytes(1 << 26))
    large = dataclasses.replace(first.first, path=tmp_path / "a.jpg")
    changed = {"{}": {**pairs, "genuine": [dataclasses.replace(first, first=large)]}}
    with pytest.raises(ImageError, match=r"^the file has .* bytes; at most .* are read \(--max-pixels\)$"):
        list(face_pictures(dataclasses.replace(results["qmul"], hardest=changed, examples={}, max_pixels=1000), 0))
    os.mkfifo(tmp_path / "pipe")
    pipe = dataclasses.replace(first.first, path=tmp_path / "pipe")
    changed = {"{}": {**pairs, "genuine": [dataclasses.replace(first, first=pipe)]}}
    with pytest.raises(OSError, match="not a regular file"):
        list(face_pictures(dataclasses.replace(results["qmul"], hardest=changed, examples={}), 0))


def test_legends_are_outside_the_axes_and_ticks_are_percentages(results, drawn):
    shown = [[dataclasses.replace(results[name], caveats=[])] for name in ("lfw", "scface")]
    shown.append([named(results["qmul"], f"{number} {'x' * 50}") for number in range(12)])
    plotted = [figure for one in shown for figure in drawn(one).values()]
    assert len(plotted) == 11
    for figure in plotted:
        figure.draw_without_rendering()
        assert all(axes.get_legend() is None for axes in figure.axes)
        box = figure.legends[0].get_window_extent()
        assert box.y0 >= 0
        assert box.y1 <= min(axes.get_tightbbox().y0 for axes in figure.axes) + 5
        assert box.x0 >= 0
        assert box.x1 <= figure.bbox.x1
        ticks = [tick.get_text() for tick in figure.axes[0].get_yticklabels()]
        assert len(ticks) > 2
        assert all(re.fullmatch(r"-?[\d.]+ %", tick) for tick in ticks)


def test_only_the_first_and_last_of_many_curves_have_bands(results, drawn):
    found = drawn([results["lfw"]])
    for stem in ("lfw-roc", "lfw-det"):
        (axes,) = found[stem].axes
        bands = [band.get_facecolor()[0][:3].tolist() for band in axes.collections]
        assert bands == [list(to_rgb(style.line(number)["color"])) for number in (0, 4)]


# Source: Machado, Oliveira & Fernandes, A physiologically-based model for simulation of color vision deficiency, 2009
DEFICIENCIES = {
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}


@pytest.mark.parametrize("kind", DEFICIENCIES)
def test_colours_differ_for_colour_blind_people(kind):
    rgb = np.array([to_rgb(color) for color in style.COLORS])
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.array(DEFICIENCIES[kind]).T, 0, 1)
    distances = [np.linalg.norm(one - other) for one, other in itertools.combinations(np.cbrt(seen), 2)]
    assert len(distances) == 21
    assert min(distances) > 0.09


def test_no_two_of_26_networks_have_the_same_line():
    lines = [style.line(number) for number in range(26)]
    assert len({(one["color"], str(one["linestyle"])) for one in lines}) == 26


def test_drawings_are_small_deterministic_and_hold_text_and_fonts(results):
    lfw = [named(results["lfw"], "a < b & $c_1")]
    digests = set()
    for _ in range(2):
        roc = next(figure_pictures(lfw))
        assert {suffix: len(data) < 60_000 for suffix, data in roc.files.items()} == dict.fromkeys(
            ("png", "svg", "pdf"), True
        )
        digests.add(tuple(hashlib.sha256(data).hexdigest() for data in roc.files.values()))
    assert len(digests) == 1
    root = xml.etree.ElementTree.fromstring(roc.files["svg"])
    words = ["".join(text.itertext()).strip() for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert "false accept rate (FAR)" in words
    assert "a < b & $c_1 (generated faces)" in words
    assert b"/FontFile2" in roc.files["pdf"]
    for suffix in ("svg", "pdf"):
        assert not re.search(rb"CreationDate|dc:date|20\d\d-\d\d-\d\d", roc.files[suffix])


def test_figures_leave_the_caller_s_matplotlib_alone():
    """The backend stays unset and pyplot is not imported."""
    code = "import matplotlib; before = matplotlib.get_backend(auto_select=False); import benchmarks.report.page; "
    code += "import sys; print(before == matplotlib.get_backend(auto_select=False), 'matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout == "True False\n", done.stderr
