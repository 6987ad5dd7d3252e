"""The files of a report."""

from __future__ import annotations

import dataclasses
import html.parser
import json
import os
import re
import subprocess

import numpy as np
import pytest
from PIL import Image

from benchmarks.errors import ReportError
from benchmarks.report import figures, networks, style
from benchmarks.report.page import Report, is_report_file, write_report
from tests.benchmarks.runs import clearer
from tests.pages import CHROMIUM
from tests.processes import PATIENCE_S

DRAWINGS = {
    "lfw": ["lfw-roc", "lfw-det", "lfw-scores", "lfw-resolution", "lfw-resolution-lr-lr"],
    "xqlfw": ["xqlfw-roc", "xqlfw-det", "xqlfw-scores"],
    "scface": ["scface-cmc", "scface-distance", "scface-distance-51-130"],
    "qmul": ["qmul-roc", "qmul-det", "qmul-scores"],
    "qmul-id": ["qmul-id-dir", "qmul-id-scores"],
    "tinyface": ["tinyface-cmc"],
}
FACES = {
    "lfw": ["lfw-seen", "lfw-hardest-8", "lfw-hardest-128"],
    "xqlfw": ["xqlfw-seen", "xqlfw-hardest"],
    "scface": ["scface-seen", "scface-hardest-d1", "scface-hardest-d3"],
    "qmul": ["qmul-seen", "qmul-hardest"],
    "qmul-id": ["qmul-id-seen", "qmul-id-hardest"],
    "tinyface": ["tinyface-seen", "tinyface-hardest"],
}
CURVES = {"step": list(range(10, 130, 10)), "loss": [12.0 - n / 3 for n in range(12)], "lr": [0.1] * 12}
PAGES = {"report.html", "report.md", "report.tex", "report.csv"}


def files_of(name):
    """The files of a benchmark in a report."""
    drawings = {f"{stem}.{suffix}" for stem in DRAWINGS[name] for suffix in ("png", "svg", "pdf")}
    return {f"{name}.json", *drawings, *(f"{stem}.png" for stem in FACES[name])}


OFFLINE = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--no-first-run",
    "--virtual-time-budget=5000",
]


def once(function):
    """The function's first result, whatever the later arguments."""
    first = []
    return lambda argument: first[0] if first else first.append(function(argument)) or first[0]


@pytest.fixture(scope="module", params=["drawn once", pytest.param("drawn", marks=pytest.mark.heavy)])
def report(request, results, tmp_path_factory):
    """The report of all benchmarks; by default all its drawings are copies of one, which saves most of the time."""
    shown = [
        dataclasses.replace(one, checkpoint={**one.checkpoint, "name": "my net", "curves": CURVES})
        for one in results.values()
    ]
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "drawn once":
            shared = once(style.drawing)
            patch.setattr(figures, "drawing", shared)
            patch.setattr(networks, "drawing", shared)
        return write_report(shown, tmp_path_factory.mktemp("report") / "deep" / "folder")


def test_the_report_contains_every_benchmark_in_every_format(report, results):
    folder = report.parent
    training = {f"training.{suffix}" for suffix in ("png", "svg", "pdf")}
    expected = set().union(PAGES, training, *map(files_of, results))
    assert {path.name for path in folder.iterdir()} == expected
    markdown, page = (folder / "report.md").read_text(), report.read_text()
    for result in results.values():
        assert json.loads((folder / f"{result.benchmark}.json").read_text())["metrics"] == result.metrics
        for text in (markdown, page):
            assert result.title in text
            assert f"{100 * result.metrics[result.main]:.2f}" in text
            assert "(generated faces)" in text
            assert "Not comparable with published results" in text
    shown = set(re.findall(r"!\[[^]]+\]\(([\w-]+\.png)\)", markdown))
    assert shown == {name for name in expected if name.endswith(".png")}


def test_the_page_of_the_demo_is_small(report):
    """Its size depends on the number of pictures, not on that of the images."""
    assert report.stat().st_size < 2_000_000


def test_pictures_are_not_blank(report):
    found = sorted(report.parent.glob("*.png"))
    assert len(found) == 32
    for path in found:
        with Image.open(path) as picture:
            assert np.asarray(picture.convert("L")).std() > 10, path.name
            assert min(picture.size) > 150, path.name


class Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.stack, self.sources = [], []

    def handle_starttag(self, tag, attributes):
        if tag not in ("meta", "img", "br"):
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
    assert len(parser.sources) > 230
    pictures = ("data:image/png;base64,", "data:image/jpeg;base64,")
    assert all(source.startswith((*pictures, "#s")) for source in parser.sources)
    assert "http" not in re.sub(r"base64,[^\"]*", "", report.read_text())


