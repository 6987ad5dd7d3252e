"""Tables, Markdown, HTML and pictures."""

from __future__ import annotations

import html.parser
import json
import re
import subprocess

import numpy as np
import pytest
from PIL import Image

from benchmarks import BENCHMARKS
from benchmarks.document import Grid, Picture, Section, as_html, as_markdown
from benchmarks.published import PUBLISHED, TABLES
from benchmarks.report import print_result, write_report
from tests.benchmarks.conftest import score
from tests.conftest import CHROMIUM

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
    lines = print_result(results[list(BENCHMARKS).index("qmul")]).splitlines()
    assert lines[0].startswith("QMUL-SurvFace verification, %  ")
    assert lines[0].split()[-2:] == ["AUC", "accuracy"]
    assert lines[2].startswith("spherenet4, step 7  ")
    assert [line.split()[-2] for line in lines[4:7]] == ["80.03", "80.06", "82.17"]
    assert len({len(line) for line in lines[:7]}) == 1


def test_partial_figures_are_called_so(demo):
    root = demo("TinyFace")
    sorted((root / "Testing_Set" / "Probe").iterdir())[0].unlink()
    text = print_result(score("tinyface", root, intervals=True, allow_missing=True))
    assert "spherenet4, step 7 (partial)  " in text
    assert re.search(r"Partial: 1 of \d+ images could not be used, 1 pairs or probes were left out\.", text)


def test_the_published_set_is_told_by_its_size(results):
    (lfw,) = [result for result in results if result.benchmark == "lfw"]
    assert lfw.data.endswith("LFW (generated faces)")
    root = BENCHMARKS["lfw"]
    assert root.folder == "LFW"


def test_data_that_is_neither_generated_nor_the_published_set_is_told(demo):
    root = demo("LFW")
    (root / "generated.json").unlink()
    result = score("lfw", root)
    pairs = result.counts["pairs"]
    assert result.data == f"{root} (not the published set: {pairs} pairs of 6,000)"
    scface = demo("SCface")
    (scface / "generated.json").unlink()
    assert re.search(
        r"\(not the published set: \d+ gallery of 130, \d+ probes of 650, mugshots of \d+x\d+ px\)",
        score("scface", scface).data,
    )


def test_every_published_row_has_a_source_and_figures_that_a_table_shows():
    assert set(PUBLISHED) == set(TABLES) == set(BENCHMARKS)
    assert [len(PUBLISHED[name]) for name in ("lfw", "scface", "qmul")] == [3, 5, 3]
    rows = [(name, row) for name, published in PUBLISHED.items() for row in published]
    assert len(rows) >= 15
    for name, row in rows:
        shown = {column for table in TABLES[name] for column in table.columns}
        assert row.source
        assert row.figures
        assert set(row.figures) <= shown, row.system
        assert all(0 < value <= 1 for value in row.figures.values())


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
