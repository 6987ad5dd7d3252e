"""TrainConfig: all settings of a training run, parsed and validated once; saved with the run and compared on resume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, get_args

from model.options import Choice, OptionError, Options, option, parse_choice
from model.training.schedule import Schedule
from model.training.views import View
from shards.errors import LrfrError

if TYPE_CHECKING:  # these import torch, which `train --help` does not need
    from model.heads import HeadOptions
    from model.losses.terms import Losses
    from model.training.optimizers import OptimizerOptions

Init = Literal["pytorch", "data"]
Triplets = Literal["global", "rank"]
Degrade = Literal["exact", "fast"]
Precision = Literal["fp32", "bf16"]


class TrainingError(LrfrError):
    """A run that cannot start, resume or continue."""


def parse_backbone(text: str) -> Choice:
    """Reads text such as ``spherenet20:pooling=true``. Raises: OptionError: it is not valid."""
    from model.backbones import check_backbone

    choice = parse_choice(text)
    check_backbone(choice.name, **choice.options)
    return choice


class TrainConfig(Options):
    """Settings of a training run; the defaults are those of the reference (Lai & Lam, ICIP 2021).

    Settings are given as values or as text: ``TrainConfig(head="arcface:scale=32", steps=1000)``. The command-line
    options of ``train`` are derived from the fields.

    Raises:
        OptionError: unknown setting or name, or an invalid value.
    """

    kind = "train"
    backbone: Choice = option(
        "spherenet20",
        parse="model.training.config:parse_backbone",
        help="Network, such as ir50 or spherenet20:pooling=true; 'help' lists them.",
    )
    pretrained: str | None = option(
        None,
        type=str,
        flag="--from",
        metavar="CHECKPOINT",
        help="Fine-tune: start from the weights of this network, with a new head.",
    )
    freeze: int = option(0, help="Stages of the backbone, from the first, that keep the weights of --from.")
    init: Init = option(
        "pytorch", choices=get_args(Init), help="Initial weights: PyTorch's, or fitted to the first batch (spherenets)."
    )
    head: HeadOptions = option(
        "amsoftmax", parse="model.heads:HEADS.parse", help="Head, such as arcface:scale=32; 'help' lists them."
    )
    losses: Losses = option(
        "cross-entropy+hardest-triplet",
        parse="model.losses.terms:parse_losses",
        metavar="TERM+TERM",
        help="Loss terms, such as focal:gamma=2+octuplet:weight=0.5; 'help' lists them.",
    )
    triplets: Triplets = option(
        "global", choices=get_args(Triplets), help="Scope of the metric loss: the whole batch, or each process's part."
    )
    shard_head: bool = option(
        False, fixed=False, help="Distribute the classes over the processes: less memory for many identities."
    )
    views: tuple[View, ...] = option(
        "128,8,12,16",
        parse="model.training.views:parse_views",
        metavar="SIZE,SIZE",
        help="Sizes in px that the images of an identity are degraded to, such as 128,8-32,12x2.",
    )
    degrade: Degrade = option(
        "exact", choices=get_args(Degrade), help="exact: equal to Pillow; fast: within 3 grey levels, faster on CPUs."
    )
    batch_size: int = option(128, min=1, help="Identities in a batch over all processes, each with one image per view.")
    steps: int = option(100_000, min=1, fixed=False, help="Total number of updates.")
    optimizer: OptimizerOptions = option(
        "sgd",
        parse="model.training.optimizers:OPTIMIZERS.parse",
        help="Optimizer, such as sgd:momentum=0.9 or adamw; 'help' lists them.",
    )
    lr: float = option(0.1, min_open=True, help="Peak learning rate.")
    weight_decay: float = option(5e-4, help="Weight decay, applied to all weights.")
    schedule: Schedule = option(
        "step",
        parse="model.training.schedule:SCHEDULES.parse",
        help="Learning rate schedule, such as cosine:warmup=0.05; 'help' lists them.",
    )
    ema: float = option(
        0.0, max=1, max_open=True, help="Decay of averaged weights, which are evaluated and exported; 0: none."
    )
    precision: Precision = option("fp32", choices=get_args(Precision), help="Precision of the backbone.")
    compile: bool = option(False, fixed=False, help="Compile the backbone with torch.compile.")
    seed: int = option(0, max=(1 << 32) - 1, help="Seed of the weights and of the batches.")
    log_every: int | None = option(
        None, type=int, min=1, fixed=False, help="Steps between log lines. [default: 1 up to 100 steps, else 20]"
    )
    save_every: int = option(1000, min=1, fixed=False, help="Steps between checkpoints.")
    keep: int = option(3, min=1, fixed=False, help="Checkpoints to keep.")
    eval_every: int = option(
        1000, min=1, fixed=False, help="Steps between evaluations; the first is before the first step."
    )
    best: str | None = option(
        None,
        type=str,
        fixed=False,
        metavar="NAME/METRIC",
        help="Keep best.pt, the checkpoint with the highest value of this metric."
        " [default: the headline metric of the first benchmark, such as lfw/accuracy@8]",
    )

    def check(self) -> None:
        from model.backbones import BACKBONES

        if self.init == "data" and BACKBONES[self.backbone.name].batch_norm:
            name = self.backbone.name
            raise OptionError(f"init data is for spherenets; {name} has batch normalisation: choose pytorch")
        if self.pretrained is None and self.freeze:
            raise OptionError(
                f"freeze is {self.freeze}, but no weights are given to keep; name a checkpoint with --from"
            )
        if self.pretrained is not None and self.init != "pytorch":
            raise OptionError(
                f"init {self.init} is for new weights, but --from {self.pretrained} gives weights: add --init pytorch"
            )

    @property
    def all_views(self) -> tuple[View, ...]:
        """One view for each image of an identity."""
        return tuple(View(view.low, view.high) for view in self.views for _ in range(view.count))

    @property
    def log_interval(self) -> int:
        """Steps between log lines."""
        return self.log_every or (1 if self.steps <= 100 else 20)

    def learning_rate(self, step: int) -> float:
        """The learning rate of update number ``step``, counted from 0."""
        return self.lr * self.schedule.factor_at(step, self.steps)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able settings, which ``TrainConfig`` reads back."""
        return {name: _plain(value) for name, value in self.values().items()}

    def check_resumes(self, saved: Mapping[str, Any]) -> None:
        """Raises: TrainingError: a setting of the ``saved`` configuration that must not change has changed."""
        for name, declared in self.declared().items():
            if declared.fixed and not self._same(name, saved.get(name)):
                change = f"{name} was {saved.get(name)} when this run started, now it is {_plain(getattr(self, name))}"
                raise TrainingError(f"{change}; choose another --out for a new run")

    def _same(self, name: str, saved: Any) -> bool:
        try:
            return self.converted({name: saved})[name] == getattr(self, name)
        except LrfrError:  # e.g. an option of another version
            return False


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return value if value is None or isinstance(value, bool | int | float) else str(value)
