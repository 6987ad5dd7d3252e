"""What a training run does, as one validated value; saved with the run and compared on resume."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

from model.backbones import BACKBONES

_FREE = ("steps", "log_every", "save_every", "keep", "eval_every", "best")  # may change on resume


class TrainingError(Exception):
    """A run that cannot start, resume or go on. One line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The defaults are the reference's settings (Lai & Lam, ICIP 2021).

    Attributes:
        degrade: how views are made, ``fast`` or ``exact``; part of what a resumed run must repeat.
        init: ``pytorch`` as the reference, or ``data`` (see ``model.init``), which starts to learn much sooner.
        steps: updates in all.  batch_size: identities in a batch, each with one image a view.
        views: sizes the images are degraded to, px.
        milestones: fractions of ``steps`` at which the learning rate is multiplied by ``decay``.
        scale, margin: of the AM-Softmax head.  triplet_weight, triplet_margin: of the hardest-triplet loss.
        log_every: steps between log lines; None: every step in runs of up to 100 steps, else every 20.
        save_every, keep: steps between checkpoints, and how many of them stay; every evaluation has one, too.
        eval_every: steps between evaluations, where there are any.
        best: the evaluated figure by which the best checkpoint is kept, such as ``lfw/accuracy@8``; None: no such file.
    """

    backbone: str = "spherenet20"
    degrade: Literal["fast", "exact"] = "fast"
    init: Literal["pytorch", "data"] = "pytorch"
    views: tuple[int, ...] = (128, 8, 12, 16)
    batch_size: int = 128
    steps: int = 100_000
    lr: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 5e-4
    milestones: tuple[float, ...] = (0.4, 0.6, 0.8)
    decay: float = 0.1
    scale: float = 30.0
    margin: float = 0.35
    triplet_weight: float = 1.0
    triplet_margin: float = 1.0
    seed: int = 0
    log_every: int | None = None
    save_every: int = 1000
    keep: int = 3
    eval_every: int = 1000
    best: str | None = None

    def __post_init__(self) -> None:
        if self.backbone not in BACKBONES:
            raise TrainingError(f"backbone {self.backbone!r} is unknown; choose from {', '.join(BACKBONES)}")
        if self.init not in ("pytorch", "data"):
            raise TrainingError(f"init {self.init!r} is unknown; choose pytorch or data")
        if self.init == "data" and BACKBONES[self.backbone].batch_norm:
            raise TrainingError(f"init data is for spherenets; {self.backbone} has batch normalisation: choose pytorch")
        for name in ("batch_size", "steps", "lr", "save_every", "keep", "eval_every", "scale"):
            if not 0 < getattr(self, name) < math.inf:
                raise TrainingError(f"{name} is {getattr(self, name)}; expected a finite number above 0")
        if self.log_every is not None and self.log_every <= 0:
            raise TrainingError(f"log_every is {self.log_every}; expected more than 0")
        if not self.views or min(self.views) < 2:
            raise TrainingError(f"views are {self.views}; expected sizes of at least 2 px")

    @property
    def logged_every(self) -> int:
        """Steps between log lines."""
        return self.log_every or (1 if self.steps <= 100 else 20)

    def learning_rate(self, step: int) -> float:
        """The learning rate of update number ``step``, counted from 0."""
        passed = sum(step >= round(milestone * self.steps) for milestone in self.milestones)
        return self.lr * self.decay**passed

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-able fields."""
        return {
            name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(self).items()
        }

    def check_resumes(self, saved: dict[str, Any]) -> None:
        """Raises: TrainingError: ``saved`` differs in more than how long to run and what to log, save and evaluate."""
        for name, value in self.to_dict().items():
            if name not in _FREE and saved.get(name) != value:
                raise TrainingError(
                    f"{name} was {saved.get(name)} when this run started, now it is {value}; choose another --out for a new run"
                )
