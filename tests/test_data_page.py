"""docs/data.md: its commands run one after another, and print what the page shows."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.landmarks.model import FILE_NAME, FOLDER
from pipeline.sources.catalog import SOURCES
from pipeline.tables.landmark_reader import read_landmarks
from tests.processes import PATIENCE_S, REPOSITORY

PAGE = REPOSITORY / "docs" / "data.md"
LANDMARKER = os.environ.get("LRFR_LANDMARKER")  # the model; without it, landmarks that come with the faces stand in
PROGRESS = re.compile(r"[\w -]+: [\d,]+(/[\d,]+)? \w+ \[")
ANYTHING = "..."


def steps():
    """Yields each command of the page, and the lines that it prints there."""
    blocks = re.findall(r"```console\n(.*?)```", PAGE.read_text(), re.S)
    for block in blocks:
        for step in re.split(r"^\$ ", block, flags=re.M)[1:]:
            command, *lines = step.splitlines()
            yield command, lines


def without_figures(line):
    """The line with numbers replaced, and without bars: they depend on the machine."""
    return re.sub(r"[-+]?\d+(?:[.,:]\d+)*", "N", re.sub(r" +", " ", line.rstrip("#"))).strip()


def matches(shown, printed):
    patterns = (re.escape(without_figures(line)) + "\n" for line in shown)
    pattern = "".join(patterns).replace(re.escape(ANYTHING) + "\n", ".*")
    return re.fullmatch(pattern, "".join(f"{without_figures(line)}\n" for line in printed), re.S)


def write_given_landmarks(folder):
    given = read_landmarks(folder / "data" / "VGGFace2" / "bb_landmark" / "loose_landmark_train.csv")
    landmarks = dict(zip(given.keys.to_pylist(), given.points.tolist(), strict=True))
    landmarks["n000002/0007_01"] = landmarks["n000001/0001_01"]  # the copy
    table = pa.table({"key": list(landmarks), "landmarks": list(landmarks.values())})
    pq.write_table(table, folder / "faces.parquet")


def test_shown_lines_are_compared():
    assert matches(["loss 0.5", "done"], ["loss 0.25", "done"])
    assert matches(["a", "...", "z"], ["a", "b", "c", "z"])
    assert matches(["step 1 ...", "z"], ["step 2 b", "z"])
    assert not matches(["done"], ["done", "a warning"])
    assert not matches(["done"], [])


@pytest.mark.heavy
def test_every_command_prints_what_the_page_shows(tmp_path):
    environment = {**os.environ, "LRFR_DATA": "data", "PYTHONUNBUFFERED": "1", "COLUMNS": "120"}
    environment.pop("LRFR_MIRROR", None)
    if LANDMARKER:
        (tmp_path / "data" / FOLDER).mkdir(parents=True)
        shutil.copy(LANDMARKER, tmp_path / "data" / FOLDER / FILE_NAME)
    tried = []
    for command, shown in steps():
        words = shlex.split(command)
        tried.append(words[2] if words[0] == "python" else words[0])
        if tried[-1] in ("fetch", "landmarks") and not LANDMARKER:
            write_given_landmarks(tmp_path)
            continue
        if words[0] == "python":
            words[:2] = [sys.executable, str(REPOSITORY / "cli.py")]
        process = subprocess.run(
            shlex.join(words) if words[0] == sys.executable else command,
            shell=True,
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE_S,
        )
        assert process.returncode == 0, process.stdout
        printed = [line for line in process.stdout.splitlines() if not PROGRESS.match(line)]
        assert matches(shown, printed), f"$ {command}\n{process.stdout}"
    assert {"landmarks", "build-shards", "verify", "inspect", "train", "audit", "bench"} <= set(tried)


def test_the_page_names_every_source():
    text = PAGE.read_text()
    assert [name for name in SOURCES if f"--source {name}" not in text and f"`{name}`" not in text] == []
