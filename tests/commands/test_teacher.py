"""train --teacher: a student of one of our networks, and of a function of another template and length."""

from __future__ import annotations

import json
import textwrap

import numpy as np
import pytest
import torch

from model.backbones import build_backbone
from model.formats.checkpoint import read_checkpoint
from model.formats.network import load_network
from tests.processes import error_of, torchrun

STUDENT = ["--backbone", "mobilefacenet", "--batch-size", 2, "--steps", 2, "--views", "128,8", "--log-every", 1]
LOSSES = ["--losses", "cross-entropy+distill:weight=10+distill:form=relational+distill:form=attention"]


@pytest.fixture
def teacher(tmp_path):
    torch.save(build_backbone("spherenet4").state_dict(), tmp_path / "teacher.pth")
    return tmp_path / "teacher.pth"


def rows(folder):
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [{name: row[name] for name in row if name not in ("images_per_s", "loader_wait")} for row in lines]


@pytest.mark.usefixtures("narrow")
def test_a_student_of_one_of_our_networks(run, shard_set, tmp_path, teacher):
    words = ["train", "--shards", shard_set, *STUDENT, *LOSSES, "--teacher", teacher]
    first = run(*words, "--out", tmp_path / "a")
    assert first.returncode == 0, first.stderr
    line = next(line for line in first.stderr.splitlines() if line.startswith("teacher: spherenet4, digest "))
    assert "512 numbers; 45 images embedded: " in line
    found = rows(tmp_path / "a")
    assert [row["step"] for row in found] == [1, 2]
    assert {"distill@128", "distill@8", "distill-relational", "distill-attention@8"} <= set(found[0])
    second = run(*words, "--out", tmp_path / "b")
    assert "512 numbers; all embeddings cached: " in second.stderr
    assert "teacher: 45/45" not in second.stderr
    assert rows(tmp_path / "b") == found

    torch.save(build_backbone("spherenet4").state_dict(), tmp_path / "other.pth")
    other = [tmp_path / "other.pth" if word == teacher else word for word in words]
    assert "its teacher is spherenet4, digest " in error_of(run(*other, "--steps", 3, "--out", tmp_path / "a"))
    teacher.rename(tmp_path / "moved.pth")
    gone = error_of(run(*words, "--steps", 3, "--out", tmp_path / "a"))  # attention needs more than its embeddings
    assert gone == f"Error: {teacher}: not found; expected a checkpoint file"
    moved = [tmp_path / "moved.pth" if word == teacher else word for word in words]
    assert "finished: trained 3 steps" in run(*moved, "--steps", 3, "--out", tmp_path / "a").stderr
    trained = load_network(tmp_path / "a" / "checkpoints" / "0000003.pt")
    assert trained.training_data["teacher"] == f"spherenet4, digest {load_network(tmp_path / 'moved.pth').digest}"


@pytest.mark.heavy
def test_a_run_goes_on_without_its_teacher_if_all_embeddings_are_cached(run, shard_set, tmp_path, teacher):
    words = [
        "train",
        "--shards",
        shard_set,
        *STUDENT,
        "--losses",
        "distill",
        "--teacher",
        teacher,
        "--out",
        tmp_path / "a",
    ]
    assert run(*words).returncode == 0
    teacher.unlink()
    resumed = run(*words, "--steps", 3)
    assert resumed.stderr.splitlines()[0] == (
        f"{teacher}: not found; expected a checkpoint file; the embeddings that this run has cached are used"
    )
    assert "finished: trained 3 steps" in resumed.stderr
    taught = [read_checkpoint(path)["teacher"] for path in sorted((tmp_path / "a" / "checkpoints").iterdir())]
    assert taught[0] == taught[-1]
    assert taught[0]["name"] == "spherenet4"
    (stored,) = (tmp_path / "cache").rglob("*.rows")
    stored.unlink()
    missing = error_of(run(*words, "--steps", 4))
    assert (
        missing == f"Error: {stored}: 45 embeddings missing, which only the teacher can compute: name it with --teacher"
    )
    elsewhere = run(*words[:-1], tmp_path / "b")  # a new run does not know it
    assert error_of(elsewhere) == f"Error: {teacher}: not found; expected a checkpoint file"


