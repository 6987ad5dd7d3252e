"""The PReLU for CPUs against PyTorch's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from model.backbones import build_backbone
from model.training import prelu
from model.training.config import TrainConfig
from model.training.learner import Learner
from model.training.prelu import PReLU, use_chunked_prelu
from model.training.state import new_run
from pipeline.spec import Preprocessing


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Two images of (3, 4, 4) per chunk, so that five images take three chunks."""
    monkeypatch.setattr(prelu, "CHUNK_ELEMENTS", 100)


def both(shape, dtype=torch.float32, memory=torch.contiguous_format):
    """Output and gradients of PyTorch's and of ours, for the same input, slopes and gradient."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator).to(dtype)
    x.view(-1)[::7] = 0.0
    above = torch.randn(shape, generator=generator).to(dtype)
    found = []
    for kind in (nn.PReLU, PReLU):
        layer = kind(shape[1]).to(dtype)
        layer.weight.data = torch.linspace(-0.5, 1.5, shape[1], dtype=dtype)
        leaf = x.to(memory_format=memory).requires_grad_()
        out = layer(leaf)
        out.backward(above)
        found.append((out, leaf.grad, layer.weight.grad))
    return found


@pytest.mark.parametrize(
    ("shape", "memory"),
    [
        ((5, 3), torch.contiguous_format),
        ((5, 3, 4, 4), torch.contiguous_format),
        ((5, 3, 4, 4), torch.channels_last),
        ((1, 3, 40, 40), torch.channels_last),
        ((0, 3, 4, 4), torch.contiguous_format),
    ],
)
def test_output_and_gradients_are_those_of_pytorch(shape, memory):
    (out, of_x, of_slopes), ours = both(shape, memory=memory)
    assert torch.equal(ours[0], out)
    assert torch.equal(ours[1], of_x)
    torch.testing.assert_close(ours[2], of_slopes, rtol=1e-5, atol=1e-5)


def test_slope_gradients_in_bfloat16():
    exact, (_, _, ours) = both((5, 3, 4, 4))[0][2], both((5, 3, 4, 4), torch.bfloat16)[1]
    torch.testing.assert_close(ours.float(), exact, rtol=0.02, atol=0.1)


def test_gradients_are_correct():
    x = torch.randn(3, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(PReLU(2, dtype=torch.float64), (x,))


def test_it_replaces_layers_with_a_slope_per_channel():
    network = nn.Sequential(nn.PReLU(), nn.Sequential(nn.PReLU(4)), nn.ReLU())
    names = {name: value.shape for name, value in network.state_dict().items()}
    assert [type(layer) for layer in use_chunked_prelu(network).modules()] == [
        nn.Sequential,
        nn.PReLU,
        nn.Sequential,
        PReLU,
        nn.ReLU,
    ]
    assert {name: value.shape for name, value in network.state_dict().items()} == names


@pytest.mark.parametrize(("device", "kind"), [("cpu", PReLU), ("cuda", nn.PReLU)])
def test_runs_on_a_cpu_use_it(device, kind):
    spec = Preprocessing(size=32)
    learner = Learner(TrainConfig(backbone="spherenet4"), classes=3, preprocessing=spec, device=device)
    assert {type(layer) for layer in learner.backbone.modules() if isinstance(layer, nn.PReLU)} == {kind}
    plain = build_backbone("spherenet4", image_size=32)
    assert list(learner.backbone.state_dict()) == list(plain.state_dict())


def test_runs_on_pytorchs_own_device_use_it():
    config = TrainConfig(backbone="spherenet4")
    state = new_run(config, classes=4, preprocessing=Preprocessing(size=32), device=torch.device("cpu"))
    assert any(type(layer) is PReLU for layer in state.learner.backbone.modules())
