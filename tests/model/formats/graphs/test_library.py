"""Folders of timm and transformers, with substitutes for the libraries, which are not installed."""

from __future__ import annotations

import json
import sys
import types

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from model.errors import CheckpointError, ExportError
from model.formats.network import load_network
from pipeline.named_specs import NAMED_SPECS

TIMM = {
    "architecture": "toy",
    "num_classes": 6,
    "model_args": {"width": 5},
    "pretrained_cfg": {"input_size": [3, 112, 112], "mean": [0.4, 0.5, 0.6], "std": [0.2, 0.2, 0.2]},
}
TRANSFORMERS = {"model_type": "toy", "architectures": ["ToyModel"], "image_size": 64, "width": 5}
PROCESSOR = {"size": {"height": 64, "width": 64}, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2] * 3}


class Toy(nn.Module):
    def __init__(self, width=4, num_classes=6):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, width, 3, stride=2), nn.Linear(width, num_classes)

    def forward(self, pixels):
        return self.head(self.conv(pixels).mean((2, 3)))


class Pooled(Toy):
    """As networks of transformers: several outputs by name."""

    def forward(self, pixels):
        found = self.conv(pixels)
        return {"last_hidden_state": found.flatten(2), "pooler_output": found.mean((2, 3))}


def fake_timm():
    def create_model(name, *, pretrained, num_classes, **options):
        assert not pretrained
        if name != "toy":
            raise RuntimeError(f"Unknown model ({name})")
        return Toy(num_classes=num_classes, **options)

    return types.SimpleNamespace(create_model=create_model)


