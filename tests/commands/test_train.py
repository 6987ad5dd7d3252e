"""The train command: settings, lists, fine-tuning; timing of the step."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch

from benchmarks import BENCHMARKS, read_benchmark
from commands.train import end_line, headline_metric
from model.backbones import BACKBONES, build_backbone
from model.heads import HEADS
from model.losses.terms import TERMS
from model.training.learner import Learner
from model.training.optimizers import OPTIMIZERS
from model.training.recipes import RECIPES
from model.training.schedule import SCHEDULES
from pipeline import signals
from pipeline.build import build
from pipeline.load.loader import Loader
from tests.processes import PATIENCE_S, error_of, torchrun
from tests.shard_sets import build_options

SMALL = ["--backbone", "spherenet4", "--batch-size", 4, "--steps", 1]


def test_printed_settings_are_read_back(run, tmp_path):
    printed = run("train", "--recipe", "quick", "--print-config", "--lr", 0.5)
    assert printed.returncode == 0
    assert 'backbone = "spherenet4"\n' in printed.stdout
    assert "lr = 0.5\n" in printed.stdout
    (tmp_path / "mine.toml").write_text(printed.stdout)
    again = run("train", "--config", tmp_path / "mine.toml", "--print-config")
    assert again.stdout == printed.stdout


@pytest.mark.usefixtures("narrow")
def test_an_interruption_before_the_first_step_claims_nothing(run, shard_set, monkeypatch):
    def wait(loader):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(PATIENCE_S)

    monkeypatch.setattr(signals, "WAIT_S", 0.05)
    monkeypatch.setattr(Loader, "__next__", wait)
    result = run("train", "--shards", shard_set, *SMALL)
    assert result.returncode == 130
    assert result.stderr.splitlines()[-1] == "interrupted after step 0; nothing is lost"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "known"),
    [
        ("--recipe", RECIPES),
        ("--backbone", BACKBONES),
        ("--head", HEADS),
        ("--losses", TERMS),
        ("--optimizer", OPTIMIZERS),
        ("--schedule", SCHEDULES),
    ],
)
def test_help_lists_the_choices(run, option, known, monkeypatch):
    if option == "--backbone":  # the whole table takes seconds: tests/model/backbones/test_summary.py
        known = {name: known[name] for name in ("spherenet20", "mobilefacenet", "vit_small")}
        monkeypatch.setattr("model.backbones.summary.BACKBONES", known)
    listed = run("train", option, "help")
    assert listed.returncode == 0
    for name in known:
        assert re.search(rf"^{re.escape(name)}\b", listed.stdout, re.M), name
    if option == "--recipe":
        assert "quick: a few minutes on a CPU" in listed.stdout
        assert '    backbone = "ir50"\n' in listed.stdout
    if option == "--backbone":
        assert re.search(r"^spherenet20 +spherenet +28\.44 +2\.67 ", listed.stdout, re.M)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["--recipe", "slow"], 1, "Error: recipe 'slow' is unknown; choose from seed, quick, modern"),
        (
            ["--head", "arcface:m=1"],
            1,
            "Error: head arcface has no option 'm'; it has scale, margin, form, sample, sampling, seed",
        ),
        (["--views", "8-4"], 1, "Error: views '8-4': found '8-4', expected sizes of at least 2 px, the smaller first"),
        (["--config", "none.toml"], 1, "Error: none.toml: No such file or directory; expected a TOML file"),
        (["--freeze", 1], 1, "Error: freeze is 1, but no weights are given to keep"),
        (["--from", "none.pt"], 1, "Error: none.pt: not found; expected a checkpoint file"),
        (["--window", 4], 1, "Error: window 4 is for order sequential: add --order sequential, or leave it out"),
        (["--steps", 0], 2, "Error: Invalid value for '--steps': 0 is not in the range x>=1"),
        (["--lr", 0], 2, "Error: Invalid value for '--lr': 0.0 is not in the range x>0"),
        (["--ema", 1], 2, "Error: Invalid value for '--ema': 1.0 is not in the range 0<=x<1"),
        (
            ["--precision", "fp8"],
            2,
            "Error: Invalid value for '--precision': 'fp8' is not one of 'fp32', 'bf16', 'fp16'",
        ),
        (["--eval-every", 5], 2, "Error: --eval-every is for evaluation; name benchmarks with --eval"),
        (["--best", "lfw/auc@8"], 2, "Error: --best lfw/auc@8: --eval names nothing; expected a metric of an"),
        (["--eval", ","], 2, "Error: Invalid value for '--eval': ',' names no benchmark; choose from lfw"),
    ],
)
def test_invalid_settings_are_one_line(run, words, code, says):
    assert error_of(run("train", *words), code=code).startswith(says)


@pytest.mark.usefixtures("narrow")
def test_sequential_order_resumes_within_a_window_and_does_not_become_another(run, vggface2, tmp_path):
    build(build_options(vggface2, tmp_path / "grouped", group=2, images_per_shard=8))
    words = ["train", "--shards", tmp_path / "grouped", *SMALL, "--save-every", 1, "--lr", 0.01, "--steps", 3]
    order = ["--order", "sequential", "--window", 3]
    assert run(*words, *order, "--out", "whole").returncode == 0
    again = ["--resume", tmp_path / "whole" / "checkpoints" / "0000001.pt", "--out", "resumed"]
    assert run(*words, *order, *again).returncode == 0
    resumed, whole = (torch.load(tmp_path / name / "checkpoints" / "0000003.pt") for name in ("resumed", "whole"))
    assert (whole["config"]["order"], whole["config"]["window"]) == ("sequential", 3)
    assert resumed["loader_state"] == whole["loader_state"]
    assert whole["loader_state"]["window"] == 3
    for name, weight in whole["backbone_state"].items():
        assert torch.equal(weight, resumed["backbone_state"][name])
    failed = run(*words, "--out", "resumed")
    assert error_of(failed).startswith("Error: order was sequential when this run started, now it is random; choose")


@pytest.mark.heavy
def test_sequential_order_goes_on_in_several_processes(run, vggface2, tmp_path):
    build(build_options(vggface2, tmp_path / "grouped", group=2, images_per_shard=8))
    words = ["train", "--shards", tmp_path / "grouped", *SMALL, "--save-every", 2, "--log-every", 1, "--lr", 0.01]
    words += ["--steps", 6, "--order", "sequential", "--window", 3]
    assert run(*words, "--out", tmp_path / "whole").returncode == 0
    again = ["--resume", tmp_path / "whole" / "checkpoints" / "0000002.pt", "--out", tmp_path / "resumed"]
    process = torchrun(2, "cli.py", *words, *again)
    assert process.returncode == 0, process.stderr
    resumed, whole = (torch.load(tmp_path / name / "checkpoints" / "0000006.pt") for name in ("resumed", "whole"))
    assert resumed["loader_state"] == whole["loader_state"]
    for name, weight in whole["backbone_state"].items():
        torch.testing.assert_close(weight, resumed["backbone_state"][name], rtol=1e-4, atol=1e-5)


def test_scattered_shards_are_refused_by_sequential_order(run, shard_set):
    failed = run("train", "--shards", shard_set, *SMALL, "--order", "sequential")
    assert error_of(failed).endswith("build the shards with --group 4, or leave out --order sequential")


def test_the_help_names_metrics_that_exist(run):
    """Of --best: the headline metric of every benchmark."""
    text = " ".join(run("train", "--help").stdout.partition("Options:")[2].split())
    best = text[text.index("--best") : text.index("--resume")]
    named = set(re.findall(r"[a-z-]+/[a-z0-9@]+", best)) - {"metric"}
    run("demo-data", "--identities", 4, "--images", 3)
    protocols = [read_benchmark(name, Path()) for name in BENCHMARKS]
    assert named == {headline_metric(protocol) for protocol in protocols}
    assert "such as 0.9995" in text


@pytest.mark.parametrize(("resume", "command"), [("auto", "the same command"), ("never", "without --resume never")])
def test_an_interrupted_run_says_which_command_continues_it(resume, command):
    line = end_line(Path("run"), 0, 3, 5, resume)
    assert line.startswith("interrupted after step 3; saved in run: run the same command")
    assert line.endswith(f"{command} to continue")


@pytest.mark.usefixtures("narrow")
def test_a_run_out_of_memory_says_what_to_lower(run, shard_set, monkeypatch):
    def too_much(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    monkeypatch.setattr("model.training.learner.Learner.inputs", too_much)
    failed = run("train", "--shards", shard_set, *SMALL)
    assert error_of(failed) == (
        "Error: out of GPU memory (for 20.00 GiB): lower --batch-size (4 identities with 4 images each); use fewer"
        " --views; raise --accumulate (it is 1); use --activation-checkpointing; use --precision bf16; with several"
        " processes and many identities, use --shard-head"
    )


@pytest.mark.usefixtures("narrow")
def test_a_diverged_run_goes_on_as_its_error_says(run, shard_set, tmp_path, monkeypatch):
    words = [
        "train",
        "--shards",
        shard_set,
        "--backbone",
        "spherenet4",
        "--batch-size",
        4,
        "--steps",
        3,
        "--save-every",
        1,
    ]
    real = Learner.inputs
    calls = []

    def overflowing(self, images):
        calls.append(1)
        return real(self, images) * (float("nan") if len(calls) == 2 else 1)

    monkeypatch.setattr(Learner, "inputs", overflowing)
    diverged = run(*words, "--lr", 0.01, "--out", tmp_path / "a")
    kept = tmp_path / "a" / "checkpoints" / "0000001.pt"
    advice = f"--resume {kept} --out NEW --lr 0.001"
    assert error_of(diverged) == (
        f"Error: the loss of step 2 is nan, no update was made; add {advice} (it is 0.01) to go on from step 1 with a"
        " lower rate"
    )
    branch = run(*words, *advice.replace("NEW", str(tmp_path / "b")).split())
    assert branch.returncode == 0, branch.stderr
    assert f"branches off from step 1 of {kept}; lr 0.01 -> 0.001\n" in branch.stderr
    assert branch.stderr.splitlines()[-1] == f"finished: trained 3 steps: {tmp_path}/b"


@pytest.mark.heavy
@pytest.mark.usefixtures("narrow")
def test_fine_tuning_on_unaligned_faces_keeps_the_preprocessing_of_the_network(run, tmp_path):
    run("demo-data", "--identities", 8, "--images", 3)
    run("build-shards")
    assert run("build-shards", "--source", "qmul").returncode == 0
    assert run("train", *SMALL, "--out", tmp_path / "first").returncode == 0
    first = tmp_path / "first" / "checkpoints" / "0000001.pt"
    words = ["train", "--shards", tmp_path / "shards-qmul", "--from", first, "--freeze", 2, "--out", tmp_path / "tuned"]
    words += ["--batch-size", 2, "--views", "128,8-32", "--head", "arcface", "--losses", "cross-entropy"]
    tuned = run(*words, "--steps", 2, "--eval", "qmul,lfw")
    assert tuned.returncode == 0, tuned.stderr
    config = json.loads((tmp_path / "tuned" / "config.json").read_text())
    assert (config["preprocessing"]["template"], config["trained_on"]["template"]) == ("seed", "none")
    assert (config["backbone"], config["freeze"]) == ("spherenet4", 2)
    assert run("bench", "lfw", "--network", tmp_path / "tuned" / "best.pt").returncode == 0
    first.unlink()  # a run that continues does not need it
    assert (
        f"finished: trained 3 steps: {tmp_path}/tuned" in run(*words, "--backbone", "spherenet4", "--steps", 3).stderr
    )
    torch.save(build_backbone("spherenet10").state_dict(), tmp_path / "net.pth")
    bare = run("train", "--from", tmp_path / "net.pth", "--batch-size", 4, "--steps", 1, "--out", tmp_path / "bare")
    assert bare.returncode == 0, bare.stderr
    assert json.loads((tmp_path / "bare" / "config.json").read_text())["backbone"] == "spherenet10"
