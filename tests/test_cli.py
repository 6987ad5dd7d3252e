"""The command line as a user meets it: exit codes, exact texts, the whole chain."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys

import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from commands.build_shards import build_shards
from commands.group import CommandError
from model.backbones import BACKBONES, build_backbone
from model.formats.checkpoint import checkpoints
from model.training import loop
from pipeline.demo.generate import write_demo_data
from pipeline.executors import WorkerError
from tests.conftest import PATIENCE_S, REPOSITORY, error_of


@pytest.mark.slow
@pytest.mark.usefixtures("narrow", "no_drawings")
def test_the_whole_chain_with_bare_commands(run, tmp_path):
    """demo-data, build-shards, verify, inspect, train, bench: every path by default."""
    for _ in range(2):  # again: nothing is left to do, and it says so
        made = run("demo-data", "--identities", 12, "--images", 4)
        assert made.returncode == 0
        last = made.stderr.splitlines()[-1]
        assert last == f"done: faces of 12 people to train on, of 6 others to test on: {tmp_path}"
    built = run("build-shards", "--workers", 2)
    assert built.returncode == 0
    assert "48 images of 12 identities" in built.stderr
    assert re.search(r"build-shards: 48/48 images \[\d+:\d\d<00:00, +[\d.]+ images/s\]", built.stderr)
    sound = run("verify", "--full")
    assert (sound.returncode, sound.stdout) == (0, f"{tmp_path}/shards: valid; 48 images, 1 shard\n")
    inspected = run("inspect")
    assert "48 images of 12 identities in 1 shard, from vggface2" in inspected.stdout
    assert "rejected: 0 of 48 rows (none)" in inspected.stdout
    with Image.open(tmp_path / "shards" / "contact-sheet.png") as sheet:
        assert sheet.size == (128 * 5, 24 + 128 * 10)
    trained = run("train", "--backbone", "spherenet4", "--batch-size", 4, "--steps", 3, "--init", "data", "--lr", 0.01)
    assert trained.returncode == 0
    lines = trained.stderr.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("step ")] == ["1/3", "2/3", "3/3"]
    assert re.fullmatch(
        r"spherenet4, \d+\.\d M parameters, fp32 on cpu; 48 images of 12 identities;"
        r" steps 1 to 3 of 4 identities at 128,8,12,16 px, 1 epoch",
        lines[0],
    )
    assert re.search(r"lr 0\.01  \d+ images/s  loader wait [\d.]+%  ETA 0:\d\d:\d\d", lines[1])
    assert lines[-1] == f"finished: trained 3 steps: {tmp_path}/runs/spherenet4"
    scored = run("bench", "qmul", "--json", tmp_path / "q.json", "--report", tmp_path / "report")
    assert scored.returncode == 0
    assert "spherenet4, step 3" in scored.stdout
    assert scored.stdout.splitlines()[-1] == f"report: {tmp_path}/report/report.html"
    result = json.loads((tmp_path / "q.json").read_text())
    assert 0 <= result["metrics"]["auc"] <= 1
    assert result["checkpoint"]["path"] == f"{tmp_path}/runs/spherenet4/checkpoints/0000003.pt"
    # a second time there is nothing to do, and nothing is done
    assert "already complete, nothing to do" in run("build-shards").stderr
    before = written(tmp_path / "runs")
    again = run("train", "--backbone", "spherenet4", "--batch-size", 4, "--steps", 3, "--init", "data", "--lr", 0.01)
    assert (again.returncode, again.stderr) == (
        0,
        f"nothing to do: {tmp_path}/runs/spherenet4 has finished, with 3 steps; a higher --steps continues it\n",
    )
    assert written(tmp_path / "runs") == before


def written(folder):
    """What is written into a folder changes."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}


