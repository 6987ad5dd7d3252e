"""Networks of other projects in the commands: scored, embedded, fine-tuned, exported."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
import torch

from tests.model.formats.foreign.golden import golden
from tests.processes import error_of


@pytest.mark.heavy
def test_a_network_of_another_project_is_scored_fine_tuned_and_exported(run, tmp_path):
    run("demo-data", "--identities", 8, "--images", 3)
    built = run("build-shards", "--template", "arcface", "--size", 112, "--out", tmp_path / "shards-112")
    assert built.returncode == 0, built.stderr
    state, _, _ = golden("adaface-ir18")
    torch.save({"state_dict": {**state, "head.kernel": torch.zeros(512, 9)}, "epoch": 25}, tmp_path / "ada.ckpt")
    scored = run("bench", "lfw", "--network", tmp_path / "ada.ckpt", "--json", tmp_path / "lfw.json")
    assert scored.returncode == 0, scored.stderr
    assert (
        f"{tmp_path}/ada.ckpt: AdaFace IR-18, read as ir18:origin=adaface; took state_dict: model.*, without epoch,"
        " head.kernel\n"
    ) in scored.stderr
    assert "states no preprocessing; assumed: template arcface, 112 px, BGR" in scored.stderr
    assert json.loads((tmp_path / "lfw.json").read_text())["checkpoint"]["backbone"] == "ir18:origin=adaface"
    words = ["train", "--from", tmp_path / "ada.ckpt", "--batch-size", 2, "--steps", 1, "--views", "112,8-32"]
    tuned = run(*words, "--shards", tmp_path / "shards-112", "--out", tmp_path / "tuned")
    assert tuned.returncode == 0, tuned.stderr
    config = json.loads((tmp_path / "tuned" / "config.json").read_text())
    assert (config["backbone"], config["preprocessing"]["color"]) == ("ir18:origin=adaface", "BGR")
    run("build-shards")
    wrong = run(*words, "--shards", tmp_path / "shards", "--out", tmp_path / "wrong")
    assert "size: checkpoint 112, shards 128" in error_of(wrong)
    checkpoint = tmp_path / "tuned" / "checkpoints" / "0000001.pt"
    embedded = run("embed", "LFW", "--network", checkpoint, "--out", tmp_path / "x.parquet")
    assert embedded.returncode == 0, embedded.stderr
    assert pq.read_table(tmp_path / "x.parquet").num_rows > 10
    exported = run("export", "onnx", "--network", tmp_path / "ada.ckpt", "--out", tmp_path / "x.onnx", "--preprocess")
    assert exported.returncode == 0, exported.stderr
    again = run("bench", "lfw", "--network", tmp_path / "x.onnx", "--json", tmp_path / "onnx.json")
    assert again.returncode == 0, again.stderr
    metrics = [json.loads((tmp_path / name).read_text())["metrics"] for name in ("lfw.json", "onnx.json")]
    assert metrics[0] == pytest.approx(metrics[1], abs=0.01)
