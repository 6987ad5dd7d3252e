"""Folders in the layout of a Hugging Face repository: exact round trip, atomic writes, the model card."""

from __future__ import annotations

import json
import os
import re
import struct
import sys

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard

from model.backbones.spherenet import spherenet
from model.errors import ExportError
from model.formats.checkpoint import CheckpointError
from model.formats.export_huggingface import write_folder
from model.formats.network import load_network
from pipeline.spec import Preprocessing
from shards.files import temporary_path
from tests.networks import SMALL, TRAINING, save_small, small_backbone, write_small_folder
from tests.processes import REPOSITORY

FILES = ["README.md", "config.json", "model.safetensors", "preprocessor_config.json"]


def outputs(backbone):
    with torch.inference_mode():
        return backbone(torch.linspace(-1, 1, 2 * 3 * 32 * 32).reshape(2, 3, 32, 32))


def test_a_checkpoint_survives_the_round_trip_exactly(tmp_path):
    backbone = save_small(tmp_path / "x.pt")
    checkpoint = load_network(tmp_path / "x.pt")
    digest = write_folder(checkpoint, tmp_path / "net")
    exported = load_network(tmp_path / "net")
    assert digest == checkpoint.digest
    assert exported.provenance() == {**checkpoint.provenance(), "path": str(tmp_path / "net")}
    assert exported.spec == checkpoint.spec == SMALL
    assert torch.equal(outputs(exported.backbone), outputs(backbone))
    assert not exported.backbone.training
    assert exported.training == TRAINING
    assert sorted(entry.name for entry in (tmp_path / "net").iterdir()) == FILES
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["net", "x.pt"]


