"""Trains a deep Siamese network: every view of every identity in one forward pass."""

from __future__ import annotations

import contextlib
import json
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import torch

from model.formats.checkpoint import checkpoints
from model.training.config import TrainingError
from model.training.evaluation import Evaluate, Evaluations
from model.training.init import initialise_from_data
from model.training.runlog import RunLog
from model.training.state import TrainState, new_run, seed_step
from pipeline.signals import StopSignals
from shards.files import locked, whole_file

__all__ = ["CONFIG", "find_resume", "new_run", "train"]

CONFIG = "config.json"


class TrainBatch(Protocol):
    """What ``train`` needs of a batch, a rank's share of it: (V, b, S, S, 3) uint8 images, (b,) int64 labels, the stream's state behind it."""

    @property
    def images(self) -> torch.Tensor: ...
    @property
    def labels(self) -> torch.Tensor: ...
    @property
    def state(self) -> Any: ...


def find_resume(run: Path, resume: str) -> Path | None:
    """The checkpoint to go on from: ``auto`` the run's newest if it has one, ``never`` none, else the named file.

    Raises:
        TrainingError: the run folder is a file, or holds checkpoints that the run would mix with its own.
    """
    if run.exists() and not run.is_dir():
        raise TrainingError(f"{run}: is a file, expected a run's folder; choose another --out")
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


def train(
    batches: Iterable[TrainBatch],
    state: TrainState,
    run: Path,
    *,
    start: int = 0,
    evaluate: Evaluate | None = None,
    shown: Collection[str] = (),
) -> int:
    """Updates ``state`` until ``config.steps``, saving checkpoints into ``run``.

    SIGINT and SIGTERM, to any rank, end it after the current step, with a checkpoint; an evaluation is given up for them.

    Args:
        evaluate: scores the backbone before the first step, every ``config.eval_every`` steps and after the last;
            changes nothing in the training.
        shown: its figures that are printed; all if none is named.

    Returns:
        the number of updates done in all; fewer than ``config.steps`` if it was stopped.

    Raises:
        TrainingError: the loss is not finite, the weights of the step before are saved if they are;
            another process trains into ``run``; or ``config.best`` is not evaluated.
    """
    learner, optimizer, ranks, config = state.learner, state.optimizer, state.ranks, state.learner.config
    step, saved = start, start
    loader_state: dict[str, Any] = {}
    learner.train()
    if ranks.first and learner.idle_term:
        print(
            f"one image of each identity: {learner.idle_term} has nothing to compare and adds nothing", file=sys.stderr
        )
    own_log = RunLog(run if ranks.first else None, steps=config.steps, start=start)
    with _folder(run, state), own_log as log, StopSignals("stopping after this step...\n") as stop:
        evaluations = Evaluations(run, state, evaluate, log, stopped=lambda: stop.requested, shown=shown)
        evaluations.begin(start)
        parallel, stream = ranks.parallel(learner, learner.own), iter(batches)
        while step < config.steps and not ranks.any(stop.requested):
            asked = time.monotonic()
            batch = next(stream)
            log.count(images=ranks.size * batch.images[..., 0, 0, 0].numel(), waited=time.monotonic() - asked)

            if step == 0 and config.init == "data":
                images = ranks.gather(batch.images.flatten(0, 1), len(batch.images))
                initialise_from_data(learner.backbone, learner.head, learner.inputs(images[None]))
            lr = config.learning_rate(step)
            for group in optimizer.param_groups:
                group["lr"] = lr
            seed_step(config.seed, step, ranks.rank)
            loss, parts = parallel(batch.images, batch.labels)
            logged = (step + 1) % config.logged_every == 0 or step + 1 == config.steps
            due = (step + 1) % config.save_every == 0 or evaluations.due(step + 1)
            looked_at = loss.device.type == "cpu" or logged or due  # on a GPU the look waits for the device
            if looked_at and ranks.any(not torch.isfinite(loss)):
                if step > saved and not ranks.any(not state.finite()):
                    state.save(run, step, loader_state)
                raise TrainingError(_diverged(step + 1, loss.item(), lr))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if state.averaged is not None:
                state.averaged.update_parameters(learner.backbone)
            step, loader_state = step + 1, batch.state.to_dict()

            if logged:
                log.write(step, {"loss": loss, **parts, "lr": lr}, mean=ranks.mean)
            if due:
                state.save(run, step, loader_state)
                saved = step
            if evaluations.due(step):
                evaluations.score(step)
        if step > saved:
            state.save(run, step, loader_state)
    return step


def _diverged(step: int, loss: float, lr: float) -> str:
    return f"the loss of step {step} is {loss}, no update was made; start over with a lower --lr (it is {lr:g})"


@contextlib.contextmanager
def _folder(run: Path, state: TrainState) -> Iterator[None]:
    """The run's folder with its configuration, held by the first rank."""
    if not state.ranks.first:
        yield
        return
    run.mkdir(parents=True, exist_ok=True)
    learner = state.learner
    with locked(run, "training"):
        settings = {
            **learner.config.to_dict(),
            "classes": learner.classes,
            "preprocessing": learner.preprocessing.to_dict(),
            "trained_on": state.trained_on.to_dict(),
        }
        with whole_file(run / CONFIG) as temporary:
            temporary.write_text(json.dumps(settings, indent=1) + "\n")
        yield
