"""Digests of networks: fixed values, names, shapes; a shape that does not fit. The networks are whole."""

from __future__ import annotations

import pytest
import torch

from model.backbones import build_backbone
from model.formats.checkpoint import CheckpointError
from model.formats.network import backbone_digest, load_network
from pipeline.spec import Preprocessing
from tests.golden_weights import golden_state


def test_the_digest_changes_with_names_and_shapes():
    values = torch.arange(6.0)
    networks = []
    for shape, name in [((2, 3), "a"), ((3, 2), "a"), ((2, 3), "b")]:
        network = torch.nn.Module()
        network.register_buffer(name, values.reshape(shape))
        networks.append(network)
    digests = [backbone_digest("x", network, None) for network in networks]
    digests += [backbone_digest("y", networks[0], None), backbone_digest("x", networks[0], Preprocessing())]
    assert len(set(digests)) == 5


def test_the_digest_is_the_one_that_earlier_versions_gave():
    backbone = build_backbone("spherenet4", image_size=32)
    backbone.load_state_dict(golden_state({name: value.shape for name, value in backbone.state_dict().items()}))
    assert backbone_digest("spherenet4", backbone, None) == "9c242a19a1ef5fc67021d10f47fba7a2"
    stated = backbone_digest("spherenet4", backbone, Preprocessing(size=32))
    assert stated == "93dbe156c19d624863c9dcbd589bfa65"


def test_digests_are_those_of_earlier_versions():
    """Fixed: computed before the spec had points, margin, fit and stretch."""
    layer = torch.nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.arange(4.0).view(2, 2))
    found = backbone_digest("x", layer, Preprocessing(template="arcface", size=112))
    assert found == "252a6ce264151fc67e76e6c7d392b430"


def test_a_wrong_shape_is_named(tmp_path):
    state = build_backbone("spherenet20").state_dict()
    state["1.weight"] = torch.zeros(3)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=r"but 1\.weight is \(3,\), expected \(64,\)"):
        load_network(tmp_path / "x.pth")
