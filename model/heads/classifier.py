"""Heads: features to logits with one weight row per class and a margin, optionally sharded over ranks and sampled."""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np
import torch
from torch import distributed, nn
from torch.nn import functional

from model.cosine import cosines, full_precision
from model.heads.rows import INITIAL_ROWS, ClassRows, draw_rows
from model.heads.scores import ClassScores
from model.options import OptionError, Options, option
from model.sharding import Group, all_reduce_gradient
from shards.messages import counted


class HeadOptions(Options):
    """Options and margin of a head; the defaults are the paper's.

    A margin may have state in buffers, so that a resumed run continues exactly. Like the statistics of batch
    normalisation, buffers are updated in the forward pass, in training mode only; one forward pass is one step. Every
    rank sees the same batch, so all ranks have the same buffers.

    Attributes:
        cosine: whether the scores are cosines; otherwise they are dot products plus a bias.
    """

    kind = "head"
    cosine: ClassVar[bool] = True
    sample: float = option(1.0, max=1, min_open=True, help="fraction of the classes that take part in a step")
    sampling: str = option(
        "lrfr",
        choices=("lrfr", "insightface"),
        help="fraction of the classes that are not in the batch (lrfr), or of all (insightface)",
    )
    seed: int = option(0, help="seed of the samples")

    def check(self) -> None:
        if self.sampling != "lrfr" and self.sample == 1.0:
            raise OptionError(
                f"head {self.name}: sampling is {self.sampling}, but sample is 1, all classes; lower sample"
            )

    @property
    def min_classes(self) -> int:
        """Smallest number of classes."""
        return 1

    def buffers(self, classes: int) -> dict[str, torch.Tensor]:
        """Initial state of the margin."""
        return {}

    def logits(self, scores: ClassScores, norms: torch.Tensor, state: nn.Module) -> ClassScores:
        """Applies the margin.

        Gradients flow through this rank's scores only; targets gathered from other ranks have no gradient.

        Args:
            scores: cosines, or dot products plus bias.
            norms: (N,) norms of the features.
            state: module with the ``buffers``.
        """
        raise NotImplementedError

    def build(self, *, features: int, classes: int, rows: str = "reference", group: Group | None = None) -> Head:
        """Builds a head with initial weights from PyTorch's default generator, which needs the same seed on all ranks.

        Args:
            features: dimension of an embedding.
            classes: number of classes of all ranks.
            rows: initial class rows of cosines, a key of ``INITIAL_ROWS``.
            group: ranks that share the classes; None for a single process.

        Raises:
            OptionError: too few classes.
        """
        ranks = 1 if group is None else distributed.get_world_size(group)
        needed = max(self.min_classes, ranks)
        if classes < needed:
            raise OptionError(
                f"head {self.name}: {counted(classes, 'class')} on {counted(ranks, 'rank')}, expected at least {needed}; add identities"
            )
        return Head(self, features=features, classes=classes, rows=rows, group=group if ranks > 1 else None)


def scale_for(classes: int, factor: float = math.sqrt(2.0)) -> torch.Tensor:
    """``factor log(classes - 1)``, shape (): the scale of AdaCos for cosines of that many classes."""
    return torch.tensor(factor * math.log(classes - 1.0))


class Margin(nn.Module):
    """The margin of ``options`` with its state: scores and (N,) norms of the features to logits."""

    def __init__(self, options: HeadOptions, classes: int) -> None:
        super().__init__()
        self.options = options
        for name, value in options.buffers(classes).items():
            self.register_buffer(name, value)

    def forward(self, scores: ClassScores, norms: torch.Tensor) -> ClassScores:
        return self.options.logits(scores, norms, self)


