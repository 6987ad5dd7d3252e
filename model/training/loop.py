"""The training loop: every view of every identity in one forward pass."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from model.errors import explained_memory
from model.formats.checkpoint import Content, checkpoints
from model.training.config import TrainConfig, TrainingError
from model.training.evaluation import Evaluate, Evaluations
from model.training.init import initialise_from_data
from model.training.learner import StepInputs
from model.training.runlog import METRICS, RunLog
from model.training.state import TrainState
from model.training.update import Outcome, Updater
from pipeline.signals import StopFlag, Stopped, stop_signals
from shards.arguments import check_argument, check_path, check_whole
from shards.files import StrPath, write_bytes
from shards.locks import locked
from shards.messages import counted, print_stderr

CONFIG = "config.json"


class LoaderPosition(Protocol):
    """Where a loader goes on after a batch."""

    def to_dict(self) -> dict[str, int | str]: ...


class TrainBatch(Protocol):
    """A rank's part of a batch: (V, b, S, S, 3) uint8 images and (b,) int64 labels.

    ``rows``, (V, b) int64 on the CPU, are the images' rows in the index of the shard set, and ``originals`` the images
    before their degradation; both are read only for losses that need them.
    ``state`` is the loader's position after the batch, whose ``to_dict()`` is saved in checkpoints.
    """

    @property
    def images(self) -> torch.Tensor: ...
    @property
    def labels(self) -> torch.Tensor: ...
    @property
    def rows(self) -> np.ndarray: ...
    @property
    def originals(self) -> torch.Tensor | None: ...
    @property
    def state(self) -> LoaderPosition: ...


def train(
    batches: Iterable[TrainBatch],
    state: TrainState,
    run: StrPath,
    *,
    start: int = 0,
    evaluate: Evaluate | None = None,
    shown: Collection[str] = (),
    targets: Callable[[np.ndarray], torch.Tensor] | None = None,
) -> int:
    """Updates ``state`` until ``config.steps``, saving checkpoints into ``run``.

    SIGINT, SIGTERM or SIGHUP to any rank ends training after the current step, with a checkpoint; a running evaluation
    is abandoned, and so is a long wait for a batch, if there is one rank.

    Seeds PyTorch's generators, which are those of the whole process, at every step: two runs in threads of one process
    would take each other's random numbers.

    Args:
        start: number of updates done before.
        evaluate: scores the backbone before the first step, every ``config.eval_every`` steps and after the last.
        shown: the metrics to print; default: all.
        targets: from the (V, b) rows of a batch to the teacher's (V, b, D) embeddings, as an ``model.training.teacher``
            ``Targets`` does; for losses that compare embeddings with a teacher's.

    Returns:
        The total number of updates; less than ``config.steps`` if training was stopped.

    Raises:
        TrainingError: a loss or gradient is not finite and no more steps may be skipped (the state before this step is
            saved if it is finite), no step of the whole run made an update, ``config.best`` is not evaluated, there are
            no more batches, or ``run`` has a checkpoint of a later step than ``start``.
        LockedError: another process is training in ``run``.
        OutOfMemoryError: memory does not suffice for a step.
        TypeError, ValueError: an argument has a wrong type, or the batches are for another network or head.
    """
    _check_arguments(batches, state, evaluate, targets)
    run, start = check_path("run", run), check_whole("start", start, 0)
    learner, ranks, config = state.learner, state.ranks, state.learner.config
    step = saved = start
    loader_state: Content = {}
    learner.train()
    for remark in learner.remarks if ranks.first else ():
        print_stderr(remark)
    device = next(learner.parameters()).device
    run_log = RunLog(run if ranks.first else None, steps=config.steps, start=start, device=device)
    stop_flag = stop_signals("stopping after this step...\n")
    with _run_folder(run, state, start), run_log as log, stop_flag as stop, explained_memory(config.less_memory):
        evaluations = Evaluations(run, state, evaluate, log, stopped=lambda: stop.requested, shown=shown)
        evaluations.begin(start)
        ranks.any(False)  # the others wait here: collectives of the gradients' group have a short time limit
        update = Updater(state)
        for batch in _drawn(batches, state, start, log, stop):
            if step == 0 and config.init == "data":
                _initialise(batch, state)
            lr = config.learning_rate(step)
            log_due = (step + 1) % config.log_interval == 0 or step + 1 == config.steps
            save_due = (step + 1) % config.save_every == 0 or evaluations.due(step + 1)
            on_cpu = batch.labels.device.type == "cpu"  # on a GPU the check synchronises
            check = log_due or save_due or on_cpu or state.guard.active
            done = update(_inputs(batch, config, targets), step, lr=lr, check=check)
            if done.problem and not _forgiven(done, state):
                if step > saved and state.finite():
                    state.save(run, step, loader_state)
                raise TrainingError(f"{done.problem}, no update was made; {state.lower_rate(run)}")
            step, loader_state = step + 1, batch.state.to_dict()

            if log_due and not done.problem:
                log.write(step, {"loss": done.loss, **done.parts, "lr": lr, **state.guard.metrics()}, mean=ranks.mean)
            if save_due:
                state.save(run, step, loader_state)
                saved = step
            if evaluations.due(step):
                evaluations.score(step)
        if step > saved:
            state.save(run, step, loader_state)
    _check_updates(state, start, step)
    return step


def _drawn(
    batches: Iterable[TrainBatch], state: TrainState, start: int, log: RunLog, stop: StopFlag
) -> Iterator[TrainBatch]:
    """Yields a batch for each step that is left, until a rank is told to stop. A collective.

    Raises:
        TrainingError: there are no more batches.
        TypeError, ValueError: the first one is not a batch, or not one for this network and head.
    """
    ranks, steps = state.ranks, state.learner.config.steps
    stream = iter(batches)
    for step in range(start, steps):
        if ranks.any(stop.requested):
            return
        try:  # a store may keep it waiting for minutes; if others wait for this rank, it may not leave them
            with log.waiting(), stop.waiting(ranks.size == 1):
                batch = next(stream, None)
        except Stopped:
            return
        if batch is None:
            raise TrainingError(f"batches ended after step {step} of {steps}, expected an endless stream")
        if step == start:
            _check_batch(batch, state)
        log.count(images=ranks.size * batch.images[..., 0, 0, 0].numel())
        yield batch


def _initialise(batch: TrainBatch, state: TrainState) -> None:
    """Fits the initial weights to the first batch. A collective."""
    images = state.ranks.gather(batch.images.flatten(0, 1), len(batch.images))
    learner = state.learner
    initialise_from_data(learner.backbone, learner.head, learner.inputs(images[None]))


def _forgiven(done: Outcome, state: TrainState) -> bool:
    """Reports why a step made no update. Returns False if that ends the run."""
    consequence = state.guard.forgive(loss_finite=done.loss_finite)
    if consequence and state.ranks.first:
        print_stderr(f"{done.problem}, no update was made ({consequence})")
    return consequence is not None


def _check_updates(state: TrainState, start: int, step: int) -> None:
    """Reports whether many steps made no update. Raises: TrainingError: none of a whole run made one."""
    remark = state.guard.remark()
    if remark and start == 0 and step == state.learner.config.steps and not state.guard.made:
        raise TrainingError(f"nothing was learnt: {remark}")
    if remark and state.ranks.first:
        print_stderr(remark)


def _inputs(batch: TrainBatch, config: TrainConfig, targets: Callable[[np.ndarray], torch.Tensor] | None) -> StepInputs:
    taught = None if targets is None else targets(batch.rows)
    return StepInputs(batch.images, batch.labels, taught, batch.originals if config.losses.attention else None)


def _check_arguments(batches: object, state: TrainState, evaluate: object, targets: object) -> None:
    """Raises: TypeError."""
    good = isinstance(batches, Iterable) and not isinstance(batches, str | bytes)
    check_argument(good, "batches", batches, "batches, such as an open Loader")
    check_argument(isinstance(state, TrainState), "state", state, "what new_run(config, ...) returns")
    check_argument(evaluate is None or callable(evaluate), "evaluate", evaluate, "a function, or None")
    expected = "a function such as Targets(...), if and only if a term distill compares embeddings"
    compares = bool(state.learner.config.losses.embedding_terms)
    check_argument(callable(targets) if compares else targets is None, "targets", targets, expected)


def _check_batch(batch: object, state: TrainState) -> None:
    """Checks the first batch. Raises: TypeError, ValueError: it is not a batch, or not one for this run."""
    images: Any = getattr(batch, "images", None)
    labels: Any = getattr(batch, "labels", None)
    views, side = len(state.learner.config.all_views), state.learner.preprocessing.size
    good = torch.is_tensor(images) and images.dim() == 5
    check_argument(good, "images of a batch", images, "a Tensor of uint8 and shape (V, b, S, S, 3), RGB")
    good = torch.is_tensor(labels) and labels.dtype == torch.int64 and labels.shape == images.shape[1:2]
    check_argument(good, "labels of a batch", labels, f"a Tensor of int64 and shape ({images.shape[1]},)")
    if (len(images), *images.shape[2:]) != (views, side, side, 3):
        found = f"{counted(len(images), 'view')} of {images.shape[2]} px"
        raise ValueError(f"a batch has {found}, expected {views} of {side} px, as the config and its preprocessing say")
    identities, expected = len(labels) * state.ranks.size, state.learner.config.batch_size
    if identities != expected:
        raise ValueError(
            f"a batch has {counted(identities, 'identity')}, expected {expected}, the batch_size of the config"
        )
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < state.learner.classes:
        found = f"{int(labels.min())} to {int(labels.max())}"
        raise ValueError(
            f"labels of a batch are {found}, expected 0 to {state.learner.classes - 1}: classes of the run"
        )
    _check_drawn(batch, state.learner.config)


def _check_drawn(batch: Any, config: TrainConfig) -> None:
    """Raises: ValueError: a ``Loader`` drew the batch with other settings than the configuration states."""
    drawn = batch.state.to_dict()
    for name, expected in {"seed": config.seed, "window": config.shard_window}.items():
        if "seed" in drawn and drawn.get(name) != expected:  # batches of another class need not state it
            raise ValueError(
                f"batches are of a Loader with {name}={drawn.get(name)}, expected {name}={expected}, as the config says"
            )


def _check_is_run(run: Path, start: int) -> None:
    """Checks that no file of ``run`` would be lost.

    Raises:
        TrainingError: it has a checkpoint of a later step than ``start``; or none, but a ``config.json`` or
            ``metrics.jsonl`` of something else.
    """
    if saved := checkpoints(run):
        if (newest := int(saved[-1].stem)) > start:
            raise TrainingError(
                f"{run}: has a run up to step {newest}, but training would begin after step {start}; choose another"
                " folder, or continue that run: model.training.start.start_run restores its state"
            )
        return
    other = METRICS if (run / METRICS).exists() else None  # a run writes CONFIG first
    with contextlib.suppress(FileNotFoundError):
        data, other = (run / CONFIG).read_bytes(), CONFIG
        with contextlib.suppress(ValueError, RecursionError):
            settings = json.loads(data)
            other = None if isinstance(settings, dict) and "trained_on" in settings else CONFIG
    if other:
        raise TrainingError(f"{run / other}: not of a run; choose another --out, or delete the file")


@contextlib.contextmanager
def _run_folder(run: Path, state: TrainState, start: int) -> Iterator[None]:
    """Creates the run folder with its ``config.json`` and locks it, on rank 0; ``start`` updates were made before."""
    if not state.ranks.first:
        yield
        return
    _check_is_run(run, start)
    run.mkdir(parents=True, exist_ok=True)
    learner = state.learner
    with locked(run, "training"):
        content = {
            **learner.config.to_dict(),
            "classes": learner.classes,
            "preprocessing": learner.preprocessing.to_dict(),
            "trained_on": state.trained_on.to_dict(),
            **({"teacher_digest": state.teacher.digest} if state.teacher else {}),
            **({"branched_from": state.branched_from} if state.branched_from else {}),
        }
        write_bytes(run / CONFIG, (json.dumps(content, indent=1) + "\n").encode())
        yield
