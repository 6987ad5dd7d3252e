"""Damaged or forged run folders and settings: a named error, or the fault is ignored and the run continues."""

from __future__ import annotations

import os

import numpy as np
import pytest
import torch

from model.errors import CheckpointError
from model.formats.checkpoint import checkpoints, read_checkpoint, save_checkpoint
from model.training.config import TrainConfig, TrainingError
from model.training.evaluation import best_value
from model.training.recipes import as_toml, compose
from model.training.runlog import drop_rows, read_metrics
from model.training.state import new_run
from pipeline.load.sampler import LoaderState, SamplerError
from shards.errors import LrfrError
from tests.model.training.runs import CLASSES, SPEC, config, run_training

DEEP = "[" * 100_000


@pytest.mark.parametrize(
    "row",
    [
        '{"step": "x"}',
        '{"step": true}',
        '{"step": 1.5}',
        '{"step": null}',
        "[]",
        "3",
        "{}",
        DEEP,
        '{"step": 2, "a": []}',
        "\x00",
    ],
)
def test_a_damaged_row_of_metrics_ends_the_rows(tmp_path, row):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 1, "loss": 2.5}}\n{row}\n{{"step": 2}}\n')
    assert read_metrics(path) == [{"step": 1, "loss": 2.5}]
    assert drop_rows(path, after=9) == [{"step": 1, "loss": 2.5}]
    assert path.read_text() == '{"step": 1, "loss": 2.5}\n'


@pytest.mark.parametrize(
    "text",
    [DEEP, "[]", "3", '"x"', "{}", '{"metric": "a", "value": "x"}', '{"metric": "a", "value": 1' + "0" * 400 + "}", "\xff",
     '{"metric": "a", "value": true}', '{"metric": "a", "value": NaN}', '{"metric": ["a"], "value": 1}'],
)  # fmt: skip
def test_a_damaged_best_json_starts_a_new_comparison(tmp_path, capsys, text):
    (tmp_path / "best.pt").touch()
    (tmp_path / "best.json").write_text(text, encoding="latin-1")
    assert best_value(tmp_path, "a") == -np.inf
    assert "best.json: no best checkpoint by a" in capsys.readouterr().err


@pytest.mark.parametrize(
    "text",
    ["lr = " + "[" * 1000 + "]" * 1000, "a = " + "{a = " * 1000 + "1" + "}" * 1000, "lr = " + "9" * 5000, "\xff",
     "a." * 2000 + "b = 1", "lr = 1979-05-27", "lr = nan", "views = [[8]]", "[[lr]]", "lr = '''", "\x00", "lr = 0x" + "f" * 9999],
)  # fmt: skip
def test_odd_settings_are_one_line(tmp_path, text):
    (tmp_path / "x.toml").write_text(text, encoding="latin-1")
    with pytest.raises(TrainingError, match=r"x\.toml: ") as error:
        compose("seed", tmp_path / "x.toml", {})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("views", ["8x1000000000", "8-9999999999", "9" * 5000, "8x1000"])
def test_numbers_of_views_that_would_take_any_memory_are_refused(tmp_path, views):
    (tmp_path / "x.toml").write_text(f'views = "{views}"\n')
    with pytest.raises(
        TrainingError, match=r"x\.toml: .*expected sizes in px such as 128, 8-32, 12x2 or 8-32@surveillance"
    ):
        compose("seed", tmp_path / "x.toml", {})


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_settings_that_are_no_file_are_refused(tmp_path, make):
    make(tmp_path / "x.toml")
    with pytest.raises(TrainingError, match=r"x\.toml: not a regular file; expected a TOML file"):
        compose("seed", tmp_path / "x.toml", {})


@pytest.mark.parametrize(("count", "seed"), [(300, 0), pytest.param(20_000, 1, marks=pytest.mark.heavy)])
def test_damaged_settings_give_named_errors(tmp_path, count, seed):
    rng, path = np.random.default_rng(seed), tmp_path / "x.toml"
    good, refused = as_toml(TrainConfig(backbone="spherenet4", head="arcface:scale=32", best="a")).encode(), 0
    for _ in range(count):
        data = bytearray(good)
        for position in rng.integers(0, len(data), rng.integers(1, 4)).tolist():
            data[position] = rng.choice([data[position] ^ 1 << int(rng.integers(8)), *b"[]{}=.\"'9\n"])
        path.write_bytes(data)
        try:
            compose("seed", path, {})
        except LrfrError:
            refused += 1
    assert refused > count // 4


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    run = tmp_path_factory.mktemp("run")
    run_training(run, config(steps=3, ema=0.5))
    return read_checkpoint(checkpoints(run)[-1])