@pytest.mark.slow
@pytest.mark.usefixtures("narrow")
def test_training_scores_benchmarks_and_keeps_the_best(run, shard_set, tmp_path):
    run("demo-data", "--identities", 4, "--images", 3)
    words = ["train", "--shards", shard_set, "--out", tmp_path / "run", "--backbone", "spherenet4", "--batch-size", 4]
    words += ["--steps", 2, "--eval", "qmul, lfw", "--eval-every", 1]
    trained = run(*words)
    assert trained.returncode == 0, trained.stderr
    lines = [line for line in trained.stderr.splitlines() if line.startswith("eval at step")]
    assert [line.split(":")[0] for line in lines] == [f"eval at step {step}" for step in (0, 1, 2)]
    rows = [json.loads(line) for line in (tmp_path / "run" / "eval.jsonl").read_text().splitlines()]
    assert {"qmul/auc", "qmul/tar@far=0.1", "lfw/accuracy@8", "lfw/lr-lr/auc@12"} <= set(rows[0])
    best = json.loads((tmp_path / "run" / "best.json").read_text())
    assert best["metric"] == "qmul/auc"
    assert best["value"] == max(rows[1]["qmul/auc"], rows[2]["qmul/auc"])
    before = written(tmp_path / "run")
    assert run(*words).stderr.startswith(f"nothing to do: {tmp_path}/run has finished, with 2 steps")
    assert written(tmp_path / "run") == before
    scored = run("bench", "qmul", "--network", tmp_path / "run" / "best.pt", "--json", tmp_path / "q.json")
    assert scored.returncode == 0
    assert json.loads((tmp_path / "q.json").read_text())["metrics"]["auc"] == pytest.approx(best["value"], abs=1e-6)


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


@pytest.mark.slow
@pytest.mark.usefixtures("narrow")
def test_every_benchmark_at_once_tells_what_is_not_there_and_compares(run, tmp_path):
    run("demo-data", "--identities", 8, "--images", 3)
    torch.save(build_backbone("spherenet4").state_dict(), tmp_path / "a.pth")
    torch.save(build_backbone("spherenet10").state_dict(), tmp_path / "b.pth")
    (tmp_path / "TinyFace").rename(tmp_path / "elsewhere")
    (tmp_path / "XQLFW" / "xqlfw_pairs.txt").unlink()
    failed = run("bench", "all", "--network", tmp_path / "a.pth", "--json", tmp_path / "a.json")
    assert error_of(failed) == "Error: 1 of 6 benchmarks could not be scored, see above"
    assert (
        f"tinyface: not found: {tmp_path}/TinyFace: no Testing_Set in it; expected TinyFace's test set" in failed.stderr
    )
    assert "xqlfw: not scored: xqlfw_pairs.txt: not found in" in failed.stderr
    assert failed.stderr.count("Error:") == 1
    found = json.loads((tmp_path / "a.json").read_text())["results"]
    assert [result["benchmark"] for result in found] == ["lfw", "scface", "qmul", "qmul-id"]
    (tmp_path / "XQLFW").rename(tmp_path / "XQLFW.old")
    assert run("bench", "all", "--network", tmp_path / "b.pth", "--json", tmp_path / "b.json").returncode == 0
    compared = run("bench", "compare", tmp_path / "a.json", tmp_path / "b.json")
    assert compared.returncode == 0
    assert len(re.findall(r"^AUC .* [+-]\d+\.\d\d", compared.stdout, re.M)) == 2
    assert re.search(r" [+-]\d+\.\d\d \[[+-]\d+\.\d, [+-]\d+\.\d\]", compared.stdout)  # not all have no width
    assert f"B: spherenet10, {tmp_path}/b.json" in compared.stdout