def test_the_weights_are_plain_safetensors(written):
    """Parses the file by hand: 8 bytes of length, a JSON header, the values."""
    data = (written / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    assert header.pop("__metadata__") == {"format": "pt"}
    state = small_backbone().state_dict()
    assert set(header) == set(state)
    for name, facts in header.items():
        first, last = facts["data_offsets"]
        values = np.frombuffer(data[8 + length + first : 8 + length + last], "<f4").reshape(facts["shape"])
        assert facts["dtype"] == "F32"
        assert np.array_equal(values, state[name].numpy())


def test_the_configuration_describes_the_network(written):
    config = json.loads((written / "config.json").read_text())
    assert re.fullmatch("[0-9a-f]{32}", config.pop("digest"))
    assert config == {
        "model_type": "lrfr",
        "format_version": 1,
        "backbone": "spherenet4",
        "backbone_options": {},
        "embedding_size": 512,
        "image_size": 32,
        "step": 7,
        "training": TRAINING,
    }
    processor = json.loads((written / "preprocessor_config.json").read_text())
    assert processor["preprocessing"] == SMALL.to_dict()
    assert (processor["size"], processor["image_mean"]) == ({"height": 32, "width": 32}, [0.5, 0.5, 0.5])


def test_the_same_network_gives_the_same_bytes(written, tmp_path):
    write_small_folder(tmp_path / "again")
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (written / name).read_bytes()


def test_the_export_of_a_bare_state_dict_states_the_assumed_spec_and_its_pooling(tmp_path):
    backbone = spherenet(10, pooling=True).eval()
    digest = write_small_folder(
        tmp_path / "net", backbone, name="spherenet10:pooling=true", step=None, training={}, spec=Preprocessing()
    )
    network = load_network(tmp_path / "net")
    assert torch.equal(outputs(network.backbone), outputs(backbone))
    assert network.spec == Preprocessing()
    assert network.provenance() == {
        "path": str(tmp_path / "net"),
        "step": None,
        "backbone": "spherenet10:pooling=true",
        "digest": digest,
    }
    assert json.loads((tmp_path / "net" / "config.json").read_text())["backbone_options"] == {"pooling": True}
    card = (tmp_path / "net" / "README.md").read_text()
    assert "| updates | not stated |" in card
    assert "The checkpoint does not state how the network was trained." in card


def test_the_model_card_is_valid(written):
    card = ModelCard.load(written / "README.md")
    assert card.data.to_dict() == {
        "library_name": "lrfr",
        "pipeline_tag": "image-feature-extraction",
        "license": "other",
        "license_name": "see-data-licence",
        "tags": ["face-recognition", "low-resolution", "spherenet4"],
    }
    for heading in ("# spherenet4 for", "## Training", "## Use", "## Intended use and limits", "## Data licence"):
        assert f"\n{heading}" in card.content
    (training,) = re.findall(r"```json\n(.*?)\n```", card.content, re.S)
    assert json.loads(training) == TRAINING


@pytest.mark.parametrize(
    ("spec", "alignment"),
    [
        (SMALL, "five points, similarity transform to template `seed`"),
        (Preprocessing.unaligned(size=32), "none: images are resized whole"),
    ],
)
def test_the_model_card_states_the_alignment(tmp_path, spec, alignment):
    write_small_folder(tmp_path / "net", spec=spec)
    assert f"\n| alignment | {alignment} |\n" in (tmp_path / "net" / "README.md").read_text()


def test_the_model_card_s_python_runs(written):
    (code,) = re.findall(r"```python\n(.*?)```", (written / "README.md").read_text(), re.S)
    names = {"images": np.zeros((2, 32, 32, 3), np.uint8)}
    exec(code.replace("PATH/TO/THIS/FOLDER", str(written)), names)
    assert names["embeddings"].shape == (2, 512)


def test_a_configuration_cannot_write_into_the_model_card(tmp_path):
    write_small_folder(tmp_path / "net", training={"backbone": "```\n# Approved by everybody\n```"})
    lines = (tmp_path / "net" / "README.md").read_text().splitlines()
    assert [line for line in lines if line.startswith(("# ", "```"))] == [
        "# spherenet4 for low-resolution face recognition",
        *["```json", "```", "```sh", "```", "```python", "```"],
    ]


def test_a_configuration_that_is_not_json_is_a_one_line_error(tmp_path):
    for training in ({"x": torch.zeros(1)}, {"x": float("nan")}):
        with pytest.raises(CheckpointError, match=r"x\.pt: its configuration holds values other than finite numbers"):
            write_small_folder(tmp_path / "net", training=training)
    assert list(tmp_path.iterdir()) == []


def test_an_earlier_export_is_replaced_and_an_empty_folder_filled(written, tmp_path):
    digest = write_small_folder(written, small_backbone(seed=1), step=8)
    (tmp_path / "empty").mkdir()
    write_small_folder(tmp_path / "empty")
    assert (load_network(written).digest, load_network(written).step) == (digest, 8)
    assert load_network(tmp_path / "empty").digest != digest
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["empty", "net"]


@pytest.mark.parametrize("other", [".git", "notes.txt"])
def test_a_folder_with_anything_else_in_it_is_refused(written, other):
    (written / other).write_text("precious")
    before = {entry.name: entry.read_bytes() for entry in written.iterdir()}
    with pytest.raises(ExportError) as error:
        write_small_folder(written, small_backbone(seed=1))
    assert str(error.value) == (
        f"{written}: exists and holds something else ({other!r}); choose another --out, or delete it"
    )
    assert {entry.name: entry.read_bytes() for entry in written.iterdir()} == before


def test_a_folder_of_another_model_is_refused(written):
    (written / "config.json").write_text('{"model_type": "vit"}')
    with pytest.raises(ExportError, match=r"holds something else \('config\.json'\)"):
        write_small_folder(written)


@pytest.mark.parametrize("failing", range(5))
def test_an_interrupted_export_keeps_the_earlier_one(written, tmp_path, monkeypatch, failing):
    """Interrupts each rename but the last: those of four files, then that of the earlier export."""
    digest, replace, calls = load_network(written).digest, os.replace, []

    def interrupted(*names):
        calls.append(names)
        if len(calls) == failing + 1:
            raise KeyboardInterrupt
        replace(*names)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_small_folder(written, small_backbone(seed=1))
    assert load_network(written).digest == digest
    assert [entry.name for entry in tmp_path.iterdir()] == ["net"]


def test_an_interruption_between_the_last_two_renames_restores_the_earlier_export(written, tmp_path, monkeypatch):
    digest, replace = load_network(written).digest, os.replace

    def interrupted(source, target):
        if source.name == "new":
            raise KeyboardInterrupt
        replace(source, target)

    monkeypatch.setattr(os, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_small_folder(written, small_backbone(seed=1))
    assert load_network(written).digest == digest
    assert [entry.name for entry in tmp_path.iterdir()] == ["net"]


def test_the_next_export_cleans_up_after_a_killed_one(written, tmp_path):
    killed = temporary_path(written)
    (killed / "new").mkdir(parents=True)
    temporary_path(killed / "new" / "model.safetensors").write_bytes(b"half")
    written.rename(killed / "old")
    write_small_folder(written)
    assert [entry.name for entry in tmp_path.iterdir()] == ["net"]


def test_a_missing_package_is_named(written, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)
    for attempt in (lambda: load_network(written), lambda: write_small_folder(written)):
        with pytest.raises(ExportError) as error:
            attempt()
        assert str(error.value) == f"safetensors is not installed; run: pip install --editable '{REPOSITORY}[export]'"
