"""The HTML page of a shard set."""

from __future__ import annotations

import os
import re
import shutil
import subprocess

import cv2
import numpy as np
import pytest

from pipeline.build import build, options_for
from pipeline.demo.generate import write_demo_data
from pipeline.inspect import FaceSizes
from pipeline.pages.pictures import TILE_PX, Histogram, thumbnail
from pipeline.set_report import PER_STATUS, _examples, _SourcePictures, write_set_report
from shards.index import ShardIndex
from tests.pages import CHROMIUM, Page
from tests.processes import PATIENCE_S, error_of
from tests.shard_sets import build_options

NAMES = ["<script>alert(1)<", "Zo\u00eb & \u202eco", "a\"b'c"]
MAX_BYTES = 2_000_000


@pytest.fixture
def faulty(vggface2, tmp_path):
    """A set with odd names, and a row of many statuses."""
    table = vggface2 / "bb_landmark" / "loose_landmark_train.csv"
    lines = table.read_text().splitlines()
    images = sorted((vggface2 / "train").rglob("*.jpg"))
    for name in NAMES:
        (vggface2 / "train" / name).mkdir()
        shutil.copy(images[20], vggface2 / "train" / name / "0001_01.jpg")
        lines.append('"{}",{}'.format(f"{name}/0001_01".replace('"', '""'), lines[21].partition(",")[2]))
    images[3].unlink()
    images[7].write_bytes(images[7].read_bytes()[:900])
    lines[2] = lines[2].partition(",")[0] + ",nan" * 10
    lines += ["noslash," + lines[21].partition(",")[2], lines[20]]
    table.write_text("\n".join(lines) + "\n")
    exclude = tmp_path / "exclude.txt"
    exclude.write_text("n000009\n")
    build(build_options(vggface2, tmp_path / "out", exclude=exclude))
    return tmp_path / "out"


def test_the_page_says_what_the_set_is(shard_set, tmp_path):
    out = tmp_path / "new" / "page.html"
    write_set_report(shard_set, out)
    page, index = Page(out), ShardIndex(shard_set)
    for text in ("vggface2", "45, ", "min 5, median 5, max 5", "45, 0 rejected", "seed, 128 px", "opencv "):
        assert text in page.text
    assert index.manifest.index_digest in page.text
    assert index.manifest.fingerprint in page.text
    assert "None: every row of the source is stored." in page.text
    assert 8 < len(page.pictures) <= 45
    assert all(re.fullmatch(r"n00000\d/000\d_01", name) for name in page.pictures)
    assert len(out.read_bytes()) < MAX_BYTES
    assert "http" not in re.sub(r"base64,[^\"]*", "", out.read_text())


def test_a_size_is_not_rounded_out_of_its_band(shard_set):
    index = ShardIndex(shard_set)
    faces = np.full(len(index), 31.6, np.float32)
    [(title, tiles)] = _examples(index, FaceSizes(measure="", faces=faces, shorter=faces))
    assert title == "24-32 px: 45 images"
    assert {tile.detail for tile in tiles} == {"31 px"}


def test_rejected_rows_have_thumbnails_and_reasons(faulty, vggface2, tmp_path):
    out = tmp_path / "page.html"
    write_set_report(faulty, out)
    page = Page(out)
    assert page.text.index("excluded: 5") < page.text.index("missing-file: 1")
    for text in (
        "unreadable-image: 1",
        "bad-landmarks: 1",
        "duplicate-key: 1",
        "bad-key: 1",
        "named by the exclusion list",
    ):
        assert text in page.text
    shown = [name for name in page.pictures if name.startswith("n000009/")]
    assert len(shown) == 5
    assert "noslash" in page.text
    assert "noslash" not in page.pictures
    assert "n000001/0004_01" not in page.pictures  # it is missing
    shutil.move(vggface2, tmp_path / "elsewhere")
    write_set_report(faulty, out)
    assert not [name for name in Page(out).pictures if name.startswith("n000009/")]
    assert "excluded: 5" in Page(out).text


def test_no_picture_is_read_outside_the_source(faulty, vggface2):
    pictures = _SourcePictures(ShardIndex(faulty))
    assert pictures.thumbnail("n000009/0001_01", None)
    (vggface2 / "train" / "x.jpg").write_bytes((vggface2 / "train" / "n000009" / "0001_01.jpg").read_bytes())
    (vggface2.parent / "x.jpg").write_bytes((vggface2 / "train" / "x.jpg").read_bytes())
    for key in ("../x", "../../x", "train/../x", "./x", "/x", "n000009/../x", "a\0b/c"):
        assert pictures.thumbnail(key, None) is None


def test_a_key_that_is_no_path_has_no_picture(vggface2, tmp_path):
    """A list says that a picture of one folder shows the person of another."""
    listed = tmp_path / "list.csv"
    listed.write_text("path,identity\nn000001/0001_01.jpg,n000002\nn000001/0002_01.jpg,\nn000003/0009_01.jpg,n000002\n")
    root, out = vggface2 / "train", tmp_path / "set"
    build(options_for("list", root=root, out=out, lists=listed, template="none", executor="serial"))
    assert (root / "n000002" / "0001_01.jpg").exists()
    assert _SourcePictures(ShardIndex(out)).thumbnail("n000002/0001_01", None) is None


