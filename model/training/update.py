"""One update: gradients of the whole batch, checked, clipped and applied."""

from __future__ import annotations

import dataclasses

import torch
from torch import distributed, nn

from model.finite import all_finite
from model.training.learner import Learner, LossParts, StepInputs
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

    def __call__(self, inputs: StepInputs, step: int, *, lr: float, check: bool) -> Outcome:
        """Makes update number ``step``, counted from 0, from this rank's part of a batch. A collective.

        Args:
            lr: the learning rate.
            check: leave everything as it was if the loss or a gradient is not finite. Synchronises with the device.
        """
        learner, optimizer, guard = self._state.learner, self._state.optimizer, self._state.guard
        for group in optimizer.param_groups:
            group["lr"] = lr
        buffers = [buffer.clone() for buffer in learner.buffers()] if check else []  # the forward pass moves them
        optimizer.zero_grad(set_to_none=True)
        loss, parts = self._gradients(inputs, step)
        gradients = [weight.grad for weight in learner.parameters() if weight.grad is not None]
        if guard.scale != 1:
            torch._foreach_mul_(gradients, 1 / guard.scale)
        if check and self._state.ranks.any(not all_finite([loss, *gradients])):
            _restore(learner, buffers)
            if self._state.ranks.any(not bool(loss.isfinite())):
                return Outcome(loss, parts, f"the loss of step {step + 1} is {loss}", loss_finite=False)
            return Outcome(loss, parts, f"a gradient of step {step + 1} is not finite")
        if self._config.clip_norm:
            norm = gradient_norm(learner, self._state.ranks)
            parts = {**parts, "gradient_norm": norm}
            torch._foreach_mul_(gradients, (self._config.clip_norm / (norm + 1e-6)).clamp(max=1.0))
        optimizer.step()
        guard.accept()
        if self._state.averaged is not None:
            self._state.averaged.update_parameters(learner.backbone)
        return Outcome(loss, parts)

    def _gradients(self, inputs: StepInputs, step: int) -> tuple[torch.Tensor, LossParts]:
        """Computes the loss of the global batch, and its gradients times the loss scale."""
        if self._parallel is None:
            return self._accumulated(inputs, step)
        seed_step(self._config.seed, step)
        loss, parts = self._parallel(inputs)
        scale = self._state.guard.scale
        torch.autograd.backward(loss * scale if scale != 1 else loss)
        return loss, parts

    def _accumulated(self, inputs: StepInputs, step: int) -> tuple[torch.Tensor, LossParts]:
        """As ``_gradients``, from parts that go through the backbone one after another.

        The embeddings of all parts are computed first, without what the backward pass needs. The losses of the whole
        batch give the gradients of the embeddings. Then each part goes through the backbone again, for the gradients of
        its weights. They are those of the whole batch; batch normalisation takes the statistics of each part.

        Source: Gao et al., Scaling deep contrastive learning batch size under memory limited setup, RepL4NLP 2021
        (GradCache).
        """
        learner, scale, count = self._state.learner, self._state.guard.scale, self._config.accumulate
        images, originals = inputs.images, inputs.originals
        views, chunks = len(images), images.tensor_split(count, dim=1)
        undegraded = [None] * len(chunks) if originals is None else originals.tensor_split(count, dim=1)

        def embed(number: int, original: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor | None]:
            seed_step(self._config.seed, step, number)  # the same dropout both times
            return learner.features(chunks[number], original)

        buffers = [buffer.clone() for buffer in learner.backbone.buffers()]
        with torch.no_grad():
            embedded = [embed(number)[0] for number in range(len(chunks))]
        _restore(learner.backbone, buffers)
        by_view = torch.cat([part.reshape(views, -1, part.shape[1]) for part in embedded], dim=1)
        features = by_view.flatten(0, 1).requires_grad_()
        loss, parts = learner.loss(features, inputs.labels, views, inputs.targets)
        torch.autograd.backward(loss * scale)
        assert features.grad is not None
        loss = loss.detach()
        gradients = features.grad.reshape(by_view.shape).tensor_split(count, dim=1)
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
        local = learner.rank_local_prefixes
        self._average([weight for name, weight in learner.named_parameters() if not name.startswith(local)])
        return loss, parts

    def _average(self, weights: list[nn.Parameter]) -> None:
        """Averages gradients over the ranks, as ``DistributedDataParallel`` does. A collective."""
        ranks = self._state.ranks
        if ranks.group is None:
            return
        gradients = [weight.grad for weight in weights if weight.grad is not None]
        for gradient in gradients:
            distributed.all_reduce(gradient, group=ranks.group)
        torch._foreach_div_(gradients, ranks.size)


def _restore(module: nn.Module, buffers: list[torch.Tensor]) -> None:
    for buffer, before in zip(module.buffers(), buffers, strict=True):
        buffer.copy_(before)


def gradient_norm(learner: Learner, ranks: Ranks) -> torch.Tensor:
    """The L2 norm of the gradient of all weights, shape (), the same on all ranks. A collective if the head is sharded."""
    shared: list[torch.Tensor] = []
    local: list[torch.Tensor] = []
    for name, weight in learner.named_parameters():
        if weight.grad is not None:
            (local if name.startswith(learner.rank_local_prefixes) else shared).append(weight.grad)
    norm = torch.nn.utils.get_total_norm(shared)
    if not local:  # the head is not sharded, or no loss trains it
        return norm
    return (norm.square() + ranks.mean(torch.nn.utils.get_total_norm(local).square()) * ranks.size).sqrt()
