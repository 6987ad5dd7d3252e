"""Commands one after another, as a user types them."""

from __future__ import annotations

import json
import re

import pytest
import torch
from PIL import Image

from model.backbones import build_backbone
from pipeline.demo.generate import write_demo_data
from tests.processes import error_of


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
