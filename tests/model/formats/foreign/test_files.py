"""Files of other programs: objects besides tensors are skipped and never executed; folders of CVLface."""

from __future__ import annotations

import argparse
import codecs
import collections
import functools
import json
import os
import pathlib
import re
import resource
import shutil
import subprocess
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from model.errors import CheckpointError, ExportError
from model.formats.checkpoint import read_checkpoint
from model.formats.foreign.contents import state_dicts
from model.formats.foreign.cvlface import cvlface_weights
from model.formats.network import load_network, read_tensors
from model.training.config import TrainConfig
from model.training.start import initial_network
from pipeline.named_specs import NAMED_SPECS
from pipeline.spec import Preprocessing
from tests.model.formats.foreign.golden import keys_of, seeded_state


class Settings(dict):
    """A dict of another program, as Lightning keeps hyperparameters in."""


class Slotted:
    """An object whose state is a tuple."""

    __slots__ = ("a", "b")

    def __init__(self):
        self.a, self.b = 1, torch.zeros(2)


class Payload:
    """Runs a function when it is unpickled the usual way."""

    def __init__(self, function, *arguments):
        self.reduced = (function, arguments)
        if function in (collections.OrderedDict, Settings):  # with fields
            self.reduced = (function, arguments[:1], arguments[1])

    def __reduce__(self):
        return self.reduced


def lightning(**beside):
    """What PyTorch Lightning 1.x writes beside the state dict of a small network."""
    return {
        "epoch": 25,
        "pytorch-lightning_version": "1.4.4",
        "state_dict": {"model.w": torch.arange(6.0).reshape(2, 3), "head.kernel": torch.zeros(3)},
        "callbacks": {Settings: {"best_model_path": pathlib.PurePosixPath("/a/b"), "best": np.float64(0.5)}},
        "optimizer_states": [{"state": {0: {"momentum_buffer": torch.zeros(2, 3)}}, "param_groups": [{"lr": 0.1}]}],
        "lr_schedulers": [{"milestones": collections.Counter({12: 1})}],
        "hparams_name": "args",
        "hyper_parameters": Settings(arch="ir_50", nested=Settings(a=1)),
        "args": argparse.Namespace(seed=3, path=pathlib.Path("x")),
        "rng": np.random.default_rng(0).integers(0, 9, 5),
        "slots": Slotted(),
        "schedule": functools.partial(max, 1),
        **beside,
    }


def test_objects_beside_the_tensors_are_passed_over(tmp_path):
    torch.save(lightning(), tmp_path / "x.ckpt")
    with pytest.raises(CheckpointError, match="refused: not a checkpoint, or it holds objects other than tensors"):
        read_checkpoint(tmp_path / "x.ckpt")
    allowed = set(torch.serialization.get_safe_globals())
    content = read_tensors(tmp_path / "x.ckpt")
    assert content["state_dict"]["model.w"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert (content["epoch"], content["pytorch-lightning_version"]) == (25, "1.4.4")
    assert not isinstance(content["args"], argparse.Namespace)
    assert next(state_dicts(content)).where == ("state_dict",)
    assert set(torch.serialization.get_safe_globals()) == allowed
    with pytest.raises(
        CheckpointError, match=r"no known network in its 2 tensors in state_dict: model\.w \(2, 3\), head"
    ):
        load_network(tmp_path / "x.ckpt")


@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (eval, ("__import__('os').mkdir('ran')",)),
        (exec, ("open('ran', 'w')",)),
        (pathlib.Path.touch, (pathlib.Path("ran"),)),
        (os.mkdir, ("ran",)),
        (os.system, ("touch ran",)),
        (subprocess.check_call, (["touch", "ran"],)),
        (getattr, (os, "mkdir")),
        (np.save, ("ran", 3)),
        (torch.load, ("x.ckpt",)),
        (torch.save, (3, "ran")),
    ],
)
@pytest.mark.parametrize("place", ["beside", "in the state dict", "as a key", "alone"])
def test_nothing_in_a_file_is_run(tmp_path, monkeypatch, function, arguments, place):
    monkeypatch.chdir(tmp_path)
    payload = Payload(function, *arguments) if function is not getattr else Payload(getattr, "os", "mkdir")
    content = {
        "beside": lightning(x=payload),
        "in the state dict": {"state_dict": {"w": torch.zeros(2), "x": payload}},
        "as a key": lightning(x={payload: 3}),
        "alone": payload,
    }[place]
    torch.save(content, "x.ckpt")
    allowed = set(torch.serialization.get_safe_globals())
    with pytest.raises(CheckpointError, match=r"x\.ckpt: "):
        load_network("x.ckpt")
    assert os.listdir() == ["x.ckpt"]
    assert set(torch.serialization.get_safe_globals()) == allowed


