"""Failures that a user can cause are one line, and have an exit code."""

from __future__ import annotations

import pytest
from click.testing import CliRunner

from commands.build_shards import build_shards
from commands.group import CommandError
from model.backbones import BACKBONES
from pipeline.demo.generate import write_demo_data
from pipeline.executors import WorkerError
from tests.processes import error_of


@pytest.mark.usefixtures("narrow")
def test_an_impossible_evaluation_is_an_error_before_training(run, shard_set, tmp_path):
    words = ["train", "--shards", shard_set, "--out", tmp_path / "run", "--backbone", "spherenet4", "--batch-size", 4]
    assert error_of(run(*words, "--eval", "lwf"), code=2) == (
        "Error: Invalid value for '--eval': 'lwf' is not a benchmark; choose from lfw, xqlfw, scface, qmul, qmul-id, tinyface,"
        " or a TOML file"
    )
    assert error_of(run(*words, "--eval", "lfw")) == (
        f"Error: {tmp_path}/LFW: no lfw in it; expected LFW's images, lfw/<Name>/<Name>_0001.jpg"
        " (name its folder, or run: lrfr demo-data)"
    )
    run("demo-data", "--identities", 4, "--images", 3)
    for less_is_better in ("qmul/eer", "qmul/std"):
        assert error_of(run(*words, "--eval", "qmul", "--best", less_is_better)) == (
            f"Error: best is '{less_is_better}', expected one of qmul/tar@far=0.3, qmul/tar@far=0.1, qmul/tar@far=0.01,"
            " qmul/tar@far=0.001, qmul/accuracy, qmul/auc"
        )
    image = next((tmp_path / "QMUL-SurvFace" / "Face_Verification_Test_Set" / "verification_images").iterdir())
    image.write_bytes(b"")
    failed = run(*words, "--eval", "qmul")
    assert f"{image}: empty file" in failed.stderr
    assert error_of(failed).startswith("Error: bench qmul: 1 unusable image")
    assert not (tmp_path / "run" / "checkpoints").exists()


def test_expected_failures_are_one_line(run, tmp_path, shard_set):
    assert error_of(run("build-shards")) == (
        f"Error: {tmp_path}/VGGFace2: not a folder; --root names the folder with the images (or run: lrfr demo-data)"
    )
    assert error_of(run("train", "--shards", tmp_path / "none")) == (
        f"Error: {tmp_path}/none/manifest.json: not found; {tmp_path}/none is not a shard set; run: lrfr build-shards"
    )
    assert error_of(run("train", "--shards", shard_set)) == (
        "Error: batch size 128 is larger than the number of identities, 9; lower --batch-size"
    )
    assert error_of(run("train", "--shards", shard_set, "--backbone", "vgg")) == (
        f"Error: backbone 'vgg' is unknown; choose from {', '.join(BACKBONES)}"
    )
    assert error_of(run("bench", "qmul")) == (
        f"Error: {tmp_path}/runs: no run with a checkpoint; run: lrfr train, or name a file with --network"
    )
    assert error_of(run("bench", "qmul", "--network", "none.pt")) == (
        "Error: none.pt: not found; expected a checkpoint file"
    )


def test_verify_names_what_is_wrong_and_exits_1(run, shard_set):
    (shard_set / "shard-000001.tar").unlink()
    process = run("verify", shard_set)
    assert (
        error_of(process) == f"Error: {shard_set}: 1 problem; restore the files, or delete the folder and build again"
    )
    assert process.stdout == f"{shard_set}/shard-000001.tar: missing\n"
    (shard_set / "shard-000001.tar").mkdir()
    assert run("verify", shard_set).stdout == f"{shard_set}/shard-000001.tar: not a regular file\n"


def test_usage_errors_exit_2(run):
    assert run("train", "--steps", "many").returncode == 2
    assert run("train", "--lr", "0").returncode == 2
    assert run("nonsense").returncode == 2
    assert run("build-shards", "--template", "mine").returncode == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["doctor", "--preprocessing", "seed"], "--preprocessing is for --network; name a network, or leave it out"),
        (
            ["audit", "--root", ".", "--out", "x"],
            "--root is for the data sets of --against; name benchmarks, or leave it out",
        ),
        (
            ["build-shards", "--executor", "serial", "--workers", 2],
            "--executor serial builds in one process; leave out --workers, or --executor",
        ),
    ],
)
def test_options_that_would_do_nothing_are_refused(run, words, says):
    assert error_of(run(*words), code=2) == f"Error: {says}"


def test_demo_data_never_overwrites_a_user_s_files(run, tmp_path):
    (tmp_path / "VGGFace2").mkdir()
    (tmp_path / "VGGFace2" / "mine.jpg").write_text("precious")
    assert error_of(run("demo-data", "--identities", 2, "--images", 2)) == (
        f"Error: {tmp_path}/VGGFace2: exists and is not generated data; choose another --out, or delete it"
    )
    assert (tmp_path / "VGGFace2" / "mine.jpg").read_text() == "precious"


def test_a_folder_that_cannot_be_written_is_one_line(shard_set, run):
    process = run("inspect", shard_set, "--out", "/proc/none/sheet.png")
    assert error_of(process, code=2).startswith("Error: Invalid value for '--out': /proc/none/sheet.png")


@pytest.mark.no_gpu
def test_a_gpu_that_is_not_there_is_one_line(shard_set, run):
    assert error_of(run("train", "--shards", shard_set, "--backbone", "spherenet4", "--device", "cuda")) == (
        "Error: --device cuda: PyTorch finds no GPU; use --device cpu, or install a CUDA build of PyTorch"
    )


def test_a_missing_landmark_file_names_the_alternatives(run, tmp_path):
    (tmp_path / "VGGFace2" / "train").mkdir(parents=True)
    assert error_of(run("build-shards")) == (
        f"Error: {tmp_path}/VGGFace2: no landmark file; expected bb_landmark/loose_landmark_train_test_remove_lfw_megaface.csv"
        " or bb_landmark/loose_landmark_train.csv + bb_landmark/loose_landmark_test.csv, or name one with --landmarks, or find them:"
        " --landmarks auto"
    )


def test_a_build_whose_worker_died_says_how_to_go_on(tmp_path, monkeypatch):
    def build(options):
        raise WorkerError("a worker process died (out of memory?)")

    write_demo_data(tmp_path, identities=2, images=2, seed=0, layouts=["VGGFace2"])
    monkeypatch.setattr("pipeline.build.build", build)
    words = ["--root", str(tmp_path / "VGGFace2"), "--out", str(tmp_path / "out")]
    error = CliRunner().invoke(build_shards, words).exception
    assert isinstance(error, CommandError)
    assert str(error) == (
        "a worker process died (out of memory?); finished shards are kept: run the same command to continue"
    )
