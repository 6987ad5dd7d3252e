"""The command landmarks: what it prints, what it refuses. The networks are a stand-in."""

from __future__ import annotations

import os
import shutil
import sys

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.demo.generate import write_demo_data
from pipeline.landmarks.chunk import LandmarkOptions
from tests.networks import save_small
from tests.pipeline.landmarks.stand_in import StandIn, scene
from tests.processes import error_of


@pytest.fixture
def photographs(tmp_path):
    root = tmp_path / "photographs"
    for number in range(4):
        path = root / "n1" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), scene(120, 120, [(20, 25, 70)], number)[0])
    cv2.imwrite(str(root / "none.png"), np.zeros((30, 30, 3), np.uint8))
    (root / ".hidden").mkdir()
    (root / "again").symlink_to("n1")
    return root


@pytest.fixture
def stand_in(monkeypatch):
    """Every command uses the stand-in, in this process; returns the networks that were opened."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    opened = []

    def networks(model):
        opened.append(StandIn(model))
        return opened[-1]

    monkeypatch.setitem(LandmarkOptions.__init__.__kwdefaults__, "open_networks", networks)
    return opened


def test_landmarks_prints_what_it_found(run, photographs, stand_in, tmp_path):
    words = ("landmarks", photographs, "--out", "x.parquet", "--csv", "x.csv", "--workers", 1)
    process = run(*words)
    assert process.stdout == "landmarks of 4 of 5 images (1 no-face): x.parquet\n"
    lines = process.stderr.splitlines()
    assert lines[:2] == [
        f"ignored 1 hidden or system entry ({photographs}/.hidden)",
        f"ignored 1 repeated path ({photographs}/n1)",
    ]
    assert pq.read_table(tmp_path / "x.parquet")["path"].to_pylist() == [
        "none.png",
        *(f"again/{number}.png" for number in range(4)),
    ]
    assert len((tmp_path / "x.csv").read_text().splitlines()) == 5
    assert run(*words).returncode == 0  # replaces its files


def test_no_face_at_all_is_an_error(run, photographs, stand_in):
    for path in (photographs / "n1").iterdir():
        path.unlink()
    assert error_of(run("landmarks", photographs, "--out", "x.parquet", "--workers", 1)) == (
        "Error: x.parquet: no face found in 1 image"
    )


def test_what_is_refused(run, photographs, tmp_path):
    (tmp_path / "empty").mkdir()
    for words, code, message in [
        ((tmp_path / "empty", "--out", "x.parquet"), 1, "contains no images; expected .jpg, .png, .tif, ..."),
        ((tmp_path / "gone", "--out", "x.parquet"), 2, "does not exist."),
        ((photographs / "none.png", "--out", "x.parquet"), 2, "is a file."),
        (
            (photographs, "--out", "x", "--csv", tmp_path / "x"),
            2,
            f"--csv {tmp_path}/x: --out names the same file; choose another name",
        ),
        (
            (photographs, "--out", "x.CSV"),
            2,
            "--out x.CSV: a Parquet file is written; --csv also writes a CSV file",
        ),
        ((photographs, "--out", "x", "--choose", "best"), 2, "is not one of 'largest', 'central', 'highest-score'."),
        (
            (photographs, "--out", "x"),
            1,
            f"{tmp_path}/models/face_landmarker.task: no landmark model; run: lrfr fetch landmarker, or give"
            " --model PATH to landmarks",
        ),
    ]:
        assert error_of(run("landmarks", *words), code).endswith(message)


def test_litert_that_is_not_installed_is_named(monkeypatch):
    from pipeline.landmarks.model import LandmarkerError
    from pipeline.landmarks.networks import import_litert
    from tests.processes import REPOSITORY

    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.delitem(sys.modules, "ai_edge_litert.interpreter", raising=False)
    with pytest.raises(LandmarkerError) as error:
        import_litert()
    assert str(error.value) == f"ai_edge_litert is not installed; run: pip install --editable '{REPOSITORY}[landmarks]'"


def test_build_shards_finds_the_landmarks_first(run, photographs, stand_in, tmp_path):
    (photographs / "again").unlink()
    cv2.imwrite(str(photographs / "n1" / "none.png"), np.zeros((30, 40, 3), np.uint8))
    (photographs / "none.png").unlink()
    words = (
        "build-shards",
        "--source",
        "folder",
        "--root",
        photographs,
        "--out",
        "s",
        "--landmarks",
        "auto",
        "--executor",
        "serial",
    )
    process = run(*words)
    assert process.returncode == 0, process.stderr
    assert "landmarks of 4 of 5 images (1 no-face): landmarks.parquet" in process.stderr.splitlines()
    assert process.stderr.splitlines()[-1] == "rejected: 1 bad-landmarks"
    rows = pq.read_table(tmp_path / "s" / "shard-000000.parquet").to_pylist()
    rejected = [(row["key"], row["error_message"]) for row in rows if row["status"] != "ok"]
    assert rejected == [("n1/none", "no face found in the 40x30 image")]
    before = {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()}
    assert "landmarks.parquet" in before
    assert run("verify", "s", "--full").returncode == 0
    opened = len(stand_in)
    again = run(*words)
    assert "landmarks.parquet: found before, used again" in again.stderr.splitlines()
    assert "already complete, nothing to do" in again.stderr
    assert len(stand_in) == opened
    (tmp_path / "s" / "manifest.json").unlink()  # as if it had been killed
    assert run(*words).returncode == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()} == before
    cv2.imwrite(str(photographs / "n1" / "new.png"), np.zeros((30, 40, 3), np.uint8))
    assert error_of(run(*words)).endswith(
        f"of other images than {photographs} has now, or of other options; choose another --out, or delete this folder first"
    )
    assert {path.name: path.read_bytes() for path in (tmp_path / "s").iterdir()} == before


def test_the_splits_of_vggface2_are_searched_and_nothing_else(run, photographs, stand_in, tmp_path):
    root = tmp_path / "VGGFace2"
    for split, identity in (("train", "n1"), ("test", "n2"), ("other", "n3")):
        (root / split).mkdir(parents=True)
        shutil.copytree(photographs / "n1", root / split / identity)
    assert run("build-shards", "--landmarks", "auto", "--executor", "serial").returncode == 0
    assert pq.read_table(tmp_path / "shards" / "index.parquet")["key"].to_pylist() == [
        f"{identity}/{number}" for identity in ("n1", "n2") for number in range(4)
    ]


def test_where_auto_is_refused(run, photographs, stand_in, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").touch()
    folder = ("--source", "folder", "--root", photographs, "--landmarks", "auto")
    for words, code, message in [
        ((*folder, "--landmarks", "x.csv"), 2, "--landmarks auto finds all landmarks itself: leave out the tables"),
        (
            ("--source", "qmul", "--root", photographs, "--landmarks", "auto"),
            1,
            "are resized whole, not aligned; omit --landmarks",
        ),
        ((*folder, "--aligned", "arcface"), 1, "--aligned crops need no landmarks; omit --landmarks"),
        ((*folder, "--out", "full"), 1, "(it contains notes.txt); choose a new or empty --out"),
        (("--landmarks", "auto"), 1, "or run: lrfr demo-data)"),
    ]:
        assert error_of(run("build-shards", *words), code).endswith(message)
    assert stand_in == []


def test_embed_finds_the_landmarks_first(run, photographs, stand_in, tmp_path):
    save_small(tmp_path / "x.pt")
    words = ("embed", photographs / "n1", photographs / "none.png", "--network", "x.pt", "--landmarks", "auto")
    process = run(*words, "--out", "x.parquet")
    assert process.stdout == "embedded 4 of 5 images: x.parquet\n"
    rows = pq.read_table(tmp_path / "x.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["ok"] * 4 + ["unusable-image"]
    assert "no face found in the 30x30 image" in rows[4]["error_message"]
    detections = sum(one.detections for one in stand_in)
    assert detections >= 5
    assert run(*words, "--out", "y.parquet").returncode == 0
    assert sum(one.detections for one in stand_in) == detections  # from the cache
    assert run(*words, "--out", "z.parquet", "--no-cache").returncode == 0
    assert sum(one.detections for one in stand_in) == 2 * detections
    assert pq.read_table(tmp_path / "z.parquet").equals(pq.read_table(tmp_path / "x.parquet"))


@pytest.mark.parametrize("name", ["lfw", "xqlfw", "scface"])
def test_bench_finds_the_landmarks_first(run, stand_in, tmp_path, name):
    write_demo_data(tmp_path, identities=4, images=3, seed=0)
    save_small(tmp_path / "x.pt")
    process = run("bench", name, "--network", "x.pt", "--landmarks", "auto")
    assert "unusable image" in error_of(process)
    assert "no face found in the" in process.stderr  # the stand-in knows no painted faces
    (table,) = (tmp_path / "cache" / "landmarks").glob("*.parquet")
    assert f"images ({pq.read_metadata(table).num_rows} no-face): {table}" in process.stderr
