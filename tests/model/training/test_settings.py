"""Choices, views, schedules and recipes as a user writes them."""

from __future__ import annotations

import math

import pytest
import torch

from model.backbones import BackboneError
from model.choice import Choice, ChoiceError, parse_choice
from model.options import OptionError
from model.training.config import TrainConfig, TrainingError
from model.training.recipes import RECIPES, as_toml, compose
from model.training.schedule import rate_share, resolved_schedule
from model.training.views import View, ViewError, parse_views


@pytest.mark.parametrize(
    ("text", "name", "options"),
    [
        ("ir50", "ir50", {}),
        (" arcface : scale = 32, margin=0.5 ", "arcface", {"scale": 32, "margin": 0.5}),
        ("spherenet20:pooling=true,dropout=1e-1", "spherenet20", {"pooling": True, "dropout": 0.1}),
        ("step:at=0.4/0.6,factor=0.1", "step", {"at": (0.4, 0.6), "factor": 0.1}),
        ("step:at=0.4/", "step", {"at": (0.4,)}),
        ("x:word=high", "x", {"word": "high"}),
    ],
)
def test_choices_are_read_and_written(text, name, options):
    choice = parse_choice(text)
    assert choice == Choice(name, options)
    assert parse_choice(str(choice)) == choice


@pytest.mark.parametrize("text", ["", ":a=1", "x:", "x:a", "x:a=", "x:=1", "x:a=1,a=2", "x:a=1,,b=2"])
def test_a_choice_that_cannot_be_read_is_one_line(text):
    with pytest.raises(ChoiceError, match="expected") as error:
        parse_choice(text)
    assert "\n" not in str(error.value)


def test_views_are_sizes_ranges_and_repetitions():
    assert parse_views("128,8-32, 12x2") == (View(128, 128), View(8, 32), View(12, 12), View(12, 12))
    assert [view.name for view in parse_views("128,8-32")] == ["128", "8-32"]


@pytest.mark.parametrize("text", ["", "8,", "1", "32-8", "8-", "-8", "8x0", "8x", "a", "8.5", "\u00b2", "8 12"])
def test_views_that_cannot_be_read_are_one_line(text):
    with pytest.raises(ViewError, match="views '") as error:
        parse_views(text)
    assert "\n" not in str(error.value)


def shares(text, steps=10):
    schedule = resolved_schedule(parse_choice(text))
    return [rate_share(schedule, step, steps) for step in range(steps)]


def test_schedules():
    assert shares("step:at=0.4/0.8") == pytest.approx([1] * 4 + [0.1] * 4 + [0.01] * 2)
    assert shares("step:at=0.5,factor=0.5") == pytest.approx([1] * 5 + [0.5] * 5)
    assert shares("constant") == [1.0] * 10
    assert shares("constant:warmup=0.4") == pytest.approx([0.25, 0.5, 0.75] + [1] * 7)
    cosine = shares("cosine:least=0.2,warmup=0.2")
    expected = [0.5, 1.0] + [0.2 + 0.8 * (1 + math.cos(math.pi * done / 8)) / 2 for done in range(8)]
    assert cosine == pytest.approx(expected)


def test_a_saved_configuration_says_all_and_is_read_back(tmp_path):
    for name in RECIPES:
        config = compose(name, None, {"head": "arcface", "best": "lfw/accuracy@8", "compile": True})
        (tmp_path / "all.toml").write_text(as_toml(config))
        assert compose("seed", tmp_path / "all.toml", {}) == config
        assert TrainConfig(**config.to_dict()) == config
    assert config.head == "arcface:scale=64.0,margin=0.5,sample=1.0,seed=0"


def test_the_seed_recipe_is_the_reference_s():
    config = compose("seed", None, {})
    assert (config.backbone, config.head.split(",sample")[0]) == ("spherenet20", "amsoftmax:scale=30.0,margin=0.35")
    assert config.losses == "cross-entropy+hardest-triplet:weight=1.0,margin=1.0"
    assert (config.views, config.batch_size, config.steps) == ("128,8,12,16", 128, 100_000)
    assert (config.optimizer, config.lr, config.weight_decay) == ("sgd:momentum=0.9,nesterov=false", 0.1, 5e-4)
    assert [config.learning_rate(step) for step in (0, 40_000, 60_000, 80_000)] == pytest.approx(
        [0.1, 0.01, 1e-3, 1e-4]
    )
    assert (config.degrade, config.precision, config.init) == ("exact", "fp32", "pytorch")


def test_options_go_over_the_file_and_the_file_over_the_recipe(tmp_path):
    (tmp_path / "mine.toml").write_text('steps = 7\nlr = 1\nhead = "arcface"\n')
    config = compose("quick", tmp_path / "mine.toml", {"lr": 0.5, "head": None})
    assert (config.backbone, config.steps, config.lr) == ("spherenet4", 7, 0.5)
    assert config.head.startswith("arcface")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("stepps = 7", "stepps is no setting; there are backbone, batch_size"),
        ('steps = "7"', "steps is '7'; expected a number"),
        ("compile = 1", "compile is 1; expected true or false"),
        ("batch_size = true", "batch_size is True; expected a number"),
        ("head = 3", "head is 3; expected text in quotes"),
        ("steps = ", "not TOML"),
    ],
)
def test_a_file_that_is_not_right_is_one_line(tmp_path, text, says):
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(TrainingError, match=r"x\.toml") as error:
        compose("seed", tmp_path / "x.toml", {})
    assert says in str(error.value)
    assert "\n" not in str(error.value)
    with pytest.raises(TrainingError, match="No such file or directory; expected a TOML file"):
        compose("seed", tmp_path / "y.toml", {})


@pytest.mark.parametrize(
    ("changes", "kind", "says"),
    [
        ({"head": "cosface"}, OptionError, "head 'cosface' is unknown; choose from softmax"),
        ({"head": "arcface:m=0.5"}, OptionError, "head arcface has no option 'm'; it has scale, margin, sample, seed"),
        ({"losses": "triplet"}, OptionError, "loss 'triplet' is unknown; choose from cross-entropy"),
        ({"losses": "hardest-triplet"}, OptionError, "expected each term once, and cross-entropy or focal among them"),
        ({"losses": "focal+cross-entropy"}, OptionError, "expected each term once"),
        ({"losses": "focal:gamma=-1"}, OptionError, "loss focal: gamma is -1, expected a finite number at least 0"),
        ({"optimizer": "lion"}, OptionError, "optimizer 'lion' is unknown; choose from sgd, adamw"),
        (
            {"schedule": "step:at=2"},
            OptionError,
            "schedule step: at is 2, expected a finite number at least 0 and at most 1",
        ),
        ({"backbone": "vgg"}, BackboneError, "backbone 'vgg' is unknown; choose from spherenet4"),
        ({"backbone": "mobilefacenet:pooling=true"}, BackboneError, "mobilefacenet has no option 'pooling'"),
    ],
)
def test_choices_that_there_are_not_are_refused(changes, kind, says):
    with pytest.raises(kind) as error:
        TrainConfig(**changes)
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_an_unknown_recipe_is_refused():
    with pytest.raises(TrainingError, match="recipe 'slow' is unknown; choose from seed, quick, modern"):
        compose("slow", None, {})


def test_nothing_of_torch_s_state_is_touched_by_reading_settings():
    before = torch.get_rng_state()
    compose("modern", None, {})
    assert torch.equal(torch.get_rng_state(), before)