@pytest.mark.slow
@pytest.mark.usefixtures("narrow")
def test_images_that_do_not_decode_are_listed_and_left_out_only_on_demand(run, tmp_path):
    run("demo-data", "--identities", 4, "--images", 3)
    torch.save(build_backbone("spherenet4").state_dict(), tmp_path / "a.pth")
    image = next((tmp_path / "QMUL-SurvFace" / "Face_Verification_Test_Set" / "verification_images").iterdir())
    image.write_bytes(image.read_bytes()[:200])
    words = ["bench", "qmul", "--network", tmp_path / "a.pth", "--json", tmp_path / "q.json"]
    failed = run(*words)
    assert f"{image}: damaged JPEG" in failed.stderr
    assert error_of(failed) == (
        "Error: bench qmul: 1 unusable image, listed above; restore the images from the data set's archive;"
        " or pass --allow-missing to score without them"
    )
    assert not (tmp_path / "q.json").exists()
    partial = run(*words, "--allow-missing")
    assert partial.returncode == 0
    assert "spherenet4 (partial)" in partial.stdout
    assert json.loads((tmp_path / "q.json").read_text())["partial"] is True


@pytest.mark.slow
def test_the_reference_s_bare_state_dict_is_scored_and_its_spec_assumed(run, tmp_path):
    run("demo-data", "--identities", 4, "--images", 3)
    torch.save({f"module.{k}": v for k, v in build_backbone("spherenet4").state_dict().items()}, tmp_path / "net.pth")
    scored = run("bench", "qmul", "--network", tmp_path / "net.pth")
    assert scored.returncode == 0
    assert (
        f"{tmp_path}/net.pth: states no preprocessing; assumed: template seed, 128 px, RGB, (x / 255 - 0.5) / 0.5;"
        " --preprocessing names another one\n"
    ) in scored.stderr
    assert scored.stdout.splitlines()[2].startswith("spherenet4  ")


@pytest.mark.usefixtures("narrow")
def test_interrupted_training_saves_and_continues(shard_set, tmp_path, run, interrupted):
    words = ["train", "--shards", shard_set, "--out", tmp_path / "run", "--backbone", "spherenet4:pooling=true"]
    words += ["--views", "16,8", "--batch-size", 4, "--steps", 100]
    line = interrupted(loop, "_check_batch", 1, words)
    (saved,) = checkpoints(tmp_path / "run")
    step = int(saved.stem)
    assert line == f"interrupted after step {step}; saved in {tmp_path}/run: run the same command to continue"
    assert step < 100
    assert f"trained {step + 1} steps" in run(*words[:-1], step + 1).stderr


