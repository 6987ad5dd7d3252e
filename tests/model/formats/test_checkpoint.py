"""Checkpoints: atomic writes, reading without running code, bare state dicts of the reference."""

from __future__ import annotations

import os
import pickle
import re
import resource

import pytest
import torch

from model.backbones import build_backbone
from model.backbones.spherenet import BLOCKS, spherenet
from model.formats.checkpoint import (
    CheckpointError,
    checkpoint_path,
    checkpoints,
    newest_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from model.formats.network import backbone_digest, load_network
from pipeline.spec import Preprocessing

SPEC = Preprocessing().to_dict()
pytestmark = pytest.mark.usefixtures("narrow")


def outputs(backbone):
    with torch.inference_mode():
        return backbone(torch.linspace(-1, 1, 2 * 3 * 128 * 128).reshape(2, 3, 128, 128))


@pytest.mark.parametrize(
    "depth", [4, *(pytest.param(depth, marks=pytest.mark.heavy) for depth in sorted({*BLOCKS} - {4}))]
)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_bare_state_dicts_of_any_depth_load_with_and_without_prefix(tmp_path, depth, prefix):
    backbone = build_backbone(f"spherenet{depth}").eval()
    path = tmp_path / "0100000_net_backbone.pth"
    torch.save({prefix + name: value for name, value in backbone.state_dict().items()}, path)
    network = load_network(path)
    assert (network.spec, network.spec_stated, network.training) == (Preprocessing(), False, {})
    digest = backbone_digest(f"spherenet{depth}", backbone, None)  # does not depend on the names in the file
    assert network.provenance() == {
        "path": str(path),
        "step": None,
        "backbone": f"spherenet{depth}",
        "digest": digest,
    }
    assert torch.equal(outputs(network.backbone), outputs(backbone))


@pytest.mark.parametrize("change", ["empty stages counted", "dropout", "pooling", "sorted by name"])
def test_bare_state_dicts_load_with_any_layer_indices(tmp_path, change):
    backbone = spherenet(10, pooling=change == "pooling").eval()
    state = backbone.state_dict()
    if change == "empty stages counted":  # an empty Sequential takes an index
        moved = {0: 0, 1: 1, 2: 3, 3: 4, 4: 5, 5: 6, 6: 7, 7: 8, 8: 9, 9: 10, 11: 13}
        state = {
            ".".join([str(moved[int(name.split(".")[0])]), *name.split(".")[1:]]): value
            for name, value in state.items()
        }
    if change == "dropout":
        state = spherenet(10, dropout=0.5).state_dict()
        backbone.load_state_dict(dict(zip(backbone.state_dict(), state.values(), strict=True)))
    if change == "sorted by name":
        state = dict(sorted(state.items()))
    torch.save(state, tmp_path / "x.pth")
    assert torch.equal(outputs(load_network(str(tmp_path / "x.pth")).backbone), outputs(backbone))


@pytest.mark.parametrize("name", ["state_dict", "model", "net", 0])
def test_a_state_dict_among_other_things_is_taken_and_the_rest_is_named(tmp_path, name):
    backbone = build_backbone("spherenet4").eval()
    optimizer = torch.optim.SGD(backbone.parameters(), lr=0.1).state_dict()
    head = {"weight": torch.zeros(9, 512)}
    torch.save(
        {"epoch": 3, name: backbone.state_dict(), "optimizer": optimizer, "head\n": head, "best": torch.zeros(1)},
        tmp_path / "x.pth",
    )
    network = load_network(tmp_path / "x.pth")
    assert torch.equal(outputs(network.backbone), outputs(backbone))
    assert network.note == f"{tmp_path}/x.pth: took {name}, without epoch, optimizer, head\\n, best"
    torch.save(backbone.state_dict(), tmp_path / "bare.pth")
    assert load_network(tmp_path / "bare.pth").note == ""
    assert load_network(tmp_path / "bare.pth").digest == network.digest


def test_several_state_dicts_in_one_file_are_an_error(tmp_path):
    state = build_backbone("spherenet4").state_dict()
    for content, found in (
        (
            {"model": state, "teacher": state, "step": 1},
            "holds 2 networks, in model, teacher; save the one to use alone",
        ),
        (
            {"model": {**state, "extra": torch.zeros(1)}},
            "its model has the names of a SphereNet of the reference, but 1 tensor more than expected, such as extra (1,)",
        ),
        (
            {**state, "11.weight": torch.zeros(1)},
            "has the names of a SphereNet of the reference, but it has 15 tensors, spherenet4 has 14",
        ),
    ):
        torch.save(content, tmp_path / "x.pth")
        with pytest.raises(CheckpointError) as error:
            load_network(tmp_path / "x.pth")
        assert found in str(error.value)


def test_averaged_weights_are_taken_where_a_file_has_both(tmp_path):
    state, averaged = build_backbone("spherenet4").state_dict(), build_backbone("spherenet4").eval()
    torch.save({"model": state, "model_ema": {"module": averaged.state_dict()}, "step": 1}, tmp_path / "x.pth")
    network = load_network(tmp_path / "x.pth")
    assert torch.equal(outputs(network.backbone), outputs(averaged))
    assert network.note == (f"{tmp_path}/x.pth: took model_ema: module, the averaged weights, without model, step")


def save(path, **changes):
    backbone = build_backbone("spherenet4")
    content = {"step": 7, "backbone": "spherenet4", "backbone_state": backbone.state_dict(), "preprocessing": SPEC}
    content |= {"head_state": {}, "optimiser_state": {}, "rng_state": torch.zeros(1), "loader_state": {}, "config": {}}
    save_checkpoint(path, {**content, **changes})
    return backbone.eval()


def test_our_checkpoints_load(tmp_path):
    backbone = save(tmp_path / "x.pt")
    network = load_network(tmp_path / "x.pt")
    assert (network.spec, network.spec_stated, network.training) == (Preprocessing(), True, {})
    digest = backbone_digest("spherenet4", backbone, Preprocessing())
    assert network.provenance() == {
        "path": str(tmp_path / "x.pt"),
        "step": 7,
        "backbone": "spherenet4",
        "digest": digest,
    }
    assert network[0] is network.backbone
    assert torch.equal(outputs(network.backbone), outputs(backbone))
    assert not network.backbone.training


def digest_of(path, **changes):
    save(path, **changes)
    return load_network(path).digest


def test_the_digest_depends_on_the_network_and_not_on_the_file(tmp_path):
    state = build_backbone("spherenet4").state_dict()
    first = digest_of(tmp_path / "a.pt", backbone_state=state)
    assert re.fullmatch("[0-9a-f]{32}", first)
    channels_last = {
        name: value.to(memory_format=torch.channels_last) if value.dim() == 4 else value
        for name, value in state.items()
    }
    reordered = dict(reversed(SPEC.items()))
    twin = digest_of(tmp_path / "b.pt", step=8, backbone_state=channels_last, preprocessing=reordered)
    assert (tmp_path / "a.pt").read_bytes() != (tmp_path / "b.pt").read_bytes()
    assert twin == first


def test_the_digest_changes_with_one_weight_and_with_the_preprocessing(tmp_path):
    state = build_backbone("spherenet4").state_dict()
    first = digest_of(tmp_path / "x.pt", backbone_state=state)
    changed = {name: value.clone() for name, value in state.items()}
    weight = changed["0.weight"].view(-1)
    weight[7] = torch.nextafter(weight[7], torch.tensor(9.0))
    assert digest_of(tmp_path / "x.pt", backbone_state=changed) != first
    assert digest_of(tmp_path / "x.pt", backbone_state=state, preprocessing={**SPEC, "mean": 0.4}) != first


def sparse_state():
    return {name: value.to_sparse() for name, value in build_backbone("spherenet4").state_dict().items()}


def truncate(path):
    path.write_bytes(path.read_bytes()[:5000])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


class Hostile:
    def __reduce__(self):
        return (os.system, ("touch hacked",))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "not found; expected a checkpoint file"),
        (lambda path: (path.unlink(), os.mkfifo(path)), "not a regular file; expected a checkpoint file"),
        (truncate, "damaged or not a checkpoint"),
        (lambda path: path.write_bytes(b""), "damaged or not a checkpoint"),
        (lambda path: path.write_bytes(b"hello"), "damaged or not a checkpoint"),
        (lambda path: torch.save([1, 2], path), "holds a list, expected a checkpoint or a state dict"),
        (lambda path: torch.save({"a": 1}, path), "neither a checkpoint of this tool nor a bare state dict"),
        (lambda path: torch.save({}, path), "neither a checkpoint of this tool nor a bare state dict"),
        (
            lambda path: torch.save(torch.nn.Linear(2, 2).state_dict(), path),
            "no known network in its 2 tensors: weight (2, 2), bias (2,), ...; expected a state dict of insightface, ",
        ),
        (
            lambda path: torch.save(spherenet(4, image_size=112).state_dict(), path),
            "but it takes images of 112 px, expected 128 px in a bare state dict",
        ),
        (lambda path: save(path, step=None), "incomplete checkpoint: missing or of the wrong type: step"),
        (
            lambda path: save(path, backbone=["x"], config=3),
            "incomplete checkpoint: missing or of the wrong type: backbone, config",
        ),
        (
            lambda path: save(path, preprocessing={}),
            "preprocessing spec: fields ['color', 'degradation', 'jpeg_quality', ",
        ),
        (
            lambda path: save(path, preprocessing={**SPEC, "a\n\x1b[31m": 1}),
            r"preprocessing spec: fields ['a\\n\\x1b[31m'] are missing or unknown",
        ),
        (lambda path: save(path, preprocessing={**SPEC, 7: 1, "x": 1}), "preprocessing spec: "),
        (lambda path: save(path, preprocessing={**SPEC, "size": None}), "size is None, expected int"),
        (lambda path: save(path, preprocessing={**SPEC, "size": "128"}), "size is '128', expected int"),
        (lambda path: save(path, preprocessing={**SPEC, "size": True}), "size is True, expected int"),
        (lambda path: save(path, preprocessing={**SPEC, "size": 0}), "size is 0, expected 1 px or more"),
        (lambda path: save(path, preprocessing={**SPEC, "size": 10**400}), "preprocessing spec: size is 1000"),
        (lambda path: save(path, preprocessing={**SPEC, "mean": 10**400}), "preprocessing spec: "),
        (lambda path: save(path, preprocessing={**SPEC, "std": 0.0}), "std is 0.0, expected a finite number above 0"),
        (flip, "damaged or not a checkpoint"),
        (lambda path: (path.unlink(), path.mkdir()), "is a folder without config.json; expected a checkpoint file"),
        (lambda path: save(path, version=99), "checkpoint version 99, this tool reads 1"),
        (lambda path: save(path, backbone="vit"), "backbone 'vit' is unknown"),
        (
            lambda path: save(path, preprocessing={**SPEC, "size": 100}),
            "spherenet4 cannot take images of 100 px; choose a multiple of 16, such as 112 or 128",
        ),
        (lambda path: save(path, backbone="spherenet10"), "its weights do not fit spherenet10"),
        (lambda path: save(path, backbone="../../x\n"), r"backbone '../../x' is unknown"),
        (lambda path: save(path, preprocessing={**SPEC, "size": 10**6}), "size is 1000000 px, expected at most 1024"),
        (lambda path: save(path, preprocessing={**SPEC, "size": 1024}), "its weights do not fit spherenet4"),
        (lambda path: save(path, preprocessing={**SPEC, "mean": [0.5]}), "mean is [0.5], expected float"),
        (lambda path: save(path, backbone_state={}), "its weights do not fit spherenet4"),
        (lambda path: save(path, backbone_state={"0.weight": 3}), "its weights do not fit spherenet4"),
        (lambda path: save(path, backbone_state={7: torch.zeros(1)}), "its weights do not fit spherenet4"),
        (lambda path: save(path, backbone_state={"a\n\x1b[31m": torch.zeros(1)}), "its weights do not fit spherenet4"),
        (lambda path: save(path, backbone_state=sparse_state()), "its weights do not fit spherenet4"),
    ],
)
def test_an_invalid_file_is_a_one_line_error(tmp_path, damage, message):
    path = tmp_path / "x.pt"
    save(path)
    damage(path)
    with pytest.raises(CheckpointError) as error:
        load_network(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 600


def test_code_in_a_checkpoint_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"payload": Hostile()}, tmp_path / "torch.pt")
    torch.save({"payload": Hostile()}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(2, 2), tmp_path / "module.pt")
    save(tmp_path / "field.pt", config={"lr": Hostile()})
    (tmp_path / "plain.pt").write_bytes(pickle.dumps(Hostile()))
    for name in ("torch.pt", "old.pt", "module.pt", "field.pt", "plain.pt"):
        with pytest.raises(CheckpointError, match="refused: not a checkpoint, or it holds objects"):
            read_checkpoint(tmp_path / name)
    assert not (tmp_path / "hacked").exists()


