"""Batch normalisation with statistics of the global batch of all ranks."""

from __future__ import annotations

import torch
from torch import distributed, nn

from model.sharding import all_reduce_gradient, all_reduce_sum
from model.training.ranks import Ranks


class GlobalBatchNorm(nn.modules.batchnorm._BatchNorm):
    """Batch normalisation over all ranks on CPUs, which ``nn.SyncBatchNorm`` does not support.

    Computes in the precision of its parameters; the output has the dtype of the input. As in PyTorch, a channel with a
    single value is a ValueError.
    """

    def _check_input_dim(self, input: torch.Tensor) -> None:
        """(N, C, ...) of any number of dimensions."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return super().forward(input)
        x = input.to(self.weight.dtype)
        axes = [0, *range(2, x.dim())]
        shape = [1, -1] + [1] * (x.dim() - 2)
        count = x.new_tensor(float(x.numel() // x.shape[1]))
        distributed.all_reduce(count)
        if count < 2:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {x.shape}")
        mean = _global_sum(x.sum(axes)) / count
        centred = x - mean.reshape(shape)
        variance = _global_sum(centred.square().sum(axes)) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)  # type: ignore[union-attr]
            self.running_mean.lerp_(mean, self.momentum)  # type: ignore[union-attr, arg-type]
            self.running_var.lerp_(variance * count / (count - 1), self.momentum)  # type: ignore[union-attr, arg-type]
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale.reshape(shape) + self.bias.reshape(shape)).to(input.dtype)


def _global_sum(part: torch.Tensor) -> torch.Tensor:
    """The sum over ranks; its gradient is also summed, because each rank uses the sum for its own images."""
    group = distributed.group.WORLD
    return all_reduce_sum(all_reduce_gradient(part, group), group)


def global_batch_norm(ranks: Ranks, module: nn.Module, device: str) -> nn.Module:
    """``module`` with statistics of the global batch, so that results do not depend on the number of ranks."""
    if ranks.group is None:
        return module
    if device.startswith("cuda"):
        return nn.SyncBatchNorm.convert_sync_batchnorm(module)  # type: ignore[no-untyped-call]
    for child in module.modules():
        if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
            child.__class__ = GlobalBatchNorm  # type: ignore[assignment]
    return module
