"""What a training run does, as one validated value; saved with the run and compared on resume."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Literal

from model.backbones import BACKBONES, check_backbone
from model.choice import Choice, parse_choice
from model.heads import resolved_head
from model.losses.terms import TERMS, parse_losses
from model.training.optimizers import resolved_optimizer
from model.training.schedule import rate_share, resolved_schedule
from model.training.views import View, parse_views
from shards.errors import LrfrError

# may change on resume: how long, how it is watched, and how the work is spread
_FREE = ("steps", "log_every", "save_every", "keep", "eval_every", "best", "shard_head", "compile")
_POSITIVE = ("batch_size", "steps", "lr", "save_every", "keep", "eval_every")


class TrainingError(LrfrError):
    """A run that cannot start, resume or go on. One line."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The defaults are the reference's settings (Lai & Lam, ICIP 2021).

    Choices are text such as ``arcface:scale=32``; what is left out is filled in, so that a saved configuration says all.

    Attributes:
        backbone, head, optimizer, schedule: choices.  losses: choices, added up with ``+``.
        pretrained: checkpoint whose backbone the run starts from; None: from scratch.
        freeze: stages of the backbone, from the first, that keep their weights.
        init: ``pytorch`` as the reference, or ``data`` (see ``model.training.init``), which starts to learn much sooner.
        views: see ``parse_views``.  batch_size: identities in a batch, each with one image a view.
        degrade: how views are made, ``exact`` or ``fast``; part of what a resumed run must repeat.
        triplets: metric losses over the ``global`` batch, or over each ``rank``'s part of it.
        shard_head: the classes are shared among the ranks; changes memory and time, not the result.
        steps: updates in all.  lr: at the peak of the schedule.
        ema: decay of the averaged weights that are evaluated and exported; 0: there are none.
        precision: of the backbone's products.  compile: ``torch.compile`` it.
        log_every: steps between log lines; None: every step in runs of up to 100 steps, else every 20.
        save_every, keep: steps between checkpoints, and how many of them stay; every evaluation has one, too.
        eval_every: steps between evaluations, where there are any.
        best: the evaluated figure by which the best checkpoint is kept, such as ``lfw/accuracy@8``; None: no such file.
    """

    backbone: str = "spherenet20"
    pretrained: str | None = None
    freeze: int = 0
    init: Literal["pytorch", "data"] = "pytorch"
    head: str = "amsoftmax"
    losses: str = "cross-entropy+hardest-triplet"
    triplets: Literal["global", "rank"] = "global"
    shard_head: bool = False
    views: str = "128,8,12,16"
    degrade: Literal["exact", "fast"] = "exact"
    batch_size: int = 128
    steps: int = 100_000
    optimizer: str = "sgd"
    lr: float = 0.1
    weight_decay: float = 5e-4
    schedule: str = "step"
    ema: float = 0.0
    precision: Literal["fp32", "bf16"] = "fp32"
    compile: bool = False
    seed: int = 0
    log_every: int | None = None
    save_every: int = 1000
    keep: int = 3
    eval_every: int = 1000
    best: str | None = None

    def __post_init__(self) -> None:
        for name, words in _words().items():
            if getattr(self, name) not in words:
                raise TrainingError(f"{name} is {getattr(self, name)!r}; choose from {', '.join(words)}")
        for name in _POSITIVE:
            self._check_number(name, least=0, with_least=False)
        for name in ("weight_decay", "freeze"):
            self._check_number(name, least=0)
        if not 0 <= self.ema < 1:
            raise TrainingError(f"ema is {self.ema}; expected a decay of 0 or more, below 1, such as 0.999")
        if self.log_every is not None:
            self._check_number("log_every", least=0, with_least=False)
        self._resolve()
        self._check_together()

    def _check_number(self, name: str, *, least: float, with_least: bool = True) -> None:
        value = getattr(self, name)
        if not (least <= value if with_least else least < value) or not value < math.inf:
            raise TrainingError(
                f"{name} is {value}; expected a finite number {'of at least' if with_least else 'above'} {least:g}"
            )

    def _resolve(self) -> None:
        """Choices in full."""
        resolved = {
            "head": resolved_head(parse_choice(self.head)),
            "optimizer": resolved_optimizer(parse_choice(self.optimizer)),
            "schedule": resolved_schedule(parse_choice(self.schedule)),
            "losses": "+".join(map(str, parse_losses(self.losses))),
        }
        for name, value in resolved.items():
            object.__setattr__(self, name, str(value))
        check_backbone(self.chosen_backbone.name, **self.chosen_backbone.options)

    def _check_together(self) -> None:
        parse_views(self.views)
        if self.init == "data" and BACKBONES[self.chosen_backbone.name].batch_norm:
            raise TrainingError(
                f"init data is for spherenets; {self.chosen_backbone.name} has batch normalisation: choose pytorch"
            )
        if self.pretrained is None and self.freeze:
            raise TrainingError(f"freeze is {self.freeze}, but no weights are given to keep; name them with pretrained")
        if self.pretrained is not None and self.init != "pytorch":
            raise TrainingError(f"init is {self.init!r}, but the weights come from {self.pretrained}; leave init out")

    @property
    def chosen_backbone(self) -> Choice:
        return parse_choice(self.backbone)

    @property
    def chosen_head(self) -> Choice:
        return parse_choice(self.head)

    @property
    def chosen_optimizer(self) -> Choice:
        return parse_choice(self.optimizer)

    @property
    def chosen_losses(self) -> dict[str, Choice]:
        """The terms by their kind: ``criterion`` always, ``metric`` and ``center`` where asked for."""
        return {TERMS[term.name].kind: term for term in parse_losses(self.losses)}

    @property
    def all_views(self) -> tuple[View, ...]:
        """One view for each image of an identity."""
        return parse_views(self.views)

    @property
    def logged_every(self) -> int:
        """Steps between log lines."""
        return self.log_every or (1 if self.steps <= 100 else 20)

    def learning_rate(self, step: int) -> float:
        """The learning rate of update number ``step``, counted from 0."""
        return self.lr * rate_share(parse_choice(self.schedule), step, self.steps)

    def to_dict(self) -> dict[str, Any]:
        """The configuration as JSON-able fields."""
        return dataclasses.asdict(self)

    def check_resumes(self, saved: dict[str, Any]) -> None:
        """Raises: TrainingError: ``saved`` differs in more than how long to run and what to log, save and evaluate."""
        for name, value in self.to_dict().items():
            if name not in _FREE and saved.get(name) != value:
                raise TrainingError(
                    f"{name} was {saved.get(name)} when this run started, now it is {value}; choose another --out for a new run"
                )


def _words() -> dict[str, tuple[str, ...]]:
    return {
        "init": ("pytorch", "data"),
        "triplets": ("global", "rank"),
        "degrade": ("exact", "fast"),
        "precision": ("fp32", "bf16"),
    }