@pytest.mark.usefixtures("no_drawings")
def test_sources_are_links(results, tmp_path):
    comparable = dataclasses.replace(results["tinyface"], caveats=[])
    page = write_report([comparable], tmp_path)
    assert "TinyFace: <a href" not in page.read_text()
    assert re.search(
        r'<a href="https://github.com/mk-minchul/CVLface">CVLface; Kim et al[^<]*</a> \(a larger', page.read_text()
    )
    assert "](https://github.com/mk-minchul/CVLface) (a larger" in (tmp_path / "report.md").read_text()
    assert page.read_text().count('class="published"') == 2


FACTS_OF_A_PAGE = """<script>addEventListener('load',()=>{const images=[...document.images];
const cut=[...document.querySelectorAll('table,img,p,li,td,figcaption')].filter(e=>e.getBoundingClientRect().right>innerWidth+1);
document.title=images.filter(i=>i.complete&&i.naturalWidth>100).length+' of '+images.length+' wide '+
(document.documentElement.scrollWidth<=innerWidth)+' cut '+cut.length})</script></body>"""


@pytest.mark.browser
@pytest.mark.parametrize("width", [360, pytest.param(1280, marks=pytest.mark.heavy)])
def test_a_browser_shows_the_page(report, tmp_path, width):
    """At the width of a phone, too: a window is at least 500 px wide, so the page is in a frame."""
    command = [CHROMIUM, *OFFLINE, f"--user-data-dir={tmp_path}", "--allow-file-access-from-files"]
    command.append(f"--window-size={max(width, 500)},2000")
    page, shot, frame = (tmp_path / name for name in ("page.html", "shot.png", "frame.html"))
    page.write_text(report.read_text().replace("</body>", FACTS_OF_A_PAGE))
    frame.write_text(
        f"<body style='margin:0'><iframe src='page.html' style='border:0;width:{width}px;height:2000px'></iframe>"
        "<script>addEventListener('load',()=>{setTimeout(()=>{document.title=frames[0].document.title},0)})</script>"
    )
    dom = subprocess.run(
        [*command, "--dump-dom", frame.as_uri()], capture_output=True, text=True, timeout=PATIENCE_S
    ).stdout
    images = report.read_text().count("<img")
    assert f"<title>{images} of {images} wide true cut 0</title>" in dom
    subprocess.run([*command, f"--screenshot={shot}", frame.as_uri()], timeout=PATIENCE_S, check=True)
    with Image.open(shot) as picture:
        assert np.asarray(picture.convert("L")).std() > 10


@pytest.mark.usefixtures("no_drawings")
def test_the_report_says_how_it_was_measured(results, tmp_path):
    facts = {
        "name": "mine",
        "parameters": 18_329_664,
        "training_data": {"identities": 9131},
        "training": {"steps": 120, "views": [128, 8], "best": None},
    }
    measured = {"date": "2026-01-02T03:04:05+00:00", "command": "lrfr bench qmul", "processor": "P", "cores": 2}
    result = dataclasses.replace(
        results["qmul"], checkpoint={**results["qmul"].checkpoint, **facts}, measurement=measured
    )
    page = write_report([result], tmp_path).read_text()
    text = (tmp_path / "report.md").read_text().partition("## How it was measured")[2]
    for title, value in {
        "file": "x.pt",
        "digest": "00ff",
        "parameters": "18,329,664",
        "training data": "identities: 9,131",
        "training configuration": "steps: 120; views: 128, 8; best: -",
        "precision": "fp32",
        "device": "cpu",
        "date": "2026-01-02 03:04:05 UTC",
        "command": "lrfr bench qmul",
        "processor": "P",
        "cores": "2",
    }.items():
        assert f"| {title} | {value} |\n" in text
        assert f">{value}</td>" in page
    assert re.search(r"\| versions \| .*torch: ", text)
    assert "| preprocessing | template: seed; size: 128;" in text


def test_the_summary_uses_the_titles_of_the_tables_and_lists_caveats(report):
    text = report.with_name("report.md").read_text().partition("## LFW")[0]
    assert "Not comparable with published results (generated faces): LFW, XQLFW, SCface, " in text
    header = next(line for line in text.splitlines() if line.startswith("|  | LFW"))
    assert header.split(" | ")[1:] == [
        "LFW: HR to LR, accuracy, 8 px",
        "XQLFW: accuracy",
        "SCface: rank-1, all subjects, 4.2 m",
        "QMUL-SurvFace verification: AUC",
        "QMUL-SurvFace open-set identification: AUC",
        "TinyFace: rank-1 |",
    ]
    assert "| my net | spherenet4 | 7 | - | - | 00ff |" in text
    page = report.read_text()
    summary, lfw = page.partition('<section id="s1">')[::2]
    assert 'class="ours"' not in summary
    assert lfw.partition('<section id="s2">')[0].count('class="ours"') == 6


