"""Several processes have the losses and weights of one; how such runs stop and fail."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest
import torch

from model.formats.checkpoint import checkpoints, read_checkpoint, save_checkpoint
from model.training.config import TrainConfig
from model.training.ranks import Ranks
from model.training.state import new_run
from tests.model.training.train_ranks import CLASSES, SPEC, run
from tests.processes import REPOSITORY, torchrun

COMMON = {"backbone": "spherenet4", "batch_size": 4, "steps": 4, "lr": 0.05, "views": "128,8", "save_every": 2}
CONFIGS = {
    "seed": {},
    "data-init": {"init": "data", "losses": "focal+octuplet"},
    "batch-norm": {
        "backbone": "mobilefacenet",
        "ema": 0.9,
        "lr": 1e-4,
    },  # with 8 images a larger rate amplifies rounding errors
    "dropout": {"backbone": "ir18", "lr": 1e-4},
    "bf16": {"backbone": "mobilefacenet", "precision": "bf16", "lr": 1e-4},
    "sharded": {"shard_head": True, "head": "adaface", "losses": "cross-entropy+hardest-triplet+center"},
    "in-parts": {"accumulate": 2, "clip_norm": 0.5, "losses": "cross-entropy+octuplet+center"},
    "in-parts-sharded": {"accumulate": 2, "clip_norm": 0.5, "shard_head": True},
    "taught": {"losses": "cross-entropy+distill:weight=3+distill:form=relational", "teacher": "a"},
    "attentive": {
        "losses": "cross-entropy+distill:form=attention,weight=9",
        "teacher": "a",
        "backbone": "mobilefacenet",
        "lr": 1e-4,
    },
    "taught-in-parts": {
        "losses": "distill:form=mse+distill:form=attention",
        "teacher": "a",
        "accumulate": 2,
        "shard_head": True,
    },
    "sampled": {"shard_head": True, "head": "arcface:sample=0.5", "optimizer": "adamw", "lr": 1e-4},
}


def prepare(folder, name, **more):
    path = folder / name
    path.mkdir(parents=True)
    (path / "settings.json").write_text(json.dumps({"config": {**COMMON, **CONFIGS[name]}, **more}))
    return path


def rows(folder):
    return [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]


def figures(folder):
    return [{name: row[name] for name in row if name not in ("images_per_s", "loader_wait")} for row in rows(folder)]


@pytest.fixture(autouse=True, scope="module")
def _narrow():
    """The networks of other processes are whole."""


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alone")
    for name in CONFIGS:
        run(prepare(folder, name), Ranks())
    return folder


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    folder = tmp_path_factory.mktemp("together")
    process = torchrun(2, "tests/model/training/train_ranks.py", *[prepare(folder, name) for name in CONFIGS])
    assert process.returncode == 0, process.stderr
    return folder


@pytest.mark.heavy
@pytest.mark.parametrize("name", sorted(set(CONFIGS) - {"bf16"}))
def test_two_processes_have_the_losses_and_weights_of_one(alone, together, name):
    ours, theirs = figures(together / name), figures(alone / name)
    assert [row["step"] for row in ours] == [1, 2, 3, 4]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, rel=1e-5, abs=1e-5)
    (mine, other) = (read_checkpoint(checkpoints(folder / name / "run")[-1]) for folder in (together, alone))
    for part in ("backbone_state", "averaged_state", "head_state", "center_state"):
        assert mine[part].keys() == other[part].keys()
        for key, value in mine[part].items():
            torch.testing.assert_close(
                value, other[part][key], rtol=1e-3, atol=1e-4, msg=lambda text, key=key: f"{key}: {text}"
            )
    assert mine["optimiser_state"]["state"].keys() == other["optimiser_state"]["state"].keys()


@pytest.mark.heavy
def test_batch_norm_in_bf16_has_the_losses_of_one_process_up_to_rounding(alone, together):
    ours, theirs = figures(together / "bf16"), figures(alone / "bf16")
    assert [row["step"] for row in ours] == [1, 2, 3, 4]
    for mine, other in zip(ours, theirs, strict=True):
        assert mine == pytest.approx(other, rel=2e-2)


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["sharded", "batch-norm"])
def test_a_run_continues_with_another_number_of_processes(alone, together, tmp_path, name):
    path = prepare(tmp_path, name)
    (path / "run" / "checkpoints").mkdir(parents=True)
    (path / "run" / "checkpoints" / "0000002.pt").write_bytes(
        (together / name / "run" / "checkpoints" / "0000002.pt").read_bytes()
    )
    assert run(path, Ranks()) == 4
    for mine, other in zip(figures(path), figures(alone / name)[2:], strict=True):
        assert mine == pytest.approx(other, rel=1e-5, abs=1e-5)


@pytest.fixture(scope="module")
def on_two_disks(tmp_path_factory):
    """What each rank starts from, by scenario; a rank's disk has a checkpoint of some number of steps, or none."""
    scenarios = {"both": (2, 2), "first": (2, None), "second": (None, 2), "different": (2, 4), "never": (2, 2)}
    folder = tmp_path_factory.mktemp("disks")
    state = new_run(TrainConfig(backbone="spherenet4", views="32,8", batch_size=4), classes=CLASSES, preprocessing=SPEC)
    for name, steps in scenarios.items():
        for rank, step in enumerate(steps):
            (folder / name / str(rank)).mkdir(parents=True)
            if step:
                content = {**state.content(step, {}), "step": step}
                save_checkpoint(folder / name / str(rank) / "run" / "checkpoints" / "0000002.pt", content)
    process = torchrun(2, "tests/model/training/resume_ranks.py", folder)
    assert process.returncode == 0, process.stderr
    return {
        name: [json.loads((folder / name / str(rank) / "result.json").read_text()) for rank in range(2)]
        for name in scenarios
    }


