"""TrainConfig: all settings of a training run, parsed and validated once; saved with the run and compared on resume."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal, get_args

from model.options import Choice, OptionError, Options, option, plain_value
from model.training.schedule import Schedule
from model.training.views import View
from shards.errors import LrfrError
from shards.messages import counted

if TYPE_CHECKING:  # these import torch, which `train --help` does not need
    from model.heads import HeadOptions
    from model.losses.terms import Losses
    from model.training.optimizers import OptimizerOptions

Init = Literal["pytorch", "data", "insightface", "adaface", "reference"]
ClassRows = Literal["reference", "adaface", "insightface"]
Triplets = Literal["global", "rank"]
Degrade = Literal["exact", "fast"]
Precision = Literal["fp32", "bf16", "fp16"]
Order = Literal["random", "sequential"]
_ADDED = ("teacher", "teacher_preprocessing", "order", "window")  # settings that are stated only if they are set


class TrainingError(LrfrError):
    """A run that cannot start, resume or continue."""


class TrainConfig(Options):
    """Settings of a training run; the defaults are those of the reference (Lai & Lam, APSIPA ASC 2021).

    Settings are given as values or as text: ``TrainConfig(head="arcface:scale=32", steps=1000)``. The command-line
    options of ``train`` are derived from the fields.

    Raises:
        OptionError: unknown setting or name, or an invalid value.
    """

    kind = "train"
    backbone: Choice = option(
        "spherenet20",
        parse="model.backbones:parse_backbone",
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
        "pytorch",
        choices=get_args(Init),
        help="Initial weights: PyTorch's, fitted to the first batch (data, for spherenets), or those of a project.",
    )
    head: HeadOptions = option(
        "amsoftmax", parse="model.heads:HEADS.parse", help="Head, such as arcface:scale=32; 'help' lists them."
    )
    class_rows: ClassRows = option(
        "reference",
        choices=get_args(ClassRows),
        changes="always",
        help="Initial class weights of a cosine head, as that project has them: rows of length 13, 1 or 0.23.",
    )
    losses: Losses = option(
        "cross-entropy+hardest-triplet",
        parse="model.losses.terms:parse_losses",
        metavar="TERM+TERM",
        help="Loss terms, such as focal:gamma=2+octuplet:weight=0.5; 'help' lists them.",
    )
    teacher: str | None = option(
        None,
        type=str,
        changes="always",
        metavar="NETWORK",
        help="Teacher of the distill losses: any network that --network takes. Its embeddings at full size are computed"
        " once for a shard set, and cached.",
    )
    teacher_preprocessing: str | None = option(
        None,
        type=str,
        changes="always",
        metavar="NAME|FILE.toml",
        help="How the teacher sees a face, as --preprocessing of bench. [default: as it states, or usual for its format]",
    )
    triplets: Triplets = option(
        "global",
        choices=get_args(Triplets),
        changes="branch",
        help="Scope of the metric loss: the whole batch, or each process's part.",
    )
    shard_head: bool = option(
        False, changes="always", help="Shard the classes over the processes: less memory for many identities."
    )
    views: tuple[View, ...] = option(
        "128,8,12,16",
        parse="model.training.views:parse_views",
        metavar="SIZE,SIZE",
        help="Sizes in px that the images of an identity are degraded to, such as 128,8-32,12x2; 8-32@surveillance,"
        " @webcam, @blind-sr or @FILE.toml: realistic degradation.",
    )
    degrade: Degrade = option(
        "exact",
        choices=get_args(Degrade),
        changes="branch",
        help="exact: equal to Pillow; fast: within 3 grey levels, faster on CPUs.",
    )
    batch_size: int = option(128, min=1, help="Identities in a batch over all processes, each with one image per view.")
    order: Order = option(
        "random",
        choices=get_args(Order),
        help="random: images from the whole set; sequential: from a few shards at a time, for sets larger than the disk,"
        " built with build-shards --group.",
    )
    window: int = option(16, min=1, help="Number of shards that --order sequential draws from at a time. [default: 16]")
    steps: int = option(100_000, min=1, changes="always", help="Total number of updates.")
    optimizer: OptimizerOptions = option(
        "sgd",
        parse="model.training.optimizers:OPTIMIZERS.parse",
        help="Optimizer, such as sgd:momentum=0.9 or adamw; 'help' lists them.",
    )
    lr: float = option(0.1, min_open=True, changes="branch", help="Peak learning rate.")
    weight_decay: float = option(5e-4, changes="branch", help="Weight decay, applied to all weights.")
    schedule: Schedule = option(
        "step",
        parse="model.training.schedule:SCHEDULES.parse",
        changes="branch",
        help="Learning rate schedule, such as cosine:warmup=0.05; 'help' lists them.",
    )
    ema: float = option(
        0.0,
        max=1,
        max_open=True,
        changes="branch",
        help="Decay of the moving average of the weights, which is evaluated and exported, such as 0.9995 (about the last"
        " 2,000 steps). It rises from 0.2: min(EMA, (1 + t) / (10 + t)) in update t. 0: no average.",
    )
    clip_norm: float = option(
        0.0, changes="branch", help="Clip the L2 norm of the gradient of all weights to this value. 0: no clipping."
    )
    precision: Precision = option(
        "fp32",
        choices=get_args(Precision),
        changes="branch",
        help="Precision of the backbone. fp16, for GPUs without bf16, scales the loss.",
    )
    accumulate: int = option(
        1,
        min=1,
        changes="always",
        help="Gradient accumulation: the backbone processes a batch in this many parts. Less memory; the same losses and"
        " updates, except that batch normalisation uses the statistics of each part.",
    )
    activation_checkpointing: bool = option(
        False, changes="always", help="Recompute activations in the backward pass: less memory, the same updates."
    )
    max_skipped: int = option(
        0,
        changes="always",
        help="How many steps to skip whose loss or gradient is not finite, before the run ends with an error.",
    )
    compile: bool = option(False, changes="always", help="Compile the backbone with torch.compile.")
    seed: int = option(0, max=(1 << 32) - 1, help="Seed of the weights and of the batches.")
    log_every: int | None = option(
        None, type=int, min=1, changes="always", help="Steps between log lines. [default: 1 up to 100 steps, else 20]"
    )
    save_every: int = option(1000, min=1, changes="always", help="Steps between checkpoints.")
    keep: int = option(3, min=1, changes="always", help="Checkpoints to keep.")
    eval_every: int = option(
        1000, min=1, changes="always", help="Steps between evaluations; the first is before the first step."
    )
    best: str | None = option(
        None,
        type=str,
        changes="always",
        metavar="NAME/METRIC",
        help="Keep best.pt, the checkpoint with the highest value of this metric, such as lfw/accuracy@8,"
        " xqlfw/accuracy, scface/rank1@d1, qmul/auc, qmul-id/auc, tinyface/rank1; eval.jsonl has all names."
        " [default: the headline metric of the first benchmark, one of these]",
    )

    def check(self) -> None:
        from model.backbones import BACKBONES
        from model.losses.terms import Octuplet

        batch_norm, metric = BACKBONES[self.backbone.name].batch_norm, self.losses.metric
        self._check_start(batch_norm=batch_norm)
        self._check_teacher()
        self._check_batch(batch_norm=batch_norm)
        if isinstance(metric, Octuplet) and metric.form == "authors" and len(self.views) < 2:
            raise OptionError("losses octuplet:form=authors compares views, but views has one; add one, such as 8")
        if self.order == "random" and self.window != self._default("window"):
            raise OptionError(f"window {self.window} is for order sequential: add --order sequential, or leave it out")
        if self.activation_checkpointing and self.compile:
            raise OptionError("activation_checkpointing and compile exclude each other; leave one out")

    def _check_start(self, *, batch_norm: bool) -> None:
        """Validates the options of the initial weights. Raises: OptionError."""
        name = self.backbone.name
        if self.pretrained is not None and self.init != "pytorch":
            raise OptionError(
                f"init {self.init} is for new weights, but --from {self.pretrained} gives weights: add --init pytorch"
            )
        if self.init == "data" and batch_norm:
            raise OptionError(f"init data is for spherenets; {name} has batch normalisation: choose pytorch")
        if self.init not in ("pytorch", "data") and not batch_norm:
            raise OptionError(
                f"init {self.init} is for networks with batch normalisation; {name} has none: choose pytorch"
            )
        if self.init == "data" and self.class_rows == "insightface":
            raise OptionError("init data gives class rows the length 1, but class_rows is insightface: choose adaface")
        if self.pretrained is None and self.freeze:
            raise OptionError(
                f"freeze is {self.freeze}, but no weights are given to keep; name a checkpoint with --from"
            )

    def _check_teacher(self) -> None:
        """Validates that there is a teacher if and only if there is a loss for it. Raises: OptionError."""
        if self.losses.distill and self.teacher is None:
            raise OptionError("losses has distill, but there is no teacher: name a network with --teacher")
        if self.teacher is not None and not self.losses.distill:
            raise OptionError(
                f"teacher is {self.teacher}, but no loss is for it: add +distill to --losses, such as {self.losses}+distill"
            )
        if self.losses.attention and self.compile:
            raise OptionError("losses distill:form=attention and compile exclude each other; leave one out")
        if self.teacher_preprocessing is not None and self.teacher is None:
            raise OptionError("teacher_preprocessing is for a teacher: name a network with --teacher")

    def _check_batch(self, *, batch_norm: bool) -> None:
        """Validates the number of images in a batch and its parts. Raises: OptionError."""
        if self.batch_size * len(self.all_views) < 2 and (batch_norm or self.init == "data"):
            needs = f"{self.backbone.name} has batch normalisation" if batch_norm else "init data fits the first batch"
            raise OptionError(f"a batch is one image, but {needs}, which needs two: raise batch_size, or add a view")
        images = (self.batch_size // self.accumulate) * len(self.all_views)
        if self.accumulate > self.batch_size or (batch_norm and images < 2):
            raise OptionError(
                f"accumulate is {self.accumulate} for {counted(self.batch_size, 'identity')}: a part needs"
                f" {'two images' if batch_norm else 'one image'} at least; choose fewer parts"
            )

    def __repr__(self) -> str:
        """The settings that differ from the defaults, as Python."""
        plain, defaults = self.to_dict(), TrainConfig().to_dict()
        return f"TrainConfig({', '.join(f'{name}={value!r}' for name, value in plain.items() if value != defaults.get(name))})"

    __str__ = __repr__

    @classmethod
    def _default(cls, name: str) -> object:
        return cls.declared()[name].default

    @property
    def shard_window(self) -> int | None:
        """Shards from which a batch is drawn; None for the whole set."""
        return self.window if self.order == "sequential" else None

    @property
    def all_views(self) -> tuple[View, ...]:
        """One view for each image of an identity."""
        return tuple(dataclasses.replace(view, count=1) for view in self.views for _ in range(view.count))

    @property
    def log_interval(self) -> int:
        """Steps between log lines."""
        return self.log_every or (1 if self.steps <= 100 else 20)

    def learning_rate(self, step: int) -> float:
        """The learning rate of update number ``step``, counted from 0."""
        return self.lr * self.schedule.factor_at(step, self.steps)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able settings, which ``TrainConfig`` reads back."""
        plain = {name: plain_value(value) for name, value in self.values().items()}
        return {name: value for name, value in plain.items() if name not in _ADDED or value != self._default(name)}

    @property
    def less_memory(self) -> str:
        """What to lower when memory does not suffice."""
        images = counted(len(self.all_views), "image")
        remedies = [f"lower --batch-size ({counted(self.batch_size, 'identity')} with {images} each)"]
        if len(self.all_views) > 1:
            remedies.append("use fewer --views")
        if self.accumulate < self.batch_size:
            remedies.append(f"raise --accumulate (it is {self.accumulate})")
        if not (self.activation_checkpointing or self.compile):
            remedies.append("use --activation-checkpointing")
        if self.precision == "fp32":
            remedies.append("use --precision bf16")
        if not self.shard_head:
            remedies.append("with several processes and many identities, use --shard-head")
        return "; ".join(remedies)
