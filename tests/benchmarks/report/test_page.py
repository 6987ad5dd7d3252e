"""The files of a report."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import re
import subprocess

import numpy as np
import pytest
from PIL import Image

from benchmarks.errors import ReportError
from benchmarks.report.page import Report, is_report_file, write_report
from tests.conftest import CHROMIUM, PATIENCE_S

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
def report(results, tmp_path_factory):
    return write_report([*results.values()], tmp_path_factory.mktemp("report") / "deep" / "folder")


def test_the_report_contains_every_benchmark_in_every_format(report, results):
    folder = report.parent
    names = {name for pictures in PICTURES.values() for name in pictures}
    expected = {f"{name}.png" for name in names} | {f"{name}.json" for name in PICTURES} | {"report.md", "report.html"}
    assert {path.name for path in folder.iterdir()} == expected
    markdown, page = (folder / "report.md").read_text(), report.read_text()
    for result in results.values():
        assert json.loads((folder / f"{result.benchmark}.json").read_text())["metrics"] == result.metrics
        for text in (markdown, page):
            assert result.title in text
            assert f"{100 * result.metrics[result.main]:.2f}" in text
            assert "(generated faces)" in text
            assert "Not comparable with the published rows" in text
    assert set(re.findall(r"!\[[^]]+\]\(([\w-]+\.png)\)", markdown)) == {f"{name}.png" for name in names}


def test_pictures_are_not_blank(report):
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


def test_the_page_is_self_contained(report):
    parser = Links()
    parser.feed(report.read_text())
    assert parser.stack == []
    assert len(parser.sources) > 19
    assert all(source.startswith(("data:image/png;base64,", "#s")) for source in parser.sources)
    assert "http" not in re.sub(r"base64,[^\"]*", "", report.read_text())


@pytest.mark.browser
def test_a_browser_shows_the_page(report, tmp_path):
    shot = report.with_name("shot.png")
    command = [CHROMIUM, *OFFLINE, f"--user-data-dir={tmp_path}"]
    probe = report.with_name("probe.html")
    script = (
        "<script>addEventListener('load',()=>{const images=[...document.images];"
        "document.title=images.filter(i=>i.complete&&i.naturalWidth>400).length+' of '+images.length+' wide '+"
        "(document.documentElement.scrollWidth<=innerWidth)})</script></body>"
    )
    probe.write_text(report.read_text().replace("</body>", script))
    dom = subprocess.run(
        [*command, "--dump-dom", probe.as_uri()], capture_output=True, text=True, timeout=PATIENCE_S
    ).stdout
    assert "<title>19 of 19 wide true</title>" in dom
    subprocess.run(
        [*command, f"--screenshot={shot}", "--window-size=1000,1600", report.as_uri()], timeout=PATIENCE_S, check=True
    )
    with Image.open(shot) as picture:
        assert np.asarray(picture.convert("L")).std() > 10
    probe.unlink()
    shot.unlink()


def test_the_report_says_how_it_was_measured(report):
    text = report.with_name("report.md").read_text().partition("## How it was measured")[2]
    for line in ("checkpoint: x.pt", "digest: 00ff", "precision: fp32", "device: cpu"):
        assert f"- {line}\n" in text
    assert '"torch": ' in text
    assert '"lrfr": ' in text


def test_the_summary_uses_the_titles_of_the_tables_and_lists_caveats(report):
    text = report.with_name("report.md").read_text().partition("## LFW")[0]
    assert "Not comparable with published results (generated faces): LFW, XQLFW, SCface, " in text
    metrics = [line.split(" | ")[1] for line in text.splitlines() if line.startswith("| ")]
    assert metrics[1:] == [
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


def test_a_report_lists_some_missing_images_and_counts_the_rest(results, tmp_path):
    missing = [(f"/x/{number}.jpg", "not found") for number in range(25)]
    write_report([dataclasses.replace(results["tinyface"], missing=missing)], tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert text.count("left out: /x/") == 20
    assert "- left out: 5 more, listed in tinyface.json" in text
    assert len(json.loads((tmp_path / "tinyface.json").read_text())["missing"]) == 25


def test_a_report_replaces_an_earlier_one_and_nothing_else(results, tmp_path):
    (tmp_path / "qmul.json").write_text("before there was a report")
    write_report([results["tinyface"]], tmp_path)
    assert (tmp_path / "qmul.json").read_text() == "before there was a report"
    assert {f"{name}.png" for name in PICTURES["tinyface"]} <= {path.name for path in tmp_path.iterdir()}
    for name in ("all.json", "mine-roc.png", "notes.md", "lfw-roc.png", "lfw.json"):
        (tmp_path / name).write_text("x")
    for _ in range(2):
        write_report([results["qmul"]], tmp_path)
        expected = {f"{name}.png" for name in PICTURES["qmul"]} | {"qmul.json", "report.md", "report.html"}
        kept = {"all.json", "mine-roc.png", "notes.md", "lfw-roc.png", "lfw.json", "tinyface.json"}
        assert {path.name for path in tmp_path.iterdir()} == expected | kept
    assert all(is_report_file(name) for name in expected)
    assert not is_report_file("all.json")


@pytest.mark.parametrize("name", ["report.md", "report.html"])
def test_a_report_of_the_user_is_not_overwritten(name, results, tmp_path):
    (tmp_path / name).write_text("# My thesis\n")
    with pytest.raises(ReportError, match=rf"{name}: exists and is not a report of bench; choose another --report"):
        Report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
