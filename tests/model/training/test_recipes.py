"""Recipes, files of settings, and what overrides what."""

from __future__ import annotations

import pytest

from model.options import Choice, OptionError
from model.training.config import TrainConfig, TrainingError
from model.training.recipes import RECIPES, as_toml, compose


def test_initial_weights_of_a_recipe_are_for_new_runs(tmp_path):
    assert compose("quick", None, {}).init == "data"
    assert compose("quick", None, {"pretrained": "a.pt"}).init == "pytorch"
    (tmp_path / "from.toml").write_text('pretrained = "a.pt"\n')
    assert compose("quick", tmp_path / "from.toml", {}).init == "pytorch"
    with pytest.raises(OptionError, match="init data is for new weights, but --from"):
        compose("quick", None, {"pretrained": "a.pt", "init": "data"})


def test_a_saved_configuration_is_complete_and_is_read_back(tmp_path):
    for name in RECIPES:
        config = compose(name, None, {"head": "arcface", "best": "lfw/accuracy@8", "compile": True})
        (tmp_path / "all.toml").write_text(as_toml(config))
        assert compose("seed", tmp_path / "all.toml", {}) == config
        assert TrainConfig(**config.to_dict()) == config
    assert str(config.head) == "arcface:scale=64.0,margin=0.5,form=authors,sample=1.0,sampling=lrfr,seed=0"


def test_the_seed_recipe_has_the_settings_of_the_reference():
    config = compose("seed", None, {})
    assert config.to_dict() == {
        "backbone": "spherenet20",
        "pretrained": None,
        "freeze": 0,
        "init": "pytorch",
        "head": "amsoftmax:scale=30.0,margin=0.35,sample=1.0,sampling=lrfr,seed=0",
        "class_rows": "reference",
        "losses": "cross-entropy+hardest-triplet:weight=1.0,margin=1.0",
        "triplets": "global",
        "shard_head": False,
        "views": "128,8,12,16",
        "degrade": "exact",
        "batch_size": 128,
        "steps": 100_000,
        "optimizer": "sgd:momentum=0.9,nesterov=false",
        "lr": 0.1,
        "weight_decay": 5e-4,
        "schedule": "step:at=0.4/0.6/0.8,factor=0.1,warmup=0.0",
        "ema": 0.0,
        "clip_norm": 0.0,
        "precision": "fp32",
        "accumulate": 1,
        "activation_checkpointing": False,
        "max_skipped": 0,
        "compile": False,
        "seed": 0,
        "log_every": None,
        "save_every": 1000,
        "keep": 3,
        "eval_every": 1000,
        "best": None,
    }
    assert [config.learning_rate(step) for step in (0, 40_000, 60_000, 80_000)] == pytest.approx(
        [0.1, 0.01, 1e-3, 1e-4]
    )


def test_options_override_the_file_and_the_file_overrides_the_recipe(tmp_path):
    (tmp_path / "mine.toml").write_text('steps = 7\nlr = 1\nhead = "arcface"\n')
    config = compose("quick", tmp_path / "mine.toml", {"lr": 0.5, "head": None})
    assert (config.backbone, config.steps, config.lr) == (Choice("spherenet4"), 7, 0.5)
    assert config.head.name == "arcface"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stepps = 7", "train has no option 'stepps'; did you mean steps?"),
        ('steps = "7"', "steps is '7', expected a whole number at least 1"),
        ("compile = 1", "compile is 1, expected true or false"),
        ("batch_size = true", "batch_size is True, expected a whole number at least 1"),
        ("head = 3", "head is 3, expected text in quotes"),
        ("from = 'a.pt'", "train has no option 'from'; did you mean pretrained?"),
        ("batch-size = 3", "train has no option 'batch-size'; did you mean batch_size?"),
        ("color = 3", "train has no option 'color'; it has backbone, pretrained, "),
        (".".join(["a"] * 10_000) + " = 1", "more than 16,384 bytes; --print-config prints an example"),
        ("[train]\nlr = 1", "[train] is a table; write each setting on a line of its own, without a heading"),
        ("seed = 4294967296", "seed is 4294967296, expected a whole number at least 0 and at most 4294967295"),
        ("head = ['arcface']", "head is ['arcface'], expected text"),
        ("head = 'arcface:scale=0'", "x.toml: head arcface: scale is 0, expected a finite number above 0"),
        ("steps = 0", "x.toml: train: steps is 0, expected a whole number at least 1"),
        ("steps = ", "not TOML"),
        ("{", "not TOML"),
        ('{"stepps": 7}', "train has no option 'stepps'; did you mean steps?"),
        ('{"hidden_size": 512, "layers": {}}', "[layers] is a table"),
        ("{" * 9_000, "not TOML"),
    ],
)
def test_an_invalid_file_is_one_line(tmp_path, text, says):
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(TrainingError, match=r"x\.toml") as error:
        compose("seed", tmp_path / "x.toml", {})
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(TrainingError, match="No such file or directory; expected a TOML file"):
        compose("seed", tmp_path / "y.toml", {})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_file_may_have_the_mark_of_an_encoding(tmp_path, encoding):
    """As Notepad and PowerShell of Windows write it."""
    (tmp_path / "x.toml").write_text("steps = 7", encoding=encoding)
    assert compose("seed", tmp_path / "x.toml", {}).steps == 7


def test_an_unknown_recipe_is_an_error():
    with pytest.raises(TrainingError, match="recipe 'slow' is unknown; choose from seed, quick, modern"):
        compose("slow", None, {})
