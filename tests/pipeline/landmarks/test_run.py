"""The table of many images: reasons, resuming, worker counts, the cache. The networks are a stand-in."""

from __future__ import annotations

import os
import shutil
from concurrent import futures
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

import pipeline.landmarks.chunk
from pipeline.landmarks.chunk import LandmarkOptions, find_in_chunk
from pipeline.landmarks.run import MIN_CHUNK, find_landmarks, is_table_of
from pipeline.landmarks.table import SCHEMA, write_csv
from pipeline.sources.source import SourceError
from pipeline.sources.watch import SourceWatch
from pipeline.tables.landmark_reader import read_landmarks
from pipeline.tables.landmark_table import POINT_NAMES
from shards.errors import LockedError
from tests.pipeline.landmarks.stand_in import StandIn, scene

COUNT = 40  # images, in three chunks


@pytest.fixture(scope="module")
def _photographs(tmp_path_factory):
    root = tmp_path_factory.mktemp("photographs") / "faces"
    for number in range(COUNT):
        image, _ = scene(120, 120, [(20 + number % 7, 25, 70)], number % 30)
        path = root / f"n{number // 4:02d}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), image)
    return root


@pytest.fixture
def photographs(_photographs, tmp_path):
    return shutil.copytree(_photographs, tmp_path / "faces")