class Head(ClassRows):
    """Scores of features and class weights, then a margin. Computes in float32, also under autocast.

    Initial weights are those of ``INITIAL_ROWS``; those of dot products, and their biases, are as in ``nn.Linear``.

    If sampled (``sample`` < 1), a forward pass in training mode uses the classes of its labels and some of the others:
    see ``sample_classes``. The buffer ``draws`` counts these passes; it determines the sample together with ``seed``.
    Rows outside the sample have a gradient of 0, not None, so SGD still applies their momentum and weight decay. The
    momentum fades within about ten steps, and the decay does not change a row's direction. (An et al. keep the momenta
    of sampled rows only.)

    If sharded (``group``), every rank must receive the same global features and labels; see ``model.sharding``. The
    parameters belong to this rank alone: exclude them from DistributedDataParallel, and reduce norms over the group.

    Args:
        options: margin, sampling and kind of scores.
        features: dimension of an embedding.
        classes: number of classes of all ranks.
        rows: initial class rows of cosines, a key of ``INITIAL_ROWS``.
        group: ranks that share the classes; None for a single process.

    Source: An et al., Killing two birds with one stone: Partial FC, CVPR 2022.
    """

    by_class = ("weight", "bias")
    draws: torch.Tensor

    def __init__(
        self, options: HeadOptions, *, features: int, classes: int, rows: str = "reference", group: Group | None
    ) -> None:
        super().__init__(classes, group)

        def linear(values: torch.Tensor) -> torch.Tensor:
            return values.uniform_(-1.0 / math.sqrt(features), 1.0 / math.sqrt(features))

        draw = INITIAL_ROWS[rows] if options.cosine else linear
        self.weight = nn.Parameter(draw_rows(classes, features, draw=draw, group=group))
        self.bias = None if options.cosine else nn.Parameter(draw_rows(classes, draw=linear, group=group))
        self.margin, self.options = Margin(options, classes), options
        if options.sample < 1.0:
            self.register_buffer("draws", torch.zeros((), dtype=torch.int64))

    def forward(self, features: torch.Tensor, labels: torch.Tensor) -> ClassScores:
        """Logits of this rank's classes: (N, features) float and (N,) int64 labels -> (N, K).

        Raises:
            TypeError: an argument has another type or shape.
        """
        self.check_batch(features, labels)
        with torch.autocast(features.device.type, enabled=False):
            features = all_reduce_gradient(full_precision(features), self.group)
            rows, columns = self._rows(labels)
            scores = ClassScores(values=self._similarities(features, rows), columns=columns, group=self.group)
            return self.margin(scores, torch.linalg.vector_norm(features, dim=1))

    def _rows(self, labels: torch.Tensor) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Rows of this step, None for all rows, and the positions of ``labels`` among them."""
        columns = self.columns(labels)
        if self.options.sample == 1.0 or not self.training:
            return None, columns
        options = self.options
        rows = sample_classes(
            labels, self.classes, options.sample, seed=options.seed, draw=int(self.draws), sampling=options.sampling
        )
        self.draws += 1
        rows = rows[(rows >= self.start) & (rows < self.stop)] - self.start
        return rows, torch.searchsorted(rows, columns).where(columns >= 0, -1)

    def _similarities(self, features: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
        """(N, features) and (K,) int64 rows of this rank, None for all -> (N, K) cosines, or dot products plus bias."""
        weight = _select(self.weight, rows)
        if self.bias is None:
            return cosines(features, weight)
        return functional.linear(features, full_precision(weight), full_precision(_select(self.bias, rows)))


def _select(values: torch.Tensor, rows: torch.Tensor | None) -> torch.Tensor:
    return values if rows is None else values.index_select(0, rows)


def sample_classes(
    labels: torch.Tensor, classes: int, fraction: float, *, seed: int, draw: int, sampling: str = "lrfr"
) -> torch.Tensor:
    """Samples the classes of one step: those of ``labels``, and some of the others.

    The result depends on the arguments alone, so it is the same on every rank and for any number of ranks.

    Args:
        labels: (N,) int64.
        classes: number of all classes.
        fraction: of the classes that are not in ``labels`` (``lrfr``), rounded to whole classes; or of all classes,
            those of ``labels`` included (``insightface``), rounded down, but never less than those of ``labels``.
        seed: of the run.
        draw: number of the sample.
        sampling: ``lrfr`` or ``insightface``.

    Returns:
        (S,) int64 class numbers in ascending order.

    Source: An et al., Killing two birds with one stone: Partial FC, CVPR 2022; ``arcface_torch`` of insightface.
    """
    numbers = torch.from_numpy(np.random.default_rng([seed, draw]).random(classes)).to(labels.device)
    numbers[labels] = -1.0
    positives = int((numbers < 0.0).sum())  # synchronises with the device
    kept = max(positives, int(fraction * classes))
    if sampling == "lrfr":
        kept = positives + round(fraction * (classes - positives))
    return numbers.topk(kept, largest=False).indices.sort().values
