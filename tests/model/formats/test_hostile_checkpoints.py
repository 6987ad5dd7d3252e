"""Damaged or forged checkpoints: one named error in little time and memory."""

from __future__ import annotations

import io
import json
import pickle
import resource
import zipfile

import numpy as np
import pytest
import torch

from model.backbones import build_backbone
from model.formats.checkpoint import CheckpointError, checkpoint_path, checkpoints, read_checkpoint, save_checkpoint
from model.formats.network import load_network
from pipeline.spec import Preprocessing
from shards.errors import LrfrError

VAST = torch.ones(1).expand(1 << 20, 1 << 18)  # 2^38 values, of which 4 bytes are saved
STATE = build_backbone("spherenet4", image_size=32).state_dict()


def content(**changes):
    fields = {
        "step": 7,
        "backbone": "spherenet4",
        "backbone_state": STATE,
        "head_state": {},
        "optimiser_state": {},
        "loader_state": {"step": 7},
        "config": {"steps": 9},
        "preprocessing": Preprocessing(size=32).to_dict(),
        **changes,
    }
    return {name: value for name, value in fields.items() if value is not ...}


def peak_kb():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def recompressed(source, target, level=9):
    """The same members, compressed."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=level) as new:
        for member in old.infolist():
            new.writestr(member.filename, old.read(member))


def test_a_small_file_that_unpacks_to_a_large_one_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(1 << 24)}, tmp_path / "large.pt")  # 64 MB
    recompressed(tmp_path / "large.pt", tmp_path / "bomb.pt", level=1)
    (tmp_path / "large.pt").unlink()
    assert (tmp_path / "bomb.pt").stat().st_size < 1 << 20
    before = peak_kb()
    with pytest.raises(CheckpointError, match=r"bomb\.pt: refused: it unpacks to more than its size"):
        read_checkpoint(tmp_path / "bomb.pt")
    assert peak_kb() - before < 20 << 10


def test_members_that_share_their_bytes_are_refused(tmp_path):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        archive.writestr("a/data/0", bytes(1 << 20))
        member = archive.infolist()[0]
        for number in range(1, 50):
            copy = zipfile.ZipInfo(f"a/data/{number}")
            copy.header_offset, copy.file_size, copy.compress_size, copy.CRC = 0, member.file_size, 1 << 20, member.CRC
            archive.filelist.append(copy)
    (tmp_path / "x.pt").write_bytes(stream.getvalue())
    with pytest.raises(CheckpointError, match=r"x\.pt: refused: it unpacks to more than its size"):
        read_checkpoint(tmp_path / "x.pt")


def test_an_old_file_that_states_a_huge_storage_is_refused(tmp_path):
    torch.save({"weight": torch.zeros(8)}, tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    data = (tmp_path / "x.pt").read_bytes()
    assert data.count(b"K\x08") >= 2
    (tmp_path / "x.pt").write_bytes(data.replace(b"K\x08", b"\x8a\x05\x00\x00\x00\x00\x04"))  # 2^34
    before = peak_kb()
    with pytest.raises(CheckpointError, match=r"x\.pt: damaged or not a checkpoint"):
        read_checkpoint(tmp_path / "x.pt")
    assert peak_kb() - before < 50 << 10


def test_tensors_that_repeat_their_values_are_refused(tmp_path):
    for number, value in enumerate(
        [{"a": VAST}, content(version=VAST), content(head_state={"weight": [VAST]}), [VAST]]
    ):
        torch.save(value, tmp_path / f"{number}.pt")
        assert (tmp_path / f"{number}.pt").stat().st_size < 20 << 20
        with pytest.raises(
            CheckpointError, match=rf"{number}\.pt: refused: a tensor of 274,877,906,944 values has fewer"
        ):
            read_checkpoint(tmp_path / f"{number}.pt")
    torch.save({"a": torch.empty(3, device="meta")}, tmp_path / "meta.pt")
    with pytest.raises(CheckpointError, match=r"meta\.pt: "):
        read_checkpoint(tmp_path / "meta.pt")


def test_views_and_shared_tensors_are_read(tmp_path):
    weight = torch.arange(12.0).reshape(3, 4)
    save_checkpoint(tmp_path / "x.pt", content(head_state={"a": weight, "b": weight.T, "c": weight[1:], "d": weight}))
    state = read_checkpoint(tmp_path / "x.pt")["head_state"]
    assert torch.equal(state["b"], weight.T)
    assert torch.equal(state["c"], weight[1:])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 3}, ""),
        ({"version": torch.ones(1)}, "checkpoint version of type Tensor, this tool reads 1"),
        ({"version": True}, "checkpoint version True, this tool reads 1"),
        ({"version": ...}, "checkpoint version None, this tool reads 1"),
        ({"step": -5}, "step is -5, expected 0 to 1000000000000"),
        ({"step": 10**30}, "step is 1000000000000000000000000000000, expected"),
        ({"step": True}, "step is True, expected"),
        ({"trained_on": 3}, "missing or of the wrong type: trained_on"),
        ({"averaged_state": torch.ones(2)}, "missing or of the wrong type: averaged_state"),
        ({"center_state": []}, "missing or of the wrong type: center_state"),
        ({"loader_state": {"views": torch.zeros(3)}}, "loader_state contains a tensor, expected plain values"),
        ({"config": {"lr": [{"x": torch.zeros(3)}]}}, "config contains a tensor, expected plain values"),
        ({"preprocessing": {"size": torch.ones(2)}}, "preprocessing contains a tensor, expected plain values"),
        ({"backbone": "spherenet4:dropout=" + "9" * 5000}, "dropout of spherenet4 is inf"),
        ({"backbone_state": {"\u00b2.weight": torch.zeros(1)}}, "its weights do not fit spherenet4"),
    ],
)
def test_wild_fields_are_named(tmp_path, changes, message):
    path = tmp_path / "x.pt"
    torch.save(content(**{"format": "lrfr-checkpoint", "version": 1, **changes}), path)
    with pytest.raises(CheckpointError) as error:
        load_network(path)
    assert str(error.value).startswith(f"{path}: ")
    assert message in str(error.value)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize("name", ["\u00b2.weight", "9" * 5000 + ".weight", "", "\ud800", "a\nb", ".", 7, (1, 2), None])
def test_wild_names_in_a_bare_state_dict_are_named(tmp_path, name):
    torch.save({name: torch.zeros(3), "1.weight": torch.zeros(2)}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=r"x\.pt: "):
        load_network(tmp_path / "x.pt")


def test_other_files_in_the_folder_of_checkpoints_are_ignored(tmp_path):
    save_checkpoint(checkpoint_path(tmp_path, 3), content())
    for name in ("0x.pt", "1 copy.pt", "12.5.pt", "2\u00b2.pt"):
        (tmp_path / "checkpoints" / name).write_text("")
    assert checkpoints(tmp_path) == [checkpoint_path(tmp_path, 3)]


@pytest.mark.parametrize("old", [False, True])
@pytest.mark.parametrize(("count", "seed"), [(60, 0), pytest.param(1500, 1, marks=pytest.mark.heavy)])
def test_damaged_files_give_named_errors(tmp_path, old, count, seed):
    """One to three changed bytes, most of them in the pickle and the directory of the archive."""
    rng, path = np.random.default_rng(seed), tmp_path / "x.pt"
    small = content(backbone_state={name: value[:1, :1] for name, value in STATE.items() if value.dim() > 1})
    torch.save({"format": "lrfr-checkpoint", "version": 1, **small}, path, _use_new_zipfile_serialization=not old)
    good, refused = path.read_bytes(), 0
    for _ in range(count):
        data = bytearray(good)
        for position in rng.integers(0, len(data), rng.integers(1, 4)).tolist():
            data[position] ^= 1 << int(rng.integers(8))
        path.write_bytes(data[: int(rng.integers(len(data)))] if rng.random() < 0.1 else data)
        try:
            load_network(path)
        except LrfrError:
            refused += 1
    assert refused == count  # its weights do not belong to spherenet4


@pytest.mark.parametrize(("count", "seed"), [(60, 0), pytest.param(1500, 1, marks=pytest.mark.heavy)])
def test_wild_values_anywhere_give_named_errors(tmp_path, count, seed):
    rng, path = np.random.default_rng(seed), tmp_path / "x.pt"
    values = [None, True, -1, 10**400, 1e400, "", "x" * 9999, "\x1b", [], {}, (1,), b"x", torch.ones(2), VAST, VAST[:0]]
    good, refused = {"format": "lrfr-checkpoint", "version": 1, **content()}, 0
    for _ in range(count):
        changed = dict(good)
        name = list(good)[int(rng.integers(len(good)))]
        value = values[int(rng.integers(len(values)))]
        if isinstance(good[name], dict) and good[name] and rng.random() < 0.8:
            key = list(good[name])[int(rng.integers(len(good[name])))]
            changed[name] = {**good[name], key: value}
        else:
            changed[name] = value
        torch.save(changed, path)
        try:
            load_network(path)
        except LrfrError:
            refused += 1
    assert refused > count // 3


def test_pickles_of_other_programs_are_refused(tmp_path):
    for number, value in enumerate([{"a": bytearray(3)}, {1, 2}, [[[]]] * 3, "text", 3.5, None]):
        (tmp_path / f"{number}.pt").write_bytes(pickle.dumps(value))
        with pytest.raises(CheckpointError, match=rf"{number}\.pt: "):
            load_network(tmp_path / f"{number}.pt")
    (tmp_path / "x.json").write_text(json.dumps({"a": 1}))
    with pytest.raises(CheckpointError, match=r"x\.json: "):
        load_network(tmp_path / "x.json")