def fake_transformers():
    def from_pretrained(
        path, *, config, use_safetensors, local_files_only, trust_remote_code, dtype, output_loading_info
    ):
        assert use_safetensors
        assert local_files_only
        assert not trust_remote_code
        from safetensors.torch import load_file

        module = Pooled(width=config["width"])
        found = module.load_state_dict(load_file(path / "model.safetensors"), strict=False)
        return module, {"missing_keys": found.missing_keys, "mismatched_keys": []}

    def config(path, **options):
        return json.loads((path / "config.json").read_text())

    names = ("get_verbosity", "is_progress_bar_enabled", "set_verbosity_error", "disable_progress_bar")
    quiet = types.SimpleNamespace(**dict.fromkeys(names, lambda: None), set_verbosity=lambda verbosity: None)
    return types.SimpleNamespace(
        utils=types.SimpleNamespace(logging=quiet),
        AutoConfig=types.SimpleNamespace(from_pretrained=config),
        AutoModel=types.SimpleNamespace(
            from_config=lambda config, **options: Pooled(width=config["width"]), from_pretrained=from_pretrained
        ),
    )


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """``folder(config, network, processor)`` writes a folder."""
    monkeypatch.setitem(sys.modules, "timm", fake_timm())
    monkeypatch.setitem(sys.modules, "transformers", fake_transformers())

    def write(config, network=None, processor=None):
        (tmp_path / "config.json").write_text(json.dumps(config))
        if processor is not None:
            (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
        if network is not None:
            save_file(network.state_dict(), tmp_path / "model.safetensors")
        return tmp_path

    return write


def test_a_folder_of_timm_embeds_by_its_head(folder):
    net = Toy(5, 6).eval()
    path = folder(TIMM, net)
    network = load_network(path)
    assert (network.spec.size, network.spec.mean, network.spec.std) == (112, (0.4, 0.5, 0.6), 0.2)
    assert (network.name, network.trainable, network.spec_stated, network.embedding_size()) == ("timm", False, False, 6)
    pixels = torch.randn(3, 3, 112, 112)
    with torch.inference_mode():
        assert torch.equal(network.backbone(pixels), net(pixels))
    assert load_network(path, NAMED_SPECS["adaface"]).spec == NAMED_SPECS["adaface"]
    (path / "model.safetensors").unlink()
    torch.save(net.state_dict(), path / "pytorch_model.bin")
    assert load_network(path).embedding_size() == 6


def test_a_folder_of_transformers_embeds_by_its_pooled_output(folder):
    net = Pooled(5).eval()
    network = load_network(folder(TRANSFORMERS, net, PROCESSOR))
    assert (network.spec.size, network.spec.mean, network.spec.std) == (64, (0.4, 0.5, 0.6), 0.2)
    assert (network.name, network.embedding_size()) == ("transformers", 5)
    pixels = torch.randn(3, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(network.backbone(pixels), net(pixels)["pooler_output"])


@pytest.mark.parametrize(
    ("processor", "mean", "std"),
    [
        ({"size": 64, "image_mean": [0.5] * 3, "image_std": [0.5] * 3}, 0.5, 0.5),
        ({"size": {"shortest_edge": 64}, "do_normalize": False}, 0.0, 1.0),
        ({"size": 64, "do_rescale": False, "image_mean": 127.5, "image_std": [127.5] * 3}, 0.5, 0.5),
        ({"size": 64, "rescale_factor": 1 / 127.5, "image_mean": [1.0] * 3, "image_std": [1.0] * 3}, 0.5, 0.5),
        (None, 0.5, 0.5),
    ],
)
def test_the_range_of_an_image_processor_is_read(folder, processor, mean, std):
    spec = load_network(folder(TRANSFORMERS, Pooled(5), processor)).spec
    assert (spec.mean, spec.std) == (pytest.approx(mean), pytest.approx(std))


@pytest.mark.parametrize(
    ("config", "processor", "says"),
    [
        ({**TIMM, "architecture": "none"}, None, ": is not timm's none, or damaged (Unknown model (none))"),
        ({**TIMM, "architecture": "../x"}, None, "/config.json: architecture is not the name of a network of timm"),
        ({**TIMM, "num_classes": 7}, None, ": is not timm's toy, or damaged ("),
        ({**TIMM, "model_args": {"width": 10**9}}, None, "/config.json: width is more than 1,048,576"),
        (
            {**TIMM, "model_args": {"checkpoint_path": "x"}},
            None,
            "/config.json: model_args are not options of the network",
        ),
        ({**TIMM, "pretrained_cfg": {"input_size": 5}}, None, ": states no size of images from 1 to 1024 px"),
        ({**TIMM, "pretrained_cfg": {"mean": "x"}}, None, ": states no mean and deviation of pixels ("),
        (
            {**TRANSFORMERS, "auto_map": {"x": "y.z"}},
            None,
            "/config.json: refused: auto_map, which names code that is not",
        ),
        ({**TRANSFORMERS, "num_hidden_layers": 10**6}, None, "/config.json: num_hidden_layers is more than 1,000"),
        ({**TRANSFORMERS, "width": 50000}, PROCESSOR, ": its weights do not fit config.json: "),
        (TRANSFORMERS, {**PROCESSOR, "size": 5000}, ": states no size of images from 1 to 1024 px"),
        (TRANSFORMERS, {**PROCESSOR, "image_std": [0.0] * 3}, ": states no mean and deviation of pixels ("),
        (
            TRANSFORMERS,
            {**PROCESSOR, "rescale_factor": "x"},
            "/preprocessor_config.json: rescale_factor is not a number",
        ),
    ],
)
def test_a_folder_that_is_no_network_is_one_line(folder, config, processor, says):
    path = folder(config, Toy(5, 6), processor)
    with pytest.raises(CheckpointError) as error:
        load_network(path)
    assert str(error.value).startswith(f"{path}{says}")
    assert len(str(error.value).splitlines()) == 1


def test_missing_weights_and_libraries_are_one_line(folder, monkeypatch):
    path = folder(TRANSFORMERS, processor=PROCESSOR)
    with pytest.raises(CheckpointError, match=r": no model\.safetensors; save it by save_pretrained"):
        load_network(path)
    save_file({"conv.weight": Pooled(5).conv.weight.detach()}, path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"its weights do not fit config\.json: 'conv\.bias' is missing"):
        load_network(path)
    for library, config in (("timm", TIMM), ("transformers", TRANSFORMERS)):
        monkeypatch.setitem(sys.modules, library, None)
        with pytest.raises(ExportError, match=rf"^{library} is not installed; run: pip install .*\[{library}\]"):
            load_network(folder(config, Toy(5, 6), PROCESSOR))
