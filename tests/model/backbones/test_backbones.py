"""Backbones: a common contract; SphereNet: keys and shapes of the reference, and a naive forward pass."""

from __future__ import annotations

import copy
import functools
import inspect
import json

import pytest
import torch
from torch import nn
from torch.nn import functional

from model.backbones import BACKBONES, EMBEDDING_SIZE, build_backbone, check_backbone
from model.backbones.spherenet import BLOCKS, WIDTHS, infer_spherenet, spherenet
from model.heads import build_head
from model.inputs import normalise, on_device
from model.options import OptionError
from model.training.config import TrainConfig
from model.training.init import initialise_from_data
from model.training.learner import Learner
from pipeline.spec import Preprocessing
from tests.networks import FIRST, by_family
from tests.processes import REPOSITORY
from tests.transfers import transfers

KEYS = json.loads((REPOSITORY / "tests" / "golden" / "spherenet20_state_dict.json").read_text())


def test_keys_and_shapes_equal_the_reference():
    state = build_backbone("spherenet20").state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == KEYS
    assert list(state) == list(KEYS)


def test_spherenet20_has_28_4_million_parameters():
    assert sum(parameter.numel() for parameter in build_backbone("spherenet20").parameters()) == pytest.approx(
        28.4e6, rel=0.005
    )


@pytest.mark.parametrize("name", by_family())
def test_every_backbone_embeds_in_512_dimensions(name):
    check_shape(name, 112)


@pytest.mark.heavy
@pytest.mark.parametrize("name", FIRST.values())
@pytest.mark.parametrize("image_size", [80, 128])
def test_other_image_sizes_are_embedded_in_512_dimensions(name, image_size):
    check_shape(name, image_size)


def check_shape(name, image_size):
    with torch.device("meta"):
        backbone, images = build_backbone(name, image_size=image_size).eval(), torch.empty(2, 3, image_size, image_size)
    assert backbone(images).shape == (2, EMBEDDING_SIZE)


ONE_OF_EACH = (
    "spherenet4",
    "ir18",
    "irse18",
    "resnet50",
    "seresnet50",
    "densenet121",
    "mobilefacenet",
    "vit_small",
    "irb152",
    "irbse152",
    "resnet50_stem7",
    "inception_resnet_v1",
    "insightface_vit_t",
    "cvlface_vit_small",
)
_FAST = ("spherenet4", "ir18", "irse18", "mobilefacenet", "vit_small")
RUN = [pytest.param(name, marks=() if name in _FAST else pytest.mark.heavy) for name in ONE_OF_EACH]


def test_one_of_each_family_is_run():
    assert {BACKBONES[name].family for name in ONE_OF_EACH} == {backbone.family for backbone in BACKBONES.values()}


def small(name):
    """A seeded backbone for a small size in evaluation mode, with batch statistics of one batch; and another batch."""
    return copy.deepcopy(_small(name))


@functools.cache
def _small(name):
    torch.manual_seed(0)
    size = max(64, BACKBONES[name].min_size)
    backbone = build_backbone(name, image_size=size)
    with torch.no_grad():
        backbone(torch.rand(4, 3, size, size) * 2 - 1)
    return backbone.eval(), torch.rand(2, 3, size, size) * 2 - 1


@pytest.mark.parametrize("name", RUN)
def test_embeddings_are_finite_differ_and_repeat(name):
    torch.manual_seed(0)
    backbone, images = build_backbone(name), torch.rand(2, 3, 128, 128) * 2 - 1
    with torch.inference_mode():
        trained, first, second = backbone.train()(images), backbone.eval()(images), backbone(images)
    for embeddings in (trained, first):
        assert embeddings.shape == (2, EMBEDDING_SIZE)
        assert embeddings.dtype == torch.float32
        assert embeddings.isfinite().all()
        assert not torch.equal(embeddings[0], embeddings[1])
    assert torch.equal(first, second)


@pytest.mark.parametrize("name", RUN)
def test_gradients_reach_every_parameter(name):
    backbone, images = small(name)  # in training mode a shift before a BN has no gradient but rounding errors
    backbone(images).square().sum().backward()
    parameters = dict(backbone.named_parameters())
    assert len(parameters) > 10
    assert [key for key, one in parameters.items() if one.grad is None or not one.grad.abs().sum() > 0] == []


