"""Learner: backbone, head and losses as one module."""

from __future__ import annotations

import contextlib
import dataclasses

import torch
from torch import nn

from model.backbones import EMBEDDING_SIZE, build_backbone
from model.inputs import normalise
from model.losses.functional import view_means
from model.losses.terms import Octuplet
from model.training.attention import AttentionTransfer
from model.training.batch_norm import global_batch_norm
from model.training.config import TrainConfig
from model.training.dropout import global_dropout
from model.training.init import initialise_as
from model.training.prelu import use_chunked_prelu
from model.training.ranks import Ranks
from model.training.recompute import recomputed
from model.training.teacher import Teacher
from pipeline.spec import Preprocessing

LossParts = dict[str, torch.Tensor]
_AUTOCAST_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclasses.dataclass(frozen=True)
class StepInputs:
    """A rank's part of a batch, on the device that trains.

    Attributes:
        images: (V, b, S, S, 3) uint8.
        labels: (b,) int64.
        targets: (V, b, D) float32, the teacher's embeddings of the images.
        originals: (V, b, S, S, 3) uint8, the images before their degradation.
    """

    images: torch.Tensor
    labels: torch.Tensor
    targets: torch.Tensor | None = None
    originals: torch.Tensor | None = None


class Learner(nn.Module):
    """Computes the loss of the global batch from each rank's part of it.

    Args:
        classes: number of identities.
        preprocessing: spec of the images.
        device: the device that the learner will be moved to.
        teacher: the network of ``config.teacher``.

    Raises:
        OptionError: the losses compare feature maps with a teacher that has others.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        classes: int,
        preprocessing: Preprocessing,
        device: str = "cpu",
        ranks: Ranks | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        super().__init__()
        ranks = ranks or Ranks()
        self.config, self.preprocessing, self.classes, self._ranks = config, preprocessing, classes, ranks
        backbone = build_backbone(config.backbone.name, image_size=preprocessing.size, **config.backbone.options)
        if config.init not in ("pytorch", "data"):  # data: with the first batch
            initialise_as(config.init, backbone)
        backbone = global_batch_norm(ranks, use_chunked_prelu(backbone) if device == "cpu" else backbone, device)
        self.backbone = global_dropout(ranks, backbone, views=len(config.all_views))
        group = ranks.group if config.shard_head else None
        self.head = config.head.build(features=EMBEDDING_SIZE, classes=classes, rows=config.class_rows, group=group)
        self.head.requires_grad_(config.losses.criterion is not None)
        if config.losses.center:
            self.center = config.losses.center.build(features=EMBEDDING_SIZE, classes=classes, group=group)
        compares_maps = config.losses.attention is not None
        self._attention = AttentionTransfer(self.backbone, preprocessing, teacher, device) if compares_maps else None
        self._compiled = (torch.compile(self.backbone),) if config.compile else ()  # a tuple: not a second submodule

    @property
    def rank_local_prefixes(self) -> tuple[str, ...]:
        """Name prefixes of the parameters and buffers that differ between ranks."""
        return ("head.", "center.") if self.head.group is not None else ()

    @property
    def idle_metric(self) -> str | None:
        """The metric loss, if it is idle because a batch has one image of each identity."""
        metric = self.config.losses.metric
        return metric.name if metric and len(self.config.all_views) == 1 else None

    @property
    def remarks(self) -> list[str]:
        """What a user may not expect of these settings, a line each."""
        metric, views = self.config.losses.metric, self.config.views
        found = []
        if self.idle_metric:
            found.append(f"one image of each identity: {self.idle_metric} adds nothing to the loss")
        elif isinstance(metric, Octuplet):
            if views[0].high < max(view.high for view in views):
                found.append(
                    f"octuplet: its high resolution is the first view, {views[0].name} px; name the largest first"
                )
            if metric.form == "authors" and all(view.count == 1 for view in views):
                found.append(
                    "octuplet: its authors' form has positives only among several images of an identity in a view:"
                    " take two, such as --views 128x2,8x2"
                )
        if self.config.triplets == "rank" and not metric:
            found.append("triplets rank: is the scope of a metric loss, and there is none")
        if not self.config.losses.criterion:
            found.append("no criterion: the head learns nothing")
        elif not self.config.head.cosine and self.config.class_rows != "reference":
            found.append(
                f"class_rows {self.config.class_rows} is for heads of cosines; {self.config.head.name} starts like a linear layer"
            )
        if self.classes == 1 and not self.config.losses.distill:
            found.append("one identity: there are no others to tell it from, so nothing is learnt")
        return found

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """(V, b, S, S, 3) uint8 -> (V*b, 3, S, S) float32, view after view."""
        spec = self.preprocessing
        return normalise(images.flatten(0, 1), spec.mean, spec.std, color=spec.color)

    def forward(self, inputs: StepInputs) -> tuple[torch.Tensor, LossParts]:
        """The inputs of this rank -> scalar loss of the global batch, and its parts by name.

        The part of ``distill:form=attention`` is that of this rank; its mean over the ranks is that of the batch.
        """
        features, distances = self.features(inputs.images, inputs.originals)
        loss, parts = self.loss(features, inputs.labels, len(inputs.images), inputs.targets)
        if distances is None:
            return loss, parts
        attention, attention_parts = self.attention_loss(distances, len(inputs.images))
        return loss + attention, parts | attention_parts

    def features(
        self, images: torch.Tensor, originals: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(V, b, S, S, 3) uint8 -> (V*b, D) float32 embeddings, view after view.

        Returns:
            With ``originals``, also (V*b,) distances between the attention maps of student and teacher.
        """
        dtype = _AUTOCAST_DTYPES.get(self.config.precision)
        compares = None if originals is None else self._attention
        backbone = self._compiled[0] if self._compiled else self.backbone
        with contextlib.ExitStack() as stack:
            stack.enter_context(torch.autocast(images.device.type, dtype, enabled=dtype is not None))
            stack.enter_context(recomputed(self.backbone, self.config.activation_checkpointing))
            maps = stack.enter_context(compares.student_maps()) if compares else []
            embedded: torch.Tensor = backbone(self.inputs(images)).float()
            if compares is None or originals is None:
                return embedded, None
            return embedded, compares.distances(maps, originals)

    def attention_loss(self, distances: torch.Tensor, views: int) -> tuple[torch.Tensor, LossParts]:
        """(V*b,) distances of attention maps, view after view -> their weighted mean, and its parts by name."""
        term = self.config.losses.attention
        assert term is not None
        values = view_means(distances, views)
        return term.weight * values.mean(), self._by_view(term.label, values)

    def loss(
        self, local_features: torch.Tensor, labels: torch.Tensor, views: int, targets: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, LossParts]:
        """(V*b, D) float32 and (b,) int64 of this rank -> scalar loss of the global batch, and its parts by name."""
        losses = self.config.losses
        local_labels = labels.repeat(views)
        features, labels = self._ranks.gather(local_features, views), self._ranks.gather(local_labels, views)
        loss, parts = features.new_zeros(()), LossParts()

        if losses.criterion:
            view_losses = losses.criterion(self.head(features, labels), views)
            loss, parts = view_losses.mean(), self._by_view(losses.criterion.label, view_losses)
        if losses.metric and not self.idle_metric:
            in_rank = self.config.triplets == "rank"
            embedded, identities = (local_features, local_labels) if in_rank else (features, labels)
            value = losses.metric(embedded, identities, [view.count for view in self.config.views])
            loss, parts[losses.metric.name] = loss + losses.metric.weight * value, value.detach()
        if losses.center:
            value = self.center(features, labels).mean()
            loss, parts["center"] = loss + value, value.detach()
        if losses.embedding_terms:
            if targets is None:
                raise TypeError("targets is None, but a term of the losses compares embeddings with a teacher's")
            goals = self._ranks.gather(targets.flatten(0, 1), views)
            for term in losses.embedding_terms:
                values = term(features, goals, views)
                loss = loss + term.weight * values.mean()
                parts |= self._by_view(term.label, values) if values.dim() else {term.label: values.detach()}
        return loss, parts

    def _by_view(self, label: str, view_losses: torch.Tensor) -> LossParts:
        """Mean losses by name, such as ``ce@8``; views of the same sizes are averaged."""
        found: dict[str, list[torch.Tensor]] = {}
        for view, value in zip(self.config.all_views, view_losses.detach(), strict=True):
            found.setdefault(f"{label}@{view.name}", []).append(value)
        return {name: torch.stack(values).mean() for name, values in found.items()}
