"""TorchScript and torch.export: the same embeddings as the module; nothing in a file is executed but its operators."""

from __future__ import annotations

import json
import pickle
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from model.embedder import Embedder
from model.errors import CheckpointError
from model.formats.network import load_network
from pipeline.named_specs import NAMED_SPECS
from pipeline.spec import Preprocessing
from tests.networks import noise

REFUSED = "which may reach files or other processes; trace the network alone: torch.jit.trace(network, images)"


class Net(nn.Module):
    """Pixels -> embedding, and its norm if ``several``."""

    def __init__(self, size=None, several=False):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2)
        self.norm, self.act, self.drop = nn.BatchNorm2d(8), nn.PReLU(8), nn.Dropout(0.5)
        side = 4 if size is None else (size - 1) // 2
        self.pool = nn.AdaptiveAvgPool2d(4) if size is None else nn.Identity()
        self.out, self.several = nn.Linear(8 * side * side, 6), several

    def forward(self, pixels):
        found = self.out(self.drop(self.pool(self.act(self.norm(self.conv(pixels))))).flatten(1))
        return (found.norm(dim=1, keepdim=True), found) if self.several else found


class Saves(nn.Module):
    def forward(self, pixels):
        torch.save(pixels, "written")
        return pixels.mean((2, 3))


class Maps(nn.Module):
    def forward(self, pixels):
        return torch.from_file("mapped", True, 6) + pixels.mean((1, 2, 3))[:, None]