def test_tensors_in_skipped_objects_are_bounded_too(tmp_path):
    vast = torch.ones(1).expand(1 << 20, 1 << 18)
    module = nn.Linear(2, 2)
    module.weight = nn.Parameter(torch.zeros(2, 2))
    module.vast = vast
    torch.save({"model": module}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="refused: a tensor of 274,877,906,944 values has fewer in the file"):
        load_network(tmp_path / "x.pt")


def test_of_a_whole_pickled_module_the_tensors_are_taken(tmp_path):
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Sequential(nn.BatchNorm2d(4), nn.PReLU()))
    module.register_buffer("unsaved", torch.zeros(3), persistent=False)
    torch.save({"model": nn.DataParallel(module), "epoch": 3}, tmp_path / "x.pt")
    (found,) = state_dicts(read_tensors(tmp_path / "x.pt"))
    assert found.where == ("model",)
    expected = nn.DataParallel(module).state_dict()
    assert set(found.tensors) == set(expected)
    assert all(torch.equal(found.tensors[name], value) for name, value in expected.items())


def test_old_files_are_read_the_same_way(tmp_path):
    torch.save(lightning(), tmp_path / "x.ckpt", _use_new_zipfile_serialization=False)
    assert read_tensors(tmp_path / "x.ckpt")["state_dict"]["model.w"].tolist() == [[0, 1, 2], [3, 4, 5]]


def nested(levels):
    """Ten to the power of ``levels`` numbers, of which each list is saved once."""
    values = [1.0]
    for _ in range(levels):
        values = [values] * 10
    return values


def doubled(times):
    """Bytes of two to the power of ``times``."""
    value = b"ab"
    for _ in range(times):
        value = Payload(codecs.encode, value, "HEX")
    return value


