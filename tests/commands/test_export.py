"""The commands export and embed: exit codes, exact texts, one network in every format."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import onnxruntime
import pyarrow.parquet as pq
import pytest

from model.formats.network import load_network
from pipeline.demo.generate import write_demo_data
from tests.networks import save_small
from tests.processes import error_of

PARITY = r"ONNX Runtime against PyTorch, batch (\d+): largest difference \d\.\de-\d\d, lowest cosine 1\.000000\d"


@pytest.fixture(scope="session")
def qmul(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    write_demo_data(out, identities=2, images=2, seed=0)
    return out / "QMUL-SurvFace"


def test_onnx_prints_its_comparison_and_writes_one_file(run, tmp_path):
    save_small(tmp_path / "x.pt")
    done = run("export", "onnx", "--network", "x.pt", "--out", "out/x.onnx", "--preprocess")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert [re.fullmatch(PARITY, line)[1] for line in lines[:3]] == ["1", "3", "64"]
    size = (tmp_path / "out" / "x.onnx").stat().st_size
    assert lines[3:] == [
        "tolerance: difference 0.0001 of the largest value, cosine 0.99999",
        "spherenet4: images uint8 (N, 32, 32, 3) RGB -> embeddings float32 (N, 512) of unit length",
        f"onnx: out/x.onnx ({size:,} bytes)",
    ]
    session = onnxruntime.InferenceSession(tmp_path / "out" / "x.onnx")
    assert session.get_modelmeta().custom_metadata_map["digest"] == load_network(tmp_path / "x.pt").digest


def test_an_exported_folder_embeds_and_scores_like_its_checkpoint(run, tmp_path, qmul):
    """The default is the newest run's checkpoint. Embeddings are equal with and without a cache. --checkpoint: an old name."""
    save_small(tmp_path / "runs" / "mine" / "checkpoints" / "0000007.pt")
    done = run("export", "huggingface", "--out", "net")
    digest = load_network(tmp_path / "net").digest
    assert (done.returncode, done.stderr.partition(",")[0]) == (0, "network: the newest")
    assert done.stdout == f"spherenet4, digest {digest}, read back and equal\nhuggingface: net\n"
    network = f"network: the newest, {tmp_path}/runs/mine/checkpoints/0000007.pt, step 7, digest {digest}"
    first = run("embed", qmul, "none.png", "--out", "first.parquet", "--down", 8)
    second = run("embed", qmul, "none.png", "--out", "second.parquet", "--down", 8, "--checkpoint", "net", "--no-cache")
    table = pq.read_table(tmp_path / "first.parquet")
    count = table.num_rows
    assert count > 8
    for done, name in ((first, "first"), (second, "second")):
        assert done.returncode == 0
        assert done.stdout == f"embedded {count - 1} of {count} images: {name}.parquet\n"
        *notes, progress, warning = done.stderr.splitlines()
        assert notes == ([network] if name == "first" else [])
        assert re.fullmatch(rf"embed: {count}/{count} images \[\d+:\d\d<00:00, +[\d.]+ images/s\]", progress)
        assert warning == f"unusable: 1 of {count} images; see the columns status and error_message"
    assert (tmp_path / "first.parquet").read_bytes() == (tmp_path / "second.parquet").read_bytes()
    assert table.schema.metadata[b"digest"].decode() == digest
    assert {name.decode() for name in table.schema.metadata} == {
        *("backbone", "step", "digest", "preprocessing"),
        *("precision", "alignment", "down"),
    }
    vectors = np.array(table["embedding"].to_pylist()[:-1])
    assert vectors.shape == (count - 1, 512)
    scored = run("bench", "qmul", "--root", qmul, "--network", "net")
    assert scored.returncode == 0, scored.stderr
    assert "spherenet4, step 7" in scored.stdout


def test_onnx_scores_exactly_as_its_checkpoint(run, tmp_path, qmul):
    """With and without the preprocessing in the graph. A function in the current folder scores, too."""
    save_small(tmp_path / "x.pt")
    for name, words in [("in", ["--preprocess"]), ("out", [])]:
        assert run("export", "onnx", "--network", "x.pt", "--out", f"{name}.onnx", *words).returncode == 0
    (tmp_path / "own_network.py").write_text(
        "from model.formats.network import load_network\nfrom model.embedder import Embedder\n"
        "network = load_network('x.pt')\nembed = Embedder(network.backbone)\nembed.preprocessing = network.spec\n"
    )
    metrics = []
    for name in ("x.pt", "in.onnx", "out.onnx", "own_network:embed"):
        done = run("bench", "qmul", "--root", qmul, "--network", name, "--json", "r.json")
        assert done.returncode == 0, done.stderr
        assert "states no preprocessing" not in done.stderr
        result = json.loads((tmp_path / "r.json").read_text())
        assert result["checkpoint"]["path"] == name
        metrics.append(result["metrics"])
    assert metrics[1:] == [metrics[0]] * 3
    assert error_of(run("bench", "qmul", "--root", qmul, "--network", "in.onnx", "--precision", "bf16")) == (
        "Error: --precision bf16: in.onnx is run as it is; leave --precision out"
    )
    assert error_of(run("train", "--from", "in.onnx")) == (
        "Error: in.onnx: is a graph (spherenet4) that can be run, but not trained further; name a checkpoint with weights"
    )
    assert error_of(run("export", "huggingface", "--network", "in.onnx", "--out", "net")) == (
        "Error: in.onnx: is a graph (spherenet4) that can be run, but not exported; name a checkpoint with weights"
    )


