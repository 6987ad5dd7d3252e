"""Batch normalisation over ranks, with a group of one rank: PyTorch's layer in the same process is the oracle."""

from __future__ import annotations

import pytest
import torch
from torch import distributed, nn

from model.training.batch_norm import GlobalBatchNorm


@pytest.fixture
def group(tmp_path):
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def layers(channels):
    torch.manual_seed(0)
    plain, ours = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
    for layer in (plain, ours):
        nn.init.uniform_(layer.weight, generator=torch.Generator().manual_seed(1))
    ours.__class__ = GlobalBatchNorm
    return plain, ours


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.bfloat16, 2e-2)])
def test_it_is_pytorch_s_layer_with_statistics_in_float32(group, dtype, tolerance):
    plain, ours = layers(5)
    images = torch.randn(6, 5, 4, 4) * 3 + 1
    inputs = [images.clone().to(dtype).requires_grad_() for _ in range(2)]
    outputs = [layer(x) for layer, x in zip((plain, ours), inputs, strict=True)]
    assert outputs[1].dtype == dtype
    torch.testing.assert_close(outputs[1], outputs[0], rtol=tolerance, atol=tolerance)
    for output in outputs:
        (output.float() ** 3).sum().backward()
    torch.testing.assert_close(inputs[1].grad, inputs[0].grad, rtol=10 * tolerance, atol=10 * tolerance)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=tolerance, atol=tolerance)
    assert {ours.running_mean.dtype, ours.running_var.dtype} == {torch.float32}


def test_a_single_value_of_a_channel_is_an_error_and_changes_nothing(group):
    _, ours = layers(5)
    before = {name: value.clone() for name, value in ours.state_dict().items()}
    with pytest.raises(ValueError, match="Expected more than 1 value per channel when training"):
        ours(torch.randn(1, 5, 1, 1))
    assert all(torch.equal(value, before[name]) for name, value in ours.state_dict().items())