@pytest.mark.parametrize("name", RUN)
def test_outputs_do_not_depend_on_memory_format_or_copying(name):
    backbone, images = small(name)
    with torch.inference_mode():
        expected = backbone(images)
        other = build_backbone(name, image_size=images.shape[-1])
        other.load_state_dict(backbone.state_dict())
        exact = "_vit_" not in name  # MKL's sums of so many products depend on where in memory they lie
        copied = other.eval()(images)
        torch.testing.assert_close(copied, expected, rtol=0 if exact else 1e-4, atol=0 if exact else 1e-5)
        found = on_device(other, "cpu")(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@functools.cache
def layers_of(name, **options):
    with torch.device("meta"):
        return list(build_backbone(name, **options).modules())


def dropouts(layers):
    return [layer.p for layer in layers if isinstance(layer, nn.Dropout) and layer.p]


def last_width(layers):
    return [layer.in_features for layer in layers if isinstance(layer, nn.Linear)][-1]


def test_registered_options_are_the_constructor_arguments():
    assert len(BACKBONES) == 39
    for name, backbone in BACKBONES.items():
        taken = set(inspect.signature(backbone.build).parameters) - {"image_size", "squeeze", "stem"}
        assert taken == set(backbone.options), name


POOLED = [name for name, backbone in BACKBONES.items() if "pooling" in backbone.options]
DROPPING = [name for name, backbone in BACKBONES.items() if "dropout" in backbone.options]


@pytest.mark.parametrize("name", by_family(POOLED))
def test_pooling_reduces_the_last_layer_to_one_cell(name):
    cells = 16 if name.endswith("_stem7") else 64
    assert last_width(layers_of(name)) == cells * last_width(layers_of(name, pooling=True))


@pytest.mark.parametrize("name", by_family(DROPPING))
def test_dropout_has_the_given_probability(name):
    assert dropouts(layers_of(name, dropout=0.3)) == [0.3]
    assert dropouts(layers_of(name, dropout=0)) == []


def test_the_default_dropout_is_arcface_s():
    without = {name for name in ONE_OF_EACH if dropouts(layers_of(name)) == []}
    assert without == {"spherenet4", "mobilefacenet", "vit_small", "insightface_vit_t", "cvlface_vit_small"}
    assert dropouts(layers_of("inception_resnet_v1")) == [0.6]  # facenet-pytorch's
    assert all(dropouts(layers_of(name)) == [0.4] for name in {*ONE_OF_EACH} - without - {"inception_resnet_v1"})


@pytest.mark.parametrize("name", by_family())
def test_batch_normalisation_is_registered(name):
    found = any(isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) for layer in layers_of(name))
    assert BACKBONES[name].batch_norm == found


def test_encoder_layers_of_the_vit_have_different_initial_weights():
    first, second = build_backbone("vit_small", image_size=64).encoder.layers[:2]
    weights = [name for name, value in first.state_dict().items() if value.dim() > 1]
    assert len(weights) == 4
    assert not any(torch.equal(first.state_dict()[name], second.state_dict()[name]) for name in weights)


NAMES = (
    "spherenet4, spherenet10, spherenet20, spherenet36, spherenet64, ir18, ir34, ir50, ir101, ir152, ir200, irse18, irse34,"
    " irse50, irse101, irse152, irse200, irb152, irb200, irbse152, irbse200, resnet50, resnet101, resnet152,"
    " resnet50_stem7, resnet101_stem7, resnet152_stem7, seresnet50, densenet121, densenet161, mobilefacenet,"
    " inception_resnet_v1, vit_small, insightface_vit_t, insightface_vit_s, insightface_vit_b, insightface_vit_l,"
    " cvlface_vit_small, cvlface_vit_base"
)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vgg", {}, f"backbone 'vgg' is unknown; choose from {NAMES}"),
        ("ir18", {"image_size": 120}, "ir18 cannot take images of 120 px; choose a multiple of 16, such as 112 or 128"),
        ("ir18", {"image_size": 0}, "ir18 cannot take images of 0 px; choose a multiple of 16, such as 112 or 128"),
        (
            "ir18",
            {"image_size": "128"},
            "ir18 cannot take images of '128' px; choose a multiple of 16, such as 112 or 128",
        ),
        (
            "vit_small",
            {"image_size": 100},
            "vit_small cannot take images of 100 px; choose a multiple of 8, such as 112 or 128",
        ),
        (
            "vit_small",
            {"pooling": True},
            "vit_small has no option 'pooling'; leave it out (it has: dropout)",
        ),
        ("mobilefacenet", {"dropout": 0.1}, "mobilefacenet has no option 'dropout'; leave it out (it has: none)"),
        ("ir18", {"squeeze": True}, "ir18 has no option 'squeeze'; leave it out (it has: pooling, dropout, origin)"),
        ("ir18", {"origin": "arcface"}, "origin of ir18 is 'arcface'; expected adaface or reference"),
        ("irb152", {"origin": "adaface"}, "irb152 has no option 'origin'; leave it out (it has: pooling, dropout)"),
        (
            "inception_resnet_v1",
            {"image_size": 64},
            "inception_resnet_v1 cannot take images of 64 px; choose a multiple of 16 from 80 px on, such as 112 or 128",
        ),
        ("ir18", {"pooling": 1}, "pooling of ir18 is 1; expected True or False"),
        ("ir18", {"dropout": 1}, "dropout of ir18 is 1; expected a probability of 0 or more, below 1"),
        ("ir18", {"dropout": float("nan")}, "dropout of ir18 is nan; expected a probability of 0 or more, below 1"),
    ],
)
def test_invalid_arguments_are_errors(name, options, message):
    for function in (build_backbone, check_backbone):
        with pytest.raises(OptionError) as caught:
            function(name, **options)
        assert str(caught.value) == message