def test_a_function_of_another_template_and_length(run, shard_set, tmp_path, monkeypatch):
    source = """
    import numpy as np

    def embed(images):
        assert images.shape[1:] == (112, 112, 3)
        return images.reshape(len(images), -1).astype(np.float32)[:, :600] - 100

    embed.preprocessing = "arcface"
    """
    (tmp_path / "lent.py").write_text(textwrap.dedent(source))
    monkeypatch.syspath_prepend(tmp_path)
    words = ["train", "--shards", shard_set, *STUDENT, "--losses", "distill", "--teacher", "lent:embed"]
    done = run(*words, "--out", tmp_path / "a")
    assert done.returncode == 0, done.stderr
    assert "600 numbers, of which 512 principal components keep 100.0%; 45 images embedded" in done.stderr
    content = read_checkpoint(tmp_path / "a" / "checkpoints" / "0000002.pt")
    assert content["teacher"]["name"] == "lent:embed"
    again = run(*words, "--out", tmp_path / "b")
    assert "all embeddings cached" in again.stderr
    assert rows(tmp_path / "b") == rows(tmp_path / "a")


@pytest.mark.usefixtures("narrow")
def test_nothing_is_embedded_before_all_settings_are_checked(run, shard_set, tmp_path, teacher):
    words = ["train", "--shards", shard_set, *STUDENT, "--losses", "distill", "--teacher", teacher]
    assert "batch size" in error_of(run(*words, "--batch-size", 4096))
    assert not list(tmp_path.rglob("*.rows"))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (
            ["--losses", "cross-entropy+distill"],
            "losses has distill, but there is no teacher: name a network with --teacher",
        ),
        (["--teacher", "x"], "teacher is x, but no loss is for it: add +distill to --losses, such as cross-entropy"),
        ([*LOSSES, "--teacher", "none.pt"], "none.pt: not found; expected a checkpoint file"),
        (
            [*LOSSES, "--teacher", "none.pt", "--teacher-preprocessing", "arcfase"],
            "--teacher-preprocessing arcfase: no such preprocessing",
        ),
    ],
)
def test_a_teacher_that_cannot_be_is_one_line(run, shard_set, words, says):
    assert error_of(run("train", "--shards", shard_set, *STUDENT, *words)).startswith(f"Error: {says}")


def test_printed_settings_name_the_teacher(run, tmp_path):
    printed = run("train", *LOSSES, "--teacher", "a.pt", "--print-config")
    assert 'teacher = "a.pt"\n' in printed.stdout
    (tmp_path / "mine.toml").write_text(printed.stdout)
    assert run("train", "--config", tmp_path / "mine.toml", "--print-config").stdout == printed.stdout


@pytest.mark.heavy
def test_processes_embed_together_and_learn_as_one(run, shard_set, tmp_path, teacher, monkeypatch):
    words = ["train", "--shards", shard_set, *STUDENT, *LOSSES, "--teacher", teacher, "--clip-norm", 1000]
    assert run(*words, "--out", tmp_path / "one").returncode == 0
    monkeypatch.setenv("LRFR_DATA", str(tmp_path / "two"))
    together = torchrun(2, "cli.py", *words, "--out", tmp_path / "two" / "run")
    assert together.returncode == 0, together.stderr
    assert together.stderr.count("45 images embedded") == 1
    # of the first step, with its gradient: batch normalisation over four images makes much of rounding in the next one
    mine, other = (next(iter(rows(folder))) for folder in (tmp_path / "two" / "run", tmp_path / "one"))
    assert "gradient_norm" in mine
    assert mine == pytest.approx(other, rel=1e-4)
    (alone,) = (tmp_path / "cache").rglob("*.rows")
    (shared,) = (tmp_path / "two" / "cache").rglob("*.rows")
    vectors = [np.frombuffer(path.read_bytes()[4:], "<f4").reshape(45, -1)[:, 6:] for path in (alone, shared)]
    np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-6)
    again = torchrun(2, "cli.py", *words, "--out", tmp_path / "again")
    assert again.stderr.count("all embeddings cached") == 1
