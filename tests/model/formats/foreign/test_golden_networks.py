"""Networks of other projects on our backbones: the outputs that the projects' own code gives."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from model.embedder import Embedder
from model.formats.foreign.recognise import recognise
from model.formats.network import load_network
from tests.model.formats.foreign import oracles
from tests.model.formats.foreign.golden import NAMES, golden, keys_of, meta_state, seeded_state

SMALL = ("adaface-ir18", "insightface-iresnet18", "facenet-pytorch-InceptionResnetV1")
CHOICES = {
    "adaface-ir18": "ir18:origin=adaface",
    "adaface-ir50": "ir50:origin=adaface",
    "adaface-ir152": "irb152",
    "adaface-irse50": "irse50:origin=adaface",
    "facenet-pytorch-InceptionResnetV1": "inception_resnet_v1",
    "insightface-iresnet18": "ir18",
    "insightface-iresnet50": "ir50",
    "insightface-iresnet100": "ir101",
    "reference-IR_50": "ir50:origin=reference",
    "reference-IR_SE_50": "irse50:origin=reference",
    "reference-ResNet_50": "resnet50_stem7",
    "reference-ResNet_101": "resnet101_stem7",
}


def embedded(path, images):
    """The loaded network, and its embeddings of images as its spec says."""
    network = load_network(path)
    spec = network.spec
    assert images.shape[1] == spec.size
    return network, Embedder(network.backbone, mean=spec.mean, std=spec.std, color=spec.color)(images)


def assert_close(found, expected):
    cosine = (found * expected).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(expected, axis=1)
    assert cosine.min() > 0.99999
    assert np.abs(found - expected).max() < 1e-4 * np.abs(expected).max()


def test_every_golden_network_is_known():
    assert set(NAMES) == set(CHOICES)
    assert len(NAMES) == 12


@pytest.mark.parametrize("name", NAMES)
def test_every_key_and_shape_finds_its_place(tmp_path, name):
    network = recognise(tmp_path, meta_state(keys_of(name)))
    assert str(network.match.choice) == CHOICES[name]
    assert ", without" not in network.note


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in SMALL else pytest.mark.heavy) for name in NAMES]
)
def test_embeddings_are_those_of_the_project_s_own_code(tmp_path, name):
    state, images, expected = golden(name)
    torch.save({"state_dict": state} if name.startswith("adaface") else state, tmp_path / "x.pth")
    del state
    network, found = embedded(tmp_path / "x.pth", images)
    assert network.name == CHOICES[name]
    assert not network.backbone.training
    assert_close(found, expected)
    assert len({bytes(row) for row in found}) == 3


@pytest.mark.parametrize(
    ("title", "oracle", "keys"),
    [
        pytest.param(
            "MagFace iresnet18",
            oracles.magface,
            oracles.iresnet_keys((2, 2, 2, 2), "features.module."),
            marks=pytest.mark.heavy,
        ),
        pytest.param("iresnet34", oracles.iresnet, oracles.iresnet_keys((3, 4, 6, 3)), marks=pytest.mark.heavy),
        pytest.param("iresnet200", oracles.iresnet, oracles.iresnet_keys((6, 26, 60, 6)), marks=pytest.mark.heavy),
        pytest.param("insightface ViT t", oracles.vit(8), oracles.vit_keys(9, 256, 12, 1024), marks=pytest.mark.heavy),
        pytest.param("CVLface ViT small", oracles.vit(8), oracles.vit_keys(8, 512, 12, 2560), marks=pytest.mark.heavy),
        pytest.param("CVLface ViT base", oracles.vit(16), oracles.vit_keys(8, 512, 24, 1536), marks=pytest.mark.heavy),
    ],
)
def test_embeddings_are_those_of_a_naive_computation_on_the_project_s_names(tmp_path, title, oracle, keys):
    state = seeded_state(keys, 3)
    torch.save(state, tmp_path / "x.pth")
    images = np.random.default_rng(4).integers(0, 256, (3, 112, 112, 3), dtype=np.uint8)
    network, found = embedded(tmp_path / "x.pth", images)
    assert f"{title}, read as" in network.note
    with torch.inference_mode():
        expected = oracle(state, torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255).numpy()
    assert_close(found, expected)
