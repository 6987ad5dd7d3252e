"""Tables, Markdown, HTML and pictures."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import re
import subprocess
import sys

import matplotlib
import numpy as np
import pytest
from PIL import Image

from benchmarks import BENCHMARKS
from benchmarks.report import plots
from benchmarks.report.document import Grid, Picture, Section, as_html, as_markdown
from benchmarks.report.figures import figure_title, result_pictures
from benchmarks.report.page import is_report_file, write_report
from benchmarks.report.published import PUBLISHED, TABLES
from benchmarks.report.tables import facts, network_label, result_grids, result_text, warnings
from benchmarks.scoring.samples import unresolved_metrics
from tests.benchmarks.conftest import score
from tests.conftest import CHROMIUM, REPOSITORY

PICTURES = {
    "lfw": {"lfw-roc", "lfw-det", "lfw-resolution", "lfw-hardest-8", "lfw-hardest-128"},
    "xqlfw": {"xqlfw-roc", "xqlfw-det", "xqlfw-hardest"},
    "scface": {"scface-cmc", "scface-distance", "scface-hardest-d1", "scface-hardest-d3"},
    "qmul": {"qmul-roc", "qmul-det", "qmul-hardest"},
    "qmul-id": {"qmul-id-dir", "qmul-id-hardest"},
    "tinyface": {"tinyface-cmc", "tinyface-hardest"},
}


OFFLINE = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--virtual-time-budget=5000",
]


@pytest.fixture(scope="module")
def results(_demo):
    return [score(name, _demo / benchmark.folder, intervals=True) for name, benchmark in BENCHMARKS.items()]


@pytest.fixture(scope="module")
def report(results, tmp_path_factory):
    return write_report(results, tmp_path_factory.mktemp("report") / "deep" / "folder")


def test_the_report_holds_every_benchmark_in_every_form(report, results):
    folder = report.parent
    names = {name for pictures in PICTURES.values() for name in pictures}
    expected = {f"{name}.png" for name in names} | {f"{name}.json" for name in PICTURES} | {"report.md", "report.html"}
    assert {path.name for path in folder.iterdir()} == expected
    markdown, page = (folder / "report.md").read_text(), report.read_text()
    for result in results:
        assert json.loads((folder / f"{result.benchmark}.json").read_text())["metrics"] == result.metrics
        for text in (markdown, page):
            assert result.title in text
            assert f"{100 * result.metrics[result.main]:.2f}" in text
            assert "(generated faces)" in text
            assert "Not comparable with the published rows" in text
    assert set(re.findall(r"!\[[^]]+\]\(([\w-]+\.png)\)", markdown)) == {f"{name}.png" for name in names}


def test_pictures_show_something(report):
    found = sorted(report.parent.glob("*.png"))
    assert len(found) == 19
    for path in found:
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("L")).std() > 10, path.name
            assert min(picture.size) > 400, path.name


class Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.stack, self.sources = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img"):
            self.stack.append(tag)
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag == "img":
            assert dict(attributes)["alt"]

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag


def test_the_page_needs_nothing_else(report):
    parser = Links()
    parser.feed(report.read_text())
    assert parser.stack == []
    assert len(parser.sources) > 19
    assert all(source.startswith(("data:image/png;base64,", "#s")) for source in parser.sources)
    assert "http" not in re.sub(r"base64,[^\"]*", "", report.read_text())


@pytest.mark.browser
def test_the_page_opens_in_a_browser_from_disk(report, tmp_path):
    shot = report.with_name("shot.png")
    command = [CHROMIUM, *OFFLINE, f"--user-data-dir={tmp_path}"]
    probe = report.with_name("probe.html")
    script = (
        "<script>addEventListener('load',()=>{const images=[...document.images];"
        "document.title=images.filter(i=>i.complete&&i.naturalWidth>400).length+' of '+images.length+' wide '+"
        "(document.documentElement.scrollWidth<=innerWidth)})</script></body>"
    )
    probe.write_text(report.read_text().replace("</body>", script))
    dom = subprocess.run([*command, "--dump-dom", probe.as_uri()], capture_output=True, text=True, timeout=100).stdout
    assert "<title>19 of 19 wide true</title>" in dom
    subprocess.run(
        [*command, f"--screenshot={shot}", "--window-size=1000,1600", report.as_uri()], timeout=100, check=True
    )
    with Image.open(shot) as picture:
        assert np.asarray(picture.convert("L")).std() > 10
    probe.unlink()
    shot.unlink()


def test_the_printed_table(results):
    lines = result_text(results[list(BENCHMARKS).index("qmul")]).splitlines()
    assert lines[0].startswith("QMUL-SurvFace verification, %  ")
    assert lines[0].split()[-2:] == ["AUC", "accuracy"]
    assert lines[2].startswith("spherenet4, step 7  ")
    assert [line.split()[-2] for line in lines[4:7]] == ["80.03", "80.06", "82.17"]
    assert len({len(line) for line in lines[:7]}) == 1


def test_partial_figures_are_called_so(demo):
    root = demo("TinyFace")
    sorted((root / "Testing_Set" / "Probe").iterdir())[0].unlink()
    text = result_text(score("tinyface", root, intervals=True, allow_missing=True))
    assert "spherenet4, step 7 (partial)  " in text
    assert re.search(r"Partial: 1 of \d+ images could not be used, 1 pairs or probes were left out\.", text)


def test_generated_faces_are_told(results):
    (lfw,) = [result for result in results if result.benchmark == "lfw"]
    assert lfw.data.endswith("LFW")
    assert lfw.caveats == ["generated faces"]
    assert warnings(lfw) == ["Not comparable with the published rows: generated faces."]
    assert facts(lfw)[0].endswith(f"data: {lfw.data} (generated faces)")


def test_data_that_is_neither_generated_nor_the_published_set_is_told(demo):
    root = demo("LFW")
    (root / "generated.json").unlink()
    result = score("lfw", root)
    assert (result.data, result.caveats) == (str(root), [f"pairs {result.counts['pairs']}, published 6,000"])
    scface = demo("SCface")
    (scface / "generated.json").unlink()
    gallery, probes, mugshots = score("scface", scface).caveats
    assert re.fullmatch(r"gallery \d+, published 130", gallery)
    assert re.fullmatch(r"probes \d+, published 650", probes)
    assert re.fullmatch(r"mugshots of \d+x\d+ px", mugshots)


def test_comparability_does_not_depend_on_the_folder_s_name(results):
    whole = dataclasses.replace(results[0], data="/data/LFW: full (copy)", caveats=[])
    assert warnings(whole) == []
    assert facts(whole)[0].endswith("data: /data/LFW: full (copy)")
    assert figure_title(whole) == "LFW\n/data/LFW: full (copy)"


def test_the_precision_is_named_where_it_is_reduced(results):
    assert (
        network_label({"backbone": "spherenet4", "step": 1000, "precision": "bf16"}) == "spherenet4, step 1,000, bf16"
    )
    assert network_label({"backbone": "spherenet4", "step": None, "precision": "fp32"}) == "spherenet4"


def test_the_report_says_how_it_was_measured(report):
    text = report.with_name("report.md").read_text().partition("## How it was measured")[2]
    for line in ("checkpoint: x.pt", "digest: 00ff", "precision: fp32", "device: cpu"):
        assert f"- {line}\n" in text
    assert '"torch": ' in text
    assert '"lrfr": ' in text


def test_the_summary_names_figures_as_the_tables_do_and_says_what_is_not_comparable(report):
    text = report.with_name("report.md").read_text().partition("## LFW")[0]
    assert "Not comparable with published results (generated faces): LFW, XQLFW, SCface, " in text
    figures = [line.split(" | ")[1] for line in text.splitlines() if line.startswith("| ")]
    assert figures[1:] == [
        "HR to LR, accuracy, 8 px",
        "accuracy",
        "rank-1, all subjects, 4.2 m",
        "AUC",
        "AUC",
        "rank-1",
    ]
    page = report.read_text()
    summary, lfw = page.partition('<section id="s1">')[::2]
    assert 'class="ours"' not in summary
    assert lfw.partition('<section id="s2">')[0].count('class="ours"') == 4


def test_lines_below_the_tables(results):
    by_name = {result.benchmark: facts(result) for result in results}
    assert re.match(r"8 in the gallery, 40 probes a distance, 128 images, 128 preparations; ", by_name["scface"][0])
    assert re.match(r"60 pairs, 30 of them genuine, 10 folds, 32 images, 160 preparations; ", by_name["lfw"][0])
    assert re.match(r"8 in the gallery, of 4 identities, 8 mated probes, 16 unmated", by_name["qmul-id"][0])
    spread = results[0].metrics["lr-lr/std@20"]
    assert by_name["lfw"][1].startswith("Standard deviation of accuracy over folds, %: 8 px: ")
    assert by_name["lfw"][1].endswith(f"; LR to LR, 20 px: {100 * spread:.2f}.")
    assert re.fullmatch(r"Standard deviation of accuracy over folds: \d+\.\d\d %\.", by_name["qmul"][1])


def test_a_figure_that_the_set_cannot_resolve_is_kept_but_not_shown(results):
    (qmul,) = [result for result in results if result.benchmark == "qmul"]
    assert unresolved_metrics(qmul.settings) == ["tar@far=0.01", "tar@far=0.001"]
    assert "tar@far=0.001" in qmul.metrics
    (grid,) = result_grids(qmul)
    assert [grid.rows[row][4] for row in (0, 1)] == ["-", "-"]
    assert grid.rows[2][4] == "11.02"
    assert warnings(qmul)[1] == ("Not shown: TAR@0.01, TAR@0.001; smallest resolvable FAR: 3.1 % (1/32).")
    (watch,) = [result for result in results if result.benchmark == "qmul-id"]
    assert unresolved_metrics(watch.settings) == ["tpir20@fpir=0.01"]


def test_a_report_names_some_missing_images_and_counts_the_rest(results, tmp_path):
    missing = [(f"/x/{number}.jpg", "not found") for number in range(25)]
    write_report([dataclasses.replace(results[-1], missing=missing)], tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert text.count("left out: /x/") == 20
    assert "- left out: 5 more, listed in tinyface.json" in text
    assert len(json.loads((tmp_path / "tinyface.json").read_text())["missing"]) == 25


def test_a_report_replaces_an_earlier_one_and_nothing_else(results, tmp_path):
    (tmp_path / "qmul.json").write_text("before there was a report")
    write_report([results[-1]], tmp_path)
    assert (tmp_path / "qmul.json").exists()
    for name in ("all.json", "mine-roc.png", "notes.md", "lfw-roc.png"):
        (tmp_path / name).write_text("x")
    write_report([results[3]], tmp_path)
    expected = {f"{name}.png" for name in PICTURES["qmul"]} | {"qmul.json", "report.md", "report.html"}
    assert {path.name for path in tmp_path.iterdir()} == expected | {"all.json", "mine-roc.png", "notes.md"}
    assert all(is_report_file(name) for name in expected)
    assert not is_report_file("all.json")


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


def test_legends_lie_outside_the_axes_and_ticks_are_alike(results, figures_of):
    plotted = [figure for result in (results[0], results[2]) for figure in figures_of(result) if figure.legends]
    assert len(plotted) == 5
    for figure in plotted:
        (axes,) = figure.axes
        assert axes.get_legend() is None
        (legend,) = figure.legends
        assert legend.get_window_extent().y1 <= axes.get_tightbbox().y0 + 1
        ticks = [tick.get_text() for tick in axes.get_yticklabels()]
        assert len(ticks) > 3
        assert all(re.fullmatch(r"[\d.]+ %", tick) for tick in ticks)


def test_of_many_curves_two_have_bands(results, figures_of):
    roc, det = figures_of(results[0])[:2]
    for figure in (roc, det):
        (axes,) = figure.axes
        assert len(axes.collections) == 2
        assert [band.get_facecolor()[0][:3].tolist() for band in axes.collections] == [
            list(matplotlib.colors.to_rgb(color)) for color in ("C0", "C4")
        ]


def test_figures_leave_the_caller_s_matplotlib_alone(results):
    """Neither the backend nor the open figures of pyplot change."""
    code = "import matplotlib; before = matplotlib.get_backend(auto_select=False); import benchmarks.report.page; "
    code += "import sys; print(before == matplotlib.get_backend(auto_select=False), 'matplotlib.pyplot' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)
    assert done.stdout == "True False\n", done.stderr


def test_every_published_row_has_a_source_and_figures_that_a_table_shows():
    assert set(PUBLISHED) == set(TABLES) == set(BENCHMARKS)
    assert [len(PUBLISHED[name]) for name in ("lfw", "scface", "qmul")] == [3, 5, 3]
    rows = [(name, row) for name, published in PUBLISHED.items() for row in published]
    assert len(rows) >= 15
    for name, row in rows:
        shown = {column for table in TABLES[name] for column in table.columns}
        assert row.source
        assert row.metrics
        assert set(row.metrics) <= shown, row.system
        assert all(0 < value <= 1 for value in row.metrics.values())


def test_every_shown_figure_is_one_that_the_benchmark_gives(results):
    for result in results:
        shown = {column for table in TABLES[result.benchmark] for column in table.columns}
        assert shown <= set(result.metrics)
        assert result.main in result.metrics


def test_text_from_outside_cannot_break_the_page():
    section = Section(
        title="<script>",
        warnings=["a & b"],
        grids=[Grid(caption="<b>", header=["", "x|y"], rows=[["<i>", "1"]])],
        pictures=[Picture(name="a.png", png=b"x", alt='"><img onerror=1>')],
    )
    page = as_html("<t>", [section])
    assert not re.search(r"<script>|<b>|<i>|<img onerror", page)
    assert "x\\|y" in as_markdown("t", [section])
