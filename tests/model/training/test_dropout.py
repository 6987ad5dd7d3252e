"""Dropout masks of several processes together are those of one."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from model.backbones import BACKBONES, build_backbone
from model.training.dropout import GlobalDropout, global_dropout
from model.training.init import initialise_from_data
from model.training.ranks import Ranks

VIEWS, IDENTITIES = 3, 4


def layer_of(rank, size, p=0.4):
    fake = SimpleNamespace(group="some", rank=rank, size=size)
    return global_dropout(fake, nn.Sequential(nn.Dropout(p)), VIEWS)


@pytest.mark.parametrize("shape", [(5,), (6, 2, 2), (6, 1, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("size", [2, 4])
def test_the_parts_of_all_ranks_are_what_one_process_computes(shape, dtype, channels_last, size):
    whole = torch.randn(VIEWS * IDENTITIES, *shape).to(dtype)
    if channels_last and whole.dim() == 4:
        whole = whole.to(memory_format=torch.channels_last)
    torch.manual_seed(5)
    expected = nn.Dropout(0.4)(whole.requires_grad_()).detach()
    assert 0.2 < (expected == 0).float().mean() < 0.6
    together = torch.empty_like(expected).unflatten(0, (VIEWS, size, -1))
    for rank in range(size):
        share = whole.detach().unflatten(0, (VIEWS, size, -1))[:, rank].flatten(0, 1)
        layout = torch.channels_last if channels_last and share.dim() == 4 else torch.contiguous_format
        torch.manual_seed(5)
        part = layer_of(rank, size)(share.contiguous(memory_format=layout))
        assert part.is_contiguous(memory_format=layout)
        together[:, rank] = part.unflatten(0, (VIEWS, -1))
    torch.testing.assert_close(together.flatten(0, 2), expected)
    assert torch.equal(together.flatten(0, 2) == 0, expected == 0)


def test_weights_from_data_are_the_same_on_every_rank():
    """The masks of dropout differ from rank to rank, and so would the scale of the last layer."""
    weights = []
    for rank in range(2):
        torch.manual_seed(0)
        backbone = build_backbone("spherenet4", image_size=32, dropout=0.5)
        global_dropout(SimpleNamespace(group="some", rank=rank, size=2), backbone, VIEWS)
        initialise_from_data(backbone, nn.Linear(512, 4), torch.rand(VIEWS * 4, 3, 32, 32))
        assert backbone.training
        weights.append(backbone.state_dict())
    for name, value in weights[0].items():
        assert torch.equal(value, weights[1][name]), name


def test_the_gradient_passes_where_the_value_did():
    x = torch.ones(VIEWS * 2, 7, requires_grad=True)
    out = layer_of(1, 2, p=0.5)(x)
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())


def test_evaluation_and_a_probability_of_zero_change_nothing_and_draw_nothing():
    x = torch.randn(VIEWS * 2, 7)
    before = torch.get_rng_state()
    assert torch.equal(layer_of(0, 2).eval()(x), x)
    assert torch.equal(layer_of(0, 2, p=0.0)(x), x)
    assert torch.equal(torch.get_rng_state(), before)


def test_one_process_keeps_the_plain_layer():
    network = nn.Sequential(nn.Dropout(0.4))
    assert type(global_dropout(Ranks(), network, VIEWS)[0]) is nn.Dropout


def test_no_backbone_draws_random_numbers_elsewhere():
    """A layer of another class that draws would depend on the number of processes again."""
    drawing = (nn.modules.dropout._DropoutNd, nn.RReLU, nn.FractionalMaxPool2d)
    families = {backbone.family: name for name, backbone in BACKBONES.items()}
    assert len(families) > 5
    for name in families.values():
        with torch.device("meta"):
            modules = [*build_backbone(name).modules()]
        found = [module for module in modules if isinstance(module, drawing) and module.p > 0]
        assert {type(module) for module in found} <= {nn.Dropout}, name
    assert issubclass(GlobalDropout, nn.Dropout)
