"""Size of every backbone against published counts and a naive count; the table."""

from __future__ import annotations

import functools
import math

import pytest
import torch
from torch import nn

from model.backbones import BACKBONES, build_backbone
from model.backbones.summary import backbone_cost, backbone_table
from tests.model.formats.foreign.golden import keys_of

FROZEN = {  # parameters at 128 px; a change breaks existing checkpoints
    "spherenet4": 18_329_664,
    "spherenet10": 20_986_432,
    "spherenet20": 28_437_824,
    "spherenet36": 38_545_984,
    "spherenet64": 53_967_680,
    "ir18": 27_957_248,
    "ir50": 47_522_496,
    "ir101": 69_087_808,
    "ir152": 74_697_408,
    "irse18": 28_046_328,
    "irse50": 47_751_404,
    "irse101": 69_471_796,
    "irse152": 75_121_260,
    "resnet50": 90_614_336,
    "resnet101": 109_606_464,
    "resnet152": 125_250_112,
    "seresnet50": 93_145_328,
    "densenet121": 40_501_632,
    "densenet161": 98_813_248,
    "mobilefacenet": 1_208_192,
    "vit_small": 21_664_384,
    "ir34": 38_070_976,
    "ir200": 122_765_568,
    "irse34": 38_232_172,
    "irse200": 123_533_544,
    "irb152": 125_365_888,
    "irb200": 129_867_392,
    "irbse152": 131_994_928,
    "irbse200": 137_029_424,
    "resnet50_stem7": 40_290_368,
    "resnet101_stem7": 59_282_496,
    "resnet152_stem7": 74_926_144,
    "inception_resnet_v1": 23_482_624,
    "insightface_vit_t": 22_558_720,
    "insightface_vit_s": 89_680_896,
    "insightface_vit_b": 127_491_072,
    "insightface_vit_l": 286_394_368,
    "cvlface_vit_small": 111_711_744,
    "cvlface_vit_base": 130_629_120,
}
EMBEDDING_BN = 2 * 512
WIDTHS = (64, 128, 256, 512)


@functools.cache
def parameters(name, **options):
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_backbone(name, **options).parameters())


def test_the_cost_counts_parameters():
    assert backbone_cost("ir18", image_size=112).parameters == parameters("ir18", image_size=112)
    assert backbone_cost("ir18", pooling=True).parameters == parameters("ir18", pooling=True)


def test_parameters_are_frozen():
    assert {name: parameters(name) for name in BACKBONES} == FROZEN


@pytest.mark.parametrize(
    ("name", "published", "width", "stem"),
    [  # torchvision's and, for SE-ResNet, timm's counts for ImageNet; channels at the end and after the 7x7 stem
        ("resnet50", 25_557_032, 2048, 64),
        ("resnet101", 44_549_160, 2048, 64),
        ("resnet152", 60_192_808, 2048, 64),
        ("seresnet50", 28_088_024, 2048, 64),
        ("densenet121", 7_978_856, 1024, 64),
        ("densenet161", 28_681_000, 2208, 96),
    ],
)
def test_trunks_have_the_parameters_of_imagenet_networks(name, published, width, stem):
    trunk = published - (width * 1000 + 1000) - 3 * 7 * 7 * stem + 3 * 3 * 3 * stem
    normalisation = 0 if name.startswith("densenet") else 2 * width  # DenseNet has a normalisation at its end
    assert parameters(name) == trunk + normalisation + width * 8 * 8 * 512 + EMBEDDING_BN
    assert parameters(name, pooling=True) == trunk + normalisation + width * 512 + EMBEDDING_BN


@pytest.mark.parametrize(("name", "millions"), [("ir18", 24.03), ("ir50", 43.59), ("ir101", 65.16)])
def test_ir_has_the_published_parameters_at_112_px(name, millions):
    """InsightFace's r18, r50 and r100 have 512 parameters more, the bias of the linear layer."""
    assert parameters(name, image_size=112) + 512 == pytest.approx(millions * 1e6, abs=0.005e6)


@pytest.mark.parametrize(
    ("name", "published"),
    [  # parameters at 112 px: those of the projects' key lists in tests/golden/networks, without buffers
        ("irb152", "adaface-ir152"),
        ("ir50", "insightface-iresnet50"),
        ("ir101", "insightface-iresnet100"),
        ("inception_resnet_v1", "facenet-pytorch-InceptionResnetV1"),
    ],
)
def test_networks_of_other_projects_have_their_parameters(name, published):
    buffers = ("running_mean", "running_var", "num_batches_tracked")
    theirs = {key: math.prod(shape) for key, shape in keys_of(published) if not key.endswith(buffers)}
    bias = sum(theirs.get(key, 0) for key in ("fc.bias", "model.output_layer.3.bias"))  # folded into the last BN
    affine = EMBEDDING_BN * (published == "adaface-ir152")  # AdaFace's last BN has no weight and bias
    assert parameters(name, image_size=112) == sum(theirs.values()) - bias + affine