def test_options_change_the_layers():
    assert spherenet(4, pooling=True)[-1].in_features == 512
    assert spherenet(4, image_size=112)[-1].in_features == 512 * 49
    assert any(isinstance(layer, torch.nn.Dropout) and layer.p == 0.4 for layer in spherenet(4, dropout=0.4))


def naive_forward(state, x):
    """Applies the tensors of the state dict in order, without modules."""
    tensors = iter(state.values())

    def convolution(x, stride):
        x = functional.conv2d(x, next(tensors), next(tensors), stride=stride, padding=1)
        return functional.prelu(x, next(tensors))

    for _, blocks in zip(WIDTHS, BLOCKS[20], strict=True):
        x = convolution(x, 2)
        for _ in range(blocks):
            x = x + convolution(convolution(x, 1), 1)
    return functional.linear(x.flatten(1), next(tensors), next(tensors))


def test_the_forward_pass_equals_the_naive_one():
    backbone = build_backbone("spherenet20").eval()
    x = torch.rand(2, 3, 128, 128) * 2 - 1
    with torch.inference_mode():
        torch.testing.assert_close(backbone(x), naive_forward(backbone.state_dict(), x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depth", BLOCKS)
@pytest.mark.parametrize("pooling", [False, True])
def test_a_spherenet_is_inferred_from_its_shapes(depth, pooling):
    shapes = [tuple(value.shape) for value in spherenet(depth, pooling=pooling).state_dict().values()]
    assert infer_spherenet(shapes) == (depth, 128, pooling)


def test_other_shapes_are_not_inferred():
    assert infer_spherenet([(64, 3, 3, 3), (64,), (10, 64)]) is None
    assert infer_spherenet([]) is None


def test_normalise_maps_bytes_to_minus_one_and_one():
    images = torch.tensor([0, 255, 128], dtype=torch.uint8).reshape(1, 1, 1, 3)
    out = normalise(images)
    assert out.shape == (1, 3, 1, 1)
    torch.testing.assert_close(out.flatten(), torch.tensor([-1.0, 1.0, 128 / 127.5 - 1]))


@pytest.mark.parametrize("color", ["RGB", "BGR"])
def test_normalise_by_channel_sends_a_gpu_nothing(color):
    """Numbers of the host made it wait for the GPU in each step of training."""
    images, mean, std = torch.arange(48, dtype=torch.uint8).reshape(1, 4, 4, 3), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4)
    there = images.to("meta")
    with transfers() as found:
        normalise(there, mean, std, color=color)
    assert found == []
    inputs = images.flip(-1) if color == "BGR" else images
    expected = [(inputs[..., i].float() / 255 - mean[i]) / std[i] for i in range(3)]
    assert torch.equal(normalise(images, mean, std, color=color), torch.stack(expected, 1))


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


def test_data_initialisation_draws_on_the_cpu_whatever_the_device():
    """Two kinds of GPU draw different numbers, and every process needs the same weights."""
    drawn = []
    for device in ("cpu", "meta"):
        backbone = build_backbone("spherenet4", image_size=32).to(device)
        head = build_head("amsoftmax", features=512, classes=7).to(device)
        torch.manual_seed(0)
        initialise_from_data(backbone, head, torch.zeros(2, 3, 32, 32, device=device))
        drawn.append(torch.get_rng_state())
    assert torch.equal(*drawn)


@pytest.mark.parametrize("project", ["pytorch", "insightface", "adaface", "reference"])
def test_initial_weights_of_other_projects(project):
    """A convolution of 64 x 3 x 3 inputs and 128 outputs, a linear layer of 2,048 inputs and 512 outputs."""
    config = TrainConfig(backbone="irse18", init=project, losses="cross-entropy")
    backbone = Learner(config, classes=4, preprocessing=Preprocessing(size=32)).backbone
    deviations = {
        "pytorch": (1 / (3 * 64 * 9) ** 0.5, 1 / (3 * 2048) ** 0.5),
        "insightface": (0.1, 1 / (3 * 2048) ** 0.5),
        "adaface": ((2 / (128 * 9)) ** 0.5, (2 / 512) ** 0.5),
        "reference": ((2 / (64 * 9 + 128 * 9)) ** 0.5, (2 / (2048 + 512)) ** 0.5),
    }
    convolution = next(
        layer
        for layer in backbone.modules()
        if isinstance(layer, torch.nn.Conv2d) and layer.weight.shape == (128, 64, 3, 3)
    )
    (linear,) = (layer for layer in backbone.modules() if isinstance(layer, torch.nn.Linear))
    found = [layer.weight.std().item() for layer in (convolution, linear)]
    assert found == pytest.approx(deviations[project], rel=0.01)
    biases = [
        layer.bias for layer in backbone.modules() if isinstance(layer, torch.nn.Conv2d) and layer.bias is not None
    ]
    assert len(biases) == 16  # of squeeze-and-excitation
    assert any(bias.any() for bias in biases) == (project == "pytorch")