def names_in(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*.png"))


def options(**changes):
    return LandmarkOptions(**{"model": "none", "open_networks": StandIn, **changes})


def find(root, out, **more):
    return find_landmarks(names_in(root), out, options(), root=root, **more)


def test_each_thread_has_networks_of_its_own():
    ours = options().networks()
    assert options().networks() is ours
    with futures.ThreadPoolExecutor(1) as pool:
        theirs = pool.submit(options().networks).result()
        assert pool.submit(options().networks).result() is theirs
    assert theirs is not ours
    assert options(model="other").networks() is not ours


@pytest.fixture
def opened(monkeypatch):
    """Records the names of the images that are decoded."""
    seen = []
    decoded = pipeline.landmarks.chunk._decoded

    def recorded(name, *arguments):
        seen.append(name)
        return decoded(name, *arguments)

    monkeypatch.setattr(pipeline.landmarks.chunk, "_decoded", recorded)
    return seen


def test_one_row_an_image_whatever_the_number_of_workers(photographs, tmp_path):
    statuses = find(photographs, tmp_path / "one.parquet")
    find(photographs, tmp_path / "two.parquet", workers=2)
    assert statuses == {"ok": COUNT}
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()
    table = pq.read_table(tmp_path / "one.parquet")
    assert table.schema.equals(SCHEMA)
    assert table["path"].to_pylist() == names_in(photographs)
    rows = table.to_pylist()
    _, points = scene(120, 120, [(20 + 9 % 7, 25, 70)], 9)
    row = next(row for row in rows if row["path"] == "n02/9.png")
    assert [row[name] for name in POINT_NAMES] == pytest.approx(points.ravel().tolist(), abs=1)
    assert row["eye_distance"] == pytest.approx(28, abs=1)
    assert (row["faces"], row["status"], row["reason"]) == (1, "ok", None)
    assert row["roll"] == pytest.approx(9, abs=2)
    metadata = {key.decode() for key in table.schema.metadata}
    assert metadata >= {"landmarks", "model", "choose", "max_pixels", "litert", "opencv", "images"}
    assert sorted(os.listdir(tmp_path)) == ["faces", "one.parquet", "two.parquet"]


def test_unusable_images_are_rows_with_a_reason(photographs, tmp_path):
    names = ["n00/0.png", "empty.png", "cut.png", "plain.png", "gone.png", "large.png", "pipe.png"]
    whole = (photographs / "n00/0.png").read_bytes()
    (photographs / "empty.png").touch()
    (photographs / "cut.png").write_bytes(whole[: len(whole) // 2])
    cv2.imwrite(str(photographs / "plain.png"), np.zeros((50, 60, 3), np.uint8))
    cv2.imwrite(str(photographs / "large.png"), np.zeros((500, 500), np.uint8))
    os.mkfifo(photographs / "pipe.png")
    out = tmp_path / "x.parquet"
    statuses = find_landmarks(names, out, options(max_pixels=200**2), root=photographs)
    assert statuses == {"ok": 1, "unreadable-image": 5, "no-face": 1}
    rows = pq.read_table(out).to_pylist()
    assert [row["path"] for row in rows] == names
    reasons = {row["path"]: row["reason"] for row in rows}
    assert reasons["plain.png"] == "no face found in the 60x50 image"
    assert reasons["empty.png"] == "empty file"
    assert reasons["large.png"] == "the image states 500x500 px, --max-pixels is 40000"
    assert reasons["gone.png"] == "cannot be read: No such file or directory"
    assert [row["faces"] for row in rows] == [1, None, None, 0, None, None, None]
    assert [row["P1X"] is None for row in rows] == [False] + [True] * 6
    table = read_landmarks([out])  # as the build reads it
    assert table.problems == {row: reasons[name] for row, name in enumerate(names) if row}
    assert table.keys.to_pylist() == [name.removesuffix(".png") for name in names]
    assert table.landmarks(3).place == "x.parquet row 4: no face found in the 60x50 image"


def test_formats_and_depths_make_no_difference(tmp_path):
    image, points = scene(120, 120, [(25, 25, 70)])
    root = tmp_path / "faces"
    root.mkdir()
    alpha = np.dstack([image, np.full(image.shape[:2], 77, np.uint8)])
    for name, pixels in [
        *[("a.png", image), ("b.bmp", image), ("c.tiff", image), ("d.webp", image), ("e.ppm", image)],
        *[("f.png", alpha), ("g.png", image.astype(np.uint16) * 257)],
    ]:
        assert cv2.imwrite(str(root / name), pixels)
    names = sorted(os.listdir(root))
    find_landmarks(names, tmp_path / "x.parquet", options(), root=root)
    rows = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert len(rows) == 7
    for row in rows:
        assert [row[name] for name in POINT_NAMES] == pytest.approx(points.ravel().tolist(), abs=1), row["path"]


def test_a_killed_run_goes_on_where_it_was(photographs, tmp_path, opened, monkeypatch):
    out = tmp_path / "x.parquet"
    find(photographs, tmp_path / "whole.parquet")
    opened.clear()

    def killed(chunk):
        if len(opened) > MIN_CHUNK:
            raise KeyboardInterrupt
        return find_in_chunk(chunk)

    monkeypatch.setattr("pipeline.landmarks.run.find_in_chunk", killed)
    with pytest.raises(KeyboardInterrupt):
        find(photographs, out)
    assert not out.exists()
    monkeypatch.undo()
    assert len(opened) == 2 * MIN_CHUNK
    folder = next(path for path in tmp_path.iterdir() if "unfinished" in path.name)
    parts = sorted(folder.iterdir())
    assert len(parts) == 2
    parts[0].write_bytes(parts[0].read_bytes()[:-9])  # damaged: found again
    (tmp_path / "x.parquet.mine").mkdir()  # the user's
    (tmp_path / f"x.parquet.{'0' * 16}.unfinished").mkdir()  # of a run with other options
    theirs = [f"x.parquet.{digit * 16}.unfinished" for digit in "12"]
    (tmp_path / theirs[0]).touch()
    (tmp_path / theirs[1]).symlink_to(photographs)
    find(photographs, out)
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["faces", "whole.parquet", "x.parquet", *theirs, "x.parquet.mine"]


def test_images_that_changed_meanwhile_are_searched_again(photographs, tmp_path, opened):
    cache = tmp_path / "cache"
    find(photographs, tmp_path / "a.parquet", cache=cache)
    assert len(opened) == COUNT
    opened.clear()
    find(photographs, tmp_path / "b.parquet", cache=cache)
    assert opened == []
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    names = names_in(photographs)
    shutil.copy(photographs / names[0], photographs / names[1])
    find(photographs, tmp_path / "c.parquet", cache=cache)
    assert opened == names[:MIN_CHUNK]
    rows = pq.read_table(tmp_path / "c.parquet").to_pylist()
    assert [rows[0][name] for name in POINT_NAMES] == [rows[1][name] for name in POINT_NAMES]


def test_another_choice_uses_no_rows_of_the_first(photographs, tmp_path, opened):
    names, cache = names_in(photographs)[:3], tmp_path / "cache"
    for choose in ("largest", "central", "largest"):
        find_landmarks(names, tmp_path / "x.parquet", options(choose=choose), root=photographs, cache=cache)
    assert len(opened) == 6


def test_a_relative_path_may_have_a_colon(photographs, tmp_path, monkeypatch):
    """PyArrow takes such a path for a URI."""
    monkeypatch.chdir(tmp_path)
    names, table = names_in(photographs)[:3], Path("of:v1") / "table.parquet"
    for _ in range(2):  # the second time its rows are read
        assert find_landmarks(names, table, options(), root=photographs, cache=Path("c:1")).total() == 3
    assert is_table_of(table, names, options())
    assert write_csv(Path("of:v1") / "table.csv", table) == 0
    assert read_landmarks("of:v1/table.csv").keys.to_pylist() == [name.removesuffix(".png") for name in names]


def test_two_processes_cannot_write_one_table(photographs, tmp_path, monkeypatch):
    out = tmp_path / "x.parquet"

    def second(chunk):
        find(photographs, out)

    monkeypatch.setattr("pipeline.landmarks.run.find_in_chunk", second)
    with pytest.raises(LockedError, match="another process is finding landmarks here"):
        find(photographs, out)


def test_nothing_is_made_without_the_networks(photographs, tmp_path):
    with pytest.raises(ZeroDivisionError):
        find_landmarks(["a"], tmp_path / "x.parquet", options(open_networks=lambda model: 1 / 0), root=photographs)
    assert os.listdir(tmp_path) == ["faces"]


def test_a_folder_that_is_gone_is_no_fault_of_the_images(photographs, tmp_path):
    names, watch = names_in(photographs), SourceWatch([photographs])
    photographs.rename(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match="no longer there"):
        find_landmarks(names, tmp_path / "x.parquet", options(), root=photographs, watch=watch)
    assert not (tmp_path / "x.parquet").exists()


def test_the_csv_is_that_of_vggface2(photographs, tmp_path):
    root = tmp_path / "odd"
    for name in ("train/n1/0001_01.png", 'a, "b"/\u00e9.png', "new\nline/1.png", "plain/1.png"):
        (root / name).parent.mkdir(parents=True)
        shutil.copy(photographs / "n00/0.png", root / name)
    cv2.imwrite(str(root / "plain/1.png"), np.zeros((50, 60, 3), np.uint8))
    find_landmarks(names_in(root), tmp_path / "x.parquet", options(), root=root)
    assert write_csv(tmp_path / "x.csv", tmp_path / "x.parquet") == 1  # the line break
    lines = (tmp_path / "x.csv").read_text().splitlines()
    assert lines[0] == "NAME_ID,P1X,P1Y,P2X,P2Y,P3X,P3Y,P4X,P4Y,P5X,P5Y"
    assert lines[2].startswith('"n1/0001_01",4')
    assert len(lines) == 3
    csv, parquet = read_landmarks([tmp_path / "x.csv"]), read_landmarks([tmp_path / "x.parquet"])
    assert csv.keys.to_pylist() == ['a, "b"/\u00e9', "n1/0001_01"]
    rows = [parquet.keys.to_pylist().index(key) for key in csv.keys.to_pylist()]
    assert csv.points == pytest.approx(parquet.points[rows], abs=6e-4)


def test_the_csv_gives_no_points_to_another_image_of_its_name(photographs, tmp_path):
    root = tmp_path / "splits"
    for name in ("train/n1/1.png", "test/n1/1.png", "test/n1/2.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(photographs / "n00/0.png", root / name)
    cv2.imwrite(str(root / "train/n1/1.png"), np.zeros((50, 60, 3), np.uint8))  # no face
    find_landmarks(names_in(root), tmp_path / "x.parquet", options(), root=root)
    assert write_csv(tmp_path / "x.csv", tmp_path / "x.parquet") == 1
    assert read_landmarks([tmp_path / "x.csv"]).keys.to_pylist() == ["n1/2"]


def test_names_that_are_not_utf8_are_the_keys_of_a_build(photographs, tmp_path):
    (tmp_path / "odd" / "Jos\udce9").mkdir(parents=True)
    shutil.copy(photographs / "n00/0.png", tmp_path / "odd" / "Jos\udce9" / "\udcff.png")
    find_landmarks(names_in(tmp_path / "odd"), tmp_path / "x.parquet", options(), root=tmp_path / "odd")
    assert write_csv(tmp_path / "x.csv", tmp_path / "x.parquet") == 0
    for table in ("x.parquet", "x.csv"):
        assert read_landmarks([tmp_path / table]).keys.to_pylist() == [r"Jos\udce9/\udcff"]
    (tmp_path / "windows.csv").write_text((tmp_path / "x.csv").read_text().replace(r"Jos\udce9/", r"faces\n1\xfe"))
    assert read_landmarks([tmp_path / "windows.csv"]).keys.to_pylist() == [r"faces/n1/xfe\udcff"]
