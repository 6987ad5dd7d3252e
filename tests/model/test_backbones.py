"""SphereNet: the reference's keys and shapes, and a naive forward pass."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch.nn import functional

from model.backbones import BACKBONES, build_backbone
from model.backbones.spherenet import BLOCKS, WIDTHS, recognise, spherenet
from model.heads import build_head
from model.init import initialise_from_data
from model.inputs import normalise

KEYS = json.loads((Path(__file__).parent.parent / "golden" / "spherenet20_state_dict.json").read_text())


def test_keys_and_shapes_are_the_reference_s():
    state = build_backbone("spherenet20").state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == KEYS
    assert list(state) == list(KEYS)


def test_spherenet20_has_28_4_million_parameters():
    assert sum(parameter.numel() for parameter in build_backbone("spherenet20").parameters()) == pytest.approx(
        28.4e6, rel=0.005
    )


@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_gives_512_numbers(name):
    with torch.inference_mode():
        assert build_backbone(name)(torch.zeros(2, 3, 128, 128)).shape == (2, 512)


def test_options_change_what_they_say():
    assert spherenet(4, pooling=True)[-1].in_features == 512
    assert spherenet(4, image_size=112)[-1].in_features == 512 * 49
    assert any(isinstance(layer, torch.nn.Dropout) and layer.p == 0.4 for layer in spherenet(4, dropout=0.4))


def naive_forward(state, x):
    """Walks the state dict in order, layer by layer, without modules."""
    tensors = iter(state.values())

    def convolution(x, stride):
        x = functional.conv2d(x, next(tensors), next(tensors), stride=stride, padding=1)
        return functional.prelu(x, next(tensors))

    for _, blocks in zip(WIDTHS, BLOCKS[20], strict=True):
        x = convolution(x, 2)
        for _ in range(blocks):
            x = x + convolution(convolution(x, 1), 1)
    return functional.linear(x.flatten(1), next(tensors), next(tensors))


def test_the_forward_pass_is_the_naive_one():
    backbone = build_backbone("spherenet20").eval()
    x = torch.rand(2, 3, 128, 128) * 2 - 1
    with torch.inference_mode():
        torch.testing.assert_close(backbone(x), naive_forward(backbone.state_dict(), x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depth", BLOCKS)
@pytest.mark.parametrize("pooling", [False, True])
def test_shapes_tell_the_network(depth, pooling):
    shapes = [tuple(value.shape) for value in spherenet(depth, pooling=pooling).state_dict().values()]
    assert recognise(shapes) == (depth, 128, pooling)


def test_other_shapes_are_not_recognised():
    assert recognise([(64, 3, 3, 3), (64,), (10, 64)]) is None
    assert recognise([]) is None


def test_normalise_maps_bytes_to_minus_one_and_one():
    images = torch.tensor([0, 255, 128], dtype=torch.uint8).reshape(1, 1, 1, 3)
    out = normalise(images)
    assert out.shape == (1, 3, 1, 1)
    torch.testing.assert_close(out.flatten(), torch.tensor([-1.0, 1.0, 128 / 127.5 - 1]))


def test_data_initialisation_centres_and_scales_embeddings():
    torch.manual_seed(0)
    backbone, head = build_backbone("spherenet4"), build_head("amsoftmax", features=512, classes=7)
    inputs = torch.rand(24, 3, 128, 128) * 0.3 + 0.5
    initialise_from_data(backbone, head, inputs)
    with torch.inference_mode():
        features = backbone(inputs)
    assert features.mean(0).abs().max() < 1e-2
    torch.testing.assert_close(features.std(0), torch.full((512,), 5.0), atol=0.05, rtol=0)
    torch.testing.assert_close(head.weight.norm(dim=1), torch.ones(7))
