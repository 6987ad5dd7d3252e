"""Blocks of the backbones against their layers applied one by one."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

from model.backbones.densenet import DenseLayer, transition
from model.backbones.layers import embedding_layers
from model.backbones.mobilefacenet import InvertedBottleneck
from model.backbones.residual import Bottleneck, BottleneckUnit, ImprovedUnit


class Walk:
    """Applies the tensors of a state dict in order, without the module's structure."""

    def __init__(self, module):
        self.tensors = list(module.state_dict().values())

    def take(self, count):
        taken, self.tensors = self.tensors[:count], self.tensors[count:]
        return taken

    def conv(self, x, **options):
        (weight,) = self.take(1)
        return functional.conv2d(x, weight, padding=weight.shape[-1] // 2, **options)

    def norm(self, x):
        weight, bias, mean, variance, _ = (one.reshape(-1, *[1] * (x.dim() - 2)) for one in self.take(5))
        return (x - mean) / (variance + 1e-5).sqrt() * weight + bias

    def batch_norm(self, x):
        weight, bias, *_ = (one.reshape(-1, *[1] * (x.dim() - 2)) for one in self.take(5))
        axes = (0, *range(2, x.dim()))
        centred = x - x.mean(axes, keepdim=True)
        return centred / (centred.square().mean(axes, keepdim=True) + 1e-5).sqrt() * weight + bias

    def prelu(self, x):
        (slope,) = self.take(1)
        return torch.where(x > 0, x, x * slope[:, None, None])

    def squeeze(self, x):
        first, first_bias, second, second_bias = self.take(4)
        hidden = (x.mean((2, 3)) @ first[:, :, 0, 0].T + first_bias).clamp_min(0)
        return x * (hidden @ second[:, :, 0, 0].T + second_bias).sigmoid()[:, :, None, None]


def random(module):
    """The module in evaluation mode with random parameters and statistics, so that each has an effect; its ``Walk``."""
    torch.manual_seed(0)
    for tensor in module.state_dict().values():
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.1, 1.0)
    for parameter in module.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.1)
    return module.eval(), Walk(module)


def check(module, walk, expected, x):
    assert walk.tensors == []
    with torch.inference_mode():
        torch.testing.assert_close(module(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("squeeze", [False, True])
@pytest.mark.parametrize(("width", "stride"), [(32, 1), (32, 2), (48, 1)])
def test_the_improved_unit(width, stride, squeeze):
    unit, walk = random(ImprovedUnit(32, width, stride=stride, squeeze=squeeze))
    x = torch.randn(2, 32, 8, 8)
    residual = walk.norm(walk.conv(walk.prelu(walk.norm(walk.conv(walk.norm(x)))), stride=stride))
    residual = walk.squeeze(residual) if squeeze else residual
    shortcut = x if (width, stride) == (32, 1) else walk.norm(walk.conv(x, stride=stride))
    check(unit, walk, shortcut + residual, x)


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("origin", ["adaface", "reference"])
@pytest.mark.parametrize(("width", "stride"), [(32, 1), (32, 2), (48, 2)])
def test_the_improved_unit_of_other_projects(width, stride, origin, training):
    """A shortcut without weights where the resolution alone changes; one batch normalisation less in the reference's."""
    unit, walk = random(ImprovedUnit(32, width, stride=stride, squeeze=False, origin=origin))
    x = torch.randn(2, 32, 8, 8)
    if training:
        unit.train()
        walk.norm = walk.batch_norm
    first = walk.conv(walk.norm(x))
    residual = walk.norm(walk.conv(walk.prelu(first if origin == "reference" else walk.norm(first)), stride=stride))
    shortcut = x[:, :, ::stride, ::stride] if width == 32 else walk.norm(walk.conv(x, stride=stride))
    check(unit, walk, shortcut + residual, x)


@pytest.mark.parametrize("squeeze", [False, True])
@pytest.mark.parametrize(("channels", "stride"), [(32, 1), (32, 2), (16, 2)])
def test_the_improved_unit_with_a_bottleneck(channels, stride, squeeze):
    unit, walk = random(BottleneckUnit(channels, 8, stride=stride, squeeze=squeeze))
    x = torch.randn(2, channels, 8, 8)
    residual = walk.prelu(walk.norm(walk.conv(walk.norm(x))))
    residual = walk.norm(walk.conv(walk.prelu(walk.norm(walk.conv(residual))), stride=stride))
    residual = walk.squeeze(residual) if squeeze else residual
    shortcut = x if (channels, stride) == (32, 1) else walk.norm(walk.conv(x, stride=stride))
    check(unit, walk, shortcut + residual, x)


@pytest.mark.parametrize("squeeze", [False, True])
@pytest.mark.parametrize(("channels", "stride"), [(32, 1), (32, 2), (16, 1)])
def test_the_bottleneck(channels, stride, squeeze):
    block, walk = random(Bottleneck(channels, 8, stride=stride, squeeze=squeeze))
    x = torch.randn(2, channels, 8, 8)
    residual = walk.norm(walk.conv(x)).relu()
    residual = walk.norm(walk.conv(walk.norm(walk.conv(residual, stride=stride)).relu()))
    residual = walk.squeeze(residual) if squeeze else residual
    shortcut = x if (channels, stride) == (32, 1) else walk.norm(walk.conv(x, stride=stride))
    check(block, walk, (shortcut + residual).relu(), x)


@pytest.mark.parametrize(("width", "stride"), [(32, 1), (32, 2), (48, 1)])
def test_the_inverted_bottleneck(width, stride):
    block, walk = random(InvertedBottleneck(32, width, expansion=2, stride=stride))
    x = torch.randn(2, 32, 8, 8)
    wide = walk.prelu(walk.norm(walk.conv(x)))
    residual = walk.norm(walk.conv(walk.prelu(walk.norm(walk.conv(wide, stride=stride, groups=64)))))
    check(block, walk, residual + x if (width, stride) == (32, 1) else residual, x)


def test_the_dense_layer_and_the_transition():
    x = torch.randn(2, 32, 8, 8)
    layer, walk = random(DenseLayer(32, 12))
    added = walk.conv(walk.norm(walk.conv(walk.norm(x).relu())).relu())
    assert added.shape[1] == 12
    check(layer, walk, torch.cat((x, added), 1), x)
    between, walk = random(transition(32))
    halved = walk.conv(walk.norm(x).relu())
    check(between, walk, halved.reshape(2, 16, 4, 2, 4, 2).mean((3, 5)), x)


@pytest.mark.parametrize("pooling", [False, True])
def test_the_embedding_layers(pooling):
    layers, walk = random(embedding_layers(8, 16, pooling=pooling))
    x = torch.randn(2, 8, 4, 4)
    features = walk.norm(x)
    features = features.mean((2, 3)) if pooling else features.flatten(1)
    (weight,) = walk.take(1)
    check(layers, walk, walk.norm(features @ weight.T), x)