def test_an_interrupted_save_keeps_the_previous_file(tmp_path, monkeypatch):
    path = tmp_path / "x.pt"
    save(path, step=1)
    monkeypatch.setattr(os, "replace", lambda *names: (_ for _ in ()).throw(OSError("power cut")))
    with pytest.raises(OSError, match="power cut"):
        save(path, step=2)
    assert read_checkpoint(path)["step"] == 1
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.pt"]


def test_checkpoints_are_in_the_order_of_their_steps(tmp_path):
    """From 10 million steps on, names have more digits: sorted as text, the newest one would be deleted first."""
    paths = [checkpoint_path(tmp_path, step) for step in (999, 9_999_999, 10_000_000)]
    paths[0].parent.mkdir()
    for path in paths:
        path.touch()
    assert checkpoints(tmp_path) == paths


def test_the_newest_checkpoint_of_all_runs(tmp_path):
    with pytest.raises(CheckpointError, match=r"no run with a checkpoint; run: lrfr train"):
        newest_checkpoint(tmp_path)
    for age, (run, step) in enumerate([("b", 5), ("a", 3), ("a", 4)]):
        path = checkpoint_path(tmp_path / run, step)
        save_checkpoint(path, {"step": step})
        os.utime(path, ns=(age, age))
    save_checkpoint(tmp_path / "a" / "best.pt", {"step": 3})
    assert newest_checkpoint(tmp_path) == checkpoint_path(tmp_path / "a", 4)


def test_the_remedy_for_a_damaged_checkpoint_depends_on_its_folder(tmp_path):
    """Only a run has a previous checkpoint."""
    in_run = checkpoint_path(tmp_path / "run", 7)
    in_run.parent.mkdir(parents=True)
    for path, remedy in ((in_run, "delete it to use the previous one"), (tmp_path / "mine.pt", "name another")):
        path.write_bytes(b"hello")
        with pytest.raises(CheckpointError) as error:
            read_checkpoint(path)
        assert str(error.value) == f"{path}: damaged or not a checkpoint; restore it, or {remedy}"


def test_a_failed_write_raises_the_system_error_and_leaves_no_file(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            save_checkpoint(tmp_path / "a.pt", {"weights": torch.zeros(1 << 20)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert list(tmp_path.iterdir()) == []
