"""Damaged or hostile folders in the layout of a Hugging Face repository: one line, and nothing is executed."""

from __future__ import annotations

import json
import os
import pickle
import struct

import numpy as np
import pytest
import torch

from model.formats.checkpoint import CheckpointError
from model.formats.network import load_network
from tests.networks import SMALL


def edit(file, **changes):
    """Changes fields of a JSON file; None deletes."""

    def change(folder):
        content = {**json.loads((folder / file).read_text()), **changes}
        (folder / file).write_text(json.dumps({name: value for name, value in content.items() if value is not None}))

    return change


def put(file, data):
    return lambda folder: (folder / file).write_bytes(data)


def tensors(header, numbers=b""):
    text = json.dumps(header).encode()
    return put("model.safetensors", struct.pack("<Q", len(text)) + text + numbers)


def cut(size):
    return lambda folder: os.truncate(folder / "model.safetensors", size)


def flip(folder):
    path = folder / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1000] ^= 0xFF
    path.write_bytes(data)


class Hostile:
    def __reduce__(self):
        return (os.system, ("touch hacked",))


ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
UNREADABLE = "model.safetensors: damaged or not safetensors"
DAMAGE = [
    (lambda folder: (folder / "config.json").unlink(), "is a folder without config.json; expected a checkpoint file"),
    (lambda folder: (folder / "model.safetensors").unlink(), "model.safetensors: not found; export the folder again"),
    (lambda folder: (folder / "preprocessor_config.json").unlink(), "preprocessor_config.json: not found"),
    (put("config.json", b""), "config.json: not JSON (Expecting value"),
    (put("config.json", b"\xff\xfe\x00"), "config.json: not JSON ("),
    (put("config.json", b"[" * 100_000), "config.json: not JSON ("),
    (put("config.json", b" " * (2 << 20)), "config.json: 2,097,152 bytes, expected a JSON object of at most 1,048,576"),
    (put("config.json", b"[1, 2]"), "config.json: holds a list, expected a JSON object"),
    (put("preprocessor_config.json", b"3"), "preprocessor_config.json: holds a int, expected a JSON object"),
    (put("config.json", b"{}"), "config.json: model_type is None, expected 'lrfr'; name a checkpoint file"),
    (edit("config.json", model_type="x\n\x1b[31m"), r"config.json: model_type is 'x\n\x1b[31m', expected 'lrfr'"),
    (edit("config.json", format_version=99), "config.json: format version 99, this tool reads 1"),
    (edit("config.json", digest=None, backbone=None), "fields missing or of the wrong type: backbone, digest"),
    (edit("config.json", backbone=["x"], image_size="1"), "fields missing or of the wrong type: backbone, image_size"),
    (edit("config.json", embedding_size=128), "config.json: embedding_size is 128, expected 512"),
    (edit("config.json", backbone="../../etc/passwd"), "backbone '../../etc/passwd' is unknown; choose from"),
    (edit("config.json", backbone_options={"depth": 10**9}), "spherenet4 has no option 'depth'; leave it out"),
    (edit("config.json", backbone_options={"pooling": True}), "its weights do not fit spherenet4:pooling=true ("),
    (edit("config.json", backbone="spherenet10"), "its weights do not fit spherenet10 ("),
    (
        edit("config.json", image_size=48),
        "preprocessor_config.json: preprocessing is not a spec for 48 px, the image_size in config.json",
    ),
    (edit("config.json", digest="0" * 32), "damaged or edited (the digest in its config.json does not match)"),
    (edit("preprocessor_config.json", preprocessing=None), "preprocessing is not a spec for 32 px"),
    (edit("preprocessor_config.json", preprocessing=[32]), "preprocessing is not a spec for 32 px"),
    (
        edit("preprocessor_config.json", preprocessing={**SMALL.to_dict(), "mean": 0.4}),
        "damaged or edited (the digest in its config.json does not match)",
    ),
    (
        edit("preprocessor_config.json", preprocessing={"size": 32, "mean": [[]]}),
        "preprocessing spec: fields ['color', 'degradation', 'jpeg_quality', 'std', 'template', 'warp'] are missing",
    ),
    (
        edit("preprocessor_config.json", preprocessing={**SMALL.to_dict(), "mean": [[]]}),
        "preprocessing spec: mean is [[]], expected float",
    ),
    (cut(0), UNREADABLE),
    (cut(7), UNREADABLE),
    (cut(500), UNREADABLE),
    (cut(5000), UNREADABLE),
    (flip, "damaged or edited (the digest in its config.json does not match)"),
    (put("model.safetensors", b"hello, this is not a header"), UNREADABLE),
    (put("model.safetensors", struct.pack("<Q", 1 << 60) + b"{}"), UNREADABLE),
    (put("model.safetensors", struct.pack("<Q", 200 << 20) + b" " * 100), UNREADABLE),
    (put("model.safetensors", pickle.dumps(Hostile())), UNREADABLE),
    (tensors([1]), UNREADABLE),
    (tensors({"0.weight": 3}), UNREADABLE),
    (tensors({"0.weight": {**ONE, "data_offsets": [0, 1 << 40]}}), UNREADABLE),
    (tensors({"0.weight": {**ONE, "shape": [1 << 62, 1 << 62]}}, bytes(4)), UNREADABLE),
    (tensors({"0.weight": {**ONE, "dtype": "PICKLE"}}, bytes(4)), UNREADABLE),
    (tensors({}), "its weights do not fit spherenet4 ("),
    (tensors({"../../../outside": ONE}, bytes(4)), "its weights do not fit spherenet4 ("),
    (tensors({"a\n\x1b[31m": ONE}, bytes(4)), "its weights do not fit spherenet4 ("),
    (lambda folder: torch.save(Hostile(), folder / "model.safetensors"), UNREADABLE),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGE)
def test_a_damaged_or_hostile_folder_is_a_one_line_error(written, monkeypatch, tmp_path, damage, message):
    monkeypatch.chdir(tmp_path)
    damage(written)
    with pytest.raises(CheckpointError) as error:
        load_network(written)
    text = str(error.value)
    assert text.startswith(str(written))
    assert message in text
    assert text.isprintable()
    assert len(text) < 500
    assert not (tmp_path / "hacked").exists()


def test_flipped_bits_of_the_header_are_detected(written):
    path = written / "model.safetensors"
    data, rng = path.read_bytes(), np.random.default_rng(0)
    header = 8 + struct.unpack("<Q", data[:8])[0]
    for _ in range(60):
        damaged = bytearray(data)
        damaged[rng.integers(header)] ^= 1 << rng.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError) as error:
            load_network(written)
        assert str(error.value).isprintable()


def test_other_files_in_the_folder_are_not_opened(written, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(Hostile(), written / "pytorch_model.bin")
    (written / "modeling.py").write_text("open('hacked', 'w')")
    edit("config.json", auto_map={"AutoModel": "modeling.Model"})(written)
    load_network(written)
    assert not (tmp_path / "hacked").exists()


def test_a_huge_network_is_rejected_before_it_takes_memory(written):
    edit("config.json", image_size=1024)(written)
    edit("preprocessor_config.json", preprocessing={**SMALL.to_dict(), "size": 1024})(written)
    with pytest.raises(CheckpointError, match="its weights do not fit spherenet4"):
        load_network(written)  # building it would take 4 GB
    edit("config.json", image_size=4096)(written)
    edit("preprocessor_config.json", preprocessing={**SMALL.to_dict(), "size": 4096})(written)
    with pytest.raises(CheckpointError, match="preprocessing spec: size is 4096 px, expected at most 1024"):
        load_network(written)