@pytest.mark.heavy
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_training_interrupted_by_a_signal_saves_exits_130_and_continues(shard_set, tmp_path, run, number):
    words = [
        "train",
        "--shards",
        str(shard_set),
        "--out",
        str(tmp_path / "run"),
        "--backbone",
        "spherenet4:pooling=true",
    ]
    words += ["--views", "16,8", "--batch-size", "4", "--log-every", "1", "--steps", "100000"]
    environment = {**os.environ, "LRFR_DATA": str(tmp_path)}
    process = subprocess.Popen(
        [sys.executable, "cli.py", *words], cwd=REPOSITORY, env=environment, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert process.stderr.readline().startswith("spherenet4:pooling=true, 1.8 M parameters, fp32 on ")
    assert process.stderr.readline().startswith("step 1/100000")
    process.send_signal(number)
    rest = process.stderr.read().splitlines()
    assert process.wait(PATIENCE_S) == 130
    (saved,) = checkpoints(tmp_path / "run")
    step = int(saved.stem)
    saved_in = f"saved in {tmp_path}/run: run the same command to continue"
    assert rest[-1] == f"interrupted after step {step}; {saved_in}"
    words[-1] = str(step + 1)
    assert f"trained {step + 1} steps" in run(*words).stderr


BUILD_THAT_WAITS = """
import time
import cli
from pipeline.progress import Progress

def wait(progress, images):
    print("a shard is finished", flush=True)
    time.sleep(3600)

Progress.update = wait
cli.main()
"""


@pytest.mark.slow
def test_an_interrupted_build_exits_130_and_goes_on(run, tmp_path):
    write_demo_data(tmp_path, identities=4, images=2, seed=0, layouts=["VGGFace2"])
    words = ["build-shards", "--images-per-shard", "1", "--workers", "1"]
    environment = {**os.environ, "LRFR_DATA": str(tmp_path)}
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", BUILD_THAT_WAITS, *words]
    process = subprocess.Popen(command, cwd=REPOSITORY, env=environment, **streams)
    assert process.stdout.readline() == "a shard is finished\n"
    process.send_signal(signal.SIGINT)
    message = process.communicate(timeout=PATIENCE_S)[1].splitlines()[-1]
    assert message == "interrupted; finished shards are kept: run the same command to continue"
    assert process.returncode == 130
    assert list(tmp_path.glob("shards/*.done.json"))
    assert run(*words).returncode == 0
    assert run("verify", "--full").returncode == 0


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


INTERRUPTED_IMPORT = """
import os, signal, sys
import cli

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == "{module}":
            try:
                os.kill(os.getpid(), signal.{signal})
            except BaseException:
                pass

sys.meta_path.insert(0, Finder())
cli.main()
"""


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
@pytest.mark.parametrize("module", ["pyarrow.parquet", "numpy.linalg", "cv2"])
def test_a_signal_during_imports_ends_the_command(vggface2, tmp_path, module, name):
    """Extension modules swallow exceptions while they are imported."""
    code = INTERRUPTED_IMPORT.format(module=module, signal=name)
    command = [sys.executable, "-c", code, "build-shards", "--root", str(vggface2), "--out", str(tmp_path / "out")]
    process = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, timeout=PATIENCE_S)
    assert (process.returncode, process.stdout, process.stderr) == (130, "", "interrupted\n")
    assert not (tmp_path / "out").exists()


def test_usage_errors_exit_2(run):
    assert run("train", "--steps", "many").returncode == 2
    assert run("train", "--lr", "0").returncode == 2
    assert run("nonsense").returncode == 2
    assert run("build-shards", "--template", "mine").returncode == 2


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


def test_training_sets_without_landmarks_have_folders_of_their_own(run, tmp_path):
    """The defaults of --root and --out go by --source; what does not apply is refused."""
    write_demo_data(tmp_path, identities=4, images=2, seed=0, layouts=["QMUL-SurvFace"])
    built = run("build-shards", "--source", "qmul", "--workers", 1)
    assert built.returncode == 0, built.stderr
    assert f"done: 4 images of 2 identities in 1 shard at {tmp_path}/shards-qmul\n" in built.stderr
    inspected = run("inspect", tmp_path / "shards-qmul")
    assert "crops: 128 px, not aligned, " in inspected.stdout
    assert error_of(run("build-shards", "--source", "tinyface")) == (
        f"Error: {tmp_path}/TinyFace: no Training_Set in it; expected TinyFace's training set, Training_Set/<ID>/<image>.jpg"
        " (give its folder with --root, or run: lrfr demo-data)"
    )
    assert error_of(run("build-shards", "--source", "qmul", "--landmarks", "x.csv")) == (
        "Error: --source qmul: its images are resized whole, not aligned; omit --landmarks"
    )
    assert error_of(
        run("build-shards", "--source", "folder", "--root", tmp_path / "QMUL-SurvFace" / "training_set")
    ) == (
        f"Error: {tmp_path}/QMUL-SurvFace/training_set: no landmark file; expected landmarks.csv, or name one with --landmarks,"
        " or find them: --landmarks auto"
        " (aligned crops need none: --aligned says which template they follow)"
    )
    explained = " ".join(run("build-shards", "--help").stdout.split()).replace("- ", "-")  # a line may end in a name
    assert "[default: by --source, such as $LRFR_DATA/VGGFace2]" in explained
    assert "[default: by --source, such as $LRFR_DATA/shards]" in explained


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
