"""What learns: backbone, head and losses; images and labels in, loss and its parts out."""

from __future__ import annotations

import torch
from torch import nn

from model.backbones import EMBEDDING_SIZE, build_backbone
from model.choice import Choice
from model.heads import build_head
from model.heads.scores import ClassScores
from model.inputs import normalise
from model.losses.center import build_center_loss
from model.losses.functional import cross_entropy, focal, hardest_triplet, octuplet, view_means
from model.training.config import TrainConfig
from model.training.prelu import prelu_in_pieces
from model.training.ranks import Ranks, batch_norm_over
from pipeline.spec import Preprocessing

Parts = dict[str, torch.Tensor]


class Learner(nn.Module):
    """The network of a run with its losses, on the whole batch of all ranks.

    Args:
        classes: identities.  preprocessing: spec of the images.  device: where it will be moved.
    """

    def __init__(
        self,
        config: TrainConfig,
        *,
        classes: int,
        preprocessing: Preprocessing,
        device: str = "cpu",
        ranks: Ranks | None = None,
    ) -> None:
        super().__init__()
        ranks = ranks or Ranks()
        self.config, self.preprocessing, self.classes, self._ranks = config, preprocessing, classes, ranks
        backbone, head = config.chosen_backbone, config.chosen_head
        self._terms = config.chosen_losses
        network = build_backbone(backbone.name, image_size=preprocessing.size, **backbone.options)
        self.backbone = batch_norm_over(ranks, prelu_in_pieces(network) if device == "cpu" else network, device)
        group = ranks.group if config.shard_head else None
        self.head = build_head(head.name, features=EMBEDDING_SIZE, classes=classes, group=group, **head.options)
        if center := self._terms.get("center"):
            self.center = build_center_loss(features=EMBEDDING_SIZE, classes=classes, group=group, **center.options)
        self._compiled = (torch.compile(self.backbone),) if config.compile else ()  # in a tuple: no second submodule

    @property
    def own(self) -> tuple[str, ...]:
        """Prefixes of the parameters and buffers that differ from rank to rank."""
        return ("head.", "center.") if self.head.group is not None else ()

    @property
    def idle_term(self) -> str | None:
        """The metric loss that is asked for where a batch has one image of each identity."""
        metric = self._terms.get("metric")
        return metric.name if metric and len(self.config.all_views) == 1 else None

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """(V, b, S, S, 3) uint8 -> (V*b, 3, S, S) float32, view after view."""
        return normalise(images.flatten(0, 1), self.preprocessing.mean, self.preprocessing.std)

    def forward(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, Parts]:
        """This rank's (V, b, S, S, 3) uint8 and (b,) int64 -> the scalar loss of all; its parts by name."""
        views = len(images)
        reduced = self.config.precision == "bf16"
        with torch.autocast(images.device.type, torch.bfloat16, enabled=reduced):
            backbone = self._compiled[0] if self._compiled else self.backbone
            own = backbone(self.inputs(images)).float()
        own_labels = labels.repeat(views)
        features, labels = self._ranks.gather(own, views), self._ranks.gather(own_labels, views)
        terms = view_means(self._criterion(self.head(features, labels)), views)
        loss, parts = terms.mean(), self._by_view(terms.detach())
        if (metric := self._terms.get("metric")) and not self.idle_term:
            across = (own, own_labels) if self.config.triplets == "rank" else (features, labels)
            value = self._metric(metric, across[0], across[1], views)
            loss, parts[metric.name] = loss + metric.options["weight"] * value, value.detach()
        if "center" in self._terms:
            value = self.center(features, labels).mean()
            loss, parts["center"] = loss + value, value.detach()
        return loss, parts

    def _criterion(self, scores: ClassScores) -> torch.Tensor:
        choice = self._terms["criterion"]
        return focal(scores, **choice.options) if choice.name == "focal" else cross_entropy(scores)

    def _metric(self, choice: Choice, features: torch.Tensor, labels: torch.Tensor, views: int) -> torch.Tensor:
        margin = choice.options["margin"]
        if choice.name == "octuplet":
            return octuplet(features, labels, views, margin)
        return hardest_triplet(features, labels, margin)

    def _by_view(self, terms: torch.Tensor) -> Parts:
        """``ce@8`` and its like; views of one size together."""
        name = {"cross-entropy": "ce"}.get(self._terms["criterion"].name, self._terms["criterion"].name)
        found: dict[str, list[torch.Tensor]] = {}
        for view, value in zip(self.config.all_views, terms, strict=True):
            found.setdefault(f"{name}@{view.name}", []).append(value)
        return {name: torch.stack(values).mean() for name, values in found.items()}