def test_published_counts_of_other_networks():
    """facenet-pytorch: 27.9 M with 8,631 classes; the reference's ResNet-50: 40,290,880 with the bias of its last layer."""
    assert parameters("inception_resnet_v1") + 8631 * 513 == pytest.approx(27.9e6, rel=0.001)
    assert parameters("resnet50_stem7") == 40_290_880 - 512
    assert parameters("ir50", origin="reference") == parameters("ir50") - 2 * (
        64 * 3 + 128 * 4 + 256 * 14 + 512 * 3
    ) - (64 * 64 + 2 * 64)


@pytest.mark.parametrize(("size", "onnx_bytes"), [("t", 76_653_813), ("s", 304_196_926), ("b", 455_533_000)])
def test_insightface_s_transformers_have_the_size_of_lvface_s_files(size, onnx_bytes):
    """LVFace's ONNX files of these networks, 4 bytes a parameter (and some kB for the graph)."""
    assert parameters(f"insightface_vit_{size}", image_size=112) * 4 == pytest.approx(onnx_bytes, rel=0.002)


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152, 200])
def test_squeeze_and_excitation_adds_its_two_layers(depth):
    units = {
        18: (2, 2, 2, 2),
        34: (3, 4, 6, 3),
        50: (3, 4, 14, 3),
        101: (3, 13, 30, 3),
        152: (3, 8, 36, 3),
        200: (6, 26, 60, 6),
    }[depth]
    added = sum(
        count * (2 * width * width // 16 + width // 16 + width) for count, width in zip(units, WIDTHS, strict=True)
    )
    assert parameters(f"irse{depth}") - parameters(f"ir{depth}") == added


def test_mobilefacenet_has_the_published_parameters():
    """0.99 M for 128 dimensions at 112 px (Chen et al. 2018). Each further dimension has a row and a normalisation."""
    assert parameters("mobilefacenet", image_size=112) - 384 * (512 + 2) == pytest.approx(0.99e6, rel=0.02)


def test_vit_small_has_the_published_parameters():
    """DeiT-S has 22,050,664 (timm) with 196 patches of 16 px, a class token and a classifier."""
    trunk = 22_050_664 - 385_000 - 384 * (3 * 16 * 16 + 1) - 197 * 384 - 384
    assert parameters("vit_small") == trunk + 384 * (3 * 8 * 8 + 1) + 256 * 384 + 384 * 512 + EMBEDDING_BN


def naive_multiply_adds(backbone, image_size):
    """Counts in hooks: one multiply-add per weight for each output value of a convolution or linear layer."""
    counts = []

    def count(layer, inputs, output):
        counts.append(output.numel() * layer.weight[0].numel())

    for layer in backbone.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
    backbone(torch.empty(1, 3, image_size, image_size, device="meta"))
    return sum(counts)


@pytest.mark.parametrize(
    ("name", "image_size"),
    [("spherenet4", 128), ("irse18", 112), ("seresnet50", 128), ("densenet121", 112), ("mobilefacenet", 128)],
)
def test_multiply_adds_equal_the_naive_count(name, image_size):
    with torch.device("meta"):
        backbone = build_backbone(name, image_size=image_size).eval()
    assert backbone_cost(name, image_size=image_size).multiply_adds == naive_multiply_adds(backbone, image_size)


def test_multiply_adds_of_the_vit_follow_the_formula():
    tokens, width = 256, 384
    layer = tokens * (4 + 8) * width**2 + 2 * tokens**2 * width  # projections and MLP; attention and its use
    assert backbone_cost("vit_small").multiply_adds == tokens * 192 * width + 12 * layer + width * 512


@pytest.mark.heavy
def test_the_table_has_a_line_per_backbone():
    lines = backbone_table().splitlines()
    assert lines[0].split("  ")[0] == "name"
    assert lines[0].endswith("parameters (M)  multiply-adds (G)  source")
    assert lines[3].split(maxsplit=4) == [
        "spherenet20",
        "spherenet",
        "28.44",
        "2.67",
        "Liu et al., SphereFace, CVPR 2017",
    ]
    assert [line.split()[0] for line in lines[1:]] == list(BACKBONES)
    assert all(line.isascii() and line == line.rstrip() for line in lines)