VAST_VIEW = torch.zeros(1).expand(1 << 20, 1 << 14)


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(
    ("value", "name"),
    [
        (Payload(bytearray, 1 << 34), "builtins.bytearray"),
        (Payload(torch.Tensor, nested(10)), "torch.Tensor"),
        (Payload(torch.FloatTensor, 1 << 33), "torch.FloatTensor"),
        (doubled(40), "_codecs.encode"),
        (
            Payload(torch._utils._rebuild_device_tensor_from_cpu_tensor, VAST_VIEW, torch.float64, "cpu", False),
            "torch._utils._rebuild_device_tensor_from_cpu_tensor",
        ),
    ],
)
def test_calls_that_take_any_amount_of_memory_are_refused(tmp_path, value, name, old):
    torch.save(
        {"state_dict": {"w": torch.zeros(2)}, "x": value}, tmp_path / "x.pt", _use_new_zipfile_serialization=not old
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for read in (load_network, read_checkpoint):
        with pytest.raises(
            CheckpointError, match=rf"x\.pt: refused: it calls {re.escape(name)}, which may take any amount"
        ):
            read(tmp_path / "x.pt")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50 << 10


def test_a_file_cannot_hide_the_methods_of_its_dicts(tmp_path):
    fields = {"items": 3, "values": 4, "get": 5, "keys": 6}
    module = {"_parameters": {"w": torch.zeros(2)}, "_buffers": {}, "_modules": {"x": 3}, **fields}
    for value in (
        Payload(collections.OrderedDict, {"w": torch.zeros(2)}, fields),
        Payload(Settings, {}, module),
    ):
        for content in (value, {"state_dict": value}):
            torch.save(content, tmp_path / "x.pt")
            with pytest.raises(CheckpointError, match=r"no known network in its 1 tensor.*: w \(2,\), "):
                load_network(tmp_path / "x.pt")


def test_changed_bytes_in_a_file_of_another_program_give_named_errors(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "x.ckpt"
    torch.save(lightning(), path)
    good = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        pickled = archive.read("x/data.pkl")
    start = good.index(pickled)
    for _ in range(60):
        data = bytearray(good)
        for position in rng.integers(start, start + len(pickled), 3).tolist():
            data[position] ^= 1 << int(rng.integers(8))
        fixed = tmp_path / "y.ckpt"
        with zipfile.ZipFile(path) as archive, zipfile.ZipFile(fixed, "w") as changed:  # with sound checksums
            for member in archive.infolist():
                content = bytes(data[start : start + len(pickled)])
                changed.writestr(member, content if member.filename.endswith("data.pkl") else archive.read(member))
        with pytest.raises(CheckpointError, match=r"y\.ckpt: "):
            load_network(fixed)


IR18 = "adaface-ir18"


@pytest.fixture(scope="module")
def cvlface(tmp_path_factory):
    """A folder as CVLface uploads them, with weights of CVLface's names in both files."""
    folder = tmp_path_factory.mktemp("cvlface_adaface_ir18")
    state = {f"net.{key.removeprefix('model.')}": value for key, value in seeded_state(keys_of(IR18), 1).items()}
    config = {"architectures": ["CVLFaceRecognitionModel"], "conf": {"color_space": "RGB", "name": "ir18"}}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "pretrained_model").mkdir()
    (folder / "pretrained_model" / "model.yaml").write_text("input_size: [3, 112, 112]\ncolor_space: 'BGR'\n")
    torch.save(state, folder / "pretrained_model" / "model.pt")
    safetensors.torch.save_file({f"model.{key}": value for key, value in state.items()}, folder / "model.safetensors")
    return folder


def test_a_folder_of_cvlface_loads_with_the_colours_that_its_configuration_states(cvlface):
    network = load_network(cvlface)
    assert (network.name, network.spec) == ("ir18:origin=adaface", NAMED_SPECS["insightface"])
    assert network.note == f"{cvlface}: CVLface IR-18, read as ir18:origin=adaface; took model.net.*"
    assert network.spec_stated
    other = load_network(cvlface / "pretrained_model" / "model.pt")
    assert other.spec == NAMED_SPECS["adaface"]
    assert other.digest != network.digest  # it depends on the preprocessing


def test_the_files_of_a_folder_of_cvlface(cvlface):
    assert cvlface_weights(cvlface) == [cvlface / "model.safetensors", cvlface / "pretrained_model" / "model.pt"]
    assert cvlface_weights(cvlface / "pretrained_model") == [cvlface / "pretrained_model" / "model.pt"]
    assert cvlface_weights(cvlface.parent) == []
    assert set(read_tensors(cvlface / "model.safetensors")) == {
        f"model.net.{key.removeprefix('model.')}" for key, _ in keys_of(IR18)
    }


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_a_folder_that_transformers_does_not_know_is_its_weights(cvlface, tmp_path, name):
    config = {"model_type": "iresnet", "auto_map": {"AutoModel": "wrapper.Model"}}  # names code, which is not run
    (tmp_path / "config.json").write_text(json.dumps(config))
    if name == "model.safetensors":
        shutil.copy(cvlface / name, tmp_path)
    else:
        torch.save(read_tensors(cvlface / "model.safetensors"), tmp_path / name)
    network = load_network(tmp_path)
    assert (network.name, network.trainable, network.spec_stated) == ("ir18:origin=adaface", True, False)
    assert network.spec == NAMED_SPECS["insightface"]
    torch.save({"w": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink(missing_ok=True)
    with pytest.raises((CheckpointError, ExportError), match=r"auto_map|transformers is not installed"):
        load_network(tmp_path)


def test_safetensors_are_known_by_their_content(cvlface, tmp_path):
    blob = tmp_path / "5f2c0e"  # as the cache of huggingface_hub names it
    shutil.copy(cvlface / "model.safetensors", blob)
    assert load_network(blob).name == "ir18:origin=adaface"
    blob.write_bytes(blob.read_bytes()[:2000])  # shorter than its header
    with pytest.raises(CheckpointError, match="5f2c0e: damaged or not a checkpoint"):
        load_network(blob)


def test_safetensors_that_begin_as_onnx_are_read(tmp_path):
    path, starts = tmp_path / "net.safetensors", set()
    for length in range(0, 256, 8):  # the file begins with the length of its header, a multiple of 8
        safetensors.torch.save_file({"w": torch.zeros(2)}, path, metadata={"note": "x" * length})
        starts.add(path.read_bytes()[:1])
        with pytest.raises(CheckpointError, match=r"no known network in its 1 tensor: w \(2,\)"):
            load_network(path)
    assert b"\x08" in starts


def test_damaged_configurations_beside_a_network_state_nothing(tmp_path):
    for text in (
        "",
        "{",
        "[]",
        '{"conf": 3}',
        '{"conf": {"color_space": ["RGB"]}}',
        "[" * 9999,
        '{"conf": {"color_space": "x"}}',
    ):
        (tmp_path / "config.json").write_text(text)
        (tmp_path / "model.pt").write_bytes(b"")
        with pytest.raises(CheckpointError, match=r"config\.json: |model\.pt: "):
            load_network(tmp_path)


def test_fine_tuning_starts_from_a_network_of_another_project(cvlface):
    settings = TrainConfig(backbone="ir18:origin=adaface", pretrained=str(cvlface / "pretrained_model"))
    shards = Preprocessing(template="arcface", size=112)
    spec, weights, note = initial_network(settings, shards, None)
    assert (spec.color, spec.size, spec.template, spec.warp) == ("BGR", 112, "arcface", shards.warp)
    assert weights["7.4.weight"].tolist() == [1.0] * 512
    assert "CVLface IR-18" in note
