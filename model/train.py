"""Trains a deep Siamese network: every view of every identity in one forward pass."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from model.backbones import EMBEDDING_SIZE, build_backbone
from model.checkpoint import checkpoint_path, checkpoints, is_ours, save_checkpoint, whole_file
from model.config import TrainConfig, TrainingError
from model.evaluation import Evaluate, Evaluations
from model.heads import build_head
from model.init import initialise_from_data
from model.inputs import normalise, on_device
from model.losses import cross_entropy, hardest_triplet, view_means
from model.runlog import RunLog

CONFIG = "config.json"


class TrainBatch(Protocol):
    """What ``train`` needs of a batch: (V, b, S, S, 3) uint8 images, (b,) int64 labels, the stream's state behind it."""

    @property
    def images(self) -> torch.Tensor: ...
    @property
    def labels(self) -> torch.Tensor: ...
    @property
    def state(self) -> Any: ...


class Learner(nn.Module):
    """Backbone, head and losses: images and labels in, loss and its parts out."""

    def __init__(self, config: TrainConfig, *, classes: int, preprocessing: dict[str, Any]) -> None:
        super().__init__()
        self.config, self.preprocessing = config, preprocessing
        self.backbone = build_backbone(config.backbone, image_size=preprocessing["size"])
        self.head = build_head(
            "amsoftmax", features=EMBEDDING_SIZE, classes=classes, scale=config.scale, margin=config.margin
        )

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """(V, b, S, S, 3) uint8 -> (V*b, 3, S, S) float32, view after view."""
        return normalise(images.flatten(0, 1), self.preprocessing["mean"], self.preprocessing["std"])

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """(V, b, S, S, 3) uint8 and (b,) int64 -> the scalar loss; its parts by name."""
        views = len(images)
        features = self.backbone(self.inputs(images))
        labels = labels.repeat(views)
        cross_entropies = view_means(cross_entropy(self.head(features, labels)), views)
        triplet = hardest_triplet(features, labels, self.config.triplet_margin)
        loss = cross_entropies.mean() + self.config.triplet_weight * triplet
        parts = {f"ce@{size}": value for size, value in zip(self.config.views, cross_entropies, strict=True)}
        return loss, {"triplet": triplet, **parts}


def find_resume(run: Path, resume: str) -> Path | None:
    """The checkpoint to go on from: ``auto`` the run's newest if it has one, ``never`` none, else the named file.

    Raises:
        TrainingError: the run folder holds checkpoints that the run would mix with its own.
    """
    held = checkpoints(run)
    if resume == "never" and held:
        raise TrainingError(f"{run}: holds a run up to step {int(held[-1].stem)}; choose another --out, or delete it")
    if resume in ("auto", "never"):
        return held[-1] if held else None
    if held and held[-1].resolve() != Path(resume).resolve():
        raise TrainingError(
            f"{run}: holds a run up to step {int(held[-1].stem)}; choose another --out to branch off {resume}"
        )
    return Path(resume)


def new_run(
    config: TrainConfig, *, classes: int, preprocessing: dict[str, Any], device: str
) -> tuple[Learner, torch.optim.SGD]:
    """A freshly initialised learner, seeded, and its optimiser. Raises: BackboneError: the images' size does not suit it."""
    torch.manual_seed(config.seed)
    learner = on_device(Learner(config, classes=classes, preprocessing=preprocessing), device)
    optimiser = torch.optim.SGD(
        learner.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay
    )
    return learner, optimiser


def restore(content: dict[str, Any], path: Path, learner: Learner, optimiser: torch.optim.SGD) -> int:
    """Puts a checkpoint's weights, momenta and random state in place; returns the number of updates behind it.

    Raises:
        TrainingError: it belongs to another configuration, preprocessing or set of identities.
    """
    if not is_ours(content):
        raise TrainingError(
            f"{path}: a bare state dict, without optimiser and loader state; --resume needs a checkpoint of this tool"
        )
    learner.config.check_resumes(content["config"])
    if content["config"]["steps"] != learner.config.steps:
        was, now = content["config"]["steps"], learner.config.steps
        print(f"--steps was {was}, now {now}: the learning rate's milestones move with it", file=sys.stderr)
    if content["preprocessing"] != learner.preprocessing:
        differing = [
            name for name, value in learner.preprocessing.items() if content["preprocessing"].get(name) != value
        ]
        raise TrainingError(
            f"{path}: its preprocessing differs from the shards' in {', '.join(differing)}; train on the shards it started with"
        )
    if len(content["head_state"]["weight"]) != learner.head.classes:
        raise TrainingError(
            f"{path}: has {len(content['head_state']['weight'])} identities, the shards have {learner.head.classes}"
        )
    learner.backbone.load_state_dict(content["backbone_state"])
    learner.head.load_full_state(content["head_state"])
    optimiser.load_state_dict(content["optimiser_state"])
    torch.set_rng_state(content["rng_state"])
    return int(content["step"])


