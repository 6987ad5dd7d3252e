"""One update: gradients of the whole batch, checked, clipped and applied."""

from __future__ import annotations

import dataclasses

import torch
from torch import distributed

from model.finite import all_finite
from model.training.learner import Learner, LossParts
from model.training.ranks import Ranks
from model.training.state import TrainState, seed_step


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The loss of a step, and what is not finite in it; then no update was made."""

    loss: torch.Tensor
    parts: LossParts
    problem: str = ""
    loss_finite: bool = True


class Updater:
    """Makes updates of ``state``. Keeps the wrapper that reduces gradients over the ranks."""

    def __init__(self, state: TrainState) -> None:
        self._state, self._config = state, state.learner.config
        whole = self._config.accumulate == 1
        self._parallel = state.ranks.parallel(state.learner, state.learner.rank_local_prefixes) if whole else None

    def __call__(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        step: int,
        *,
        check: bool,
        targets: torch.Tensor | None = None,
        originals: torch.Tensor | None = None,
    ) -> Outcome:
        """Makes update number ``step``, counted from 0, from this rank's part of a batch. A collective.

        Args:
            images: (V, b, S, S, 3) uint8.
            labels: (b,) int64.
            check: leave everything as it was if the loss or a gradient is not finite. Synchronises with the device.
            targets: (V, b, D) float32, the teacher's embeddings of the images.
            originals: (V, b, S, S, 3) uint8, the images before their degradation.
        """
        learner, optimizer, guard = self._state.learner, self._state.optimizer, self._state.guard
        buffers = [buffer.clone() for buffer in learner.buffers()] if check else []  # the forward pass moves them
        optimizer.zero_grad(set_to_none=True)
        loss, parts = self._gradients(images, labels, step, targets, originals)
        gradients = [weight.grad for weight in learner.parameters() if weight.grad is not None]
        if guard.scale != 1:
            torch._foreach_mul_(gradients, 1 / guard.scale)
        if check and self._state.ranks.any(not all_finite([loss, *gradients])):
            for buffer, before in zip(learner.buffers(), buffers, strict=True):
                buffer.copy_(before)
            loss_finite = not self._state.ranks.any(not bool(loss.isfinite()))
            number = step + 1
            problem = f"a gradient of step {number} is not finite"
            if not loss_finite:
                problem = f"the loss of step {number} is {loss}"
            return Outcome(loss, parts, problem, loss_finite)
        if self._config.clip_norm:
            norm = gradient_norm(learner, self._state.ranks)
            parts = {**parts, "gradient_norm": norm}
            torch._foreach_mul_(gradients, (self._config.clip_norm / (norm + 1e-6)).clamp(max=1.0))
        optimizer.step()
        guard.accept()
        if self._state.averaged is not None:
            self._state.averaged.update_parameters(learner.backbone)
        return Outcome(loss, parts)

    def _gradients(
        self,
        images: torch.Tensor,
        labels: torch.Tensor,
        step: int,
        targets: torch.Tensor | None,
        originals: torch.Tensor | None,
    ) -> tuple[torch.Tensor, LossParts]:
        """Computes the loss of the global batch, and its gradients times the loss scale."""
        config, scale = self._config, self._state.guard.scale
        if self._parallel is None:
            return accumulate(self._state.learner, self._state.ranks, images, labels, step, scale, targets, originals)
        seed_step(config.seed, step)
        loss, parts = self._parallel(images, labels, targets, originals)
        torch.autograd.backward(loss * scale if scale != 1 else loss)
        return loss, parts


def accumulate(
    learner: Learner,
    ranks: Ranks,
    images: torch.Tensor,
    labels: torch.Tensor,
    step: int,
    scale: float,
    targets: torch.Tensor | None = None,
    originals: torch.Tensor | None = None,
) -> tuple[torch.Tensor, LossParts]:
    """Computes loss and gradients of a batch from parts that go through the backbone one after another.

    The embeddings of all parts are computed first, without what the backward pass needs. The losses of the whole batch
    give the gradients of the embeddings. Then each part goes through the backbone again, for the gradients of its
    weights. They are those of the whole batch; batch normalisation takes the statistics of each part.

    Args:
        images: (V, b, S, S, 3) uint8 of this rank.
        labels: (b,) int64.
        step: number of the update, from 0; determines dropout.
        scale: what the loss is multiplied by before its gradients are computed.
        targets: (V, b, D) float32, the teacher's embeddings of the images.
        originals: (V, b, S, S, 3) uint8, the images before their degradation.

    Returns:
        Loss and parts as ``Learner.forward``.

    Source: Gao et al., Scaling deep contrastive learning batch size under memory limited setup, RepL4NLP 2021 (GradCache).
    """
    config, views = learner.config, len(images)
    chunks = images.tensor_split(config.accumulate, dim=1)
    undegraded = [None] * len(chunks) if originals is None else originals.tensor_split(config.accumulate, dim=1)

    def embed(number: int, original: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
        seed_step(config.seed, step, number)  # the same dropout both times
        return learner.features(chunks[number], original)

    buffers = [buffer.clone() for buffer in learner.backbone.buffers()]
    with torch.no_grad():
        embedded = [embed(number)[0] for number in range(len(chunks))]
    for buffer, before in zip(learner.backbone.buffers(), buffers, strict=True):
        buffer.copy_(before)
    by_view = torch.cat([part.reshape(views, -1, part.shape[1]) for part in embedded], dim=1)
    features = by_view.flatten(0, 1).requires_grad_()
    loss, parts = learner.loss(features, labels, views, targets)
    torch.autograd.backward(loss * scale)
    assert features.grad is not None
    loss = loss.detach()
    gradients = features.grad.reshape(by_view.shape).tensor_split(config.accumulate, dim=1)
    for number, gradient in enumerate(gradients):
        again, distances = embed(number, undegraded[number])
        if distances is None:
            torch.autograd.backward(again, gradient.flatten(0, 1))
            continue
        share = chunks[number].shape[1] / images.shape[1]
        attention, attention_parts = learner.attention_loss(distances, views)
        torch.autograd.backward([again, attention * (share * scale)], [gradient.flatten(0, 1), None])
        loss = loss + share * attention.detach()
        for name, value in attention_parts.items():
            parts[name] = parts.get(name, 0) + share * value
    shared = [
        weight.grad
        for name, weight in learner.named_parameters()
        if weight.grad is not None and not name.startswith(learner.rank_local_prefixes or "\0")
    ]
    _average(shared, ranks)
    return loss, parts


def _average(gradients: list[torch.Tensor], ranks: Ranks) -> None:
    """Averages gradients over the ranks, as ``DistributedDataParallel`` does. A collective."""
    if ranks.group is None:
        return
    for gradient in gradients:
        distributed.all_reduce(gradient, group=ranks.group)
    torch._foreach_div_(gradients, ranks.size)


def gradient_norm(learner: Learner, ranks: Ranks) -> torch.Tensor:
    """The L2 norm of the gradient of all weights, shape (), the same on all ranks. A collective if the head is sharded."""
    local = learner.rank_local_prefixes
    if not local:
        return torch.nn.utils.get_total_norm(weight.grad for weight in learner.parameters() if weight.grad is not None)
    groups: dict[bool, list[torch.Tensor]] = {False: [], True: []}
    for name, weight in learner.named_parameters():
        if weight.grad is not None:
            groups[name.startswith(local)].append(weight.grad)
    if not groups[True]:  # a head that no loss trains
        return torch.nn.utils.get_total_norm(groups[False])
    shared, own = (torch.nn.utils.get_total_norm(gradients).square() for gradients in groups.values())
    return (shared + ranks.mean(own) * ranks.size).sqrt()