def test_names_are_escaped(faulty, tmp_path):
    out = tmp_path / "page.html"
    write_set_report(faulty, out)
    page = Page(out)
    assert "script" not in page.tags
    assert any(name.startswith("<script>alert(1)<") for name in page.pictures)
    assert r"\u202e" in page.text
    assert "\u202e" not in out.read_text()


def test_only_some_of_many_rejected_rows_are_shown(vggface2, tmp_path):
    for identity in ("n000001", "n000002", "n000003"):
        shutil.rmtree(vggface2 / "train" / identity)
    build(build_options(vggface2, tmp_path / "out"))
    write_set_report(tmp_path / "out", tmp_path / "page.html")
    page = Page(tmp_path / "page.html")
    assert "missing-file: 15" in page.text
    assert f"The first {PER_STATUS};" in page.text
    assert page.text.count("no image n00000") == PER_STATUS


def test_a_set_without_landmarks_is_shown_by_its_source_size(run, tmp_path):
    write_demo_data(tmp_path, identities=8, images=2, seed=3, layouts=["QMUL-SurvFace"])
    assert run("build-shards", "--source", "qmul", "--executor", "serial").returncode == 0
    done = run("inspect", tmp_path / "shards-qmul", "--report", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith(f"report: {tmp_path}/inspect.html\n")
    page = Page(tmp_path / "inspect.html")
    assert "Examples by shorter side of the source" in page.text
    assert "template none" in page.text


def test_the_command_writes_a_page_beside_a_read_only_set(run, shard_set, tmp_path):
    before = sorted(os.listdir(shard_set))
    done = run("inspect", shard_set, "--report", tmp_path / "a.HTML")
    assert done.returncode == 0, done.stderr
    assert "contact sheet" not in done.stdout
    assert sorted(os.listdir(shard_set)) == before
    assert "Shard set shards" in Page(tmp_path / "a.HTML").text
    both = run("inspect", shard_set, "--report", tmp_path / "folder", "--out", tmp_path / "sheet.png")
    assert f"contact sheet: {tmp_path}/sheet.png\nreport: {tmp_path}/folder/inspect.html\n" in both.stdout


def test_a_page_cannot_replace_a_folder_or_be_inside_a_file(run, shard_set, tmp_path):
    (tmp_path / "x.html").mkdir()
    (tmp_path / "file").write_text("x")
    assert "is a folder; expected a file" in error_of(run("inspect", shard_set, "--report", tmp_path / "x.html"), 2)
    assert "is a file; expected a folder" in error_of(run("inspect", shard_set, "--report", tmp_path / "file"), 2)
    (tmp_path / "mine.html").write_text("x")
    done = run("inspect", shard_set, "--report", tmp_path / "mine.html")
    assert "mine.html is there and is not an HTML page; delete it" in error_of(done, 2)


def test_thumbnails_keep_their_shape_and_show_landmarks():
    grey = np.full((300, 200), 90, np.uint8)
    plain, dotted = (cv2.imdecode(np.frombuffer(thumbnail(grey, points), np.uint8), 1) for points in (None, [100, 150]))
    assert plain.shape == (TILE_PX, round(TILE_PX * 2 / 3), 3)
    different = np.abs(plain.astype(int) - dotted).max(2) > 20
    assert different[TILE_PX // 2, TILE_PX // 3]
    assert 4 < different.sum() < 100


def test_histograms_name_their_bins():
    found = Histogram.of("t", np.array([1, 2, 3, 4, 900]), (1, 2, 3, 5), whole=True)
    assert found.rows == [("1", 1, 50.0), ("2", 1, 50.0), ("3-4", 2, 100.0), ("5+", 1, 50.0)]
    assert Histogram.of("t", np.array([9.5]), (0, 8, 16)).rows == [("0-8", 0, 0.0), ("8-16", 1, 100.0), ("16+", 0, 0.0)]


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, pytest.param(1000, marks=pytest.mark.heavy)])
def test_a_browser_shows_the_page(width, faulty, tmp_path):
    out = tmp_path / "page.html"
    write_set_report(faulty, out)
    probe = tmp_path / "probe.html"
    script = (
        "<script>addEventListener('load',()=>{const images=[...document.images];"
        "document.title=images.every(i=>i.complete&&i.naturalWidth>20)+' '+images.length+' '+"
        "(document.documentElement.scrollWidth<=innerWidth)})</script></body>"
    )
    probe.write_text(out.read_text().replace("</body>", script))
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--virtual-time-budget=5000"]
    dom = subprocess.run(
        [*command, f"--user-data-dir={tmp_path / 'user'}", f"--window-size={width},900", "--dump-dom", probe.as_uri()],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    ).stdout
    assert f"<title>true {len(Page(out).pictures)} true</title>" in dom
