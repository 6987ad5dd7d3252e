"""Targets of a student, and runs with a teacher: what they store, how they resume, and that they learn."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from model.formats.checkpoint import checkpoints, read_checkpoint
from model.training.config import TrainingError
from model.training.loop import train
from model.training.state import new_run
from model.training.teacher import Targets, Teacher, principal_components
from tests.model.training.runs import CLASSES, SPEC, Stream, config, losses, run_training

TAUGHT = {"losses": "cross-entropy+distill:weight=5+distill:form=relational", "teacher": "a.pt"}


def vectors(rows, size):
    drawn = np.random.default_rng(4).normal(size=(64, size)) * np.linspace(3, 0.1, size)
    return (drawn / np.linalg.norm(drawn, axis=1, keepdims=True))[rows].astype(np.float32)


def test_short_embeddings_are_filled_up_and_keep_their_cosines():
    rows = np.array([[0, 5, 2], [7, 7, 1]])
    targets = Targets(lambda rows: vectors(rows, 192))(rows)
    assert targets.shape == (2, 3, 512)
    assert targets.dtype == torch.float32
    np.testing.assert_array_equal(targets[..., :192].numpy(), vectors(rows, 192))
    assert not targets[..., 192:].any()


def test_long_embeddings_are_projected_on_what_keeps_most_of_them():
    def embeddings(rows):
        return vectors(rows, 600)

    basis, kept = principal_components(embeddings, 64)
    assert basis.shape == (600, 512)
    np.testing.assert_allclose(basis.T @ basis, np.eye(512), atol=1e-5)
    assert kept == pytest.approx(1)  # 64 images span 64 directions
    again, _ = principal_components(embeddings, 64)
    np.testing.assert_array_equal(again, basis)
    targets = Targets(embeddings, basis=basis)(np.arange(64)[None])[0]
    whole = embeddings(np.arange(64))
    np.testing.assert_allclose((targets @ targets.T).numpy(), whole @ whole.T, atol=1e-5)


def test_principal_components_are_the_directions_with_most_of_the_length():
    axes = np.eye(600, dtype=np.float32)
    rows = np.repeat(np.arange(600), 1 + np.arange(600) % 7)  # some directions have more images
    _, kept = principal_components(lambda part: axes[rows[part]], len(rows))
    counts = np.sort(1 + np.arange(600) % 7)[::-1]
    assert kept == pytest.approx(counts[:512].sum() / counts.sum())


def test_a_run_stores_its_teacher_and_logs_each_loss(tmp_path):
    done, _ = run_training(tmp_path, config(**TAUGHT, views="128,8,8-32,16", steps=2))
    assert done == 2
    row = json.loads((tmp_path / "metrics.jsonl").read_text().splitlines()[0])
    assert {"ce@8", "distill@128", "distill@8", "distill@8-32", "distill-relational"} <= set(row)
    means = [np.mean([row[f"{name}@{size}"] for size in ("128", "8", "8-32", "16")]) for name in ("ce", "distill")]
    assert row["loss"] == pytest.approx(means[0] + 5 * means[1] + row["distill-relational"], rel=1e-5)
    stored = json.loads((tmp_path / "config.json").read_text())
    assert (stored["teacher"], stored["teacher_digest"]) == ("a.pt", "0" * 32)
    assert read_checkpoint(checkpoints(tmp_path)[-1])["teacher"] == {"name": "spherenet4", "digest": "0" * 32}


@pytest.mark.parametrize("change", [{"ema": 0.9, "clip_norm": 1.0}, {"precision": "bf16", "accumulate": 3}])
def test_a_resumed_run_has_the_losses_of_one_that_went_through(tmp_path, change):
    settings = config(**TAUGHT, **change, steps=4, save_every=2, keep=9)
    run_training(tmp_path / "whole", settings)
    run_training(tmp_path / "part", settings, resume=tmp_path / "whole" / "checkpoints" / "0000002.pt")
    assert [losses(tmp_path / "part")[step] for step in (3, 4)] == [losses(tmp_path / "whole")[s] for s in (3, 4)]


def test_a_run_goes_on_with_its_own_teacher_only(tmp_path):
    settings = config(**TAUGHT, steps=2)
    run_training(tmp_path, settings)
    path = checkpoints(tmp_path)[-1]
    other = new_run(settings, classes=CLASSES, preprocessing=SPEC, teacher=Teacher("ir50", "f" * 32))
    with pytest.raises(
        TrainingError, match=r"its teacher is spherenet4, digest 0{32}; now it is ir50, digest f{32}: name the"
    ):
        other.restore(read_checkpoint(path), path)
    moved = new_run(settings, classes=CLASSES, preprocessing=SPEC, teacher=Teacher("elsewhere/a.pt", "0" * 32))
    assert moved.restore(read_checkpoint(path), path) == 2


def test_targets_are_given_if_and_only_if_a_loss_is_for_them(tmp_path):
    def start(**changes):
        return new_run(config(**changes), classes=CLASSES, preprocessing=SPEC)

    with pytest.raises(TypeError, match="targets is None, expected a function such as Targets"):
        train(Stream(), start(**TAUGHT), tmp_path)
    with pytest.raises(TypeError, match="if and only if a term distill compares embeddings"):
        train(Stream(), start(), tmp_path, targets=lambda rows: rows)


def test_without_a_criterion_the_head_stays_and_the_student_learns(tmp_path):
    """What a teacher knows, here one direction for dark images and one for bright ones, without labels."""

    class Shades(Stream):
        def __next__(self):
            batch = super().__next__()
            dark = torch.tensor([0, 1, 0, 1, 0, 1] * 2).reshape(4, 3)
            batch.images = batch.images // 4 + (150 * dark[..., None, None, None]).to(torch.uint8)
            batch.rows = dark.numpy()
            return batch

    knows = torch.nn.functional.normalize(torch.randn(2, 512, generator=torch.Generator().manual_seed(3)))
    settings = config(losses="distill:weight=4", teacher="a", steps=30, lr=0.05, log_every=1)
    state = new_run(settings, classes=CLASSES, preprocessing=SPEC)
    head = {name: value.clone() for name, value in state.learner.head.state_dict().items()}
    assert state.learner.remarks == ["no criterion: the head learns nothing"]
    assert train(Shades(), state, tmp_path, targets=lambda rows: knows[torch.from_numpy(rows)]) == 30
    assert all(torch.equal(value, head[name]) for name, value in state.learner.head.state_dict().items())
    found = list(losses(tmp_path).values())
    assert found[0] > 3
    assert np.mean(found[-3:]) < 0.5
