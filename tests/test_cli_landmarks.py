"""The command landmarks: what it prints, what it refuses. The networks are a stand-in."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from pipeline.landmarks.chunk import LandmarkOptions
from tests.conftest import error_of
from tests.pipeline.landmarks.stand_in import StandIn, scene


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
    monkeypatch.setattr(
        "pipeline.landmarks.chunk.LandmarkOptions", lambda **options: LandmarkOptions(**options, open_networks=StandIn)
    )


def test_landmarks_prints_what_it_found(run, photographs, stand_in, tmp_path):
    words = ("landmarks", photographs, "--out", "x.parquet", "--csv", "x.csv", "--workers", 1)
    process = run(*words)
    assert process.stdout == "landmarks of 4 of 5 images: x.parquet\n"
    lines = process.stderr.splitlines()
    assert lines[:2] == [
        f"ignored 1 hidden or system entry ({photographs}/.hidden)",
        f"ignored 1 repeated path ({photographs}/n1)",
    ]
    assert lines[-1] == "without landmarks: 1 no-face; see the columns status and reason"
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
            f"--csv {tmp_path}/x: --out names the same file; choose two",
        ),
        ((photographs, "--out", "x", "--choose", "best"), 2, "is not one of 'largest', 'central', 'highest-score'."),
        (
            (photographs, "--out", "x"),
            1,
            f"{tmp_path}/models/face_landmarker.task: no landmark model; run: lrfr fetch landmarker, or give"
            " --model PATH",
        ),
    ]:
        assert error_of(run("landmarks", *words), code).endswith(message)


def test_litert_that_is_not_installed_is_named(monkeypatch):
    from pipeline.landmarks.model import LandmarkerError
    from pipeline.landmarks.networks import import_litert
    from tests.conftest import REPOSITORY

    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    monkeypatch.delitem(sys.modules, "ai_edge_litert.interpreter", raising=False)
    with pytest.raises(LandmarkerError) as error:
        import_litert()
    assert str(error.value) == f"ai_edge_litert is not installed; run: pip install --editable '{REPOSITORY}[landmarks]'"
