"""A user's own benchmarks in TOML files, for commands that name benchmarks."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pytest

from benchmarks import read_benchmark
from benchmarks.datasets.identify import read_identification
from benchmarks.datasets.own_benchmark import read_own_benchmark
from benchmarks.datasets.pair_set import read_pair_set
from benchmarks.errors import ProtocolError
from tests.processes import error_of


@pytest.fixture
def folder(vggface2, tmp_path):
    """A gallery, probes, strangers and pairs of generated people; the image files are links."""
    root, pairs = tmp_path / "own", []
    for number, source in enumerate(sorted((vggface2 / "train").iterdir())):
        shots = sorted(source.iterdir())
        for image, shot in enumerate(shots):
            role = "strangers" if number > 5 else "known" if image < 2 else "found"
            path = root / role / source.name / shot.name
            path.parent.mkdir(parents=True, exist_ok=True)
            os.symlink(shot, path)
        if number < 6:
            after = f"known/n{(number + 1) % 6 + 1:06d}"
            pairs += [f"known/{source.name}/{shots[0].name},found/{source.name}/{shot.name},1" for shot in shots[2:]]
            pairs += [f"{after}/{shots[0].name},found/{source.name}/{shot.name},0" for shot in shots[2:]]
    (root / "pairs.csv").write_text("\n".join(pairs) + "\n")
    os.symlink(vggface2 / "bb_landmark" / "loose_landmark_train.csv", root / "points.csv")
    return root


PAIRS = 'pairs = "pairs.csv"\nlandmarks = "points.csv"\n'
IDENTIFY = 'gallery = "known"\nprobes = "found"\nunmated = "strangers"\nlandmarks = ["points.csv"]\nname = "hall"\n'


def test_a_file_has_the_options_of_the_commands(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    (folder / "mine.toml").write_text(f"{PAIRS}sizes = [8]\n")
    (folder / "id.toml").write_text(IDENTIFY)
    stated = [read_benchmark(f"own/{name}.toml", "nowhere") for name in ("mine", "id")]
    table = {"landmarks": [folder / "points.csv"]}
    given = [
        read_pair_set(folder / "pairs.csv", root=folder, sizes=(8,), **table),
        read_identification(folder / "known", folder / "found", folder / "strangers", **table),
    ]
    assert [protocol.name for protocol in stated] == ["mine", "hall"]
    for one, other in zip(stated, given, strict=True):
        np.testing.assert_array_equal(one.digests, other.digests)
        assert one.source == other.source
        assert (one.main, one.notes, one.alignment_stated) == (other.main, other.notes, True)
    assert list(stated[0].members) == ["{}@8", "{}@full", "lr-lr/{}@8"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "states nothing; expected pairs (and root), or gallery and probes"),
        ("pairs = 5", "pairs is not text"),
        ('pairs = ""', "pairs is not text"),
        ('pairs = "a.csv"\nhead = 3', "head: unknown"),
        ('pairs = "a.csv"\ngallery = "b"', "states gallery, pairs;"),
        ('gallery = "b"\naligned = "none"', "states gallery;"),
        ('pairs = "a.csv"', "states neither or both of landmarks (tables) and aligned"),
        ('pairs = "a.csv"\naligned = "seed"\nlandmarks = "x"', "states neither or both"),
        ('pairs = "a.csv"\nlandmarks = "auto"', "landmarks is auto: find them once, by the command landmarks"),
        ('pairs = "a.csv"\nlandmarks = [5]', "landmarks is not a list of tables"),
        ('pairs = "a.bin"\nsizes = 8', "sizes is not a list of px"),
        ('pairs = "a.bin"\nsizes = [8.5]', "sizes is not a list of px"),
        ('pairs = "a.bin"\nname = "lfw"', "the name 'lfw' is a benchmark of this tool; choose another one: name ="),
        ('pairs = "a.bin"\nname = "a/b"', "the name 'a/b' has other characters than letters and digits"),
        ("pairs = ", "Invalid value"),
        ("#" * 20000, "more than 16384 bytes"),
    ],
)
def test_a_file_that_describes_no_benchmark_is_one_line(tmp_path, text, message):
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(ProtocolError, match=f"^{re.escape(f'{tmp_path}/x.toml: {message}')}"):
        read_own_benchmark(tmp_path / "x.toml")


@pytest.mark.usefixtures("narrow")
def test_training_evaluates_own_benchmarks_and_keeps_the_best(run, folder, shard_set, tmp_path):
    (folder / "peer.toml").write_text(f"{PAIRS}sizes = [8]\n")
    (folder / "id.toml").write_text(f"{IDENTIFY}sizes = []\n")
    words = [
        "train",
        "--shards",
        shard_set,
        "--out",
        "run",
        "--backbone",
        "spherenet4",
        "--batch-size",
        2,
        "--views",
        "16",
    ]
    words += ["--eval", "own/peer.toml,own/id.toml", "--eval-every", 1]
    done = run(*words, "--steps", 1)
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "run" / "config.json").read_text())["best"] == "peer/accuracy@8"
    assert run(*words, "--steps", 2, "--best", "hall/rank1@full").returncode == 0
    rows = [json.loads(line) for line in (tmp_path / "run" / "eval.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2]
    for row in rows:
        assert {"peer/accuracy@8", "peer/auc@full", "peer/lr-lr/auc@8", "hall/rank1@full", "hall/map@full"} <= set(row)
        assert "hall/open/tpir1@fpir=0.2@full" in row
    assert json.loads((tmp_path / "run" / "best.json").read_text())["metric"] == "hall/rank1@full"


@pytest.mark.usefixtures("narrow")
def test_a_benchmark_that_cannot_be_read_ends_the_command_before_training(run, folder, shard_set, tmp_path):
    words = ["train", "--shards", shard_set, "--out", tmp_path / "run", "--backbone", "spherenet4", "--batch-size", 2]
    assert error_of(run(*words, "--eval", "none.toml")) == (
        "Error: none.toml: No such file or directory; expected a TOML file that describes a benchmark"
    )
    (folder / "mine.toml").write_text(PAIRS)
    (tmp_path / "mine.toml").write_text('pairs = "own/pairs.csv"\naligned = "none"')
    line = error_of(run(*words, "--eval", "own/mine.toml,mine.toml"), code=2)
    assert line == "Error: --eval: two benchmarks are called mine; give one of them another name = ... in its file"
    line = error_of(run(*words, "--eval", "own/mine.toml", "--best", "hall/auc"), code=2)
    assert line.startswith("Error: --best hall/auc: --eval names mine; expected a metric of an evaluated benchmark")
    (folder / "found" / "n000003" / "0003_01.jpg").unlink()
    failed = run(*words, "--eval", "own/mine.toml", "--steps", 1)
    assert error_of(failed).startswith("Error: bench mine: 1 unusable image, listed above")
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_the_images_of_an_own_benchmark_are_found_in_a_training_set(run, folder, shard_set, tmp_path):
    from tests.networks import save_small

    save_small(tmp_path / "x.pt")
    (folder / "id.toml").write_text(IDENTIFY)
    done = run("audit", shard_set, "--network", tmp_path / "x.pt", "--out", "found", "--against", "own/id.toml")
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if line.startswith("hall: ")]
    line = error_of(run("audit", shard_set, "--out", "found", "--against", "lwf"), code=2)
    assert line.startswith("Error: Invalid value for '--against': 'lwf' is not a benchmark; choose from lfw, xqlfw")