def train(
    batches: Iterable[TrainBatch],
    learner: Learner,
    optimiser: torch.optim.SGD,
    run: Path,
    *,
    start: int = 0,
    evaluate: Evaluate | None = None,
) -> int:
    """Updates ``learner`` until ``config.steps``, saving checkpoints into ``run``.

    SIGINT and SIGTERM end it after the current step, with a checkpoint; an evaluation is given up for them.

    Args:
        evaluate: scores the backbone every ``config.eval_every`` steps and after the last; changes nothing in the training.

    Returns:
        the number of updates done in all; fewer than ``config.steps`` if it was stopped.

    Raises:
        TrainingError: the loss is not finite, the weights of the step before are saved if they are;
            another process trains into ``run``; or ``config.best`` is not evaluated.
    """
    config, step, saved = learner.config, start, start
    run.mkdir(parents=True, exist_ok=True)
    learner.train()
    with locked(run), RunLog(run, steps=config.steps, start=start) as log, StopSignals() as stop:
        _write_config(run, learner)
        evaluations = Evaluations(run, config, evaluate, log, stopped=lambda: stop.asked)
        evaluations.begin(start, learner.backbone)
        state, stream = None, iter(batches)
        while step < config.steps and not stop.asked:
            asked = time.monotonic()
            batch = next(stream)
            log.count(images=batch.images.shape[0] * batch.images.shape[1], waited=time.monotonic() - asked)

            if step == 0 and config.init == "data":
                initialise_from_data(learner.backbone, learner.head, learner.inputs(batch.images))
            lr = config.learning_rate(step)
            for group in optimiser.param_groups:
                group["lr"] = lr
            loss, parts = learner(batch.images, batch.labels)
            if not torch.isfinite(loss):  # waits for the device: an update from such a loss would ruin the weights
                if step > saved and all(torch.isfinite(weight).all() for weight in learner.parameters()):
                    _save(run, step, learner, optimiser, state)
                raise TrainingError(
                    f"the loss of step {step + 1} is {loss.item()}, no update was made; start over with a lower --lr (it is {lr:g})"
                )
            optimiser.zero_grad(set_to_none=True)
            loss.backward()
            optimiser.step()
            step, state = step + 1, batch.state

            if step % config.logged_every == 0 or step == config.steps:
                log.write(step, {"loss": loss.item(), **{name: part.item() for name, part in parts.items()}, "lr": lr})
            if step % config.save_every == 0 or evaluations.due(step):
                _save(run, step, learner, optimiser, state)
                saved = step
            if evaluations.due(step):
                evaluations.score(step, learner.backbone)
        if step > saved:
            _save(run, step, learner, optimiser, state)
    return step


def _write_config(run: Path, learner: Learner) -> None:
    settings = {**learner.config.to_dict(), "classes": learner.head.classes, "preprocessing": learner.preprocessing}
    with whole_file(run / CONFIG) as temporary:
        temporary.write_text(json.dumps(settings, indent=1) + "\n")


def _save(run: Path, step: int, learner: Learner, optimiser: torch.optim.SGD, state: Any) -> None:
    content = {
        "step": step,
        "config": learner.config.to_dict(),
        "preprocessing": learner.preprocessing,
        "backbone": learner.config.backbone,
        "backbone_state": learner.backbone.state_dict(),
        "head_state": learner.head.full_state(),
        "optimiser_state": optimiser.state_dict(),
        "rng_state": torch.get_rng_state(),
        "loader_state": state.to_dict(),
    }
    save_checkpoint(checkpoint_path(run, step), content)
    for old in checkpoints(run)[: -learner.config.keep]:
        old.unlink()


@contextlib.contextmanager
def locked(run: Path) -> Iterator[None]:
    """Holds ``run`` for one process. Raises: TrainingError: another one trains into it."""
    handle = os.open(run, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise TrainingError(f"{run}: another process is training here; wait for it, or choose another --out") from None
    finally:
        os.close(handle)


class StopSignals:
    """Notes SIGINT and SIGTERM instead of dying of them; a second one is obeyed at once."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> StopSignals:
        self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        print("stopping after this step...", file=sys.stderr, flush=True)
