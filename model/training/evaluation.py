"""Evaluation during training: ``eval.jsonl`` and the best checkpoint of a run."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from model.formats.checkpoint import checkpoint_path
from model.training.config import TrainConfig, TrainingError
from model.training.runlog import RunLog, drop_rows, read_metrics
from model.training.state import TrainState
from shards.arguments import shown
from shards.files import naming, remove_temporaries, whole_file, write_bytes
from shards.messages import print_stderr

EVALUATIONS = "eval.jsonl"
BEST, BEST_FACTS = "best.pt", "best.json"

Evaluate = Callable[[nn.Module], dict[str, float]]
"""Scores a backbone in evaluation mode; returns metrics by name, such as ``lfw/accuracy@8``. The backbone stays on its device."""


@dataclasses.dataclass
class Evaluations:
    """Evaluates before the first step, every ``config.eval_every`` steps and after the last; keeps the best checkpoint.

    The first evaluation gives the start of the curves, and finds missing data sets early.

    Files are written in the order best.pt, best.json, row of eval.jsonl. A run that continues from a step without a row
    evaluates that step first. Only rank 0 evaluates; the other ranks wait for it at the next update.

    Attributes:
        stopped: returns True when training should stop.
        shown: metrics to print; default: all. The best metric is always printed.
        best: the highest value of ``config.best`` so far.
    """

    run: Path
    state: TrainState
    evaluate: Evaluate | None
    log: RunLog
    stopped: Callable[[], bool]
    shown: Collection[str] = ()
    best: float = dataclasses.field(default=-math.inf, init=False)

    @property
    def config(self) -> TrainConfig:
        return self.state.learner.config

    def begin(self, start: int) -> None:
        """Drops the rows of steps after ``start``, reads the best metric so far, and evaluates ``start`` if it has no row.

        Raises:
            TrainingError: see ``score``; or ``config.best`` is set and nothing is evaluated.
        """
        if self.config.best is not None and self.evaluate is None:
            raise TrainingError(f"best is {self.config.best!r}, but nothing is evaluated; leave it out, or evaluate")
        if not self.state.ranks.first:
            return
        remove_temporaries(self.run)
        if start == 0:  # best.json of an earlier run whose checkpoints were deleted
            (self.run / BEST_FACTS).unlink(missing_ok=True)
        if self.config.best is not None:
            self.best = best_value(self.run, self.config.best)
        evaluated = {row["step"] for row in drop_rows(self.run / EVALUATIONS, after=start)}
        saved = start == 0 or checkpoint_path(self.run, start).exists()
        if self.due(start) and start not in evaluated and saved:
            self.score(start)

    def due(self, step: int) -> bool:
        """True if there is an evaluation after ``step`` updates."""
        return self.evaluate is not None and (step % self.config.eval_every == 0 or step == self.config.steps)

    def score(self, step: int) -> None:
        """Evaluates, records the metrics, and keeps the checkpoint of ``step`` if it is the best; step 0 has none.

        A stop abandons the evaluation, before it starts or at the next batch of the backbone.

        Raises:
            TrainingError: ``config.best`` is not among the metrics.
        """
        if not self.state.ranks.first:
            return
        began = time.monotonic()
        with self.log.paused():
            metrics = self._metrics(step)
            if metrics is None:
                return
            is_best = self.config.best is not None and self._keep_if_best(step, self.config.best, metrics)
            print_stderr(self._line(step, metrics, is_best, time.monotonic() - began))
            finite = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
            with naming(self.run / EVALUATIONS), open(self.run / EVALUATIONS, "a") as stream:
                stream.write(json.dumps({"step": step, **finite}) + "\n")
            self.log.scalars(step, {f"eval/{name}": value for name, value in metrics.items()})

    def _metrics(self, step: int) -> dict[str, float] | None:
        """The metrics; None if the evaluation was abandoned."""
        assert self.evaluate is not None
        backbone = self.state.eval_backbone

        def check(*_: object) -> None:  # an exception raised by the signal handler could break a library
            if self.stopped():
                raise _StoppedError

        try:
            check()
            with eval_mode(backbone), backbone.register_forward_pre_hook(check):
                metrics = self.evaluate(backbone)
            return _as_numbers(metrics)
        except _StoppedError:
            print_stderr(f"eval at step {step}: abandoned; the run will start with it when it continues")
            return None
        except Exception:
            if step:
                print_stderr(f"evaluation at step {step} failed; the run will start with it when it continues")
            raise

    def _line(self, step: int, metrics: dict[str, float], is_best: bool, seconds: float) -> str:
        names = [name for name in metrics if not self.shown or name in self.shown or name == self.config.best]
        parts = "  ".join(f"{name} {metrics[name]:.4f}" for name in names)
        return f"eval at step {step}: {parts}{'  best checkpoint so far' * is_best}  ({seconds:.1f} s)"

    def _keep_if_best(self, step: int, metric: str, metrics: dict[str, float]) -> bool:
        """Keeps the checkpoint if its metric is above all earlier ones; returns whether it is."""
        if metric not in metrics:
            raise TrainingError(f"best is {metric!r}, expected one of {', '.join(metrics) or 'no metrics'}")
        value = metrics[metric]
        # equal metrics: the first checkpoint stays, also when its evaluation is repeated
        if step == 0 or not (math.isfinite(value) and value > self.best):
            return False
        with whole_file(self.run / BEST) as temporary:
            shutil.copyfile(checkpoint_path(self.run, step), temporary)
        facts = {"metric": metric, "value": value, "step": step}
        write_bytes(self.run / BEST_FACTS, (json.dumps(facts) + "\n").encode())
        self.best = value
        return True


def _as_numbers(metrics: Any) -> dict[str, float]:
    """What ``Evaluate`` returned. Raises: TypeError: no numbers by name."""
    try:
        return {str(name): float(value) for name, value in metrics.items()}
    except (AttributeError, TypeError, ValueError):
        raise TypeError(
            f"evaluate returned {shown(metrics)}, expected a dict of numbers, such as {{'lfw/accuracy': 0.9}}"
        ) from None


def is_evaluated(run: Path, step: int) -> bool:
    """Returns True if ``eval.jsonl`` has a row of ``step``."""
    return any(row["step"] == step for row in read_metrics(run / EVALUATIONS))


def best_value(run: Path, metric: str) -> float:
    """The metric of the best checkpoint of ``run``; minus infinity if there is none, or best.json is damaged."""
    path = run / BEST_FACTS
    if not path.exists() or not (run / BEST).exists():
        return -math.inf
    with contextlib.suppress(ValueError, LookupError, TypeError, RecursionError, OverflowError):
        facts = json.loads(path.read_text())
        value = float(facts["value"])
        if facts["metric"] == metric and math.isfinite(value) and facts["value"] is not True:
            return value
    print_stderr(f"{path}: no best checkpoint by {metric}; the next evaluation starts a new comparison")
    return -math.inf


@contextlib.contextmanager
def eval_mode(backbone: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; restores the mode and PyTorch's random state afterwards."""
    training = backbone.training
    devices = {weight.device for weight in backbone.parameters() if weight.is_cuda}
    with torch.random.fork_rng(devices=list(devices)), torch.no_grad():
        backbone.eval()
        try:
            yield
        finally:
            backbone.train(training)


class _StoppedError(BaseException):
    """Ends an evaluation. A BaseException, because ``evaluate`` may catch ``Exception``."""