def test_preprocessing_and_flip_fusion_are_recorded(run, tmp_path, qmul):
    save_small(tmp_path / "x.pt")
    (tmp_path / "mine.toml").write_text('base = "adaface"\nsize = 32\n')
    words = ["embed", qmul, "--out", "e.parquet", "--network", "x.pt"]
    plain = run(*words)
    assert plain.returncode == 0, plain.stderr
    vectors = pq.read_table(tmp_path / "e.parquet")["embedding"].to_pylist()
    done = run(*words, "--preprocessing", "mine.toml", "--flip", "mean")
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("warning: --preprocessing is not what x.pt states: template arcface, not seed;")
    table = pq.read_table(tmp_path / "e.parquet")
    assert table.schema.metadata[b"flip"] == b"mean"
    assert json.loads(table.schema.metadata[b"preprocessing"])["color"] == "BGR"
    assert np.abs(np.subtract(vectors, table["embedding"].to_pylist())).max() > 0.01
    assert len(list((tmp_path / "cache").glob("*-fp32-cpu-mean"))) == 1
    assert error_of(run(*words, "--preprocessing", "arcfase")) == (
        "Error: --preprocessing arcfase: no such preprocessing or file; expected seed, arcface, insightface, adaface, magface,"
        " facenet, dlib or a TOML file"
    )


def test_expected_failures_are_one_line(run, tmp_path):
    save_small(tmp_path / "x.pt")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("precious")
    (tmp_path / "mine" / ".DS_Store").touch()
    assert error_of(run("export", "huggingface", "--network", "x.pt", "--out", "mine")) == (
        f"Error: {tmp_path}/mine: exists and holds something else ('notes.txt'); choose another --out, or delete it"
    )
    assert error_of(run("export", "onnx", "--network", "mine", "--out", "x.onnx")) == (
        "Error: mine: is a folder without config.json; expected a checkpoint file, or a folder of export huggingface,"
        " CVLface, timm or transformers"
    )
    assert error_of(run("embed", "mine", "--network", "x.pt", "--out", "x.parquet")) == (
        "Error: mine: contains no images; expected .jpg, .png, .tif, ..."
    )
    words = ["embed", "a.png", "--network", "x.pt", "--out", "x.parquet", "--aligned", "arcface"]
    assert error_of(run(*words, "--landmarks", "a.csv"), code=2) == (
        "Error: --landmarks and --aligned: aligned crops need no landmarks; leave one of them out"
    )
    assert error_of(run("embed", "a.png", "--network", "x.pt", "--out", "x.parquet", "--down", 33)) == (
        "Error: --down 33: choose at most the network's input size, 32 px"
    )
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["cache", "mine", "x.pt"]


def test_an_export_may_be_replaced_whatever_the_system_left_in_it(run, tmp_path):
    save_small(tmp_path / "x.pt")
    (tmp_path / "net").mkdir()
    for content in ("nothing else", "an export"):
        (tmp_path / "net" / ".DS_Store").touch()
        (tmp_path / "net" / "@eaDir").mkdir()
        done = run("export", "huggingface", "--network", "x.pt", "--out", "net")
        assert done.returncode == 0, (content, done.stderr)


def test_a_run_folder_is_not_a_checkpoint(run, tmp_path):
    save_small(tmp_path / "run" / "checkpoints" / "0000007.pt")
    (tmp_path / "run" / "config.json").write_text("{}")
    assert error_of(run("export", "onnx", "--network", "run", "--out", "x.onnx")) == (
        "Error: run: is a run folder; name one of its checkpoints, such as run/checkpoints/0000007.pt"
    )


def test_embedding_nothing_is_a_failure(run, tmp_path):
    save_small(tmp_path / "x.pt")
    done = run("embed", "typo.png", "--network", "x.pt", "--out", "x.parquet")
    assert error_of(done) == "Error: x.parquet: no image could be embedded"
    assert pq.read_table(tmp_path / "x.parquet")["status"].to_pylist() == ["unusable-image"]
    (tmp_path / "loop").symlink_to(".")
    (tmp_path / "1.png").touch()
    done = run("embed", "typo.png", ".", "typo.png", "--network", "x.pt", "--out", "x.parquet")
    assert "ignored 2 repeated paths (./loop, typo.png)" in done.stderr.splitlines()


def test_usage_errors_exit_2(run, tmp_path):
    (tmp_path / "taken").mkdir()
    assert run("export", "onnx", "--out", "taken").returncode == 2
    assert run("export", "huggingface").returncode == 2
    assert run("embed", "--out", "x.parquet").returncode == 2


def test_embed_warns_of_photographs_unless_it_aligns_them(run, tmp_path):
    save_small(tmp_path / "x.pt")
    cv2.imwrite(str(tmp_path / "photo.png"), np.zeros((480, 640, 3), np.uint8))
    (tmp_path / "points.csv").write_text("photo,300,200,340,200,320,220,305,240,335,240\n")
    words = ["embed", "photo.png", "--out", "x.parquet", "--network", "x.pt", "--no-cache"]
    done = run(*words)
    assert done.returncode == 0
    assert done.stderr.splitlines()[0] == (
        "warning: photographs rather than tight crops of faces, by shape or size: 1 of 1 image tried"
        " (photo.png: 640x480 px); without --landmarks each is resized whole"
    )
    assert done.stdout == "embedded 1 of 1 image: x.parquet\n"
    assert "warning" not in run(*words, "--landmarks", "points.csv").stderr