def quiet(call, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return call(*arguments, **options)


def trace(path, net, size=112):
    quiet(lambda: torch.jit.trace(net, torch.zeros(2, 3, size, size)).save(str(path)))
    return path


def export(path, net, size=112, batch=None):
    dims = ({0: torch.export.Dim("batch")},) if batch is None else None
    program = torch.export.export(net, (torch.zeros(batch or 2, 3, size, size),), dynamic_shapes=dims)
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return Net().eval()


@pytest.fixture(scope="module")
def exported(net, tmp_path_factory):
    return export(tmp_path_factory.mktemp("pt2") / "x.pt2", net)


def same(found, net, images):
    spec = found.spec
    options = {"mean": spec.mean, "std": spec.std, "color": spec.color}
    return np.array_equal(Embedder(found.backbone, **options)(images), Embedder(net, **options)(images))


def test_a_traced_network_is_the_network(net, tmp_path):
    path = trace(tmp_path / "any name", net)
    network = load_network(path)
    assert (network.spec, network.spec_stated, network.name) == (NAMED_SPECS["insightface"], False, "torchscript")
    assert (network.trainable, network.cached, network.embedding_size()) == (False, True, 6)
    assert same(network, net, noise(112))
    assert load_network(path).digest == network.digest
    given = load_network(path, Preprocessing.unaligned(size=64, color="BGR"))
    assert given.spec.size == 64
    assert same(given, net, noise(64))


@pytest.mark.parametrize("save", [trace, export])
def test_a_network_that_was_saved_in_training_mode_is_refused(tmp_path, save):
    path = save(tmp_path / "net", Net().train())
    with pytest.raises(CheckpointError) as error:
        load_network(path)
    assert str(error.value) == (
        f"{path}: the embedding of an image changes with the other images of its batch, or from call to call, as in training"
        " mode; call network.eval() before the network is saved, or in your function"
    )


@pytest.mark.parametrize("size", [128, 160])
def test_the_size_of_a_script_is_found_by_trying(tmp_path, size):
    torch.manual_seed(0)
    net = Net(size).eval()
    path = trace(tmp_path / "x.pt", net, size)
    network = load_network(path)
    assert network.spec == NAMED_SPECS["insightface"].resized(size)
    assert same(network, net, noise(size))
    assert load_network(path, NAMED_SPECS["adaface"]).spec == NAMED_SPECS["adaface"].resized(size)
    with pytest.raises(
        CheckpointError, match=r"x\.pt: cannot be run on pixels \(2, 3, 64, 64\) \(.*mat1 and mat2 shapes"
    ):
        load_network(path, Preprocessing(size=64))


def test_the_embedding_is_found_beside_the_norm(tmp_path):
    torch.manual_seed(0)
    net = Net(several=True).eval()
    with torch.inference_mode():
        expected = net(torch.ones(2, 3, 112, 112))[1]
    for path in (trace(tmp_path / "x.pt", net), export(tmp_path / "x.pt2", net)):
        with torch.inference_mode():
            assert torch.equal(load_network(path).backbone(torch.ones(2, 3, 112, 112)), expected)


@pytest.mark.parametrize(("network", "word"), [(Saves(), "save"), (Maps(), "from_file")])
def test_a_script_that_reaches_files_is_refused(tmp_path, monkeypatch, network, word):
    monkeypatch.chdir(tmp_path)
    quiet(lambda: torch.jit.script(network).save("evil.pt"))
    with pytest.raises(CheckpointError) as error:
        load_network("evil.pt")
    assert str(error.value) == f"evil.pt: refused: its code names {word}, {REFUSED}"
    assert [path.name for path in tmp_path.iterdir()] == ["evil.pt"]


def test_a_script_that_cannot_be_used_is_one_line(net, tmp_path):
    path = trace(tmp_path / "x.pt", net)
    data = path.read_bytes()
    for number, content in enumerate([data[: len(data) // 2], data[:-30], data.replace(b"Conv2d", b"Gonv2d")]):
        bad = tmp_path / f"{number}.pt"
        bad.write_bytes(content)
        with pytest.raises(CheckpointError) as error:
            load_network(bad)
        assert str(error.value).startswith(f"{bad}: ")
        assert len(str(error.value).splitlines()) == 1
    with pytest.raises(
        CheckpointError, match=r"0 of its outputs could be embeddings of 2 images \(0 \(2, 3, 110, 110\)\)"
    ):
        load_network(trace(tmp_path / "map.pt", nn.Conv2d(3, 3, 3)))


@pytest.mark.parametrize("batch", [None, 2])
def test_an_exported_network_is_the_network(net, tmp_path, exported, batch):
    path = exported if batch is None else export(tmp_path / "x.pt2", net, batch=batch)
    network = load_network(path)
    assert (network.spec, network.spec_stated, network.name) == (NAMED_SPECS["insightface"], False, "torch.export")
    assert network.backbone.batch == batch
    assert same(network, net, noise(112))
    with pytest.raises(CheckpointError, match=r"takes \((N|2), 3, 112, 112\), but --preprocessing has size = 64"):
        load_network(path, Preprocessing(size=64))


def changed(source, target, **changes):
    """Copies an archive; ``changes`` are functions of the content of the members whose name ends as the key says."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for member in old.infolist():
            data = old.read(member)
            for end, change in changes.items():
                if member.filename.endswith(end.replace("__", ".")):
                    data = change(data)
            new.writestr(member.filename, data)
    return target


class Evil:
    def __reduce__(self):
        return (Path.touch, (Path("executed"),))


def edited(old, new):
    def change(data):
        assert old.encode() in data, old
        return data.replace(old.encode(), new.encode())

    return change


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        (
            {"model__json": edited("torch.ops.aten.linear.default", "torch.ops.aten.save.default")},
            "refused: x/models/model.json has target 'torch.ops.aten.save.default'; export the network alone",
        ),
        (
            {"model__json": edited("torch.ops.aten.linear.default", "torch.hub.load")},
            "refused: x/models/model.json has target 'torch.hub.load'",
        ),
        (
            {"model__json": edited("positive=True, integer=True", "positive=exec(executed), integer=True")},
            "refused: x/models/model.json has expr_str \"Symbol('",
        ),
        (
            {"model__json": edited('"linear"', '"linear = print(1)\\\\n"')},
            "refused: x/models/model.json has ",
        ),
        (
            {"model__json": edited("builtins.tuple", "builtins.exec")},
            "refused: x/models/model.json has in_spec ",
        ),
        (
            {"model_weights_config__json": edited('"use_pickle": false', '"use_pickle": true')},
            "refused: it holds pickled tensors or objects; save plain tensors",
        ),
        ({"model__json": lambda data: data[:-3]}, "damaged or not of torch.export ("),
        ({"model__json": lambda data: b"{}"}, "damaged or not of torch.export ("),
        ({"model__json": lambda data: b"[" * 100000}, "damaged or not of torch.export ("),
        ({"weight_0": lambda data: data[:8]}, "damaged or not of torch.export ("),
        ({"archive_version": lambda data: b"x"}, "damaged or not of torch.export ("),
    ],
)
def test_an_exported_file_executes_nothing_and_is_one_line(tmp_path, monkeypatch, exported, changes, says):
    monkeypatch.chdir(tmp_path)
    path = changed(exported, tmp_path / "x.pt2", **changes)
    with pytest.raises(CheckpointError) as error:
        load_network(path)
    assert str(error.value).startswith(f"{path}: {says}")
    assert len(str(error.value).splitlines()) == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.pt2"]


def test_pickled_sample_inputs_and_guards_are_left_out(tmp_path, monkeypatch, exported, net):
    monkeypatch.chdir(tmp_path)

    def guarded(data):
        record = json.loads(data)
        record["guards_code"] = ["open('executed', 'w')"]
        return json.dumps(record).encode()

    path = changed(exported, tmp_path / "x.pt2", model__pt=lambda data: pickle.dumps(Evil()), model__json=guarded)
    assert same(load_network(path), net, noise(112))
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.pt2"]


def test_an_exported_network_of_something_else_is_one_line(tmp_path):
    class Two(nn.Module):
        def forward(self, one, other):
            return one.flatten(1) + other.flatten(1)

    pixels = torch.zeros(2, 3, 8, 8)
    torch.export.save(torch.export.export(Two(), (pixels, pixels)), tmp_path / "two.pt2")
    torch.export.save(torch.export.export(nn.Linear(4, 4), (torch.zeros(2, 4),)), tmp_path / "flat.pt2")
    for name, found in (("two", "()"), ("flat", "(2, 4)")):
        with pytest.raises(CheckpointError) as error:
            load_network(tmp_path / f"{name}.pt2")
        assert str(error.value) == (f"{tmp_path}/{name}.pt2: takes {found}, expected one input (N, 3, S, S) of float32")
