"""Evaluation during training: a run's eval.jsonl, and its best checkpoint."""

from __future__ import annotations

import contextlib
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path

import torch
from torch import nn

from model.formats.checkpoint import checkpoint_path
from model.training.config import TrainingError
from model.training.runlog import RunLog, drop_rows
from model.training.state import TrainState
from shards.files import remove_temporaries, whole_file

EVALUATIONS = "eval.jsonl"
BEST, BEST_FACTS = "best.pt", "best.json"

Evaluate = Callable[[nn.Module], dict[str, float]]
"""A backbone in evaluation mode -> figures by name, such as ``lfw/accuracy@8``. It leaves the weights where they are."""


class Evaluations:
    """Scores a backbone before the first step, every ``config.eval_every`` steps and after the last; keeps the best checkpoint.

    The first one shows where the curves start, and that everything evaluation needs is there before hours are spent.

    What a step's evaluation writes is written in the order best.pt, best.json, row of eval.jsonl. A step without a
    row, whether its evaluation was killed, stopped or never started, is evaluated first when the run goes on from
    there, so nothing that was half written has to be recognised. Of several ranks the first evaluates; the others
    wait for it at the next update.
    """

    def __init__(
        self,
        run: Path,
        state: TrainState,
        evaluate: Evaluate | None,
        log: RunLog,
        *,
        stopped: Callable[[], bool],
        shown: Collection[str] = (),
    ) -> None:
        """
        Args:
            stopped: whether a stop is asked for.
            shown: figures in the line on stderr, all if none is named; the best one always is.
        """
        self._run, self._state, self._evaluate, self._log, self._stopped = run, state, evaluate, log, stopped
        self._shown = shown
        self._config = state.learner.config
        self._best = -math.inf

    def begin(self, start: int) -> None:
        """Drops the rows of steps behind ``start``, reads the best figure so far, makes up for a missing evaluation.

        Raises:
            TrainingError: as ``score``; or a best is asked for where nothing is evaluated.
        """
        if self._config.best is not None and self._evaluate is None:
            raise TrainingError(f"best is {self._config.best!r}, but nothing is evaluated; leave it out, or evaluate")
        if not self._state.ranks.first:
            return
        remove_temporaries(self._run, ["*"])
        if start == 0:  # a best of another run, whose checkpoints were deleted
            (self._run / BEST_FACTS).unlink(missing_ok=True)
        if self._config.best is not None:
            self._best = best_value(self._run, self._config.best)
        scored = {row["step"] for row in drop_rows(self._run / EVALUATIONS, after=start)}
        if self.due(start) and start not in scored and (start == 0 or checkpoint_path(self._run, start).exists()):
            self.score(start)

    def due(self, step: int) -> bool:
        """Whether there is an evaluation after ``step`` updates."""
        asked = step % self._config.eval_every == 0 or step == self._config.steps
        return self._evaluate is not None and asked

    def score(self, step: int) -> None:
        """Evaluates; records the figures, and the checkpoint of ``step``, saved before, if it is the best; step 0 has none.

        When a stop is asked for the evaluation is given up, at once or at the next batch that the backbone is given.

        Raises:
            TrainingError: there is no figure of the name ``config.best``.
        """
        assert self._evaluate is not None
        if not self._state.ranks.first:
            return
        backbone = self._state.judged
        began = time.monotonic()
        with self._log.paused():
            try:
                with undisturbed(backbone), _ends_when(self._stopped, backbone):
                    figures = {name: float(value) for name, value in self._evaluate(backbone).items()}
            except _StoppedError:
                print(
                    f"eval at step {step}: not done; going on with the run does it first", file=sys.stderr, flush=True
                )
                return
            except Exception:
                if step:
                    print(
                        f"stopped at step {step}, which is saved, for its evaluation; the same command goes on with it",
                        file=sys.stderr,
                    )
                raise
            kept = self._config.best is not None and self._keep_if_best(step, self._config.best, figures)
            print(self._line(step, figures, kept, time.monotonic() - began), file=sys.stderr, flush=True)
            finite = {name: value if math.isfinite(value) else None for name, value in figures.items()}
            with open(self._run / EVALUATIONS, "a") as stream:
                stream.write(json.dumps({"step": step, **finite}) + "\n")
            self._log.scalars(step, {f"eval/{name}": value for name, value in figures.items()})

    def _line(self, step: int, figures: dict[str, float], best: bool, seconds: float) -> str:
        names = [name for name in figures if not self._shown or name in self._shown or name == self._config.best]
        parts = "  ".join(f"{name} {figures[name]:.4f}" for name in names)
        return f"eval at step {step}: {parts}{'  best so far' * best}  ({seconds:.1f} s)"

    def _keep_if_best(self, step: int, metric: str, figures: dict[str, float]) -> bool:
        """Whether it is."""
        if metric not in figures:
            raise TrainingError(
                f"best is {metric!r}, which is not evaluated; there is {', '.join(figures) or 'nothing'}"
            )
        value = figures[metric]
        if step == 0 or not (
            math.isfinite(value) and value > self._best
        ):  # the first of equals stays, also when it is done again
            return False
        with whole_file(self._run / BEST) as temporary:
            shutil.copyfile(checkpoint_path(self._run, step), temporary)
        with whole_file(self._run / BEST_FACTS) as temporary:
            temporary.write_text(json.dumps({"metric": metric, "value": value, "step": step}) + "\n")
        self._best = value
        return True


def best_value(run: Path, metric: str) -> float:
    """The figure of ``run``'s best checkpoint by ``metric``; minus infinity if there is none, or its facts are damaged."""
    path = run / BEST_FACTS
    if not path.exists() or not (run / BEST).exists():
        return -math.inf
    try:
        facts = json.loads(path.read_text())
        if facts["metric"] == metric and math.isfinite(facts["value"]):
            return float(facts["value"])
    except (ValueError, LookupError, TypeError):
        pass
    print(f"{path}: no best by {metric}; the next evaluation starts anew", file=sys.stderr)
    return -math.inf


@contextlib.contextmanager
def undisturbed(backbone: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; the mode and torch's random states of before come back at the end."""
    training = backbone.training
    devices = {weight.device for weight in backbone.parameters() if weight.is_cuda}
    with torch.random.fork_rng(devices=list(devices)), torch.no_grad():
        backbone.eval()
        try:
            yield
        finally:
            backbone.train(training)


class _StoppedError(BaseException):
    """Ends an evaluation; no ``except Exception`` on the way holds it up."""


@contextlib.contextmanager
def _ends_when(stopped: Callable[[], bool], backbone: nn.Module) -> Iterator[None]:
    """Looks at ``stopped`` now and before every batch: a signal's exception amid any line could break a library."""

    def look(*_: object) -> None:
        if stopped():
            raise _StoppedError

    look()
    hook = backbone.register_forward_pre_hook(look)
    try:
        yield
    finally:
        hook.remove()