def without(mapping, name):
    return {key: value for key, value in mapping.items() if key != name}


FIRST = "0.weight"
WILD = {
    "a head without weights": lambda saved: {"head_state": {}},
    "a head whose weight is True": lambda saved: {"head_state": {**saved["head_state"], "weight": True}},
    "a head whose weight is a number": lambda saved: {
        "head_state": {**saved["head_state"], "weight": torch.tensor(1.0)}
    },
    "a head of another width": lambda saved: {"head_state": {"weight": torch.zeros(CLASSES, 3)}},
    "a head with mixed names": lambda saved: {"head_state": {**saved["head_state"], 3: 1}},
    "a backbone of another shape": lambda saved: {"backbone_state": {**saved["backbone_state"], FIRST: torch.zeros(3)}},
    "a backbone without a tensor": lambda saved: {"backbone_state": without(saved["backbone_state"], FIRST)},
    "a backbone with a number": lambda saved: {"backbone_state": {**saved["backbone_state"], FIRST: 3}},
    "averaged weights of another shape": lambda saved: {"averaged_state": {FIRST: torch.zeros(3)}},
    "an empty optimizer": lambda saved: {"optimiser_state": {}},
    "an optimizer without groups": lambda saved: {"optimiser_state": {**saved["optimiser_state"], "param_groups": []}},
    "an optimizer with a number for a group": lambda saved: {
        "optimiser_state": {**saved["optimiser_state"], "param_groups": [1]}
    },
    "an optimizer whose state is a number": lambda saved: {
        "optimiser_state": {**saved["optimiser_state"], "state": {0: 1.5}}
    },
    "an optimizer whose buffer is a number": lambda saved: {
        "optimiser_state": {**saved["optimiser_state"], "state": {0: {"momentum_buffer": 1.5}}}
    },
    "an optimizer with a buffer of another shape": lambda saved: {
        "optimiser_state": {**saved["optimiser_state"], "state": {0: {"momentum_buffer": torch.zeros(2, 2)}}}
    },
    "an optimizer with another buffer": lambda saved: {
        "optimiser_state": {**saved["optimiser_state"], "state": {0: {"exp_avg": torch.zeros(())}}}
    },
    "an optimizer of more weights": lambda saved: {
        "optimiser_state": {**saved["optimiser_state"], "state": {999: {"momentum_buffer": None}}}
    },
    "a config without steps": lambda saved: {"config": without(saved["config"], "steps")},
    "a config of text": lambda saved: {"config": dict.fromkeys(saved["config"], "x")},
}


@pytest.mark.parametrize("name", WILD)
def test_a_checkpoint_with_wild_fields_is_refused(saved, tmp_path, name):
    state = new_run(config(steps=5, ema=0.5), classes=CLASSES, preprocessing=SPEC)
    save_checkpoint(tmp_path / "x.pt", {**saved, **WILD[name](saved)})
    with pytest.raises((CheckpointError, TrainingError)) as error:
        state.restore(read_checkpoint(tmp_path / "x.pt"), tmp_path / "x.pt")
    assert "\n" not in str(error.value)


def test_the_checkpoint_itself_is_restored(saved, tmp_path):
    state = new_run(config(steps=5, ema=0.5), classes=CLASSES, preprocessing=SPEC)
    assert state.restore(saved, tmp_path / "x.pt") == 3
    assert saved["optimiser_state"]["state"]


@pytest.mark.parametrize(
    "changes",
    [
        {"epoch": "x"},
        {"epoch": None},
        {"step": 1.5},
        {"step": -1},
        {"epoch": 1 << 64},
        {"views": [3]},
        {"index_digest": 3},
    ],
)
def test_a_wild_loader_state_is_refused(changes):
    start = LoaderState(seed=0, global_batch=4, views=3, index_digest="x")
    assert start.resumed({**start.to_dict(), "epoch": 2, "step": 1}).epoch == 2
    with pytest.raises(SamplerError, match=r"loader state: |epoch and step"):
        start.resumed({**start.to_dict(), **changes})
    with pytest.raises(SamplerError, match="loader state: seed is missing or of the wrong type"):
        start.resumed({})