@pytest.mark.heavy
def test_rank_0_decides_where_all_ranks_start(on_two_disks):
    assert on_two_disks["both"] == [2, 2]
    line = "run: rank 1 has a run there, and rank 0 has none; use a run folder that all processes share"
    assert on_two_disks["second"] == [f"TrainingError: {line}"] * 2


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["first", "different"])
def test_ranks_that_see_different_checkpoints_all_stop(on_two_disks, name):
    line = "rank 0 and rank 1 do not see the same file; use a run folder that all processes share"
    assert on_two_disks[name] == [f"TrainingError: run/checkpoints/0000002.pt: {line}"] * 2


@pytest.mark.heavy
def test_an_error_of_rank_0_stops_all_ranks(on_two_disks):
    line = "run: has a run up to step 2; choose another --out, or delete it"
    assert on_two_disks["never"] == [f"TrainingError: {line}", f"RankError: rank 0 failed: {line}"]


@pytest.mark.heavy
def test_a_signal_to_any_process_stops_all_after_the_same_step(tmp_path):
    path = prepare(tmp_path, "seed", stop_at=1)
    process = torchrun(2, "tests/model/training/train_ranks.py", path)
    assert process.returncode == 0, process.stderr
    assert [path.stem for path in checkpoints(path / "run")] == ["0000002"]
    assert [row["step"] for row in rows(path)] == [1, 2]


@pytest.mark.heavy
def test_the_others_wait_for_an_evaluation_that_takes_longer_than_a_step_may(tmp_path, monkeypatch):
    monkeypatch.setenv("STEP_S", "20")
    path = prepare(tmp_path, "seed", evaluate_s=24)
    process = torchrun(2, "tests/model/training/train_ranks.py", path)
    assert process.returncode == 0, process.stderr
    assert [row["step"] for row in rows(path)] == [1, 2, 3, 4]


@pytest.mark.heavy
def test_a_process_that_hangs_ends_all(tmp_path, monkeypatch):
    monkeypatch.setenv("STEP_S", "20")
    path = prepare(tmp_path, "seed", hang_at=2)
    process = torchrun(2, "tests/model/training/train_ranks.py", path)
    assert process.returncode == 1
    assert "RankError: another rank hangs: no data from it for 20 seconds" in process.stderr
    assert [path.stem for path in checkpoints(path / "run")] == ["0000002"]


@pytest.mark.heavy
def test_a_killed_process_ends_all(tmp_path):
    path = prepare(tmp_path, "seed", kill_at=2)
    process = torchrun(2, "tests/model/training/train_ranks.py", path)  # would wait for hours
    assert process.returncode != 0
    assert [path.stem for path in checkpoints(path / "run")] == ["0000002"]


@pytest.mark.heavy
def test_the_command_trains_in_several_processes_and_a_failure_of_one_ends_all(shard_set, tmp_path):
    words = [
        "cli.py",
        "train",
        "--shards",
        shard_set,
        "--backbone",
        "spherenet4",
        "--batch-size",
        4,
        "--views",
        "128,8",
    ]
    together = torchrun(2, *words, "--steps", 2, "--out", tmp_path / "two")
    assert together.returncode == 0, together.stderr
    assert together.stderr.count(f"trained 2 steps: {tmp_path}/two") == 1
    alone = subprocess.run(
        [sys.executable, *map(str, words), "--steps", "2", "--out", str(tmp_path / "one")],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert alone.returncode == 0, alone.stderr
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("one", "two")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    for tar in shard_set.glob("*.tar"):
        data = bytearray(tar.read_bytes())
        data[600::64] = bytes(len(data[600::64]))
        tar.write_bytes(data)
    failed = torchrun(2, *words, "--steps", 50, "--out", tmp_path / "failed")
    assert failed.returncode == 1
    assert re.search(r"^Error: rank [01]: .*shard-00000\d\.tar", failed.stderr, re.M), failed.stderr