@pytest.mark.usefixtures("no_drawings")
def test_without_faces_only_names_are_left(results, tmp_path):
    page = write_report([results["scface"]], tmp_path, faces=False)
    assert {path.name for path in tmp_path.glob("*.png")} == {f"{stem}.png" for stem in DRAWINGS["scface"]}
    text = page.read_text()
    assert text.count("<img") == 3
    assert "data:image/jpeg" not in text
    pair = results["scface"].hardest["{}@d1"]["genuine"][0]
    for shown in (text, (tmp_path / "report.md").read_text().replace("\\", "")):
        assert f"{pair.first.path.parent.name}/{pair.first.path.name}" in shown
    write_report([results["scface"]], tmp_path)
    assert len(list(tmp_path.glob("*.png"))) == 6
    write_report([results["scface"]], tmp_path, faces=False)
    assert len(list(tmp_path.glob("*.png"))) == 3


def test_names_of_files_stand_below_the_hard_pairs(report, results):
    pairs = results["qmul"].hardest["{}"]["impostors"]
    page = report.read_text().partition("<h2>QMUL-SurvFace verification</h2>")[2]
    for pair in pairs:
        names = [f"verification_images/{side.path.name}" for side in (pair.first, pair.second)]
        assert f"{pair.score:.2f}<br>{names[0]} | {names[1]}</figcaption>" in page
    images = [side.name for pair in pairs for side in (pair.first, pair.second)]
    assert len(set(images)) == len(images) == 16


@pytest.mark.usefixtures("no_drawings")
def test_several_networks_are_compared_on_one_page(results, tmp_path):
    first = dataclasses.replace(clearer(results["qmul"]), checkpoint={**results["qmul"].checkpoint, "name": "first"})
    samples = first.settings["{}"]
    worse = dataclasses.replace(samples, scores=np.where(samples.genuine, -0.9, 0.9))
    other = dataclasses.replace(
        first,
        checkpoint={**first.checkpoint, "name": "other"},
        settings={"{}": worse},
        metrics=worse.metrics(),
        intervals=worse.intervals(),
    )
    page = write_report([first, other], tmp_path).read_text()
    text = (tmp_path / "report.md").read_text()
    assert f"| first | **{100 * first.metrics['tar@far=0.3']:.2f}** | " in text
    assert f"| first | **{100 * first.metrics['accuracy']:.2f}** | **{100 * first.metrics['auc']:.2f}** | " in text
    assert "| other | 0.00 | " in text
    assert "difference from first, percentage points" in text
    assert re.search(r"\| other \| -\d+\.\d\d\\\* \|", text)
    assert page.count(">first<") >= 4
    assert [one["checkpoint"]["name"] for one in json.loads((tmp_path / "qmul.json").read_text())["results"]] == [
        "first",
        "other",
    ]
    assert (tmp_path / "qmul-hardest-2.png").exists()
    latex = (tmp_path / "report.tex").read_text()
    assert r"first & \textbf{" in latex


@pytest.mark.usefixtures("no_drawings")
def test_a_report_lists_some_missing_images_and_counts_the_rest(results, tmp_path):
    missing = [(f"/x/{number}.jpg", "not found") for number in range(25)]
    write_report([dataclasses.replace(results["tinyface"], missing=missing)], tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert text.count("left out: /x/") == 20
    assert "- left out: 5 more, listed in tinyface.json" in text
    assert len(json.loads((tmp_path / "tinyface.json").read_text())["missing"]) == 25


@pytest.mark.usefixtures("no_drawings")
def test_a_report_replaces_an_earlier_one_and_nothing_else(results, tmp_path):
    (tmp_path / "qmul.json").write_text("before there was a report")
    with pytest.raises(ReportError, match=r"qmul\.json: no report wrote it; choose another --report, or rename it"):
        write_report([results["qmul"]], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["qmul.json"]
    write_report([results["tinyface"]], tmp_path)
    assert (tmp_path / "qmul.json").read_text() == "before there was a report"
    assert files_of("tinyface") <= {path.name for path in tmp_path.iterdir()}
    for name in ("all.json", "mine-roc.png", "notes.md", "lfw-roc.png", "lfw.json"):
        (tmp_path / name).write_text("x")
    for _ in range(2):
        write_report([results["qmul"]], tmp_path)
        expected = {*PAGES, *files_of("qmul")}
        kept = {"all.json", "mine-roc.png", "notes.md", "lfw-roc.png", "lfw.json", "tinyface.json"}
        assert {path.name for path in tmp_path.iterdir()} == expected | kept
    assert all(is_report_file(name) for name in expected)
    assert not is_report_file("all.json")


@pytest.mark.parametrize("name", ["report.md", "report.html", "report.tex", "report.csv"])
@pytest.mark.parametrize("kind", ["file", "folder", "pipe", "link"])
def test_a_report_of_the_user_is_not_overwritten(name, kind, tmp_path):
    if kind == "file":
        (tmp_path / name).write_text("% My thesis\n\\usepackage{booktabs}\n")
    elif kind == "folder":
        (tmp_path / name).mkdir()
    elif kind == "pipe":
        os.mkfifo(tmp_path / name)
    else:
        (tmp_path / name).symlink_to("nowhere")
    with pytest.raises(ReportError, match=rf"{name}: exists and is not a report of bench; choose another --report"):
        Report(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [name]
